"""The dream as Gymnasium sees it."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from tests.worlds import ACTION_SPACES, tiny_world
from worldsim.dream import DreamEnv, DreamVectorEnv
from worldsim.dynamics.build import DYNAMICS
from worldsim.errors import UserError
from worldsim.model_folder import save_model
from worldsim.observations import OBSERVATIONS


@pytest.fixture(scope="module", params=list(DYNAMICS))
def kind(request: pytest.FixtureRequest) -> str:
    """Of the dynamics: every dream keeps the same promises."""
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, kind: str) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_model(tiny_world(kind=kind), path)
    return path


def actions_for(envs: DreamVectorEnv, steps: int, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    envs.action_space.seed(seed)
    return [envs.action_space.sample() for _ in range(steps)]


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_gymnasium_accepts_it(observation: str, actions: str, kind: str, tmp_path: Path) -> None:
    model = tiny_world(actions, kind=kind)
    model.stack_ages = (0, 1)
    save_model(model, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(
            "worldsim:worldsim/Dream-v0", model=str(tmp_path), observation=observation, render_mode="rgb_array"
        )
        check_env(env.unwrapped)


@pytest.mark.parametrize("observation", OBSERVATIONS)
@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_stable_baselines_accepts_it(observation: str, actions: str) -> None:
    checker = pytest.importorskip("stable_baselines3.common.env_checker", reason='pip install "worldsim-rl[sb3]"')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Advice, where the real env's actions have other ranges.
        warnings.filterwarnings("ignore", message="We recommend you to use a symmetric and normalized Box action space")
        # 40 pixels: the checker thinks of its own convolutions, which need 36.
        model = tiny_world(actions, size=40)
        model.stack_ages = (0, 1)
        checker.check_env(DreamEnv(model, observation=observation))


def test_it_is_made_from_a_folder_alone(folder: Path) -> None:
    env = gym.make("worldsim:worldsim/Dream-v0", model=str(folder), observation="belief")
    observation, _ = env.reset(seed=3)
    assert env.observation_space.contains(observation)
    rows = gym.make_vec(
        "worldsim:worldsim/Dream-v0", num_envs=4, vectorization_mode="vector_entry_point", model=str(folder)
    )
    observations, _ = rows.reset(seed=3)
    assert observations.shape == (4, 16, 16, 3)
    assert observations.dtype == np.uint8
    observations, rewards, *_ = rows.step(rows.action_space.sample())
    assert observations.shape == (4, 16, 16, 3)
    assert rewards.shape == (4,)


def test_row_i_of_seed_s_is_the_env_seeded_s_plus_i(kind: str) -> None:
    model = tiny_world(kind=kind)
    rows = DreamVectorEnv(model, 4, observation="features", precision="fp32")
    observations, _ = rows.reset(seed=10)
    actions = actions_for(rows, 6)
    dreams = [observations]
    endings = []
    for action in actions:
        observations, _, terminated, truncated, infos = rows.step(action)
        final = infos.get("final_obs", observations)
        ended = terminated | truncated
        dreams.append(np.stack([final[i] if ended[i] else observations[i] for i in range(4)]))
        endings.append(ended)
    for row in range(4):
        env = DreamEnv(model, observation="features")
        observation, _ = env.reset(seed=10 + row)
        assert np.allclose(observation, dreams[0][row], atol=1e-4)
        for step, action in enumerate(actions):
            observation, _, died, cut, _ = env.step(action[row])
            assert np.allclose(observation, dreams[step + 1][row], atol=1e-3)
            assert (died or cut) == bool(endings[step][row])
            if died or cut:
                break


@pytest.mark.parametrize("actions", ACTION_SPACES)
def test_one_step_from_equal_state_is_equal_in_a_batch_and_alone(actions: str) -> None:
    rows = DreamVectorEnv(tiny_world(actions), 4, observation="features", precision="fp32")
    rows.reset(seed=10)
    for action in actions_for(rows, 7):  # over some endings: each row has its own age
        rows.step(action)
    saved = rows.save_state()
    [action] = actions_for(rows, 1, seed=3)
    shown, rewards, terminated, truncated, infos = rows.step(action)
    for row in range(4):
        env = DreamEnv(rows.model, observation="features")
        env.reset()
        parts = {name: saved[name][[row]] for name in ("lengths", "ended", "temperatures")}
        env.load_state({"state": saved["state"].select_rows(torch.tensor([row])).clone(), **parts})
        alone, reward, died, cut, info = env.step(action[row])
        expected = infos["final_obs"][row] if died or cut else shown[row]
        np.testing.assert_allclose(alone, expected, atol=1e-4)
        np.testing.assert_allclose(reward, rewards[row], rtol=1e-4, atol=1e-4)
        assert (died, cut) == (terminated[row], truncated[row])
        for name, value in info.items():
            np.testing.assert_allclose(value, infos[name][row], atol=1e-4)


def test_rows_that_restart_on_the_next_step_dream_as_those_that_restart_at_once(kind: str) -> None:
    """With 0 as the only action both see the same actions, whatever step a restart takes."""
    model = tiny_world(kind=kind)
    nothing = np.zeros(3, np.int64)
    dreams: dict[AutoresetMode, list[list[np.ndarray[Any, Any]]]] = {}
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        rows = DreamVectorEnv(model, 3, observation="features", autoreset_mode=mode, precision="fp32")
        shown, _ = rows.reset(seed=2)
        dreams[mode] = [[first] for first in shown]
        for _ in range(40):
            shown, _, terminated, truncated, infos = rows.step(nothing)
            for row in range(3):
                if mode is AutoresetMode.SAME_STEP and (terminated | truncated)[row]:
                    dreams[mode][row].append(infos["final_obs"][row])
                dreams[mode][row].append(shown[row])
    for at_once, next_step in zip(*dreams.values(), strict=True):
        for one, other in zip(at_once[:40], next_step[:40], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)


def test_one_seed_is_one_dream_bitwise(kind: str) -> None:
    rows = DreamVectorEnv(tiny_world(kind=kind), 3, observation="latent")
    played = []
    for _ in range(2):
        first, _ = rows.reset(seed=5)
        played.append([first, *(rows.step(action)[0] for action in actions_for(rows, 8))])
    for one, other in zip(*played, strict=True):
        assert np.array_equal(one, other)


def test_rows_do_not_care_where_they_stand() -> None:
    model = tiny_world(max_episode_steps=9)
    order = np.array([3, 0, 4, 1, 2])
    seeds: list[int | None] = [11, 12, 13, 14, 15]
    rows, moved = (DreamVectorEnv(model, 5, observation="features", precision="fp32") for _ in range(2))
    shown, _ = rows.reset(seed=seeds)
    shown_moved, _ = moved.reset(seed=[seeds[i] for i in order])
    np.testing.assert_allclose(shown[order], shown_moved, atol=1e-4)
    endings = 0
    for actions in actions_for(rows, 25):
        shown, rewards, terminated, truncated, infos = rows.step(actions)
        shown_moved, *others, infos_moved = moved.step(actions[order])
        np.testing.assert_allclose(shown[order], shown_moved, atol=2e-3)
        for ours, theirs in zip((rewards, terminated, truncated), others, strict=True):
            np.testing.assert_allclose(ours[order], theirs, atol=2e-3)
        np.testing.assert_allclose(infos["uncertainty"][order], infos_moved["uncertainty"], rtol=1e-2, atol=1e-4)
        endings += int((terminated | truncated).sum())
    assert endings > 5


def test_no_bit_of_a_row_depends_on_what_another_does() -> None:
    model = tiny_world(max_episode_steps=None)
    model.dynamics.head.termination.bias.data.fill_(-1e4)
    played = []
    for other in (0, 1):
        rows = DreamVectorEnv(model, 4, observation="features")
        rows.reset(seed=[1, 2, 100 + other, 4])
        steps = []
        for actions in actions_for(rows, 12):
            actions[2] = (actions[2] + other) % 3
            steps.append(rows.step(actions))
            if other and len(steps) == 5:
                rows.reset(options={"reset_mask": np.arange(4) == 2})
        played.append(steps)
    for one, two in zip(*played, strict=True):
        for part, changed in zip(one[:4], two[:4], strict=True):
            assert np.array_equal(part[[0, 1, 3]], changed[[0, 1, 3]])
        assert not np.array_equal(one[0][2], two[0][2])


@pytest.mark.parametrize("observation", OBSERVATIONS)
def test_tensors_are_their_users_own(observation: str) -> None:
    model = tiny_world()
    model.stack_ages = (0, 1)
    plain, changed = (DreamVectorEnv(model, 2, observation=observation, array="torch") for _ in range(2))
    expected = plain.reset(seed=1)[0]
    changed.reset(seed=1)[0].zero_()
    for action in actions_for(plain, 3):
        expected, given = (env.step(torch.from_numpy(action))[0] for env in (plain, changed))
        assert torch.equal(expected, given)
        given.zero_()


def test_tensors_are_the_same_numbers_and_can_be_learned_from() -> None:
    model = tiny_world(max_episode_steps=4)
    arrays = DreamVectorEnv(model, 3, observation="features")
    tensors = DreamVectorEnv(model, 3, observation="features", array="torch")
    shown, told = arrays.reset(seed=1)[0], tensors.reset(seed=1)[0]
    assert np.array_equal(shown, told)
    weight = torch.ones(told.shape[1], requires_grad=True)
    for actions in actions_for(arrays, 6):
        expected = arrays.step(actions)
        given = tensors.step(torch.from_numpy(actions))
        for array, tensor in zip(expected[:4], given[:4], strict=True):
            assert isinstance(tensor, torch.Tensor)
            assert tensor.device == model.device
            np.testing.assert_array_equal(array.astype(tensor.numpy().dtype), tensor)
        assert given[1].dtype == torch.float32
        assert set(expected[4]) == set(given[4])
        np.testing.assert_array_equal(expected[4]["uncertainty"], given[4]["uncertainty"])
        (given[0] @ weight).sum().backward()  # not possible with tensors of inference mode
        for row in np.flatnonzero(expected[4].get("_final_obs", np.zeros(3))):
            assert given[4]["_final_obs"][row]
            np.testing.assert_array_equal(expected[4]["final_obs"][row], given[4]["final_obs"][row])
    assert weight.grad is not None
    assert bool(weight.grad.any())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tensors_stay_on_the_gpu(folder: Path) -> None:
    rows = DreamVectorEnv(folder, 3, observation="features", array="torch", device="cuda", max_episode_steps=2)
    shown, _ = rows.reset(seed=0)
    for _ in range(5):
        shown, *others, infos = rows.step(torch.zeros(3, dtype=torch.int64, device=shown.device))
        assert {value.device.type for value in (shown, *others, infos["uncertainty"])} == {"cuda"}


@pytest.mark.parametrize(("kind", "refused"), [("dit", (0, 3, 8, -1)), ("mdn_rnn", (1, 0))])
def test_denoising_steps_that_were_not_trained_are_refused(kind: str, refused: tuple[int, ...]) -> None:
    model = tiny_world(kind=kind)
    for steps in refused:
        with pytest.raises(UserError, match=f"sampling_steps={steps}: this world model takes"):
            DreamVectorEnv(model, 1, sampling_steps=steps)
    for steps in model.dynamics.sampling_choices:
        DreamVectorEnv(model, 1, sampling_steps=steps).reset(seed=0)


def test_without_shortcuts_the_finest_steps_are_all_that_is_known() -> None:
    model = tiny_world()
    model.dynamics.config = replace(model.dynamics.config, shortcut_fraction=0.0)
    assert model.dynamics.sampling_choices == (4,)
    with pytest.raises(UserError, match="sampling_steps=2: this world model takes 4"):
        DreamVectorEnv(model, 1, sampling_steps=2)


def test_uncertain_dreams_end_early_or_pay_less() -> None:
    model = tiny_world(max_episode_steps=None)
    model.dynamics.head.termination.bias.data.fill_(-1e4)
    plain = DreamVectorEnv(model, 16, observation="belief")
    plain.reset(seed=0)
    actions = np.zeros(16, np.int64)
    _, rewards, _, _, infos = plain.step(actions)
    limit = float(np.median(infos["uncertainty"]))
    above = infos["uncertainty"] > limit
    assert 0 < above.sum() < 16

    ended = DreamVectorEnv(model, 16, observation="belief", uncertainty_limit=limit)
    ended.reset(seed=0)
    _, same, terminated, truncated, infos = ended.step(actions)
    np.testing.assert_array_equal(truncated, above)
    np.testing.assert_array_equal(infos["_final_obs"], above)
    np.testing.assert_array_equal(same, rewards)
    assert not terminated.any()

    model.uncertainty_quantiles = {0.9: limit}
    paying = DreamVectorEnv(model, 16, observation="belief", uncertainty_quantile=0.9, uncertainty_penalty=2.5)
    paying.reset(seed=0)
    _, less, _, truncated, _ = paying.step(actions)
    np.testing.assert_allclose(less, rewards - 2.5 * above)
    assert not truncated.any()
    for wrong, message in (
        ({"uncertainty_quantile": 0.8}, "knows 0.9; give a number"),
        ({"uncertainty_quantile": 0.9, "uncertainty_limit": 1.0}, "give one of them"),
        ({"uncertainty_penalty": 1.0}, "needs an uncertainty_quantile"),
        ({"uncertainty_limit": -1.0}, "uncertainty_limit=-1"),
        ({"uncertainty_quantile": 0.9, "sampling_steps": 2}, "is known of 4 sampling steps, not of 2"),
        ({"uncertainty_limit": 1.0, "sampling_steps": 1}, "one sampling step moves none"),
    ):
        with pytest.raises(UserError, match=message):
            DreamVectorEnv(model, 2, **wrong)  # type: ignore[arg-type]


def test_both_ways_to_make_it_take_a_limit_of_steps(folder: Path) -> None:
    made: dict[str, Any] = {"model": str(folder), "observation": "belief", "max_episode_steps": 3}
    single = gym.make("worldsim:worldsim/Dream-v0", **made)
    rows = gym.make_vec("worldsim:worldsim/Dream-v0", 1, "vector_entry_point", **made)
    for seed in range(20):
        rows.reset(seed=seed)
        single.reset(seed=seed)
        for length in (1, 2, 3):
            *_, terminated, truncated, _ = single.step(0)
            *_, row_terminated, row_truncated, _ = rows.step(np.array([0]))
            assert (terminated, truncated or terminated) == (row_terminated[0], row_truncated[0] or row_terminated[0])
            if terminated:
                break
            assert truncated == (length == 3)


def test_saved_states_branch_and_rewind(kind: str) -> None:
    rows = DreamVectorEnv(tiny_world(kind=kind), 2, observation="features")
    rows.reset(seed=0)
    rows.step(np.array([0, 1]))
    saved = rows.save_state()
    actions = actions_for(rows, 5)
    once = [rows.step(action)[0] for action in actions]
    rows.load_state(saved)
    again = [rows.step(action)[0] for action in actions]
    for one, other in zip(once, again, strict=True):
        assert np.array_equal(one, other)


def test_truncation_is_told_and_bootstrapped_from_final_obs(kind: str) -> None:
    rows = DreamVectorEnv(tiny_world(kind=kind), 2, observation="latent", max_episode_steps=3)
    rows.model.dynamics.head.termination.bias.data.fill_(-1e4)
    rows.reset(seed=0)
    for length in (1, 2, 3):
        observations, _, terminated, truncated, infos = rows.step(np.array([0, 2]))
        assert not terminated.any()
        assert truncated.all() == (length == 3)
    assert infos["_final_obs"].all()
    assert not np.array_equal(infos["final_obs"][0], observations[0])
    assert rows.single_observation_space.contains(infos["final_obs"][1])


def test_next_step_and_disabled_autoreset(kind: str) -> None:
    model = tiny_world(kind=kind)
    model.dynamics.head.termination.bias.data.fill_(-1e4)
    rows = DreamVectorEnv(model, 2, max_episode_steps=2, autoreset_mode=AutoresetMode.NEXT_STEP)
    rows.reset(seed=0)
    rows.step(np.array([0, 0]))
    _, _, _, truncated, infos = rows.step(np.array([0, 0]))
    assert truncated.all()
    assert "final_obs" not in infos
    _, rewards, terminated, truncated, _ = rows.step(np.array([0, 0]))
    assert not rewards.any()
    assert not terminated.any()
    assert not truncated.any()
    _, _, _, truncated, _ = rows.step(np.array([0, 0]))
    assert not truncated.any()

    manual = DreamVectorEnv(model, 2, max_episode_steps=1, autoreset_mode=AutoresetMode.DISABLED)
    manual.reset(seed=0)
    manual.step(np.array([0, 0]))
    with pytest.raises(gym.error.ResetNeeded):
        manual.step(np.array([0, 0]))
    manual.reset(options={"reset_mask": np.array([True, True])})
    manual.step(np.array([0, 0]))


def test_endings_come_at_the_predicted_rate(kind: str) -> None:
    model = tiny_world(kind=kind)
    head = model.dynamics.head
    head.termination.weight.data.zero_()
    head.termination.bias.data.fill_(float(torch.logit(torch.tensor(0.2))))
    rows = DreamVectorEnv(model, 64, observation="belief", max_episode_steps=10_000)
    rows.reset(seed=0)
    rate = np.mean([rows.step(action)[2].mean() for action in actions_for(rows, 40)])
    assert rate == pytest.approx(0.2, abs=0.03)


def test_temperature_zero_dreams_the_same_from_any_seed_but_for_context_noise(kind: str) -> None:
    model = tiny_world(kind=kind)
    model.dynamics.config.context_noise = 0.0
    model.dynamics.head.termination.bias.data.fill_(-1e4)
    rows = DreamVectorEnv(model, 2, observation="latent", temperature=0.0)
    contexts = model.start_contexts.rows(torch.tensor([7]))
    rows = DreamVectorEnv(model, 2, observation="latent", temperature=0.0, start_contexts=contexts)
    rows.reset(seed=0)
    observations, *_ = rows.step(np.array([1, 1]))
    assert np.allclose(observations[0], observations[1], atol=1e-5)
    warm = DreamVectorEnv(model, 2, observation="latent", temperature=1.0, start_contexts=contexts)
    warm.reset(seed=0)
    observations, *_ = warm.step(np.array([1, 1]))
    assert not np.allclose(observations[0], observations[1], atol=1e-3)


def test_bad_input_is_named() -> None:
    model = tiny_world()
    for wrong in (
        {"observation": "smell"},
        {"num_envs": 0},
        {"temperature": -1.0},
        {"temperature": float("inf")},
        {"autoreset_mode": "SAME_STEP"},
        {"start": "middle"},
        {"render_mode": "ascii"},
        {"array": "jax"},
        {"max_episode_steps": 0},
    ):
        with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
            DreamVectorEnv(model, **{"num_envs": 2, **wrong})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="make_vec"):
        DreamEnv(model, num_envs=2)
    rows = DreamVectorEnv(model, 2)
    rows.reset()
    with pytest.raises(UserError, match="2 rows: expected 3"):
        DreamVectorEnv(model, 3).load_state(rows.save_state())
    env = DreamEnv(model)
    env.reset(seed=0)
    with pytest.raises(UserError, match="7"):
        env.step(7)
    with pytest.raises(UserError, match="temperature=-1"):
        rows.set_temperature(-1)
    boxed = DreamEnv(tiny_world("box"))
    boxed.reset(seed=0)
    boxed.step(np.array([0.1, 0.2]))  # float64, as NumPy has it
    with pytest.raises(UserError, match="outside"):
        boxed.step(np.array([0.1, 1.2]))
    binary = DreamEnv(tiny_world("multi_binary"))
    binary.reset(seed=0)
    with pytest.raises(UserError, match="outside"):
        binary.step(np.array([256, 0, 0]))  # 0, if it were cut to int8
    with pytest.raises(UserError, match="no world model"):
        DreamEnv("nowhere/at/all")
