"""The network that foresees endings: what it reads, what it learns, and what it replaces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.episodes import played
from tests.evaluation.worlds import SHAPE, spec
from tests.worlds import ACTION_SPACES, tiny_reader, tiny_world
from worldsim.data.episode import Episode
from worldsim.data.latents import LatentCache, encode_store
from worldsim.data.store import EpisodeStore
from worldsim.dynamics.scale import LatentScale
from worldsim.endings import EndingConfig, EndingLearner, ReaderMember, _Steps
from worldsim.model_folder import load_model, save_model
from worldsim.tokenizers.build import build_tokenizer, tokenizer_fingerprint
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.training import fit
from worldsim.world_model import row_generator

FUSE = 3  # steps from a flash to the end
QUICK = EndingConfig(steps=150, frames=4, batch_size=64, warmup_steps=5, dropout=0.1, learning_rate=3e-3)


def burning(seed: int, split: str) -> Episode:
    """Dark frames with a flash, and FUSE steps after it the end; no other frame tells."""
    random = np.random.default_rng(seed)
    flash = int(random.integers(1, 25))
    steps = flash + FUSE
    frames = np.full((steps + 1, *SHAPE), 10, np.uint8)
    frames[flash, 3:6, 9:12] = 250
    actions = random.integers(3, size=steps)
    rewards = np.zeros(steps, np.float32)
    return played(frames, actions, rewards, seed=seed, split=split, terminated=True)


@pytest.fixture(scope="module")
def fuses(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    store = EpisodeStore.create(tmp_path_factory.mktemp("fuses") / "episodes", spec(blank_terminal_frame=False))
    with store.writer("a") as writer:
        for seed in range(120):
            writer.append(burning(seed, "held_out" if seed % 4 == 0 else "train"))
    store.refresh()
    return store


def encoded(store: EpisodeStore) -> tuple[LatentCache, LatentScale]:
    tokenizer = build_tokenizer(TokenizerConfig(kind="pixels", patch=8), SHAPE)
    fingerprint = tokenizer_fingerprint(tokenizer)
    latents = encode_store(store, tokenizer, fingerprint, torch.device("cpu"), torch.float32, progress=False)
    scale = LatentScale(*tokenizer.latent_shape)
    scale.fit([torch.from_numpy(latents[i].astype(np.float32)) for i in range(len(store))], 0.1)
    return latents, scale


def learner_of(config: EndingConfig, store: EpisodeStore, dtype: torch.dtype = torch.float32) -> EndingLearner:
    latents, scale = encoded(store)
    return EndingLearner(config, store, latents, scale, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_has_left_the_picture_is_foreseen_by_who_reads_enough_frames(
    fuses: EpisodeStore, dtype: torch.dtype
) -> None:
    remembering, forgetting = (learner_of(replace(QUICK, frames=frames), fuses, dtype) for frames in (FUSE, 1))
    for learner in (remembering, forgetting):
        for _ in range(QUICK.steps):
            metrics = learner.update()
        if learner is remembering:
            assert metrics["held_out_loss"] < 0.2 * metrics["held_out_constant"]
        else:
            assert metrics["held_out_loss"] > 0.6 * metrics["held_out_constant"]


def test_probabilities_are_those_of_the_data_although_endings_are_drawn_more_often(fuses: EpisodeStore) -> None:
    learner = learner_of(replace(QUICK, frames=1, ending_fraction=0.5), fuses)
    for _ in range(QUICK.steps):
        learner.update()
    assert learner._held_out is not None
    logits, ended = learner._on_held_out(learner._held_out)
    assert float(logits.sigmoid().mean()) == pytest.approx(float(ended.mean()), rel=0.15)


def test_weights_undo_the_taste_for_endings(fuses: EpisodeStore) -> None:
    steps = _Steps(fuses, *encoded(fuses), fuses.indices("train"), torch.device("cpu"))
    chosen, weight = steps.draw(400, 0.5, np.random.default_rng(0))
    assert steps.terminated[chosen].sum() == 200
    assert (weight * steps.terminated[chosen]).mean() == pytest.approx(steps.terminated.mean())
    assert weight.mean() == pytest.approx(1)


def test_it_learns_from_what_a_state_will_show_it(fuses: EpisodeStore) -> None:
    """Frame by frame, the world model's state holds what the training read."""
    latents, scale = encoded(fuses)
    model = tiny_world()
    model.spec, model.dynamics.scale = fuses.spec, scale
    model.endings = tiny_reader(model, frames=4)
    steps = _Steps(fuses, latents, scale, np.array([5]), torch.device("cpu"))
    shown, action, _ = steps.read(np.arange(len(steps)), 4)
    episode = fuses[5]
    frames = torch.from_numpy(episode.frames.copy())
    state = model.start_episode(frames[:1], [row_generator(0)])
    for t in range(len(steps)):
        held = torch.stack([*state.past, state.shown], dim=1)
        torch.testing.assert_close(held, shown[t : t + 1], atol=5e-3, rtol=0)  # cached latents are half precision
        taken = torch.from_numpy(episode.actions[t : t + 1])
        state, _ = model.observe(state, frames[t + 1 : t + 2], taken)
        torch.testing.assert_close(state.action, action[t : t + 1])


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_a_step_tells_the_probability_that_the_network_foresees(actions: str) -> None:
    model = tiny_world(actions)
    plain = model.start_from(model.start_contexts.rows(torch.tensor([0, 12])), [row_generator(i) for i in range(2)])
    reader = tiny_reader(model)
    model.endings = reader
    state = model.start_from(model.start_contexts.rows(torch.tensor([0, 12])), [row_generator(i) for i in range(2)])
    assert len(state.past) == 2
    assert not plain.past
    assert not plain.readings
    space = model.spec.gym_action_space()
    space.seed(0)
    for index in range(5):
        if index == 3:  # what the reader makes of frames is kept from step to step, and begins anew with its row
            state = model.restart_rows(state, torch.tensor([1]), model.start_contexts.rows(torch.tensor([7])))
        taken = torch.from_numpy(np.stack([np.asarray(space.sample()) for _ in range(2)]))
        frames = torch.stack([*state.past, state.shown], dim=1)
        state, step = model.step(state, taken)
        expected = reader(frames, state.action).sigmoid()
        torch.testing.assert_close(step.termination_probability, expected)
    assert float(step.termination_probability.std()) > 0


