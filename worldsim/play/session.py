"""One viewer's dream. It knows no network; whoever calls it keeps all calls in one thread."""

from __future__ import annotations

import json
import math
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from worldsim.dream import DreamVectorEnv
from worldsim.play.beside_real import BesideReal
from worldsim.play.commands import Command, RefusedMessage
from worldsim.play.controls import Action, rest_action
from worldsim.play.recording import Recording
from worldsim.rendering import Frames
from worldsim.world_model import WorldModel, row_generator

Act = Callable[[NDArray[Any]], NDArray[Any]]  # observations (1, F) -> actions (1[, A])
MOST_POINTS = 12  # save points of a viewer; the oldest goes first
REWIND_STEPS = 8  # between two moments that rewinding returns to
MOST_REWINDS = 60


@dataclass(frozen=True)
class Moment:
    """All that a dream goes on from."""

    number: int
    dream: dict[str, Any]  # of DreamVectorEnv.save_state
    step: int
    total_reward: float
    outcome: dict[str, float]
    ended: str | None


class Session:
    """A dream that follows actions, with save points, recording, a policy that can play and a real env beside it.

    act: the released policy, None if there is none. real: None if there is none; closed with the session.
    """

    def __init__(self, model: WorldModel, *, seed: int, act: Act | None = None, real: BesideReal | None = None) -> None:
        self._env = DreamVectorEnv(
            model,
            1,
            observation=model.agent_observation,
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode="rgb_array",
        )
        self._env.sampling_steps = model.dynamics.config.sampling_steps
        self._spec = model.spec
        self._act, self._real = act, real
        self._seeds = np.random.default_rng(seed)
        self._rest = rest_action(self._spec)
        self._held: Action = 0 if self._rest is None else self._rest
        self._was_used = True  # whether a step was taken with the held action
        self._tapped: Action | None = None  # held for so short a time that no step saw it
        self._last_action: Action | None = None
        self._points: deque[Moment] = deque(maxlen=MOST_POINTS)
        self._rewinds: deque[Moment] = deque(maxlen=MOST_REWINDS)
        self._numbers = 0
        self._recording: Recording | None = None
        self._policy_plays = False
        self._speed = 1.0
        self.is_playing = False
        self._env.reset(seed=seed)
        self.restart()

    @property
    def seconds_per_step(self) -> float:
        """The time that a step should take."""
        return 1.0 / (self._spec.frames_per_second * self._speed)

    def apply(self, command: Command) -> Recording | None:
        """Do what a viewer asked for; gives the recording that has ended, if one has.

        Raises RefusedMessage where the moment does not allow it.
        """
        value = command.value
        match command.type:
            case "action":
                self._hold(value)
            case "play":
                self._play()
            case "pause":
                self.is_playing = self._waits = False
            case "step":
                self.is_playing = self._waits = False
                self.step()
            case "restart":
                self.restart()
            case "save":
                self._points.append(self._moment())
            case "load":
                self._load_point(value)
            case "rewind":
                self._rewind()
            case "policy":
                self._let_policy_play(value)
            case "temperature" | "sampling_steps" | "speed":
                self._set(command.type, value)
            case "record":
                return self._record(value)
        return None

    def _set(self, name: str, value: Any) -> None:
        if name == "temperature":
            self._env.set_temperature(value)
        elif name == "sampling_steps":
            self._env.sampling_steps = value
        else:
            self._speed = value

    def _load_dream(self, saved: dict[str, Any]) -> NDArray[Any]:
        """Load a state of the dream, but not the temperature that it was saved with; returns the observations."""
        observations = self._env.load_state(saved)
        self._env.set_temperature(self._env.temperature)
        return observations

    def restart(self) -> None:
        """A new dream from another real start; with a real env, from the first frame of its new episode.

        It waits for the first action, unless the policy plays.
        """
        if self._real is None:
            self._observations, _ = self._env.reset()
        else:
            seed = int(self._seeds.integers(2**31))
            self._real.restart(seed)
            saved = self._env.save_state()
            frames = torch.from_numpy(self._real.observation[None])
            saved["state"] = self._env.model.start_episode(frames, [row_generator(seed)])
            saved["lengths"][:], saved["ended"][:] = 0, False
            self._observations = self._load_dream(saved)
        self._step, self._total_reward = 0, 0.0
        self._outcome = {"reward": 0.0, "survival": 1.0, "uncertainty": 0.0}
        self._ended: str | None = None
        self._last_action = None
        self._forget_taps()
        self._rewinds.clear()
        self._waits = not self._policy_plays
        self.is_playing = self._policy_plays
        self._shown_anew()

    def step(self) -> None:
        """Dream one frame; nothing after the dream's end."""
        if self._ended is not None:
            return
        if self._step % REWIND_STEPS == 0:
            self._rewinds.append(self._moment())
        action = self._chosen_action()
        space = self._env.single_action_space
        given = np.asarray(action, space.dtype).reshape(space.shape or ())
        self._observations, rewards, terminated, truncated, infos = self._env.step(given[None])
        if self._real is not None:
            self._real.follow(int(given) if given.shape == () else given)
        self._step += 1
        self._total_reward += float(rewards[0])
        self._outcome = {
            "reward": float(rewards[0]),
            "survival": 1.0 - float(infos["termination_probability"][0]),
            "uncertainty": float(infos["uncertainty"][0]),
        }
        self._last_action = action
        self._ended = "terminated" if terminated[0] else "truncated" if truncated[0] else None
        if self._ended is not None:
            self.is_playing = False
        self._shown_anew()

    def view(self, number: int) -> bytes:
        """What the page shows now, as a message: the length of a JSON text (uint32, little-endian), the text, the
        dreamt frame as RGB bytes and, with a real env, the real one.
        """
        real = self._real
        header = {
            "type": "view",
            "view": number,
            "step": self._step,
            "return": _finite(self._total_reward),
            **{name: _finite(figure) for name, figure in self._outcome.items()},
            "ended": self._ended,
            "playing": self.is_playing,
            "waits": self._waits,
            "policy": self._policy_plays,
            "action": self._last_action,
            "speed": self._speed,
            "temperature": self._env.temperature,
            "sampling_steps": self._env.sampling_steps,
            "points": [
                {"number": point.number, "step": point.step, "return": _finite(point.total_reward)}
                for point in self._points
            ],
            "rewinds": len(self._rewinds),
            "recording": None if self._recording is None else len(self._recording),
            "recording_full": self._recording is not None and self._recording.is_full,
            "real": None
            if real is None
            else {"step": real.step, "return": _finite(real.total_reward), "ended": real.ended},
        }
        return envelope(header, self._frame.tobytes() + (b"" if real is None else real.frame.tobytes()))

    def close(self) -> None:
        """End the real env."""
        if self._real is not None:
            self._real.close()

    def _play(self) -> None:
        if self._ended is not None:
            raise RefusedMessage("play: the dream has ended; restart it, rewind it or return to a save point")
        self.is_playing, self._waits = True, False

    def _hold(self, action: Action) -> None:
        if not self._was_used and self._held != self._rest:
            self._tapped = self._held
        self._held, self._was_used = action, False
        if self._waits and action != self._rest:
            self._play()

    def _forget_taps(self) -> None:
        """What was pressed before this moment belongs to another dream."""
        self._tapped, self._was_used = None, True

    def _chosen_action(self) -> Action:
        if self._policy_plays and self._act is not None:
            chosen: Action = np.asarray(self._act(self._observations)[0]).tolist()
            return chosen
        if self._tapped is not None:
            tapped, self._tapped = self._tapped, None
            return tapped
        self._was_used = True
        return self._held

    def _let_policy_play(self, plays: bool) -> None:
        if plays and self._act is None:
            raise RefusedMessage("policy: this model has none")
        self._policy_plays = plays
        self._forget_taps()
        if plays and self._waits:
            self._play()

    def _moment(self) -> Moment:
        self._numbers += 1
        saved = self._env.save_state()
        return Moment(self._numbers, saved, self._step, self._total_reward, self._outcome, self._ended)

    def _load_point(self, number: int) -> None:
        for point in self._points:
            if point.number == number:
                self._rewinds.clear()
                self._return_to(point)
                return
        raise RefusedMessage(f"load {number}: there is no such save point")

    def _rewind(self) -> None:
        while self._rewinds and self._rewinds[-1].step >= self._step:
            self._rewinds.pop()
        if not self._rewinds:
            raise RefusedMessage("rewind: there is nothing before this moment")
        self._return_to(self._rewinds.pop())

    def _return_to(self, moment: Moment) -> None:
        self._observations = self._load_dream(moment.dream)
        self._step, self._total_reward = moment.step, moment.total_reward
        self._outcome, self._ended, self._last_action = moment.outcome, moment.ended, None
        self._forget_taps()
        self.is_playing = self.is_playing and self._ended is None
        if self._real is not None:
            self._real.leave_behind()
        self._shown_anew()

    def _record(self, wanted: bool) -> Recording | None:
        if wanted == (self._recording is not None):
            raise RefusedMessage("record: already so")
        done, self._recording = self._recording, Recording() if wanted else None
        self._keep()
        return done

    def _shown_anew(self) -> None:
        frames = self._env.render()
        assert frames is not None
        self._frame: Frames = np.ascontiguousarray(frames[0])
        self._keep()

    def _keep(self) -> None:
        if self._recording is not None:
            self._recording.add(self._frame, None if self._real is None else self._real.frame)


def envelope(header: dict[str, Any], payload: bytes) -> bytes:
    """A message to the page: the length of the header's JSON (uint32, little-endian), the JSON, the payload."""
    text = json.dumps(header, allow_nan=False, separators=(",", ":")).encode()
    return struct.pack("<I", len(text)) + text + payload


def _finite(figure: float) -> float | None:
    """A figure that JSON can hold: None for infinity and what is not a number."""
    return figure if math.isfinite(figure) else None
