"""What Take Cover allows: the score of a planner that is told where fireballs are.

    python -m benchmarks.take_cover_ceiling                           all four kinds of knowledge, 100 episodes each
    python -m benchmarks.take_cover_ceiling --knows seen --episodes 20 --out O

No learning and no pixels: the engine tells positions and velocities, the planner foresees its own motion and each
fireball's, and takes the first action of the best of some hundred plans of 64 tics. What differs is which fireballs it
is told of, so the scores say how much of the task is seeing, and how much remembering:

    all         every one that flies
    remembered  those that are in the field of view now or were before
    seen        those that are in the field of view now
    none        none: what motion alone is worth

An agent of frames can at best know what "remembered" knows. OUT/ceiling.json gets every episode's score.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from worldsim import envs
from worldsim.envs.config import EnvConfig
from worldsim.evaluation.statistics import bootstrap_interval
from worldsim.rollouts import Env

KNOWLEDGE = ("all", "remembered", "seen", "none")
STEPS, TICS = 16, 4  # of a plan, and of a step
# Of the engine, in map units and tics: how the player gathers and loses speed, and where the room ends.
ACCELERATION, FRICTION, WALLS = 0.75, 0.90625, (16.0, 752.0)
REACH = 24.0  # a fireball hits within the two radii, 16 and 6, and some more for where it is between tics
MARGIN = 10.0  # what a plan keeps off it if it can

Floats = NDArray[np.float64]


class Fireball(NamedTuple):
    """Where it is as the player sees it, ahead and to the left, and how it moves in the room, in units a tic."""

    ahead: float
    left: float
    speed_ahead: float
    speed_left: float


def plans() -> NDArray[np.int64]:
    """Directions (P, STEPS), 1 left, 0 none, -1 right: all that change it at most twice, at some chosen steps."""
    moves = itertools.product((0, 1, -1), (1, 2, 3, 4, 6, 8, 11, 16), (0, 1, -1), (1, 2, 4, 8, 16), (0, 1, -1))
    unique = {tuple(([a] * i + [b] * j + [c] * STEPS)[:STEPS]) for a, i, b, j, c in moves}
    return np.array(sorted(unique))


def paths(directions: NDArray[np.int64], position: float, speed: float) -> Floats:
    """Where each plan (P, STEPS) has the player after each tic, (P, STEPS * TICS)."""
    pushes = np.repeat(directions, TICS, axis=1) * ACCELERATION
    places = np.empty(pushes.shape)
    place, pace = np.full(len(pushes), position), np.full(len(pushes), speed)
    for tic in range(pushes.shape[1]):
        moved = pace + pushes[:, tic]
        free = (place + moved > WALLS[0]) & (place + moved < WALLS[1])
        place = np.where(free, place + moved, place)
        pace = np.where(free, moved * FRICTION, 0.0)
        places[:, tic] = place
    return places


def passes(places: Floats, position: float, fireballs: Sequence[Fireball]) -> Iterator[tuple[int, Floats]]:
    """Of each fireball that comes beside a player who is at `position` now: from which tic on (0: the next), and how
    near it then comes on each path (P, T), (P,).
    """
    tics = np.arange(1, places.shape[1] + 1)
    for ball in fireballs:
        beside = np.flatnonzero(np.abs(ball.ahead + ball.speed_ahead * tics) < REACH)
        if len(beside):
            there = position + ball.left + ball.speed_left * tics[beside]
            yield int(beside[0]), np.abs(places[:, beside] - there).min(1)


def costs(places: Floats, position: float, fireballs: list[Fireball]) -> Floats:
    """What each path (P, T) risks, (P,): about the number of hits, sooner ones counting more."""
    # Fireballs are thrown at where the player is: who moves is missed. At a wall half of the room is out of view.
    still = np.abs(np.diff(places, axis=1)) < 2
    cornered = (places < WALLS[0] + MARGIN * 2) | (places > WALLS[1] - MARGIN * 2)
    total: Floats = 0.02 * still.mean(1) + 0.02 * cornered.mean(1)
    for first, gap in passes(places, position, fireballs):
        total += np.clip((REACH + MARGIN - gap) / MARGIN, 0, 1) * 0.97 ** (first / TICS)
        total += 0.02 * np.clip((REACH + 4 * MARGIN - gap) / (3 * MARGIN), 0, 1)
    return total


class Planner:
    """Plays by the engine's own list of objects, as far as `knows` lets it."""

    def __init__(self, game: Any, meanings: list[str], knows: str) -> None:
        self.game, self.knows = game, knows
        self.actions = {1: meanings.index("left"), 0: meanings.index("noop"), -1: meanings.index("right")}
        self.plans = plans()
        self.met: set[int] = set()

    def reset(self) -> None:
        """A new episode: nothing is remembered."""
        self.met.clear()

    def act(self) -> int:
        """The action for the moment that the engine stands at."""
        return self.actions[int(self.plans[self._costs().argmin(), 0])]

    def risks(self) -> Floats:
        """(3,), of each action the cost of the best plan that begins with it, at the moment the engine stands at."""
        costs_of_plans = self._costs()
        risks = np.empty(len(self.actions))
        for direction, action in self.actions.items():
            risks[action] = costs_of_plans[self.plans[:, 0] == direction].min()
        return risks

    def _costs(self) -> Floats:
        """Of all plans, (P,)."""
        player, balls = fireballs_of(self.game, self.met)
        places = paths(self.plans, player.position_y, player.velocity_y)
        return costs(places, player.position_y, balls[self.knows])


