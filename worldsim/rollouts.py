"""Policies as one call, and episodes played with them in any Gymnasium environment that shows uint8 frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldsim.errors import UserError
from worldsim.workers import Send, run_workers

Action = int | NDArray[np.float32]
Env = gym.Env[Any, Any]

# A policy's stream of random numbers must differ from the environment's, which starts from the same seed.
POLICY_STREAM = 0x706F6C


class Policy(Protocol):
    """Whatever turns frames into actions. What it does may depend only on the episode's seed and frames."""

    name: str

    def reset(self, seed: int) -> None:
        """Begins a new episode."""

    def __call__(self, frame: NDArray[np.uint8]) -> Action:
        """The action after a frame (H, W, C): an int for Discrete spaces, a float32 array for Box."""


@dataclass(frozen=True)
class EpisodeResult:
    """One episode as it was played. `frames` is None where they were not kept."""

    seed: int
    total_reward: float
    length: int  # steps
    tics: int  # steps of the underlying environment
    terminated: bool
    truncated: bool  # by the environment or by a limit given to `play_episode`
    frames: NDArray[np.uint8] | None  # (T+1, H, W, C)
    actions: NDArray[Any]  # (T,) int64 or (T, A) float32
    rewards: NDArray[np.float32]  # (T,)


def play_episode(
    env: Env,
    policy: Policy,
    seed: int,
    *,
    max_steps: int | None = None,
    max_tics: int | None = None,
    keep_frames: bool = True,
    on_step: Callable[[int], None] | None = None,
    reset_options: dict[str, Any] | None = None,
) -> EpisodeResult:
    """Plays from `env.reset(seed=seed, options=reset_options)` to the end, or cuts (truncates) it at a limit.

    `max_tics` limits the steps of the underlying environment, which `info["tics"]` counts (1 for each step where it
    is missing). A step as long as the longest so far that would go beyond it is not taken; there is always one step.
    `on_step` is told each step's tics.
    """
    policy.reset(seed)
    frame, _ = env.reset(seed=seed, options=reset_options)
    frames, actions, rewards = [_checked_frame(frame)] if keep_frames else [], [], []
    tics = longest_step = 0
    terminated = truncated = False
    while not (terminated or truncated):
        action = policy(frame)
        frame, reward, terminated, truncated, info = env.step(action)
        step_tics = int(info.get("tics", 1))
        tics, longest_step = tics + step_tics, max(longest_step, step_tics)
        actions.append(_stored_action(action))
        rewards.append(float(reward))
        if keep_frames:
            frames.append(_checked_frame(frame))
        if on_step is not None:
            on_step(step_tics)
        at_limit = (max_steps is not None and len(rewards) >= max_steps) or (
            max_tics is not None and tics + longest_step > max_tics
        )
        truncated = bool(truncated) or (at_limit and not terminated)
    return EpisodeResult(
        seed=seed,
        total_reward=float(np.sum(rewards)),
        length=len(rewards),
        tics=tics,
        terminated=bool(terminated),
        truncated=truncated,
        frames=np.stack(frames) if keep_frames else None,
        actions=np.stack(actions),
        rewards=np.array(rewards, np.float32),
    )


def play_many(
    make_env: Callable[[], Env],
    make_policy: Callable[[], Policy],
    seeds: Sequence[int],
    workers: int = 1,
    *,
    max_steps: int | None = None,
    keep_frames: bool = False,
    on_episode: Callable[[EpisodeResult], None] | None = None,
) -> list[EpisodeResult]:
    """One episode for each seed, in the order of the seeds whatever the number of worker processes.

    With more than one worker, `make_env` and `make_policy` must be picklable. `on_episode` hears of each episode as
    soon as it is over. Raises UserError when a worker fails.
    """
    if workers < 1:
        raise UserError(f"workers: {workers}, expected 1 or more")
    results: dict[int, EpisodeResult] = {}

    def receive(worker: int, message: tuple[int, EpisodeResult]) -> None:
        number, result = message
        results[number] = result
        if on_episode is not None:
            on_episode(result)

    numbered = list(enumerate(int(seed) for seed in seeds))
    shares = [numbered[worker::workers] for worker in range(min(workers, len(numbered)))]
    if shares:
        common = {"make_env": make_env, "make_policy": make_policy, "max_steps": max_steps, "keep_frames": keep_frames}
        run_workers(_play_share, [{**common, "numbered_seeds": share} for share in shares], receive)
    return [results[number] for number, _ in numbered]


