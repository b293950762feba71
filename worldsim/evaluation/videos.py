"""Videos of dreams and of reality, drawn frame by frame while they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.data.store import EpisodeStore
from worldsim.evaluation.panel import Think, Thoughts, beside_panel, draw_panel, panel_height
from worldsim.evaluation.stretches import decode, draw_stretches, dream_along, start_dreams
from worldsim.observations import observe_state
from worldsim.rendering import Frames, enlarged, heat, labelled, side_by_side, tiled
from worldsim.scripted_policies import StickyRandom, UniformRandom
from worldsim.world_model import WorldModel, row_generator
from worldsim.world_state import WorldState

PICTURE_PIXELS = 256  # about the height to which small frames are enlarged in videos
TILE_PIXELS = 160  # the same where several dreams stand in one picture
LARGEST_ERROR = 64  # difference of pixels, of 255, that an error map shows in white
_PANEL = (
    "Bars: the probabilities of its actions (of continuous actions, the most likely one between its bounds), the one "
    "taken in orange. Value: the discounted return that it expects from here on."
)
TEMPERATURES = (0.0, 0.5, 1.0, 1.5, 2.0)  # of a sweep, in units of the model's own


@dataclass(frozen=True)
class Video:
    """`name` of its file without a suffix, a `caption` that says what is to be seen, `length` in frames, and `draw`.

    draw: the frame at t, uint8 (H, W, 3), of one size.
    """

    name: str
    caption: str
    length: int
    draw: Callable[[int], Frames]

    def __iter__(self) -> Iterator[Frames]:
        return (self.draw(t) for t in range(self.length))


@dataclass(frozen=True)
class Start:
    """A moment from which several dreams go on.

    state: of one row. shown: its frame (H, W, C). actions: (K,) int64 or (K, A) float32, to dream along. real: the
    frames that followed in reality, (K, H, W, C); None where nobody knows.
    """

    state: WorldState
    shown: Frames
    actions: Tensor
    real: Frames | None


def real_beside_dream(
    model: WorldModel,
    store: EpisodeStore,
    *,
    starts: int = 6,
    steps: int = 64,
    context_frames: int = 8,
    temperature: float | None = None,
    seed: int = 0,
    split: str = "held_out",
) -> Video:
    """Real episodes, dreams along the same actions, and how far they are apart, one start after the other."""
    context_frames = min(context_frames, model.dynamics.config.window)
    stretches = draw_stretches(
        store, starts, horizon=steps, context_frames=context_frames, seed=seed, split=split, whole=True
    )
    dreamt = decode(model, dream_along(model, stretches, seed=seed, temperature=temperature))
    seen = stretches.frames[:, context_frames - 1 : context_frames].numpy()  # (B, 1, H, W, C)
    real = np.concatenate([seen, stretches.future.numpy()], axis=1)
    dreams = np.concatenate([seen, dreamt], axis=1)
    lengths = 1 + stretches.future_present.sum(1).numpy()
    moments = [(row, t) for row, length in enumerate(lengths.tolist()) for t in range(length)]
    scale = video_scale(model.spec.frame_shape)

    def draw(number: int) -> Frames:
        row, t = moments[number]
        error = np.abs(real[row, t].astype(np.int16) - dreams[row, t]).max(axis=-1)  # (H, W)
        panels = (
            (f"real, step {t}", real[row, t]),
            (f"dream, step {t}", dreams[row, t]),
            (f"error, mean {error.mean():.1f} of 255", heat(error / LARGEST_ERROR)),
        )
        return side_by_side(*(labelled(enlarged(frame, scale)[None], text) for text, frame in panels))[0]

    caption = (
        f"Held-out reality, the dream along the same actions and the error between them (white: {LARGEST_ERROR} of 255 "
        f"levels or more), from {len(stretches)} starts one after the other. Step 0 is the last real frame shown."
    )
    return Video("real_beside_dream", caption, len(moments), draw)


def start_in_episode(
    model: WorldModel, store: EpisodeStore, *, steps: int = 64, context_frames: int = 8, seed: int = 0
) -> Start:
    """A moment of a held-out episode, with what the agent then did and what came of it."""
    context_frames = min(context_frames, model.dynamics.config.window)
    stretch = draw_stretches(store, 1, horizon=steps, context_frames=context_frames, seed=seed, whole=True)
    length = int(stretch.future_present[0].sum())
    return Start(
        start_dreams(model, stretch, seed=seed),
        stretch.frames[0, context_frames - 1].numpy(),
        stretch.future_actions[0, :length],
        stretch.future[0, :length].numpy(),
    )


def start_in_context(model: WorldModel, *, steps: int = 64, seed: int = 0) -> Start:
    """A start context of the model, with sticky random actions to follow."""
    generator = row_generator(seed)
    chosen = torch.randint(len(model.start_contexts), (1,), generator=generator)
    state = model.start_from(model.start_contexts.rows(chosen), [generator])
    policy = StickyRandom(model.spec.gym_action_space(), "mixed")
    policy.reset(seed)
    actions = np.stack(
        [np.asarray(policy(np.zeros(0, np.uint8))).reshape(model.spec.action_shape) for _ in range(steps)]
    )
    return Start(state, model.decode(state.latents)[0].cpu().numpy(), torch.from_numpy(actions), None)


def several_dreams(
    model: WorldModel, start: Start, *, dreams: int = 5, temperature: float | None = None, seed: int = 0
) -> Video:
    """What the model holds possible: dreams from one start along the same actions, each with a seed of its own."""
    names = [f"dream {k + 1}" for k in range(dreams)]
    branches = _dreams(model, start, names, range(seed, seed + dreams), temperature)
    caption = (
        f"{_reality_and(start)}{dreams} dreams from one moment along the same actions, each with a random seed of its "
        f"own: where they differ, the model holds several futures possible. Alive: the chance of no ending so far."
    )
    return _tiles(model, start, branches, "several_dreams", caption)


def temperature_sweep(model: WorldModel, start: Start, *, seed: int = 0) -> Video:
    """One start and one seed, dreamt at several temperatures around the model's own."""
    own = model.temperature or 1.0
    temperatures = [own * factor for factor in TEMPERATURES]
    branches = [b for T in temperatures for b in _dreams(model, start, [f"T {T:.3g}"], [seed], T)]
    caption = (
        f"{_reality_and(start)}dreams from one moment along the same actions at temperatures T from 0 (nothing is left "
        f"to chance) to {own * TEMPERATURES[-1]:.3g}. The model's own is {model.temperature:.3g}."
    )
    return _tiles(model, start, branches, "temperatures", caption)


