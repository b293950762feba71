"""Stretches of real episodes, and the dreams that follow the same actions.

In a stretch everything is aligned on frames: `actions[:, t]` is the action that led to frame t. The first
`context_frames` frames are shown to the model, the others it must dream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.world_model import WorldModel, row_generator
from worldsim.world_state import DreamStep, WorldState

FRAMES_AT_ONCE = 256  # through the tokenizer


@dataclass(frozen=True)
class Stretches:
    """B stretches of F context frames and the K frames after them.

    frames: uint8 (B, F+K, H, W, C). actions: (B, F+K) int64 or (B, F+K, A) float32, that led to each frame.
    has_action: bool (B, F+K), False at an episode's first frame. present: bool (B, F+K), False before an episode
    began, after it ended, and where a frame carries no picture. stepped: bool (B, F+K), where an action led, be it to a
    frame without a picture, as a termination may. Whatever is not there is zero.
    """

    frames: Tensor
    actions: Tensor
    has_action: Tensor
    present: Tensor
    stepped: Tensor
    context_frames: int

    def __len__(self) -> int:
        return len(self.present)

    @property
    def horizon(self) -> int:
        """K, frames to be dreamt."""
        return self.present.shape[1] - self.context_frames

    @property
    def future(self) -> Tensor:
        """The real frames to be dreamt, uint8 (B, K, H, W, C)."""
        return self.frames[:, self.context_frames :]

    @property
    def future_actions(self) -> Tensor:
        """The actions that led to them, (B, K[, A])."""
        return self.actions[:, self.context_frames :]

    @property
    def future_present(self) -> Tensor:
        """bool (B, K): which of them there are."""
        return self.present[:, self.context_frames :]

    @property
    def future_stepped(self) -> Tensor:
        """bool (B, K): which steps were made, the one that ended an episode among them."""
        return self.stepped[:, self.context_frames :]


def pictured_frames(store: EpisodeStore, i: int) -> int:
    """How many frames of episode i carry a picture: the one after a termination may be blank."""
    blank = store.spec.blank_terminal_frame and store.terminated(i)
    return int(store.lengths[i]) + 1 - blank


def draw_stretches(
    store: EpisodeStore,
    count: int,
    *,
    horizon: int,
    context_frames: int = 8,
    seed: int = 0,
    split: str = "held_out",
    whole: bool = False,
) -> Stretches:
    """`count` moments drawn uniformly from those with a next frame, without repetition while there are enough.

    whole: only moments with all `horizon` frames to come, as far as the split has any; else those with the most.
    Raises UserError when the split has no episodes to draw from.
    """
    episodes = store.indices(split)
    # A moment is a frame with a successor; one with k frames to come stands k before the last pictured frame.
    to_come = [np.arange(pictured_frames(store, i) - 1, 0, -1) for i in episodes.tolist()]
    left = np.concatenate([np.zeros(0, np.int64), *to_come]).clip(max=horizon)
    if not len(left):
        raise UserError(f"{store.folder} has no {split} episodes with two frames: collect more, or hold more out")
    owner = np.repeat(episodes, [len(moments) for moments in to_come])
    position = np.concatenate([np.arange(len(moments)) for moments in to_come])
    usable = np.flatnonzero(left == left.max()) if whole else np.arange(len(left))
    random = np.random.default_rng(seed)
    chosen = usable[random.permutation(len(usable))[:count]]
    if len(chosen) < count:
        chosen = np.concatenate([chosen, usable[random.integers(len(usable), size=count - len(chosen))]])
    pairs = zip(owner[chosen].tolist(), position[chosen].tolist(), strict=True)
    return read_stretches(store, list(pairs), horizon=horizon, context_frames=context_frames)


def read_stretches(
    store: EpisodeStore, moments: Sequence[tuple[int, int]], *, horizon: int, context_frames: int
) -> Stretches:
    """The stretches whose last context frame is frame t of episode i, for each (i, t) of `moments`."""
    spec, total = store.spec, context_frames + horizon
    frames = np.zeros((len(moments), total, *spec.frame_shape), np.uint8)
    actions = np.zeros((len(moments), total, *spec.action_shape), spec.action_dtype)
    has_action, present, stepped = np.zeros((3, len(moments), total), np.bool_)
    for row, (episode, last) in enumerate(moments):
        begin = last - context_frames + 1  # the frame in column 0; negative before the episode began
        start, stop = max(0, begin), min(pictured_frames(store, episode), begin + total)
        frames[row, start - begin : stop - begin] = store.read_frames(episode, start, stop)
        present[row, start - begin : stop - begin] = True
        acted = max(1, start)  # frame 0 has no action that led to it
        made = min(int(store.lengths[episode]) + 1, begin + total)
        actions[row, acted - begin : made - begin] = store.steps(episode)["action"][acted - 1 : made - 1]
        has_action[row, acted - begin : stop - begin] = True
        stepped[row, acted - begin : made - begin] = True
    return Stretches(
        torch.from_numpy(frames),
        torch.from_numpy(actions),
        torch.from_numpy(has_action),
        torch.from_numpy(present),
        torch.from_numpy(stepped),
        context_frames,
    )


def start_dreams(model: WorldModel, stretches: Stretches, rows: slice = slice(None), *, seed: int = 0) -> WorldState:
    """The state after the context frames of `rows`; the first of them draws from the generator of `seed`."""
    context = slice(0, stretches.context_frames)
    present = stretches.present[rows, context]
    latents = encode(model, stretches.frames[rows, context])
    latents = latents * present.to(latents.device)[..., None, None]
    generators = [row_generator(seed + row) for row in range(len(present))]
    return model.start(
        latents, stretches.actions[rows, context], stretches.has_action[rows, context], present, generators
    )


def dream_steps(
    model: WorldModel,
    stretches: Stretches,
    rows: slice = slice(None),
    actions: Tensor | None = None,
    *,
    seed: int = 0,
    temperature: float | None = None,
) -> Iterator[DreamStep]:
    """The K dreamt steps of `rows` along `actions` (B, K[, A]); None: the real ones. Seeded as `start_dreams`."""
    actions = stretches.future_actions if actions is None else actions
    state = start_dreams(model, stretches, rows, seed=seed)
    for t in range(actions.shape[1]):
        state, step = model.step(state, actions[rows, t], temperature=temperature)
        yield step


def dream_along(
    model: WorldModel,
    stretches: Stretches,
    actions: Tensor | None = None,
    *,
    seed: int = 0,
    temperature: float | None = None,
    rows_at_once: int = 64,
    on_frames: Callable[[int], object] | None = None,
) -> Tensor:
    """Unit-scale latents (B, K, N, D) dreamt from the context frames along `actions` (B, K[, A]); None: the real ones.

    Row i draws from the generator of `seed + i`: the same seed with other actions meets the same noise. `on_frames` is
    told how many frames have just been dreamt.
    """
    dreams = []
    for first in range(0, len(stretches), rows_at_once):
        rows = slice(first, first + rows_at_once)
        latents = []
        for step in dream_steps(model, stretches, rows, actions, seed=seed + first, temperature=temperature):
            latents.append(step.latents.float().cpu())
            if on_frames is not None:
                on_frames(len(latents[-1]))
        dreams.append(torch.stack(latents, dim=1))
    return torch.cat(dreams)


def exchanged_actions(stretches: Stretches, seed: int = 0) -> Tensor:
    """For each row the future actions (B, K[, A]) of another row, from their beginning again where they run out.

    The donors are drawn so that their actions differ from the row's own where any row's do: a dream that ignores
    actions cannot hide behind equal ones.
    """
    tiled = repeated_actions(stretches, stretches.horizon)
    random = np.random.default_rng(seed)
    donors = [_donor(tiled, row, random) for row in range(len(tiled))]
    return tiled[donors]


def repeated_actions(stretches: Stretches, steps: int) -> Tensor:
    """Each row's known future actions, from their beginning again where they run out: (B, steps[, A])."""
    own, known = stretches.future_actions, stretches.future_present
    rows = zip(own, known.sum(1), strict=True)
    return torch.stack([row[torch.arange(steps) % max(1, int(count))] for row, count in rows])


def _donor(actions: Tensor, row: int, random: np.random.Generator) -> int:
    others = [int(other) for other in random.permutation(len(actions)) if other != row]
    differing = (other for other in others if not torch.equal(actions[other], actions[row]))
    return next(differing, row)


def encode(model: WorldModel, frames: Tensor) -> Tensor:
    """uint8 (B, T, H, W, C) -> unit-scale latents (B, T, N, D), a limited number of frames at once."""
    flat = frames.flatten(0, 1)
    parts = [model.encode(part).float() for part in flat.split(FRAMES_AT_ONCE)]
    return torch.cat(parts).unflatten(0, frames.shape[:2])


def decode(model: WorldModel, latents: Tensor) -> NDArray[np.uint8]:
    """Unit-scale latents (B, T, N, D) -> uint8 frames (B, T, H, W, C), a limited number at once."""
    flat = latents.flatten(0, 1).to(model.device)
    parts = [model.decode(part).cpu().numpy() for part in flat.split(FRAMES_AT_ONCE)]
    return np.concatenate(parts).reshape(*latents.shape[:2], *parts[0].shape[1:])
