from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from worldsim.tokenizers.loss import local_contrast, psnr, reconstruction_loss


def test_local_contrast_is_the_formula() -> None:
    frames = torch.rand(2, 12, 20, 3) * 2 - 1
    padded = F.pad(frames.movedim(-1, 1), (4, 4, 4, 4), mode="replicate")
    blurred = F.avg_pool2d(padded, 9, stride=1).movedim(1, -1)
    expected = (2 * (frames - blurred).abs().amax(-1)).clamp(0, 1)
    torch.testing.assert_close(local_contrast(frames), expected)


def test_a_flat_frame_has_no_contrast_up_to_its_edges() -> None:
    assert local_contrast(torch.full((1, 16, 16, 3), 0.7)).abs().max() < 1e-5


def test_a_flat_frame_is_scored_by_plain_l1_and_l2() -> None:
    frames = torch.full((1, 16, 16, 3), -0.5)
    result = reconstruction_loss(frames + 0.1, frames, contrast_weight=12.0)
    assert result.loss.item() == pytest.approx(0.1 + 2 * 0.01, rel=1e-3)
    assert result.squared_error.item() == pytest.approx(0.01, rel=1e-3)


def test_losing_a_small_object_costs_far_more_than_the_same_error_on_a_wall() -> None:
    frames = torch.full((1, 32, 32, 3), -0.5)
    frames[:, 10:13, 10:13] = 1.0
    erased = frames.clone()
    erased[:, 10:13, 10:13] = -0.5
    blemished = frames.clone()
    blemished[:, 24:27, 24:27] = 1.0
    lost = reconstruction_loss(erased, frames, 12.0).loss
    wrong = reconstruction_loss(blemished, frames, 12.0).loss
    assert lost / wrong == pytest.approx(13.0, rel=0.01)
    assert reconstruction_loss(erased, frames, 0.0).loss == reconstruction_loss(blemished, frames, 0.0).loss


def test_psnr_is_in_decibels_of_the_model_range() -> None:
    assert psnr(4.0) == pytest.approx(0.0)
    assert psnr(4.0e-3) == pytest.approx(30.0)
    assert math.isfinite(psnr(0.0))