def long_dream(
    model: WorldModel,
    *,
    think: Think | None = None,
    observation: str | None = None,
    steps: int = 500,
    temperature: float | None = None,
    seed: int = 0,
) -> Video:
    """One dream of `steps` steps from an episode's first frame, with nothing real after it.

    `think` (None: random actions) plays it on `observation` (None: what agents of the model read). It goes on where an
    episode would have ended: the picture shows the predicted probability of that.
    """
    shown = observation or model.agent_observation
    generator = row_generator(seed)
    contexts = model.start_contexts
    if bool(contexts.at_start.any()):
        contexts = contexts.only_episode_starts()
    state = model.start_from(contexts.rows(torch.randint(len(contexts), (1,), generator=generator)), [generator])
    random_policy = UniformRandom(model.spec.gym_action_space())
    random_policy.reset(seed)
    latents, thoughts, total, alive = [state.latents.float().cpu()], [], 0.0, 1.0
    lines = [_lines("dream", 0, total, f"end 0.00, alive {alive:.0%}")]
    for t in range(1, steps + 1):
        if think is None:
            action = np.asarray(random_policy(np.zeros(0, np.uint8)))
        else:
            thoughts.append(think(observe_state(model, state, shown)))
            action = thoughts[-1].actions
        actions = torch.from_numpy(action.reshape(1, *model.spec.action_shape))
        state, step = model.step(state, actions, temperature=temperature)
        latents.append(step.latents.float().cpu())
        end = float(step.termination_probability[0])
        total, alive = total + float(step.reward[0]), alive * (1 - end)
        lines.append(_lines("dream", t, total, f"end {end:.2f}, alive {alive:.0%}"))
    frames = decode(model, torch.cat(latents)[None])[0]  # (T, H, W, C)
    caption = f"A dream of {steps} steps from the first frame of an episode, with nothing real after it"
    if think is None:
        scale = video_scale(model.spec.frame_shape)
        texts = [f"{line[0]}, {line[2]}" for line in lines]
        return Video(
            "long_dream",
            caption + ". Actions are random. End: the predicted chance that the step ends the episode.",
            len(frames),
            lambda t: labelled(enlarged(frames[t : t + 1], scale), texts[t])[0],
        )
    thoughts.append(think(observe_state(model, state, shown)))
    caption += f", played by the agent. {_PANEL} End: the predicted chance that the step ends the episode."
    return _with_thoughts(model, "long_dream", caption, frames, lines, thoughts)


