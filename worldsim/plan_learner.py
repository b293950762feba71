"""Trains the network that foresees what plans lead to, on real episodes: `PlanLearner`, a `worldsim.training.Learner`.

Each moment of an episode is a plan that was carried out: the actions that came, and whether the episode ended at each
of them. An ending is so seen from as many moments before it as a plan has steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from worldsim.data.actions import action_feature_count, action_features
from worldsim.data.latents import LatentCache
from worldsim.data.store import EpisodeStore
from worldsim.optimization import adamw, set_learning_rate, warmup_cosine
from worldsim.plan_reader import PlanConfig, PlanReader
from worldsim.tokenizers.build import AnyTokenizer

GRADIENT_CLIP = 1.0
HELD_OUT_EVERY, HELD_OUT_MOMENTS, HELD_OUT_BATCH = 250, 4096, 256
DECODED_TOGETHER = 64  # frames


class PlanBatch(NamedTuple):
    """pictures, taken, planned: as `PlanReader.forward` reads them, with one plan each, the one that was carried out.
    ended: float (B, 1, H), whether each step ended the episode. weight: float (B, 1, H), 0 beyond the last step.
    """

    pictures: Tensor
    taken: Tensor
    planned: Tensor
    ended: Tensor
    weight: Tensor


class PlanLearner:
    """A `worldsim.training.Learner`; `reader` is the result."""

    def __init__(
        self,
        config: PlanConfig,
        store: EpisodeStore,
        latents: LatentCache,
        tokenizer: AnyTokenizer,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        """tokenizer: the one that made the latents; the reader sees frames as it draws them."""
        self.config, self.device = config, torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reader = PlanReader(config, store.spec.frame_shape, action_feature_count(store.spec)).to(self.device)
        self._train = Moments(config, store, latents, tokenizer, store.indices("train"))
        held_out = store.indices("held_out")
        self._held_out = Moments(config, store, latents, tokenizer, held_out) if len(held_out) else None
        self._random = np.random.default_rng(seed)
        self._optimizers = adamw(self.reader, config.learning_rate, config.weight_decay)
        rate = self._train.rate()
        for member in self.reader.members:
            nn.init.constant_(member.get_submodule("logit").get_parameter("bias"), float(np.log(rate / (1 - rate))))
        self.step = 0

    def update(self) -> dict[str, float]:
        """One optimizer step.

        Returns loss, learning_rate and grad_norm; now and then, and after the last, also held_out_loss and that of a
        constant, held_out_constant: cross-entropy in nats for each step of a plan.
        """
        learning_rate = self.config.learning_rate * warmup_cosine(
            self.step, self.config.warmup_steps, self.config.steps
        )
        set_learning_rate(self._optimizers, learning_rate)
        self.reader.zero_grad(set_to_none=True)
        self.reader.train()
        told = [self._backward(member) for member in self.reader.members]
        for optimizer in self._optimizers:
            optimizer.step()
        self.reader.eval()
        self.step += 1
        loss, norm = np.mean(told, axis=0).tolist()
        metrics = {"loss": loss, "learning_rate": learning_rate, "grad_norm": norm}
        if self.step % HELD_OUT_EVERY == 0 or self.step == self.config.steps:
            metrics |= self.evaluate()
        return metrics

    def _backward(self, member: nn.Module) -> tuple[float, float]:
        """Gradients of a member on a batch of its own; its loss and the gradients' norm."""
        chosen, weight = self._train.draw(self.config.batch_size, self.config.near_fraction, self._random)
        batch = self._train.read(chosen, weight, self.device)
        losses = F.binary_cross_entropy_with_logits(
            member(batch.pictures, batch.taken, batch.planned), batch.ended, batch.weight, reduction="sum"
        )
        loss = losses / batch.weight.sum()
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(member.parameters(), GRADIENT_CLIP)
        return float(loss.detach()), float(norm)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Cross-entropy on held-out moments, and that of a constant; nothing without such episodes."""
        if self._held_out is None:
            return {}
        count = len(self._held_out)
        moments = np.linspace(0, count - 1, min(count, HELD_OUT_MOMENTS)).astype(np.int64)
        loss, ended, there = 0.0, 0.0, 0.0
        for part in np.array_split(moments, -(-len(moments) // HELD_OUT_BATCH)):
            batch = self._held_out.read(part, np.ones(len(part), np.float32), self.device)
            logits = self.reader(batch.pictures, batch.taken, batch.planned)
            loss += float(F.binary_cross_entropy_with_logits(logits, batch.ended, batch.weight, reduction="sum"))
            ended += float((batch.ended * batch.weight).sum())
            there += float(batch.weight.sum())
        rate = torch.tensor(ended / there)
        return {"held_out_loss": loss / there, "held_out_constant": float(F.binary_cross_entropy(rate, rate))}

    def state_dict(self) -> dict[str, Any]:
        """Everything a bitwise resume needs, but for torch's own generator, which dropout draws from."""
        return {
            "step": self.step,
            "reader": self.reader.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "random": self._random.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.reader.load_state_dict(state["reader"])
        self.reader.eval()
        for optimizer, kept in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self._random.bit_generator.state = state["random"]
        self.step = int(state["step"])


class Moments:
    """All moments of some episodes at which an action was taken, with what came of it."""

    def __init__(
        self,
        config: PlanConfig,
        store: EpisodeStore,
        latents: LatentCache,
        tokenizer: AnyTokenizer,
        episodes: NDArray[np.int64],
    ) -> None:
        self._config, self._tokenizer = config, tokenizer
        records = [store.steps(int(i)) for i in episodes]
        self._lengths = [len(one) for one in records]
        self._latents = [latents[int(i)] for i in episodes]
        self._position = np.concatenate([np.arange(length) for length in self._lengths])
        self._left = np.concatenate([np.arange(length, 0, -1) for length in self._lengths])  # steps, this one included
        terminated = [bool(one["terminated"][-1]) for one in records]
        self._ends = np.repeat(terminated, self._lengths)
        actions = torch.from_numpy(np.ascontiguousarray(np.concatenate([one["action"] for one in records])))
        self._actions = action_features(store.spec, actions)  # (S, A)
        near = self._ends & (self._left <= config.horizon)
        self._near, self._far = np.flatnonzero(near), np.flatnonzero(~near)

    def __len__(self) -> int:
        return len(self._position)

    @cached_property
    def _frames(self) -> Tensor:
        """The moments' frames as the tokenizer draws them, uint8 (S, H, W, C): made when first asked for."""
        weights = next(self._tokenizer.parameters(), None)
        device = torch.device("cpu") if weights is None else weights.device
        drawn = []
        with torch.inference_mode(), tqdm(total=len(self), desc="decode", unit="frame", unit_scale=True) as bar:
            for length, latents in zip(self._lengths, self._latents, strict=True):
                for part in torch.from_numpy(latents[:length].astype(np.float32)).split(DECODED_TOGETHER):
                    drawn.append(self._tokenizer.decode(part.to(device)).cpu())
                bar.update(length)
        return torch.cat(drawn)

    def rate(self) -> float:
        """Endings a step, inside (0, 1)."""
        return float(np.clip((self._ends & (self._left == 1)).mean(), 1e-6, 1 - 1e-6))

    def draw(
        self, count: int, near_fraction: float, random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Moments (count,), and the weights that undo the taste for those near endings. All alike without any."""
        near = round(count * near_fraction) if len(self._near) and len(self._far) else 0
        if not near:
            return random.integers(len(self), size=count), np.ones(count, np.float32)
        parts = [(of, drawn) for of, drawn in ((self._near, near), (self._far, count - near)) if drawn]
        chosen = np.concatenate([of[random.integers(len(of), size=drawn)] for of, drawn in parts])
        weights = [np.full(drawn, len(of) / len(self) * count / drawn, np.float32) for of, drawn in parts]
        return chosen, np.concatenate(weights)

    def read(self, chosen: NDArray[np.int64], weight: NDArray[np.float32], device: torch.device) -> PlanBatch:
        """Some moments (B,), each with its weight (B,)."""
        position, left = self._position[chosen][:, None], self._left[chosen][:, None]
        ages = np.array(self._config.ages)
        pictures = self._frames[torch.from_numpy(chosen[:, None] - np.minimum(ages, position))]
        back = np.arange(self._config.actions_before, 0, -1)
        ahead = np.arange(self._config.horizon)
        there = ahead < left
        ended = self._ends[chosen][:, None] & (ahead == left - 1)
        batch = PlanBatch(
            pictures,
            self._actions_at(chosen[:, None] - back, back <= position),
            self._actions_at(chosen[:, None] + ahead, there)[:, None],
            torch.from_numpy(ended.astype(np.float32))[:, None],
            torch.from_numpy(there * weight[:, None]).float()[:, None],
        )
        return PlanBatch(*(part.to(device) for part in batch))

    def _actions_at(self, steps: NDArray[np.int64], there: NDArray[np.bool_]) -> Tensor:
        """Features of the actions of some steps (B, K), (B, K, A); 0 where there is none."""
        taken = self._actions[torch.from_numpy(np.clip(steps, 0, len(self) - 1))]
        return taken * torch.from_numpy(there)[..., None]
