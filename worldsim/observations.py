"""What an env shows of a world state: pixels, latents, the belief, or all that a policy may want."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.actions import action_feature_count
from worldsim.errors import UserError
from worldsim.world_model import WorldModel
from worldsim.world_state import WorldState

Observation = Literal["pixels", "latent", "belief", "features", "frame_stack"]
OBSERVATIONS: tuple[Observation, ...] = ("pixels", "latent", "belief", "features", "frame_stack")


def observation_space(model: WorldModel, observation: str) -> gym.spaces.Box:
    """Space of a row: pixels uint8 (H, W, C), or flat float32: latent (N D), belief (Z), features, see below.

    Features are the latents, what they differ by from those of the frame before, the belief, and the last action,
    2 N D + Z + A: one frame does not tell what moves where. With `model.feature_frames` above 1 the latents, changes
    and actions of the frames before stand in front, 2 N D + A each, oldest first and 0 where there was none: what has
    left the picture is there still.

    A frame stack, uint8 (H, W, K C + A), holds the decoded frames of the K ages in `model.stack_ages`, in that order,
    and a plane for each number of the last action, 128 being 0 and 255 being 1: where things are is easier to see than
    to read out of latents. Raises UserError if the model has no such ages.
    """
    low, high = (bound.flatten().cpu().numpy() for bound in (model.dynamics.scale.low, model.dynamics.scale.high))
    ones = np.ones(model.belief_size, np.float32)
    if observation == "pixels":
        return gym.spaces.Box(0, 255, model.spec.frame_shape, np.uint8)
    if observation == "latent":
        return gym.spaces.Box(low, high, dtype=np.float32)
    if observation == "belief":
        return gym.spaces.Box(-ones, ones, dtype=np.float32)
    if observation == "frame_stack":
        if not model.stack_ages:
            raise UserError(
                'observation="frame_stack": this world model does not say which frames; set its stack_ages, such as '
                "(0, 1, 2, 4), or choose another observation"
            )
        height, width, channels = model.spec.frame_shape
        planes = len(model.stack_ages) * channels + action_feature_count(model.spec)
        return gym.spaces.Box(0, 255, (height, width, planes), np.uint8)
    if observation == "features":
        lowest, highest = (bound.cpu().numpy() for bound in _shown_bounds(model))
        changes, past = 2 * len(low), model.feature_frames - 1  # the belief stands between changes and action
        return gym.spaces.Box(
            np.concatenate([np.tile(lowest, past), lowest[:changes], -ones, lowest[changes:]]),
            np.concatenate([np.tile(highest, past), highest[:changes], ones, highest[changes:]]),
            dtype=np.float32,
        )
    raise UserError(f"observation={observation!r} is unknown: choose one of {', '.join(OBSERVATIONS)}")


def observation_layout(model: WorldModel, observation: str) -> dict[str, int] | None:
    """What the numbers of an observation are, as an agent's network wants to know it; None: nothing is known."""
    if observation == "features":
        return feature_layout(model)
    return {"action": action_feature_count(model.spec)} if observation == "frame_stack" else None


def feature_layout(model: WorldModel) -> dict[str, int]:
    """What the numbers of "features" are: of the last of "frames" frames twice "tokens" x "channels", then "belief" and
    "action"; before that, of each other frame, the same without the belief.
    """
    tokens, channels = model.latent_shape
    action = action_feature_count(model.spec)
    sizes = {"tokens": tokens, "channels": channels, "belief": model.belief_size, "action": action}
    return {"frames": model.feature_frames, **sizes}


def observed(model: WorldModel, state: WorldState, observation: str) -> Tensor:
    """What a row shows of a world state, (B, ...) as `observation_space` says, on the model's device.

    An ordinary tensor of its own, whatever becomes of the state.
    """
    if observation == "pixels":
        return model.frames_of(state)
    if observation == "belief":
        return state.belief.clone()
    if observation == "latent":
        return model.dynamics.scale.clamp(state.latents).flatten(1).clone()
    if observation == "frame_stack":
        return frame_stack(model, state.decoded, state.action)
    lowest, highest = _shown_bounds(model)
    now = state.shown.clamp(lowest, highest)  # (B, 2 N D + A)
    latents_and_change, action = now.tensor_split([-state.action.shape[1]], dim=1)
    shown = state.past[len(state.past) - (model.feature_frames - 1) :]  # the model may remember more
    before = [frame.clamp(lowest, highest) for frame in shown]
    return torch.cat([*before, latents_and_change, state.belief, action], dim=1)


def observe_state(model: WorldModel, state: WorldState, observation: str) -> NDArray[Any]:
    """The same as an array."""
    return observed(model, state, observation).cpu().numpy()


def frame_stack(model: WorldModel, decoded: Sequence[Tensor], action: Tensor) -> Tensor:
    """The observation "frame_stack", uint8 (B, H, W, K C + A).

    decoded: uint8 (B, H, W, C), the last frames as the tokenizer draws them, the current one last. action: (B, A),
    features of the one that led here.
    """
    frames = [decoded[-1 - age] for age in model.stack_ages]
    levels = (127.5 * (1 + action)).round().to(torch.uint8)  # (B, A)
    return torch.cat([*frames, levels[:, None, None].expand(-1, *frames[0].shape[1:3], -1)], dim=3)


def _shown_bounds(model: WorldModel) -> tuple[Tensor, Tensor]:
    """Least and largest values of a frame's latents, change and action, (2 N D + A,) each."""
    low, high = model.dynamics.scale.low.flatten(), model.dynamics.scale.high.flatten()
    action = low.new_ones(action_feature_count(model.spec))
    return torch.cat([low, low - high, -action]), torch.cat([high, high - low, action])
