"""Trains the network that foresees what plans lead to, on real episodes: `PlanLearner`, a `worldsim.training.Learner`.

Each moment of an episode is a plan that was carried out: the actions that came, and whether the episode ended at each
of them, and in the steps afterwards that the reader is to foresee. An ending is so seen from as many moments before it.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from worldsim.data.actions import action_feature_count, action_features
from worldsim.data.latents import LatentCache
from worldsim.data.store import EpisodeStore
from worldsim.device import autocast
from worldsim.optimization import adamw
from worldsim.plan_reader import PlanConfig, PlanMember, PlanReader
from worldsim.reader_members import MembersLearner, draw_more_of, logit_of_share
from worldsim.tokenizers.build import AnyTokenizer

HELD_OUT_MOMENTS, HELD_OUT_BATCH = 4096, 256
DECODED_TOGETHER = 64  # frames
AFTERWARDS_FRACTION = 0.5  # of the drawn moments that no ending within the plan follows


class PlanBatch(NamedTuple):
    """pictures, taken, planned: as `PlanReader.forward` reads them, with one plan each, the one that was carried out.
    ended: float (B, 1, H + afterwards), whether each step ended the episode. weight: the same shape, 0 beyond the last
    step.
    """

    pictures: Tensor
    taken: Tensor
    planned: Tensor
    ended: Tensor
    weight: Tensor


class PlanLearner(MembersLearner):
    """A `worldsim.training.Learner`; `reader` is the result."""

    def __init__(
        self,
        config: PlanConfig,
        store: EpisodeStore,
        latents: LatentCache,
        tokenizer: AnyTokenizer,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        """tokenizer: the one that made the latents; the reader sees frames as it draws them. dtype: of the products in
        training; weights stay fp32.
        """
        self.config, self.device, self.dtype = config, torch.device(device), dtype
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reader = PlanReader(config, store.spec.frame_shape, action_feature_count(store.spec)).to(self.device)
        self._train = Moments(config, store, latents, tokenizer, store.indices("train"))
        held_out = store.indices("held_out")
        self._held_out = Moments(config, store, latents, tokenizer, held_out) if len(held_out) else None
        optimizers = adamw(self.reader, config.learning_rate, config.weight_decay)
        super().__init__(config, self.reader, optimizers, np.random.default_rng(seed))
        for member in cast(list[PlanMember], list(self.reader.members)):
            for head in (member.within, member.after):
                if head is not None:
                    nn.init.constant_(head.logit.bias, logit_of_share(self._train.ended()))

    def loss(self, member: nn.Module) -> Tensor:
        """Cross-entropy of a step on moments of which those near endings are more than their share."""
        chosen, weight = self._train.draw(self.config.batch_size, self.config.near_fraction, self._random)
        batch = self._train.read(chosen, weight, self.device)
        with autocast(self.device, self.dtype):
            logits = member(batch.pictures, batch.taken, batch.planned)
        losses = F.binary_cross_entropy_with_logits(logits.float(), batch.ended, batch.weight, reduction="none")
        loss = losses.new_zeros(())
        for steps in _parts(self.config):  # each for itself, so that what comes afterwards takes nothing from the plan
            # No weight: a batch of moments after whose plans nothing was seen; it teaches nothing of those steps.
            loss = loss + losses[..., steps].sum() / batch.weight[..., steps].sum().clamp(min=1e-6)
        return loss

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Cross-entropy on held-out moments, and that of a constant; nothing without such episodes.

        Where the reader foresees what comes after plans, that of the steps there as well, if any were held out.
        """
        if self._held_out is None:
            return {}
        count = len(self._held_out)
        moments = np.linspace(0, count - 1, min(count, HELD_OUT_MOMENTS)).astype(np.int64)
        loss, ended, there = torch.zeros(3, self.config.horizon + self.config.afterwards, dtype=torch.float64)
        for part in np.array_split(moments, -(-len(moments) // HELD_OUT_BATCH)):
            batch = self._held_out.read(part, np.ones(len(part), np.float32), self.device)
            logits = self.reader(batch.pictures, batch.taken, batch.planned)
            losses = F.binary_cross_entropy_with_logits(logits, batch.ended, batch.weight, reduction="none")
            loss += losses.sum((0, 1)).cpu()
            ended += (batch.ended * batch.weight).sum((0, 1)).cpu()
            there += batch.weight.sum((0, 1)).cpu()
        told = {}
        for name, steps in zip(("", "_afterwards"), _parts(self.config), strict=False):
            if not there[steps].sum():
                continue
            rate = ended[steps].sum() / there[steps].sum()
            told[f"held_out_loss{name}"] = float(loss[steps].sum() / there[steps].sum())
            told[f"held_out_constant{name}"] = float(F.binary_cross_entropy(rate, rate))
        return told


def _parts(config: PlanConfig) -> list[slice]:
    """The steps of a plan, and those afterwards if any are foreseen."""
    parts = [slice(config.horizon)]
    return [*parts, slice(config.horizon, None)] if config.afterwards else parts


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
        self._config, self._tokenizer, self._frame_shape = config, tokenizer, store.spec.frame_shape
        records = [store.steps(int(i)) for i in episodes]
        self._lengths = [len(one) for one in records]
        self._latents = [latents[int(i)] for i in episodes]
        self._position = np.concatenate([np.arange(length) for length in self._lengths])
        self._left = np.concatenate([np.arange(length, 0, -1) for length in self._lengths])  # steps, this one included
        terminated = [bool(one["terminated"][-1]) for one in records]
        self._ends = np.repeat(terminated, self._lengths)
        actions = torch.from_numpy(np.ascontiguousarray(np.concatenate([one["action"] for one in records])))
        self._actions = action_features(store.spec, actions)  # (S, A)
        self._is_near = near = self._ends & (self._left <= config.horizon)
        after = self._ends & ~near & (self._left <= config.horizon + config.afterwards)
        self._near, self._others = np.flatnonzero(near), np.flatnonzero(~near)
        self._after, self._far = np.flatnonzero(after), np.flatnonzero(~near & ~after)

    def __len__(self) -> int:
        return len(self._position)

    @cached_property
    def _frames(self) -> Tensor:
        """The moments' frames as the tokenizer draws them, uint8 (S, H, W, C), on its device: made when first asked
        for.
        """
        weights = next(self._tokenizer.parameters(), None)
        device = torch.device("cpu") if weights is None else weights.device
        # They are too many to be copied, and a GPU holds them with ease.
        frames = torch.empty(len(self), *self._frame_shape, dtype=torch.uint8, device=device)
        done = 0
        with torch.inference_mode(), tqdm(total=len(self), desc="decode", unit="frame", unit_scale=True) as bar:
            for length, latents in zip(self._lengths, self._latents, strict=True):
                for part in torch.from_numpy(latents[:length].astype(np.float32)).split(DECODED_TOGETHER):
                    frames[done : done + len(part)] = self._tokenizer.decode(part.to(device))
                    done += len(part)
                bar.update(length)
        return frames

    def ended(self) -> NDArray[np.bool_]:
        """Which steps ended their episode, (S,)."""
        return self._ends & (self._left == 1)

    def draw(
        self, count: int, near_fraction: float, random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Moments (count,), and the weights that undo the taste for those near endings. All alike without any.

        Of the others half have an ending after the plan, where that is to be foreseen.
        """
        chosen, weight = draw_more_of(self._near, self._others, count, near_fraction, random)
        if len(self._after):
            others = ~self._is_near[chosen]
            drawn = int(others.sum())
            chosen[others], again = draw_more_of(self._after, self._far, drawn, AFTERWARDS_FRACTION, random)
            weight[others] *= again
        return chosen, weight

    def read(self, chosen: NDArray[np.int64], weight: NDArray[np.float32], device: torch.device) -> PlanBatch:
        """Some moments (B,), each with its weight (B,)."""
        position, left = self._position[chosen][:, None], self._left[chosen][:, None]
        ages = np.array(self._config.ages)
        shown = torch.from_numpy(chosen[:, None] - np.minimum(ages, position))
        pictures = self._frames[shown.to(self._frames.device)]
        back = np.arange(self._config.actions_before, 0, -1)
        horizon = self._config.horizon
        ahead = np.arange(horizon + self._config.afterwards)
        there = ahead < left
        ended = self._ends[chosen][:, None] & (ahead == left - 1)
        batch = PlanBatch(
            pictures,
            self._actions_at(chosen[:, None] - back, back <= position),
            self._actions_at(chosen[:, None] + ahead[:horizon], there[:, :horizon])[:, None],
            torch.from_numpy(ended.astype(np.float32))[:, None],
            torch.from_numpy(there * weight[:, None]).float()[:, None],
        )
        return PlanBatch(*(part.to(device) for part in batch))

    def _actions_at(self, steps: NDArray[np.int64], there: NDArray[np.bool_]) -> Tensor:
        """Features of the actions of some steps (B, K), (B, K, A); 0 where there is none."""
        taken = self._actions[torch.from_numpy(np.clip(steps, 0, len(self) - 1))]
        return taken * torch.from_numpy(there)[..., None]
