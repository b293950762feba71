"""Give a world model another decoder: its encoder, dynamics and policy stay, bit for bit.

    python -m benchmarks.new_decoder take_cover --episodes runs/t1/episodes --out runs/fast --decoder latents

The new decoder learns to draw the real frames of the store from the latents of the frozen encoder, with the loss and
the noise of the tokenizer's own training. It is what `tokenizer.decoder=latents` trains together with the encoder, for
a model that exists. Prints PSNR, of all pixels and of those that stand out, of both decoders on held-out frames.
A quarter of an hour on one core; it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldsim.data.store import EpisodeStore
from worldsim.descent import Descent
from worldsim.device import autocast
from worldsim.memory import keep_freed_memory
from worldsim.model_folder import find_model, save_model
from worldsim.optimization import adamw, warmup_cosine
from worldsim.tokenizers.frames import FramePool
from worldsim.tokenizers.loss import psnr, reconstruction_loss, reconstruction_psnr
from worldsim.tokenizers.pixel_range import to_model_range
from worldsim.tokenizers.vit import VitTokenizer
from worldsim.training import fit
from worldsim.workflow.showing import load_here

ENCODER = ("embed", "encoder", "to_latent", "mask_token")  # first words of the encoder's parameter names
HELD_OUT_FRAMES = 512


class DecoderLearner:
    """A `worldsim.training.Learner` of the decoder alone; `tokenizer` is the result."""

    def __init__(
        self, teacher: VitTokenizer, decoder: str, store: EpisodeStore, steps: int, dtype: torch.dtype
    ) -> None:
        self._steps, self._dtype = steps, dtype
        self.config = replace(teacher.config, decoder=decoder)
        self.model = VitTokenizer(self.config, teacher.frame_shape)
        shared = {name: tensor.float() for name, tensor in teacher.state_dict().items() if name.startswith(ENCODER)}
        self.model.load_state_dict(shared, strict=False)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.startswith(ENCODER))
        self.tokenizer = copy.deepcopy(self.model).requires_grad_(False).eval()
        pool = FramePool(store, "train")
        self._frames = pool.gather(np.arange(len(pool)))
        self._latents = encoded(self.model, self._frames, dtype)
        (self._optimizer,) = adamw(self.model, self.config.learning_rate, self.config.weight_decay)
        self._generator = torch.Generator().manual_seed(0)
        self._descent = Descent(
            self._loss,
            self.model,
            self.tokenizer,
            [self._optimizer],
            gradient_clip=self.config.gradient_clip,
            ema_decay=self.config.ema_decay,
            generator=self._generator,
            recordable=False,
        )
        self.step = 0

    def update(self) -> dict[str, float]:
        """One optimizer step on `batch_frames` frames."""
        learning_rate = self.config.learning_rate * warmup_cosine(self.step, self.config.warmup_steps, self._steps)
        index = torch.randint(len(self._frames), (self.config.batch_frames,), generator=self._generator)
        frames = to_model_range(torch.from_numpy(self._frames[index.numpy()]))
        latents = self._latents[index]
        self.step += 1
        told = self._descent.step([frames, latents], learning_rate, self.step)
        return {
            "loss": float(told["loss"]),
            "psnr": psnr(float(told["squared_error"])),
            "learning_rate": learning_rate,
        }

    def _loss(self, frames: torch.Tensor, latents: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        noise = torch.randn(latents.shape, generator=self._generator)
        with autocast(frames.device, self._dtype):
            drawn = self.model.decode_range(latents + self.config.latent_noise * noise)
        result = reconstruction_loss(drawn, frames, self.config.contrast_weight)
        return result.loss, {"squared_error": result.squared_error}

    def state_dict(self) -> dict[str, Any]:
        """Everything a resume needs."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.tokenizer.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.tokenizer.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self.step = int(state["step"])


def main() -> None:
    """Train, compare, save."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    model = load_here(find_model(arguments.model))
    teacher = model.tokenizer
    if not isinstance(teacher, VitTokenizer):
        raise SystemExit(f"{arguments.model}: its tokenizer is {model.tokenizer.config.kind}, expected vit")
    store = EpisodeStore.open(arguments.episodes)
    learner = DecoderLearner(teacher, arguments.decoder, store, arguments.steps, model.dtype)
    fit(learner, steps=arguments.steps, folder=arguments.out / "training", name="decoder")
    held_out = torch.from_numpy(FramePool(store, "held_out").spread(HELD_OUT_FRAMES))
    for name, tokenizer in ((f"{teacher.config.decoder} (before)", teacher), (arguments.decoder, learner.tokenizer)):
        rebuilt = tokenizer.decode(tokenizer.encode(held_out))
        whole, detail = reconstruction_psnr(to_model_range(rebuilt), to_model_range(held_out))
        print(f"{name}: {whole:.2f} dB, {detail or math.nan:.2f} dB where pixels stand out")
    model.tokenizer = learner.tokenizer
    save_model(model, arguments.out / "world_model")
    print(arguments.out / "world_model")


@torch.no_grad()
def encoded(tokenizer: VitTokenizer, frames: np.ndarray[Any, np.dtype[np.uint8]], dtype: torch.dtype) -> Tensor:
    """Raw latents (F, N, D) of uint8 frames (F, H, W, C)."""
    latents = torch.empty(len(frames), *tokenizer.latent_shape)
    for start in range(0, len(frames), 256):
        with autocast(torch.device("cpu"), dtype):
            latents[start : start + 256] = tokenizer.encode(torch.from_numpy(frames[start : start + 256]))
    return latents


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a released model's name, a model folder, or a run folder")
    parser.add_argument("--episodes", type=Path, required=True, help="a store of real episodes")
    parser.add_argument("--out", type=Path, required=True, help="folder for the training and the world model")
    parser.add_argument("--decoder", choices=("latents", "patches"), default="latents")
    parser.add_argument("--steps", type=int, default=6000, help="default: 6000")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: 1)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
