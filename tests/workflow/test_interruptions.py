"""A run that was killed in the middle of every stage ends with the same bytes as one that never stopped."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Stop, command

pytestmark = pytest.mark.timeout(1200)  # seconds of work, but on a busy machine they last

# In the order in which a run meets them. Each goes on from what the one before left behind.
KILLS = {
    "collect, in an episode": Stop("worldsim.envs.wrappers:PixelEnv.step", 150),
    "collect, frames written but not their steps": Stop("worldsim.data.shards:write_synced", 8),
    "tokenizer, in a step": Stop("worldsim.tokenizers.learner:reconstruction_loss", 5),
    "tokenizer, checkpoint written but not in place": Stop("os:replace", 3, mentioning="tokenizer/checkpoint.pt"),
    "encode": Stop("worldsim.data.latents:_encode", 4),
    "dynamics, between weights and their average": Stop("worldsim.descent:average_weights", 5),
    "world model, start contexts missing": Stop("worldsim.model_folder:_save_tensors", 3),
    "world model, all but config.json": Stop("os:replace", 1, mentioning="world_model/config.json"),
    "agent, in an update": Stop("worldsim.agents.actor_critic:lambda_returns", 2),
    "policy, weights without config": Stop("worldsim.agents.policy_io:_replace", 3),
    "collect of round 1": Stop("worldsim.envs.wrappers:PixelEnv.step", 100),
    "encode of round 1": Stop("worldsim.data.latents:_encode", 6),
    "dynamics of round 1": Stop("worldsim.descent:average_weights", 4),
    "agent of round 1": Stop("worldsim.agents.actor_critic:lambda_returns", 2),
    "evaluate, in an episode": Stop("worldsim.envs.wrappers:PixelEnv.step", 40),
    "pictures, one of six done": Stop("worldsim.evaluation.pictures:write_video", 2),
}


def lasting_files(run: Path) -> dict[str, bytes]:
    """All that must be the same whatever happened: data, latents, models, policies."""
    kinds = (".u8", ".bin", ".jsonl", ".f16", ".safetensors", ".json", ".md")
    folders = [run / "episodes", *sorted(run.glob("round-*/world_model"))]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in kinds]
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(files)}


def lasting_metrics(path: Path) -> list[dict[str, Any]]:
    """Without what counts seconds. A mean over steps before and after a kill knows only those after it."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if path.parent.name == "agent":  # logged at every step
        return [{key: value for key, value in line.items() if "second" not in key} for line in lines]
    return [{"step": line["step"]} for line in lines]


def lasting_verdict(run: Path) -> dict[str, Any]:
    verdict: dict[str, Any] = json.loads((run / "verdict.json").read_text())
    return {key: value for key, value in verdict.items() if key != "seconds"}


def test_killed_in_every_stage_it_ends_the_same(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["run", "debug", "threads=1", "checkpoint_seconds=0", "--folder", run]
    for moment, stop in KILLS.items():
        outcome = command(*arguments, log=tmp_path / "log", stop=stop)
        assert outcome.code == -signal.SIGKILL, f"not killed in {moment}: {outcome.errors}"
        if moment == "encode":  # what the system had written of the next episode
            for latents in run.glob("episodes/latents/*/*.f16"):
                latents.write_bytes(latents.read_bytes() + b"half an episode")
    outcome = command(*arguments, log=tmp_path / "log")
    assert outcome.code == 0, outcome.errors

    expected, found = lasting_files(finished_run), lasting_files(run)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []
    assert lasting_verdict(run) == lasting_verdict(finished_run)
    for metrics in finished_run.rglob("metrics.jsonl"):
        assert lasting_metrics(run / metrics.relative_to(finished_run)) == lasting_metrics(metrics)
    left_behind = [path for path in run.rglob("*") if ".tmp" in path.name]
    assert left_behind == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 2)])
def test_training_that_is_stopped_saves_and_goes_on(tmp_path: Path, number: int, code: int) -> None:
    run = tmp_path / "run"
    arguments = ["train", "debug", "--until", "tokenizer", "threads=1", "--folder", run]
    stop = Stop("worldsim.tokenizers.learner:reconstruction_loss", 5, number=number)
    outcome = command(*arguments, log=tmp_path / "log", stop=stop)
    assert outcome.code == code
    assert "Traceback" not in outcome.errors
    assert "stopped at step 5 of 12 and saved" in outcome.message
    assert (run / "tokenizer" / "checkpoint.pt").exists()

    # The rerun does steps 6 to 12 and no other.
    outcome = command(*arguments, log=tmp_path / "log", stop=Stop("worldsim.tokenizers.learner:reconstruction_loss", 8))
    assert outcome.code == 0, outcome.errors


def test_collection_that_is_stopped_goes_on(tmp_path: Path, finished_run: Path) -> None:
    run = tmp_path / "run"
    arguments = ["collect", "debug", "threads=1", "--folder", run]
    stop = Stop("worldsim.envs.wrappers:PixelEnv.step", 200, number=signal.SIGINT)
    outcome = command(*arguments, log=tmp_path / "log", stop=stop)
    assert outcome.code == 130
    assert "Traceback" not in outcome.errors
    assert "run the same command again" in outcome.message

    assert command(*arguments, log=tmp_path / "log").code == 0
    shard = Path("episodes", "shards", "round00-worker00", "frames.u8")
    assert (run / shard).read_bytes() == (finished_run / shard).read_bytes()
