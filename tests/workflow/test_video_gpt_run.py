"""A video GPT over codes at debug scale, from a real env to a verdict and to a judgement of its dream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.commands import Stop
from tests.workflow.whole_runs import (
    SMALL,
    check_killed_it_ends_with_the_same_weights,
    check_reached_a_verdict,
    check_refused,
    run_debug,
)
from worldsim.data.latents import LatentCache
from worldsim.data.store import EpisodeStore
from worldsim.dynamics.video_gpt import VideoGptDynamics
from worldsim.model_folder import load_model, save_model
from worldsim.tokenizers.build import tokenizer_fingerprint
from worldsim.tokenizers.vector_quantised import VqTokenizer
from worldsim.workflow import world_report
from worldsim.workflow.world_report import evaluate_world
from worldsim.world_model import row_generator

# Seconds of work, but on a busy machine they last.
pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]

KILLS = (
    Stop("worldsim.tokenizers.learner:perplexity", 5),
    Stop("worldsim.dynamics.learner:warmup_cosine", 5),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_debug("debug_video_gpt", tmp_path_factory.mktemp("video_gpt"))


def test_it_walks_to_a_verdict(finished: Path) -> None:
    check_reached_a_verdict(finished)
    folder = finished / "round-01" / "world_model"
    model = load_model(folder)
    assert isinstance(model.tokenizer, VqTokenizer)
    assert isinstance(model.dynamics, VideoGptDynamics)
    # The second round refined the tokenizer: the dynamics speak of its codes, not of those of the first.
    assert torch.equal(model.dynamics.codebook, model.tokenizer.codebook.codes)
    first = load_model(finished / "round-00" / "world_model").dynamics
    assert isinstance(first, VideoGptDynamics)
    assert not torch.equal(first.codebook, model.dynamics.codebook)
    assert "causal-transformer world model over codes" in (folder / "README.md").read_text()
    config = json.loads((folder / "config.json").read_text())
    assert 0 < config["training"]["held_out_bits_per_dimension"] < 12 * 4 / (16 * 48)


def test_codes_are_recovered_from_what_lies_on_disk_and_from_a_dream(finished: Path) -> None:
    model = load_model(finished / "round-01" / "world_model")
    assert isinstance(model.tokenizer, VqTokenizer)
    assert isinstance(model.dynamics, VideoGptDynamics)
    store = EpisodeStore.open(finished / "episodes")
    cached = torch.from_numpy(LatentCache.open(store, tokenizer_fingerprint(model.tokenizer))[0].copy())
    indices = model.dynamics.indices(model.dynamics.scale.to_unit(cached.float()))
    rounded = (model.tokenizer.codebook.codes[indices] - cached.float()).abs()
    assert (rounded <= 1e-3 * cached.abs().float() + 1e-6).all()
    state = model.start_from(model.start_contexts.rows(torch.arange(3)), [row_generator(i) for i in range(3)])
    _, shown = model.step(state, torch.tensor([0, 1, 0]))
    codes = model.tokenizer.codebook.codes[model.dynamics.indices(shown.latents)]
    assert torch.equal(model.decode(shown.latents), model.tokenizer.decode(codes))


def test_a_small_copy_keeps_the_codes_exactly(finished: Path, tmp_path: Path) -> None:
    model = load_model(finished / "round-01" / "world_model")
    save_model(model, tmp_path / "small", small=True)
    small = load_model(tmp_path / "small")
    assert isinstance(model.dynamics, VideoGptDynamics)
    assert isinstance(small.dynamics, VideoGptDynamics)
    assert isinstance(small.tokenizer, VqTokenizer)
    assert torch.equal(small.dynamics.codebook, model.dynamics.codebook)
    assert torch.equal(small.tokenizer.codebook.codes, model.dynamics.codebook)


def test_its_dream_is_judged_as_any_other(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(world_report, "encoder_is_installed", lambda: False)
    evaluate_world(finished, tmp_path / "report", episodes=2, seed=0, effort=SMALL)
    report = json.loads((tmp_path / "report" / "world.json").read_text())
    assert report
    assert (tmp_path / "report" / "world.html").is_file()


def test_killed_in_every_training_it_ends_with_the_same_weights(finished: Path, tmp_path: Path) -> None:
    check_killed_it_ends_with_the_same_weights("debug_video_gpt", KILLS, finished, tmp_path)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("tokenizer.kind=vit", "tokenizer.kind=vit: expected vq, because dynamics.kind=video_gpt predicts codes"),
        ("tokenizer.codes=1", "tokenizer.codes=1: expected at least 2"),
        ("tokenizer.codebook_decay=1.5", "tokenizer.codebook_decay=1.5: expected from 0 to 1"),
        ("tokenizer.patch=3", "tokenizer.patch=3: kind=vq needs a power of two"),
        ("tokenizer.width=18", "tokenizer.width=18 must be a multiple of"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_refused("debug_video_gpt", setting, message, tmp_path, capsys)
