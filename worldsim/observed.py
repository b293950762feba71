"""Real environments with a dream's observation: what a policy that learned in a dream can act on.

A world model follows the real frames (`WorldModel.observe`), and a row shows its latents, its belief or both, in the
spaces of `worldsim.dream`. So code that was written for a dream runs in reality unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from worldsim.errors import UserError
from worldsim.observations import observation_layout, observation_space, observe_state
from worldsim.world_model import WorldModel, row_generator, seed_rows, without_draws
from worldsim.world_state import WorldState

Seeds = int | list[int | None] | None


class ObservedVectorEnv(gym.vector.VectorWrapper[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.uint8]]):
    """A vector env of real frames, uint8 (num_envs, H, W, C), shown through `model`.

    env: any of Gymnasium's vector envs, in any autoreset mode, over envs made by `worldsim.envs.make` with the model's
    settings; it is closed with this one. observation: one of `worldsim.observations`. Where a row ends
    with SAME_STEP, `infos["final_obs"]` holds its last observation as it does in a dream.
    `infos["foreseen_termination"]`, float32 (num_envs,), is what the model said of the step before it was made; it has
    another name than a dream's, since here the episode knows; 0, and False in `infos["_foreseen_termination"]`, where a
    row has begun anew instead of making a step. Raises UserError if the env's spaces are not the model's.
    """

    def __init__(
        self,
        env: gym.vector.VectorEnv[NDArray[np.uint8], NDArray[Any], NDArray[Any]],
        model: WorldModel,
        observation: str = "features",
    ) -> None:
        super().__init__(env)
        _check_spaces(env.single_observation_space, env.single_action_space, model)
        self.model = model
        self.observation = observation
        self.single_observation_space = observation_space(model, observation)
        self.observation_layout = observation_layout(model, observation)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)
        self.autoreset_mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self._generators = [row_generator(int(s)) for s in np.random.SeedSequence().generate_state(env.num_envs)]
        self._state: WorldState | None = None
        self._ended = np.zeros(env.num_envs, np.bool_)

    def reset(
        self, *, seed: Seeds = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begin new episodes in all rows, or in those of `options["reset_mask"]` (bool (num_envs,))."""
        mask = None if options is None else options.get("reset_mask")
        if mask is not None and self._state is None:
            raise gym.error.ResetNeeded("call reset() once without a mask first")
        # Gymnasium's own vector envs take a list of seeds too; their annotation says less.
        copied = None if options is None else dict(options)
        frames, infos = self.env.reset(seed=cast(int | None, seed), options=copied)
        rows = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        seed_rows(self._generators, seed, rows)
        if self._state is not None:
            self._state = self._state.with_generators(self._generators)
        self._ended[rows] = False  # what has begun by hand is not begun anew by the next step
        self._begin(frames, rows)
        return self._observe(), infos

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """One real step in every row; observation, reward, terminated, truncated (num_envs,), infos."""
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        frames, rewards, terminated, truncated, infos = self.env.step(actions)
        begun = self._ended if self.autoreset_mode is AutoresetMode.NEXT_STEP else np.zeros_like(self._ended)
        ended = terminated | truncated
        last = frames
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
            last = frames.copy()
            for row in np.flatnonzero(ended):
                last[row] = infos["final_obs"][row]
        flat = torch.as_tensor(np.asarray(actions).reshape(self.num_envs, *self.model.spec.action_shape))
        with without_draws([self._generators[row] for row in np.flatnonzero(begun)]):
            self._state, step = self.model.observe(self._state, torch.from_numpy(last), flat)
        foreseen = step.termination_probability.float().cpu().numpy().copy()
        foreseen[begun] = 0
        infos |= {"foreseen_termination": foreseen, "_foreseen_termination": ~begun}
        if begun.any():
            self._begin(frames, np.flatnonzero(begun))
        observations = self._observe()
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
            final = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(ended):
                final[row] = observations[row].copy()
            infos["final_obs"] = final
            self._begin(frames, np.flatnonzero(ended))
            observations = self._observe()
        self._ended = ended
        return observations, rewards, terminated, truncated, infos

    def state(self) -> WorldState:
        """A copy of the world state of all rows, to dream on from; with random generators of its own."""
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() before state()")
        return self._state.clone()

    def _begin(self, frames: NDArray[np.uint8], rows: NDArray[np.int64]) -> None:
        generators = [self._generators[row] for row in rows]
        fresh = self.model.start_episode(torch.from_numpy(frames[rows]), generators)
        if len(rows) == self.num_envs:
            self._state = fresh
        else:
            assert self._state is not None
            self._state = self.model.replace_rows(self._state, torch.from_numpy(rows), fresh)

    def _observe(self) -> NDArray[Any]:
        assert self._state is not None
        return observe_state(self.model, self._state, self.observation)


class ObservedEnv(gym.Wrapper[NDArray[Any], Any, NDArray[np.uint8], Any]):
    """One real env of frames uint8 (H, W, C), shown through `model`; see ObservedVectorEnv."""

    def __init__(self, env: gym.Env[NDArray[np.uint8], Any], model: WorldModel, observation: str = "features") -> None:
        super().__init__(env)
        _check_spaces(env.observation_space, env.action_space, model)
        self.model = model
        self.observation = observation
        self.observation_space = observation_space(model, observation)
        self._generator = row_generator(int(np.random.SeedSequence().generate_state(1)[0]))
        self._state: WorldState | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Begin a new episode."""
        frame, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._generator = row_generator(seed)
        self._state = self.model.start_episode(_batch_of_one(frame), [self._generator])
        return observe_state(self.model, self._state, self.observation)[0], info

    def step(self, action: Any) -> tuple[NDArray[Any], float, bool, bool, dict[str, Any]]:
        """One real step."""
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() before step()")
        frame, reward, terminated, truncated, info = self.env.step(action)
        given = torch.as_tensor(np.asarray(action).reshape(1, *self.model.spec.action_shape))
        self._state, _ = self.model.observe(self._state, _batch_of_one(frame), given)
        observation = observe_state(self.model, self._state, self.observation)[0]
        return observation, float(reward), terminated, truncated, info


def _batch_of_one(frame: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.array(frame))[None]  # a copy: some envs reuse their buffer


def _check_spaces(frames: gym.Space[Any], actions: gym.Space[Any], model: WorldModel) -> None:
    expected: Sequence[tuple[str, gym.Space[Any], gym.Space[Any]]] = [
        ("frames", frames, gym.spaces.Box(0, 255, model.spec.frame_shape, np.uint8)),
        ("actions", actions, model.spec.gym_action_space()),
    ]
    for name, given, wanted in expected:
        if given != wanted:
            raise UserError(
                f"the env's {name} are {given}, this world model knows {wanted}: make the env with "
                f"worldsim.envs.make(EnvConfig(**model.spec.settings))"
            )
