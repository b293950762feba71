"""Policy and value networks on flat features or on pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from worldsim.agents.actions import ActionCoder, Distribution, Generators, describe_action_space
from worldsim.agents.errors import UnusableSpaceError
from worldsim.agents.pictures import Pictures, seen_size

INPUT_LIMIT = 5.0
MIN_VARIANCE = 1e-4
INITIAL_LOG_STD = -0.5
PLACE_WIDTH, READER_WIDTH, READER_OUTPUT = 16, 128, 48  # of TokenReader
PAST_WIDTH = 64  # what HistoryReader keeps of each frame before the newest


@dataclass(frozen=True)
class NetworkSpec:
    """All that is needed to build a policy again.

    observation_shape: of one row; (H, W, C) uint8 if `pixels`, else any shape of numbers (flattened).
    layout: of a world model's features: "frames", "tokens", "channels", "belief" and "action"; a row holds latents and
    then their changes, tokens x channels each, the belief, and the last action; before them stand, oldest first,
    latents, changes and action of the other frames. Of pictures: how many planes at the end tell the last "action".
    None: observations of which nothing is known. strides, group_norm: of pictures, see `worldsim.agents.pictures`.
    action_space: plain data, see `describe_action_space`. hidden: widths of the trunk; without any it is linear,
    and sees latents and belief alone.
    reads: how many fixed random directions of the inputs the trunk sees; 0: the inputs themselves. deterministic: the
    policy always takes its likeliest action; the other probabilities of an evolved controller mean nothing.
    """

    observation_shape: tuple[int, ...]
    pixels: bool
    action_space: dict[str, Any]
    hidden: tuple[int, ...]
    reads: int = 0
    deterministic: bool = False
    layout: dict[str, int] | None = None
    strides: tuple[tuple[int, int], ...] = ()
    group_norm: bool = True


def network_spec(
    envs: gym.vector.VectorEnv[Any, Any, Any], hidden: Sequence[int], strides: Sequence[Sequence[int]] = ()
) -> NetworkSpec:
    """The spec for a vector env's single spaces. Raises UnusableSpaceError if they cannot be used."""
    space = envs.single_observation_space
    if not isinstance(space, gym.spaces.Box):
        raise UnusableSpaceError(f"An agent needs Box observations, got {space}.")
    pixels = space.dtype == np.uint8 and len(space.shape) == 3
    if pixels and min(space.shape[:2]) < 8:
        raise UnusableSpaceError(f"Pixel observations must be (H, W, C) with H, W >= 8, got {space.shape}.")
    actions = describe_action_space(envs.single_action_space)
    layout = getattr(envs, "observation_layout", None)
    shape, widths = tuple(int(n) for n in space.shape), tuple(int(n) for n in hidden)
    if layout is not None and not pixels and shape != (layout["frames"] * frame_size(layout) + layout["belief"],):
        raise UnusableSpaceError(f"The layout {layout} does not describe observations of shape {shape}.")
    steps = tuple((int(down), int(across)) for down, across in strides)
    return NetworkSpec(shape, pixels, actions, widths, layout=layout, strides=steps)


def frame_size(layout: Mapping[str, int]) -> int:
    """How many numbers of a world model's features are of one frame: latents, changes and action."""
    return 2 * layout["tokens"] * layout["channels"] + layout["action"]


class Inputs(nn.Module):
    """Observations (B, ...) of numbers to network inputs: the one place that knows their range.

    They become (B, F), standardised by the mean and variance of all observations that `observe` has seen, and limited
    to [-5, 5]. Without any they pass as they are. A nearly constant feature is divided by no less than 0.01: its noise
    must not become a signal that looks different in another environment. (Layer norm follows, so small observations
    lose nothing.)
    Of a world model's features, a channel has one mean and variance for all tokens and frames, those of the newest, so
    that the same thing looks the same in every place and at every time, and actions stay as they are.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.shape = spec.observation_shape
        self.layout = spec.layout
        size = math.prod(spec.observation_shape)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, observations: Tensor) -> None:
        """Fold observations (B, ...) into the statistics."""
        batch = observations.reshape(observations.shape[0], -1).float()
        variance, mean = torch.var_mean(batch, dim=0, correction=0)
        if self.layout is not None:
            variance, mean = _pooled(variance, mean, self.layout)
        # Chan et al. (1979): moments of two samples joined.
        share = batch.shape[0] / (int(self.count) + batch.shape[0])
        delta = mean - self.mean
        if int(self.count) == 0:
            self.variance.copy_(variance)
        else:
            self.variance.mul_(1 - share).add_(share * variance + share * (1 - share) * delta.square())
        self.mean.add_(share * delta)
        self.count.add_(batch.shape[0])

    def forward(self, observations: Tensor) -> Tensor:
        if tuple(observations.shape[1:]) != self.shape:
            raise ValueError(f"Expected observations of shape (B, {self.shape}), got {tuple(observations.shape)}.")
        flat = observations.reshape(observations.shape[0], -1).float()  # (B, F)
        scaled = (flat - self.mean) * self.variance.clamp_min(MIN_VARIANCE).rsqrt()
        return scaled.clamp(-INPUT_LIMIT, INPUT_LIMIT)


def _pooled(variance: Tensor, mean: Tensor, layout: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """Moments (F,) of a world model's features with those of a channel joined over all tokens, actions left alone."""
    tokens, channels, action = layout["tokens"], layout["channels"], layout["action"]
    variance, mean = variance.clone(), mean.clone()
    before = (layout["frames"] - 1) * frame_size(layout)
    now_variance, now_mean = variance[before:], mean[before:]
    for part in (slice(0, tokens * channels), slice(tokens * channels, 2 * tokens * channels)):
        means = now_mean[part].view(tokens, channels)
        joined = now_variance[part].view(tokens, channels).mean(0) + means.var(0, correction=0)
        now_variance[part], now_mean[part] = joined.repeat(tokens), means.mean(0).repeat(tokens)
    now_variance[-action:], now_mean[-action:] = 1.0, 0.0
    for moment in (variance, mean):
        latents_and_change = moment[before : before + 2 * tokens * channels]
        moment[:before] = torch.cat([latents_and_change, moment[-action:]]).repeat(layout["frames"] - 1)
    return variance, mean


