"""The network that foresees what plans lead to: what it sees, what it learns, and what a world model asks it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.episodes import played
from tests.evaluation.worlds import SHAPE, spec
from tests.worlds import tiny_plan_reader, tiny_world
from worldsim.data.actions import action_features
from worldsim.data.episode import Episode
from worldsim.data.latents import encode_store
from worldsim.data.store import EpisodeStore
from worldsim.dynamics.scale import LatentScale
from worldsim.errors import UserError
from worldsim.lookahead import action_risks, plan_risks, simple_plans
from worldsim.model_folder import load_model, save_model
from worldsim.plan_learner import Moments, PlanLearner
from worldsim.plan_reader import PlanConfig, PlanMember, PlanReader
from worldsim.tokenizers.build import build_tokenizer, tokenizer_fingerprint
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.training import fit
from worldsim.world_model import WorldModel, row_generator
from worldsim.world_state import WorldState

FUSE = 3  # steps from a flash to the moment that counts
QUICK = PlanConfig(
    steps=200,
    horizon=5,
    ages=[0, 1, 3],
    actions_before=2,
    strides=[[4, 2], [4, 4]],
    batch_size=64,
    warmup_steps=5,
    learning_rate=3e-3,
    dropout=0.1,
    frame_dropout=0.1,
)
TOKENIZER = build_tokenizer(TokenizerConfig(kind="pixels", patch=8), SHAPE)


def mined(seed: int, split: str) -> Episode:
    """Dark frames with a flash on one side; whoever takes the action of that side FUSE steps later ends the episode."""
    random = np.random.default_rng(seed)
    steps = 30
    frames = np.full((steps + 1, *SHAPE), 10, np.uint8)
    actions = random.integers(3, size=steps)
    for flash in range(2, steps - FUSE, 8):
        side = int(random.integers(2))
        frames[flash, 3:6, 2 + 8 * side : 6 + 8 * side] = 250
        if actions[flash + FUSE] == 1 + side:
            steps = flash + FUSE + 1
            break
    rewards = np.zeros(steps, np.float32)
    terminated = steps < 30
    return played(frames[: steps + 1], actions[:steps], rewards, seed=seed, split=split, terminated=terminated)


@pytest.fixture(scope="module")
def mines(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    store = EpisodeStore.create(tmp_path_factory.mktemp("mines") / "episodes", spec(blank_terminal_frame=False))
    with store.writer("a") as writer:
        for seed in range(160):
            writer.append(mined(seed, "held_out" if seed % 4 == 0 else "train"))
    store.refresh()
    return store


def learner_of(config: PlanConfig, store: EpisodeStore, dtype: torch.dtype = torch.float32) -> PlanLearner:
    latents = encode_store(
        store, TOKENIZER, tokenizer_fingerprint(TOKENIZER), torch.device("cpu"), torch.float32, progress=False
    )
    return PlanLearner(config, store, latents, TOKENIZER, dtype=dtype)


def moments_of(store: EpisodeStore, episodes: list[int], config: PlanConfig = QUICK) -> Moments:
    latents = encode_store(
        store, TOKENIZER, tokenizer_fingerprint(TOKENIZER), torch.device("cpu"), torch.float32, progress=False
    )
    return Moments(config, store, latents, TOKENIZER, np.array(episodes))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_learns_which_plans_end_the_episode_and_when(mines: EpisodeStore, dtype: torch.dtype) -> None:
    learner = learner_of(replace(QUICK, members=2, steps=300), mines, dtype)
    torch.manual_seed(0)  # dropout draws from torch's own generator, which other tests leave where they like
    for _ in range(learner.config.steps):
        metrics = learner.update()
    assert metrics["held_out_loss"] < 0.5 * metrics["held_out_constant"]  # flashes after the moment are not foreseen
    for side in range(2):
        flash = np.full((1, 3, *SHAPE), 10, np.uint8)
        flash[:, 0, 3:6, 2 + 8 * side : 6 + 8 * side] = 250
        plans = action_features(mines.spec, torch.tensor([[0] * 5, [1] * 5, [2] * 5]))[None]
        nothing_before = torch.zeros(1, 2, 3)
        with torch.no_grad():
            probability = learner.reader(torch.from_numpy(flash), nothing_before, plans).sigmoid()[0]
        deadly, safe = probability[1 + side], probability[2 - side]
        assert float(deadly[FUSE]) > 0.6
        assert float(deadly[FUSE]) == float(probability.max())
        assert float(safe[: FUSE + 1].max()) < 0.2


def test_what_comes_later_in_a_plan_does_not_change_what_came_before() -> None:
    model = tiny_world()
    reader = tiny_plan_reader(model, members=2)
    random = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (4, 2, *model.spec.frame_shape), dtype=torch.uint8, generator=random)
    taken = torch.rand(4, 3, 3, generator=random)
    plans = torch.rand(4, 6, 5, 3, generator=random)
    whole = reader(pictures, taken, plans)
    torch.testing.assert_close(reader(pictures, taken, plans[:, :, :3]), whole[:, :, :3])
    changed = plans.clone()
    changed[:, :, 3:] += 1
    torch.testing.assert_close(reader(pictures, taken, changed)[:, :, :3], whole[:, :, :3])
    assert not torch.allclose(reader(pictures, taken, changed)[:, :, 3:], whole[:, :, 3:])
    each = torch.stack([member(pictures, taken, plans) for member in reader.members]).sigmoid().detach()
    assert float(each.std(0).min()) > 0
    torch.testing.assert_close(whole.sigmoid().detach(), each.mean(0))


def test_it_foresees_what_comes_after_a_plan_whatever_is_done_there(mines: EpisodeStore) -> None:
    config = replace(QUICK, horizon=2, afterwards=3)  # the action that counts comes after the plan
    learner = learner_of(config, mines)
    torch.manual_seed(0)
    for _ in range(config.steps):
        metrics = learner.update()
    assert metrics["held_out_loss_afterwards"] < 0.9 * metrics["held_out_constant_afterwards"]
    plans = action_features(mines.spec, torch.tensor([[0, 0], [1, 1], [2, 2]]))[None]
    told = []
    for light in (10, 250):
        flash = np.full((1, 3, *SHAPE), 10, np.uint8)
        flash[:, 0, 3:6, 2:6] = light
        with torch.no_grad():
            told.append(learner.reader(torch.from_numpy(flash), torch.zeros(1, 2, 3), plans).sigmoid()[0])
    dark, lit = told
    assert lit.shape == (3, 5)
    assert float(lit[:, FUSE].min()) > 0.15  # one action of three, at random
    assert float(lit[:, FUSE].max()) < 0.6
    assert float(dark[:, FUSE].max()) < 0.1
    shorter = learner.reader(torch.from_numpy(flash), torch.zeros(1, 2, 3), plans[:, :, :1])
    assert shorter.shape == (1, 3, 1)  # what follows the rest of a plan is not known before the rest


def test_episodes_that_are_over_before_a_plan_is_teach_nothing_of_afterwards(tmp_path: Path) -> None:
    store = EpisodeStore.create(tmp_path / "episodes", spec(blank_terminal_frame=False))
    with store.writer("short") as writer:
        for k, (split, length) in enumerate((("train", 4), ("train", 3), ("held_out", 4))):
            frames = np.full((length + 1, *SHAPE), 10, np.uint8)
            still = np.zeros(length, int), np.zeros(length, np.float32)
            writer.append(played(frames, *still, seed=k, split=split, terminated=True))
    store.refresh()
    learner = learner_of(replace(QUICK, horizon=5, afterwards=4, steps=2, batch_size=8), store)
    for _ in range(2):
        metrics = learner.update()
    assert np.isfinite(metrics["held_out_loss"])
    assert "held_out_loss_afterwards" not in metrics


def test_what_comes_after_a_plan_teaches_no_convolution() -> None:
    """Networks that learned both in the same layers dodged worse."""
    config = replace(QUICK, afterwards=3)
    member = PlanMember(config, SHAPE, 3)
    assert member.after is not None
    for head in (member.within, member.after):
        torch.nn.init.normal_(head.logit.weight)
    pictures = torch.randint(256, (2, 3, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    logits = member(pictures, torch.zeros(2, 2, 3), torch.rand(2, 4, 5, 3))
    weights = dict(member.named_parameters())
    for steps, taught_after in ((slice(5), False), (slice(5, None), True)):
        given = torch.autograd.grad(logits[..., steps].sum(), list(weights.values()), retain_graph=True)
        for name, gradient in zip(weights, given, strict=True):
            assert bool(gradient.any()) == (name.startswith("after.") == taught_after), name


def test_frames_that_are_left_out_in_training_tell_nothing() -> None:
    config = replace(QUICK, dropout=0.0, frame_dropout=1.0)  # then one is always left: all of them
    member = PlanMember(config, SHAPE, 3).train()
    torch.nn.init.normal_(member.within.logit.weight)
    pictures = torch.randint(256, (2, 3, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    taken, plans = torch.zeros(2, 2, 3), torch.zeros(2, 1, 5, 3)
    torch.testing.assert_close(member(pictures, taken, plans), member.eval()(pictures, taken, plans))
    member.train().frame_dropout = 0.5
    torch.manual_seed(0)
    told = [member(pictures, taken, plans) for _ in range(8)]
    assert max(float((one - told[0]).detach().abs().max()) for one in told) > 1e-4


def test_moments_say_what_was_seen_done_and_what_came_of_it(mines: EpisodeStore) -> None:
    ended = next(i for i in range(len(mines)) if mines.terminated(i))
    lasted = next(i for i in range(len(mines)) if not mines.terminated(i))
    moments = moments_of(mines, [ended, lasted])
    lengths = [len(mines.steps(i)) for i in (ended, lasted)]
    assert len(moments) == sum(lengths)
    last = lengths[0] - 1
    batch = moments.read(np.array([last - 2, 0, sum(lengths) - 1]), np.full(3, 0.5, np.float32), torch.device("cpu"))
    episode = mines[ended]
    back = torch.from_numpy(np.stack([episode.frames[last - 2 - age] for age in (0, 1, 3)]))
    torch.testing.assert_close(batch.pictures[0], back, atol=1, rtol=0)  # cached latents are half precision
    features = action_features(mines.spec, torch.from_numpy(episode.actions.copy()))
    torch.testing.assert_close(batch.taken[0], features[last - 4 : last - 2])
    torch.testing.assert_close(batch.planned[0, 0, :3], features[last - 2 :])
    assert batch.ended[0, 0].tolist() == [0, 0, 1, 0, 0]
    assert batch.weight[0, 0].tolist() == [0.5, 0.5, 0.5, 0, 0]
    assert not batch.planned[0, 0, 3:].any()
    # An episode's first moment has no past, and the others stand in nobody else's.
    assert not batch.taken[1].any()
    assert torch.equal(batch.pictures[1], batch.pictures[1, :1].expand(3, -1, -1, -1))
    assert not batch.ended[2].any()  # it was truncated


def test_moments_say_what_came_after_a_plan(mines: EpisodeStore) -> None:
    ended = next(i for i in range(len(mines)) if mines.terminated(i))
    moments = moments_of(mines, [ended], replace(QUICK, horizon=2, afterwards=2))
    last = len(mines.steps(ended)) - 1
    batch = moments.read(np.array([last - 2]), np.ones(1, np.float32), torch.device("cpu"))
    features = action_features(mines.spec, torch.from_numpy(mines[ended].actions.copy()))
    torch.testing.assert_close(batch.planned[0, 0], features[last - 2 : last])
    assert batch.ended[0, 0].tolist() == [0, 0, 1, 0]
    assert batch.weight[0, 0].tolist() == [1, 1, 1, 0]


def test_weights_undo_the_taste_for_what_is_near_an_ending(mines: EpisodeStore) -> None:
    moments = moments_of(mines, list(range(40)))
    chosen, weight = moments.draw(400, 0.25, np.random.default_rng(0))
    near = moments._ends[chosen] & (moments._left[chosen] <= QUICK.horizon)
    assert near.sum() == 100
    assert (weight * near).mean() == pytest.approx(len(moments._near) / len(moments))
    assert weight.mean() == pytest.approx(1)


def test_half_of_the_moments_without_an_ending_in_their_plan_have_one_after_it(mines: EpisodeStore) -> None:
    config = replace(QUICK, afterwards=8)
    moments = moments_of(mines, list(range(40)), config)
    chosen, weight = moments.draw(400, 0.25, np.random.default_rng(0))
    left = np.where(moments._ends[chosen], moments._left[chosen], 99)
    kinds = [left <= 5, (left > 5) & (left <= 13), left > 13]
    assert [int(kind.sum()) for kind in kinds] == [100, 150, 150]
    there = [len(moments._near), len(moments._after), len(moments._far)]
    assert [float(weight[kind].sum()) / 400 for kind in kinds] == pytest.approx([n / len(moments) for n in there])


def asked_of(model: WorldModel, state: WorldState, plans: Tensor) -> Tensor:
    assert model.plans is not None
    features = action_features(model.spec, plans).expand(len(state.generators), -1, -1, -1)
    pictures = torch.stack([state.decoded[-1], state.decoded[-3]], dim=1)
    taken = torch.stack([*(frame[:, -3:] for frame in state.past[-2:]), state.action], dim=1)
    return plan_risks(model.plans(pictures, taken, features), model.plans.config.discount)


@pytest.mark.parametrize("stack_ages", [(), (0, 1, 3)])
def test_a_world_model_shows_it_the_frames_and_actions_before(stack_ages: tuple[int, ...]) -> None:
    model = tiny_world()
    model.stack_ages, model.plans = stack_ages, tiny_plan_reader(model)
    assert model.decoded_frames == (4 if stack_ages else 3)
    assert model.remembered_frames == 3
    state = model.start_from(model.start_contexts.rows(torch.tensor([0, 12])), [row_generator(i) for i in range(2)])
    plans = simple_plans(3, 5, (1, 4))
    frames = [model.frames_of(state)]
    for t in range(4):
        state, _ = model.step(state, torch.tensor([t % 3, 1]))
        frames.append(model.frames_of(state))
    assert torch.equal(state.decoded[-1], frames[-1])
    assert torch.equal(state.decoded[-3], frames[-3])
    risks = model.plan_risks(state, plans)
    torch.testing.assert_close(risks, asked_of(model, state, plans))
    torch.testing.assert_close(model.action_risks(state), action_risks(risks, plans))
    with pytest.raises(UserError, match=r"plans of \d+ steps: this world model foresees"):
        model.plan_risks(state, torch.zeros(1, 99, dtype=torch.int64))
    assert float(risks.std()) > 0


def test_what_comes_after_a_plan_counts_by_its_weight() -> None:
    model = tiny_world()
    model.plans = tiny_plan_reader(model, afterwards=4)
    state = model.start_from(model.start_contexts.rows(torch.tensor([0, 12])), [row_generator(i) for i in range(2)])
    plans = simple_plans(3, 5, (1, 4))
    alone, both = model.plan_risks(state, plans, afterwards=False), model.plan_risks(state, plans)
    shorter = model.plan_risks(state, plans[:, :-1])
    assert bool((both > alone).all())
    assert bool((alone > shorter).all())
    model.plans.config.afterwards_weight = 0.0
    assert torch.equal(model.plan_risks(state, plans), alone)


def test_it_learns_from_what_a_state_will_show_it(mines: EpisodeStore) -> None:
    """Frame by frame, the world model's state holds what the training read."""
    model = tiny_world()
    model.spec, model.tokenizer = mines.spec, TOKENIZER
    scale = LatentScale(*TOKENIZER.latent_shape)
    scale.low.fill_(-1.0)
    scale.high.fill_(1.0)
    model.dynamics.scale = scale
    model.plans = PlanReader(QUICK, SHAPE, 3).eval()
    moments = moments_of(mines, [5])
    batch = moments.read(np.arange(len(moments)), np.ones(len(moments), np.float32), torch.device("cpu"))
    episode = mines[5]
    frames = torch.from_numpy(episode.frames.copy())
    state = model.start_episode(frames[:1], [row_generator(0)])
    for t in range(len(moments)):
        seen = torch.stack([state.decoded[-1 - age][0] for age in QUICK.ages])
        torch.testing.assert_close(seen, batch.pictures[t], atol=1, rtol=0)
        torch.testing.assert_close(state.actions(2)[0], batch.taken[t])
        state, _ = model.observe(state, frames[t + 1 : t + 2], torch.from_numpy(episode.actions[t : t + 1]))


