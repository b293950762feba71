"""Policies as one call, and episodes played with them in any Gymnasium environment that shows uint8 frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from worldsim.errors import UserError
from worldsim.workers import Send, run_workers

Action = int | NDArray[np.float32] | NDArray[np.integer[Any]]
Env = gym.Env[Any, Any]


class Policy(Protocol):
    """Whatever turns frames into actions. What it does may depend only on the episode's seed and frames."""

    name: str

    def reset(self, seed: int) -> None:
        """Begins a new episode."""

    def __call__(self, frame: NDArray[np.uint8]) -> Action:
        """The action after a frame (H, W, C): an int for Discrete spaces, else an array."""


class BatchPolicy(Protocol):
    """A policy that plays several episodes side by side, a row each: one pass of a network serves them all."""

    name: str

    def reset(self, seeds: Sequence[int]) -> None:
        """Begins a new episode in each row."""

    def __call__(self, frames: NDArray[np.uint8], rows: NDArray[np.int64]) -> Sequence[Action]:
        """The actions of the rows (P,), ascending, that still play, after their frames (P, H, W, C)."""


class OneRow:
    """A `Policy` as a `BatchPolicy` of one row."""

    def __init__(self, policy: Policy) -> None:
        self.name = policy.name
        self._policy = policy

    def reset(self, seeds: Sequence[int]) -> None:
        """Begins the one episode."""
        [seed] = seeds
        self._policy.reset(seed)

    def __call__(self, frames: NDArray[np.uint8], rows: NDArray[np.int64]) -> Sequence[Action]:
        """The one action."""
        return [self._policy(frames[0])]


@dataclass(frozen=True)
class EpisodeResult:
    """One episode as it was played. `frames` is None where they were not kept."""

    seed: int
    total_reward: float
    length: int  # steps
    tics: int  # steps of the underlying environment
    terminated: bool
    truncated: bool  # by the environment or by a limit
    frames: NDArray[np.uint8] | None  # (T+1, H, W, C)
    actions: NDArray[Any]  # (T,) or (T, K) int64, or (T, A) float32
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
    """One episode; see `play_side_by_side`."""
    [result] = play_side_by_side(
        [env],
        OneRow(policy),
        [seed],
        max_steps=max_steps,
        max_tics=max_tics,
        keep_frames=keep_frames,
        on_step=on_step,
        reset_options=reset_options,
    )
    return result


def play_side_by_side(
    envs: Sequence[Env],
    policy: BatchPolicy,
    seeds: Sequence[int],
    *,
    max_steps: int | None = None,
    max_tics: int | None = None,
    keep_frames: bool = True,
    on_step: Callable[[int], None] | None = None,
    reset_options: dict[str, Any] | None = None,
) -> list[EpisodeResult]:
    """One episode for each seed, in an env of its own, all in step until the last has ended.

    Each plays from `env.reset(seed=seed, options=reset_options)` to the end, or is cut (truncated) at a limit.
    `max_tics` limits the steps of the underlying environments, of all episodes together, which `info["tics"]` counts
    (1 for each step where it is missing): where steps as long as the longest so far would go beyond it, all episodes
    are cut; each has at least one step. `on_step` is told each step's tics.
    """
    if len(envs) < len(seeds):
        raise ValueError(f"{len(seeds)} episodes side by side need as many envs, got {len(envs)}")
    policy.reset(seeds)
    playing: list[_Recording] = []
    for row, (env, seed) in enumerate(zip(envs, seeds, strict=False)):
        frame, _ = env.reset(seed=seed, options=reset_options)
        playing.append(_Recording(row, seed, env, [_checked_frame(frame)]))
    recordings = list(playing)
    tics = longest_step = 0
    while playing:
        frames = np.stack([recording.frames[-1] for recording in playing])
        actions = policy(frames, np.array([recording.row for recording in playing]))
        for recording, action in zip(playing, actions, strict=True):
            step_tics = recording.step(action, keep_frames)
            tics, longest_step = tics + step_tics, max(longest_step, step_tics)
            if on_step is not None:
                on_step(step_tics)
        playing = [recording for recording in playing if not recording.ended]
        out_of_tics = max_tics is not None and tics + len(playing) * longest_step > max_tics
        for recording in playing:
            recording.truncated = out_of_tics or (max_steps is not None and len(recording.rewards) >= max_steps)
        playing = [recording for recording in playing if not recording.ended]
    return [recording.result(keep_frames) for recording in recordings]


