"""The world model: tokenizer, dynamics, environment facts and start contexts, and how they dream together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worldsim.data.actions import action_features
from worldsim.data.episode import EnvSpec
from worldsim.device import autocast
from worldsim.dynamics.dit_dynamics import DiTDynamics
from worldsim.dynamics.protocol import Dynamics, DynamicsState, Outcome
from worldsim.dynamics.recorded import RecordedSteps
from worldsim.endings import EndingReader
from worldsim.errors import UserError
from worldsim.lookahead import action_risks, plan_risks, simple_plans
from worldsim.plan_reader import PlanReader
from worldsim.start_contexts import StartContexts
from worldsim.tokenizers.build import AnyTokenizer
from worldsim.world_state import DreamStep, WorldState


class WorldModel:
    """A trained world model, frozen; see `worldsim.model_folder` for how it lies on disk."""

    def __init__(
        self,
        spec: EnvSpec,
        tokenizer: AnyTokenizer,
        dynamics: Dynamics,
        start_contexts: StartContexts,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
        feature_frames: int = 1,
        stack_ages: Sequence[int] = (),
        endings: EndingReader | None = None,
        plans: PlanReader | None = None,
        uncertainty_quantiles: Mapping[float, float] | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        """Takes over the networks and casts them to `dtype`; of the reader of plans the products alone are in it.

        temperature: of its dreams unless a caller asks for another. feature_frames: how many frames back, the current
        one included, the observation "features" shows. stack_ages: which decoded frames "frame_stack" shows, by their
        age in steps, 0 being the current one; empty: there is no such observation, and agents read features.
        endings: foresees terminations in place of the dynamics' head. plans: foresees what plans lead to.
        uncertainty_quantiles: what share of steps from real moments is no more uncertain than what (see
        `worldsim.evaluation.uncertainty`). training: figures for the model card.
        """
        self.spec = spec
        self.device, self.dtype = torch.device(device), dtype
        self.tokenizer = tokenizer.to(self.device).requires_grad_(False).eval()
        self.dynamics = dynamics.to(self.device).requires_grad_(False).eval()
        self.endings = None if endings is None else endings.to(self.device).requires_grad_(False).eval()
        for network in (self.tokenizer, self.dynamics, self.endings):
            if network is not None:
                _cast_weights(network, dtype)
        self._recorded: RecordedSteps | None = None
        self.start_contexts = start_contexts
        self.temperature = temperature
        self.feature_frames = feature_frames
        self.stack_ages = tuple(stack_ages)
        self.plans = None if plans is None else plans.to(self.device).requires_grad_(False).eval()
        self.uncertainty_quantiles = dict(uncertainty_quantiles or {})
        self.training = training or {}

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(N, D)."""
        return self.tokenizer.latent_shape

    @property
    def belief_size(self) -> int:
        """Width of the belief vector."""
        return self.dynamics.belief_size

    @property
    def remembered_frames(self) -> int:
        """How many frames a state keeps as they were, the current one included: as many as somebody reads."""
        read = 1 if self.endings is None else self.endings.frames
        known = 1 if self.plans is None else self.plans.config.actions_before
        return max(self.feature_frames, read, known)

    @property
    def decoded_frames(self) -> int:
        """How many frames a state keeps as the tokenizer draws them: up to the oldest that agents or plans see."""
        seen_by_plans = () if self.plans is None else self.plans.config.ages
        return 1 + max((*self.stack_ages, *seen_by_plans), default=-1)

    @property
    def longest_start(self) -> int:
        """How many frames of the past somebody looks back at where a dream begins, the current one included."""
        return max(self.dynamics.config.window, self.remembered_frames, self.decoded_frames)

    @property
    def agent_observation(self) -> str:
        """What an agent of this model's dreams reads, a key of `worldsim.observations`."""
        return "frame_stack" if self.stack_ages else "features"

    def checked_steps(self, asked: int | None) -> int:
        """The denoising steps of a dream, by default the model's own. UserError for others than it was trained for."""
        choices = self.dynamics.sampling_choices
        steps = self.dynamics.config.sampling_steps if asked is None else asked
        if steps not in choices:
            raise UserError(f"sampling_steps={steps}: this world model takes {' or '.join(map(str, choices))}")
        return steps

    def uncertainty_quantile(self, quantile: float) -> float:
        """The uncertainty that this share of steps from real moments does not pass. UserError if it is not known."""
        if quantile not in self.uncertainty_quantiles:
            known = ", ".join(f"{level:g}" for level in sorted(self.uncertainty_quantiles)) or "none"
            raise UserError(
                f"uncertainty_quantile={quantile}: this world model knows {known}; give a number as uncertainty_limit"
            )
        return self.uncertainty_quantiles[quantile]

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 frames (..., H, W, C) -> unit-scale latents (..., N, D)."""
        return self.dynamics.scale.to_unit(self.tokenizer.encode(frames.to(self.device)))

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Unit-scale latents (..., N, D) -> uint8 frames (..., H, W, C)."""
        return self.tokenizer.decode(self.dynamics.scale.from_unit(latents))

    def frames_of(self, state: WorldState) -> Tensor:
        """The current frames of a state, uint8 (B, H, W, C): an ordinary tensor of its own."""
        return (state.decoded[-1] if state.decoded else self.decode(state.latents)).clone()

    @torch.inference_mode()
    def start(
        self,
        latents: Tensor,
        actions: Tensor,
        has_action: Tensor,
        present: Tensor,
        generators: Sequence[torch.Generator],
    ) -> WorldState:
        """State after T >= 1 real frames given as unit-scale latents (B, T, N, D).

        The dynamics see the last of them, as many as their window takes; older ones serve whoever reads past frames.

        actions: (B, T[, A]), the action that led to each frame. has_action: bool (B, T), False at an episode's first
        frame. present: bool (B, T), False on the left where the history is shorter. generators: one per row (CPU).
        """
        batch, frames = present.shape
        if not frames:
            raise ValueError("start needs at least one frame")
        if len(generators) != batch:
            raise ValueError(f"start needs a generator for each of {batch} rows, got {len(generators)}")
        has_action = (has_action & present).to(self.device)
        features = action_features(self.spec, actions).to(self.device) * has_action[..., None]
        seen = slice(-min(frames, self.dynamics.config.window), None)
        noise = self._draw(generators, min(frames, self.dynamics.config.window))
        latents = latents.to(self.device)
        shown_frames = present.to(self.device)[:, seen]
        state = self.dynamics.start(latents[:, seen], features[:, seen], has_action[:, seen], shown_frames, noise)
        latents = latents.float()
        change = torch.zeros_like(latents)
        change[:, 1:] = (latents[:, 1:] - latents[:, :-1]) * has_action[:, 1:, None, None]
        shown = torch.cat([latents.flatten(2), change.flatten(2), features], dim=2) * present.to(self.device)[..., None]
        slots, kept = self.remembered_frames - 1, min(frames, self.remembered_frames) - 1
        past = shown.new_zeros(batch, slots, shown.shape[2])
        past[:, slots - kept :] = shown[:, frames - 1 - kept : frames - 1]
        readings: tuple[Tensor, ...] = ()
        if self.endings is not None:
            readings = self.endings.read(past[:, slots + 1 - self.endings.frames :]).unbind(1)
        decoded = self._last_decoded(latents, present.to(self.device)).unbind(1)
        now = latents[:, -1], change[:, -1], features[:, -1]
        return WorldState(state, *now, past.unbind(1), decoded, readings, tuple(generators))

    def start_from(self, contexts: StartContexts, generators: Sequence[torch.Generator]) -> WorldState:
        """State after the given contexts (B,), a row each."""
        latents = self.dynamics.scale.to_unit(contexts.latents.to(self.device).float())
        latents = latents * contexts.present.to(self.device)[..., None, None]
        return self.start(latents, contexts.actions, contexts.has_action, contexts.present, generators)

    def start_episode(self, frames: Tensor, generators: Sequence[torch.Generator]) -> WorldState:
        """State at the first real frames (B, H, W, C), uint8, of episodes."""
        batch = len(frames)
        actions = torch.zeros(batch, 1, *self.spec.action_shape, dtype=torch.from_numpy(_no_action(self.spec)).dtype)
        nothing, something = torch.zeros(batch, 1, dtype=torch.bool), torch.ones(batch, 1, dtype=torch.bool)
        return self.start(self.encode(frames)[:, None], actions, nothing, something, generators)

    @torch.inference_mode()
    def step(
        self,
        state: WorldState,
        actions: Tensor,
        *,
        temperature: float | Tensor | None = None,
        sampling_steps: int | None = None,
    ) -> tuple[WorldState, DreamStep]:
        """Dream one frame. actions: (B,) or (B, K) int64, or (B, A) float32.

        temperature: scales the variance of the noise, of all rows or of each (B,); None: the model's own.
        sampling_steps: denoising steps; None: the model's own. Raises UserError for others than it was trained for.
        """
        features = action_features(self.spec, actions).to(self.device)
        steps = self.checked_steps(sampling_steps)
        given = self.temperature if temperature is None else temperature
        variance = torch.as_tensor(given, dtype=torch.float64).reshape(-1).to(self.device)
        noise = self._draw(state.generators, 2)  # last: what is refused draws nothing
        dynamics, outcome = self._dream()(state.dynamics, features, noise, steps, variance)
        return self._advanced(state, dynamics, outcome, features)

    @torch.inference_mode()
    def observe(self, state: WorldState, frames: Tensor, actions: Tensor) -> tuple[WorldState, DreamStep]:
        """The same update with real frames uint8 (B, H, W, C) and the actions (B[, A]) that led to them."""
        features, latents = action_features(self.spec, actions).to(self.device), self.encode(frames)
        dynamics, outcome = self.dynamics.observe(state.dynamics, latents, features, self._draw(state.generators, 2))
        return self._advanced(state, dynamics, outcome, features)

    def action_risks(self, state: WorldState) -> Tensor:
        """(B, actions), of each action how likely the best simple plan that begins with it is to end the episode.

        Raises UserError without a reader of plans, and for actions that are not discrete.
        """
        choices = self.spec.action_choices
        if choices is None or self.spec.action_shape:
            raise UserError(f"{self.spec.id} has actions {self.spec.action_space}: plans need discrete ones")
        config = self._plan_reader().config
        plans = simple_plans(choices[0], config.horizon, config.changes)
        return action_risks(self.plan_risks(state, plans), plans)

    @torch.inference_mode()
    def plan_risks(self, state: WorldState, plans: Tensor, *, afterwards: bool = True) -> Tensor:
        """(B, P), how likely each plan is to end the episode, by what the reader of plans sees: no frame is dreamt.

        plans: (P, H[, A]) actions, H up to the reader's horizon. afterwards: what whole plans lead to in the steps
        after them counts as well, by the reader's `afterwards_weight`. Raises UserError for longer plans, and without a
        reader of plans.
        """
        reader = self._plan_reader()
        if plans.shape[1] > reader.config.horizon:
            raise UserError(f"plans of {plans.shape[1]} steps: this world model foresees {reader.config.horizon}")
        pictures = torch.stack([state.decoded[-1 - age] for age in reader.config.ages], dim=1)
        features = action_features(self.spec, plans).to(self.device)  # (P, H, A)
        taken = state.actions(reader.config.actions_before)
        with autocast(self.device, self.dtype):  # as in its training
            logits = reader(pictures, taken, features[None])
        config = reader.config
        weight = config.afterwards_weight if afterwards else 0.0
        return plan_risks(logits, config.discount, horizon=config.horizon, afterwards_weight=weight)

    def _plan_reader(self) -> PlanReader:
        if self.plans is None:
            raise UserError(f"this world model of {self.spec.id} has no reader of plans: train one with plans.steps")
        return self.plans

    @torch.inference_mode()
    def restart_rows(self, state: WorldState, rows: Tensor, contexts: StartContexts) -> WorldState:
        """`state`, consumed, with `rows` (R,) begun anew from `contexts` (R), drawing on the rows' own generators."""
        return self.replace_rows(
            state, rows, self.start_from(contexts, [state.generators[row] for row in rows.tolist()])
        )

    @torch.inference_mode()
    def replace_rows(self, state: WorldState, rows: Tensor, fresh: WorldState) -> WorldState:
        """`state`, consumed, with `rows` (R,) replaced by those of `fresh` (R); it keeps its generators."""
        dynamics = self.dynamics.restart_rows(state.dynamics, rows, fresh.dynamics)
        return state.with_rows(rows, fresh, dynamics)

    def _advanced(
        self, state: WorldState, dynamics: DynamicsState, outcome: Outcome, action: Tensor
    ) -> tuple[WorldState, DreamStep]:
        """The state one frame after `state`, and what that step shows. action: (B, A) features."""
        shown, readings = state.shown, state.readings
        if self.endings is not None:
            readings = (*readings, self.endings.read(shown))
            actions = torch.cat([state.actions(self.endings.frames), action[:, None]], dim=1)
            logits = self.endings.foresee(readings, actions)
            outcome = replace(outcome, termination_probability=logits.sigmoid())
        change = outcome.latents - state.latents
        past, decoded, readings = (*state.past, shown)[1:], state.decoded, readings[1:]
        if decoded:
            decoded = (*decoded[1:], self.decode(outcome.latents))
        after = WorldState(dynamics, outcome.latents, change, action, past, decoded, readings, state.generators)
        return after, DreamStep(**vars(outcome))

    def _last_decoded(self, latents: Tensor, present: Tensor) -> Tensor:
        """The frames of a history (B, T, N, D) that a state keeps, uint8 (B, S, H, W, C). present: bool (B, T)."""
        batch, frames = present.shape
        if not self.decoded_frames:
            return torch.empty(batch, 0, *self.spec.frame_shape, dtype=torch.uint8, device=self.device)
        moments = torch.arange(frames - self.decoded_frames, frames, device=self.device)
        moments = torch.maximum(moments, (~present).sum(1, keepdim=True))  # (B, S)
        return self.decode(latents[torch.arange(batch, device=self.device)[:, None], moments])

    def _dream(self) -> Callable[..., tuple[Any, Outcome]]:
        """How the dynamics step: on a GPU the DiT's are recorded as CUDA graphs."""
        if not isinstance(self.dynamics, DiTDynamics) or self.device.type != "cuda":
            return self.dynamics.step
        if self._recorded is None or self._recorded.dynamics is not self.dynamics:
            self._recorded = RecordedSteps(self.dynamics)
        return self._recorded

    def _draw(self, generators: Sequence[torch.Generator], frames: int) -> Tensor:
        """Unit normal noise (B, frames, N, D), each row from its own generator."""
        shape = (frames, *self.latent_shape)
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(self.device)


