"""The list of released models."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldsim.cli import main
from worldsim.model_folder import PRETRAINED, episodes_beside, find_model
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


def test_a_run_without_a_model_lends_no_episodes_to_a_released_model_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "quickstart"
    (run / "episodes").mkdir(parents=True)
    (run / "config.json").write_text('{"rounds": 1}')
    monkeypatch.chdir(tmp_path)
    model = find_model("quickstart")
    assert model.parent == PRETRAINED
    assert episodes_beside("quickstart", model) is None
    made = run / "round-00" / "world_model"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    assert episodes_beside("quickstart", find_model("quickstart")) == Path("quickstart") / "episodes"


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    for release in releases():
        [line] = [line for line in text.splitlines() if release.name in line]
        assert release.env_id in line
        assert release.scores["policy"] in line
        assert "MIT" in line
