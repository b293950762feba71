"""Trains a tokenizer on single frames of an episode store."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worldsim import distributed
from worldsim.codebook import perplexity
from worldsim.data.store import EpisodeStore
from worldsim.descent import Descent
from worldsim.device import autocast
from worldsim.errors import UserError
from worldsim.optimization import adamw, warmup_cosine
from worldsim.tokenizers.build import build_tokenizer
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.convolutional import ConvolutionalTokenizer, variational_loss
from worldsim.tokenizers.frames import FramePool
from worldsim.tokenizers.loss import psnr, reconstruction_loss, reconstruction_psnr
from worldsim.tokenizers.pixel_range import to_model_range, to_uint8
from worldsim.tokenizers.vector_quantised import VqTokenizer, quantise
from worldsim.tokenizers.vit import VitTokenizer

Trainable = VitTokenizer | ConvolutionalTokenizer | VqTokenizer
EVALUATE_EVERY = 200
EVALUATION_FRAMES = 64
PICTURE_FRAMES = 8
PICTURE_SCALE = 2


class TokenizerLearner:
    """A `worldsim.training.Learner`. `tokenizer` is the result: the running average (EMA) of the trained weights."""

    def __init__(
        self,
        config: TokenizerConfig,
        store: EpisodeStore,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        begin_with: nn.Module | None = None,
    ) -> None:
        """Starts from the weights of `begin_with`, or ones drawn with `seed`; bfloat16 computes under autocast.

        Raises UserError for a kind without weights and for a store without training frames.
        """
        if config.kind not in LOSSES:
            raise UserError(f"tokenizer.kind={config.kind!r} has nothing to train: choose one of {', '.join(LOSSES)}")
        self.config = config
        self.device, self.dtype = torch.device(device), dtype
        self.step = 0
        self._numpy = np.random.default_rng(np.random.SeedSequence([seed, 0]))
        self._masks = torch.Generator().manual_seed(seed)
        self._pool = FramePool(store, "train")
        if not len(self._pool):
            raise UserError("the episode store has no training frames: collect episodes first")
        held_out = FramePool(store, "held_out")
        evaluation_pool = held_out if len(held_out) else self._pool  # a tiny store may have nothing held out
        self._held_out = self._to_device(evaluation_pool.spread(EVALUATION_FRAMES))

        self.model = cast(Trainable, build_tokenizer(config, store.spec.frame_shape))
        if begin_with is None:
            self.model.init_weights(torch.Generator().manual_seed(seed))
        else:
            self.model.load_state_dict(begin_with.state_dict())
        self.model.to(self.device)
        self.tokenizer = copy.deepcopy(self.model).requires_grad_(False).eval()
        loss = distributed.data_parallel(self.model, partial(LOSSES[config.kind], self))
        (self._optimizer,) = adamw(self.model, config.learning_rate, config.weight_decay)
        self._descent = Descent(
            loss,
            self.model,
            self.tokenizer,
            [self._optimizer],
            gradient_clip=config.gradient_clip,
            ema_decay=config.ema_decay,
            generator=self._masks,
            recordable=config.kind == "vit",
        )

    def update(self) -> dict[str, float]:
        """One optimizer step on `batch_frames` random training frames.

        Returns loss, psnr (dB, of the training pass, masked or sampled), learning_rate, grad_norm and what belongs to
        the kind; every EVALUATE_EVERY steps also held_out_psnr and held_out_detail_psnr (by the averaged weights).
        """
        learning_rate = self.config.learning_rate * warmup_cosine(
            self.step, self.config.warmup_steps, self.config.steps
        )
        drawn = self._pool.sample(self.config.batch_frames, self._numpy, distributed.rows())
        self.step += 1
        descended = self._descent.step([to_model_range(self._to_device(drawn))], learning_rate, self.step)
        norm = float(descended.pop("grad_norm"))
        means = distributed.means(descended)
        metrics = {
            "loss": means.pop("loss"),
            "psnr": psnr(means.pop("squared_error")),
            **means,
            "learning_rate": learning_rate,
            "grad_norm": norm,
        }
        if self.step % EVALUATE_EVERY == 0 or self.step == self.config.steps:
            metrics |= self.evaluate()
        return metrics

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """PSNR in dB over fixed held-out frames: of all pixels, and of pixels that stand out (small objects, edges)."""
        frames = to_model_range(self._held_out)
        whole, detail = reconstruction_psnr(to_model_range(self._reconstruct(self._held_out)), frames)
        return {"held_out_psnr": whole} | ({} if detail is None else {"held_out_detail_psnr": detail})

    def images(self, step: int = 0) -> dict[str, NDArray[np.uint8]]:
        """{"reconstruction": uint8 (H', W', C)}: held-out originals above their reconstructions, enlarged."""
        originals = self._held_out[:: EVALUATION_FRAMES // PICTURE_FRAMES][:PICTURE_FRAMES]
        rows = torch.stack([originals, self._reconstruct(originals)])  # (2, B, H, W, C)
        grid = rows.transpose(1, 2).flatten(2, 3).flatten(0, 1)  # (2 * H, B * W, C)
        large = grid.repeat_interleave(PICTURE_SCALE, 0).repeat_interleave(PICTURE_SCALE, 1)
        return {"reconstruction": large.cpu().numpy()}

    def state_dict(self) -> dict[str, Any]:
        """Everything a bitwise resume needs; only tensors and plain Python values."""
        return {
            "step": self.step,
            "model": distributed.whole_state(self.model.state_dict()),
            "ema": self.tokenizer.state_dict(),
            "optimizer": distributed.whole_state(self._optimizer.state_dict()),
            "numpy": self._numpy.bit_generator.state,
            "masks": self._masks.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`. Raises KeyError, RuntimeError or ValueError when the state does not fit."""
        distributed.load_model(self.model, state["model"])
        self.tokenizer.load_state_dict(state["ema"])
        distributed.load_optimizer(self._optimizer, state["optimizer"])
        self._numpy.bit_generator.state = state["numpy"]
        self._masks.set_state(state["masks"].cpu())
        self.step = int(state["step"])

    def _masked_loss(self, frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the ViT on frames (B, H, W, C) in [-1, 1], with masked patches and noise on the latents."""
        model = cast(VitTokenizer, self.model)
        mask = model.draw_mask(len(frames), self._descent.noise)
        with autocast(self.device, self.dtype):
            latents = model.encode_range(frames, mask)
            noise = torch.randn(latents.shape, generator=self._descent.noise, device=latents.device)
            reconstruction = model.decode_range(latents + self.config.latent_noise * noise)
        result = reconstruction_loss(reconstruction, frames, self.config.contrast_weight)
        return result.loss, {"squared_error": result.squared_error}

    def _variational_loss(self, frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the convolutional autoencoder on frames (B, H, W, C) in [-1, 1], with latents drawn from the posterior."""
        model = cast(ConvolutionalTokenizer, self.model)
        with autocast(self.device, self.dtype):
            posterior = model.posterior(frames)
            reconstruction = model.decode_range(posterior.sample(self._descent.noise))
        result = variational_loss(reconstruction, frames, posterior, self.config.contrast_weight)
        return result.loss, {"squared_error": result.squared_error, "divergence": result.divergence}

    def _quantised_loss(self, frames: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the vector-quantised autoencoder on frames (B, H, W, C) in [-1, 1]; its codebook follows the batch."""
        model, config = cast(VqTokenizer, self.model), self.config
        with autocast(self.device, self.dtype):
            vectors = model.vectors(frames)
            quantised = quantise(vectors, model.codebook)
            reconstruction = model.decode_range(quantised.codes)
        # numpy's numbers are the same in all processes; torch's would be drawn for rows here
        heirs = self._numpy.integers(0, config.batch_frames * model.latent_shape[0], size=config.codes)
        counts = model.codebook.update(
            vectors.detach(), quantised.indices, config.codebook_decay, torch.from_numpy(heirs)
        )
        result = reconstruction_loss(reconstruction, frames, config.contrast_weight)
        parts = {
            "squared_error": result.squared_error,
            "commitment": quantised.commitment.detach(),
            "codes_in_use": perplexity(counts),
        }
        return result.loss + config.commitment * quantised.commitment, parts

    @torch.no_grad()
    def _reconstruct(self, frames: Tensor) -> Tensor:
        with autocast(self.device, self.dtype):
            return to_uint8(self.tokenizer(to_model_range(frames)))

    def _to_device(self, frames: NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(frames).to(self.device, non_blocking=True)


LOSSES: dict[str, Callable[[TokenizerLearner, Tensor], tuple[Tensor, dict[str, Tensor]]]] = {
    "vit": TokenizerLearner._masked_loss,
    "convolutional": TokenizerLearner._variational_loss,
    "vq": TokenizerLearner._quantised_loss,
}