def play_many(
    make_env: Callable[[], Env],
    make_policy: Callable[[], Policy] | Callable[[], BatchPolicy],
    seeds: Sequence[int],
    workers: int = 1,
    *,
    side_by_side: int = 0,
    max_steps: int | None = None,
    keep_frames: bool = False,
    on_episode: Callable[[EpisodeResult], None] | None = None,
) -> list[EpisodeResult]:
    """One episode for each seed, in the order of the seeds whatever the number of worker processes.

    side_by_side: 0 if the policy is a `Policy`; of a `BatchPolicy` the number of episodes that it plays at once.
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
    at_once = max(1, side_by_side)
    # Who plays beside whom must not depend on the workers: another batch, another last bit.
    blocks = [numbered[first : first + at_once] for first in range(0, len(numbered), at_once)]
    shares = [blocks[worker::workers] for worker in range(min(workers, len(blocks)))]
    if shares:
        common = {
            "make_env": make_env,
            "make_policy": make_policy,
            "side_by_side": side_by_side,
            "max_steps": max_steps,
            "keep_frames": keep_frames,
        }
        run_workers(_play_blocks, [{**common, "blocks": share} for share in shares], receive)
    return [results[number] for number, _ in numbered]


def _play_blocks(
    send: Send,
    *,
    make_env: Callable[[], Env],
    make_policy: Callable[[], Any],
    side_by_side: int,
    blocks: Sequence[Sequence[tuple[int, int]]],
    max_steps: int | None,
    keep_frames: bool,
) -> None:
    policy = make_policy() if side_by_side else OneRow(make_policy())
    with several(make_env, max(len(block) for block in blocks)) as envs:
        for block in blocks:
            seeds = [seed for _, seed in block]
            results = play_side_by_side(envs, policy, seeds, max_steps=max_steps, keep_frames=keep_frames)
            for (number, _), result in zip(block, results, strict=True):
                send((number, result))


@contextmanager
def several(make_env: Callable[[], Env], count: int) -> Iterator[list[Env]]:
    """`count` environments, closed at the end."""
    with ExitStack() as stack:
        envs: list[Env] = []
        for _ in range(count):
            env = make_env()
            stack.callback(env.close)
            envs.append(env)
        yield envs


@dataclass
class _Recording:
    """An episode while it is played: without `keep_frames` only the newest frame is held."""

    row: int
    seed: int
    env: Env
    frames: list[NDArray[np.uint8]]
    actions: list[NDArray[Any]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    tics: int = 0
    terminated: bool = False
    truncated: bool = False

    @property
    def ended(self) -> bool:
        return self.terminated or self.truncated

    def step(self, action: Action, keep_frames: bool) -> int:
        """Play one step; returns its tics."""
        frame, reward, terminated, truncated, info = self.env.step(action)
        tics = int(info.get("tics", 1))
        self.tics += tics
        self.actions.append(_stored_action(action))
        self.rewards.append(float(reward))
        if not keep_frames:
            self.frames.clear()
        self.frames.append(_checked_frame(frame))
        self.terminated, self.truncated = bool(terminated), bool(truncated)
        return tics

    def result(self, keep_frames: bool) -> EpisodeResult:
        return EpisodeResult(
            seed=self.seed,
            total_reward=float(np.sum(self.rewards)),
            length=len(self.rewards),
            tics=self.tics,
            terminated=self.terminated,
            truncated=self.truncated,
            frames=np.stack(self.frames) if keep_frames else None,
            actions=np.stack(self.actions),
            rewards=np.array(self.rewards, np.float32),
        )


def _checked_frame(frame: Any) -> NDArray[np.uint8]:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3:
        given = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise UserError(f"the environment shows {given}: expected frames uint8 (H, W, C); use worldsim.envs.make")
    return frame.copy()  # some environments reuse their buffer


def _stored_action(action: Action) -> NDArray[Any]:
    """Discrete actions as int64, () or (K,) for those of K parts, continuous ones as flat float32 (A,)."""
    array = np.asarray(action)
    if np.issubdtype(array.dtype, np.integer):
        return array.astype(np.int64)
    return array.astype(np.float32).reshape(-1)
