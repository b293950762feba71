"""What a run is said to cost before it starts."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.evaluation.worlds import spec
from worldsim.config import load_config, resolve_config_path
from worldsim.data.episode import EnvSpec
from worldsim.workflow.config import RunConfig
from worldsim.workflow.cost import describe_cost


def minutes(config: RunConfig, of: EnvSpec) -> int:
    said = re.search(r"some (\d+) minutes", describe_cost(config, of))
    assert said is not None
    return int(said[1])


@pytest.mark.parametrize(
    ("name", "shape", "measured"), [("take_cover", (64, 64, 3), 125), ("quickstart", (16, 48, 1), 8.5)]
)
def test_minutes_are_about_those_that_were_measured(name: str, shape: tuple[int, int, int], measured: float) -> None:
    """On one core with bf16, as benchmarks/LOG.md has them."""
    config = load_config(RunConfig, resolve_config_path(name), [])
    assert minutes(config, replace(spec(), frame_shape=shape)) == pytest.approx(measured, rel=0.2)


@pytest.mark.parametrize("stage", ["tokenizer", "dynamics", "endings", "plans"])
def test_every_stage_that_trains_longer_costs_more(stage: str) -> None:
    config = load_config(RunConfig, resolve_config_path("take_cover"), [])
    of = replace(spec(), frame_shape=(64, 64, 3))
    before = minutes(config, of)
    settings = getattr(config, stage)
    setattr(config, stage, replace(settings, steps=2 * settings.steps))
    assert minutes(config, of) > 1.05 * before
