"""Settings that could only fail hours later are refused at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.whole_runs import check_refused


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("plans.dropout=1.0", "plans.dropout=1.0: expected from 0 on and below 1"),
        ("plans.near_fraction=1", "plans.near_fraction=1.0: expected below 1"),
        ("dream.temperature=.inf", "dream.temperature=inf: expected a finite number"),
        ("dynamics.ending_fraction=1", "dynamics.ending_fraction=1.0: expected from 0 on and below 1"),
        ("evaluate.seed=2147483640", "evaluate.seed=2147483640: expected from 0 to 2147483547, for 100 episodes"),
    ],
)
def test_settings_that_cannot_work_are_refused(
    setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_refused("take_cover", setting, message, tmp_path, capsys)
