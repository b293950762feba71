"""The default dynamics: a DiT trained and sampled with two passes that are the same in training and in dreams.

*Context pass*: frames at a small fixed noise; writes the memory and reads the belief. *Denoising pass*: noisy frames,
each seeing the memory strictly before it. In training both passes run over whole clips in parallel; in a dream they run
over one frame against a ring of cached keys and values. So every training frame is a sample of the very task
that a dream poses (clean-ish past, noisy present), which plain diffusion forcing meets only by chance.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worldsim import diffusion
from worldsim.distributed import shared_count
from worldsim.dynamics.config import SIZES, DynamicsConfig
from worldsim.dynamics.denoiser import INNOVATION_BOUND, Denoiser
from worldsim.dynamics.dit import DiT, DiTOutput
from worldsim.dynamics.heads import OutcomeHead
from worldsim.dynamics.protocol import Dynamics, LatentClip, Outcome
from worldsim.dynamics.scale import Expectation


@dataclass(frozen=True)
class DiTState:
    """The past as the dynamics keeps it, one row per dream. `step` and `observe` consume it: they write into the ring.

    memory: ring of keys and values, (layers, 2, B, N + registers, heads, window - 1, head_width).
    filled: bool (B, window - 1), which slots of the ring hold frames of this row's episode. previous: (B, N, D), the
    last frame with its context noise. belief: (B, belief_size). clock: frames seen so far, common to all rows; in a
    step that is recorded as a CUDA graph a tensor (1,), int64.
    """

    memory: Tensor
    filled: Tensor
    previous: Tensor
    belief: Tensor
    clock: int | Tensor

    def clone(self) -> DiTState:
        """A copy that shares nothing, to branch a dream."""
        return DiTState(
            self.memory.clone(), self.filled.clone(), self.previous.clone(), self.belief.clone(), self.clock
        )

    def select_rows(self, rows: Tensor) -> DiTState:
        """A copy of some rows (R,), indices."""
        return DiTState(self.memory[:, :, rows], self.filled[rows], self.previous[rows], self.belief[rows], self.clock)


def band(frames: int, window: int, device: torch.device) -> Tensor:
    """bool (1, T, T): frame t sees the memory of the window - 1 frames before it."""
    distance = torch.arange(frames, device=device)[:, None] - torch.arange(frames, device=device)[None, :]
    return ((distance > 0) & (distance < window))[None]


def at_temperature(noise: Tensor, temperature: float | Tensor) -> Tensor:
    """Noise (B, T, N, D) whose variance is scaled, of all rows or of each (B,)."""
    spread = torch.as_tensor(temperature, dtype=torch.float64).sqrt().float().reshape(-1, 1, 1, 1)
    return noise * spread.to(noise.device)


class DiTDynamics(Dynamics):
    """DiT, heads, loss and the three ways to go forward: start, step, observe."""

    def __init__(
        self, config: DynamicsConfig, tokens: int, channels: int, grid: tuple[int, int], action_features: int
    ) -> None:
        super().__init__(config, tokens, channels, action_features)
        self.grid = grid
        self.dit = DiT(config, tokens, 3 * channels, channels, grid, action_features)
        self.sampler: DiT | None = None
        if config.distillation_steps:
            self.sampler = DiT(config, tokens, 3 * channels, channels, grid, action_features, only_time_blocks=True)
        self.head = OutcomeHead(
            config.belief_size, action_features, SIZES[config.size].width, config.reward_bins, config.head_dropout
        )

    @property
    def sampling_choices(self) -> tuple[int, ...]:
        """Those that training asked for: powers of two with shortcuts, else the finest alone; the small sampler's."""
        finest = self.config.finest_steps
        if self.config.shortcut_fraction:
            return tuple(2**power for power in range(finest.bit_length()))
        return tuple(sorted({finest} if self.sampler is None else {finest, self.config.sampling_steps}))

    def undistilled(self) -> DiTDynamics:
        """A copy without the network that only samples."""
        whole = copy.deepcopy(self)
        whole.config, whole.sampler = self.config.undistilled(), None
        return whole

    # Training

    def loss(self, clip: LatentClip, *, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Shortcut-forcing loss on the frames, cross-entropies on reward and termination; see the module's header."""
        batch, frames = clip.present.shape
        device = clip.latents.device
        context = clip.latents
        made = round(self.config.self_context_fraction * batch)
        if made:
            context = torch.cat([self._self_made(clip, made, generator), context[made:]])
        context = self._context_noised(context, _noise(context.shape, generator, device))
        memory_pass, student = self._read(context, clip.actions, clip.has_action)

        rows = round(self.config.shortcut_fraction * batch)
        levels = diffusion.draw_levels(batch, frames, self.config.finest_steps, rows, generator)
        tau, step_size = levels.tau.to(device), levels.step_size.to(device)
        target = student.innovation(clip.latents)
        noisy = diffusion.corrupt(target, _noise(target.shape, generator, device), tau)
        if rows:
            large = diffusion.NoiseLevels(tau[:rows], step_size[:rows])
            target = torch.cat([diffusion.shortcut_target(student.teacher(rows), noisy[:rows], large), target[rows:]])
        clean = student(noisy, tau, step_size)

        change = (clip.latents - _shift(clip.latents)).square().mean(-1)  # (B, T, N)
        token_weight = self.token_weight(change)
        # The first frame of a clip has no memory: nothing could predict it.
        known = clip.frame_valid & (torch.arange(frames, device=device) > 0)
        frame_weight = diffusion.ramp_weight(tau, self.config.finest_steps) * known
        # (B, T, N), in mean squared innovations whatever the noise
        error = (clean - target).square().mean(-1) * self.config.noise_scale**2
        latent_loss = (error * token_weight * frame_weight[..., None]).sum() / shared_count(
            (token_weight * known[..., None]).sum()
        )
        reward_loss, termination_loss = self.outcome_losses(memory_pass.belief[:, :-1], clip)
        total = (
            latent_loss + self.config.reward_weight * reward_loss + self.config.termination_weight * termination_loss
        )
        parts = {
            "latent": latent_loss,
            "reward": reward_loss,
            "termination": termination_loss,
            "change": (change * known[..., None]).sum() / shared_count(known.sum() * change.shape[-1]),
        }
        return total, {name: value.detach() for name, value in parts.items()}

    def token_weight(self, change: Tensor) -> Tensor:
        """How much each token counts in a loss, of the mean squared change of its latents since the last frame."""
        return 1 + self.config.change_weight * (change / self.config.change_scale).clamp(0, 1)

    @torch.no_grad()
    def termination_logits(self, clip: LatentClip, *, generator: torch.Generator) -> Tensor:
        """What the head says of the steps that led to the frames 1, 2, ... of a clip, (B, T - 1) float."""
        context = self._context_noised(clip.latents, _noise(clip.latents.shape, generator, clip.latents.device))
        memory_pass, _ = self._read(context, clip.actions, clip.has_action)
        return self.head(memory_pass.belief[:, :-1], clip.actions[:, 1:])[1]

    def _read(self, context: Tensor, actions: Tensor, has_action: Tensor) -> tuple[DiTOutput, Denoiser]:
        """The context pass over clips (B, T, N, D) with context noise, and the denoiser of all of their frames."""
        frames, device = context.shape[1], context.device
        previous = _shift(context)
        visible = band(frames, self.config.window, device)
        memory_pass = self._context_pass(context, previous, actions, has_action, visible)
        positions, past_belief = self._clip_positions(frames, device), _shift(memory_pass.belief)
        denoiser = Denoiser(
            self.config,
            self.scale,
            self.dit,
            previous,
            actions,
            has_action,
            past_belief,
            positions,
            memory_pass.memory,
            visible,
        )
        return memory_pass, denoiser

    def _context_pass(
        self, context: Tensor, previous: Tensor, actions: Tensor, has_action: Tensor, visible: Tensor
    ) -> DiTOutput:
        """The context pass over clips. context, previous: (B, T, N, D) with context noise. visible: as the DiT's."""
        batch, frames = has_action.shape
        tau = torch.full((batch, frames), 1 - self.config.context_noise, device=context.device)
        condition = self.dit.condition(tau, None, actions, has_action)
        positions = self._clip_positions(frames, context.device)
        return self.dit(self.context_inputs(context, previous), condition, None, positions, None, visible)

    @torch.no_grad()
    def _self_made(self, clip: LatentClip, rows: int, generator: torch.Generator) -> Tensor:
        """Latents (rows, T, N, D) of which a random half is replaced by the model's own one-step predictions."""
        real, actions, has_action = clip.latents[:rows], clip.actions[:rows], clip.has_action[:rows]
        frames, device = real.shape[1], real.device
        context = self._context_noised(real, _noise(real.shape, generator, device))
        _, denoiser = self._read(context, actions, has_action)
        noise = _noise(real.shape, generator, device)
        made = denoiser.latents(diffusion.sample(denoiser, noise, self.config.sampling_steps).latents)
        chosen = torch.rand(rows, frames, generator=generator, device=generator.device).to(device) < 0.5
        chosen = chosen & clip.frame_valid[:rows] & (torch.arange(frames, device=device) > 0)
        return torch.where(chosen[..., None, None], made, real)

    # Dreaming

    def start(self, latents: Tensor, actions: Tensor, has_action: Tensor, present: Tensor, noise: Tensor) -> DiTState:
        """State after frames (B, T, N, D) that end now, T from 1 to the window.

        actions: (B, T, A), has_action: bool (B, T). present: bool (B, T), False on the left where a row's history is
        shorter than T. noise: (B, T, N, D), unit normal.
        """
        batch, frames = present.shape
        device = latents.device
        context = self._context_noised(latents, noise)
        before = torch.cat([torch.zeros_like(present[:, :1]), present[:, :-1]], dim=1)
        previous = _shift(context) * before[..., None, None]
        visible = band(frames, self.config.window, device) & present[:, None, :]
        output = self._context_pass(context, previous, actions, has_action, visible)
        slots = self.config.window - 1
        kept = min(frames, slots)
        ring = output.memory.new_zeros(*output.memory.shape[:5], slots, output.memory.shape[-1])
        filled = torch.zeros(batch, slots, dtype=torch.bool, device=device)
        where = torch.arange(frames - kept, frames, device=device) % slots
        ring[..., where, :] = output.memory[..., frames - kept :, :]
        filled[:, where] = present[:, frames - kept :]
        return DiTState(ring, filled, context[:, -1], output.belief[:, -1], frames)

    def restart_rows(self, state: DiTState, rows: Tensor, fresh: DiTState) -> DiTState:
        """`state`, which is consumed, with `rows` (indices) replaced by those of `fresh`, whatever the clocks show.

        Keys are rotated by their position, so a ring written at another clock is turned, slot and angle, to this one.
        """
        assert isinstance(state.clock, int), "recordings hold single steps"
        assert isinstance(fresh.clock, int)
        shift = state.clock - fresh.clock
        slots = self.config.window - 1
        source = (torch.arange(slots, device=rows.device) - shift) % slots
        turned = fresh.memory[..., source, :]
        turns = torch.full((slots,), shift, device=rows.device) % (2 * self.config.window)
        turned = torch.stack([self.dit.time_rotary(turned[:, 0], turns), turned[:, 1]], dim=1)
        state.memory[:, :, rows] = turned  # in place: a copy of the ring costs as much as a denoising pass
        state.filled[rows] = fresh.filled[:, source]
        previous, belief = state.previous.clone(), state.belief.clone()
        previous[rows], belief[rows] = fresh.previous, fresh.belief
        return replace(state, previous=previous, belief=belief)

    def step(
        self, state: DiTState, actions: Tensor, noise: Tensor, sampling_steps: int, temperature: float | Tensor = 1.0
    ) -> tuple[DiTState, Outcome]:
        """Dream one frame. actions (B, A); noise (B, 2, N, D): [:, 0] starts the sampler, [:, 1] goes to the memory.

        temperature: scales the variance of the sampler's noise, of all rows or of each (B,).
        """
        distilled = self.sampler is not None and sampling_steps == self.config.sampling_steps
        denoiser = self.denoiser(state, actions, self.sampler if distilled else None)
        drawn = diffusion.sample(denoiser, at_temperature(noise[:, :1], temperature), sampling_steps)
        movement = drawn.movement[:, 0] * self.config.noise_scale**2
        return self.advance(state, denoiser.latents(drawn.latents), actions, noise[:, 1:], movement)

    def denoiser(self, state: DiTState, actions: Tensor, network: DiT | None = None) -> Denoiser:
        """Of the next frame after `state` and actions (B, A), by `network`, by default the one that was trained."""
        return Denoiser(
            self.config,
            self.scale,
            self.dit if network is None else network,
            state.previous[:, None],
            actions[:, None],
            torch.ones(actions.shape[0], 1, dtype=torch.bool, device=actions.device),
            state.belief[:, None],
            self._positions(state),
            state.memory,
            state.filled[:, None],
        )

    def observe(self, state: DiTState, latents: Tensor, actions: Tensor, noise: Tensor) -> tuple[DiTState, Outcome]:
        """The same update with a real frame: latents (B, N, D), actions (B, A), noise (B, 2, N, D)."""
        return self._written(state, latents[:, None], actions, noise[:, 1:], torch.zeros_like(latents[:, 0, 0]))

    def description(self) -> str:
        """For the model card."""
        parameters = sum(parameter.numel() for parameter in self.parameters()) / 1e6
        return (
            f"A diffusion-transformer world model ({parameters:.1f}M parameters, size `{self.config.size}`, "
            f"{self.config.sampling_steps} denoising steps a frame)"
        )

    def advance(
        self, state: DiTState, latents: Tensor, actions: Tensor, noise: Tensor, uncertainty: Tensor
    ) -> tuple[DiTState, Outcome]:
        """Go on with a dreamt frame (B, 1, N, D), which is bounded first; noise (B, 1, N, D) goes to the memory."""
        return self._written(state, self.scale.clamp(latents), actions, noise, uncertainty)

    def _written(
        self, state: DiTState, latents: Tensor, actions: Tensor, noise: Tensor, uncertainty: Tensor
    ) -> tuple[DiTState, Outcome]:
        """Write frame latents (B, 1, N, D) into the memory and read belief, reward and termination."""
        reward, termination = self.head.predict(state.belief, actions)
        context = self._context_noised(latents, noise)
        tau = torch.full(latents.shape[:2], 1 - self.config.context_noise, device=latents.device)
        has_action = torch.ones_like(tau, dtype=torch.bool)
        condition = self.dit.condition(tau, None, actions[:, None], has_action)
        output = self.dit(
            self.context_inputs(context, state.previous[:, None]),
            condition,
            None,
            self._positions(state),
            state.memory,
            state.filled[:, None],
        )
        slot = state.clock % (self.config.window - 1)
        if isinstance(slot, Tensor):
            state.memory.index_copy_(-2, slot, output.memory)
            state.filled.index_fill_(1, slot, True)
        else:
            state.memory[..., slot, :] = output.memory[..., 0, :]
            state.filled[:, slot] = True
        advanced = replace(state, previous=context[:, 0], belief=output.belief[:, 0], clock=state.clock + 1)
        return advanced, Outcome(latents[:, 0], output.belief[:, 0], reward, termination, uncertainty)

    def expectation(self, previous: Tensor) -> Expectation:
        """What is expected of latents (B, T, N, D) from their predecessors with context noise, same shape."""
        return self.scale.expectation(previous, self.config.context_noise)

    def context_inputs(self, context: Tensor, previous: Tensor) -> Tensor:
        """What the context pass reads of frames with context noise and their predecessors, (B, T, N, D): (B, T, N, 3D).

        The third part is the innovation in standard deviations: where frames move by a hundredth of their range, motion
        would else be lost in the rounding of bf16. First frames have no predecessor, so it is bounded.
        """
        expected = self.expectation(previous)
        signal = 1 - self.config.context_noise
        tau = torch.full(context.shape[:2], signal, device=context.device)
        innovation = diffusion.Prior(expected.spread).normalised(context - signal * expected.mean, tau)
        return torch.cat([context, previous, innovation.clamp(-INNOVATION_BOUND, INNOVATION_BOUND)], dim=-1)

    def _clip_positions(self, frames: int, device: torch.device) -> Tensor:
        return torch.arange(frames, device=device) % (2 * self.config.window)

    def _positions(self, state: DiTState) -> Tensor:
        position = state.clock % (2 * self.config.window)
        return position if isinstance(position, Tensor) else torch.tensor([position], device=state.belief.device)

    def _context_noised(self, latents: Tensor, noise: Tensor) -> Tensor:
        tau = torch.full(latents.shape[:2], 1 - self.config.context_noise, device=latents.device)
        return diffusion.corrupt(latents, noise, tau)


def _shift(frames: Tensor) -> Tensor:
    """Each frame's predecessor along axis 1; zeros before the first."""
    return torch.cat([torch.zeros_like(frames[:, :1]), frames[:, :-1]], dim=1)


def _noise(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device).to(device)
