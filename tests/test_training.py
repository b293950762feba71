from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from worldsim.checkpoints import CHECKPOINT, FitResult, resume, save_checkpoint
from worldsim.errors import UserError
from worldsim.training import TrainingError, fit
from worldsim.training_log import METRICS


class NoisyLearner:
    """Its parameters depend on every step, on its own generator and on the three global random states."""

    def __init__(self) -> None:
        self.model = torch.nn.Linear(4, 4)
        torch.nn.init.ones_(self.model.weight)
        torch.nn.init.zeros_(self.model.bias)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.generator = np.random.default_rng(0)
        self.updates = 0

    def update(self) -> dict[str, float]:
        noise = torch.randn(8, 4) + float(np.random.rand()) + random.random()  # noqa: NPY002
        x = torch.from_numpy(self.generator.normal(size=(8, 4)).astype(np.float32)) + noise
        loss = self.model(x).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        return {"loss": loss.item()}

    def images(self, step: int) -> dict[str, NDArray[np.uint8]]:
        return {"step": np.full((4, 6, 3), step, np.uint8)}

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.bit_generator.state = state["generator"]

    @property
    def weights(self) -> Tensor:
        return self.model.weight.detach().clone()


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def run(learner: Any, steps: int, folder: Path, **options: Any) -> FitResult:
    return fit(learner, steps=steps, folder=folder, name="toy", progress=False, **options)


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def test_twenty_steps_equal_ten_resume_and_ten_bitwise(tmp_path: Path) -> None:
    seed_everything(1)
    whole = NoisyLearner()
    run(whole, 20, tmp_path / "whole")

    seed_everything(1)
    run(NoisyLearner(), 10, tmp_path / "halves")
    seed_everything(99)  # a new process has other random states
    second = NoisyLearner()
    result = run(second, 20, tmp_path / "halves")

    assert second.updates == 10
    assert result.steps == 20
    assert torch.equal(second.weights, whole.weights)
    assert [line["loss"] for line in logged(tmp_path / "halves")] == [
        line["loss"] for line in logged(tmp_path / "whole")
    ]


def test_a_finished_run_is_loaded_and_returns_at_once(tmp_path: Path) -> None:
    first = NoisyLearner()
    done = run(first, 5, tmp_path)
    again = NoisyLearner()
    assert run(again, 5, tmp_path) == done
    assert again.updates == 0
    assert torch.equal(again.weights, first.weights)


def test_seconds_add_up_over_resumes(tmp_path: Path) -> None:
    save_checkpoint(NoisyLearner(), tmp_path, FitResult(3, 1000.0))
    assert run(NoisyLearner(), 4, tmp_path).seconds > 1000.0
    assert resume(NoisyLearner(), tmp_path).seconds > 1000.0


def test_metrics_are_means_and_a_killed_runs_surplus_lines_are_dropped(tmp_path: Path) -> None:
    class Counting(NoisyLearner):
        def update(self) -> dict[str, float]:
            self.updates += 1
            return {"loss": float(self.updates)}

    run(Counting(), 20, tmp_path, log_every=10)
    assert [(line["step"], line["loss"]) for line in logged(tmp_path)] == [(10, 5.5), (20, 15.5)]
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 30, "seconds": 1, "loss": 7}\n{"step": 40, "sec')  # logged after the last checkpoint
    run(Counting(), 30, tmp_path, log_every=10)
    assert [line["step"] for line in logged(tmp_path)] == [10, 20, 30]


def test_tensorboard_has_scalars_and_pictures(tmp_path: Path) -> None:
    run(NoisyLearner(), 4, tmp_path, log_every=2, images_every=2)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("toy/loss")] == [2, 4]
    assert [event.step for event in events.Images("toy/step")] == [2, 4]
    assert (events.Images("toy/step")[0].height, events.Images("toy/step")[0].width) == (4, 6)


