from __future__ import annotations

import numpy as np
import pytest
import torch

from worldsim.errors import UserError
from worldsim.evaluation import frechet
from worldsim.evaluation.frechet import as_input, encoder_is_installed, frechet_distance, load_encoder
from worldsim.evaluation.vmaf import has_vmaf, vmaf_by_frame


def test_frechet_distance_by_its_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(4000, 3, generator=generator)
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(rows, rows + 2) == pytest.approx(3 * 2**2, abs=1e-6)
    # Of Gaussians with spreads 1 and 3: (3 - 1)^2 in each of three directions.
    assert frechet_distance(rows, 3 * torch.randn(4000, 3, generator=generator)) == pytest.approx(12, rel=0.1)
    # By the definition, where covariances are full.
    second = rows @ torch.tensor([[1.0, 0.5, 0], [0, 2, 0.3], [0, 0, 1]]) + 1
    c1, c2 = (torch.cov(part.double().T) for part in (rows, second))
    cross = torch.linalg.eigvals(c1 @ c2).real.sqrt().sum()
    shift = (rows.double().mean(0) - second.double().mean(0)).square().sum()
    assert frechet_distance(rows, second) == pytest.approx(float(shift + c1.trace() + c2.trace() - 2 * cross))


def test_frames_come_in_as_the_network_knows_them() -> None:
    frames = torch.full((2, 8, 24, 1), 255, dtype=torch.uint8)
    assert as_input(frames).shape == (2, 3, 224, 224)
    assert torch.allclose(as_input(frames), torch.ones(()))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frechet, "PACKAGES", ("no_such_encoder",))
    with pytest.raises(UserError, match=r"no_such_encoder.*worldsim-rl\[metrics\]"):
        load_encoder()


@pytest.mark.skipif(not encoder_is_installed(), reason="the extra metrics is not installed")
def test_blurred_frames_are_far_and_other_frames_of_the_same_kind_near() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (24, 32, 32, 3), dtype=torch.uint8, generator=generator)
    flat = frames.float().mean((1, 2), keepdim=True).to(torch.uint8).expand_as(frames)
    encode = load_encoder()
    features = encode(frames)
    assert features.shape == (24, 1280)
    near = frechet_distance(features[:12], features[12:])
    assert frechet_distance(features[:12], encode(flat[12:])) > 3 * near


@pytest.mark.skipif(not has_vmaf(), reason="this ffmpeg has no libvmaf")
def test_vmaf_prefers_the_clip_itself_and_knows_each_frame() -> None:
    x = np.arange(48)
    clip = np.stack([(128 + 100 * np.sin((x[None] + x[:24, None] + 2 * t) / 5)) for t in range(5)])
    clip = np.repeat(clip[..., None], 3, axis=-1).astype(np.uint8)
    spoiled = clip.copy()
    spoiled[3] = spoiled[3].mean(dtype=np.float64)
    itself, other = vmaf_by_frame(clip, clip), vmaf_by_frame(spoiled, clip)
    assert itself.shape == other.shape == (5,)
    assert itself.min() > 90
    assert other[3] < 40
    assert other[1] == pytest.approx(itself[1], abs=1)
