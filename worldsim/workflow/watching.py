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
                self._state = self._state.select_rows(torch.from_numpy(np.searchsorted(self._playing, rows)))
            self._state, _ = self._model.observe(self._state, shown, torch.from_numpy(actions))
        self._playing = rows
        return self._state


class StateWatcher:
    """What agents read of such states."""

    def __init__(self, model: WorldModel) -> None:
        self._model, self._watcher = model, Watcher(model)

    def reset(self) -> None:
        """New episodes begin in all rows."""
        self._watcher.reset()

    def observe(
        self,
        frames: NDArray[np.uint8],
        rows: NDArray[np.int64],
        generators: Sequence[torch.Generator],
        actions: NDArray[Any],
    ) -> NDArray[Any]:
        """The observations of the rows (P,) that still play, (P, ...); see `Watcher.watch`."""
        state = self._watcher.watch(frames, rows, generators, actions)
        return observe_state(self._model, state, self._model.agent_observation)


class StackWatcher:
    """The same frame stacks without the dynamics, which show nothing in them and take most of the time."""

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
        """The stacks of the rows (P,) that still play, uint8 (P, H, W, K C + A); see `Watcher.watch`."""
        model = self._model
        newest = model.decode(model.encode(torch.from_numpy(frames)).float())
        if not self._decoded:
            self._decoded = [newest] * model.decoded_frames
            action = torch.zeros(len(rows), action_feature_count(model.spec))
        else:
            if len(rows) < len(self._playing):
                kept = torch.from_numpy(np.searchsorted(self._playing, rows))
                self._decoded = [frame[kept] for frame in self._decoded]
            self._decoded = [*self._decoded[1:], newest]
            action = action_features(model.spec, torch.from_numpy(actions))
        self._playing = rows
        return frame_stack(model, self._decoded, action.to(model.device)).cpu().numpy()
