"""Compiled networks dream what eager ones do. CUDA graphs need a GPU, so what is compared here is what was traced."""

from __future__ import annotations

import numpy as np
import pytest

from tests.worlds import tiny_world
from worldsim.compiled import compile_networks
from worldsim.dream import DreamVectorEnv
from worldsim.errors import UserError


def dreamt(backend: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Frames and rewards of a dream of several rows that lasts beyond the window and restarts rows."""
    world = tiny_world()
    if backend is not None:
        compile_networks(world, backend=backend)
    rows = DreamVectorEnv(world, 3, max_episode_steps=5)
    frames = [rows.reset(seed=0)[0]]
    rewards = []
    for t in range(8):
        observation, reward, *_ = rows.step(np.array([t % 3, 1, 2]))
        frames.append(observation)
        rewards.append(reward)
    return np.stack(frames), np.stack(rewards)


def test_compiled_networks_dream_what_eager_ones_do() -> None:
    eager, compiled = dreamt(None), dreamt("aot_eager")
    np.testing.assert_allclose(eager[0].astype(int), compiled[0].astype(int), atol=1)
    np.testing.assert_allclose(eager[1], compiled[1], rtol=1e-4, atol=1e-3)  # of rewards up to 50, other sums


def test_cuda_graphs_need_a_gpu() -> None:
    with pytest.raises(UserError, match="need a GPU, the world model is on cpu"):
        compile_networks(tiny_world())


def test_only_the_dit_is_known() -> None:
    with pytest.raises(UserError, match="the DiT alone, this is MdnRnn"):
        compile_networks(tiny_world(kind="mdn_rnn"), backend="aot_eager")
