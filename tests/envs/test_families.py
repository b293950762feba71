"""What families of simulators add, on the simulators themselves where they are installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worldsim.envs import EnvConfig, make, tics_per_second


@pytest.mark.parametrize(("kwargs", "rate"), [({}, 15.0), ({"frameskip": 1}, 60.0), ({"frameskip": (2, 4)}, 24.0)])
def test_atari_states_its_true_rate(kwargs: dict[str, Any], rate: float) -> None:
    pytest.importorskip("ale_py", reason='Atari is not installed: pip install "worldsim-rl[atari]"')
    config = EnvConfig(id="ALE/Pong-v5", kwargs=kwargs, frame_skip=2)
    env = make(config)
    assert tics_per_second(env, config) == rate
    assert env.metadata["render_fps"] == rate / 2
    env.close()


@pytest.mark.parametrize(("kwargs", "size"), [({}, (128, 128)), ({"width": 96, "height": 64}, (64, 96))])
def test_mujoco_draws_small_pictures_without_a_screen(
    kwargs: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mujoco", reason='MuJoCo is not installed: pip install "worldsim-rl[mujoco]"')
    monkeypatch.delenv("DISPLAY", raising=False)
    config = EnvConfig(id="HalfCheetah-v5", kwargs=kwargs)
    env = make(config)
    assert env.picture_size == size  # type: ignore[attr-defined]
    first, _ = env.reset(seed=0)
    for _ in range(10):
        last, *_ = env.step(np.ones(6, np.float32))
    assert np.abs(last.astype(int) - first).max() > 50
    env.close()


def test_mujoco_follows_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mujoco", reason='MuJoCo is not installed: pip install "worldsim-rl[mujoco]"')
    monkeypatch.delenv("DISPLAY", raising=False)
    env = make(EnvConfig(id="HalfCheetah-v5"))
    frame, _ = env.reset(seed=0)
    base: Any = env.unwrapped

    def orange_columns(frame: np.ndarray[Any, Any]) -> Any:
        red, blue = frame[..., 0].astype(int), frame[..., 2].astype(int)
        return np.flatnonzero((red > blue + 60).any(0))

    before = orange_columns(frame).mean()
    base.data.qpos[0] += 20.0  # far along the track
    frame, *_ = env.step(np.zeros(6, np.float32))
    assert abs(orange_columns(frame).mean() - before) < 8
    env.close()
