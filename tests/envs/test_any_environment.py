"""Environments of every supported kind, registered here so that no simulator is needed, and the errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from worldsim.envs import EnvConfig, InvalidActionError, UnusableEnvironmentError, describe, make

PICTURE = gym.spaces.Box(0, 255, (24, 32, 3), np.uint8)
VECTOR = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
STEERING = gym.spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 2.0], np.float32))


class Counter(gym.Env[Any, Any]):
    """Shows the number of steps of the episode as brightness, in whatever observation space it is given."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self,
        observation: gym.Space[Any],
        actions: gym.Space[Any] | None = None,
        render_mode: str | None = None,
        ends_after: int = 1000,
    ) -> None:
        self.observation_space = observation
        self.action_space = actions or gym.spaces.Discrete(2)
        self.render_mode = render_mode
        self.ends_after = ends_after
        self.count = 0
        self.renders = 0
        self.actions: list[Any] = []

    def _observe(self, space: gym.Space[Any]) -> Any:
        if isinstance(space, gym.spaces.Dict):
            return {key: self._observe(inner) for key, inner in space.spaces.items()}
        assert isinstance(space, gym.spaces.Box)
        return np.full(space.shape, min(self.count, 255) if space.dtype == np.uint8 else 0, space.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._observe(self.observation_space), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.count += 1
        self.actions.append(action)
        return (
            self._observe(self.observation_space),
            float(self.count),
            self.count >= self.ends_after,
            False,
            {"own": 1},
        )

    def render(self) -> Any:
        self.renders += 1
        return np.full((48, 40, 3), self.count, np.uint8)


class Blind(Counter):
    """Cannot render."""

    metadata = {"render_modes": []}  # noqa: RUF012


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gym.register("Counter-v3", entry_point=cast(Any, Counter))
    gym.register("Blind-v0", entry_point=cast(Any, Blind))
    yield
    del gym.registry["Counter-v3"], gym.registry["Blind-v0"]


def counter(observation: gym.Space[Any], actions: gym.Space[Any] | None = None, **settings: Any) -> EnvConfig:
    kwargs: dict[str, Any] = {"observation": observation, "actions": actions, **settings.pop("kwargs", {})}
    return EnvConfig(id="Counter-v3", frame_height=8, frame_width=10, kwargs=kwargs, **settings)


@pytest.mark.parametrize(
    ("observation", "image"),
    [
        (PICTURE, "auto"),
        (gym.spaces.Box(0, 255, (24, 32), np.uint8), "auto"),
        (gym.spaces.Box(0, 255, (24, 32, 1), np.uint8), "observation"),
        (gym.spaces.Box(0, 255, (3, 24, 32), np.uint8), "auto"),
        (gym.spaces.Dict({"view": PICTURE, "speed": VECTOR}), "auto"),
        (gym.spaces.Dict({"screen": PICTURE, "labels": PICTURE}), "auto"),
        (gym.spaces.Dict({"left": PICTURE, "right": PICTURE}), "right"),
        (VECTOR, "auto"),
        (gym.spaces.Dict({"image": gym.spaces.Box(0, 255, (7, 7, 3), np.uint8)}), "auto"),
        (PICTURE, "render"),
    ],
)
@pytest.mark.parametrize("grayscale", [False, True])
@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
def test_every_kind_of_picture(observation: gym.Space[Any], image: str, grayscale: bool) -> None:
    env = make(counter(observation, image=image, grayscale=grayscale))
    assert env.observation_space == gym.spaces.Box(0, 255, (8, 10, 1 if grayscale else 3), np.uint8)
    frame, _ = env.reset(seed=0)
    assert (frame == 0).all()
    for count in (1, 2, 3):
        frame, *_ = env.step(0)
        assert env.observation_space.contains(frame)
        assert (frame == count).all()
    check_env(env, skip_render_check=True, skip_close_check=True)


def test_rewards_are_summed_and_a_frame_is_rendered_once_per_step() -> None:
    env = make(counter(VECTOR, frame_skip=4))
    env.reset(seed=0)
    base: Any = env.unwrapped
    base.renders = 0
    frame, reward, _, _, info = env.step(1)
    assert reward == 1 + 2 + 3 + 4
    assert (frame == 4).all()
    assert base.renders == 1
    assert info == {"own": 1, "tics": 4}
    assert env.metadata["render_fps"] == 5.0


def test_frame_skip_stops_at_the_end() -> None:
    env = make(counter(PICTURE, frame_skip=4, kwargs={"ends_after": 6}))
    env.reset(seed=0)
    env.step(0)
    _, reward, terminated, truncated, info = env.step(0)
    assert (reward, terminated, truncated, info["tics"]) == (5 + 6, True, False, 2)


def test_cap_counts_underlying_steps_and_starts_anew() -> None:
    config = counter(PICTURE, frame_skip=4, max_episode_tics=10)
    env = make(config)
    assert describe(env, config)["max_episode_steps"] == 3
    for _ in range(2):
        env.reset()
        steps = [env.step(0) for _ in range(3)]
        assert [info["tics"] for *_, info in steps] == [4, 4, 2]
        assert [truncated for _, _, _, truncated, _ in steps] == [False, False, True]
        assert not any(terminated for _, _, terminated, _, _ in steps)


def test_dying_at_the_cap_is_a_termination() -> None:
    env = make(counter(PICTURE, max_episode_tics=3, kwargs={"ends_after": 3}))
    env.reset()
    assert [env.step(0)[2:4] for _ in range(3)] == [(False, False), (False, False), (True, False)]


def test_box_actions_reach_the_simulator_in_its_type() -> None:
    env = make(counter(PICTURE, STEERING))
    assert env.action_space == STEERING
    env.reset()
    env.step(np.array([0.5, 2.0], np.float64))
    env.step([1, 0])
    for action in env.unwrapped.actions:  # type: ignore[attr-defined]
        assert STEERING.contains(action)
    facts = describe(env, counter(PICTURE, STEERING))
    assert facts["action_space"] == {"type": "box", "shape": [2], "low": [-1.0, 0.0], "high": [1.0, 2.0]}
    assert facts["action_meanings"] == ["action 0", "action 1"]


def test_discrete_actions_are_numbered_from_zero() -> None:
    env = make(counter(PICTURE, gym.spaces.Discrete(3, start=-1)))
    assert env.action_space == gym.spaces.Discrete(3)
    env.reset()
    for action in (0, np.int64(1), np.array(2)):
        env.step(action)
    assert env.unwrapped.actions == [-1, 0, 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize("action", [2, -1, 0.0, "left", None, [0], np.array([0]), True])
def test_wrong_discrete_actions(action: Any) -> None:
    env = make(counter(PICTURE))
    env.reset()
    with pytest.raises(InvalidActionError) as caught:
        env.step(action)
    assert repr(action) in str(caught.value)
    assert "Discrete(2)" in str(caught.value)


@pytest.mark.parametrize(
    ("space", "described", "given", "passed_on", "wrong"),
    [
        (
            gym.spaces.MultiDiscrete([3, 2], start=[5, -1]),
            {"type": "multi_discrete", "nvec": [3, 2]},
            [2, 0],
            [7, -1],
            [[3, 0], [0, -1], [0], 1, [0.0, 1.0], "left"],
        ),
        (
            gym.spaces.MultiBinary(3),
            {"type": "multi_binary", "n": 3},
            [1, 0, 1],
            [1, 0, 1],
            [[0, 0, 2], [1, 1], 1, [0.0, 1.0, 0.0]],
        ),
    ],
)
def test_actions_of_several_parts(
    space: gym.Space[Any], described: dict[str, Any], given: list[int], passed_on: list[int], wrong: list[Any]
) -> None:
    config = counter(PICTURE, space)
    env = make(config)
    check_env(env, skip_render_check=True, skip_close_check=True)
    assert describe(env, config)["action_space"] == described
    assert len(describe(env, config)["action_meanings"]) == len(given)
    env.reset()
    env.step(np.array(given))
    last = cast(Counter, env.unwrapped).actions[-1]
    assert space.contains(last)
    assert last.tolist() == passed_on
    for action in wrong:
        with pytest.raises(InvalidActionError, match="expected"):
            env.step(action if isinstance(action, str | int) else np.array(action))


@pytest.mark.parametrize("action", [[0.5], [2.0, 1.0], [0.0, np.nan], [[0.0, 0.0]], "left", 1])
def test_wrong_box_actions(action: Any) -> None:
    env = make(counter(PICTURE, STEERING))
    env.reset()
    with pytest.raises(InvalidActionError) as caught:
        env.step(action)
    assert repr(action) in str(caught.value)
    assert "Box(" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EnvConfig(id="cartpole-v1"), "'cartpole-v1' is not registered; did you mean 'CartPole-v1'"),
        (EnvConfig(id="CartPole-v77"), "did you mean 'CartPole-v1'"),
        (EnvConfig(id="Blind-v0", kwargs={"observation": VECTOR}), "shows no picture"),
        (EnvConfig(id="Counter-v3", kwargs={"nonsense": 1}), "nonsense"),
        (EnvConfig(id="no_such_module:Foo-v0"), "no_such_module"),
        (
            counter(PICTURE, gym.spaces.MultiDiscrete(np.array([[2, 3]]))),
            r"MultiDiscrete\(\[\[2 3\]\]\) is not supported",
        ),
        (counter(PICTURE, gym.spaces.MultiBinary([2, 2])), "is not supported"),
        (counter(PICTURE, gym.spaces.Box(0, 1, (2, 2))), "not supported, expected Discrete, or a MultiDiscrete"),
        (counter(VECTOR, image="observation"), "holds no picture; try image=render"),
        (counter(PICTURE, image="screen"), "has no keys"),
        (counter(gym.spaces.Dict({"a": PICTURE, "b": PICTURE})), r"several pictures \(a, b\)"),
        (counter(gym.spaces.Dict({"a": PICTURE, "b": VECTOR}), image="c"), "keys: a, b"),
        (counter(gym.spaces.Dict({"a": PICTURE, "b": VECTOR}), image="b"), "expected uint8 pixels"),
        (EnvConfig(kwargs={"render_mode": "human"}), "render_mode"),
        (EnvConfig(id="VizdoomBasic-v1", kwargs={"frame_skip": 4}), "use the setting frame_skip"),
        (EnvConfig(frame_height=0), "frame_height=0"),
        (EnvConfig(frame_width=-3), "frame_width=-3"),
        (EnvConfig(frame_skip=0), "frame_skip=0"),
        (EnvConfig(max_episode_tics=-1), "max_episode_tics=-1"),
        (counter(PICTURE, crop=[0, 25, 0, 32]), r"bottom <= 24"),
        (counter(PICTURE, crop=[5, 5, 0, 32]), r"crop=\[5, 5, 0, 32\]"),
        (counter(PICTURE, crop=[0, 24]), r"\[top, bottom, left, right\]"),
    ],
)
def test_unusable_environments_say_why(config: EnvConfig, message: str) -> None:
    if config.id.startswith("Vizdoom"):
        pytest.importorskip("vizdoom", reason='ViZDoom is not installed: pip install "worldsim-rl[vizdoom]"')
    with pytest.raises(UnusableEnvironmentError, match=message) as caught:
        make(config)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("env_id", "module", "extra"),
    [
        ("VizdoomTakeCover-v1", "vizdoom", "vizdoom"),
        ("ALE/Breakout-v5", "ale_py", "atari"),
        ("CarRacing-v3", "Box2D", "box2d"),
        ("CartPole-v1", "pygame", "classic"),
    ],
)
def test_a_missing_package_names_its_extra(
    monkeypatch: pytest.MonkeyPatch, env_id: str, module: str, extra: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)  # import raises ImportError
    with pytest.raises(UnusableEnvironmentError) as caught:
        make(EnvConfig(id=env_id))
    assert f'pip install "worldsim-rl[{extra}]"' in str(caught.value)


@pytest.mark.parametrize("name", ["AntFarm-v0", "HopperGarden-v2", "CartPoleShop-v1"])
def test_names_that_begin_like_a_familys_are_their_own(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in ("mujoco", "pygame"):
        monkeypatch.setitem(__import__("sys").modules, module, None)  # what the family would need
    gym.register(name, lambda **kwargs: Counter(PICTURE, **kwargs))
    try:
        env = make(EnvConfig(id=name))
        assert env.observation_space.shape == (64, 64, 3)
        env.close()
    finally:
        gym.registry.pop(name)


def test_importing_imports_no_simulator() -> None:
    import subprocess
    import sys

    code = "import sys, worldsim.envs; print([m for m in ('vizdoom', 'pygame', 'Box2D', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
