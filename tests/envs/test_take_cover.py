"""ViZDoom Take Cover through worldsim.envs: pictures, tics, cap, determinism, no litter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from worldsim.envs import EnvConfig, describe, make, read_state, telling

pytest.importorskip("vizdoom", reason='ViZDoom is not installed: pip install "worldsim-rl[vizdoom]"')

CONFIG = EnvConfig(id="VizdoomTakeCover-v1", frame_skip=4, max_episode_tics=2100)


@pytest.fixture
def env() -> Iterator[gym.Env[Any, Any]]:
    env = make(CONFIG)
    yield env
    env.close()


def play(env: gym.Env[Any, Any], seed: int, actions: list[int]) -> tuple[list[Any], list[float], list[int], bool, bool]:
    """Frames, rewards, tics, terminated and truncated of one episode, the actions repeated until its end."""
    frame, _ = env.reset(seed=seed)
    frames: list[Any] = [frame]
    rewards: list[float] = []
    tics: list[int] = []
    while True:
        frame, reward, terminated, truncated, info = env.step(actions[len(rewards) % len(actions)])
        frames.append(frame)
        rewards.append(float(reward))
        tics.append(info["tics"])
        if terminated or truncated:
            return frames, rewards, tics, terminated, truncated


def test_describe_states_the_facts(env: gym.Env[Any, Any]) -> None:
    facts = describe(env, CONFIG)
    assert facts == {
        "id": "VizdoomTakeCover-v1",
        "settings": facts["settings"],
        "frame_shape": (64, 64, 3),
        "action_space": {"type": "discrete", "n": 3},
        "action_meanings": ["noop", "right", "left"],
        "frames_per_second": 35 / 4,
        "max_episode_steps": 525,
        "blank_terminal_frame": True,
    }
    assert EnvConfig(**facts["settings"]) == CONFIG


def test_several_buttons_at_once() -> None:
    config = EnvConfig(id="VizdoomTakeCover-MultiBinary-v1", frame_skip=4)
    env = make(config)
    try:
        facts = describe(env, config)
        assert facts["action_space"]["type"].startswith("multi")
        assert facts["action_meanings"] == ["left", "right"]
        shown = []
        for action in ([0, 0], [1, 0], [0, 1]):
            env.reset(seed=1)
            for _ in range(4):
                frame, *_ = env.step(np.array(action))
            shown.append(frame)
        assert not np.array_equal(shown[0], shown[1])
        assert not np.array_equal(shown[1], shown[2])
    finally:
        env.close()


def test_rewards_are_the_tics_summed_and_death_is_blank(env: gym.Env[Any, Any]) -> None:
    frames, rewards, tics, terminated, truncated = play(env, 1, [0, 1, 2])
    assert terminated
    assert not truncated
    assert rewards == [float(count) for count in tics]  # one point per tic lived
    assert set(tics[:-1]) == {4}
    assert 1 <= tics[-1] <= 4
    assert sum(rewards) == env.unwrapped.game.get_total_reward()  # type: ignore[attr-defined]
    assert frames[-1].max() == 0
    assert all(frame.max() > 0 for frame in frames[:-1])


def test_a_seed_gives_the_same_episode_in_a_fresh_and_in_a_used_engine(env: gym.Env[Any, Any]) -> None:
    actions = [1, 1, 1, 2, 0]
    first = play(env, 7, actions)
    other = play(env, 8, actions)
    again = play(env, 7, actions)
    assert len(first[0]) == len(again[0])
    assert all(np.array_equal(a, b) for a, b in zip(first[0], again[0], strict=True))
    assert first[1] == again[1]
    assert not all(np.array_equal(a, b) for a, b in zip(first[0], other[0], strict=False))
    used = make(CONFIG)
    play(used, 3, actions)
    late = play(used, 7, actions)
    used.close()
    assert len(first[0]) == len(late[0])
    assert all(np.array_equal(a, b) for a, b in zip(first[0], late[0], strict=True))


def test_the_cap_truncates_after_exactly_that_many_tics() -> None:
    env = make(EnvConfig(id="VizdoomTakeCover-v1", frame_skip=4, max_episode_tics=30))
    frames, _, tics, terminated, truncated = play(env, 0, [0])
    env.close()
    assert tics == [4] * 7 + [2]
    assert truncated
    assert not terminated
    assert frames[-1].max() > 0  # alive: a truncation shows its last picture


def test_the_usual_cap_is_2100_and_zero_lifts_it() -> None:
    for cap, steps in ((None, 2100), (0, None)):
        config = EnvConfig(id="VizdoomTakeCover-v1", max_episode_tics=cap)
        env = make(config)
        assert describe(env, config)["max_episode_steps"] == steps
        env.close()


def test_actions_mean_what_they_say(env: gym.Env[Any, Any]) -> None:
    vizdoom = pytest.importorskip("vizdoom")
    meanings = describe(env, CONFIG)["action_meanings"]
    game = env.unwrapped.game  # type: ignore[attr-defined]
    for name, sign in (("noop", 0), ("right", -1), ("left", 1)):  # the player looks along +x, so its right is -y
        env.reset(seed=5)
        before = game.get_game_variable(vizdoom.GameVariable.POSITION_Y)
        for _ in range(5):
            env.step(meanings.index(name))
        assert np.sign(game.get_game_variable(vizdoom.GameVariable.POSITION_Y) - before) == sign


def test_a_timeout_of_the_scenario_is_a_truncation() -> None:
    env = make(EnvConfig(id="VizdoomBasic-v1", frame_skip=4))
    *_, tics, terminated, truncated = play(env, 0, [0])
    env.close()
    assert sum(tics) <= 300
    assert truncated
    assert not terminated


def test_nothing_is_left_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    env = make(CONFIG)
    env.reset(seed=0)
    assert Path.cwd() == tmp_path
    env.step(1)
    env.close()
    assert list(tmp_path.iterdir()) == []


def test_render_gives_the_whole_picture(env: gym.Env[Any, Any]) -> None:
    env.reset(seed=0)
    picture: Any = env.render()
    assert picture.shape == (240, 320, 3)
    assert picture.dtype == np.uint8


def test_frames_own_their_memory(env: gym.Env[Any, Any]) -> None:
    frame, _ = env.reset(seed=0)
    copy = frame.copy()
    for _ in range(10):
        env.step(1)
    assert np.array_equal(frame, copy)


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
def test_gymnasium_accepts_it(env: gym.Env[Any, Any]) -> None:
    check_env(env, skip_render_check=True, skip_close_check=True)


def test_the_true_state_tells_where_player_and_monsters_are() -> None:
    config = telling(CONFIG)
    assert config is not None
    env, plain = make(config), make(CONFIG)
    try:
        frame, _ = env.reset(seed=3)
        assert np.array_equal(frame, plain.reset(seed=3)[0])  # telling changes no picture
        before = read_state(env, config)
        for _ in range(12):
            frame, *_ = env.step(1)
            assert np.array_equal(frame, plain.step(1)[0])
        after = read_state(env, config)
        distances = []
        for step in range(40):
            env.step(2 if step < 10 else 0)
            distances.append(read_state(env, config)["nearest explosive, distance"])
    finally:
        env.close()
        plain.close()
    assert after["player y"] < before["player y"] - 20  # right is down on the map
    assert after["player x"] == pytest.approx(before["player x"], abs=1)
    assert after["nearest monster, distance"] > 100
    assert -0.5 <= after["nearest monster, across"] <= 0.5
    thrown = np.array(distances)[~np.isnan(distances)]
    assert len(thrown) > 0
    assert (thrown > 0).all()


def test_a_level_that_is_won_still_counts_its_tics() -> None:
    env = make(EnvConfig(id="VizdoomBasic-v1", frame_skip=2))
    try:
        random = np.random.default_rng(1)
        won = []
        for seed in range(6):
            _, rewards, tics, terminated, _ = play(env, seed, random.integers(4, size=200).tolist())
            assert all(1 <= count <= 2 for count in tics)
            won += [terminated] if rewards[-1] > 50 else []  # the monster is hit: the engine forgets its clock
        assert won
        assert all(won)
    finally:
        env.close()
