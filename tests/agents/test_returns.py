"""Lambda-returns against a loop over definitions and against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldsim.agents.returns import lambda_returns


def forward_view(
    rewards: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor, gamma: float, lam: float
) -> Tensor:
    """The definition: for each step the lambda-weighted mean of all n-step returns up to the end of its segment."""
    steps, rows = rewards.shape
    returns = torch.zeros(steps, rows, dtype=rewards.dtype)
    for row in range(rows):
        for start in range(steps):
            n_step_returns, rewarded = [], 0.0
            for n, t in enumerate(range(start, steps)):
                rewarded += gamma**n * float(rewards[t, row])
                bootstrap = 0.0 if terminated[t, row] else gamma ** (n + 1) * float(next_values[t, row])
                n_step_returns.append(rewarded + bootstrap)
                if terminated[t, row] or truncated[t, row]:
                    break
            last = len(n_step_returns) - 1
            weights = [(1 - lam) * lam**n for n in range(last)] + [lam**last]
            returns[start, row] = sum(w * g for w, g in zip(weights, n_step_returns, strict=True))
    return returns


@pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.95), (0.9, 0.5), (1.0, 0.0), (0.0, 0.95), (1.0, 1.0)])
def test_equals_the_forward_view(gamma: float, lam: float) -> None:
    generator = torch.Generator().manual_seed(0)
    shape = (17, 6)
    rewards, values = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    terminated, truncated = torch.rand(2, *shape, generator=generator) < 0.15
    assert (terminated & truncated).any()
    assert (terminated ^ truncated).any()
    fast = lambda_returns(rewards, values, (~terminated).double(), terminated | truncated, gamma, lam)
    torch.testing.assert_close(fast, forward_view(rewards, values, terminated, truncated, gamma, lam))


def test_without_discount_and_decay_it_is_the_monte_carlo_return() -> None:
    rewards = torch.arange(1.0, 6.0)[:, None]
    never, wrong_values = torch.zeros(5, 1, dtype=torch.bool), torch.full((5, 1), 1000.0)
    last, always, until_last = never.clone(), torch.ones(5, 1), torch.ones(5, 1)
    last[-1], until_last[-1] = True, 0.0
    monte_carlo = torch.tensor([15.0, 14.0, 12.0, 9.0, 5.0])[:, None]
    torch.testing.assert_close(lambda_returns(rewards, wrong_values, until_last, last, 1.0, 1.0), monte_carlo)
    torch.testing.assert_close(lambda_returns(rewards, wrong_values, always, last, 1.0, 1.0), monte_carlo + 1000)
    torch.testing.assert_close(lambda_returns(rewards, wrong_values, always, never, 1.0, 1.0), monte_carlo + 1000)


def test_true_values_are_a_fixed_point() -> None:
    # Reward 1 forever: V = 1 / (1 - gamma) whatever lambda, and truncations change nothing.
    gamma, shape = 0.9, (8, 3)
    values = torch.full(shape, 1 / (1 - gamma))
    truncated = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.3
    returns = lambda_returns(torch.ones(shape), values, torch.ones(shape), truncated, gamma, 0.7)
    torch.testing.assert_close(returns, values)


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_a_probability_stands_for_the_mean_of_draws(lam: float) -> None:
    # With true values, an ending drawn with probability p and one that is only expected have the same mean return.
    hazard, gamma, draws = 0.3, 0.9, 200_000
    value = torch.full((1, draws), 1 / (1 - gamma * (1 - hazard)))
    terminated = torch.rand(1, draws, generator=torch.Generator().manual_seed(0)) < hazard
    rewards = torch.ones(1, draws)
    drawn = lambda_returns(rewards, value, (~terminated).float(), terminated, gamma, lam)
    expected = lambda_returns(rewards, value, torch.full((1, draws), 1 - hazard), terminated, gamma, lam)
    torch.testing.assert_close(expected, value)
    torch.testing.assert_close(drawn.mean(), value.mean(), rtol=0.01, atol=0.0)
    assert drawn.std() > 1


def test_unequal_shapes_are_refused() -> None:
    flags = torch.zeros(4, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"one shape \(T, B\)"):
        lambda_returns(torch.zeros(4, 2), torch.zeros(5, 2), torch.ones(4, 2), flags, 0.99, 0.95)
