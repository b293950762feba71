"""Actions and rewards that are off by one are found in what real environments show."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from benchmarks.planted_faults import chosen, plant, problems
from worldsim import envs
from worldsim.data.collection import collect
from worldsim.data.episode import EnvSpec
from worldsim.data.store import EpisodeStore
from worldsim.envs.config import EnvConfig
from worldsim.scripted_policies import StickyRandom

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

CONFIGS = {
    "Take Cover": (EnvConfig(id="VizdoomTakeCover-v1", frame_skip=4), 24_000),
    "CarRacing": (EnvConfig(id="CarRacing-v3", frame_skip=4, max_episode_tics=800), 14_000),
}
MODULES = {"Take Cover": "vizdoom", "CarRacing": "Box2D"}


@pytest.fixture(scope="module", params=CONFIGS)
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    pytest.importorskip(MODULES[request.param])
    config, tics = CONFIGS[request.param]
    env = envs.make(config)
    spec = EnvSpec.from_dict(envs.describe(env, config))
    env.close()
    return collect(
        tmp_path_factory.mktemp("real") / "episodes",
        spec,
        partial(envs.make, config),
        partial(StickyRandom, spec.gym_action_space(), "mixed"),
        budget_tics=tics,
        workers=2,
        seed=0,
        round=0,
        held_out_fraction=0.1,
        policy_name="sticky-random",
        progress=False,
    )


def test_good_episodes_pass(played: EpisodeStore) -> None:
    assert not problems(played)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("actions late", ["actions are recorded 1 step too late"]),
        ("actions early", ["actions are recorded 1 step too early"]),
        ("rewards late", ["rewards are recorded 1 step too late"]),
        ("rewards early", ["rewards are recorded 1 step too early"]),
        ("both late", ["actions are recorded 1 step too late", "rewards are recorded 1 step too late"]),
        ("both early", ["actions are recorded 1 step too early", "rewards are recorded 1 step too early"]),
    ],
)
def test_planted_shifts_are_found(played: EpisodeStore, tmp_path: Path, fault: str, words: list[str]) -> None:
    episodes = chosen(played, int(played.lengths.sum()), None)
    found = problems(plant(episodes, played, fault, tmp_path / "planted"))
    assert len(found) == len(words)
    for finding, expected in zip(found, words, strict=True):
        assert finding.text.startswith(expected)
