from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tokenizers.squares import BRIGHTNESS, SIZE, SQUARE, MakeStore, make_episode, square_frames, trained_for
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.tokenizers.build import tokenizer_fingerprint
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.frames import FramePool
from worldsim.tokenizers.learner import TokenizerLearner
from worldsim.tokenizers.vit import VitTokenizer


def tiny(**changes: Any) -> TokenizerConfig:
    settings: dict[str, Any] = {
        "width": 64,
        "heads": 1,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "channels": 16,
        "batch_frames": 32,
        "steps": 20,
        "warmup_steps": 5,
    }
    return TokenizerConfig(**(settings | changes))


def test_it_learns_to_keep_a_small_moving_object(square_store: EpisodeStore) -> None:
    learner = TokenizerLearner(tiny(steps=700, warmup_steps=50, learning_rate=3e-3), square_store)
    first = learner.update()["loss"]
    last = [learner.update()["loss"] for _ in range(699)][-1]
    assert last < first / 3

    frames, corners = square_frames(64, seed=77)  # never seen in training
    decoded = learner.tokenizer.decode(learner.tokenizer.encode(torch.from_numpy(frames))).numpy()
    background = np.median(frames, axis=0).astype(np.float64)
    recovered = []
    for picture, (row, column) in zip(decoded, corners, strict=True):
        inside = slice(row, row + SQUARE), slice(column, column + SQUARE)
        peak = (picture[inside] - background[inside]).mean(-1).max()
        recovered.append(peak / (BRIGHTNESS - background[inside]).mean())
    assert np.mean(recovered) >= 0.6
    assert learner.evaluate()["held_out_psnr"] > 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_twenty_steps_equal_ten_resume_and_ten_bitwise(
    dtype: torch.dtype, square_store: EpisodeStore, tmp_path: Path
) -> None:
    whole = trained_for(20, tiny(), square_store, dtype, tmp_path / "whole")
    trained_for(10, tiny(), square_store, dtype, tmp_path / "halves")
    halves = trained_for(20, tiny(), square_store, dtype, tmp_path / "halves")
    assert tokenizer_fingerprint(halves.tokenizer) == tokenizer_fingerprint(whole.tokenizer)
    for one, other in zip(halves.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_seeds_differ(square_store: EpisodeStore) -> None:
    names = {tokenizer_fingerprint(TokenizerLearner(tiny(), square_store, seed=seed).tokenizer) for seed in (0, 0, 1)}
    assert len(names) == 2


def test_metrics_and_pictures(square_store: EpisodeStore) -> None:
    learner = TokenizerLearner(tiny(steps=2), square_store)
    assert set(learner.update()) == {"loss", "psnr", "learning_rate", "grad_norm"}
    assert {"held_out_psnr", "held_out_detail_psnr"} <= set(learner.update())  # the last step
    picture = learner.images(2)["reconstruction"]
    assert picture.shape == (2 * 2 * SIZE, 2 * 8 * SIZE, 3)
    assert picture.dtype == np.uint8
    original = square_store[2].frames[0]
    assert np.array_equal(picture[: 2 * SIZE : 2, : 2 * SIZE : 2], original)
    assert np.array_equal(picture[1 : 2 * SIZE : 2, 1 : 2 * SIZE : 2], original)


def test_the_average_follows_the_weights(square_store: EpisodeStore) -> None:
    learner = TokenizerLearner(tiny(), square_store)
    assert isinstance(learner.model, VitTokenizer)
    assert isinstance(learner.tokenizer, VitTokenizer)
    before = learner.model.embed.weight.detach().clone()
    learner.update()
    after = learner.model.embed.weight
    expected = before.lerp(after, 0.9)  # the first step's decay is 1 / 10
    torch.testing.assert_close(learner.tokenizer.embed.weight, expected)
    assert not any(parameter.requires_grad for parameter in learner.tokenizer.parameters())


def numbered(numbers: range) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Frames (len, 8, 8, 3) whose every pixel is the frame's number."""
    return np.broadcast_to(np.array(numbers, np.uint8)[:, None, None, None], (len(numbers), 8, 8, 3)).copy()


def test_the_pool_is_one_split_without_blank_terminal_frames(make_store: MakeStore) -> None:
    episodes = [
        make_episode(numbered(range(4)), terminated=True),
        make_episode(numbered(range(10, 13)), "held_out", terminated=True),
        make_episode(numbered(range(20, 22)), terminated=False),
    ]
    store = make_store(episodes, blank_terminal_frame=True)
    pool = FramePool(store, "train")
    assert pool.gather(np.arange(len(pool)))[:, 0, 0, 0].tolist() == [0, 1, 2, 20, 21]
    assert FramePool(store, "held_out").spread(3)[:, 0, 0, 0].tolist() == [10, 10, 11]
    drawn = pool.sample(2000, np.random.default_rng(0))[:, 0, 0, 0]
    counts = np.bincount(drawn, minlength=22)
    assert set(np.flatnonzero(counts)) == {0, 1, 2, 20, 21}
    assert counts.max() < 1.3 * counts[counts > 0].min()  # uniform over frames, not over episodes


def test_terminal_frames_with_a_picture_are_kept(make_store: MakeStore) -> None:
    store = make_store([make_episode(numbered(range(4)), terminated=True)])
    assert len(FramePool(store, "train")) == 4


def test_a_store_without_training_frames_is_refused(make_store: MakeStore) -> None:
    store = make_store([make_episode(square_frames(4, seed=0)[0], "held_out")])
    with pytest.raises(UserError, match="no training frames: collect"):
        TokenizerLearner(tiny(), store)


def test_pixels_have_nothing_to_train(square_store: EpisodeStore) -> None:
    with pytest.raises(UserError, match="'pixels' has nothing to train"):
        TokenizerLearner(tiny(kind="pixels"), square_store)
