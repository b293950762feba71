"""The dynamics of VideoGPT (Yan et al. 2021, arXiv 2104.10157): a causal transformer over the codes of frames.

A frame is N + 1 tokens: the action that led to it, then its codes in raster order. Each predicts the code that comes
next; the last one, which has read the whole frame, gives the belief. A token sees those before it in its own frame and
all tokens of the window's earlier frames.

The paper's prior is conditioned on actions through its layer norms and generates a fixed stretch of video; here actions
are tokens, a window slides, and reward and termination are read from the belief before the step, as elsewhere here. The
belief is also added to the stream that predicts the next frame, so that it learns from frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.codebook import nearest_code
from worldsim.distributed import shared_count
from worldsim.dynamics.categorical import draw, entropy
from worldsim.dynamics.causal_transformer import CausalTransformer
from worldsim.dynamics.config import SIZES, DynamicsConfig
from worldsim.dynamics.heads import OutcomeHead
from worldsim.dynamics.protocol import Dynamics, LatentClip, Outcome


@dataclass(frozen=True)
class VideoGptState:
    """memory: keys and values of the last window - 1 frames, oldest first, (layers, 2, B, heads, (window - 1) (N + 1),
    M / heads). filled: bool (B, window - 1), which of them are there. belief: (B, belief_size) float32.
    """

    memory: Tensor
    filled: Tensor
    belief: Tensor

    def clone(self) -> VideoGptState:
        """A copy that shares nothing, to branch a dream."""
        return VideoGptState(self.memory.clone(), self.filled.clone(), self.belief.clone())

    def select_rows(self, rows: Tensor) -> VideoGptState:
        """A copy of some rows (R,), indices."""
        return VideoGptState(self.memory[:, :, rows], self.filled[rows], self.belief[rows])


@dataclass(frozen=True)
class _Read:
    """What the transformer makes of frames. stream: (B, T, N + 1, M). belief: (B, T, belief_size) float32. memory:
    their keys and values, (layers, 2, B, heads, T (N + 1), M / heads).
    """

    stream: Tensor
    belief: Tensor
    memory: Tensor


class VideoGptDynamics(Dynamics):
    """Transformer, codes and heads. codebook: float32 (K, D), the codes as raw latents."""

    codebook: Tensor

    def __init__(
        self,
        config: DynamicsConfig,
        tokens: int,
        channels: int,
        action_features: int,
        codebook: Tensor,
    ) -> None:
        super().__init__(config, tokens, channels, action_features)
        size = SIZES[config.size]
        self.register_buffer("codebook", codebook.detach().float().clone())
        self.read_code = nn.Linear(channels, size.width)
        self.read_action = nn.Linear(action_features, size.width)
        self.no_action = nn.Parameter(torch.empty(size.width))
        self.places = nn.Parameter(torch.empty(tokens + 1, size.width))
        self.transformer = CausalTransformer(size.width, size.heads, size.depth, config.window)
        self.to_belief = nn.Linear(size.width, config.belief_size)
        self.from_belief = nn.Linear(config.belief_size, size.width)
        self.norm = nn.LayerNorm(size.width)
        self.to_codes = nn.Linear(size.width, len(codebook))
        self.head = OutcomeHead(
            config.belief_size, action_features, size.width, config.reward_bins, config.head_dropout
        )
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Places and no_action ~ N(0, 0.1^2); to_codes 0, so that all codes are alike at first; the rest as made."""
        self.places.normal_(0.0, 0.1)
        self.no_action.normal_(0.0, 0.1)
        nn.init.zeros_(self.to_codes.weight)
        nn.init.zeros_(self.to_codes.bias)

    @torch.no_grad()
    def follow_codes(self, codes: Tensor) -> None:
        """Take over the codes (K, D) of a tokenizer that was refined. What code k is moved; it still is code k."""
        self.codebook.copy_(codes)

    def indices(self, latents: Tensor) -> Tensor:
        """Unit-scale latents (..., N, D) -> int64 numbers of their codes (..., N), the nearest ones."""
        return nearest_code(self.scale.from_unit(latents.float()), self.codebook)

    def latents(self, indices: Tensor) -> Tensor:
        """Codes (..., N) -> unit-scale latents float32 (..., N, D).

        Not clamped: any code is a latent that the decoder was trained on, be it in another place.
        """
        return self.scale.to_unit(self.codebook[indices])

    # Training

    def loss(self, clip: LatentClip, *, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropies of the codes, in nats a code, and of reward and termination.

        Nothing is drawn from the generator. The part "latent" is the squared error of the expected latents, where each
        code is expected from the true ones before it; "code_bits" are those that all codes of a frame cost.
        """
        indices = self.indices(clip.latents)
        read = self._read(indices, clip.actions, clip.has_action, _everywhere(clip.present))
        logits = self._code_logits(read.stream[:, 1:, :-1], read.belief[:, :-1, None])  # (B, T - 1, N, K)
        known = (clip.frame_valid[:, 1:] & clip.frame_valid[:, :-1]).float()[..., None]
        tokens, channels = self.latent_shape
        count = shared_count(known.sum()) * tokens
        surprise = F.cross_entropy(logits.flatten(0, 2), indices[:, 1:].flatten(), reduction="none")
        likelihood = (surprise.view(known.shape[0], -1, tokens) * known).sum() / count
        reward, termination = self.outcome_losses(read.belief[:, :-1], clip)
        total = likelihood + self.config.reward_weight * reward + self.config.termination_weight * termination
        with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
            expected = self.scale.to_unit(logits.softmax(-1) @ self.codebook)
            error = ((expected - clip.latents[:, 1:]).square() * known[..., None]).sum() / (count * channels)
            change = (clip.latents.diff(dim=1).square() * known[..., None]).sum() / (count * channels)
        parts = {
            "latent": error,
            "likelihood": likelihood,
            "code_bits": likelihood * tokens / torch.log(torch.tensor(2.0)),
            "reward": reward,
            "termination": termination,
            "change": change,
        }
        return total, {name: value.detach() for name, value in parts.items()}

    @torch.no_grad()
    def termination_logits(self, clip: LatentClip, *, generator: torch.Generator) -> Tensor:
        """What the head says of the steps that led to the frames 1, 2, ... of a clip, (B, T - 1) float."""
        read = self._read(self.indices(clip.latents), clip.actions, clip.has_action, _everywhere(clip.present))
        return self.head(read.belief[:, :-1], clip.actions[:, 1:])[1]

    def _read(self, indices: Tensor, actions: Tensor, has_action: Tensor, present: Tensor) -> _Read:
        """Frames that see those before them.

        indices: (B, T, N). actions: (B, T, A). has_action: bool (B, T). present: bool (B or 1, T), which may be seen.
        """
        tokens = torch.cat([self._action_token(actions, has_action)[:, :, None], self._code_tokens(indices)], dim=2)
        bias = self.transformer.bias_of_clip(present, tokens.shape[2])
        stream, memory = self.transformer(tokens.flatten(1, 2), [], bias)
        stream = stream.unflatten(1, tokens.shape[1:3])  # (B, T, N + 1, M)
        return _Read(stream, self._belief(stream[:, :, -1]), memory)

    def _action_token(self, actions: Tensor, has_action: Tensor) -> Tensor:
        """actions (..., A), has_action bool (...) -> (..., M)."""
        acted = self.read_action(actions.to(self.read_action.weight.dtype))
        return torch.where(has_action[..., None], acted, self.no_action.to(acted.dtype)) + self.places[0]

    def _code_tokens(self, indices: Tensor) -> Tensor:
        """indices (..., N) -> (..., N, M)."""
        return self.read_code(self.latents(indices).to(self.read_code.weight.dtype)) + self.places[1:]

    def _belief(self, last: Tensor) -> Tensor:
        """The stream (..., M) at the last token of a frame -> (..., belief_size) float32 in [-1, 1]."""
        return self.to_belief(last).float().tanh()

    def _code_logits(self, stream: Tensor, belief: Tensor) -> Tensor:
        """Float (..., K), of the codes that come next. stream: (..., M). belief: (..., belief_size), before it."""
        told = self.from_belief(belief.to(self.from_belief.weight.dtype))
        return self.to_codes(self.norm(stream + told)).float()

    # Dreaming

    def start(
        self, latents: Tensor, actions: Tensor, has_action: Tensor, present: Tensor, noise: Tensor
    ) -> VideoGptState:
        """State after frames (B, T, N, D) that end now; see Dynamics. The noise is of no use: frames are read as they
        are.
        """
        read = self._read(self.indices(latents), actions, has_action, present)
        places, slots = self.latent_shape[0] + 1, self.config.window - 1
        missing = max(0, slots - present.shape[1])
        memory = F.pad(read.memory, (0, 0, missing * places, 0))[..., -slots * places :, :]
        return VideoGptState(memory, F.pad(present, (missing, 0))[:, -slots:], read.belief[:, -1])

    def restart_rows(self, state: VideoGptState, rows: Tensor, fresh: VideoGptState) -> VideoGptState:
        """`state` with `rows` (indices) replaced by the rows of `fresh`."""
        changed = state.clone()
        changed.memory[:, :, rows], changed.filled[rows] = fresh.memory, fresh.filled
        changed.belief[rows] = fresh.belief
        return changed

    def step(
        self,
        state: VideoGptState,
        actions: Tensor,
        noise: Tensor,
        sampling_steps: int,
        temperature: float | Tensor = 1.0,
    ) -> tuple[VideoGptState, Outcome]:
        """Dream one frame, code by code. actions (B, A); noise (B, 2, N, D), of which [:, 0, n, 0] picks the n-th code.

        temperature: divides the codes' logits. `sampling_steps` is of no use. The uncertainty is the mean entropy of
        the codes in nats, at temperature 1.
        """
        tokens = self.latent_shape[0]
        each = torch.as_tensor(temperature).reshape(-1).to(actions.device).expand(len(actions))
        bias = self.transformer.bias_of_frame(state.filled, tokens + 1)
        memory_length = state.memory.shape[-2]
        shape = (*state.memory.shape[:4], tokens + 1, state.memory.shape[-1])
        own = state.memory.new_empty(shape)
        everyone = torch.ones(len(actions), dtype=torch.bool, device=actions.device)
        token = self._action_token(actions, everyone)
        drawn, surprises = [], []
        for place in range(tokens + 1):
            visible = bias[:, :, place : place + 1, : memory_length + place + 1]
            stream, keys = self.transformer(token[:, None], [state.memory, own[..., :place, :]], visible)
            own[..., place : place + 1, :] = keys
            if place == tokens:
                break
            logits = self._code_logits(stream[:, 0], state.belief)
            index = draw(logits, noise[:, 0, place, 0], each)
            drawn.append(index)
            surprises.append(entropy(logits))
            code = self.scale.to_unit(self.codebook[index][:, None])[:, place]  # (B, D)
            token = self.read_code(code.to(self.read_code.weight.dtype)) + self.places[place + 1]
        uncertainty = torch.stack(surprises).mean(0)
        return self._outcome(state, self.latents(torch.stack(drawn, dim=1)), own, stream[:, 0], actions, uncertainty)

    def observe(
        self, state: VideoGptState, latents: Tensor, actions: Tensor, noise: Tensor
    ) -> tuple[VideoGptState, Outcome]:
        """The same update with a real frame: latents (B, N, D), actions (B, A); the noise is of no use."""
        everyone = torch.ones(len(actions), dtype=torch.bool, device=actions.device)
        action = self._action_token(actions, everyone)[:, None]
        tokens = torch.cat([action, self._code_tokens(self.indices(latents))], dim=1)
        bias = self.transformer.bias_of_frame(state.filled, tokens.shape[1])
        stream, own = self.transformer(tokens, [state.memory], bias)
        nothing = torch.zeros(len(actions), device=actions.device)
        return self._outcome(state, latents.float(), own, stream[:, -1], actions, nothing)

    def description(self) -> str:
        """For the model card."""
        parameters = sum(parameter.numel() for parameter in self.parameters()) / 1e6
        return (
            f"A causal-transformer world model over codes ({parameters:.1f}M parameters, size `{self.config.size}`, "
            f"{len(self.codebook)} codes; after VideoGPT, Yan et al. 2021)"
        )

    def _outcome(
        self, state: VideoGptState, latents: Tensor, own: Tensor, last: Tensor, actions: Tensor, uncertainty: Tensor
    ) -> tuple[VideoGptState, Outcome]:
        """Push a frame's keys and values `own` into the memory; last: the stream (B, M) at its last token."""
        reward, termination = self.head.predict(state.belief, actions)
        belief = self._belief(last)
        memory = torch.cat([state.memory[..., own.shape[-2] :, :], own], dim=-2)
        filled = torch.cat([state.filled[:, 1:], torch.ones_like(state.filled[:, :1])], dim=1)
        return VideoGptState(memory, filled, belief), Outcome(latents, belief, reward, termination, uncertainty)


def _everywhere(present: Tensor) -> Tensor:
    """Bool (1, T), all True: in clips (B, T) only what comes after an episode is missing, and nothing looks ahead."""
    return torch.ones_like(present[:1])