@pytest.mark.parametrize("small", [False, True])
def test_it_is_saved_with_the_world_model(tmp_path: Path, small: bool) -> None:
    model = tiny_world()
    model.plans = tiny_plan_reader(model, members=2)
    save_model(model, tmp_path / "with", small=small)
    again = load_model(tmp_path / "with")
    assert again.plans is not None
    assert again.plans.config == model.plans.config
    for name, tensor in model.plans.state_dict().items():
        torch.testing.assert_close(again.plans.state_dict()[name], tensor, atol=0.01 if small else 0, rtol=0)
    model.plans = None
    save_model(model, tmp_path / "with", small=small)
    assert load_model(tmp_path / "with").plans is None
    assert not (tmp_path / "with" / "plans.safetensors").exists()


def test_strides_that_leave_nothing_are_named() -> None:
    with pytest.raises(UserError, match=r"plans.strides=.*16 x 16"):
        PlanMember(replace(QUICK, strides=[[4, 4], [8, 4]]), (16, 16, 3), 3)


def test_an_interrupted_training_ends_as_one_that_was_not(mines: EpisodeStore, tmp_path: Path) -> None:
    config = replace(QUICK, steps=6)
    whole, begun, resumed = (learner_of(config, mines) for _ in range(3))
    fit(whole, steps=6, folder=tmp_path / "whole", name="plans", progress=False)
    fit(begun, steps=3, folder=tmp_path / "parts", name="plans", progress=False)
    fit(resumed, steps=6, folder=tmp_path / "parts", name="plans", progress=False)
    for name, tensor in whole.reader.state_dict().items():
        torch.testing.assert_close(resumed.reader.state_dict()[name], tensor, atol=0, rtol=0)


@pytest.mark.parametrize("group_norm", [False, True])
def test_contrast_counts_for_nothing_only_behind_norms(group_norm: bool) -> None:
    """Frames three times as far from grey are the same to a reader with norms."""
    config = replace(QUICK, group_norm=group_norm, ages=[0])
    torch.manual_seed(0)
    member = PlanMember(config, SHAPE, 3).eval()
    torch.nn.init.normal_(member.within.logit.weight)
    for layer in member.look:
        if isinstance(layer, torch.nn.Conv2d) and layer.bias is not None:
            torch.nn.init.zeros_(layer.bias)
    faint = torch.randint(86, 170, (4, 1, *SHAPE), dtype=torch.uint8)
    strong = (3 * faint.int() - 255).to(torch.uint8)
    asked = (torch.zeros(4, 2, 3), torch.zeros(4, 1, 5, 3))
    change = (member(strong, *asked) - member(faint, *asked)).abs().max()
    assert bool(change < 0.01) == group_norm
