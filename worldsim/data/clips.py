"""Random clips of one length, aligned on frames, for training on sequences."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.latents import LatentCache
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError

ALL_ROWS = slice(None)


@dataclass(frozen=True)
class Clip:
    """A batch of clips. What belongs to a step stands at the frame that the step *led to*.

    `head_weight` undoes the sampling: for any quantity x of a step, the expectation of `(head_weight * x).mean()`
    over (B, T) is the mean of x over all steps of the split, however often endings were drawn.
    """

    latents: Tensor  # (B, T, N, D) float32; (B, T, 0, 0) from a sampler without latents
    frames: Tensor | None  # (B, T, H, W, C) uint8; None from a sampler with latents
    actions: Tensor  # (B, T) int64 or (B, T, A) float32; 0 where there is none
    has_action: Tensor  # (B, T) bool: False at the first frame of an episode and at padding
    rewards: Tensor  # (B, T) float32
    terminated: Tensor  # (B, T) bool
    present: Tensor  # (B, T) bool: False at the padding on the right of episodes shorter than T
    frame_valid: Tensor  # (B, T) bool: False at blank terminal frames and at padding
    head_weight: Tensor  # (B, T) float32: 0 at the first frame of a clip, which has no past, and at padding

    def to(self, device: torch.device) -> Clip:
        """The clip on `device`."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device) for name, value in tensors.items() if value is not None}
        return replace(self, **moved)


