"""The options of a dream's `reset`: which rows begin anew, from which moment, at which temperature."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.actions import action_features
from worldsim.errors import UserError
from worldsim.start_contexts import StartContexts
from worldsim.world_model import WorldModel

OPTIONS = ("reset_mask", "start_context", "start_frames", "start_actions", "temperature")


@dataclass(frozen=True)
class Start:
    """How R rows begin.

    rows: int64 (R,), ascending. contexts: a row for each of them; None: they draw their own. temperatures: float64
    (R,); None: that of the env.
    """

    rows: NDArray[np.int64]
    contexts: StartContexts | None
    temperatures: NDArray[np.float64] | None


def read_options(options: Mapping[str, Any] | None, model: WorldModel, contexts: StartContexts, num_envs: int) -> Start:
    """What `options` ask for; see `DreamVectorEnv.reset`. Raises UserError for anything else than OPTIONS."""
    given = options or {}
    for name in given:
        if name not in OPTIONS:
            raise UserError(f"reset option {name!r} is unknown: choose among {', '.join(OPTIONS)}")
    rows = np.flatnonzero(_mask(given.get("reset_mask"), num_envs))
    temperatures = None
    if given.get("temperature") is not None:
        temperatures = _for_each_row("temperature", given["temperature"], np.float64, num_envs)[rows]
        for temperature in temperatures:
            check_temperature(float(temperature))
    return Start(rows, _contexts(given, model, contexts, num_envs, rows), temperatures)


def check_temperature(temperature: float) -> None:
    """Raise UserError for what no noise can have as its variance."""
    if not 0 <= temperature < math.inf:
        raise UserError(f"temperature={temperature}: expected a finite number from 0 on")


def frame_contexts(model: WorldModel, frames: NDArray[np.uint8], actions: NDArray[Any]) -> StartContexts:
    """Contexts of a user's own: frames uint8 (B, T, H, W, C), and the actions (B, T - 1, ...) between them."""
    batch, length = frames.shape[:2]
    with torch.inference_mode():
        latents = model.tokenizer.encode(torch.from_numpy(frames).to(model.device)).half().cpu()  # as they are stored
    led_to = torch.zeros(batch, length, *model.spec.action_shape, dtype=torch.from_numpy(actions).dtype)
    led_to[:, 1:] = torch.from_numpy(actions).reshape(batch, length - 1, *model.spec.action_shape)
    has_action = (torch.arange(length) > 0).expand(batch, length)
    return StartContexts(latents, led_to, has_action, torch.ones_like(has_action), torch.zeros(batch, dtype=torch.bool))


def _mask(given: Any, num_envs: int) -> NDArray[np.bool_]:
    if given is None:
        return np.ones(num_envs, np.bool_)
    mask = np.asarray(given)
    if mask.shape != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        shown = f"{mask.dtype} {mask.shape} with {np.count_nonzero(mask)} rows"
        raise UserError(f"reset_mask is {shown}: expected bool ({num_envs},) with at least one row")
    return mask


def _contexts(
    given: Mapping[str, Any], model: WorldModel, contexts: StartContexts, num_envs: int, rows: NDArray[np.int64]
) -> StartContexts | None:
    index, frames, actions = (given.get(name) for name in ("start_context", "start_frames", "start_actions"))
    if frames is None and actions is not None:
        raise UserError("start_actions were given without the start_frames that they lie between")
    if index is not None and frames is not None:
        raise UserError("a dream starts from start_context or from start_frames: give one of them")
    if index is not None:
        chosen = _for_each_row("start_context", index, np.int64, num_envs)[rows]
        if chosen.min() < 0 or chosen.max() >= len(contexts):
            raise UserError(f"start_context={index}: expected 0 to {len(contexts) - 1}, the env's contexts")
        return contexts.rows(torch.from_numpy(chosen))
    if frames is None:
        return None
    return _own_contexts(model, np.asarray(frames), actions, num_envs, rows)


def _own_contexts(
    model: WorldModel, frames: NDArray[Any], actions: Any, num_envs: int, rows: NDArray[np.int64]
) -> StartContexts:
    spec, longest = model.spec, model.longest_start
    each = (num_envs,) if frames.ndim == 5 else ()  # one stretch for all rows, or one for each
    length = frames.shape[len(each)] if frames.ndim >= 4 else 0
    if frames.dtype != np.uint8 or frames.shape != (*each, length, *spec.frame_shape) or not 1 <= length <= longest:
        raise UserError(
            f"start_frames are {frames.dtype} {frames.shape}: expected uint8 (T, H, W, C) or (num_envs, T, H, W, C) "
            f"with T from 1 to {longest} and (H, W, C) = {spec.frame_shape}"
        )
    wanted = (*each, length - 1, *(spec.gym_action_space().shape or ()))
    between = np.zeros(wanted, spec.action_dtype) if actions is None and length == 1 else np.asarray(actions)
    if actions is None and length > 1:
        raise UserError(f"{length} start_frames need start_actions, the {length - 1} actions between them")
    if between.shape != wanted:
        raise UserError(f"start_actions of shape {between.shape}: expected {wanted}, the actions between the frames")
    if between.size and not np.can_cast(between.dtype, spec.action_dtype, "same_kind"):
        raise UserError(f"start_actions are {between.dtype}: expected {spec.action_dtype.name}")
    if each:
        frames, between = frames[rows], between[rows]
    else:
        frames, between = frames[None], between[None]
    found = frame_contexts(model, np.array(frames), between.astype(spec.action_dtype))
    action_features(spec, found.actions)  # raises for what is no action, before anything has begun anew
    return found if each else found.rows(torch.zeros(len(rows), dtype=torch.int64))


def _for_each_row(name: str, given: Any, dtype: type[np.generic], num_envs: int) -> NDArray[Any]:
    """A number for all rows, or one for each, as (num_envs,)."""
    values = given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if values.shape not in ((), (num_envs,)) or not np.can_cast(values.dtype, dtype, "same_kind"):
        raise UserError(f"{name}={given}: expected one {np.dtype(dtype).name}, or one for each of {num_envs} rows")
    return np.broadcast_to(values, (num_envs,)).astype(dtype)