def agent_in_reality(
    model: WorldModel,
    frames: Frames,
    actions: NDArray[np.generic],
    rewards: NDArray[np.float32],
    think: Think,
    *,
    seed: int,
) -> Video:
    """A real episode as the agent played it with `seed`, with what it thought.

    frames: (T, H, W, C), of which the last may be without a picture and is left out then. actions: (T-1,) or
    (T-1, A). rewards: (T-1,). The thoughts are found again by showing the model the same frames and actions.
    """
    blank = model.spec.blank_terminal_frame and len(frames) > 1 and not frames[-1].any()
    frames = frames[: len(frames) - blank]
    shown, acted = torch.from_numpy(frames), torch.from_numpy(actions)
    state = model.start_episode(shown[:1], [row_generator(seed)])
    thoughts = [think(observe_state(model, state, model.agent_observation))]
    for t in range(1, len(frames)):
        state, _ = model.observe(state, shown[t : t + 1], acted[t - 1 : t])
        thoughts.append(think(observe_state(model, state, model.agent_observation)))
    taken = [replace(thought, actions=actions[t : t + 1]) for t, thought in enumerate(thoughts) if t < len(actions)]
    totals = np.concatenate([[0.0], np.cumsum(rewards)])
    lines = [_lines("real", t, float(totals[t])) for t in range(len(frames))]
    caption = f"The agent in the real environment, an episode with return {totals[-1]:.4g}. {_PANEL}"
    return _with_thoughts(model, "agent_real", caption, frames, lines, [*taken, *thoughts[len(taken) :]])


def video_scale(frame_shape: Sequence[int], pixels: int = PICTURE_PIXELS) -> int:
    """How many times frames (H, W, C) are enlarged for a video."""
    return max(1, pixels // max(frame_shape[:2]))


@dataclass(frozen=True)
class _Clip:
    """frames: (K+1, H, W, C), the first of them real. labels: what stands above each."""

    frames: Frames
    labels: Sequence[str]


def _dreams(
    model: WorldModel, start: Start, names: Sequence[str], seeds: Sequence[int], temperature: float | None
) -> list[_Clip]:
    """Dreams from `start` along its actions, one for each seed, side by side."""
    rows = len(seeds)
    state = start.state.select_rows(torch.zeros(rows, dtype=torch.int64))
    state = replace(state, generators=tuple(row_generator(seed) for seed in seeds))
    latents, alive = [], [np.ones(rows)]
    for action in start.actions:
        state, step = model.step(state, action.expand(rows, *action.shape), temperature=temperature)
        latents.append(step.latents.float().cpu())
        alive.append(alive[-1] * (1 - step.termination_probability.double().cpu().numpy()))
    dreamt = decode(model, torch.stack(latents, dim=1))  # (B, K, H, W, C)
    return [
        _Clip(np.concatenate([start.shown[None], dreamt[row]]), [f"{name}, alive {share[row]:.0%}" for share in alive])
        for row, name in enumerate(names)
    ]


def _tiles(model: WorldModel, start: Start, clips: Sequence[_Clip], name: str, caption: str) -> Video:
    """Dreams in tiles, and reality before them where it is known."""
    if start.real is not None:
        real = np.concatenate([start.shown[None], start.real])
        clips = [_Clip(real, [f"real, step {t}" for t in range(len(real))]), *clips]
    scale = video_scale(model.spec.frame_shape, TILE_PIXELS)

    def draw(t: int) -> Frames:
        return tiled([labelled(enlarged(c.frames[t : t + 1], scale), c.labels[t])[0] for c in clips], columns=3)

    return Video(name, caption, 1 + len(start.actions), draw)


def _with_thoughts(
    model: WorldModel,
    name: str,
    caption: str,
    frames: Frames,
    lines: Sequence[Sequence[str]],
    thoughts: Sequence[Thoughts],
) -> Video:
    spec, scale = model.spec, video_scale(model.spec.frame_shape)
    known = [thought.values for thought in thoughts if thought.values is not None]
    values = np.concatenate(known) if len(known) == len(frames) else None
    height = panel_height(spec, spec.frame_shape[0] * scale, len(lines[0]) + len(known[:1]), values is not None)

    def draw(t: int) -> Frames:
        text = [*lines[t], *([] if values is None else [f"value {values[t]:.4g}"])]
        action = thoughts[t].actions[0] if t < len(frames) - 1 else None
        panel = draw_panel(spec, height, text, thoughts[t].shares[0], action, values, t)
        return beside_panel(enlarged(frames[t], scale), panel)

    return Video(name, caption, len(frames), draw)


def _lines(where: str, t: int, total: float, *rest: str) -> tuple[str, ...]:
    return f"{where}, step {t}", f"return so far {total:.4g}", *rest


def _reality_and(start: Start) -> str:
    return "" if start.real is None else "What really happened, and "
