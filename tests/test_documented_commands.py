"""The commands that the documents tell people to give are understood, and their settings go together."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from worldsim.cli import _parsed
from worldsim.commands.walks import COLLECT_EXAMPLES, RUN_EXAMPLES, TRAIN_EXAMPLES
from worldsim.config import load_config, resolve_config_path
from worldsim.workflow.checks import check_processes, check_settings
from worldsim.workflow.config import RunConfig

ROOT = Path(__file__).parent.parent
TO_BE_WRITTEN = ("my_game.yaml", "my_env.yaml")  # by the reader
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(worldsim (?:run|train|collect|evaluate|render|play|dream) [a-z-][^`]+)`")
START = re.compile(r"\s*(worldsim|torchrun|srun torchrun)\s")


def documented() -> list[tuple[str, str]]:
    """(where, command line) of all documents, configs' headers and examples of --help."""
    found: list[tuple[str, str]] = []
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        blocks = "\n".join(FENCED.findall(text)).replace("\\\n", " ")
        found += [(path.name, line) for line in blocks.splitlines() if START.match(line)]
        if path.name != "CHANGELOG.md":
            found += [(path.name, line) for line in INLINE.findall(text)]
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        lines = [line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        found += [(path.name, line) for line in lines if START.match(line)]
    for examples in (RUN_EXAMPLES, COLLECT_EXAMPLES, TRAIN_EXAMPLES):
        found += [("--help", line.split("   ")[0]) for line in examples.splitlines() if line.startswith("  ")]
    return found


def words_of(line: str) -> tuple[list[str], int]:
    """The arguments of worldsim in a command line, and how many processes it starts."""
    words = shlex.split(line, comments=True)
    if "worldsim" in words[1:]:  # torchrun ... -m worldsim
        front, words = words[: words.index("worldsim")], words[words.index("worldsim") :]
        nodes = front[front.index("--nnodes") + 1] if "--nnodes" in front else "1"
        return words[1:], (2 if nodes.startswith("$") else int(nodes)) * int(front[front.index("--nproc-per-node") + 1])
    return words[1:], 1


COMMANDS = [(where, line) for where, line in documented() if " | " not in line and "..." not in line]


def test_there_are_commands_to_look_at() -> None:
    assert len({where for where, _ in COMMANDS}) >= 5
    assert sum("run" in line for _, line in COMMANDS) >= 20


@pytest.mark.parametrize(("where", "line"), [pytest.param(*each, id=" ".join(each)[:90]) for each in COMMANDS])
def test_a_documented_command_is_understood(where: str, line: str) -> None:
    words, processes = words_of(line)
    options = _parsed(words)
    config = getattr(options, "config", None)
    if config is None or Path(config).name in TO_BE_WRITTEN:
        return
    settings = load_config(RunConfig, resolve_config_path(config), options.overrides)
    check_settings(settings)
    check_processes(settings, processes)


def test_placeholders_are_not_shipped() -> None:
    assert not any((ROOT / name).exists() for name in TO_BE_WRITTEN)
