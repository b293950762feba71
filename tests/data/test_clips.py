from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.data.counting import action_of, episode, fill, read_picture, reward_of, spec
from tests.data.test_latents import FakeTokenizer, encode
from worldsim.data.clips import Clip, ClipSampler
from worldsim.data.shards import COMPRESSIONS
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError

CLIP_FRAMES = 6
# Steps of each episode: shorter than, exactly as long as and longer than a clip (which has one frame more than steps).
STEPS = {1: 3, 2: 5, 3: 6, 4: 23, 5: 2, 6: 11, 7: 17}
TRUNCATED = {4, 5}
HELD_OUT = {7}
TRAIN_STEPS = sum(steps for number, steps in STEPS.items() if number not in HELD_OUT)


def make_store(folder: Path, *, box: bool = False, blank: bool = False, compression: str = "none") -> EpisodeStore:
    store = EpisodeStore.create(folder, spec(box, blank), compression)
    for shard in ("b", "a"):
        fill(
            store,
            shard,
            *(
                episode(
                    number,
                    steps,
                    box=box,
                    terminated=number not in TRUNCATED,
                    split="held_out" if number in HELD_OUT else "train",
                )
                for number, steps in STEPS.items()
                if (number % 2 == 0) == (shard == "a")
            ),
        )
    return store


def check_clip(clip: Clip, row: int, numbers: NDArray[np.int64], steps: NDArray[np.int64], box: bool) -> None:
    """`numbers` and `steps` (T,) are what the clip's own pixels or latents say."""
    number, start = int(numbers[0]), int(steps[0])
    episode_frames = STEPS[number] + 1
    present = np.arange(CLIP_FRAMES) < episode_frames - start
    assert clip.present[row].tolist() == present.tolist()
    for t in range(CLIP_FRAMES):
        step = start + t
        if not present[t]:
            assert (numbers[t], steps[t]) == (0, 0)
            assert not clip.has_action[row, t]
            assert not clip.terminated[row, t]
            assert not clip.frame_valid[row, t]
            assert clip.rewards[row, t] == 0
            assert not clip.actions[row, t].any()
            assert clip.head_weight[row, t] == 0
            continue
        assert (numbers[t], steps[t]) == (number, step), "consecutive frames of one episode"
        assert bool(clip.has_action[row, t]) == (step > 0)
        assert bool(clip.head_weight[row, t] > 0) == (t > 0), "the first frame of a clip has no past"
        ended = step == episode_frames - 1 and number not in TRUNCATED
        assert bool(clip.terminated[row, t]) == ended
        if step > 0:
            np.testing.assert_array_equal(clip.actions[row, t], action_of(number, step - 1, box))
            assert float(clip.rewards[row, t]) == reward_of(number, step - 1)
        else:
            assert float(clip.rewards[row, t]) == 0
            assert not clip.actions[row, t].any()


def test_frame_clips_are_whole_and_aligned(tmp_path: Path) -> None:
    for compression in COMPRESSIONS:
        for box in (False, True):
            store = make_store(tmp_path / f"{compression}{box}", box=box, compression=compression)
            clip = ClipSampler(store, None, CLIP_FRAMES, seed=1).sample(200)
            assert clip.frames is not None
            assert clip.frames.shape == (200, CLIP_FRAMES, 4, 6, 3)
            assert clip.frames.dtype == torch.uint8
            assert clip.actions.dtype == (torch.float32 if box else torch.int64)
            numbers, steps = read_picture(clip.frames.numpy())
            assert set(numbers[:, 0]) == set(STEPS) - HELD_OUT
            for row in range(200):
                check_clip(clip, row, numbers[row], steps[row], box)


