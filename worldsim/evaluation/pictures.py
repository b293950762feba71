"""All videos and pictures of a world model, and the grid among them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from worldsim.data.files import explained, write_json
from worldsim.data.store import EpisodeStore
from worldsim.evaluation.board import log_videos
from worldsim.evaluation.panel import Think
from worldsim.evaluation.stretches import decode, draw_stretches, dream_along, encode
from worldsim.evaluation.videos import (
    PICTURE_PIXELS,
    Video,
    agent_in_reality,
    long_dream,
    real_beside_dream,
    several_dreams,
    start_in_context,
    start_in_episode,
    temperature_sweep,
)
from worldsim.evaluation.world import HORIZONS
from worldsim.rendering import Frames, picture_grid, write_gif, write_picture, write_video
from worldsim.rollouts import EpisodeResult
from worldsim.world_model import WorldModel

CAPTIONS = "captions.json"  # what each file shows, by its name
GRID = "grid.png"
GRID_CAPTION = (
    "Held-out reality, its reconstruction by the tokenizer, and the dream, 1 to 32 steps after the last real frame."
)


def write_pictures(
    model: WorldModel,
    folder: Path,
    *,
    store: EpisodeStore | None = None,
    think: Think | None = None,
    episode: EpisodeResult | None = None,
    long_dream_steps: int = 500,
    seed: int = 0,
    gif: bool = False,
) -> None:
    """Writes all that there is to see into `folder`, and captions.json with what each file shows.

    store: real episodes; without them real_beside_dream.mp4 and grid.png are left out, and dreams start from the
    model's own contexts. think: the agent; without it the long dream is one of random actions. episode: one that the
    agent played in reality (with its frames), for agent_real.mp4. gif: each video as a GIF too. TensorBoard finds the
    videos in FOLDER/tensorboard. Raises UserError if something cannot be written.
    """
    captions: dict[str, str] = {}
    rate = model.spec.frames_per_second

    def written() -> Iterator[tuple[str, Iterable[Frames]]]:
        for video in _videos(model, store, think, episode, long_dream_steps, seed):
            if gif:
                write_gif(video, folder / f"{video.name}.gif", frames_per_second=rate)
                captions[f"{video.name}.gif"] = video.caption
            write_video(video, folder / f"{video.name}.mp4", frames_per_second=rate)
            captions[f"{video.name}.mp4"] = video.caption
            yield video.name, video

    log_videos(folder / "tensorboard", written(), step=0, rate=rate)
    if store is not None:
        write_grid(model, store, folder / GRID, seed=seed)
        captions[GRID] = GRID_CAPTION
    with explained("write the captions", folder):
        write_json(folder / CAPTIONS, captions)


def _videos(
    model: WorldModel,
    store: EpisodeStore | None,
    think: Think | None,
    episode: EpisodeResult | None,
    long_dream_steps: int,
    seed: int,
) -> Iterator[Video]:
    """One at a time, so that only one of them is in memory."""
    if store is None:
        start = start_in_context(model, seed=seed)
    else:
        yield real_beside_dream(model, store, seed=seed)
        start = start_in_episode(model, store, seed=seed)
    yield several_dreams(model, start, seed=seed)
    yield temperature_sweep(model, start, seed=seed)
    yield long_dream(model, think=think, steps=long_dream_steps, seed=seed)
    if think is not None and episode is not None:
        assert episode.frames is not None
        yield agent_in_reality(model, episode.frames, episode.actions, episode.rewards, think, seed=episode.seed)


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
