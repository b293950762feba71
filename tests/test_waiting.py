"""How long threads spin is settled before torch reads it, and by the user where he has a say."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from worldsim.waiting import SPINS, wait_briefly


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SPINS, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)


def test_threads_spin_for_a_thousand_turns() -> None:
    wait_briefly()
    assert os.environ[SPINS] == "1000"


def test_what_the_user_set_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SPINS, "7")
    wait_briefly()
    assert os.environ[SPINS] == "7"


def test_nothing_is_set_beside_a_policy_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_briefly()
    assert SPINS not in os.environ


def test_the_command_line_settles_it_before_torch_is_there() -> None:
    script = f"""
import os, sys, worldsim.cli
assert "torch" not in sys.modules
try:
    worldsim.cli.main(["--version"])
except SystemExit:
    pass
assert "torch" not in sys.modules
print(os.environ["{SPINS}"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "1000"
