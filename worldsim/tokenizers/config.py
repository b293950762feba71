"""The tokenizer's settings."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TokenizerConfig:
    """What the tokenizer is and how it is trained.

    kind "pixels" has nothing to train and uses `patch` alone. kind "convolutional" makes one token of the whole frame
    and uses `channels`, `contrast_weight` and what stands from `steps` on. kind "vit" uses all fields but those of the
    codebook. kind "vq" uses all but `merge`, `mask_max` and `latent_noise`; its patch is a power of two.
    """

    kind: str = "vit"  # trained autoencoder; "convolutional": variational; "vq": quantised; "pixels": patches as are
    patch: int = 8  # pixels per side of a patch
    merge: list[int] = field(default_factory=lambda: [2, 2])  # [rows, cols] of patches that make one latent token
    channels: int = 32  # D, numbers per latent token
    width: int = 192  # M of encoder and decoder
    encoder_layers: int = 3  # transformer layers over patches
    decoder_layers: int = 4  # transformer layers over what `decoder` says
    decoder: str = "patches"  # what its transformer works on; "latents": cheap where a token holds many patches
    heads: int = 4  # of attention
    mask_max: float = 0.4  # each image masks a share p ~ U(0, mask_max) of its patches in training
    latent_noise: float = 0.1  # std of the noise on latents in training; the dynamics errs, and decoding must bear it
    codes: int = 512  # size of the codebook
    commitment: float = 0.25  # loss weight of the encoder's distance to the codes
    codebook_decay: float = 0.99  # of the running means that codes are
    contrast_weight: float = 12.0  # loss weight of a pixel is 1 + contrast_weight * local contrast
    steps: int = 3000
    refine_steps: int = 0  # more of them in each later round, on all episodes; 0: frozen after round 0
    batch_frames: int = 64  # frames in each training step
    learning_rate: float = 1e-3  # peak; cosine decay to a tenth
    warmup_steps: int = 100  # of the learning rate
    weight_decay: float = 0.01  # of matrices only
    gradient_clip: float = 1.0  # largest norm of a step's gradient
    ema_decay: float = 0.999  # of the weights that become the tokenizer