def fireballs_of(game: Any, met: set[int]) -> tuple[Any, dict[str, list[Fireball]]]:
    """The player as the engine tells of it, and the fireballs that each kind of knowledge has; `met` grows."""
    objects = game.get_state().objects
    player = next(thing for thing in objects if thing.name == "DoomPlayer")
    known: dict[str, list[Fireball]] = {knows: [] for knows in KNOWLEDGE}
    for thing in objects:
        # What has hit something stands still for some tics while it bursts, and harms nobody.
        if thing.name != "DoomImpBall" or not (thing.velocity_x or thing.velocity_y):
            continue
        ahead, left = thing.position_x - player.position_x, thing.position_y - player.position_y
        ball = Fireball(ahead, left, thing.velocity_x, thing.velocity_y)
        known["all"].append(ball)
        if ahead > abs(left):  # the view is a right angle
            met.add(thing.id)
            known["seen"].append(ball)
        if thing.id in met:
            known["remembered"].append(ball)
    return player, known


def planner_of(env: Env, action_meanings: list[str], knows: str) -> Planner:
    """A planner who is told what the engine of `env` knows."""
    game = env.get_wrapper_attr("game")
    game.set_objects_info_enabled(True)
    return Planner(game, action_meanings, knows)


def play(knows: str, seeds: range) -> list[float]:
    """The planner's return in each episode."""
    config = EnvConfig(id="VizdoomTakeCover-v1", frame_skip=TICS, max_episode_tics=2100)
    env = envs.make(config)
    planner = planner_of(env, envs.describe(env, config)["action_meanings"], knows)
    scores = []
    for seed in tqdm(seeds, desc=knows, unit="episode"):
        env.reset(seed=seed)
        planner.reset()
        score, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(planner.act())
            score, over = score + float(reward), terminated or truncated
        scores.append(score)
    env.close()
    return scores


def main() -> None:
    """Play what the command line asks for and print a line for each kind of knowledge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--knows", choices=KNOWLEDGE, action="append", help="may be given again (default: all four)")
    parser.add_argument("--episodes", type=int, default=100, help="of each (default: 100)")
    parser.add_argument("--seed", type=int, default=1_000_000, help="first one (default: 1000000, the verdict's)")
    parser.add_argument("--out", type=Path, help="folder for ceiling.json")
    arguments = parser.parse_args()
    seeds = range(arguments.seed, arguments.seed + arguments.episodes)
    scores = {knows: play(knows, seeds) for knows in arguments.knows or KNOWLEDGE}
    for knows, returns in scores.items():
        low, high = bootstrap_interval(returns)
        capped = np.mean(np.array(returns) >= 2096)
        print(f"{knows:12} {np.mean(returns):6.0f}   95 % {low:.0f} to {high:.0f}   reach the cap: {capped:.0%}")
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "ceiling.json").write_text(json.dumps({"seed": arguments.seed, "returns": scores}, indent=1))


if __name__ == "__main__":
    main()
