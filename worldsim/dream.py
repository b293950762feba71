"""The dream as Gymnasium environments: DreamVectorEnv, and DreamEnv, its one-row view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from worldsim.device import choose_device, choose_precision
from worldsim.dream_starts import check_temperature, read_options
from worldsim.errors import UserError
from worldsim.model_folder import load_model
from worldsim.observations import observation_layout, observation_space, observed
from worldsim.rendering import to_rgb
from worldsim.start_contexts import StartContexts
from worldsim.window import Window
from worldsim.world_model import WorldModel, row_generator, seed_rows, without_draws
from worldsim.world_state import DreamStep, WorldState

RENDER_MODES = ["human", "rgb_array"]


class DreamVectorEnv(gym.vector.VectorEnv[Any, Any, Any]):
    """Rows of dreams that start from real contexts and end and restart on their own.

    Rewards are the predicted ones; endings are sampled from the predicted probability with the row's own generator.
    `infos` carries "termination_probability" and "uncertainty", float32 (num_envs,), both of the step that was made,
    also where a row has begun anew since. Row i of seed s dreams what a single env seeded s + i dreams.
    """

    def __init__(
        self,
        model: WorldModel | str | Path,
        num_envs: int = 1,
        *,
        observation: str = "pixels",
        max_episode_steps: int | None = None,
        temperature: float | None = None,
        sampling_steps: int | None = None,
        start_contexts: StartContexts | None = None,
        start: str = "anywhere",
        uncertainty_quantile: float | None = None,
        uncertainty_limit: float | None = None,
        uncertainty_penalty: float | None = None,
        array: str = "numpy",
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        """model: a WorldModel, a folder, or the name of a released model (then loaded with `device` and `precision`).

        observation: one of `worldsim.observations`. max_episode_steps: truncate here;
        None: as the real env does. start: "anywhere", or "episode_start" for contexts of first frames only.
        start_contexts: other contexts than the model's own. temperature: variance of the sampler's noise; None: the
        model's own. sampling_steps: denoising steps, of those that the model was trained for; None: the model's own.
        uncertainty_limit: truncate a dream where `infos["uncertainty"]` passes it, or, with
        uncertainty_penalty, take that much off the reward instead. uncertainty_quantile: in place of a limit the one
        that this share of steps from real moments does not pass, such as 0.99; measured at the model's own temperature
        and sampling steps (hotter dreams pass it more often). array: "numpy", or "torch" for tensors
        that stay on the model's device, in all that `reset` and `step` give. render_mode: "rgb_array", or "human" for
        a window.
        """
        if not isinstance(model, WorldModel):
            chosen = choose_device(device)
            model = load_model(model, device=chosen, dtype=choose_precision(precision, chosen))
        if num_envs < 1:
            raise UserError(f"num_envs={num_envs}: expected at least 1")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise UserError(f"max_episode_steps={max_episode_steps}: expected None or at least 1")
        if temperature is not None:
            check_temperature(temperature)
        if start not in ("anywhere", "episode_start"):
            raise UserError(f"start={start!r}: expected 'anywhere' or 'episode_start'")
        if autoreset_mode not in {*AutoresetMode, *(mode.value for mode in AutoresetMode)}:
            modes = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise UserError(f"autoreset_mode={autoreset_mode!r}: expected {modes} or a gymnasium.vector.AutoresetMode")
        if array not in ("numpy", "torch"):
            raise UserError(f"array={array!r}: expected 'numpy' or 'torch'")
        if render_mode not in (None, *RENDER_MODES):
            raise UserError(f"render_mode={render_mode!r}: expected None, 'rgb_array' or 'human'")
        self.model = model
        self.num_envs = num_envs
        self.observation = observation
        self.temperature = model.temperature if temperature is None else temperature
        self.sampling_steps = model.checked_steps(sampling_steps)
        self.max_episode_steps = max_episode_steps or model.spec.max_episode_steps
        self.uncertainty_limit = _limit(
            model, self.sampling_steps, uncertainty_quantile, uncertainty_limit, uncertainty_penalty
        )
        self.uncertainty_penalty = uncertainty_penalty
        self.array = array
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.render_mode = render_mode
        self.metadata = {
            "render_modes": RENDER_MODES,
            "render_fps": model.spec.frames_per_second,
            "autoreset_mode": self.autoreset_mode,
        }
        contexts = model.start_contexts if start_contexts is None else start_contexts
        self._contexts = contexts.only_episode_starts() if start == "episode_start" else contexts
        if not len(self._contexts):
            raise UserError(f"there are no start contexts of kind {start!r} to dream from")
        self.single_observation_space = observation_space(model, observation)
        self.observation_layout = observation_layout(model, observation)
        self.single_action_space = model.spec.gym_action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._window = Window(f"a dream of {model.spec.id}", model.spec.frames_per_second)
        entropy = np.random.SeedSequence().generate_state(num_envs)
        self._generators = [row_generator(int(value)) for value in entropy]
        self._state: WorldState | None = None
        self._temperatures = np.full(num_envs, self.temperature, np.float64)
        self._lengths = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new dreams in all rows.

        seed: row i is seeded seed + i; None goes on with the rows' generators (fresh ones at the first reset).
        options, of which each but the first two may be one for all rows or one for each:
        "reset_mask", bool (num_envs,): begin anew in these rows only.
        "start_frames" and "start_actions": begin after frames of your own, uint8 (T, H, W, C) with T from 1 to the
        model's `longest_start`, and the T - 1 actions between them; (num_envs, T, ...) for each row its own.
        "start_context": the index of one of the env's start contexts. "temperature": until the next call of `reset`.
        """
        asked = read_options(options, self.model, self._contexts, self.num_envs)
        if self._state is None and len(asked.rows) < self.num_envs:
            raise gym.error.ResetNeeded("call reset() once without a mask first")
        seed_rows(self._generators, seed, asked.rows)
        if self._state is not None:
            self._state = self._state.with_generators(self._generators)
        self._temperatures[asked.rows] = self.temperature if asked.temperatures is None else asked.temperatures
        if len(asked.rows) == self.num_envs:
            self._state = self.model.start_from(asked.contexts or self._draw(asked.rows), self._generators)
            self._lengths[:], self._ended[:] = 0, False
        else:
            self._restart(asked.rows, asked.contexts)
        if self.render_mode == "human":
            self.render()
        return self._given(self._observe()), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Dream one frame in every row; observation, reward, terminated, truncated (num_envs,), infos.

        actions: an array or a tensor of the action space; what lies outside a Box counts as its nearest point. Rewards
        are float64 (float32 where array="torch").
        """
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        given = actions if isinstance(actions, Tensor) else torch.as_tensor(np.asarray(actions))
        if given.shape != self.action_space.shape:
            raise UserError(f"actions of shape {tuple(given.shape)}: expected {self.action_space.shape}")
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            rows = np.flatnonzero(self._ended).tolist()
            raise gym.error.ResetNeeded(f"rows {rows} have ended: reset them with options={{'reset_mask': mask}}")
        stale = self._ended.copy()  # rows that a NEXT_STEP autoreset begins anew now
        with without_draws([self._generators[row] for row in np.flatnonzero(stale)]):
            self._state, step = self.model.step(
                self._state,
                given.reshape(self.num_envs, *self.model.spec.action_shape),
                temperature=torch.from_numpy(self._temperatures),
                sampling_steps=self.sampling_steps,
            )
            self._lengths += 1
            rewards, terminated, truncated = self._outcome(step)
        infos: dict[str, Any] = {
            "termination_probability": step.termination_probability.float().clone(),
            "uncertainty": step.uncertainty.float().clone(),
        }
        if stale.any():
            terminated, truncated = terminated & ~stale, truncated & ~stale
            for values in (rewards, *infos.values()):
                values[torch.from_numpy(stale)] = 0
            self._restart(np.flatnonzero(stale))
        infos |= {f"_{name}": ~stale for name in tuple(infos)}
        self._ended = terminated | truncated
        observations = self._observe()
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._ended.any():
            infos |= self._final(observations, infos)
            self._restart(np.flatnonzero(self._ended))
            observations = self._observe()
            self._ended = np.zeros(self.num_envs, np.bool_)
        if self.render_mode == "human":
            self.render()
        shown, earned, died, cut = (self._given(part) for part in (observations, rewards, terminated, truncated))
        return shown, earned, died, cut, {name: self._given(values) for name, values in infos.items()}

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """The rows' frames, uint8 (H, W, 3) each; None without render_mode, and where "human" has drawn them."""
        if self.render_mode is None:
            return None
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() before render()")
        frames = tuple(to_rgb(frame) for frame in self.model.frames_of(self._state).cpu().numpy())
        if self.render_mode == "rgb_array":
            return frames
        self._window.show(frames)
        return None

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window."""
        self._window.close()

    def action_risks(self) -> Tensor:
        """(num_envs, actions), what each action risks where the rows stand; see `WorldModel.action_risks`."""
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() before action_risks()")
        return self.model.action_risks(self._state)

    def save_state(self) -> dict[str, Any]:
        """A copy of everything the dreams go on from, to branch or rewind with `load_state`."""
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() before save_state()")
        rows = {"lengths": self._lengths, "ended": self._ended, "temperatures": self._temperatures}
        return {"state": self._state.clone(), **{name: values.copy() for name, values in rows.items()}}

    def set_temperature(self, temperature: float) -> None:
        """From the next step on, in all rows: the dreams that are under way and those to come. UserError below 0."""
        check_temperature(temperature)
        self.temperature = temperature
        self._temperatures[:] = temperature

    def load_state(self, saved: dict[str, Any]) -> Any:
        """Return to a saved state, as often as wanted; gives its observation. UserError if it has other rows."""
        if len(saved["lengths"]) != self.num_envs:
            raise UserError(f"a saved state of {len(saved['lengths'])} rows: expected {self.num_envs}, as the env has")
        self._state = saved["state"].clone()
        self._generators = list(self._state.generators)
        self._lengths, self._ended = saved["lengths"].copy(), saved["ended"].copy()
        self._temperatures = saved["temperatures"].copy()
        return self._given(self._observe())

    def _outcome(self, step: DreamStep) -> tuple[Tensor, NDArray[np.bool_], NDArray[np.bool_]]:
        """Rewards, terminated and truncated of a step, (num_envs,)."""
        probability = step.termination_probability.float().cpu().numpy()
        draws = np.array([torch.rand((), generator=generator).item() for generator in self._generators])
        terminated = draws < probability
        rewards, cut = step.reward.double().clone(), np.zeros_like(terminated)
        if self.max_episode_steps is not None:
            cut = self._lengths >= self.max_episode_steps
        if self.uncertainty_limit is not None:
            uncertain = step.uncertainty > self.uncertainty_limit
            if self.uncertainty_penalty is None:
                cut = cut | uncertain.cpu().numpy()
            else:
                rewards -= self.uncertainty_penalty * uncertain
        return rewards, terminated, cut & ~terminated

    def _final(self, observations: Tensor, infos: dict[str, Any]) -> dict[str, Any]:
        """SAME_STEP's keys for the rows that end now, laid out as in Gymnasium's own vector envs.

        Where array="torch" "final_obs" is one tensor (num_envs, ...), of which the rows of "_final_obs" count.
        """
        final: Any = observations
        if self.array == "numpy":
            rows = observations.cpu().numpy()
            final = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(self._ended):
                final[row] = rows[row].copy()
        details = {name: value.clone() if isinstance(value, Tensor) else value.copy() for name, value in infos.items()}
        ended = {name: self._ended.copy() for name in ("_final_obs", "_final_info")}
        return {"final_obs": final, "final_info": details, **ended}

    def _given(self, values: Any) -> Any:
        """A tensor, an array or a dict of them as the env gives them to its user."""
        if isinstance(values, dict):
            return {name: self._given(inner) for name, inner in values.items()}
        if self.array == "numpy":
            return values.cpu().numpy() if isinstance(values, Tensor) else values
        values = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
        values = values.float() if values.dtype == torch.float64 else values
        return values.to(self.model.device)

    def _draw(self, rows: NDArray[np.int64]) -> StartContexts:
        """A start context for each of some rows, drawn from its own generator."""
        draws = [torch.randint(len(self._contexts), (), generator=self._generators[row]) for row in rows]
        return self._contexts.rows(torch.stack(draws))

    def _restart(self, rows: NDArray[np.int64], contexts: StartContexts | None = None) -> None:
        """Begin some rows anew, from `contexts` or from drawn ones."""
        assert self._state is not None
        fresh = self._draw(rows) if contexts is None else contexts
        self._state = self.model.restart_rows(self._state, torch.from_numpy(rows), fresh)
        self._lengths[rows], self._ended[rows] = 0, False

    def _observe(self) -> Tensor:
        assert self._state is not None
        return observed(self.model, self._state, self.observation)


class DreamEnv(gym.Env[NDArray[Any], Any]):
    """One dream as an ordinary Gymnasium environment: the one-row view of DreamVectorEnv."""

    metadata: dict[str, Any] = {"render_modes": RENDER_MODES, "render_fps": 30}  # noqa: RUF012 (Gymnasium's way)

    def __init__(self, model: WorldModel | str | Path, *, render_mode: str | None = None, **settings: Any) -> None:
        """settings: those of DreamVectorEnv, but for `num_envs`, `array` and `autoreset_mode`."""
        for name in {"num_envs", "array", "autoreset_mode"} & set(settings):
            raise UserError(
                f"{name}={settings[name]!r} is a setting of DreamVectorEnv: make it with gymnasium.make_vec"
            )
        self._rows = DreamVectorEnv(
            model, 1, autoreset_mode=AutoresetMode.DISABLED, render_mode=render_mode, **settings
        )
        self.model = self._rows.model
        self.observation_space = self._rows.single_observation_space
        self.action_space = self._rows.single_action_space
        self.render_mode = render_mode
        self.metadata = {name: self._rows.metadata[name] for name in ("render_modes", "render_fps")}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begin a new dream. options: as DreamVectorEnv.reset's for all rows."""
        super().reset(seed=seed)
        observations, _ = self._rows.reset(seed=seed, options=options)
        return observations[0], {}

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Dream one frame."""
        given = np.asarray(action)
        if isinstance(self.action_space, gym.spaces.Box) and given.dtype.kind in "biuf":
            given = given.astype(self.action_space.dtype)
        if not self.action_space.contains(given if given.shape else given[()]):
            raise UserError(f"action {action!r} is outside {self.action_space}")
        observations, rewards, terminated, truncated, infos = self._rows.step(given[None])
        info = {name: float(infos[name][0]) for name in ("termination_probability", "uncertainty")}
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> NDArray[np.uint8] | None:
        """The dreamt frame, uint8 (H, W, 3); None without render_mode, and where "human" has drawn it."""
        frames = self._rows.render()
        return None if frames is None else frames[0]

    def close(self) -> None:
        """Close the window."""
        self._rows.close()

    def save_state(self) -> dict[str, Any]:
        """A copy of the dream, to branch or rewind with `load_state`."""
        return self._rows.save_state()

    def load_state(self, saved: dict[str, Any]) -> NDArray[Any]:
        """Return to a saved dream; gives its observation."""
        return np.asarray(self._rows.load_state(saved)[0])


def _limit(
    model: WorldModel, sampling_steps: int, quantile: float | None, limit: float | None, penalty: float | None
) -> float | None:
    """The uncertainty that a step may have; None: any."""
    if quantile is not None and limit is not None:
        raise UserError(f"uncertainty_quantile={quantile} and uncertainty_limit={limit}: give one of them")
    if quantile is not None:
        default = model.dynamics.config.sampling_steps
        if sampling_steps != default:
            raise UserError(
                f"uncertainty_quantile={quantile} is known of {default} sampling steps, not of {sampling_steps}: give "
                "an uncertainty_limit, or leave sampling_steps as they are"
            )
        limit = model.uncertainty_quantile(quantile)
    if limit is None and penalty is not None:
        raise UserError(
            f"uncertainty_penalty={penalty} needs an uncertainty_quantile or uncertainty_limit to apply from"
        )
    if limit is not None and sampling_steps == 1 and model.dynamics.config.kind == "dit":
        raise UserError(
            "uncertainty is how far the sampler moves its estimate, and one sampling step moves none: give no "
            "uncertainty_limit or uncertainty_quantile, or take more sampling_steps"
        )
    for name, value in (("uncertainty_limit", limit), ("uncertainty_penalty", penalty)):
        if value is not None and not value >= 0:
            raise UserError(f"{name}={value}: expected 0 or more")
    return limit
