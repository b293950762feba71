"""From what a look saw to the settings of a run: rules that can be checked without any env."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from worldsim.config import from_dict, load_config, to_dict
from worldsim.data.episode import EnvSpec
from worldsim.tokenizers.build import build_tokenizer
from worldsim.workflow.checks import check_environment, check_settings
from worldsim.workflow.config import RunConfig
from worldsim.workflow.infer import MOST_STEPS, SHARES, infer, merged
from worldsim.workflow.look import Look, frame_size

DISCRETE = {"type": "discrete", "n": 4}
SPACES: list[dict[str, Any]] = [
    DISCRETE,
    {"type": "multi_discrete", "nvec": [3, 2]},
    {"type": "multi_binary", "n": 9},
    {"type": "box", "shape": [3], "low": [-1.0] * 3, "high": [1.0] * 3},
]
SEEN = Look(
    picture=(200, 300),
    grey=False,
    tics_per_second=50.0,
    max_episode_tics=1000,
    action_space=DISCRETE,
    episode_tics=(200, 300),
    endings=2,
    changes={1: 2.0, 2: 3.5, 4: 6.0, 8: 8.0, 16: 10.0},
    still=0.0,
    kept={32: 0.2, 48: 0.5, 64: 0.8},
    seconds_per_tic=0.001,
    seconds_per_frame=0.002,
)


def seen(**changed: Any) -> Look:
    return dataclasses.replace(SEEN, **changed)


def settings(look: Look, *fixed: str, asked: RunConfig | None = None, **more: Any) -> RunConfig:
    return infer(look, asked or RunConfig(), fixed, **more)[0]


def spec(look: Look, config: RunConfig) -> EnvSpec:
    shape = (config.env.frame_height, config.env.frame_width, 1 if config.env.grayscale else 3)
    tics = look.max_episode_tics or config.env.max_episode_tics
    return EnvSpec("x", {}, shape, look.action_space, [], 10.0, tics, False)


PICTURES = [(10, 10), (16, 16), (17, 23), (20, 24), (31, 7), (40, 40), (56, 56), (84, 84), (96, 96), (210, 160)]
PICTURES += [(240, 320), (160, 600), (600, 160), (64, 2000), (500, 500)]


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kept", [{}, {32: 0.9, 48: 0.9, 64: 0.9}, {32: 0.0, 48: 0.0, 64: 0.1}])
def test_what_is_inferred_is_always_a_run_that_can_begin(
    picture: tuple[int, int], space: dict[str, Any], kept: dict[int, float]
) -> None:
    look = seen(picture=picture, action_space=space, kept=kept, max_episode_tics=None, episode_tics=(), endings=0)
    config, reasons = infer(look, RunConfig())
    check_settings(config)
    check_environment(config, spec(look, config))
    tokens, _ = build_tokenizer(config.tokenizer, spec(look, config).frame_shape).latent_shape
    assert tokens <= 16
    height, width = config.env.frame_height, config.env.frame_width
    assert 0.5 < (height / width) / max(0.25, min(4, picture[0] / picture[1])) < 2
    assert height * width <= 64 * 256
    assert from_dict(RunConfig, to_dict(config), "again") == config
    assert len({reason.setting for reason in reasons}) == len(reasons)
    assert all(reason.why for reason in reasons)


def test_small_things_decide_the_size() -> None:
    assert settings(SEEN).env.frame_height == 48  # the smallest that keeps enough
    assert settings(SEEN).env.frame_width == 64  # 72 in multiples of 16, the even one of two that are as near
    assert settings(seen(kept={32: 0.6, 48: 0.7, 64: 0.9})).env.frame_height == 32
    assert settings(seen(kept={32: 0.0, 48: 0.1, 64: 0.2})).env.frame_height == 64
    faint = settings(seen(kept={32: 0.0, 48: 0.1, 64: 0.2})).tokenizer.contrast_weight
    assert faint > settings(SEEN).tokenizer.contrast_weight == RunConfig().tokenizer.contrast_weight
    small = settings(seen(picture=(10, 10), kept={}))
    assert (small.env.frame_height, small.env.frame_width, small.tokenizer.patch) == (10, 10, 5)


def test_frames_keep_the_aspect_in_multiples_of_16() -> None:
    assert frame_size((240, 320), 48) == (48, 64)
    assert frame_size((210, 160), 48) == (64, 48)
    assert frame_size((64, 2000), 32) == (32, 128)


@pytest.mark.parametrize("grid", [(8, 8), (6, 8), (8, 6), (2, 2), (5, 5), (4, 16), (1, 1), (6, 6), (8, 10)])
def test_tokens_are_few_and_divide_the_grid(grid: tuple[int, int]) -> None:
    rows, cols = merged(grid)
    assert grid[0] % rows == 0
    assert grid[1] % cols == 0
    assert 1 <= math.prod(grid) // (rows * cols) <= 5


def test_grey_pictures_stay_grey() -> None:
    assert settings(seen(grey=True)).env.grayscale is True
    assert settings(SEEN).env.grayscale is False


@pytest.mark.parametrize(
    ("changed", "skip"),
    [
        ({}, 4),  # 50 a second, and two tics bring only a third of the change
        ({"changes": {1: 5.0, 2: 7.0, 16: 10.0}}, 2),  # 25 decisions a second are enough
        ({"changes": {1: 5.0, 2: 7.0, 16: 10.0}, "tics_per_second": 20.0}, 1),
        ({"tics_per_second": 15.0}, 1),  # skipping would leave fewer than ten a second
        ({"changes": {1: 9.0, 2: 10.0, 16: 10.0}}, 1),  # a grid world: each step is a move
        ({"changes": {1: 9.0, 2: 10.0, 16: 10.0}, "tics_per_second": 10.0}, 1),
        ({"tics_per_second": None}, 1),
        ({"episode_tics": (14, 13, 15)}, 2),  # episodes must keep some steps
        ({"changes": {}}, 4),
    ],
)
def test_frame_skip(changed: dict[str, Any], skip: int) -> None:
    assert settings(seen(**changed)).env.frame_skip == skip


def test_dreams_must_end() -> None:
    assert settings(SEEN).env.max_episode_tics is None  # the env's own limit stays
    config = settings(seen(max_episode_tics=None))
    assert config.env.max_episode_tics == 1000 * config.env.frame_skip
    long = settings(seen(max_episode_tics=None, episode_tics=(3000,)))
    assert long.env.max_episode_tics == 12_000


def test_random_play_goes_places() -> None:
    moves = {"changes": {1: 9.0, 2: 10.0, 16: 10.0}}
    assert settings(SEEN).collect.stickiness == "mixed"
    assert settings(seen(**moves)).collect.stickiness == "0.3"
    assert settings(seen(action_space=SPACES[3], **moves)).collect.stickiness == "mixed"


def test_slow_envs_give_less_data_and_a_shorter_verdict() -> None:
    fast, slow = settings(SEEN), settings(seen(seconds_per_tic=0.02, seconds_per_frame=0.05))
    assert sum(slow.collect.tics) < sum(fast.collect.tics) / 5
    # As many steps as two workers play in their share of twelve minutes, rounded down to two digits.
    steps = sum(slow.collect.tics) / slow.env.frame_skip
    assert 0.8 < steps * (4 * 0.02 + 0.05) / 2 / (720 * SHARES["collect"]) <= 1
    quick = settings(seen(seconds_per_tic=1e-4, seconds_per_frame=1e-4))
    assert slow.evaluate.episodes < fast.evaluate.episodes < quick.evaluate.episodes == 100
    assert sum(settings(seen(seconds_per_tic=1e-6, seconds_per_frame=1e-6)).collect.tics) <= 4 * MOST_STEPS
    assert slow.collect.held_out_fraction > fast.collect.held_out_fraction  # some episodes must be held out


def test_more_time_is_used() -> None:
    short, long = settings(SEEN, minutes=4.0, cores=1), settings(SEEN, minutes=40.0, cores=1)
    assert long.dynamics.steps > 5 * short.dynamics.steps
    assert long.tokenizer.steps > 2 * short.tokenizer.steps
    assert sum(long.agent_updates) > 5 * sum(short.agent_updates)


def test_few_endings_are_not_learnt_by_heart() -> None:
    assert settings(SEEN).dynamics.termination_weight == 0.05
    assert settings(seen(endings=0)).dynamics.termination_weight == RunConfig().dynamics.termination_weight
    many = settings(seen(episode_tics=(10,) * 500, endings=500))
    assert many.dynamics.termination_weight == RunConfig().dynamics.termination_weight


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("collect.tics", [50_000]),
        ("agent_updates", [50, 20, 20]),
        ("dynamics.sampling_steps", 8),
        ("dream.context_frames", 12),
        ("tokenizer.heads", 3),
        ("dynamics.kind", "mdn_rnn"),
    ],
)
def test_a_single_setting_of_the_users_fits(setting: str, value: Any) -> None:
    config, _ = infer(SEEN, load_config(RunConfig, None, [f"{setting}={value}"]), [setting])
    check_settings(config)
    check_environment(config, spec(SEEN, config))


def test_an_endless_env_that_is_slow_gives_several_episodes() -> None:
    look = seen(max_episode_tics=None, seconds_per_tic=0.05, seconds_per_frame=0.05)
    config, reasons = infer(look, RunConfig(), cores=1)
    assert config.env.max_episode_tics is not None
    assert config.collect.tics[0] >= 3 * config.env.max_episode_tics
    assert [reason.setting for reason in reasons].count("env.max_episode_tics") == 1


def test_what_the_user_gave_stays_and_the_rest_fits_it() -> None:
    asked = RunConfig(rounds=3)
    asked.env.frame_height, asked.env.frame_width, asked.env.frame_skip = 40, 24, 3
    asked.dynamics.size = "tiny"
    fixed = ("rounds", "env.frame_height", "env.frame_width", "env.frame_skip", "dynamics.size")
    config, reasons = infer(SEEN, asked, fixed)
    assert not {reason.setting for reason in reasons} & set(fixed)
    assert (config.env.frame_height, config.env.frame_width, config.env.frame_skip) == (40, 24, 3)
    assert len(config.collect.tics) == len(config.agent_updates) == 3
    check_settings(config)
    check_environment(config, spec(SEEN, config))
    assert config.dynamics.steps < settings(SEEN).dynamics.steps  # a larger one takes longer
    assert asked.tokenizer == RunConfig().tokenizer  # what was asked is not changed