class Projection(nn.Module):
    """Numbers (B, size) along `reads` fixed orthonormal directions, (B, reads); drawn at random and never trained."""

    directions: Tensor

    def __init__(self, size: int, reads: int) -> None:
        super().__init__()
        self.register_buffer("directions", torch.zeros(reads, size))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.directions.T


class LatentsAndBelief(nn.Module):
    """A world model's features, (B, F) with `layout`, to latents and belief (B, size): what a controller sees."""

    def __init__(self, layout: Mapping[str, int]) -> None:
        super().__init__()
        self.before = (layout["frames"] - 1) * frame_size(layout)
        self.latents, self.belief = layout["tokens"] * layout["channels"], layout["belief"]
        self.size = self.latents + self.belief

    def forward(self, features: Tensor) -> Tensor:
        now = features[:, self.before :]
        after_change = 2 * self.latents
        return torch.cat([now[:, : self.latents], now[:, after_change : after_change + self.belief]], dim=1)


class TokenReader(nn.Module):
    """Latents, their changes and whatever else follows, (B, 2 N D + R), to numbers (B, N x READER_OUTPUT + R).

    One small network reads each token, its change and its place. What it learns of an object in one part of the picture
    holds in all others, where a network on flat features learns it for each place anew.
    """

    def __init__(self, layout: Mapping[str, int]) -> None:
        super().__init__()
        self.tokens, self.channels = layout["tokens"], layout["channels"]
        self.place = nn.Parameter(torch.zeros(self.tokens, PLACE_WIDTH))
        self.read = nn.Sequential(
            nn.Linear(2 * self.channels + PLACE_WIDTH, READER_WIDTH),
            nn.LayerNorm(READER_WIDTH),
            nn.SiLU(),
            nn.Linear(READER_WIDTH, READER_OUTPUT),
            nn.SiLU(),
        )
        self.size = self.tokens * READER_OUTPUT + layout["belief"] + layout["action"]

    def forward(self, features: Tensor) -> Tensor:
        latents, changes, rest = features.tensor_split(
            [self.tokens * self.channels, 2 * self.tokens * self.channels], 1
        )
        shape = (self.tokens, self.channels)
        place = self.place.expand(len(features), -1, -1)
        read = self.read(torch.cat([latents.unflatten(1, shape), changes.unflatten(1, shape), place], dim=-1))
        return torch.cat([read.flatten(1), rest], dim=1)


class HistoryReader(nn.Module):
    """A world model's features of several frames, (B, F) with `layout`, to numbers (B, size).

    All frames are read by one TokenReader. The newest is kept whole, of each one before only PAST_WIDTH numbers and the
    action: what flew there, and how the player has moved since.
    """

    def __init__(self, layout: Mapping[str, int]) -> None:
        super().__init__()
        self.past, self.frame_size, self.action = layout["frames"] - 1, frame_size(layout), layout["action"]
        self.now = TokenReader(layout)
        frame_width = self.now.size - layout["belief"]
        self.keep = nn.Sequential(nn.Linear(frame_width, PAST_WIDTH), nn.LayerNorm(PAST_WIDTH), nn.SiLU())
        self.size = self.now.size + self.past * (PAST_WIDTH + self.action)

    def forward(self, features: Tensor) -> Tensor:
        past, now = features.tensor_split([self.past * self.frame_size], dim=1)
        frames = past.reshape(-1, self.frame_size)
        kept = torch.cat([self.keep(self.now(frames)), frames[:, -self.action :]], dim=1)
        return torch.cat([kept.reshape(len(features), -1), self.now(now)], dim=1)


def _told_planes(spec: NetworkSpec) -> int:
    return 0 if spec.layout is None else spec.layout["action"]


