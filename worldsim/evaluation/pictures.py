"""Videos and pictures in which a person sees what the numbers cannot say."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from worldsim.data.store import EpisodeStore
from worldsim.dream import observe_state
from worldsim.evaluation.dreamt_return import Act
from worldsim.evaluation.stretches import decode, draw_stretches, dream_along, encode
from worldsim.evaluation.world import HORIZONS
from worldsim.rendering import (
    Frames,
    enlarged,
    labelled,
    picture_grid,
    side_by_side,
    write_picture,
    write_video,
)
from worldsim.scripted_policies import UniformRandom
from worldsim.world_model import WorldModel, row_generator

PICTURE_PIXELS = 256  # about the height to which small frames are enlarged in videos


def write_pictures(
    model: WorldModel,
    store: EpisodeStore,
    folder: Path,
    *,
    act: Act | None = None,
    observation: str = "features",
    agent_frames: Frames | None = None,
    temperature: float | None = None,
    long_dream_steps: int = 500,
    seed: int = 0,
) -> list[Path]:
    """real_beside_dream.mp4, long_dream.mp4, grid.png and, with the frames of a real episode, agent_real.mp4.

    `act` (None: random actions) plays the long dream on its `observation`. Returns the paths.
    """
    paths = [
        write_real_beside_dream(model, store, folder / "real_beside_dream.mp4", temperature=temperature, seed=seed),
        write_long_dream(
            model,
            folder / "long_dream.mp4",
            act=act,
            observation=observation,
            steps=long_dream_steps,
            temperature=temperature,
            seed=seed,
        ),
        write_grid(model, store, folder / "grid.png", temperature=temperature, seed=seed),
    ]
    if agent_frames is not None:
        paths.append(write_real(model, agent_frames, folder / "agent_real.mp4"))
    return paths


def write_real_beside_dream(
    model: WorldModel,
    store: EpisodeStore,
    path: Path,
    *,
    starts: int = 6,
    steps: int = 64,
    context_frames: int = 8,
    temperature: float | None = None,
    seed: int = 0,
    split: str = "held_out",
) -> Path:
    """Real episodes on the left and, on the right, dreams along the same actions, one start after the other."""
    context_frames = min(context_frames, model.dynamics.config.window)
    stretches = draw_stretches(
        store, starts, horizon=steps, context_frames=context_frames, seed=seed, split=split, whole=True
    )
    dreamt = decode(model, dream_along(model, stretches, seed=seed, temperature=temperature))
    scale = video_scale(model.spec.frame_shape)
    clips = []
    for row in range(len(stretches)):
        length = int(stretches.future_present[row].sum())
        seen = stretches.frames[row, context_frames - 1 : context_frames].numpy()  # (1, H, W, C)
        real = np.concatenate([seen, stretches.future[row, :length].numpy()])
        dream = np.concatenate([seen, dreamt[row, :length]])
        left = labelled(enlarged(real, scale), [f"real, step {t}" for t in range(length + 1)])
        right = labelled(enlarged(dream, scale), [f"dream, step {t}" for t in range(length + 1)])
        clips.append(side_by_side(left, right))
    return write_video(chain.from_iterable(clips), path, frames_per_second=model.spec.frames_per_second)


def write_long_dream(
    model: WorldModel,
    path: Path,
    *,
    act: Act | None = None,
    observation: str = "features",
    steps: int = 500,
    temperature: float | None = None,
    seed: int = 0,
) -> Path:
    """One dream of `steps` steps from an episode's first frame, with nothing real after it.

    It goes on where an episode would have ended: the label shows the predicted probability of that.
    """
    generator = row_generator(seed)
    contexts = model.start_contexts
    if bool(contexts.at_start.any()):
        contexts = contexts.only_episode_starts()
    state = model.start_from(contexts.rows(torch.randint(len(contexts), (1,), generator=generator)), [generator])
    random_policy = UniformRandom(model.spec.gym_action_space())
    random_policy.reset(seed)
    latents, labels = [state.latents.float().cpu()], ["dream, step 0"]
    for t in range(1, steps + 1):
        observed = observe_state(model, state, observation) if act is not None else None
        action = np.asarray(random_policy(np.zeros(0, np.uint8)) if act is None or observed is None else act(observed))
        actions = torch.from_numpy(action.reshape(1, *model.spec.action_shape))
        state, step = model.step(state, actions, temperature=temperature)
        latents.append(step.latents.float().cpu())
        labels.append(f"dream, step {t}, end {float(step.termination_probability[0]):.2f}")
    frames = decode(model, torch.cat(latents)[None])[0]  # (T, H, W, C)
    clip = labelled(enlarged(frames, video_scale(model.spec.frame_shape)), labels)
    return write_video(clip, path, frames_per_second=model.spec.frames_per_second)


def write_grid(
    model: WorldModel,
    store: EpisodeStore,
    path: Path,
    *,
    starts: int = 4,
    steps: Sequence[int] = HORIZONS,
    temperature: float | None = None,
    seed: int = 0,
    split: str = "held_out",
) -> Path:
    """For each start three rows, real, reconstructed and dreamt, with a column for each of the `steps` ahead."""
    picture = draw_grid(model, store, starts=starts, steps=steps, temperature=temperature, seed=seed, split=split)
    return write_picture(picture, path)


def draw_grid(
    model: WorldModel,
    store: EpisodeStore,
    *,
    starts: int = 4,
    steps: Sequence[int] = HORIZONS,
    context_frames: int = 8,
    temperature: float | None = None,
    seed: int = 0,
    split: str = "held_out",
) -> Frames:
    """The picture that `write_grid` writes, uint8 (H, W, 3); for TensorBoard too."""
    context_frames = min(context_frames, model.dynamics.config.window)
    stretches = draw_stretches(
        store, starts, horizon=max(steps), context_frames=context_frames, seed=seed, split=split, whole=True
    )
    columns = [step - 1 for step in steps]
    real = stretches.future[:, columns]
    rebuilt = decode(model, encode(model, real))
    dreamt = decode(model, dream_along(model, stretches, seed=seed, temperature=temperature)[:, columns])
    rows = []
    for row in range(len(stretches)):
        there = stretches.future_present[row, columns].tolist()
        for name, frames in (("real", real[row].numpy()), ("rebuilt", rebuilt[row]), ("dreamt", dreamt[row])):
            rows.append((name, [frame if known else None for frame, known in zip(frames, there, strict=True)]))
    scale = max(1, PICTURE_PIXELS // 2 // max(model.spec.frame_shape[:2]))
    return picture_grid(rows, [f"step {step}" for step in steps], scale=scale)


def write_real(model: WorldModel, frames: Frames, path: Path) -> Path:
    """The frames (T, H, W, C) of a real episode, numbered; a last frame without a picture is left out."""
    blank = model.spec.blank_terminal_frame and len(frames) > 1 and not frames[-1].any()
    shown = frames[: len(frames) - blank]
    clip = labelled(
        enlarged(shown, video_scale(model.spec.frame_shape)), [f"real, step {t}" for t in range(len(shown))]
    )
    return write_video(clip, path, frames_per_second=model.spec.frames_per_second)


def video_scale(frame_shape: Sequence[int]) -> int:
    """How many times frames (H, W, C) are enlarged for a video."""
    return max(1, PICTURE_PIXELS // max(frame_shape[:2]))
