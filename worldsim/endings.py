"""A network of its own that foresees endings from the last frames.

The dynamics' head reads them from the belief, which holds what the next frame needs. But what ends an episode has often
left the picture: of the deaths of a policy in Take Cover 97 % were by a fireball that had been in view, and a third by
one that was so in the last six steps (benchmarks/LOG.md). So a small network reads the last frames themselves. Each of
them is read by the same weights, together with the actions taken since: "what flew there then, and where the player has
gone". In training frames are left out at random, so that each has to tell what it can, and some hundred endings teach
as if they were many more. It learns from real episodes after the dynamics, in minutes, and replaces the head's
probability of an ending wherever the world model tells one. In a dream the older frames are real ones for as many steps
as it remembers: what the dynamics have lost may still end an episode.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.data.actions import action_feature_count, action_features
from worldsim.data.latents import LatentCache
from worldsim.data.store import EpisodeStore
from worldsim.device import autocast
from worldsim.dropout import Dropout
from worldsim.dynamics.calibration import fit_logits
from worldsim.dynamics.scale import LatentScale
from worldsim.optimization import muon_and_adamw
from worldsim.reader_members import MembersLearner, draw_more_of, joined, logit_of_share

PLACE_WIDTH, TOKEN_WIDTH, TOKEN_OUTPUT, WIDTH, EVIDENCE = 16, 128, 48, 256, 128
ACTIONS_BEFORE = 4  # the actions that led to a frame tell how fast the player moved there
EVERY_AGE = 4  # up to this age all frames are read, beyond it every other
ALL_FRAMES, FEWEST_LEFT, MOST_LEFT = 0.25, 1, 5  # share of training steps that read all frames; how many the others do
INPUT_LIMIT, LEAST_DEVIATION = 5.0, 0.01
HIDDEN = ("read_token", "read_frame", "judge")  # whose matrices Muon trains
HELD_OUT_BATCH = 512


@dataclass
class EndingConfig:
    """The network that foresees endings, and how it is trained."""

    steps: int = 0  # of training; 0: there is none, and the head of the dynamics foresees them
    frames: int = 16
    """How far it looks back, the newest frame included; of those older than four steps it reads every other."""
    members: int = 1
    """Networks that learn apart and whose mean counts; plans chosen by one alone are those that it errs about."""
    batch_size: int = 256  # steps of episodes in each training step
    ending_fraction: float = 0.125  # how many of them end an episode; the loss takes their true share
    learning_rate: float = 3e-3  # peak; cosine decay to a tenth
    weight_decay: float = 0.05  # of matrices only
    warmup_steps: int = 100  # of the learning rate
    dropout: float = 0.5  # of what its last layers read; much, since endings are few


def read_ages(frames: int) -> tuple[int, ...]:
    """The ages of the frames that are read of so many: the newest all, of older ones every other."""
    return tuple(age for age in range(frames) if age <= EVERY_AGE or age % 2 == 0)


class ReaderMember(nn.Module):
    """The last frames and an action to the logit of an ending at the step that it makes: one opinion of several."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: EndingConfig, tokens: int, channels: int, action_size: int) -> None:
        super().__init__()
        self.frames = config.frames
        self.tokens, self.channels, self.action_size = tokens, channels, action_size
        # Of a token's latents and their change, (2 D,), the same for all tokens.
        self.register_buffer("mean", torch.zeros(2 * channels))
        self.register_buffer("deviation", torch.ones(2 * channels))
        self.place = nn.Parameter(torch.zeros(tokens, PLACE_WIDTH))
        self.read_token = nn.Sequential(
            nn.Linear(2 * channels + PLACE_WIDTH, TOKEN_WIDTH),
            nn.LayerNorm(TOKEN_WIDTH),
            nn.SiLU(),
            nn.Linear(TOKEN_WIDTH, TOKEN_OUTPUT),
            nn.SiLU(),
        )
        size = tokens * TOKEN_OUTPUT + (ACTIONS_BEFORE + self.frames) * action_size + self.frames
        self.hide = Dropout(config.dropout / 2)
        self.read_frame = nn.Sequential(
            nn.Linear(size, WIDTH),
            nn.LayerNorm(WIDTH),
            nn.SiLU(),
            Dropout(config.dropout),
            nn.Linear(WIDTH, EVIDENCE),
            nn.SiLU(),
        )
        self.judge = nn.Sequential(
            nn.LayerNorm(EVIDENCE),
            Dropout(config.dropout),
            nn.Linear(EVIDENCE, EVIDENCE),
            nn.LayerNorm(EVIDENCE),
            nn.SiLU(),
            Dropout(config.dropout),
        )
        self.logit = nn.Linear(EVIDENCE, 1)
        nn.init.normal_(self.place, std=0.5)
        nn.init.zeros_(self.logit.weight)

    def forward(self, shown: Tensor, action: Tensor, ages: Sequence[int]) -> Tensor:
        """Logits (B,); see `EndingReader.forward`. ages: of the frames to be read, 0 being the newest."""
        asked = torch.tensor(list(ages), device=shown.device)
        actions = torch.cat([shown[..., -self.action_size :], action[:, None]], dim=1)
        return self.foresee(self.read(shown[:, self.frames - 1 - asked]), self.since(actions, asked))

    def read(self, shown: Tensor) -> Tensor:
        """Of frames (..., 2 N D + A) the tokens, and whether they are there, (..., N x TOKEN_OUTPUT + 1)."""
        frames = shown[..., : -self.action_size]
        inside = (frames != 0).any(-1, keepdim=True)
        numbers = frames.unflatten(-1, (2, self.tokens, self.channels)).transpose(-3, -2)  # (..., N, 2, D)
        scaled = ((numbers.flatten(-2) - self.mean) / self.deviation).clamp(-INPUT_LIMIT, INPUT_LIMIT)
        place = self.place.expand(*scaled.shape[:-1], PLACE_WIDTH)
        tokens = torch.cat([scaled.to(place.dtype), place], dim=-1)
        read = self.read_token(tokens).flatten(-2)
        return torch.cat([read, inside.to(read)], dim=-1)

    def foresee(self, read: Tensor, since: Tensor) -> Tensor:
        """Logits (B,), float32, from frames of some ages (K,), (B, K, N x TOKEN_OUTPUT + 1) as `read` gives them.

        since: of the same ages, as `since` gives them.
        """
        tokens, inside = read.tensor_split([-1], dim=-1)
        known = torch.cat([tokens, since.to(tokens)], dim=-1)
        evidence = self.read_frame(self.hide(known)) * inside  # (B, K, EVIDENCE)
        logits: Tensor = self.logit(self.judge(evidence.sum(1)))[:, 0]
        return logits.float()

    def since(self, actions: Tensor, ages: Tensor) -> Tensor:
        """What goes with frames of some ages (K,), (B, K, S): the actions around and after them, and the age itself.

        actions: (B, frames + 1, A), those that led to the frames, and the one taken now.
        """
        age = F.one_hot(ages, self.frames).to(actions).expand(len(actions), -1, -1)
        return torch.cat([self.actions_since(actions, ages), age], dim=-1)

    def actions_since(self, actions: Tensor, ages: Tensor) -> Tensor:
        """Of each age (K,) the actions that led to the frame and those since, (B, K, (ACTIONS_BEFORE + frames) A).

        actions: (B, frames + 1, A), the one that led to each frame, and the one taken now. The first after the frame
        stands at the same place whatever its age; 0 where there was none.
        """
        padded = F.pad(actions, (0, 0, ACTIONS_BEFORE, self.frames))
        first = self.frames - ages  # the place of the action after the frame, so of ACTIONS_BEFORE earlier where padded
        places = first[:, None] + torch.arange(ACTIONS_BEFORE + self.frames, device=ages.device)
        return padded[:, places].flatten(2)


