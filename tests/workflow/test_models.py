"""The list of released models."""

from __future__ import annotations

import pytest

from worldsim.cli import main
from worldsim.workflow.models import releases


def test_every_release_says_what_it_is() -> None:
    found = {release.name: release for release in releases()}
    assert {"quickstart", "take_cover"} <= set(found)
    for release in found.values():
        assert release.licence == "MIT"
        assert 0 < release.megabytes <= 20
        for score in release.scores.values():
            assert float(score.split()[0]) > 0
            assert " to " in score
    assert found["take_cover"].env_id == "VizdoomTakeCover-v1"


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    for release in releases():
        [line] = [line for line in text.splitlines() if release.name in line]
        assert release.env_id in line
        assert release.scores["policy"] in line
        assert "MIT" in line
