"""The dream as Gymnasium environments: DreamVectorEnv, and DreamEnv, its one-row view."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from worldsim.device import choose_device, choose_precision
from worldsim.errors import UserError
from worldsim.model_folder import load_model
from worldsim.start_contexts import StartContexts
from worldsim.world_model import DreamStep, WorldModel, WorldState, row_generator, without_draws

Observation = Literal["pixels", "latent", "belief", "features"]
OBSERVATIONS: tuple[Observation, ...] = ("pixels", "latent", "belief", "features")


def observation_space(model: WorldModel, observation: str) -> gym.spaces.Box:
    """Space of a row: pixels uint8 (H, W, C); latent float32 (N, D); belief (belief_size,); features: both, flat."""
    low, high = (bound.cpu().numpy() for bound in (model.dynamics.scale.low, model.dynamics.scale.high))
    ones = np.ones(model.belief_size, np.float32)
    if observation == "pixels":
        return gym.spaces.Box(0, 255, model.spec.frame_shape, np.uint8)
    if observation == "latent":
        return gym.spaces.Box(low, high, dtype=np.float32)
    if observation == "belief":
        return gym.spaces.Box(-ones, ones, dtype=np.float32)
    if observation == "features":
        bounds = (np.concatenate([low.ravel(), -ones]), np.concatenate([high.ravel(), ones]))
        return gym.spaces.Box(*bounds, dtype=np.float32)
    raise UserError(f"observation={observation!r} is unknown: choose one of {', '.join(OBSERVATIONS)}")


def observe_state(model: WorldModel, state: WorldState, observation: str) -> NDArray[Any]:
    """What a row shows of a world state, (B, ...) as `observation_space` says."""
    if observation == "pixels":
        return np.ascontiguousarray(model.decode(state.latents).cpu().numpy())
    latents = model.dynamics.scale.clamp(state.latents)
    if observation == "latent":
        return np.array(latents.cpu().numpy())
    if observation == "belief":
        return np.array(state.belief.cpu().numpy())
    return torch.cat([latents.flatten(1), state.belief], dim=1).cpu().numpy()


class DreamVectorEnv(gym.vector.VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]):
    """Rows of dreams that start from real contexts and end and restart on their own.

    Rewards are the predicted ones; endings are sampled from the predicted probability with the row's own generator.
    `infos` carries "termination_probability" and "uncertainty", float32 (num_envs,). Row i of seed s dreams what a
    single env seeded s + i dreams.
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
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        """model: a WorldModel, a folder, or the name of a released model (then loaded with `device` and `precision`).

        observation: "pixels", "latent", "belief" or "features" (flat latents and belief). max_episode_steps: truncate
        here; None: as the real env does. start: "anywhere", or "episode_start" for contexts of first frames only.
        start_contexts: other contexts than the model's own. temperature: variance of the sampler's noise; None: the
        model's own.
        """
        if not isinstance(model, WorldModel):
            chosen = choose_device(device)
            model = load_model(model, device=chosen, dtype=choose_precision(precision, chosen))
        if num_envs < 1:
            raise UserError(f"num_envs={num_envs}: expected at least 1")
        if temperature is not None and not temperature >= 0:
            raise UserError(f"temperature={temperature}: expected 0 or more")
        if start not in ("anywhere", "episode_start"):
            raise UserError(f"start={start!r}: expected 'anywhere' or 'episode_start'")
        if render_mode not in (None, "rgb_array"):
            raise UserError(f"render_mode={render_mode!r}: expected None or 'rgb_array'")
        self.model = model
        self.num_envs = num_envs
        self.observation = observation
        self.temperature = model.temperature if temperature is None else temperature
        self.sampling_steps = sampling_steps
        self.max_episode_steps = max_episode_steps or model.spec.max_episode_steps
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.render_mode = render_mode
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": model.spec.frames_per_second,
            "autoreset_mode": self.autoreset_mode,
        }
        contexts = model.start_contexts if start_contexts is None else start_contexts
        self._contexts = contexts.only_episode_starts() if start == "episode_start" else contexts
        if not len(self._contexts):
            raise UserError(f"there are no start contexts of kind {start!r} to dream from")
        self.single_observation_space = observation_space(model, observation)
        self.single_action_space = model.spec.gym_action_space()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._state: WorldState | None = None
        self._lengths = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, np.bool_)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begin new dreams in all rows, or in those of `options["reset_mask"]` (bool (num_envs,)).

        seed: row i is seeded seed + i; None goes on with the rows' generators (fresh ones at the first reset).
        """
        mask = None if options is None else options.get("reset_mask")
        if mask is not None:
            if self._state is None:
                raise gym.error.ResetNeeded("call reset() once without a mask first")
            self._seed_rows(seed, np.asarray(mask))
            self._restart(np.flatnonzero(mask))
            return self._observe(), {}
        self._seed_rows(seed, np.ones(self.num_envs, np.bool_))
        contexts = self._contexts.rows(self._choose(self._generators))
        self._state = self.model.start_from(contexts, self._generators)
        self._lengths[:], self._ended[:] = 0, False
        return self._observe(), {}

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Dream one frame in every row; observation, reward float64, terminated, truncated (num_envs,), infos."""
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        given = np.asarray(actions)
        if given.shape != self.action_space.shape:
            raise UserError(f"actions of shape {given.shape}: expected {self.action_space.shape}")
        if self.autoreset_mode is AutoresetMode.DISABLED and self._ended.any():
            rows = np.flatnonzero(self._ended).tolist()
            raise gym.error.ResetNeeded(f"rows {rows} have ended: reset them with options={{'reset_mask': mask}}")
        flat = given.reshape(self.num_envs, *self.model.spec.action_shape)
        stale = self._ended.copy()  # rows that a NEXT_STEP autoreset begins anew now
        with without_draws([self._generators[row] for row in np.flatnonzero(stale)]):
            self._state, step = self.model.step(
                self._state,
                torch.as_tensor(flat),
                temperature=self.temperature,
                sampling_steps=self.sampling_steps,
            )
            self._lengths += 1
            rewards, terminated, truncated, infos = self._outcome(step)
        if stale.any():
            rewards[stale], terminated[stale], truncated[stale] = 0.0, False, False
            self._restart(np.flatnonzero(stale))
        self._ended = terminated | truncated
        observations = self._observe()
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._ended.any():
            infos |= self._final(observations, infos)
            self._restart(np.flatnonzero(self._ended))
            observations = self._observe()
            self._ended = np.zeros(self.num_envs, np.bool_)
        return observations, rewards, terminated, truncated, infos

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """The rows' frames, uint8 (H, W, 3) each; None without render_mode."""
        if self.render_mode is None or self._state is None:
            return None
        frames = self.model.decode(self._state.latents).cpu().numpy()
        return tuple(np.repeat(frame, 3, axis=-1) if frame.shape[-1] == 1 else frame for frame in frames)

    def save_state(self) -> dict[str, Any]:
        """A copy of everything the dreams go on from, to branch or rewind with `load_state`."""
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() before save_state()")
        return {"state": self._state.clone(), "lengths": self._lengths.copy(), "ended": self._ended.copy()}

    def load_state(self, saved: dict[str, Any]) -> NDArray[Any]:
        """Return to a saved state, as often as wanted; gives its observation."""
        self._state = saved["state"].clone()
        self._generators = list(self._state.generators)
        self._lengths, self._ended = saved["lengths"].copy(), saved["ended"].copy()
        return self._observe()

    def _outcome(
        self, step: DreamStep
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        probability = step.termination_probability.float().cpu().numpy()
        draws = np.array([torch.rand((), generator=generator).item() for generator in self._generators])
        terminated = draws < probability
        if self.max_episode_steps is None:
            truncated = np.zeros_like(terminated)
        else:
            truncated = (self._lengths >= self.max_episode_steps) & ~terminated
        infos = {"termination_probability": probability, "uncertainty": step.uncertainty.float().cpu().numpy()}
        infos |= {f"_{name}": np.ones(self.num_envs, np.bool_) for name in tuple(infos)}
        return step.reward.double().cpu().numpy(), terminated, truncated, infos

    def _final(self, observations: NDArray[Any], infos: dict[str, Any]) -> dict[str, Any]:
        """SAME_STEP's keys for the rows that end now, as Gymnasium's own vector envs lay them out."""
        final = np.full(self.num_envs, None, dtype=object)
        for row in np.flatnonzero(self._ended):
            final[row] = observations[row].copy()
        details = {name: value.copy() for name, value in infos.items()}
        return {
            "final_obs": final,
            "_final_obs": self._ended.copy(),
            "final_info": details,
            "_final_info": self._ended.copy(),
        }

    def _seed_rows(self, seed: int | list[int | None] | None, mask: NDArray[np.bool_]) -> None:
        seeds = seed if isinstance(seed, list) else [None if seed is None else seed + i for i in range(self.num_envs)]
        if len(seeds) != self.num_envs:
            raise UserError(f"{len(seeds)} seeds for {self.num_envs} rows")
        if self._state is None and not hasattr(self, "_generators"):
            entropy = np.random.SeedSequence().generate_state(self.num_envs)
            self._generators = [row_generator(int(value)) for value in entropy]
        for row in np.flatnonzero(mask):
            given = seeds[row]
            if given is not None:
                self._generators[row] = row_generator(given)
        if self._state is not None:
            object.__setattr__(self._state, "generators", tuple(self._generators))

    def _choose(self, generators: list[torch.Generator]) -> Tensor:
        return torch.stack([torch.randint(len(self._contexts), (), generator=generator) for generator in generators])

    def _restart(self, rows: NDArray[np.int64]) -> None:
        assert self._state is not None
        if not len(rows):
            return
        contexts = self._contexts.rows(self._choose([self._generators[row] for row in rows]))
        self._state = self.model.restart_rows(self._state, torch.from_numpy(rows), contexts)
        self._lengths[rows], self._ended[rows] = 0, False

    def _observe(self) -> NDArray[Any]:
        assert self._state is not None
        return observe_state(self.model, self._state, self.observation)


class DreamEnv(gym.Env[NDArray[Any], Any]):
    """One dream as an ordinary Gymnasium environment: the one-row view of DreamVectorEnv."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 (Gymnasium's way)

    def __init__(
        self,
        model: WorldModel | str | Path,
        *,
        observation: str = "pixels",
        max_episode_steps: int | None = None,
        temperature: float | None = None,
        sampling_steps: int | None = None,
        start_contexts: StartContexts | None = None,
        start: str = "anywhere",
        render_mode: str | None = None,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        """See DreamVectorEnv."""
        self._rows = DreamVectorEnv(
            model,
            1,
            observation=observation,
            max_episode_steps=max_episode_steps,
            temperature=temperature,
            sampling_steps=sampling_steps,
            start_contexts=start_contexts,
            start=start,
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode=render_mode,
            device=device,
            precision=precision,
        )
        self.model = self._rows.model
        self.observation_space = self._rows.single_observation_space
        self.action_space = self._rows.single_action_space
        self.render_mode = render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self._rows.metadata["render_fps"]}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begin a new dream."""
        super().reset(seed=seed)
        observations, _ = self._rows.reset(seed=seed)
        return observations[0], {}

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """Dream one frame."""
        if not self.action_space.contains(action):
            raise UserError(f"action {action!r} is outside {self.action_space}")
        observations, rewards, terminated, truncated, infos = self._rows.step(np.asarray(action)[None])
        info = {name: float(infos[name][0]) for name in ("termination_probability", "uncertainty")}
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> NDArray[np.uint8] | None:
        """The dreamt frame, uint8 (H, W, 3)."""
        frames = self._rows.render()
        return None if frames is None else frames[0]

    def save_state(self) -> dict[str, Any]:
        """A copy of the dream, to branch or rewind with `load_state`."""
        return self._rows.save_state()

    def load_state(self, saved: dict[str, Any]) -> NDArray[Any]:
        """Return to a saved dream; gives its observation."""
        return self._rows.load_state(saved)[0]
