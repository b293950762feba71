"""Training of the dynamics on clips of cached latents."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from worldsim import distributed
from worldsim.data.actions import action_feature_count, action_features
from worldsim.data.clips import Clip, ClipSampler
from worldsim.data.latents import LatentCache
from worldsim.data.store import EpisodeStore
from worldsim.descent import Descent
from worldsim.device import autocast
from worldsim.dynamics.build import build_dynamics
from worldsim.dynamics.calibration import fit_logits
from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.dit_dynamics import DiTDynamics
from worldsim.dynamics.protocol import Dynamics, LatentClip
from worldsim.optimization import build_optimizers, warmup_cosine

GRADIENT_CLIP = 1.0
HELD_OUT_EVERY = 500
HELD_OUT_CLIPS = 64
CALIBRATION_CLIPS, CALIBRATION_BATCHES = 64, 16
SCALE_EPISODES = 500  # that the latents' scale is measured on


class DynamicsLearner:
    """A `worldsim.training.Learner`. `average` is the result: the running average (EMA) of the trained weights."""

    def __init__(
        self,
        config: DynamicsConfig,
        store: EpisodeStore,
        latents: LatentCache,
        grid: tuple[int, int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        begin_with: Dynamics | None = None,
        codes: torch.Tensor | None = None,
    ) -> None:
        """`begin_with` (an earlier round's result) gives weights and latent scale; else both start afresh.

        grid: rows and columns in which the latent tokens stand. codes: (K, D), of a tokenizer that knows no
        other tokens.
        """
        self.config, self.spec = config, store.spec
        self.device, self.dtype = torch.device(device), dtype
        self.step = 0
        self._sampler = ClipSampler(
            store, latents, config.clip_frames, "train", ending_fraction=config.ending_fraction, seed=seed
        )
        held_out_split = "held_out" if len(store.indices("held_out")) else "train"
        self._held_out_sampler = ClipSampler(
            store, latents, config.clip_frames, held_out_split, ending_fraction=0.0, seed=seed
        )
        self._held_out = self._held_out_sampler.sample(HELD_OUT_CLIPS)
        self._generator = torch.Generator().manual_seed(seed)
        tokens, channels = latents[0].shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            actions = action_feature_count(self.spec)
            self.model = build_dynamics(config.undistilled(), tokens, channels, grid, actions, codes)
        chosen = np.random.default_rng(seed).permutation(store.indices("train"))[:SCALE_EPISODES]
        some = [torch.from_numpy(latents[int(i)].astype(np.float32)) for i in chosen]
        if begin_with is None:
            self.model.scale.fit(some, config.context_noise)
        else:
            self.model.load_state_dict(begin_with.state_dict())
            self.model.scale.widen(some)
            if codes is not None:
                self.model.follow_codes(codes)
        self.model.to(self.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        loss = distributed.data_parallel(self.model, self.model.loss)
        self._optimizers = build_optimizers(
            config.optimizer, self.model, config.learning_rate, config.weight_decay, self.dtype
        )
        self._descent = Descent(
            partial(self._loss_of, loss),
            self.model,
            self.average,
            self._optimizers,
            gradient_clip=GRADIENT_CLIP,
            ema_decay=config.ema_decay,
            generator=self._generator,
            recordable=isinstance(self.model, DiTDynamics),
        )

    def update(self) -> dict[str, float]:
        """One optimizer step on `batch_clips` clips.

        Returns loss and its parts (latent, reward, termination, and what belongs to the kind), learning_rate,
        grad_norm; every HELD_OUT_EVERY steps and after the last also the held-out losses and action_shuffle_ratio:
        held-out latent loss with shuffled actions over that with the true ones; after the last also termination_scale
        and termination_shift.
        """
        learning_rate = self.config.learning_rate * warmup_cosine(
            self.step, self.config.warmup_steps, self.config.steps
        )
        clip = self.latent_clip(self._sampler.sample(self.config.batch_clips, distributed.rows()))
        self.step += 1
        descended = self._descent.step(list(vars(clip).values()), learning_rate, self.step)
        norm = float(descended.pop("grad_norm"))
        metrics = distributed.means(descended) | {"learning_rate": learning_rate, "grad_norm": norm}
        if self.step == self.config.steps:
            metrics |= self._calibrate_termination()
        if self.step % HELD_OUT_EVERY == 0 or self.step == self.config.steps:
            metrics |= self.evaluate()
        return metrics

    def _loss_of(self, loss: distributed.Loss, *clip: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with autocast(self.device, self.dtype):
            return loss(LatentClip(*clip), generator=self._descent.noise)

    def _calibrate_termination(self) -> dict[str, float]:
        """Scale and shift the result's termination logits so that held-out endings are as likely as they are.

        A data set holds a few hundred endings, and a training that is long enough for the frames knows them by heart.
        """
        generator = torch.Generator().manual_seed(0)
        logits, happened, weight = [], [], []
        for _ in range(CALIBRATION_BATCHES):
            clip = self.latent_clip(self._held_out_sampler.sample(CALIBRATION_CLIPS))
            with autocast(self.device, self.dtype):
                logits.append(self.average.termination_logits(clip, generator=generator).flatten())
            happened.append(clip.terminated[:, 1:].flatten())
            weight.append(clip.head_weight[:, 1:].flatten())
        scale, shift = fit_logits(torch.cat(logits).cpu(), torch.cat(happened).cpu(), torch.cat(weight).cpu())
        self.average.head.rescale_termination(scale, shift)
        return {"termination_scale": scale, "termination_shift": shift}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Losses of the averaged weights on fixed held-out clips, and the action-shuffle ratio.

        Where frames are codes, also held_out_bits_per_dimension: bits of a frame's codes over its H W C numbers.
        """
        clip = self.latent_clip(self._held_out)
        order = torch.randperm(HELD_OUT_CLIPS, generator=torch.Generator().manual_seed(0))
        shuffled = replace(clip, actions=clip.actions[order])
        results: list[dict[str, torch.Tensor]] = []
        for given in (clip, shuffled):
            with autocast(self.device, self.dtype):
                _, parts = self.average.loss(given, generator=torch.Generator().manual_seed(0))
            results.append(parts)
        metrics = {f"held_out_{name}": float(value) for name, value in results[0].items() if name != "change"}
        metrics["action_shuffle_ratio"] = float(results[1]["latent"] / results[0]["latent"])
        if "code_bits" in results[0]:
            metrics["held_out_bits_per_dimension"] = metrics["held_out_code_bits"] / math.prod(self.spec.frame_shape)
        return metrics

    def latent_clip(self, clip: Clip) -> LatentClip:
        """The clip in unit-scale latents and action features, on the learner's device."""
        moved = clip.to(self.device)
        latents = self.model.scale.to_unit(moved.latents)
        return LatentClip(
            latents=latents * moved.frame_valid[..., None, None],
            actions=action_features(self.spec, moved.actions) * moved.has_action[..., None],
            has_action=moved.has_action,
            rewards=moved.rewards,
            terminated=moved.terminated,
            present=moved.present,
            frame_valid=moved.frame_valid,
            head_weight=moved.head_weight,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything a bitwise resume needs."""
        return {
            "step": self.step,
            "model": distributed.whole_state(self.model.state_dict()),
            "average": self.average.state_dict(),
            "optimizers": [distributed.whole_state(optimizer.state_dict()) for optimizer in self._optimizers],
            "sampler": self._sampler.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        distributed.load_model(self.model, state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            distributed.load_optimizer(optimizer, saved)
        self._sampler.load_state_dict(state["sampler"])
        self._generator.set_state(state["generator"].cpu())
        self.step = int(state["step"])
