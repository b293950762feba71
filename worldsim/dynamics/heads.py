"""What a step brings besides the next frame: reward and termination, read from the belief before it and the action."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldsim.dynamics.calibration import rescale_logits


def symlog(values: Tensor) -> Tensor:
    """sign(x) ln(|x| + 1) (DreamerV3, arXiv 2301.04104, equation 9)."""
    return values.sign() * values.abs().log1p()


def symexp(values: Tensor) -> Tensor:
    """Inverse of symlog."""
    return values.sign() * values.abs().expm1()


class TwoHot(nn.Module):
    """Scalars as a distribution over two neighbouring bins in symlog space (DreamerV3, equations 9 and 10)."""

    centres: Tensor

    def __init__(self, bins: int, limit: float = 10.0) -> None:
        super().__init__()
        self.register_buffer("centres", torch.linspace(-limit, limit, bins), persistent=False)

    def encode(self, values: Tensor) -> Tensor:
        """(...) -> probabilities (..., bins), which `decode` maps back to the values."""
        low, high = symexp(self.centres[:-1]), symexp(self.centres[1:])
        limited = values.clamp(low[0], high[-1])
        index = (torch.searchsorted(low, limited.contiguous(), right=True) - 1).clamp(0, len(low) - 1)
        share = (limited - low[index]) / (high[index] - low[index])
        encoded = values.new_zeros(*values.shape, len(self.centres))
        encoded.scatter_(-1, index[..., None], 1 - share[..., None])
        encoded.scatter_(-1, index[..., None] + 1, share[..., None])
        return encoded

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (..., bins) -> expected values (...)."""
        return (logits.float().softmax(-1) * symexp(self.centres.float())).sum(-1)


class OutcomeHead(nn.Module):
    """Reward and termination of a step from the belief before it and the action taken.

    The frame after the step is not consulted: at the end of an episode it may be blank (ViZDoom) or missing, and a head
    that sees it learns to recognise the blank instead of the danger.
    """

    def __init__(self, belief_size: int, action_features: int, hidden: int, reward_bins: int, dropout: float) -> None:
        super().__init__()
        # A data set holds a few hundred endings: without dropout the head learns them by heart.
        self.dropout = nn.Dropout(dropout)
        self.trunk = nn.Sequential(
            nn.Linear(belief_size + action_features, hidden),
            nn.Sequential(nn.SiLU(), self.dropout),
            nn.Linear(hidden, hidden),
            nn.Sequential(nn.SiLU(), self.dropout),
        )
        self.reward = nn.Linear(hidden, reward_bins)
        self.termination = nn.Linear(hidden, 1)
        self.two_hot = TwoHot(reward_bins)
        nn.init.zeros_(self.reward.weight)
        nn.init.zeros_(self.termination.weight)

    def forward(self, belief: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """belief (..., belief_size), actions (..., A) -> reward logits (..., bins), termination logits (...)."""
        dtype = self.reward.weight.dtype
        hidden = self.trunk(torch.cat([self.dropout(belief), actions], dim=-1).to(dtype))
        return self.reward(hidden).float(), self.termination(hidden)[..., 0].float()

    def losses(
        self, belief: Tensor, actions: Tensor, rewards: Tensor, terminated: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weighted means of the cross-entropies of reward and termination.

        belief (..., belief_size), actions (..., A), rewards, terminated and weight (...). The weight undoes the
        sampler's taste for endings, so that probabilities are those of the data.
        """
        reward_logits, termination_logits = self(belief, actions)
        reward = -(self.two_hot.encode(rewards) * reward_logits.log_softmax(-1)).sum(-1)
        termination = F.binary_cross_entropy_with_logits(termination_logits, terminated.float(), reduction="none")
        return (weight * reward).mean(), (weight * termination).mean()

    def rescale_termination(self, scale: float, shift: float) -> None:
        """From now on the logit of a termination is scale * logit + shift."""
        rescale_logits(self.termination, scale, shift)

    def predict(self, belief: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Expected reward and termination probability, each (...)."""
        reward_logits, termination_logits = self(belief, actions)
        return self.two_hot.decode(reward_logits), termination_logits.sigmoid()
