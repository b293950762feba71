"""A saved world model is whole, or says in one line what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.worlds import tiny_world
from worldsim.dream import DreamVectorEnv
from worldsim.dynamics.build import DYNAMICS
from worldsim.dynamics.dit_dynamics import DiTDynamics
from worldsim.errors import UserError
from worldsim.model_folder import PRETRAINED, find_model, load_model, released_models, save_model
from worldsim.world_model import row_generator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tiny_world(), tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", list(DYNAMICS))
def test_it_comes_back_as_it_was(kind: str, tmp_path: Path) -> None:
    model = tiny_world(kind=kind)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.spec == model.spec
    dreams = []
    for world in (model, loaded):
        contexts = world.start_contexts.rows(torch.arange(3))
        state = world.start_from(contexts, [row_generator(i) for i in range(3)])
        state, step = world.step(state, torch.tensor([0, 1, 2]))
        dreams.append(step)
    assert torch.equal(dreams[0].latents, dreams[1].latents)
    assert torch.equal(dreams[0].reward, dreams[1].reward)


def test_its_quantiles_of_uncertainty_come_back(tmp_path: Path) -> None:
    model = tiny_world()
    model.uncertainty_quantiles = {0.9: 0.25, 0.99: 1 / 3}
    save_model(model, tmp_path / "model")
    assert load_model(tmp_path / "model").uncertainty_quantiles == model.uncertainty_quantiles
    assert DreamVectorEnv(tmp_path / "model", 1, uncertainty_quantile=0.99).uncertainty_limit == 1 / 3
    assert DreamVectorEnv(model, 1).uncertainty_limit is None


@pytest.mark.parametrize("name", released_models())
def test_released_models_know_their_uncertainty(name: str) -> None:
    levels = load_model(name).uncertainty_quantiles
    assert list(levels) == [0.5, 0.75, 0.9, 0.95, 0.99]
    assert sorted(levels.values()) == list(levels.values())


def test_its_temperature_comes_back_and_is_the_default_of_its_dreams(tmp_path: Path) -> None:
    model = tiny_world()
    model.temperature = 0.0
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.temperature == DreamVectorEnv(loaded, 1).temperature == 0.0
    assert DreamVectorEnv(loaded, 1, temperature=1.5).temperature == 1.5

    def dream(temperature: float | None) -> torch.Tensor:
        state = loaded.start_from(loaded.start_contexts.rows(torch.arange(1)), [row_generator(0)])
        return loaded.step(state, torch.tensor([0]), temperature=temperature)[1].latents

    assert torch.equal(dream(None), dream(0.0))
    assert not torch.equal(dream(None), dream(1.0))


def test_a_model_from_before_there_were_kinds_is_a_dit(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for name in ("kind", "mixtures"):
        del config["dynamics"][name]
    (folder / "config.json").write_text(json.dumps(config))
    assert isinstance(load_model(folder).dynamics, DiTDynamics)


def test_nothing_in_it_is_pickled(folder: Path) -> None:
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds == {".json", ".safetensors", ".md"}


@pytest.mark.parametrize("name", ["tokenizer", "dynamics", "start_contexts"])
def test_damage_is_told_in_one_line(folder: Path, name: str) -> None:
    path = folder / f"{name}.safetensors"
    if name == "tokenizer":  # the pixel tokenizer has no weights to lose
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match=f"{name}.safetensors") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_a_foreign_or_newer_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for change, expected in (({"format": "something else"}, "worldsim world model"), ({"format_version": 99}, "99")):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(UserError, match=expected):
            load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        load_model(folder)
    with pytest.raises(UserError, match="no world model"):
        load_model(tmp_path / "empty")


def test_a_run_folder_stands_for_its_newest_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "quickstart"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"seed": 0, "rounds": 2}))
    assert find_model("quickstart") == PRETRAINED / "quickstart", "a run without a model hides no released one"
    with pytest.raises(UserError, match="has no world model yet"):
        find_model(run)
    for number in (0, 1):
        shutil.copytree(folder, run / f"round-0{number}" / "world_model")
    assert find_model("quickstart") == Path("quickstart/round-01/world_model")
    assert load_model(run).spec == load_model(folder).spec


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["dynamics"]["size"] = "nano"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"does not fit"):
        load_model(folder)
    config["dynamics"]["kind"] = "gpt"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"'gpt' is unknown: choose one of dit, mdn_rnn"):
        load_model(folder)


def test_start_contexts_of_another_kind_are_refused(folder: Path) -> None:
    path = folder / "start_contexts.safetensors"
    tensors = load_file(path)
    del tensors["present"]
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"start_contexts.safetensors does not hold start contexts.*present"):
        load_model(folder)
