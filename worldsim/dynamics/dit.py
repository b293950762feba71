"""The Diffusion Transformer (Peebles & Xie 2022, arXiv 2212.09748) over latent frames, conditioned by adaLN-Zero.

One network does both passes of the dynamics. The *context pass* reads the frames of the past, slightly noisy, and
leaves their keys and values behind (the memory) and a belief per frame. The *denoising pass* reads one noisy frame per
time step, which sees itself and the memory of the frames before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.dynamics.attention import Rotary, SpaceAttention, TimeAttention, space_angles, time_angles
from worldsim.dynamics.config import SIZES, DynamicsConfig
from worldsim.dynamics.operators import rms_norm, swiglu


@dataclass(frozen=True)
class DiTOutput:
    """latents: unit-scale answer per token (B, T, N, D). belief: (B, T, belief_size) in [-1, 1].

    memory: keys and values of every time layer, (layers, 2, B, N + registers, heads, T, head_width).
    """

    latents: Tensor
    belief: Tensor
    memory: Tensor


class FeedForward(nn.Module):
    """SwiGLU with about 8/3 M hidden units."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = 32 * round(width * 8 / 3 / 32)
        self.gate_and_value = nn.Linear(width, 2 * hidden, bias=False)
        self.output = nn.Linear(hidden, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., M) -> (..., M)."""
        return self.output(swiglu(self.gate_and_value(tokens)))


class Block(nn.Module):
    """Space attention, in some blocks time attention, and a feed-forward layer, each behind an adaLN-Zero gate."""

    def __init__(self, width: int, heads: int, with_time: bool) -> None:
        super().__init__()
        self.width = width
        self.space = SpaceAttention(width, heads)
        self.time = TimeAttention(width, heads) if with_time else None
        self.feed_forward = FeedForward(width)
        self.modulation = nn.Linear(width, (9 if with_time else 6) * width)

    def forward(
        self,
        tokens: Tensor,
        condition: Tensor,
        space_rotary: Rotary,
        time_rotary: Rotary,
        positions: Tensor,
        memory: Tensor | None,
        visible: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """tokens (B, T, N, M), condition (B, T, M), memory as in TimeAttention; returns tokens and own keys, values."""
        parts = self.modulation(condition)[..., None, :].chunk(9 if self.time else 6, dim=-1)  # each (B, T, 1, M)

        def modulated(index: int) -> Tensor:
            shift, scale = parts[3 * index], parts[3 * index + 1]
            return torch.addcmul(shift, rms_norm(tokens), 1 + scale)

        tokens = tokens + parts[2] * self.space(modulated(0), space_rotary)
        own = None
        if self.time is not None:
            mixed, own = self.time(modulated(2), time_rotary, positions, memory, visible)
            tokens = tokens + parts[8] * mixed
        return tokens + parts[5] * self.feed_forward(modulated(1)), own


class DiT(nn.Module):
    """The network of both passes; knows neither losses nor sampling."""

    def __init__(
        self,
        config: DynamicsConfig,
        tokens: int,
        inputs: int,
        channels: int,
        grid: tuple[int, int],
        action_features: int,
        only_time_blocks: bool = False,
    ) -> None:
        """inputs: numbers per token that the network reads; channels: D, numbers per token that it answers with.

        only_time_blocks: without the blocks that do not look back in time, so that it reads the memory of the whole
        network at half of the cost.
        """
        super().__init__()
        width, depth, heads = SIZES[config.size]
        self.width, self.tokens, self.registers, self.window = width, tokens, config.registers, config.window
        self.finest_steps = config.finest_steps
        self.input = nn.Linear(inputs, width)
        self.place = nn.Parameter(torch.empty(tokens + config.registers, width))
        with_time = [index % config.time_every == config.time_every - 1 for index in range(depth)]
        self.blocks = nn.ModuleList(Block(width, heads, each) for each in with_time if each or not only_time_blocks)
        self.noise_level = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        # Row 0: the context pass, which takes no step; row k: a step of 2^(k - 1) / finest_steps.
        self.step_size = nn.Embedding(config.finest_steps.bit_length() + 1, width)
        self.action = nn.Linear(action_features, width)
        self.no_action = nn.Parameter(torch.empty(width))
        self.past = nn.Linear(config.belief_size, width)
        self.output = nn.Linear(width, channels)
        self.belief = nn.Linear(width, config.belief_size)
        self.space_rotary = Rotary(space_angles(*grid, config.registers, width // heads))
        self.time_rotary = Rotary(time_angles(config.window, width // heads))
        self.initialise()

    def initialise(self) -> None:
        """Linear weights: normal, std 1 / sqrt(fan in); residual branches end behind gates of zero.

        Zero: every modulation (so a fresh block is the identity), the output layer (so a fresh model answers zeros) and
        `past`. Normal with std 0.02: places, step sizes, no_action. Biases zero.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.zeros_(block.modulation.weight)
        for linear in (self.output, self.past):
            nn.init.zeros_(linear.weight)
        for parameter in (self.place, self.step_size.weight, self.no_action):
            nn.init.normal_(parameter, std=0.02)

    @torch.no_grad()
    def take_time_blocks(self, whole: DiT) -> None:
        """Take the weights of a whole network of the same settings, of its blocks those that look back in time."""
        own, given = dict(self.named_children()), dict(whole.named_children())
        for name in own.keys() - {"blocks"}:
            own[name].load_state_dict(given[name].state_dict())
        for parameter in ("place", "no_action"):
            getattr(self, parameter).copy_(getattr(whole, parameter))
        chosen = [block for block in whole.blocks if isinstance(block, Block) and block.time is not None]
        for mine, block in zip(self.blocks, chosen, strict=True):
            mine.load_state_dict(block.state_dict())

    @property
    def time_layers(self) -> int:
        """Number of blocks that look back in time, the first axis of the memory."""
        return sum(block.time is not None for block in self.blocks if isinstance(block, Block))

    def condition(self, tau: Tensor, step_size: Tensor | None, actions: Tensor, has_action: Tensor) -> Tensor:
        """What adaLN is given, (B, T, M): noise level, step size and the action that led to the frame.

        tau: (B, T). step_size: (B, T), or None in the context pass. actions: (B, T, A). has_action: bool (B, T).
        """
        frequencies = torch.exp(torch.linspace(0, math.log(100.0), 32, device=tau.device))
        phases = tau[..., None] * frequencies * math.pi
        dtype = self.input.weight.dtype
        waves = torch.cat([phases.sin(), phases.cos()], dim=-1).to(dtype)  # (B, T, 64)
        if step_size is None:
            step_index = torch.zeros_like(tau, dtype=torch.long)
        else:
            step_index = torch.log2(step_size * self.finest_steps).round().long() + 1
        action = torch.where(has_action[..., None], self.action(actions.to(dtype)), self.no_action)
        return self.noise_level(waves) + self.step_size(step_index) + action

    def forward(
        self,
        inputs: Tensor,
        condition: Tensor,
        past_belief: Tensor | None,
        positions: Tensor,
        memory: Tensor | None,
        visible: Tensor,
    ) -> DiTOutput:
        """One pass over frames.

        inputs: (B, T, N, inputs), what a token reads. condition: (B, T, M). past_belief: (B, T, belief_size), the
        belief *before* each frame, given to the denoising pass only. positions: (T,) long, rotary positions. memory:
        (layers, 2, B, N + registers, heads, S, head_width) or None (the frames are their own memory, S = T).
        visible: bool (B or 1, T, S).
        """
        dtype = self.input.weight.dtype
        tokens = self.input(inputs.to(dtype))
        registers = tokens.new_zeros(*tokens.shape[:2], self.registers, self.width)
        tokens = torch.cat([tokens, registers], dim=2) + self.place.to(tokens.dtype)  # (B, T, N + registers, M)
        if past_belief is not None:
            condition = condition + self.past(past_belief.to(dtype))
        condition = F.silu(condition)
        own_memories: list[Tensor] = []
        layers = None if memory is None else memory.unbind(0)
        for block in self.blocks:
            assert isinstance(block, Block)
            layer_memory = None if layers is None or block.time is None else layers[len(own_memories)]
            tokens, own = block(
                tokens, condition, self.space_rotary, self.time_rotary, positions, layer_memory, visible
            )
            if own is not None:
                own_memories.append(own)
        tokens = rms_norm(tokens)
        # A linear layer on a slice as it lies is a product for each row.
        latents = self.output(tokens[:, :, : self.tokens].contiguous())
        belief = torch.tanh(self.belief(tokens[:, :, self.tokens]))
        return DiTOutput(latents.float(), belief.float(), torch.stack(own_memories))