class EndingReader(nn.Module):
    """The last frames and an action to the logit of an ending at the step that it makes.

    Its probability is the mean of its members', before scale and shift are applied to the logit.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, config: EndingConfig, tokens: int, channels: int, action_size: int) -> None:
        super().__init__()
        self.config, self.frames = config, config.frames
        self.ages = read_ages(config.frames)
        self.members = nn.ModuleList(ReaderMember(config, tokens, channels, action_size) for _ in range(config.members))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("shift", torch.zeros(()))

    def forward(self, shown: Tensor, action: Tensor) -> Tensor:
        """Logits (B,).

        shown: (B, frames, 2 N D + A), of each of the last frames latents at unit scale, changes and the action that led
        there, oldest first and 0 where there was none, as `WorldState.shown`. action: (B, A), features of the one taken
        now.
        """
        return self._joined([member(shown, action, self.ages) for member in self.members])

    def read(self, shown: Tensor) -> Tensor:
        """What the members make of frames (..., 2 N D + A), (..., members, R): once, for all steps that see them."""
        return torch.stack([member.read(shown) for member in self._each()], dim=-2)

    def foresee(self, readings: Sequence[Tensor], actions: Tensor) -> Tensor:
        """The same logits (B,) from what `read` made of the last frames, (B, members, R) each, oldest first.

        actions: (B, frames + 1, A), those that led to the frames, and the one taken now.
        """
        read = torch.stack([readings[-1 - age] for age in self.ages], dim=2)  # (B, members, K, R)
        ages = torch.tensor(self.ages, device=actions.device)
        since = self._each()[0].since(actions, ages)  # the same for all members
        opinions = zip(self._each(), read.unbind(1), strict=True)
        return self._joined([member.foresee(one, since) for member, one in opinions])

    def _each(self) -> list[ReaderMember]:
        return cast(list[ReaderMember], list(self.members))

    def _joined(self, logits: list[Tensor]) -> Tensor:
        return self.scale * joined(torch.stack(logits)) + self.shift

    @torch.no_grad()
    def rescale(self, scale: float, shift: float) -> None:
        """From now on the logit is scale * logit + shift."""
        self.scale.mul_(scale)
        self.shift.mul_(scale).add_(shift)


class EndingLearner(MembersLearner):
    """A `worldsim.training.Learner`; `reader` is the result, calibrated on held-out episodes when the training ends."""

    def __init__(
        self,
        config: EndingConfig,
        store: EpisodeStore,
        latents: LatentCache,
        scale: LatentScale,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
    ) -> None:
        """scale: of the dynamics whose dreams the reader is to read. dtype: of the products in training; weights stay
        fp32.
        """
        self.config, self.device, self.dtype = config, torch.device(device), dtype
        tokens, channels = latents[0].shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.reader = EndingReader(config, tokens, channels, action_feature_count(store.spec)).to(self.device)
        held_out = store.indices("held_out")
        self._train = _Steps(store, latents, scale, store.indices("train"), self.device)
        self._held_out = _Steps(store, latents, scale, held_out, self.device) if len(held_out) else None
        random = np.random.default_rng(seed)
        optimizers = muon_and_adamw(self.reader, config.learning_rate, config.weight_decay, dtype, HIDDEN)
        super().__init__(config, self.reader, optimizers, random)
        mean, deviation = self._train.moments(random)
        for member in self.reader._each():
            member.mean.copy_(mean)
            member.deviation.copy_(deviation)
            nn.init.constant_(member.logit.bias, logit_of_share(self._train.terminated))

    def loss(self, member: nn.Module) -> Tensor:
        """Cross-entropy on steps of which endings are more than their share, with their true weight."""
        chosen, weight = self._train.draw(self.config.batch_size, self.config.ending_fraction, self._random)
        ages = self._some_ages()
        shown, action, ended = self._train.read(chosen, self.config.frames, ages)
        with autocast(self.device, self.dtype):
            logits = member(shown, action, ages)
        losses = F.binary_cross_entropy_with_logits(logits, ended, reduction="none")
        return (losses * torch.from_numpy(weight).to(self.device)).mean()

    def _some_ages(self) -> tuple[int, ...]:
        """Which frames a training step reads."""
        ages = self.reader.ages
        if self._random.random() < ALL_FRAMES:
            return ages
        count = min(int(self._random.integers(FEWEST_LEFT, MOST_LEFT + 1)), len(ages))
        return tuple(sorted(self._random.choice(ages, count, replace=False).tolist()))

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy on all held-out steps in nats, and that of a constant there; nothing without such episodes."""
        if self._held_out is None:
            return {}
        logits, ended = self._on_held_out(self._held_out)
        rate = ended.mean()
        constant = F.binary_cross_entropy(rate.expand_as(ended), ended)
        loss = F.binary_cross_entropy_with_logits(logits, ended)
        return {"held_out_loss": float(loss), "held_out_constant": float(constant)}

    def finish(self) -> dict[str, float]:
        """Calibrate the reader; scale and shift of the logits, as they were fitted."""
        if self._held_out is None:
            return {}
        logits, ended = self._on_held_out(self._held_out)
        scale, shift = fit_logits(logits, ended.bool(), torch.ones_like(logits))
        self.reader.rescale(scale, shift)
        return {"scale": scale, "shift": shift}

    @torch.no_grad()
    def _on_held_out(self, steps: _Steps) -> tuple[Tensor, Tensor]:
        """Logits and endings of all its steps, (S,) each."""
        logits, ended = [], []
        for chosen in np.array_split(np.arange(len(steps)), -(-len(steps) // HELD_OUT_BATCH)):
            shown, action, happened = steps.read(chosen, self.config.frames)
            logits.append(self.reader(shown, action).float().cpu())
            ended.append(happened.cpu())
        return torch.cat(logits), torch.cat(ended)


class _Steps:
    """All steps of some episodes: what was shown before each, the action, and whether it ended the episode."""

    def __init__(
        self,
        store: EpisodeStore,
        latents: LatentCache,
        scale: LatentScale,
        episodes: NDArray[np.int64],
        device: torch.device,
    ) -> None:
        """device: where the latents are kept, and what `read` gives lies."""
        self._scale, self._device = copy.deepcopy(scale).to(device), device
        records = [store.steps(int(i)) for i in episodes]
        lengths = np.array([len(one) for one in records])
        self._position = np.concatenate([np.arange(length) for length in lengths])  # of the frame before the step
        # The frame that a step led to is not read: it may be blank, and tells what is to be foreseen.
        frames = [latents[int(i)][:length] for i, length in zip(episodes, lengths, strict=True)]
        self._latents = torch.from_numpy(np.concatenate(frames)).to(device)  # (S, N, D), as the tokenizer gives them
        actions = torch.from_numpy(np.ascontiguousarray(np.concatenate([one["action"] for one in records])))
        self._actions = action_features(store.spec, actions).to(device)  # (S, A)
        self.terminated = np.concatenate([one["terminated"] for one in records])
        self._ending, self._going = np.flatnonzero(self.terminated), np.flatnonzero(~self.terminated)

    def __len__(self) -> int:
        return len(self.terminated)

    def draw(
        self, count: int, ending_fraction: float, random: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Steps (count,), and the weights that undo the taste for endings. All alike where no episode ended."""
        return draw_more_of(self._ending, self._going, count, ending_fraction, random)

    def read(
        self, chosen: NDArray[np.int64], frames: int, ages: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of some steps (B,) the last frames before them, (B, frames, 2 N D + A) as EndingReader reads them, the action
        (B, A), and whether they ended the episode, (B,) float. ages: of the frames to fill in, the others are 0 but for
        the actions; None: all.
        """
        back = np.arange(1 - frames, 1)
        there = self._here(self._position[chosen][:, None] + back >= 0)  # (B, frames)
        before = self._here(np.maximum(chosen[:, None] + back - 1, 0))  # the steps that led to the frames
        after_first = self._here(self._position[chosen][:, None] + back > 0)[..., None]
        led = self._actions[before] * after_first
        tokens, channels = self._latents.shape[1:]
        shown = led.new_zeros(len(chosen), frames, 2 * tokens * channels + led.shape[-1])
        shown[..., 2 * tokens * channels :] = led
        for age in range(frames) if ages is None else ages:
            slot = frames - 1 - age
            index = self._here(np.maximum(chosen - age, 0))
            now = self._scale.to_unit(self._latents[index].float())
            change = (now - self._scale.to_unit(self._latents[before[:, slot]].float())) * after_first[:, slot, None]
            numbers = torch.stack([now, change], dim=1).flatten(1)
            shown[:, slot, : 2 * tokens * channels] = numbers * there[:, slot, None]
        return shown, self._actions[self._here(chosen)], self._here(self.terminated[chosen]).float()

    def moments(self, random: np.random.Generator, count: int = 4096) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of latents and changes, (2 D,) each, over tokens and some steps."""
        chosen = random.integers(len(self), size=min(count, len(self)))
        shown, _, _ = self.read(chosen, 1)
        tokens, channels = self._latents.shape[1:]
        numbers = (
            shown[:, 0, : 2 * tokens * channels].unflatten(1, (2, tokens, channels)).transpose(0, 1)
        )  # (2, B, N, D)
        deviation, mean = torch.std_mean(numbers.flatten(1, 2), dim=1, correction=0)
        return mean.flatten(), deviation.flatten().clamp_min(LEAST_DEVIATION)

    def _here(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self._device)
