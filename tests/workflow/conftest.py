from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from tests.commands import command


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The folder of `worldsim run debug`, never interrupted; one for all test workers. To be read only."""
    worker = getattr(request.config, "workerinput", {}).get("workerid", "master")  # as pytest-xdist names it
    base = tmp_path_factory.getbasetemp()
    shared = base if worker == "master" else base.parent
    with open(shared / "debug_run.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = shared / "debug_run"
        if not (folder / "videos" / "agent_real.mp4").exists():
            outcome = command("run", "debug", "threads=1", "--folder", folder, log=shared / "debug_run_log")
            assert outcome.code == 0, outcome.errors
    return folder
