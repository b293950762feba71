"""Real episodes to look at, played anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from worldsim import envs
from worldsim.config import from_dict
from worldsim.data.episode import EnvSpec, as_episode
from worldsim.data.import_episodes import has_real_env
from worldsim.data.store import EpisodeStore
from worldsim.envs.config import EnvConfig
from worldsim.envs.errors import UnusableEnvironmentError
from worldsim.model_folder import load_model
from worldsim.rollouts import Env, EpisodeResult, play_episode, play_side_by_side, several
from worldsim.scripted_policies import StickyRandom
from worldsim.workflow.policies import is_greedy, load_dream_trained

FRESH_EPISODES = 4
FRESH_STEPS = 500  # an episode is cut here: some envs never end one
FRESH_SEED = 3_000_000  # far from the seeds of collection and evaluation


def env_config(spec: EnvSpec, folder: Path) -> EnvConfig:
    """The settings of the environment that the model in `folder` dreams of.

    Raises UnusableEnvironmentError for a model of recordings, which say nothing of an environment.
    """
    if not has_real_env(spec):
        raise UnusableEnvironmentError(
            f"{folder} was made from recordings of {spec.id!r}, which no environment goes with: nothing can be played"
        )
    return from_dict(EnvConfig, spec.settings, f"{folder}/config.json")


def make_real_env(spec: EnvSpec, folder: Path) -> Env:
    """The environment that the model in `folder` dreams of. Raises UnusableEnvironmentError where it cannot be made."""
    return envs.make(env_config(spec, folder))


def agent_episode(folder: Path, seed: int, dtype: torch.dtype) -> EpisodeResult:
    """The real episode, with its frames, that the policy in the world model folder plays with `seed`."""
    policy = load_dream_trained(folder, folder / "policy", greedy=is_greedy(folder / "policy"), dtype=dtype)
    env = make_real_env(load_model(folder).spec, folder)
    try:
        [result] = play_side_by_side([env], policy, [seed])
    finally:
        env.close()
    return result


def fresh_store(folder: Path, into: Path, dtype: torch.dtype) -> EpisodeStore:
    """A new store in `into` with held-out episodes of the model's policy, or of sticky random actions without one."""
    spec = load_model(folder).spec
    seeds = range(FRESH_SEED, FRESH_SEED + FRESH_EPISODES)
    with several(lambda: make_real_env(spec, folder), len(seeds)) as real:
        if (folder / "policy").is_dir():
            greedy = is_greedy(folder / "policy")
            policy = load_dream_trained(folder, folder / "policy", greedy=greedy, dtype=dtype)
            results: Sequence[EpisodeResult] = play_side_by_side(real, policy, seeds, max_steps=FRESH_STEPS)
            name = policy.name
        else:
            random = StickyRandom(spec.gym_action_space())
            pairs = zip(real, seeds, strict=True)
            results = [play_episode(env, random, seed, max_steps=FRESH_STEPS) for env, seed in pairs]
            name = random.name
    store = EpisodeStore.create(into, spec)
    with store.writer("fresh") as writer:
        for result in results:
            writer.append(as_episode(result, policy=name, split="held_out"))
    store.refresh()
    return store
