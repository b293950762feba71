"""Pictures as network inputs, and the convolutions that policy and value share."""

from __future__ import annotations

import pytest
import torch

from tests.agents.vector_envs import BrightSide
from worldsim.agents.actor_critic import ActorCriticLearner
from worldsim.agents.config import ActorCriticConfig, check_config
from worldsim.agents.errors import AgentConfigError, UnusableSpaceError
from worldsim.agents.pictures import Pictures, usual_strides


def random_pictures(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("side", "strides"), [(8, [1, 2]), (16, [1, 2, 2]), (32, [4, 2]), (64, [4, 2, 2]), (84, [4, 2, 2])]
)
def test_usual_strides_leave_a_few_pixels(side: int, strides: list[int]) -> None:
    assert usual_strides(side, side + 10) == [(stride, stride) for stride in strides]


@pytest.mark.parametrize("strides", [(), ((4, 2), (4, 2), (4, 1)), ((3, 5),)])
@pytest.mark.parametrize("shape", [(64, 64, 5), (70, 81, 5)])
def test_inputs_are_as_many_as_they_say(shape: tuple[int, int, int], strides: tuple[tuple[int, int], ...]) -> None:
    pictures = Pictures(shape, strides, planes=2)
    inputs = pictures(random_pictures(3, *shape))
    assert inputs.shape == (3, pictures.size)
    assert inputs.dtype == torch.float32


def test_planes_pass_the_convolutions_by() -> None:
    pictures = Pictures((16, 16, 5), (), planes=2)
    shown = random_pictures(4, 16, 16, 5)
    told = torch.tensor([[0, 255], [255, 0], [128, 128], [255, 255]], dtype=torch.uint8)
    shown[..., 3:] = told[:, None, None]
    inputs = pictures(shown)
    torch.testing.assert_close(inputs[:, -2:], told / 127.5 - 1)
    shown[..., 3:] = 7
    torch.testing.assert_close(pictures(shown)[:, :-2], inputs[:, :-2])


@pytest.mark.parametrize("group_norm", [False, True])
def test_faint_pictures_look_like_strong_ones_to_norms(group_norm: bool) -> None:
    """A picture three times as far from grey is another one without them."""
    pictures = Pictures((16, 16, 3), (), planes=0, group_norm=group_norm)
    for layer in pictures.convolutions:
        if isinstance(layer, torch.nn.Conv2d) and layer.bias is not None:
            torch.nn.init.zeros_(layer.bias)
    faint = torch.randint(86, 170, (4, 16, 16, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    strong = (3 * faint.int() - 255).to(torch.uint8)
    assert bool((pictures(strong) - pictures(faint)).abs().max() < 0.05) == group_norm


def test_half_precision_sees_nearly_the_same() -> None:
    pictures = Pictures((32, 32, 3), (), planes=0)
    shown = random_pictures(4, 32, 32, 3)
    exact = pictures(shown)
    pictures.precision = torch.bfloat16
    assert 0 < (pictures(shown) - exact).abs().max() < 0.1


def test_strides_longer_than_the_picture_are_refused() -> None:
    with pytest.raises(UnusableSpaceError, match="number 1 steps over 4 x 2 of 2 x 5"):
        Pictures((8, 10, 3), ((4, 2), (4, 2)), planes=0)


@pytest.mark.parametrize("strides", [[[4]], [[4, 0]], [[2, 2], [1, 2, 3]]])
def test_strides_are_pairs(strides: list[list[int]]) -> None:
    with pytest.raises(AgentConfigError, match="strides must be pairs"):
        check_config(ActorCriticConfig(strides=strides))


def test_value_and_policy_both_teach_the_convolutions_until_the_policy_rests() -> None:
    learner = ActorCriticLearner(ActorCriticConfig(horizon=2, hidden=[8]), BrightSide(4))
    learner.update()  # heads begin at zero and pass no gradient on
    observations = random_pictures(6, *learner.policy.spec.observation_shape)
    actions, zeros = torch.zeros(6, dtype=torch.int64), torch.zeros(6)

    def moved(with_policy: bool, returns: torch.Tensor, advantages: torch.Tensor) -> bool:
        before = [parameter.clone() for parameter in learner.policy.inputs.parameters()]
        step = learner._gradient_step
        step(with_policy, observations, actions, zeros, returns, advantages, torch.zeros(()))
        return any(
            not torch.equal(old, new) for old, new in zip(before, learner.policy.inputs.parameters(), strict=True)
        )

    assert moved(True, torch.arange(6.0), zeros)
    assert moved(True, learner.value(learner.policy.inputs(observations)).detach(), torch.arange(6.0))
    assert not moved(False, torch.arange(6.0), zeros)