def _play_share(
    send: Send,
    *,
    make_env: Callable[[], Env],
    make_policy: Callable[[], Policy],
    numbered_seeds: Sequence[tuple[int, int]],
    max_steps: int | None,
    keep_frames: bool,
) -> None:
    env, policy = make_env(), make_policy()
    try:
        for number, seed in numbered_seeds:
            send((number, play_episode(env, policy, seed, max_steps=max_steps, keep_frames=keep_frames)))
    finally:
        env.close()


def _checked_frame(frame: Any) -> NDArray[np.uint8]:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
        given = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(f"the environment shows {given}: expected frames uint8 (H, W, C); use worldsim.envs.make")
    return frame.copy()  # some environments reuse their buffer


def _stored_action(action: Action) -> NDArray[Any]:
    """Discrete actions as int64 (), continuous ones as flat float32 (A,)."""
    array = np.asarray(action)
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.int64).reshape(())
    return array.astype(np.float32).reshape(-1)


class UniformRandom:
    """Each action anew, uniform over a Discrete or bounded Box space."""

    name = "uniform"

    def __init__(self, action_space: gym.Space[Any]) -> None:
        self._space = _drawable(action_space)
        self._random = np.random.default_rng()

    def reset(self, seed: int) -> None:
        """Seeds the episode's draws."""
        self._random = np.random.default_rng((seed, POLICY_STREAM))

    def __call__(self, frame: NDArray[np.uint8]) -> Action:
        """A fresh draw."""
        return _draw(self._space, self._random)


class StickyRandom:
    """Repeats its last action with probability `stickiness`, else draws a new one: random play that goes places.

    "mixed" draws the stickiness of each episode from U(0.5, 0.98).
    """

    def __init__(self, action_space: gym.Space[Any], stickiness: float | str = "mixed") -> None:
        if stickiness != "mixed" and not (isinstance(stickiness, int | float) and 0 <= stickiness <= 1):
            raise UserError(f"stickiness: {stickiness!r}, expected a number from 0 to 1 or 'mixed'")
        self.name = f"sticky-{stickiness}"
        self._space = _drawable(action_space)
        self._stickiness = stickiness
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Seeds the episode's draws, forgets the last action and draws a mixed stickiness."""
        self._random = np.random.default_rng((seed, POLICY_STREAM))
        mixed = float(self._random.uniform(0.5, 0.98))
        self._probability = mixed if isinstance(self._stickiness, str) else self._stickiness
        self._last: Action | None = None

    def __call__(self, frame: NDArray[np.uint8]) -> Action:
        """The last action or a fresh draw."""
        if self._last is None or self._random.random() >= self._probability:
            self._last = _draw(self._space, self._random)
        return self._last


class OpenLoop:
    """Plays `actions` in turn, each for `hold` steps, and begins anew at the end: a policy without eyes."""

    def __init__(self, actions: Sequence[Action], hold: int = 1, name: str = "open-loop") -> None:
        if not actions or hold < 1:
            raise UserError(f"open-loop policy: {len(actions)} actions held {hold} steps, expected 1 or more of each")
        self.name = name
        self._actions = list(actions)
        self._hold = hold
        self._step = 0

    def reset(self, seed: int) -> None:
        """Begins with the first action."""
        self._step = 0

    def __call__(self, frame: NDArray[np.uint8]) -> Action:
        """The action whose turn it is."""
        action = self._actions[self._step // self._hold % len(self._actions)]
        self._step += 1
        return action


class Constant(OpenLoop):
    """The same action at each step."""

    def __init__(self, action: Action) -> None:
        super().__init__([action], name="constant")


def _drawable(space: gym.Space[Any]) -> gym.spaces.Discrete | gym.spaces.Box:
    if isinstance(space, gym.spaces.Discrete) or (isinstance(space, gym.spaces.Box) and space.is_bounded("both")):
        return space
    raise UserError(f"action space {space}: random play needs Discrete or a bounded Box")


def _draw(space: gym.spaces.Discrete | gym.spaces.Box, random: np.random.Generator) -> Action:
    if isinstance(space, gym.spaces.Discrete):
        return int(space.start + random.integers(space.n))
    return random.uniform(space.low, space.high).astype(np.float32)
