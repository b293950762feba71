"""Real episodes that no model has seen, for judging a world model that came without any."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from worldsim.data.episode import EnvSpec, as_episode
from worldsim.data.store import EpisodeStore, open_or_create
from worldsim.errors import UserError
from worldsim.rollouts import Env, play_episode
from worldsim.scripted_policies import StickyRandom

LEAST_STEPS = 4_000  # random play of some envs ends after a few steps: then more episodes are played
LONGEST_EPISODE = 1_000  # steps, where the env itself has no limit


def play_fresh_episodes(
    folder: Path, spec: EnvSpec, make_env: Callable[[], Env], *, episodes: int, seed: int
) -> EpisodeStore:
    """At least `episodes` of sticky random play with the seeds `seed`, `seed` + 1, ...; goes on where it stopped.

    Every second one is in the split "held_out", on which the world model is judged. The judges themselves (the inverse
    dynamics, the probes) learn from the others, in the split "train": no world model was trained on either.
    """
    policy = StickyRandom(spec.gym_action_space())
    store = open_or_create(folder, spec)
    if any(entry.policy != policy.name or entry.seed != seed + k for k, entry in enumerate(store.entries)):
        raise UserError(f"{folder} holds other episodes: give another --out, or the --seed it was begun with")
    env = make_env()
    try:
        with (
            store.writer("fresh") as writer,
            tqdm(total=episodes, initial=len(store), desc="real episodes", unit="episode", dynamic_ncols=True) as bar,
        ):
            steps = int(store.lengths.sum())
            for number in range(len(store), max(episodes, LEAST_STEPS)):
                if number >= episodes and steps >= LEAST_STEPS:
                    break
                result = play_episode(env, policy, seed + number, max_steps=LONGEST_EPISODE)
                split = "held_out" if number % 2 else "train"
                writer.append(as_episode(result, policy=policy.name, split=split))
                steps += writer.entries[-1].frames - 1
                bar.update()
    finally:
        env.close()
    store.refresh()
    return store
