"""Real episodes that are watched side by side: what agents of a dream would see of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.actions import action_feature_count, action_features
from worldsim.observations import frame_stack, observe_state
from worldsim.world_model import WorldModel
from worldsim.world_state import WorldState


class Watcher:
    """World states of episodes that are watched side by side, from their real frames."""

    def __init__(self, model: WorldModel) -> None:
        self._model = model
        self._playing = np.empty(0, np.int64)  # the rows of `_state`
        self._state: WorldState | None = None

    def reset(self) -> None:
        """New episodes begin in all rows."""
        self._state = None

    def watch(
        self,
        frames: NDArray[np.uint8],
        rows: NDArray[np.int64],
        generators: Sequence[torch.Generator],
        actions: NDArray[Any],
    ) -> WorldState:
        """The state of the rows (P,) that still play, ascending, after their frames (P, H, W, C).

        generators: theirs, taken by the first call. actions: (P[, A]), those that led there, none at the first frames.
        """
        shown = torch.from_numpy(frames)
        if self._state is None:
            self._state = self._model.start_episode(shown, generators)
        else:
            if len(rows) < len(self._playing):
                self._state = self._state.select_rows(_places(rows, self._playing))
            self._state, _ = self._model.observe(self._state, shown, torch.from_numpy(actions))
        self._playing = rows
        return self._state

    def observe(
        self,
        frames: NDArray[np.uint8],
        rows: NDArray[np.int64],
        generators: Sequence[torch.Generator],
        actions: NDArray[Any],
    ) -> NDArray[Any]:
        """What agents read of the states that `watch` gives, (P, ...)."""
        state = self.watch(frames, rows, generators, actions)
        return observe_state(self._model, state, self._model.agent_observation)


class StackWatcher:
    """The frame stacks that a `Watcher` observes, without the dynamics: they show nothing there and take their time."""

    def __init__(self, model: WorldModel) -> None:
        self._model = model
        self._playing = np.empty(0, np.int64)  # the rows of `_decoded`
        self._decoded: list[Tensor] = []

    def reset(self) -> None:
        """New episodes begin in all rows."""
        self._decoded = []

    def observe(
        self,
        frames: NDArray[np.uint8],
        rows: NDArray[np.int64],
        _generators: Sequence[torch.Generator],
        actions: NDArray[Any],
    ) -> NDArray[np.uint8]:
        """As `Watcher.observe`: uint8 (P, H, W, K C + A)."""
        model = self._model
        newest = model.decode(model.encode(torch.from_numpy(frames)).float())
        if not self._decoded:
            self._decoded = [newest] * model.decoded_frames
            action = torch.zeros(len(rows), action_feature_count(model.spec))
        else:
            if len(rows) < len(self._playing):
                places = _places(rows, self._playing)
                self._decoded = [frame[places] for frame in self._decoded]
            self._decoded = [*self._decoded[1:], newest]
            action = action_features(model.spec, torch.from_numpy(actions))
        self._playing = rows
        return frame_stack(model, self._decoded, action.to(model.device)).cpu().numpy()


def _places(rows: NDArray[np.int64], playing: NDArray[np.int64]) -> Tensor:
    """Where the rows that still play stand among those that played, both ascending."""
    return torch.from_numpy(np.searchsorted(playing, rows))