def test_several_members_tell_their_mean_probability() -> None:
    model = tiny_world()
    reader = tiny_reader(model, members=3)
    tokens, channels = model.latent_shape
    shown = torch.randn(4, 3, 2 * tokens * channels + 3, generator=torch.Generator().manual_seed(0))
    action = F.one_hot(torch.arange(4) % 3, 3).float()
    each = torch.stack([member(shown, action, reader.ages) for member in reader.members]).sigmoid().detach()
    assert float(each.std(0).min()) > 0
    torch.testing.assert_close(reader(shown, action).sigmoid(), each.mean(0))


def test_members_learn_apart(fuses: EpisodeStore) -> None:
    learner = learner_of(replace(QUICK, members=2), fuses)
    for _ in range(QUICK.steps):
        metrics = learner.update()
    assert metrics["held_out_loss"] < 0.2 * metrics["held_out_constant"]
    one, other = (dict(member.named_parameters()) for member in learner.reader.members)
    assert not torch.allclose(one["logit.weight"], other["logit.weight"])


def test_calibrated_logits_are_folded_in() -> None:
    model = tiny_world()
    reader = tiny_reader(model)
    tokens, channels = model.latent_shape
    random = torch.Generator().manual_seed(0)
    shown = torch.randn(5, 3, 2 * tokens * channels + 3, generator=random)
    action = F.one_hot(torch.arange(5) % 3, 3).float()
    before: Tensor = reader(shown, action)
    reader.rescale(0.5, -1.0)
    torch.testing.assert_close(reader(shown, action), 0.5 * before - 1.0)


@pytest.mark.parametrize("small", [False, True])
def test_it_is_saved_with_the_world_model(tmp_path: Path, small: bool) -> None:
    model = tiny_world()
    model.endings = tiny_reader(model)
    save_model(model, tmp_path / "with", small=small)
    again = load_model(tmp_path / "with")
    assert again.endings is not None
    assert again.remembered_frames == 3
    for name, tensor in model.endings.state_dict().items():
        torch.testing.assert_close(again.endings.state_dict()[name], tensor, atol=0.01 if small else 0, rtol=0)
    model.endings = None
    save_model(model, tmp_path / "with", small=small)
    assert load_model(tmp_path / "with").endings is None
    assert not (tmp_path / "with" / "endings.safetensors").exists()


