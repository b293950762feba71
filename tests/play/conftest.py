from __future__ import annotations

import pytest

from tests.worlds import NoiseEnv, tiny_world
from worldsim.play.game import Game
from worldsim.world_model import WorldModel


def endless_world(actions: str = "discrete") -> WorldModel:
    """A tiny world whose dreams never end."""
    return without_endings(tiny_world(actions, max_episode_steps=None))


def without_endings(model: WorldModel) -> WorldModel:
    """The model itself, changed so that it sees no end coming."""
    model.dynamics.head.termination.weight.data.zero_()
    model.dynamics.head.termination.bias.data.fill_(-1e4)
    return model


@pytest.fixture(scope="session")
def game() -> Game:
    return Game("tiny", endless_world())


@pytest.fixture(scope="session")
def game_beside_real() -> Game:
    model = endless_world()
    return Game("tiny", model, make_real=lambda: NoiseEnv(model))
