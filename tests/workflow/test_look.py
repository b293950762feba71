"""What a short look finds, on envs of which everything is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from worldsim.envs import EnvConfig
from worldsim.errors import UserError
from worldsim.workflow import look
from worldsim.workflow.look import Look, look_at

VECTOR = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
ACTIONS: list[gym.Space[Any]] = [
    gym.spaces.Discrete(3, start=1),
    gym.spaces.MultiDiscrete([3, 2]),
    gym.spaces.MultiBinary(3),
    gym.spaces.Box(-2.0, 2.0, (2,), np.float32),
]


class Stripe(gym.Env[Any, Any]):
    """A stripe, `thick` pixels wide, that goes `speed` pixels to the right at each step; 12 steps are an episode."""

    def __init__(
        self,
        shows: str = "image",
        actions: gym.Space[Any] | None = None,
        color: tuple[int, int, int] = (255, 255, 255),
        thick: int = 8,
        speed: int = 1,
        size: tuple[int, int] = (64, 96),
        render_mode: str | None = None,
    ) -> None:
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 40}
        picture = gym.spaces.Box(0, 255, (*size, 3), np.uint8)
        spaces: dict[str, gym.Space[Any]] = {
            "image": picture,
            "dict": gym.spaces.Dict({"camera": picture, "speed": VECTOR}),
            "vector": VECTOR,
        }
        self.shows, self.observation_space = shows, spaces[shows]
        self.action_space = actions or gym.spaces.Discrete(2)
        self.color, self.thick, self.speed, self.size, self.render_mode = color, thick, speed, size, render_mode
        self.count = 0

    def _observe(self) -> Any:
        vector = np.zeros(4, np.float32)
        return {"image": self.render(), "dict": {"camera": self.render(), "speed": vector}, "vector": vector}[
            self.shows
        ]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.count += 1
        return self._observe(), 0.0, self.count == 12, False, {}

    def render(self) -> NDArray[np.uint8]:
        frame = np.zeros((*self.size, 3), np.uint8)
        left = self.count * self.speed
        frame[8:24, left : left + self.thick] = self.color
        return frame


class Unrendered(Stripe):
    """Its picture is its observation; it has no render mode and takes none."""

    def __init__(self) -> None:
        super().__init__()
        self.metadata = {}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gym.register("Stripe-v0", entry_point=cast(Any, Stripe))
    gym.register("Unrendered-v0", entry_point=cast(Any, Unrendered), max_episode_steps=9)
    yield
    del gym.registry["Stripe-v0"], gym.registry["Unrendered-v0"]


def seen(**kwargs: Any) -> Look:
    return look_at(EnvConfig(id="Stripe-v0", kwargs=kwargs), seconds=0.1)


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("shows", ["image", "dict", "vector"])
def test_every_kind_of_action_and_observation(shows: str, actions: gym.Space[Any]) -> None:
    found = seen(shows=shows, actions=actions)
    assert found.picture == (64, 96)
    assert found.grey
    assert found.tics_per_second == 40
    assert found.max_episode_tics is None
    assert set(found.episode_tics) == {12}
    assert found.endings == len(found.episode_tics)
    assert found.still == 0
    assert found.action_space["type"] in ("discrete", "multi_discrete", "multi_binary", "box")
    assert found.seconds_per_tic > 0
    assert found.seconds_per_frame >= 0


def test_colours_are_seen() -> None:
    assert not seen(color=(255, 0, 255)).grey


def test_how_much_moves() -> None:
    slow = seen(thick=8, speed=1)  # two columns change at each step, sixteen at most
    assert slow.changes[1] / slow.changes[8] == pytest.approx(1 / 8)
    jumping = seen(thick=4, speed=4, size=(64, 64))  # it moves by its own width: a single step changes all that it can
    assert jumping.changes[1] == pytest.approx(jumping.changes[8])


def test_small_things_need_large_frames() -> None:
    thick, thin = seen(thick=16, speed=4), seen(thick=1, speed=4)
    assert thick.kept[32] == pytest.approx(1.0, abs=0.01)
    assert thin.kept[32] == pytest.approx(0.5, abs=0.02)  # two columns become one
    assert thin.kept[64] == pytest.approx(1.0)


def test_what_stands_still() -> None:
    found = seen(speed=0)
    assert found.still == 1
    assert found.changes == {}
    assert found.kept == {}


def test_an_env_that_cannot_render_but_shows_pixels() -> None:
    found = look_at(EnvConfig(id="Unrendered-v0"), seconds=0.1)
    assert found.picture == (64, 96)
    assert found.max_episode_tics == 9
    assert found.tics_per_second is None


def test_a_slow_env_is_looked_at_long_enough() -> None:
    found = look_at(EnvConfig(id="Stripe-v0"), seconds=0.0)
    assert len(found.episode_tics) == look.FEWEST_FRAMES // 12


def test_actions_without_bounds() -> None:
    with pytest.raises(UserError, match="no bounds"):
        seen(actions=gym.spaces.Box(-np.inf, np.inf, (2,), np.float32))
