"""What families of simulators add, on the simulators themselves where they are installed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worldsim.envs import EnvConfig, make, tics_per_second


@pytest.mark.parametrize(("kwargs", "rate"), [({}, 15.0), ({"frameskip": 1}, 60.0), ({"frameskip": (2, 4)}, 20.0)])
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
    later = first
    for _ in range(10):
        later, *_ = env.step(np.ones(6, np.float32))
    assert np.abs(later.astype(int) - first).max() > 50
    env.close()
