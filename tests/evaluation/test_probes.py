from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.evaluation.worlds import ColumnEnv, Oracle, OracleState
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.probes import Truth, fit_probe, probe_dreams, record_truth


@dataclass(frozen=True)
class Shown(OracleState):
    """A state that shows latents and a belief, as a world model's do."""

    latents: torch.Tensor

    @property
    def belief(self) -> torch.Tensor:
        return torch.zeros(len(self.latents), 1)


class Seer(Oracle):
    def start_episode(self, frames: torch.Tensor, generators: Any) -> Shown:
        return Shown(self.where(self.encode(frames)), self.encode(frames))

    def observe(self, state: Any, frames: torch.Tensor, actions: torch.Tensor) -> Any:
        return self.start_episode(frames, ()), self.step(state, actions)[1]

    def step(self, state: Any, actions: torch.Tensor, *, temperature: float | None = None) -> Any:
        moved, step = super().step(OracleState(state.position), actions)
        return moved, replace(step, belief=torch.zeros(len(actions), 1))


class BlindSeer(Seer):
    def step(self, state: Any, actions: torch.Tensor, *, temperature: float | None = None) -> Any:
        return super().step(state, torch.ones_like(actions))


def read_state(env: Any) -> dict[str, float]:
    return {
        "position": float(env.position),
        "nothing": 3.0,
        "rarely": float(env.position) if env.steps == 1000 else float("nan"),
    }


@pytest.fixture(scope="module")
def truths(store: EpisodeStore) -> tuple[Truth, Truth]:
    fit, judge = (record_truth(ColumnEnv, read_state, store, split, max_frames=600) for split in ("train", "held_out"))
    return fit, judge


def test_the_truth_of_an_episode_belongs_to_its_frames(store: EpisodeStore, truths: tuple[Truth, Truth]) -> None:
    for truth in truths:
        assert truth.names == ("position", "nothing", "rarely")
        assert truth.unrepeated == 0
        assert sum(map(len, truth.values.values())) >= 600
        for episode, values in truth.values.items():
            frames = store[episode].frames
            assert len(values) == len(frames)
            seen = frames[:, 0, :, 0].argmax(-1)
            shown = frames.any((1, 2, 3))
            assert np.array_equal(values[shown, 0], seen[shown])


def test_a_probe_finds_what_is_linear_and_reads_other_rows() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(400, 5)) * [1, 2, 0.5, 1, 1e-5] + 3
    truth = features @ [1, 0.2, -2, 0, 0] + 7
    probe = fit_probe(features[:300], truth[:300])
    assert probe(features[300:]) == pytest.approx(truth[300:], abs=0.05)
    # What hardly ever changes is not read: a dream that is less exact there says the same.
    blurred = features[300:] + np.array([0, 0, 0, 0, 0.01])
    assert probe(blurred) == pytest.approx(probe(features[300:]), abs=0.05)


def test_who_knows_the_world_keeps_the_position_and_who_ignores_actions_loses_it(
    store: EpisodeStore, truths: tuple[Truth, Truth]
) -> None:
    knows, ignores = (
        probe_dreams(cast(Any, model()), store, *truths, starts=40, horizons=(1, 4, 16), context_frames=3)
        for model in (Seer, BlindSeer)
    )
    assert knows["left_out"] == {"nothing": "never changes", "rarely": "seen 0 times"}
    position = knows["quantities"]["position"]
    assert position["dream"] == pytest.approx(position["watching"], abs=1e-6)
    assert max(position["dream"]) < 0.05
    assert position["copy_last"][1] > 0.3
    assert position["values"] == sorted(position["values"], reverse=True)
    lost = ignores["quantities"]["position"]
    assert lost["dream"] == pytest.approx(lost["copy_last"])


def test_an_env_that_does_not_repeat_itself_gives_no_truth(store: EpisodeStore) -> None:
    class Elsewhere(ColumnEnv):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return super().reset(seed=None if seed is None else seed + 1)

    truth = record_truth(Elsewhere, read_state, store, "held_out", max_frames=200)
    assert truth.unrepeated > len(truth.values)
