"""`worldsim settings` tells every setting, and what it tells can be given."""

from __future__ import annotations

import re

import pytest

from worldsim.agents.learners import LEARNERS
from worldsim.cli import main
from worldsim.commands.settings import settings_text
from worldsim.config import load_config, to_dict
from worldsim.dynamics.build import DYNAMICS
from worldsim.dynamics.config import SIZES
from worldsim.optimization import OPTIMIZERS
from worldsim.workflow.config import RunConfig


def names(values: dict[str, object], prefix: str = "") -> set[str]:
    """The full names of all settings, as `key=value` takes them."""
    found: set[str] = set()
    for key, value in values.items():
        deeper = isinstance(value, dict) and value and key not in ("kwargs", "reset_options")
        found |= names(value, f"{prefix}{key}.") if deeper and isinstance(value, dict) else {f"{prefix}{key}"}
    return found


def test_every_setting_is_told_with_its_default() -> None:
    told = dict(re.findall(r"^  ([a-z_.0-9]+)=(.*?)(?:  .*)?$", settings_text(), re.MULTILINE))
    assert set(told) == names(to_dict(RunConfig()))
    given = load_config(RunConfig, None, [f"{name}={value}" for name, value in told.items()])
    assert to_dict(given) == to_dict(RunConfig())


def test_what_the_source_says_of_them_is_told() -> None:
    text = settings_text()
    for said in (
        "steps of the underlying env, one budget per round",  # behind a field
        "In place of features the agent sees decoded frames",  # above it
        "A registered Gymnasium id",  # below it
        "uses all fields but those of the codebook",  # in the text of its class
        "trace decay of the lambda-returns",  # of a class that another inherits from
    ):
        assert said in " ".join(text.split()), said


def test_no_setting_goes_unexplained() -> None:
    for section in settings_text().split("\n\n"):
        lines = section.splitlines()
        about = " ".join(line for line in lines if not re.match(r"  [a-z_.0-9]+=", line))
        for line in lines:
            if told := re.match(r"^  ([a-z_.0-9]+)=(.*?)(?:  +(.*))?$", line):
                name = told[1].rpartition(".")[2]
                assert told[3] or re.search(rf"\b{name}\b", about), told[1]


def test_the_choices_that_are_told_are_those_there_are() -> None:
    text = settings_text()
    for name, choices in (
        ("dynamics.kind", DYNAMICS),
        ("dynamics.size", SIZES),
        ("dynamics.optimizer", OPTIMIZERS),
        ("agent.kind", LEARNERS),
    ):
        [told] = re.findall(rf"^  {re.escape(name)}=\S+ +(.*(?:\n {{40}}.*)*)", text, re.MULTILINE)
        assert set(re.findall(r'"(\w+)"', told)) == set(choices)


def test_a_section_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "agent"]) == 0
    shown = capsys.readouterr().out
    assert "agent.gamma=0.99" in shown
    assert "agent.cma_es.sigma=0.1" in shown
    assert "dynamics" not in shown
    assert main(["settings", "dynamic"]) == 2
    assert "expected one of env, collect" in capsys.readouterr().err
