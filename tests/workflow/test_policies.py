"""A dream-trained policy that plays several real episodes side by side."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.worlds import ACTION_SPACES, NoiseEnv, tiny_world
from worldsim.agents.networks import PolicyNetwork, network_spec
from worldsim.agents.policies import NetworkPolicy, NetworkRows
from worldsim.agents.policy_io import save_policy
from worldsim.agents.values import ValueNetwork
from worldsim.dream import DreamVectorEnv
from worldsim.errors import UserError
from worldsim.evaluation.panel import Thoughts
from worldsim.evaluation.videos import agent_in_reality
from worldsim.model_folder import load_model, save_model
from worldsim.rollouts import play_side_by_side
from worldsim.workflow.policies import DreamTrainedPolicy, EachRow, _Row, load_dream_trained, thinking_agent
from worldsim.workflow.watching import StackWatcher, Watcher
from worldsim.world_model import row_generator


@pytest.mark.parametrize("actions", ACTION_SPACES)
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_a_row_plays_as_it_would_alone(actions: str, noise: float) -> None:
    model = tiny_world(actions)
    spec = network_spec(DreamVectorEnv(model, 1, observation="features"), [16])
    network = PolicyNetwork(spec, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.head.weight, std=1.0, generator=torch.Generator().manual_seed(1))
    policy = DreamTrainedPolicy(model, NetworkRows(network), noise=noise)
    seeds = [11, 3, 7, 18]
    together = play_side_by_side([NoiseEnv(model) for _ in seeds], policy, seeds)
    assert len({result.length for result in together}) > 1
    for seed, row in zip(seeds, together, strict=True):
        [alone] = play_side_by_side([NoiseEnv(model)], policy, [seed])
        assert row.frames is not None
        assert alone.frames is not None
        np.testing.assert_array_equal(row.frames, alone.frames)
        np.testing.assert_allclose(row.actions, alone.actions, atol=1e-4)


@pytest.mark.parametrize("noise_steps", [1.0, 12.0])
def test_noise_comes_in_spells(noise_steps: float) -> None:
    row = _Row(0, gym.spaces.Box(0, 1), noise=0.25, noise_steps=noise_steps)
    frame, own = np.zeros((4, 4, 3), np.uint8), np.zeros(1, np.float32)
    noisy = np.array([row.choose(own, frame) is not own for _ in range(40_000)])
    assert noisy.mean() == pytest.approx(0.25, abs=0.02)
    stretches = np.diff(np.flatnonzero(np.diff(noisy, prepend=False, append=False)))[::2]
    begins = 0.25 / (noise_steps * 0.75 + 0.25)
    assert stretches.mean() == pytest.approx(noise_steps / (1 - begins), rel=0.1)


def test_noise_is_not_drawn_from_the_numbers_of_the_env() -> None:
    row = _Row(18, gym.spaces.Discrete(3), noise=0.5, noise_steps=1.0)
    noisy = [row.choose(-1, np.zeros((4, 4, 3), np.uint8)) != -1 for _ in range(200)]
    of_the_env = np.random.default_rng(18).random(200) < 0.5  # an env that is reset with the same seed
    assert abs(np.mean(noisy == of_the_env) - 0.5) < 0.15


@pytest.mark.parametrize("actions", ACTION_SPACES)
@pytest.mark.parametrize("stacked", [False, True])
def test_a_pass_for_all_rows_acts_as_one_for_each(actions: str, stacked: bool) -> None:
    model = tiny_world(actions)
    model.stack_ages = (0, 1, 3) if stacked else ()
    spec = network_spec(DreamVectorEnv(model, 1, observation=model.agent_observation), [16])
    network = PolicyNetwork(spec, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.head.weight, std=1.0, generator=torch.Generator().manual_seed(1))
    seeds = [11, 3, 7]
    played = [
        play_side_by_side([NoiseEnv(model) for _ in seeds], DreamTrainedPolicy(model, rows), seeds)
        for rows in (NetworkRows(network), EachRow(partial(NetworkPolicy, network)))
    ]
    for together, each in zip(*played, strict=True):
        np.testing.assert_allclose(together.actions, each.actions, atol=1e-4)


def test_frame_stacks_need_no_dynamics() -> None:
    model = tiny_world()
    model.stack_ages = (0, 2, 3)
    random = np.random.default_rng(0)
    watchers = StackWatcher(model), Watcher(model)
    rows = np.arange(4)
    for step in range(9):
        if step in (4, 6):  # an episode ends
            rows = np.delete(rows, 1)
        frames = random.integers(256, size=(len(rows), *model.spec.frame_shape), dtype=np.uint8)
        taken = random.integers(3, size=len(rows))
        generators = [row_generator(int(row)) for row in rows]
        without, through = (watcher.observe(frames, rows, generators, taken) for watcher in watchers)
        np.testing.assert_array_equal(without, through)


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_what_it_thought_is_found_again_from_what_it_did(actions: str, tmp_path: Path) -> None:
    model = tiny_world(actions)
    spec = network_spec(DreamVectorEnv(model, 1, observation="features"), [16])
    network, value = PolicyNetwork(spec, torch.Generator().manual_seed(0)), ValueNetwork(spec)
    for layer in (network.head, value.head):
        torch.nn.init.normal_(layer.weight, std=1.0, generator=torch.Generator().manual_seed(1))
    save_model(model, tmp_path)
    save_policy(network, tmp_path / "policy", notes={"greedy": True}, value=value)
    policy = load_dream_trained(tmp_path, tmp_path / "policy", greedy=True)
    [played] = play_side_by_side([NoiseEnv(model)], policy, [18])
    assert played.frames is not None
    think, thoughts = thinking_agent(tmp_path / "policy", model, seed=0), []

    def spied(observations: NDArray[Any]) -> Thoughts:
        thoughts.append(think(observations))
        return thoughts[-1]

    video = agent_in_reality(model, played.frames, played.actions, played.rewards, spied, seed=18)
    assert video.length == len(thoughts) == played.length + 1
    chosen = np.concatenate([thought.actions for thought in thoughts[:-1]])
    np.testing.assert_allclose(chosen.reshape(played.actions.shape), played.actions, atol=1e-6)
    shares = np.concatenate([thought.shares for thought in thoughts[:-1]])
    if actions == "discrete":
        np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
        np.testing.assert_array_equal(shares.argmax(1), played.actions)
    else:  # bounds -1 to 1 and 0 to 1
        np.testing.assert_allclose(shares * [2, 1] - [1, 0], played.actions, atol=1e-6)
    values = [thought.values for thought in thoughts]
    assert len({float(known[0]) for known in values if known is not None}) > 1


@pytest.mark.parametrize("greedy", [True, False])
def test_an_agent_to_watch_is_as_greedy_as_it_is_judged(greedy: bool, tmp_path: Path) -> None:
    model = tiny_world()
    spec = network_spec(DreamVectorEnv(model, 1, observation="features"), [16])
    network = PolicyNetwork(spec)
    torch.nn.init.constant_(network.head.bias[1:2], 0.5)
    save_policy(network, tmp_path, notes={"greedy": greedy})
    thoughts = thinking_agent(tmp_path, model, seed=0)(np.zeros((200, *spec.observation_shape), np.float32))
    assert set(thoughts.actions.tolist()) == ({1} if greedy else {0, 1, 2})
    assert thoughts.values is None
    again = thinking_agent(tmp_path, model, seed=0)(np.zeros((200, *spec.observation_shape), np.float32))
    np.testing.assert_array_equal(again.actions, thoughts.actions)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("actions", ["discrete", "multi_discrete", "box"])
def test_an_agent_to_watch_thinks_on_the_gpu(actions: str, tmp_path: Path) -> None:
    save_model(tiny_world(actions), tmp_path)
    model = load_model(tmp_path, device="cuda")
    spec = network_spec(DreamVectorEnv(model, 1, observation="features"), [16])
    save_policy(PolicyNetwork(spec), tmp_path / "policy", value=ValueNetwork(spec))
    thoughts = thinking_agent(tmp_path / "policy", model, seed=0)(np.zeros((2, *spec.observation_shape), np.float32))
    assert thoughts.values is not None
    assert thoughts.shares.shape[0] == len(thoughts.values) == 2


def test_a_policy_of_another_observation_is_refused(tmp_path: Path) -> None:
    model, other = tiny_world("discrete"), tiny_world("box")
    save_model(model, tmp_path)
    spec = network_spec(DreamVectorEnv(other, 1, observation="features"), [16])
    save_policy(PolicyNetwork(spec), tmp_path / "policy")
    with pytest.raises(UserError, match=r"reads observations of shape .* have .*: train a policy in its dream"):
        load_dream_trained(tmp_path, tmp_path / "policy")
    with pytest.raises(UserError, match="reads observations of shape"):
        thinking_agent(tmp_path / "policy", model, seed=0)
