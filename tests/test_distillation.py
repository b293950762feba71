"""The network that samples in few steps: what it must learn, and what it must leave alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.worlds import tiny_world
from worldsim import distillation
from worldsim.distillation import DistillationLearner
from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.dit_dynamics import DiTDynamics, DiTState
from worldsim.errors import UserError
from worldsim.model_folder import load_model, save_model
from worldsim.training import fit
from worldsim.world_model import WorldModel, row_generator


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "ROWS", 8)
    monkeypatch.setattr(distillation, "WARMUP_STEPS", 5)


def dynamics_of(model: WorldModel) -> DiTDynamics:
    assert isinstance(model.dynamics, DiTDynamics)
    return model.dynamics


def sparse_world() -> WorldModel:
    """Two layers of which one looks back in time, so that the network that samples has one."""
    model = tiny_world()
    config = replace(model.dynamics.config, time_every=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        dynamics = DiTDynamics(config, *model.latent_shape, model.tokenizer.grid, 3).eval()
        for parameter in dynamics.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    dynamics.scale.low.fill_(-1.0)
    dynamics.scale.high.fill_(1.0)
    model.dynamics = dynamics.requires_grad_(False)
    return model


def distilled(model: WorldModel, updates: int) -> tuple[WorldModel, list[float]]:
    """The model with a network that samples in two steps, and the losses on the way."""
    learner = DistillationLearner(model, steps=updates, sampling_steps=2)
    losses = [learner.update()["loss"] for _ in range(updates)]
    dynamics = learner.result(model.dynamics)
    return WorldModel(model.spec, model.tokenizer, dynamics, model.start_contexts), losses


def test_before_it_learns_it_is_the_network_that_it_learns_from() -> None:
    model = tiny_world()  # all of its layers look back in time, so the small network is the whole one
    learner = DistillationLearner(model, steps=1, sampling_steps=2)
    small = learner.result(model.dynamics)
    assert small.sampler is not None
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 2, *model.latent_shape, generator=generator)
    action = torch.nn.functional.one_hot(torch.tensor([0, 1, 2]), 3).float()
    start = model.start_from(model.start_contexts.rows(torch.arange(3)), [row_generator(i) for i in range(3)]).dynamics
    assert isinstance(start, DiTState)
    with torch.no_grad():
        _, whole = dynamics_of(model).step(start.clone(), action, noise, 2)
        _, sampled = small.step(start.clone(), action, noise, 2)
    torch.testing.assert_close(sampled.latents, whole.latents)


def test_it_learns_where_many_steps_end() -> None:
    model = sparse_world()
    made, losses = distilled(model, 100)
    sampler = dynamics_of(made).sampler
    assert sampler is not None
    assert len(sampler.blocks) == 1
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:3])


def test_all_but_the_sampling_stays_bit_for_bit() -> None:
    model = sparse_world()
    made, _ = distilled(model, 3)
    context = model.start_contexts.rows(torch.arange(2))
    frames = torch.randint(256, (2, *model.spec.frame_shape), dtype=torch.uint8)
    seen = []
    for each in (model, made):
        state = each.start_from(context, [row_generator(0), row_generator(1)])
        state, step = each.observe(state, frames, torch.tensor([0, 2]))
        finest, shown = each.step(state.clone(), torch.tensor([1, 1]), sampling_steps=4)
        _, fast = each.step(state, torch.tensor([1, 1]), sampling_steps=2)
        seen.append((step.belief, step.reward, step.termination_probability, shown.latents, finest.belief))
        latents = fast.latents
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(latents, seen[1][3])


@pytest.mark.parametrize("actions", ["discrete", "multi_discrete", "multi_binary", "box"])
def test_every_action_space(actions: str) -> None:
    learner = DistillationLearner(tiny_world(actions), steps=3, sampling_steps=1)
    assert all(np.isfinite(learner.update()["loss"]) for _ in range(3))


def test_it_computes_in_bf16_and_keeps_whole_weights() -> None:
    model = tiny_world()
    whole = dynamics_of(model).undistilled()
    casted = WorldModel(model.spec, model.tokenizer, model.dynamics, model.start_contexts, dtype=torch.bfloat16)
    learner = DistillationLearner(casted, steps=2, sampling_steps=2)
    assert np.isfinite([learner.update()["loss"] for _ in range(2)]).all()
    made = learner.result(whole)
    assert {parameter.dtype for parameter in made.parameters()} == {torch.float32}
    assert torch.equal(made.dit.input.weight, whole.dit.input.weight)


def test_stopped_and_resumed_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    def train(folder: str, *stops: int) -> dict[str, torch.Tensor]:
        for steps in stops:
            learner = DistillationLearner(sparse_world(), steps=8, sampling_steps=2)
            fit(learner, steps=steps, folder=tmp_path / folder, name="distillation", progress=False)
        return learner.average.state_dict()

    whole, parts = train("whole", 8), train("parts", 3, 5, 8)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_distilled_model_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    made, _ = distilled(sparse_world(), 2)
    save_model(made, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.dynamics.config == made.dynamics.config
    assert loaded.dynamics.config.sampling_steps == 2
    for name, tensor in made.dynamics.state_dict().items():
        assert torch.equal(loaded.dynamics.state_dict()[name], tensor)


def test_it_dreams_in_its_own_steps_and_in_those_of_the_whole_network() -> None:
    model = sparse_world()
    model.dynamics.config = replace(model.dynamics.config, shortcut_fraction=0.0)
    assert model.dynamics.sampling_choices == (4,)
    assert distilled(model, 1)[0].dynamics.sampling_choices == (2, 4)


def test_undistilled_it_is_as_it_was() -> None:
    model = sparse_world()
    made, _ = distilled(model, 2)
    back = dynamics_of(made).undistilled()
    assert back.sampler is None
    assert back.config == model.dynamics.config
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in model.dynamics.state_dict().items())


@pytest.mark.parametrize("steps", [0, 3, 4, 8])
def test_more_steps_than_the_teacher_takes_are_refused(steps: int) -> None:
    with pytest.raises(UserError, match=f"sampling_steps={steps}"):
        DistillationLearner(tiny_world(), steps=1, sampling_steps=steps)


def test_only_what_denoises_can_be_distilled() -> None:
    with pytest.raises(UserError, match=r"dynamics\.kind=mdn_rnn"):
        DistillationLearner(tiny_world(kind="mdn_rnn"), steps=1, sampling_steps=2)


def test_by_default_nothing_is_distilled() -> None:
    assert DynamicsConfig().distillation_steps == 0
    assert dynamics_of(tiny_world()).sampler is None
