"""CartPole from pixels: the fast pictures are Gymnasium's own, rewards and endings are unchanged."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from PIL import Image

from worldsim.envs import EnvConfig, describe, make, read_state, telling

pytest.importorskip("pygame", reason='pygame is not installed: pip install "worldsim-rl[classic]"')

SMALL = EnvConfig(id="CartPole-v1", frame_height=32, frame_width=96, grayscale=True)


def test_pictures_equal_gymnasiums_render() -> None:
    env = make(EnvConfig(id="CartPole-v1"))
    env.reset(seed=0)
    theirs = gym.make("CartPole-v1", render_mode="rgb_array")
    theirs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        state = np.array([rng.uniform(-2.5, 2.5), 0.0, rng.uniform(-0.3, 0.3), 0.0])
        env.unwrapped.state = state  # type: ignore[attr-defined]
        theirs.unwrapped.state = state  # type: ignore[attr-defined]
        assert np.array_equal(np.asarray(env.render()), np.asarray(theirs.render()))
    env.close()
    theirs.close()


@pytest.mark.parametrize("size", [(400, 600), (64, 64)])
def test_a_cartpole_that_draws_itself_is_shown_as_it_draws(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Striped(CartPoleEnv):
        def render(self) -> Any:
            picture = np.full((*size, 3), 7, np.uint8)
            picture[: size[0] // 4] = 200  # above what matters in Gymnasium's own
            return picture

    def striped(**kwargs: Any) -> Striped:
        return Striped(**kwargs)

    monkeypatch.setitem(gym.registry, "CartPole-v1", EnvSpec("CartPole-v1", striped, max_episode_steps=500))
    env = make(EnvConfig(id="CartPole-v1"))
    frame, _ = env.reset(seed=0)
    env.close()
    assert (frame[:16] == 200).all()
    assert (frame[16:] == 7).all()


def test_an_id_without_a_version_is_of_its_family() -> None:
    with pytest.warns(UserWarning, match="latest versioned"):
        env = make(EnvConfig(id="CartPole"))
    frame, _ = env.reset(seed=0)
    env.close()
    versioned = make(EnvConfig(id="CartPole-v1"))
    np.testing.assert_array_equal(frame, versioned.reset(seed=0)[0])
    versioned.close()


def test_an_id_that_names_its_module_is_known_as_without_it() -> None:
    plain, named = (EnvConfig(id=env_id) for env_id in ("CartPole-v1", "gymnasium:CartPole-v1"))
    facts = []
    for config in (plain, named):
        env = make(config)
        facts.append({**describe(env, config), "picture": env.reset(seed=0)[0].tobytes()})
        env.close()
    assert facts[0]["action_meanings"] == facts[1]["action_meanings"] == ["left", "right"]
    assert facts[0]["picture"] == facts[1]["picture"], "the same crop"


def test_the_default_crop_shows_all_that_moves() -> None:
    env = make(EnvConfig(id="CartPole-v1"))
    env.reset(seed=0)
    for position, angle in ((-2.4, 0.0), (2.4, 0.21), (0.0, -0.21), (0.0, 0.0)):
        env.unwrapped.state = np.array([position, 0.0, angle, 0.0])  # type: ignore[attr-defined]
        picture: Any = env.render()
        assert (picture[:160] == 255).all()
        assert (picture[320:] == 255).all()


def test_a_frame_is_the_cropped_picture_shrunk_by_a_box_filter() -> None:
    env = make(SMALL)
    frame, _ = env.reset(seed=3)
    assert frame.shape == (32, 96, 1)
    picture: Any = env.render()
    band = Image.fromarray(picture[160:320]).convert("L")
    assert np.array_equal(frame[..., 0], np.asarray(band.resize((96, 32), Image.Resampling.BOX)))
    chosen = make(EnvConfig(id="CartPole-v1", frame_height=20, frame_width=30, crop=[170, 310, 100, 500]))
    frame, _ = chosen.reset(seed=3)
    band = Image.fromarray(picture[170:310, 100:500])
    assert np.array_equal(frame, np.asarray(band.resize((30, 20), Image.Resampling.BOX)))


def test_rewards_and_endings_are_unchanged() -> None:
    env, theirs = make(SMALL), gym.make("CartPole-v1")
    env.reset(seed=0)
    theirs.reset(seed=0)
    for _ in range(500):
        _, reward, terminated, truncated, info = env.step(1)
        assert (reward, terminated, truncated) == theirs.step(1)[1:4]
        assert info["tics"] == 1
        if terminated:
            break
    else:
        pytest.fail("the pole never fell")
    with pytest.raises(gym.error.ResetNeeded):
        env.step(1)


def test_time_limit_truncates() -> None:
    config = EnvConfig(id="CartPole-v1", frame_skip=3, kwargs={"max_episode_steps": 10})
    env = make(config)
    env.reset(seed=0)
    steps = [env.step(index % 2) for index in range(4)]
    assert [info["tics"] for *_, info in steps] == [3, 3, 3, 1]
    assert [reward for _, reward, *_ in steps] == [3.0, 3.0, 3.0, 1.0]
    assert [truncated for _, _, _, truncated, _ in steps] == [False, False, False, True]
    assert not any(terminated for _, _, terminated, _, _ in steps)
    assert describe(env, config)["max_episode_steps"] == 4


def test_describe_states_the_facts() -> None:
    env = gym.wrappers.RecordEpisodeStatistics(make(SMALL))  # a wrapper on top does no harm
    facts = describe(env, SMALL)
    assert facts["frame_shape"] == (32, 96, 1)
    assert facts["action_meanings"] == ["left", "right"]
    assert facts["frames_per_second"] == 50.0
    assert facts["max_episode_steps"] == 500
    assert facts["blank_terminal_frame"] is False
    with pytest.raises(TypeError, match="made by worldsim"):
        describe(gym.make("CartPole-v1"), SMALL)


def test_unseeded_resets_stay_random() -> None:
    frames = []
    for _ in range(2):
        env = make(EnvConfig(id="CartPole-v1", image="render"))
        env.reset()
        frames.append(env.unwrapped.state)  # type: ignore[attr-defined]
    assert not np.array_equal(frames[0], frames[1])


@pytest.mark.parametrize("config", [SMALL, EnvConfig(id="CartPole-v1", image="render")])
@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")
def test_gymnasium_accepts_it(config: EnvConfig) -> None:
    check_env(make(config), skip_render_check=True, skip_close_check=True)


def test_the_true_state_is_that_of_the_simulator() -> None:
    config = telling(EnvConfig())
    assert config == EnvConfig()
    env = make(config)
    env.reset(seed=0)
    for _ in range(3):
        env.step(1)
    state = read_state(env, config)
    env.close()
    assert list(state) == ["cart position", "cart velocity", "pole angle", "pole angular velocity"]
    assert state["cart velocity"] > 0.3  # pushed right
    assert state["pole angular velocity"] < -0.3
    assert telling(EnvConfig(id="Acrobot-v1")) is None
