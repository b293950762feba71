"""What ViZDoom needs: no files in the working directory, native frame skip, timeouts told apart from deaths."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
from typing import Any, cast

import gymnasium as gym


class DoomWrapper(gym.Wrapper[Any, Any, Any, Any]):
    """Starts the engine in a temporary folder, where it leaves `_vizdoom/` and `_vizdoom.ini`, and skips tics natively.

    `step_tics(action, tics)` renders once, after the last tic; `step` is `step_tics(action, 1)`.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._base = cast(Any, env.unwrapped)
        self._folder = tempfile.mkdtemp(prefix="worldsim-doom-")
        self._finish = weakref.finalize(self, _finish, self._base.game, self._folder)
        # Several engines at once must not share one settings file.
        self._base.game.set_doom_config_path(os.path.join(self._folder, "_vizdoom.ini"))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; the first call starts the engine."""
        if self._base.game.is_running():
            return self.env.reset(seed=seed, options=options)
        # The engine makes `_vizdoom/` in the working directory of the moment it starts; there is no setting for it.
        before = os.getcwd()
        os.chdir(self._folder)
        try:
            return self.env.reset(seed=seed, options=options)
        finally:
            os.chdir(before)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One tic."""
        observation, reward, terminated, truncated, info, _ = self.step_tics(action, 1)
        return observation, reward, terminated, truncated, info

    def step_tics(self, action: Any, tics: int) -> tuple[Any, float, bool, bool, dict[str, Any], int]:
        """Hold the action for up to `tics` tics; the last item is the number of tics that were played."""
        game = self._base.game
        self._base.frame_skip = tics
        before = game.get_episode_time()
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated and truncated:  # ViZDoom calls every finished episode terminated, a timeout as well
            terminated = bool(game.is_player_dead())
        # A level that is won has no time any more, and nobody tells at which tic of the step that was.
        played = int(game.get_episode_time()) - int(before)
        return observation, float(reward), terminated, truncated, info, played if played >= 0 else tics

    def close(self) -> None:
        """End the engine and remove its folder."""
        super().close()
        self._finish()


def _finish(game: Any, folder: str) -> None:
    game.close()  # first, because the engine saves its settings when it ends
    shutil.rmtree(folder, ignore_errors=True)


def action_meanings(env: gym.Env[Any, Any]) -> list[str] | None:
    """Names of the Discrete actions: the buttons that each index presses, "noop" for none; else of each button."""
    base: Any = env.unwrapped
    # Delta buttons come first in the list and are no part of the button map.
    names = [_short(button.name.lower()) for button in base.game.get_available_buttons()][base.num_delta_buttons :]
    if not hasattr(base, "button_map"):
        return names
    pressed = ([name for name, down in zip(names, combination, strict=True) if down] for combination in base.button_map)
    return ["+".join(combination) or "noop" for combination in pressed]


def episode_tics(env: gym.Env[Any, Any]) -> int | None:
    """The scenario's own timeout in tics (None: there is none)."""
    base: Any = env.unwrapped
    return int(base.game.get_episode_timeout()) or None


STATE_KWARGS = {"labels_buffer_enabled": True}
"""What `gymnasium.make` must be given so that `read_state` sees the objects in the picture."""


def read_state(env: gym.Env[Any, Any]) -> dict[str, float]:
    """Where the player stands and looks (map units), and of the nearest monster and explosive (ViZDoom's word for
    fireballs) in the picture how far it is and where across it (-0.5 left edge, 0.5 right edge); NaN where none is.
    """
    from vizdoom import GameVariable

    base: Any = env.unwrapped
    x, y, angle = (base.game.get_game_variable(getattr(GameVariable, name)) for name in _POSE)
    truth = {
        "player x": float(x),
        "player y": float(y),
        "player angle, sine": math.sin(math.radians(angle)),
        "player angle, cosine": math.cos(math.radians(angle)),
    }
    labels = [] if base.state is None else base.state.labels
    for category in ("Monster", "Explosive"):
        found = [
            (math.hypot(label.object_position_x - x, label.object_position_y - y), label)
            for label in labels
            if label.object_category == category
        ]
        distance, nearest = min(found, key=lambda pair: pair[0], default=(math.nan, None))
        across = math.nan if nearest is None else (nearest.x + nearest.width / 2) / base.game.get_screen_width() - 0.5
        name = f"nearest {category.lower()}"
        truth |= {f"{name}, across": across, f"{name}, distance": distance}
    return truth


_POSE = ("POSITION_X", "POSITION_Y", "ANGLE")


def _short(button: str) -> str:
    return button.removeprefix("move_")
