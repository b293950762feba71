from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from worldsim.errors import UserError
from worldsim.evaluation.statistics import Score
from worldsim.evaluation.verdict import Verdict, print_verdict


def score(mean: float, **details: Any) -> Score:
    return Score([mean - 1, mean, mean + 1], [1, 2, 3], [4, 5, 6], [8, 10, 12], details)


def verdict(**changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "env_id": "Column-v0",
        "agent": score(100),
        "baselines": {
            "random": score(22),
            "best_blind": score(98.5, actions=[0, 2], hold_steps=25, tuning_mean=98.0),
            "shuffled_observations": score(101),
        },
        "dream": Score([120.0], [9], [120]),
        "action_shuffle_ratio": 1.6,
        "real_steps": 1234,
        "real_tics": 4936,
        "seconds": {"collect": 60.00049, "agent": 30},
        "world": {"psnr_dream_1": 31.5},
    }
    return Verdict(**{**values, **changes})


def test_verdict_json_has_its_keys(tmp_path: Path) -> None:
    path = verdict().write(tmp_path / "run")
    assert path == tmp_path / "run" / "verdict.json"
    assert [file.name for file in path.parent.iterdir()] == ["verdict.json"]
    content = json.loads(path.read_text())
    assert set(content) == {
        "env_id",
        "agent",
        "baselines",
        "dream",
        "action_shuffle_ratio",
        "world",
        "real_steps",
        "real_tics",
        "seconds",
        "versions",
    }
    for one in (content["agent"], content["dream"], *content["baselines"].values()):
        assert {"mean", "ci95", "episodes", "returns", "seeds"} <= set(one)
        assert one["ci95"][0] <= one["mean"] <= one["ci95"][1]
        assert one["episodes"] == len(one["returns"]) == len(one["seeds"])
    assert content["baselines"]["best_blind"]["hold_steps"] == 25
    assert content["seconds"] == {"collect": 60.0, "agent": 30.0}
    assert set(content["versions"]) == {"worldsim", "torch", "gymnasium", "numpy", "python"}
    assert content["world"] == {"psnr_dream_1": 31.5}


def test_what_was_not_measured_is_null(tmp_path: Path) -> None:
    path = verdict(dream=None, action_shuffle_ratio=None, seconds={}, notes={"round": 1}).write(tmp_path)
    content = json.loads(path.read_text())
    assert (content["dream"], content["action_shuffle_ratio"], content["round"]) == (None, None, 1)
    print_verdict(content, Console(file=io.StringIO()))
    with pytest.raises(ValueError, match="random baseline"):
        verdict(baselines={"best_blind": score(3)})


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write the verdict in"):
        verdict().write(tmp_path / "file" / "run")


@pytest.mark.parametrize("as_json", [False, True])
def test_the_table_says_who_is_above_whom(as_json: bool) -> None:
    out = io.StringIO()
    whole = verdict()
    print_verdict(json.loads(json.dumps(whole.to_dict())) if as_json else whole, Console(file=out, width=120))
    lines = {line.split("│")[1].strip(): line for line in out.getvalue().splitlines() if line.count("│") > 4}
    assert "100.0" in lines["agent, real env"]
    assert "99.0 to 101.0" in lines["agent, real env"]
    assert "its interval" in lines["random"]
    assert "its mean" in lines["best blind (0, 2 x 25 steps)"]
    assert "no" in lines["shuffled observations"]
    assert "120.0" in lines["agent, in its dream"]
    assert "1,234 real steps (4,936 tics); action-shuffle ratio 1.60; 1.5 minutes" in out.getvalue()
