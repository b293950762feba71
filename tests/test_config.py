"""Configs: what is taken, and what each kind of mistake is told, in one line."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from worldsim import config as config_module
from worldsim.config import (
    differences,
    load_config,
    resolve_config_path,
    save_yaml,
    shipped_configs,
    to_dict,
)
from worldsim.errors import UserError


@dataclass
class Model:
    kind: Literal["dit", "gpt"] = "dit"
    depth: int = 4
    rate: float = 1e-3
    name: str = "small"
    merge: list[int] = field(default_factory=lambda: [2, 2])
    crop: list[int] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    model: Model = field(default_factory=Model)
    teacher: Model | None = None
    seed: int = 0
    resume: bool = True
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {self.seed}")


def yaml_file(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def error_of(path: Path | None = None, *overrides: str) -> str:
    """The message of the error that loading raises; it must be a single line."""
    with pytest.raises(UserError) as caught:
        load_config(Run, path, overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_defaults() -> None:
    assert load_config(Run) == Run()


def test_overrides_win_over_file_and_file_over_defaults(tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "seed: 3\nmodel: {depth: 8, rate: 3e-4}\n")
    loaded = load_config(Run, path, ["model.depth=2", "model.depth=6"])
    assert loaded == Run(seed=3, model=Model(depth=6, rate=3e-4))
    assert isinstance(loaded.model, Model)


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_an_empty_file_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert load_config(Run, yaml_file(tmp_path, text)) == Run()


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.merge=[1, 4]", Run(model=Model(merge=[1, 4]))),
        ("model.crop=[1,2,3,4]", Run(model=Model(crop=[1, 2, 3, 4]))),
        ("model.crop=null", Run()),
        ("model.kwargs.deep={a: [1, x]}", Run(model=Model(kwargs={"deep": {"a": [1, "x"]}}))),
        ("model={depth: 1, name: b}", Run(model=Model(depth=1, name="b"))),
        ("teacher.depth=9", Run(teacher=Model(depth=9))),
        ("model.name=a=b", Run(model=Model(name="a=b"))),
        ("model.name=''", Run(model=Model(name=""))),
        ("model.name=12", Run(model=Model(name="12"))),
        ("model.kind=gpt", Run(model=Model(kind="gpt"))),
        ("model.rate=1", Run(model=Model(rate=1.0))),
        ("resume=false", Run(resume=False)),
        ("limit=1_000", Run(limit=1000)),
        ("seed=${model.depth}", Run(seed=4)),
    ],
)
def test_what_an_override_can_say(override: str, expected: Run) -> None:
    assert load_config(Run, None, [override]) == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dept=3", "model: Key 'dept' not in 'Model'. Did you mean: 'depth'?"),
        ("mdel.depth=3", "Key 'mdel' not in 'Run'. Did you mean: 'model'?"),
        ("zzz=3", "Key 'zzz' not in 'Run'. Its keys: model, teacher, seed, resume, limit"),
        ("teacher.dept=3", "Key 'dept' not in 'Model'. Did you mean: 'depth'?"),
        ("--seed=3", "Key '--seed' not in 'Run'. Did you mean: 'seed'?"),
        ("model.depth=deep", "model.depth: Value 'deep' of type 'str' could not be converted to Integer"),
        ("model.depth=2.5", "model.depth: Value '2.5' of type 'float' could not be converted to Integer"),
        ("model.depth=true", "model.depth: Value 'True' of type 'bool' could not be converted to Integer"),
        ("model.depth=null", "model.depth: Incompatible value 'None' for field of type 'int'"),
        ("model.depth=[1]", "model.depth: expected one value of type int, got [1]"),
        ("model.rate=fast", "model.rate: Value 'fast' of type 'str' could not be converted to Float"),
        ("model.kind=dot", "model.kind: Invalid value 'dot', expected one of ['dit', 'gpt']"),
        ("model.name={a: 1}", "model.name: expected one value of type str, got {'a': 1}"),
        ("model.merge=2", "model.merge: expected a list such as [1, 2], got 2"),
        ("model.merge.0=2", "model.merge: expected a list such as [1, 2], got {"),
        ("model.merge=[1, [2]]", "model.merge[1]: expected one value of type int, got [2]"),
        ("model.crop=[1, a]", "model.crop[1]: Value 'a' of type 'str' could not be converted to Integer"),
        ("model.kwargs=7", "model.kwargs: expected keys and values, such as {name: 1}, got 7"),
        ("model=3", "model: expected keys below it (kind, depth, rate, name, merge, crop, kwargs), got 3"),
        ("model=null", "model: field 'model' is not Optional"),
        ("seed.x=3", "seed: expected one value of type int, got {'x': 3}"),
        ("seed=???", "seed: no value; give one in place of ???"),
        ("seed=${nothing}", "seed: Interpolation key 'nothing' not found"),
        ("model.name=[", "not valid YAML: "),
        ("model.name=${", "no viable alternative at input '${'"),
        ("resume=maybe", "resume: Value 'maybe' is not a valid bool (type str)"),
        ("seed=-1", "seed: expected 0 or more, got -1"),
        ("seed", "expected key=value, such as seed=3"),
        ("=3", "expected key=value, such as seed=3"),
        ("model..depth=3", "expected key=value, such as seed=3"),
        ("model[depth]=3", "expected key=value, such as seed=3"),
        ("seed =3", "expected key=value, such as seed=3"),
        ("seed=", "no value; write seed=null for none or seed=\"''\" for an empty text"),
    ],
)
def test_a_bad_override_is_named_and_explained(override: str, message: str) -> None:
    text = error_of(None, override)
    assert override in text
    assert message in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {dept: 3}", ": model: Key 'dept' not in 'Model'. Did you mean: 'depth'?"),
        ("model:\n  depth: x\n", ": model.depth: Value 'x' of type 'str' could not be converted to Integer"),
        ("seed: 1\nmodel:\n  depth: 1\n  depth: 2\n", ", line 4: not valid YAML: found duplicate key depth"),
        ("seed: [1", "not valid YAML: did not find expected ',' or ']'"),
        ("model: !!python/object:os.system {}", "not valid YAML: could not determine a constructor"),
        ("seed: 1\n---\nseed: 2\n", ", line 2: not valid YAML: but found another document"),
        ("[1, 2]", ": expected lines of `key: value`, got [1, 2]"),
        ("17", ": expected lines of `key: value`, got '17'"),
        ("hello", ": Key 'hello' not in 'Run'"),
        ("model: {name: ${}", "not valid YAML"),
        ("seed: ???", ": seed: no value; give one in place of ???"),
    ],
)
def test_a_bad_file_is_named_and_explained(tmp_path: Path, text: str, message: str) -> None:
    path = yaml_file(tmp_path, text)
    error = error_of(path)
    assert error.startswith(str(path))
    assert message in error


def test_an_error_in_an_override_names_the_override_not_the_file(tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "seed: 1\n")
    assert error_of(path, "model.depth=3", "sede=2").startswith("override 'sede=2': ")


def test_no_text_no_file_and_a_folder(tmp_path: Path) -> None:
    binary = tmp_path / "picture.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in error_of(binary)
    assert f"config '{tmp_path / 'none.yaml'}' does not exist" in error_of(tmp_path / "none.yaml")
    assert "cannot be read" in error_of(tmp_path)


def test_a_field_without_default_must_be_given() -> None:
    @dataclass
    class Needy:
        folder: str

    with pytest.raises(UserError, match="folder: no value; it has no default, so give one"):
        load_config(Needy)
    assert load_config(Needy, None, ["folder=x"]).folder == "x"


# Names and paths


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shipped"
    folder.mkdir()
    for name in ("quickstart", "take_cover"):
        (folder / f"{name}.yaml").write_text("seed: 5\n")
    monkeypatch.setattr(config_module, "SHIPPED_FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_name_finds_the_shipped_config_even_beside_a_folder_of_that_name(shipped: Path) -> None:
    Path("quickstart").mkdir()
    assert resolve_config_path("quickstart") == shipped / "quickstart.yaml"
    assert load_config(Run, resolve_config_path("quickstart")).seed == 5


def test_a_path_finds_the_file(shipped: Path, tmp_path: Path) -> None:
    path = yaml_file(tmp_path, "seed: 1\n")
    assert resolve_config_path(path) == path
    assert resolve_config_path("run.yaml") == Path("run.yaml")


@pytest.mark.parametrize("name", ["quickstrt", "configs/quickstrt.yaml", "quickstrt.yaml"])
def test_an_unknown_config_lists_the_shipped_ones(shipped: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve_config_path(name)
    message = str(caught.value)
    assert name in message
    assert "Did you mean: 'quickstart'?" in message
    assert message.endswith("one of: quickstart, take_cover")


def test_every_shipped_config_loads() -> None:
    workflow = pytest.importorskip("worldsim.workflow.config", exc_type=ModuleNotFoundError)
    assert "quickstart" in shipped_configs()
    for name in shipped_configs():
        loaded = load_config(workflow.RunConfig, resolve_config_path(name))
        assert isinstance(loaded, workflow.RunConfig), name


# To disk and back


def test_saved_and_loaded_again_is_the_same(tmp_path: Path) -> None:
    run = Run(
        seed=7,
        teacher=Model(crop=[1, 2, 3, 4], kwargs={"a": None, "b": [True, 1e-5], "c": {"d": "12"}}),
        model=Model(name="yes: no", rate=1e-7),
    )
    save_yaml(run, tmp_path / "new" / "config.yaml")
    assert load_config(Run, tmp_path / "new" / "config.yaml") == run
    assert os.listdir(tmp_path / "new") == ["config.yaml"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    save_yaml(Run(seed=1), path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*config\.yaml: No space left on device"):
        save_yaml(Run(seed=2), path)
    assert load_config(Run, path).seed == 1
    assert os.listdir(tmp_path) == ["config.yaml"]


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_yaml(Run(), tmp_path / "run" / "config.yaml")


def test_to_dict_is_plain(tmp_path: Path) -> None:
    plain = to_dict(Run(teacher=Model(kwargs={"sizes": (1, 2), "path": tmp_path})))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["teacher"]["kwargs"] == {"sizes": [1, 2], "path": str(tmp_path)}
    assert list(plain) == [entry.name for entry in dataclasses.fields(Run)]


def test_differences_name_key_disk_and_wish() -> None:
    old = to_dict(Run(model=Model(depth=128), teacher=Model()))
    new = to_dict(Run(model=Model(depth=256, merge=[1, 2], crop=[0, 0, 0, 0]), resume=False))
    assert differences(old, new) == [
        "model.depth: 128 on disk, 256 asked",
        "model.merge: [2, 2] on disk, [1, 2] asked",
        "model.crop: null on disk, [0, 0, 0, 0] asked",
        f"teacher: {to_dict(Model())} on disk, null asked",
        "resume: true on disk, false asked",
    ]


def test_differences_of_keys_that_one_side_lacks() -> None:
    assert differences({"a": {"b": 1}}, {"a": {"c": None}}) == [
        "a.c: not on disk, null asked",
        "a.b: 1 on disk, not asked",
    ]
    assert differences({"a": (1, 2), "b": 1.0}, {"a": [1, 2], "b": 1}) == []