def test_each_frame_comes_with_the_actions_that_led_to_it_and_those_since() -> None:
    reader = ReaderMember(EndingConfig(frames=6), tokens=2, channels=3, action_size=1)
    actions = torch.arange(1.0, 8.0).view(1, 7, 1)  # those that led to the six frames, and the one taken now
    since = reader.actions_since(actions, torch.tensor([0, 2, 5]))[0]
    assert since[0].tolist() == [3, 4, 5, 6, 7, 0, 0, 0, 0, 0]
    assert since[1].tolist() == [1, 2, 3, 4, 5, 6, 7, 0, 0, 0]
    assert since[2].tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]


def test_in_bf16_it_foresees_nearly_the_same(tmp_path: Path) -> None:
    model = tiny_world()
    model.endings = tiny_reader(model)
    save_model(model, tmp_path / "model")
    random = torch.Generator().manual_seed(0)
    frames, numbers = model.endings.frames, 2 * model.latent_shape[0] * model.latent_shape[1]
    shown = torch.cat([torch.randn(64, frames, numbers, generator=random), torch.ones(64, frames, 3)], dim=2)
    told = {}
    for dtype in (torch.float32, torch.bfloat16):
        reader = load_model(tmp_path / "model", dtype=dtype).endings
        assert reader is not None
        told[dtype] = reader(shown, torch.ones(64, 3))
        assert told[dtype].dtype == torch.float32
    error = (told[torch.bfloat16] - told[torch.float32]).square().mean().sqrt()
    assert 0 < error < 0.03 * told[torch.float32].std()


def test_frames_that_are_left_out_or_were_not_there_tell_nothing() -> None:
    model = tiny_world()
    (reader,) = tiny_reader(model, frames=4).members
    tokens, channels = model.latent_shape
    shown = torch.randn(2, 4, 2 * tokens * channels + 3, generator=torch.Generator().manual_seed(0))
    action = F.one_hot(torch.tensor([0, 2]), 3).float()
    changed = shown.clone()
    changed[:, 1, : 2 * tokens * channels] += 1  # of age 2; the action that led there stays
    torch.testing.assert_close(reader(changed, action, [0, 1, 3]), reader(shown, action, [0, 1, 3]))
    assert not torch.allclose(reader(changed, action, [0, 1, 2, 3]), reader(shown, action, [0, 1, 2, 3]))
    begun = shown.clone()
    begun[:, :2] = 0
    torch.testing.assert_close(reader(begun, action, [0, 1, 2, 3]), reader(begun, action, [0, 1]))


def test_a_context_may_be_longer_than_what_the_dynamics_see() -> None:
    model = tiny_world()
    window = model.dynamics.config.window
    tokens, channels = model.latent_shape
    frames = window + 2
    model.endings = tiny_reader(model, frames=frames)
    latents = torch.randn(1, frames, tokens, channels, generator=torch.Generator().manual_seed(0))
    actions, there = torch.arange(frames)[None] % 3, torch.ones(1, frames, dtype=torch.bool)
    long = model.start(latents, actions, there, there, [row_generator(0)])
    short = model.start(latents[:, 2:], actions[:, 2:], there[:, 2:], there[:, 2:], [row_generator(0)])
    torch.testing.assert_close(long.belief, short.belief)
    size = tokens * channels
    torch.testing.assert_close(torch.cat(long.past)[:, :size], latents[0, :-1].flatten(1))
    assert not torch.cat(short.past[:2]).any()


def test_an_interrupted_training_ends_as_one_that_was_not(fuses: EpisodeStore, tmp_path: Path) -> None:
    config = replace(QUICK, steps=6)
    whole, begun, resumed = (learner_of(config, fuses) for _ in range(3))
    fit(whole, steps=6, folder=tmp_path / "whole", name="endings", progress=False)
    fit(begun, steps=3, folder=tmp_path / "parts", name="endings", progress=False)
    fit(resumed, steps=6, folder=tmp_path / "parts", name="endings", progress=False)
    for name, tensor in whole.reader.state_dict().items():
        torch.testing.assert_close(resumed.reader.state_dict()[name], tensor, atol=0, rtol=0)
