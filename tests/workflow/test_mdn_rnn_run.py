"""Vision, memory and controller of Ha & Schmidhuber at debug scale, from a real env to a verdict."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("cma")

from tests.commands import Stop, command
from tests.workflow.whole_runs import (
    check_killed_it_ends_with_the_same_weights,
    check_reached_a_verdict,
    check_refused,
    run_debug,
)
from worldsim.agents.policy_io import load_policy
from worldsim.dynamics.mdn_rnn import MdnRnnDynamics
from worldsim.model_folder import load_model
from worldsim.tokenizers.convolutional import ConvolutionalTokenizer
from worldsim.workflow.policies import load_dream_trained

pytestmark = pytest.mark.timeout(600)  # seconds of work, but on a busy machine they last

KILLS = (
    Stop("worldsim.tokenizers.learner:variational_loss", 5),
    Stop("worldsim.dynamics.learner:warmup_cosine", 5),
    Stop("worldsim.agents.cma_es:_set_parameters", 2),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_debug("debug_mdn_rnn", tmp_path_factory.mktemp("mdn_rnn"))


def test_it_walks_to_a_verdict(finished: Path) -> None:
    check_reached_a_verdict(finished)
    folder = finished / "round-01" / "world_model"
    model, policy = load_model(folder), load_policy(folder / "policy")
    assert isinstance(model.tokenizer, ConvolutionalTokenizer)
    assert isinstance(model.dynamics, MdnRnnDynamics)
    assert policy.spec.deterministic
    assert policy.head.in_features == 4 + 8  # latents and hidden state
    assert "mixture-density LSTM" in (folder / "README.md").read_text()
    assert load_dream_trained(folder, folder / "policy").name == "dream-trained"


def test_killed_in_every_training_it_ends_with_the_same_weights(finished: Path, tmp_path: Path) -> None:
    check_killed_it_ends_with_the_same_weights("debug_mdn_rnn", KILLS, finished, tmp_path)


def test_the_controller_learns_in_a_dits_dream_too(tmp_path: Path) -> None:
    settings = ["agent.kind=cma_es", "agent.cma_es.population=4", "agent.cma_es.elites=2", "dream.num_envs=8"]
    outcome = command("train", "debug", "threads=1", "--folder", tmp_path / "run", *settings, log=tmp_path / "log")
    assert outcome.code == 0, outcome.errors
    policy = load_policy(tmp_path / "run" / "round-01" / "world_model" / "policy")
    assert policy.spec.deterministic
    layout = policy.spec.layout
    assert layout is not None
    assert policy.head.in_features == layout["tokens"] * layout["channels"] + layout["belief"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("dynamics.kind=gpt", "dynamics.kind=gpt: expected one of dit, mdn_rnn, video_gpt"),
        ("dynamics.optimizer=muon", "expected adamw"),
        ("dynamics.mixtures=0", "dynamics.mixtures=0: expected at least 1"),
        ("tokenizer.kind=gan", "tokenizer.kind=gan: expected one of vit, pixels, convolutional, vq"),
        ("env.frame_height=15", "cannot halve frames of 15x48"),
        ("agent.kind=evolution", "agent.kind must be one of actor_critic, cma_es"),
        ("dream.num_envs=6", "agent.cma_es.population is 4, which must divide the number of rows, 6"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_refused("debug_mdn_rnn", setting, message, tmp_path, capsys)
