"""What kills in Take Cover: is it in the picture, and could it have been remembered?

    python -m benchmarks.take_cover_deaths runs/take_cover                    deaths of the newest round's episodes
    python -m benchmarks.take_cover_deaths runs/take_cover --round 0 --deaths 300

Recorded episodes are played again by their seeds and actions, and before each step the engine tells where fireballs
are. So many steps before a death, would one of those fireballs have hit whoever takes the actions that were taken?
Asked of the fireballs in the field of view at that moment, of those that are or were in view, and of all: the first is
what one frame can tell, the second what frames can tell that are remembered. Beside it the same of moments that no
death follows, within as many steps.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.take_cover_ceiling import REACH, TICS, Fireball, fireballs_of, passes, paths
from worldsim import envs
from worldsim.data.collection import reset_options
from worldsim.data.store import EpisodeStore
from worldsim.envs.config import EnvConfig
from worldsim.errors import UserError
from worldsim.rollouts import Env

AGES = (1, 2, 3, 4, 6, 8, 12)
KNOWLEDGE = ("seen", "remembered", "all")
QUIET = 30  # no death follows moments that lie so many steps before one

Foreseen = dict[tuple[str, int], list[bool]]  # by what is known and how many steps before


def main() -> None:
    """Play again and print."""
    arguments = _arguments()
    store = EpisodeStore.open(arguments.run / "episodes")
    newest = max(entry.round for entry in store.entries)
    round_number = newest if arguments.round is None else arguments.round
    deaths = [
        i
        for i in store.played()
        if store.entries[i].round == round_number and store.terminated(i) and store.lengths[i] > max(AGES) + QUIET
    ]
    if not deaths:
        raise UserError(f"{arguments.run} has no deaths after {max(AGES) + QUIET} steps in round {round_number}")
    random = np.random.default_rng(arguments.seed)
    chosen = random.permutation(deaths)[: arguments.deaths].tolist()
    config = EnvConfig(id="VizdoomTakeCover-v1", frame_skip=TICS, max_episode_tics=2100)
    env = envs.make(config)
    env.get_wrapper_attr("game").set_objects_info_enabled(True)
    meanings = envs.describe(env, config)["action_meanings"]
    of_deaths: Foreseen = defaultdict(list)
    of_others: Foreseen = defaultdict(list)
    for i in tqdm(chosen, desc="deaths"):
        other = int(random.integers(max(AGES), store.lengths[i] - QUIET))
        play_again(env, store, i, meanings, {len(store.steps(i)): of_deaths, other: of_others})
    env.close()
    print(f"{len(chosen)} deaths of round {round_number}: share foreseen so many steps before / of quiet moments")
    print(f"{'':12}" + "".join(f"{age:>14}" for age in AGES))
    for knows in KNOWLEDGE:
        shares = [f"{np.mean(of_deaths[knows, age]):.2f} / {np.mean(of_others[knows, age]):.2f}" for age in AGES]
        print(f"{knows:12}" + "".join(f"{share:>14}" for share in shares))


def play_again(env: Env, store: EpisodeStore, episode: int, meanings: list[str], told: dict[int, Foreseen]) -> None:
    """Play a recorded episode; `told` by the number of steps of a moment gets what was foreseen of it before.

    Raises UserError if the env does not repeat itself.
    """
    entry = store.entries[episode]
    actions = store.steps(episode)["action"].tolist()
    game, met = env.get_wrapper_attr("game"), set[int]()
    env.reset(seed=entry.seed, options=reset_options(store, entry.round))
    ended = False
    for t, action in enumerate(actions):
        if ended:
            break
        player, balls = fireballs_of(game, met)
        for moment, foreseen in told.items():
            if moment - t in AGES:
                for knows in KNOWLEDGE:
                    taken = [meanings[a] for a in actions[t:moment]]
                    foreseen[knows, moment - t].append(hits(player, balls[knows], taken))
        _, _, terminated, truncated, _ = env.step(action)
        ended = terminated or truncated
    if not ended or t != len(actions) - 1:
        raise UserError(f"episode {episode} (seed {entry.seed}) does not end again where it ended: another engine?")


def hits(player: Any, fireballs: Sequence[Fireball], taken: list[str]) -> bool:
    """Whether one of the fireballs comes within reach of a player who takes these actions."""
    directions = np.array([[{"left": 1, "right": -1}.get(name, 0) for name in taken]])
    places = paths(directions, player.position_y, player.velocity_y)
    return any(gap[0] < REACH for _, gap in passes(places, player.position_y, fireballs))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's folder, with its episodes")
    parser.add_argument("--round", type=int, help="whose episodes (default: the newest)")
    parser.add_argument("--deaths", type=int, default=200, help="at most (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