class ClipSampler:
    """Draws clips from one split of a store; latents and steps are held in memory, frames are read from disk.

    With probability `ending_fraction` a clip holds the end of an episode that terminated, each such episode equally
    likely, at a place in the clip that is uniform too; else its start is uniform over all frames but an episode's last.
    Clips that reach beyond the end of their episode are padded. So an ending may stand anywhere in a clip: were it
    always at the end, a model that can count frames would learn when to expect it instead of why. Where no episode
    terminated, all starts are uniform.
    """

    def __init__(
        self,
        store: EpisodeStore,
        latents: LatentCache | None,
        clip_frames: int,
        split: str = "train",
        *,
        ending_fraction: float = 0.25,
        seed: int = 0,
    ) -> None:
        self._episodes = store.indices(split)
        if not len(self._episodes):
            raise UserError(f"{store.folder} has no {split} episodes; collect more")
        if clip_frames < 2 or not 0 <= ending_fraction < 1:
            given = f"clips of {clip_frames} frames with ending fraction {ending_fraction}"
            raise UserError(f"{given}: expected 2 frames or more, and a fraction from 0 to below 1")
        self._store = store
        self._clip_frames = clip_frames
        self._random = np.random.default_rng(seed)
        self._frames = store.lengths[self._episodes] + 1  # (E,) of each episode
        self._first = np.cumsum(self._frames) - self._frames  # (E,) where the episode begins among all frames
        self._starts = self._frames - 1  # (E,) clips that the episode offers: all of two frames or more
        self._last_start = np.cumsum(self._starts)
        self._load_steps()
        self._ended = np.flatnonzero(self._terminated.numpy()[self._first + self._frames - 1])
        self._ending_fraction = ending_fraction if len(self._ended) else 0.0
        self._head_weight = torch.from_numpy(self._inverse_inclusion())
        self._latents = None
        if latents is not None:
            self._latents = torch.from_numpy(np.concatenate([latents[int(i)] for i in self._episodes]))

    def sample(self, batch: int, rows: slice = ALL_ROWS) -> Clip:
        """`batch` clips of the sampler's length, drawn with replacement; only `rows` of them are read and returned."""
        episodes, starts = (drawn[rows] for drawn in self._draw(batch))
        positions = starts[:, None] + np.arange(self._clip_frames)  # (B, T) in the episode
        frames = self._frames[episodes][:, None]
        present = torch.from_numpy(positions < frames)
        # Padding reads the episode's last frame, and is then set to zero.
        index = torch.from_numpy(self._first[episodes][:, None] + np.minimum(positions, frames - 1))  # (B, T)
        actions, rewards = self._actions[index], self._rewards[index]
        for values in (actions, rewards):
            values[~present] = 0
        return Clip(
            latents=self._gather_latents(index, present),
            frames=self._read_frames(episodes, starts) if self._latents is None else None,
            actions=actions,
            has_action=self._has_action[index] & present,
            rewards=rewards,
            terminated=self._terminated[index] & present,
            present=present,
            frame_valid=self._frame_valid[index] & present,
            head_weight=self._head_weight[index] * present * (torch.arange(self._clip_frames) > 0),
        )

    def state_dict(self) -> dict[str, Any]:
        """What the next draws depend on, as plain values."""
        return {"random": self._random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues with the draws that followed `state_dict()`."""
        self._random.bit_generator.state = state["random"]

    def _draw(self, batch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Episodes (B,), as places among those of the split, and the positions (B,) at which the clips start."""
        start = self._random.integers(self._last_start[-1], size=batch)
        episodes = np.searchsorted(self._last_start, start, side="right")
        starts = start - (self._last_start - self._starts)[episodes]
        at_end = self._random.random(batch) < self._ending_fraction
        ended = self._random.integers(max(len(self._ended), 1), size=batch)
        place = self._random.random(batch)
        if at_end.any():
            episodes = np.where(at_end, self._ended[ended], episodes)
            last = self._frames[episodes] - 1
            places = np.minimum(self._clip_frames - 1, last)  # 1..places, where the last frame may stand in the clip
            starts = np.where(at_end, last - 1 - np.floor(place * places).astype(np.int64), starts)
        return episodes, starts

    def _load_steps(self) -> None:
        """One entry for each frame of the split: the step that led to it; zeros at first frames."""
        spec, total = self._store.spec, int(self._frames.sum())
        actions = np.zeros((total, *spec.action_shape), spec.action_dtype)
        rewards = np.zeros(total, np.float32)
        terminated = np.zeros(total, np.bool_)
        for episode, first, frames in zip(self._episodes, self._first, self._frames, strict=True):
            steps, led_to = self._store.steps(int(episode)), slice(first + 1, first + frames)
            actions[led_to], rewards[led_to], terminated[led_to] = steps["action"], steps["reward"], steps["terminated"]
        has_action = np.ones(total, np.bool_)
        has_action[self._first] = False
        self._actions, self._rewards = torch.from_numpy(actions), torch.from_numpy(rewards)
        self._terminated, self._has_action = torch.from_numpy(terminated), torch.from_numpy(has_action)
        self._frame_valid = ~self._terminated if spec.blank_terminal_frame else torch.ones(total, dtype=torch.bool)

    def _inverse_inclusion(self) -> NDArray[np.float32]:
        """The head weight of each frame of the split.

        A clip includes the step to frame t of an episode, beyond its own first frame, with probability
        p = (1 - q) n / S + q k / (K E): n of the S uniform starts lead to such clips, and, if the episode is one of
        the E that terminated, k of the K places where its end may stand. The mean over a clip's T frames times
        T / (p M), M the number of all steps, is unbiased.
        """
        frames = np.repeat(self._frames, self._frames)
        position = np.arange(len(frames)) - np.repeat(self._first, self._frames)
        inclusion = (1 - self._ending_fraction) * np.minimum(position, self._clip_frames - 1) / self._last_start[-1]
        if len(self._ended):
            is_ended = np.repeat(np.isin(np.arange(len(self._frames)), self._ended), self._frames)
            places = np.minimum(self._clip_frames - 1, frames - 1)
            reaching = np.maximum(places - (frames - 1 - position), 0)
            inclusion += self._ending_fraction * is_ended * reaching / (places * len(self._ended))
        weight = self._clip_frames / (np.where(inclusion > 0, inclusion, np.inf) * (self._frames - 1).sum())
        return np.where(position > 0, weight, 0).astype(np.float32)

    def _gather_latents(self, index: Tensor, present: Tensor) -> Tensor:
        if self._latents is None:
            return torch.empty(*index.shape, 0, 0)
        latents = self._latents[index].float()  # (B, T, N, D)
        latents[~present] = 0
        return latents

    def _read_frames(self, episodes: NDArray[np.int64], starts: NDArray[np.int64]) -> Tensor:
        shape = self._store.spec.frame_shape
        frames = np.zeros((len(episodes), self._clip_frames, *shape), np.uint8)  # (B, T, H, W, C)
        for row, (episode, start) in enumerate(zip(episodes.tolist(), starts.tolist(), strict=True)):
            stop = min(start + self._clip_frames, int(self._frames[episode]))
            frames[row, : stop - start] = self._store.read_frames(int(self._episodes[episode]), start, stop)
        return torch.from_numpy(frames)