def row_generator(seed: int) -> torch.Generator:
    """The random generator of a dream row with this seed, any integer from 0 on."""
    if seed >= 2**32:  # of which torch would take the lower half alone
        seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return torch.Generator().manual_seed(seed)


def seed_rows(generators: list[torch.Generator], seed: int | list[int | None] | None, rows: NDArray[np.int64]) -> None:
    """New generators for some rows (R,): row i is seeded seed + i, or with seeds[i]; without a seed it keeps its own.

    Raises UserError for a list that has not one seed for each generator.
    """
    seeds = seed if isinstance(seed, list) else [None if seed is None else seed + i for i in range(len(generators))]
    if len(seeds) != len(generators):
        raise UserError(f"{len(seeds)} seeds for {len(generators)} rows")
    for row in rows:
        given = seeds[row]
        if given is not None:
            generators[row] = row_generator(given)


@contextmanager
def without_draws(generators: Sequence[torch.Generator]) -> Iterator[None]:
    """What is drawn from them inside is as if it had not been: rows that go along in a batch for nothing."""
    before = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def _no_action(spec: EnvSpec) -> Any:
    return np.zeros(spec.action_shape, spec.action_dtype)


def _cast_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Parameters to `dtype`; buffers (tables of angles and bins) keep their precision."""
    for parameter in network.parameters():
        parameter.data = parameter.data.to(dtype)
