from __future__ import annotations

import math

import pytest
import torch

from worldsim.evaluation.image_quality import MAX_PSNR, moving_error_by_frame, psnr_by_frame, ssim_by_frame


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_each_frame_by_hand() -> None:
    black = torch.zeros(3, 4, 4, 3, dtype=torch.uint8)
    frames = torch.stack([black[0], black[0] + 1, black[0] + 255])
    assert psnr_by_frame(frames, black).tolist() == pytest.approx([MAX_PSNR, 20 * math.log10(255), 0], abs=1e-4)


def test_ssim_of_equal_frames_is_one_and_of_noise_near_nothing() -> None:
    frames = noise(4, 32, 24, 3)
    assert ssim_by_frame(frames, frames).tolist() == pytest.approx([1] * 4, abs=1e-5)
    assert ssim_by_frame(frames, noise(4, 32, 24, 3, seed=1)).abs().max() < 0.1


def test_ssim_of_flat_frames_by_its_formula() -> None:
    # No variance: what is left is the comparison of the means.
    dark, light = 51, 204
    frames = torch.full((1, 16, 16, 1), dark, dtype=torch.uint8)
    truth = torch.full((1, 16, 16, 1), light, dtype=torch.uint8)
    expected = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    assert float(ssim_by_frame(frames, truth)) == pytest.approx(expected, abs=1e-3)


def test_ssim_takes_frames_smaller_than_its_window() -> None:
    frames = noise(2, 8, 40, 3)
    assert ssim_by_frame(frames, frames).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_error_counts_only_where_reality_moves() -> None:
    before = torch.zeros(2, 4, 4, 1, dtype=torch.uint8)
    truth, frames = before.clone(), before.clone()
    truth[0, 0, 0], truth[0, 3, 3] = 100, 5  # the second change is below the threshold
    frames[0, 0, 0], frames[0, 1, 1] = 70, 255  # wrong where it moves by 30, and anywhere else, which is not asked
    error = moving_error_by_frame(frames, truth, before)
    assert error[0] == 30
    assert error[1].isnan()  # nothing moved