def test_checkpoint_steps_sets_how_often_it_saves(tmp_path: Path) -> None:
    class Dies(NoisyLearner):
        def update(self) -> dict[str, float]:
            if self.updates == 8:
                raise ZeroDivisionError
            return super().update()

    with pytest.raises(ZeroDivisionError):
        run(Dies(), 20, tmp_path, checkpoint_steps=3)
    assert resume(NoisyLearner(), tmp_path).steps == 6


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(value: float, tmp_path: Path) -> None:
    class Explodes(NoisyLearner):
        def update(self) -> dict[str, float]:
            metrics = super().update()
            return {"policy_loss": value} if self.updates == 5 else metrics

    with pytest.raises(
        TrainingError, match=r"policy_loss became \w+ at step 5.*step 4 is kept.*lower the learning rate"
    ):
        run(Explodes(), 20, tmp_path, checkpoint_steps=2)
    assert resume(NoisyLearner(), tmp_path).steps == 4


def test_an_infinite_psnr_is_no_reason_to_stop(tmp_path: Path) -> None:
    class Perfect(NoisyLearner):
        def update(self) -> dict[str, float]:
            return super().update() | {"psnr": float("inf")}

    assert run(Perfect(), 2, tmp_path).steps == 2


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, UserError)])
def test_signals_save_and_stop(number: signal.Signals, error: type[BaseException], tmp_path: Path) -> None:
    class Interrupted(NoisyLearner):
        def update(self) -> dict[str, float]:
            if self.updates == 6:
                os.kill(os.getpid(), number)
            return super().update()

    before = signal.getsignal(number)
    with pytest.raises(error, match="step 7 of 20 and saved"):
        run(Interrupted(), 20, tmp_path)
    assert signal.getsignal(number) == before
    assert resume(NoisyLearner(), tmp_path).steps == 7


def test_kill_nine_loses_only_what_followed_the_last_checkpoint(tmp_path: Path) -> None:
    seed_everything(1)
    whole = NoisyLearner()
    run(whole, 12, tmp_path / "whole", checkpoint_steps=2)

    program = f"""
        import os, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from pathlib import Path
        from tests.test_training import NoisyLearner, run, seed_everything

        class Killed(NoisyLearner):
            def update(self):
                if self.updates == 7:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().update()

        seed_everything(1)
        run(Killed(), 12, Path({str(tmp_path / "killed")!r}), checkpoint_steps=2, log_every=1)
    """
    assert python(program).returncode == -signal.SIGKILL
    assert [line["step"] for line in logged(tmp_path / "killed")] == [1, 2, 3, 4, 5, 6, 7]
    resumed = NoisyLearner()
    run(resumed, 12, tmp_path / "killed", log_every=1)
    assert resumed.updates == 6
    assert torch.equal(resumed.weights, whole.weights)
    assert [line["step"] for line in logged(tmp_path / "killed")] == list(range(1, 13))


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """A limit on the size of files fails in the same calls as a full disk."""
    learner = NoisyLearner()
    save_checkpoint(learner, tmp_path, FitResult(3, 1.0))
    before = (tmp_path / CHECKPOINT).read_bytes()
    program = f"""
        import resource, signal, sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from pathlib import Path
        from tests.test_training import NoisyLearner
        from worldsim.errors import UserError
        from worldsim.checkpoints import FitResult, save_checkpoint

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            save_checkpoint(NoisyLearner(), Path({str(tmp_path)!r}), FitResult(4, 1.0))
        except UserError as error:
            print(error, end="")
    """
    result = python(program)
    assert result.returncode == 0, result.stderr
    assert "cannot save" in result.stdout
    assert "make room in" in result.stdout
    assert "\n" not in result.stdout
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot log toy"):
        run(NoisyLearner(), 2, tmp_path / "file" / "folder")


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_damaged_checkpoint_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint\.pt cannot be read"):
        run(NoisyLearner(), 2, tmp_path)


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, tmp_path / CHECKPOINT)
    with pytest.raises(UserError, match="not one of worldsim's"):
        run(NoisyLearner(), 2, tmp_path)


def test_another_configurations_checkpoint_is_refused(tmp_path: Path) -> None:
    other = NoisyLearner()
    other.model = torch.nn.Linear(4, 5)
    save_checkpoint(other, tmp_path, FitResult(1, 1.0))
    with pytest.raises(UserError, match="does not fit this configuration"):
        run(NoisyLearner(), 2, tmp_path)


def python(program: str) -> subprocess.CompletedProcess[str]:
    """Run `program` in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