def _build_inputs(spec: NetworkSpec) -> Inputs | Pictures:
    if not spec.pixels:
        return Inputs(spec)
    return Pictures(spec.observation_shape, spec.strides, _told_planes(spec), spec.group_norm)


def _feature_reader(spec: NetworkSpec) -> TokenReader | HistoryReader | LatentsAndBelief:
    """What stands between a world model's features and the trunk's layers."""
    assert spec.layout is not None
    if not spec.hidden:
        return LatentsAndBelief(spec.layout)
    return TokenReader(spec.layout) if spec.layout["frames"] == 1 else HistoryReader(spec.layout)


def build_trunk(spec: NetworkSpec) -> tuple[nn.Sequential, int]:
    """Network inputs to features (B, hidden[-1])."""
    layers: list[nn.Module] = []
    if spec.pixels:
        size = seen_size(spec.observation_shape, spec.strides) + _told_planes(spec)
    elif spec.layout is not None:
        reader = _feature_reader(spec)
        layers, size = [reader], reader.size
    else:
        size = math.prod(spec.observation_shape)
    if spec.reads:
        layers.append(Projection(size, spec.reads))
        size = spec.reads
    for width in spec.hidden:
        layers += [nn.Linear(size, width), nn.LayerNorm(width), nn.SiLU()]
        size = width
    return nn.Sequential(*layers), size


def initialise_layers(layers: nn.Module, generator: torch.Generator | None) -> None:
    """Convolutions and linear layers orthogonal with gain sqrt(2), biases 0 (norms: 1 and 0 as they come); fixed
    directions orthonormal; places normal with std 0.5.
    """
    for module in layers.modules():
        if isinstance(module, TokenReader):
            nn.init.normal_(module.place, std=0.5, generator=generator)
        if isinstance(module, Projection):
            nn.init.orthogonal_(module.directions, generator=generator)
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.orthogonal_(module.weight, math.sqrt(2.0), generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class PolicyNetwork(nn.Module):
    """Observations to a distribution over actions.

    The head starts at zero: a new policy is uniform (Box: centred), whatever the input statistics are. Where the
    observation tells the last action and actions are discrete, the policy may lean to repeat it (`persist`).
    """

    def __init__(self, spec: NetworkSpec, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.actions = ActionCoder(spec.action_space)
        self.inputs = _build_inputs(spec)
        self.trunk, size = build_trunk(spec)
        self.head = nn.Linear(size, self.actions.size)
        self.log_std = nn.Parameter(torch.zeros(0 if self.actions.choices else self.actions.size))
        told = self.actions.choices and spec.layout is not None
        # Added to the logits of the last action, where the observation tells it.
        self.persistence = nn.Parameter(torch.zeros(self.actions.size)) if told else None
        self.initialise(generator)

    def initialise(self, generator: torch.Generator | None) -> None:
        """Layers: see `initialise_layers`. Head: zeros. Log standard deviations of Box actions: -0.5."""
        for part in (self.inputs, self.trunk):
            initialise_layers(part, generator)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        nn.init.constant_(self.log_std, INITIAL_LOG_STD)

    @torch.no_grad()
    def persist(self, probability: float) -> None:
        """Make a new policy repeat its last action with this probability, in each part of it; 0: leave it uniform.

        Only where the observation tells the last action: elsewhere there is nothing to do. It learns to do otherwise.
        """
        if probability and self.persistence is not None:
            odds = probability / (1 - probability)
            counts = torch.tensor([float(n) for n in self.actions.choices for _ in range(n)])
            self.persistence.copy_((odds * (counts - 1).clamp(min=1)).log())

    def convolve_in(self, dtype: torch.dtype) -> None:
        """Convolve pictures in this dtype from now on; there is nothing to do for other observations."""
        if isinstance(self.inputs, Pictures):
            self.inputs.precision = dtype

    def distribution(self, inputs: Tensor) -> Distribution:
        """The distribution for network inputs, that is for `self.inputs(observations)`."""
        output = self.head(self.trunk(inputs))
        if self.persistence is not None:
            output = output + self.persistence * inputs[:, -len(self.persistence) :]
        return self.actions.distribution(output, self.log_std)

    def forward(self, observations: Tensor) -> Distribution:
        return self.distribution(self.inputs(observations))

    @torch.no_grad()
    def act(
        self,
        observations: np.ndarray[Any, Any] | Tensor,
        generator: Generators = None,
        greedy: bool = False,
        temperature: float = 1.0,
    ) -> np.ndarray[Any, Any]:
        """Environment actions for observations (B, ...), as `ActionCoder.decode` gives them.

        generator: a CPU generator to sample with, or one for each row; None uses torch's global one. greedy: the mode,
        without a draw, as a deterministic policy always acts.
        temperature: above 0; divides a discrete policy's logits, multiplies a Box policy's standard deviation.
        """
        policy = self(torch.as_tensor(observations).to(self.head.weight.device))
        if greedy or self.spec.deterministic:
            return self.actions.decode(policy.mode())
        return self.actions.decode(policy.tempered(temperature).sample(generator))