def test_latent_clips_are_whole_and_aligned(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    clip = ClipSampler(store, encode(store, FakeTokenizer()), CLIP_FRAMES, seed=1).sample(200)
    assert clip.frames is None
    assert clip.latents.shape == (200, CLIP_FRAMES, 2, 3)
    assert clip.latents.dtype == torch.float32
    said = (clip.latents * 2).numpy().astype(np.int64)  # the tokenizer halves
    numbers, steps = said[:, :, 0, 2], said[:, :, 1, 2]
    assert set(numbers[:, 0]) == set(STEPS) - HELD_OUT
    for row in range(200):
        check_clip(clip, row, numbers[row], steps[row], box=False)


def test_both_kinds_of_sampler_draw_the_same_clips(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    frames = ClipSampler(store, None, CLIP_FRAMES, seed=3).sample(50)
    latents = ClipSampler(store, encode(store, FakeTokenizer()), CLIP_FRAMES, seed=3).sample(50)
    assert torch.equal(frames.rewards, latents.rewards)
    assert frames.latents.shape == (50, CLIP_FRAMES, 0, 0)


def test_splits_stay_apart(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    clip = ClipSampler(store, None, CLIP_FRAMES, "held_out").sample(50)
    assert clip.frames is not None
    assert set(read_picture(clip.frames.numpy())[0][clip.present.numpy()]) == HELD_OUT


@pytest.mark.parametrize("blank", [False, True])
def test_only_blank_terminal_frames_are_invalid(tmp_path: Path, blank: bool) -> None:
    clip = ClipSampler(make_store(tmp_path / "store", blank=blank), None, CLIP_FRAMES).sample(200)
    assert clip.terminated.any()
    expected = clip.present & ~clip.terminated if blank else clip.present
    assert torch.equal(clip.frame_valid, expected)


def drawn_starts(store: EpisodeStore, ending_fraction: float, count: int) -> Counter[tuple[int, int]]:
    """How often each (episode number, first step) was drawn."""
    clip = ClipSampler(store, None, CLIP_FRAMES, ending_fraction=ending_fraction, seed=5).sample(count)
    assert clip.frames is not None
    numbers, steps = read_picture(clip.frames[:, 0].numpy())
    return Counter(zip(numbers.tolist(), steps.tolist(), strict=True))


def clip_probabilities(ending_fraction: float) -> dict[tuple[int, int], float]:
    """Written down clip by clip: the probability of each (episode number, first step)."""
    train = {number: steps for number, steps in STEPS.items() if number not in HELD_OUT}
    starts = [(number, start) for number, steps in train.items() for start in range(steps)]
    ended = [number for number in train if number not in TRUNCATED]
    probabilities = {one: (1 - ending_fraction) / len(starts) for one in starts}
    for number in ended:
        places = range(1, min(CLIP_FRAMES - 1, train[number]) + 1)
        for place in places:  # where the last frame of the episode stands in the clip
            probabilities[number, train[number] - place] += ending_fraction / len(ended) / len(places)
    return probabilities


@pytest.mark.parametrize("ending_fraction", [0.0, 0.25, 0.9])
def test_clips_are_drawn_as_promised(tmp_path: Path, ending_fraction: float) -> None:
    count = 40_000
    drawn = drawn_starts(make_store(tmp_path / "store"), ending_fraction, count)
    expected = clip_probabilities(ending_fraction)
    assert set(drawn) <= set(expected)
    for one, probability in expected.items():
        deviation = np.sqrt(count * probability * (1 - probability))
        assert abs(drawn[one] - count * probability) < 5 * deviation, one


def test_an_ending_is_no_likelier_at_one_place_of_the_clip_than_at_another(tmp_path: Path) -> None:
    """Else a model that can count frames learns when to expect it instead of why."""
    clip = ClipSampler(make_store(tmp_path / "store"), None, CLIP_FRAMES, ending_fraction=0.5, seed=2).sample(40_000)
    assert (clip.terminated[:, 1:].float().mean(0) > 0.02).all()


@pytest.mark.parametrize("ending_fraction", [0.0, 0.25, 0.9])
def test_head_weights_are_the_inverse_of_the_sampling_in_closed_form(tmp_path: Path, ending_fraction: float) -> None:
    """The expectation over all clips of mean(weight * x) is the mean over all steps, for each x that marks one step."""
    sampler = ClipSampler(make_store(tmp_path / "store"), None, CLIP_FRAMES, ending_fraction=ending_fraction, seed=2)
    clip = sampler.sample(20_000)
    assert clip.frames is not None
    numbers, steps = read_picture(clip.frames.numpy())
    weights: dict[tuple[int, int], float] = {}
    past = clip.present.clone()
    past[:, 0] = False
    for number, step, weight, has_past in zip(
        numbers.ravel().tolist(),
        steps.ravel().tolist(),
        clip.head_weight.ravel().tolist(),
        past.ravel().tolist(),
        strict=True,
    ):
        if has_past:
            assert weights.setdefault((number, step), weight) == weight, "one weight for each step"

    contribution = dict.fromkeys(weights, 0.0)  # of each step to the expectation
    for (number, start), probability in clip_probabilities(ending_fraction).items():
        for step in range(start + 1, min(start + CLIP_FRAMES, STEPS[number] + 1)):
            contribution[number, step] += probability * weights[number, step] / CLIP_FRAMES
    assert len(contribution) == TRAIN_STEPS, "every step counts"
    for one, value in contribution.items():
        assert value == pytest.approx(1 / TRAIN_STEPS, rel=1e-5), one


def test_weighted_hazard_is_not_inflated(tmp_path: Path) -> None:
    sampler = ClipSampler(make_store(tmp_path / "store"), None, CLIP_FRAMES, ending_fraction=0.9)
    clip = sampler.sample(20_000)
    hazard = (len(STEPS) - len(HELD_OUT) - len(TRUNCATED)) / TRAIN_STEPS
    weighted = float((clip.head_weight * clip.terminated).mean())
    assert weighted == pytest.approx(hazard, rel=0.05)
    assert float(clip.terminated.sum() / clip.has_action.sum()) > 1.5 * hazard


def test_without_terminations_every_start_is_equally_likely(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec())
    fill(store, "a", episode(1, 20, terminated=False), episode(2, 30, terminated=False))
    clip = ClipSampler(store, None, 21, ending_fraction=0.5).sample(2000)
    assert clip.frames is not None
    starts = Counter(read_picture(clip.frames[:, 0].numpy())[1].tolist())
    assert starts[10] < 2 * 2000 / 12
    assert float(clip.head_weight.mean()) == pytest.approx(1, rel=0.05)


def test_draws_resume_bitwise(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    straight = ClipSampler(store, None, CLIP_FRAMES, seed=7)
    straight.sample(8)
    file = io.BytesIO()
    torch.save(straight.state_dict(), file)
    file.seek(0)
    expected = straight.sample(8)

    resumed = ClipSampler(store, None, CLIP_FRAMES, seed=99)
    assert not torch.equal(resumed.sample(8).rewards, expected.rewards)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    actual = resumed.sample(8)
    for name, value in vars(expected).items():
        assert torch.equal(value, getattr(actual, name)), name


def test_clips_move_to_a_device(tmp_path: Path) -> None:
    clip = ClipSampler(make_store(tmp_path / "store"), None, CLIP_FRAMES).sample(2)
    moved = clip.to(torch.device("meta"))
    assert {value.device.type for value in vars(moved).values()} == {"meta"}
    assert moved.actions.shape == clip.actions.shape


def test_unusable_requests(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "store", spec())
    with pytest.raises(UserError, match="no train episodes"):
        ClipSampler(store, None, CLIP_FRAMES)
    fill(store, "a", episode(1, 3))
    with pytest.raises(UserError, match="no held_out episodes"):
        ClipSampler(store, None, CLIP_FRAMES, "held_out")
    for frames, fraction in [(1, 0.25), (4, 1.0), (4, -0.1)]:
        with pytest.raises(UserError, match="expected 2 frames or more"):
            ClipSampler(store, None, frames, ending_fraction=fraction)
