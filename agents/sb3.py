"""Stable-Baselines3 in any Gymnasium vector env: `Sb3VecEnv` for its learners, `Sb3Policy` for what they learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from worldsim.agents.errors import UnusableSpaceError
from worldsim.agents.rollout import Envs, check_autoreset

try:
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError('worldsim.agents.sb3 needs Stable-Baselines3: pip install "worldsim-rl[sb3]"') from error

Array = np.ndarray[Any, Any]


class Sb3VecEnv(VecEnv):
    """A Gymnasium vector env, dreamt or real, as Stable-Baselines3's learners take it.

    The env must reset within the step that ends an episode (SAME_STEP) and give numpy arrays; else UnusableSpaceError.
    An ended row's info holds its last observation and whether it was only cut ("terminal_observation",
    "TimeLimit.truncated"), so that learners bootstrap. Wrap it in Stable-Baselines3's VecMonitor to see returns.
    """

    def __init__(self, envs: Envs) -> None:
        check_autoreset(envs)
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self._actions: Array = np.empty(0)

    def reset(self) -> Array:
        """First observations, with the seed and the options that `seed` and `set_options` left for this reset."""
        options = self._options[0]
        if any(other != options for other in self._options):
            raise UnusableSpaceError(
                "A vector env takes one dict of reset options for all rows: give one to set_options."
            )
        # Seeds are consecutive: `seed` sets them so.
        observations, infos = self.envs.reset(seed=self._seeds[0], options=options or None)
        if not isinstance(observations, np.ndarray):
            kind = type(observations).__name__
            raise UnusableSpaceError(
                f"Stable-Baselines3 needs numpy observations, got {kind}: array='numpy' in a dream."
            )
        self.reset_infos = self._each_row(infos)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: Array) -> None:
        """Keep the actions (num_envs, ...) for `step_wait`."""
        self._actions = np.asarray(actions, self.envs.action_space.dtype)

    def step_wait(self) -> tuple[Array, Array, Array, list[dict[str, Any]]]:
        """Observations, rewards float32, dones bool and infos of one step in every row."""
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        dones = terminated | truncated
        rows = self._each_row(
            {name: values for name, values in infos.items() if not name.lstrip("_").startswith("final_")}
        )
        finals = self._each_row(infos.get("final_info", {}))
        for row in np.flatnonzero(dones).tolist():
            rows[row] |= finals[row]
            rows[row]["terminal_observation"] = infos["final_obs"][row]
        for info, died, cut in zip(rows, terminated, truncated, strict=True):
            info["TimeLimit.truncated"] = bool(cut and not died)
        return observations, np.asarray(rewards, np.float32), dones, rows

    def close(self) -> None:
        """Close the vector env."""
        self.envs.close()

    def get_images(self) -> Sequence[Array | None]:
        """The rows' frames, uint8 (H, W, 3) each."""
        frames: Any = self.envs.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The vector env's attribute, once for each row asked for."""
        return [getattr(self.envs, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the vector env, which is one for all rows."""
        self._all_rows(indices)
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the vector env, which is one for all rows; its result once for each row."""
        self._all_rows(indices)
        return [getattr(self.envs, method_name)(*method_args, **method_kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """Never: wrappers of single envs do not wrap a vector env."""
        return [False] * len(list(self._get_indices(indices)))

    def _all_rows(self, indices: Any) -> None:
        if sorted(self._get_indices(indices)) != list(range(self.num_envs)):
            raise UnusableSpaceError(f"The rows of a vector env cannot be changed one by one, got indices {indices}.")

    def _each_row(self, infos: dict[str, Any]) -> list[dict[str, Any]]:
        """Gymnasium's infos, {"name": values, "_name": which rows have one}, as a dict for each row."""
        rows: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for name, values in infos.items():
            if name.startswith("_") and name[1:] in infos:
                continue
            inner = self._each_row(values) if isinstance(values, dict) else values
            for row in np.flatnonzero(infos.get(f"_{name}", np.ones(self.num_envs, np.bool_))):
                rows[row][name] = inner[row]
        return rows


class Sb3Policy:
    """What a Stable-Baselines3 learner learned, as a policy for single observations.

    greedy: its most likely actions. Two policies that were `reset` with one seed act alike on equal observations.
    """

    def __init__(self, learned: BaseAlgorithm, *, name: str = "stable-baselines3", greedy: bool = False) -> None:
        self.name = name
        self._learned = learned
        self._greedy = greedy
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Begin a new episode with the random state of `seed`."""
        self._random = np.random.default_rng(seed)

    def act(self, observation: Array) -> Any:
        """One observation to one action: int for Discrete, else an array."""
        with torch.random.fork_rng(devices=[]):  # it samples from torch's global generator
            torch.manual_seed(int(self._random.integers(2**62)))
            action, _ = self._learned.predict(observation, deterministic=self._greedy)
        return int(action) if action.ndim == 0 else action

    __call__ = act
