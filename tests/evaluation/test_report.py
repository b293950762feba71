"""The report is one whole page that needs nothing else."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldsim.evaluation import report
from worldsim.evaluation.charts import Line
from worldsim.evaluation.report import Chart, Content, page, write_report
from worldsim.evaluation.statistics import Score
from worldsim.evaluation.verdict import Verdict
from worldsim.rendering import write_picture, write_video

ALONE = {"meta", "img", "br", "line", "circle", "polyline"}


class Checked(HTMLParser):
    """Refuses tags that do not close in order; keeps tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ALONE:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def score(*returns: float, **details: Any) -> Score:
    return Score(returns, list(range(len(returns))), [3] * len(returns), details=details)


def verdict() -> dict[str, Any]:
    blind = score(20, 30, actions=[1, 2], hold_steps=8)
    return Verdict(
        env_id="Game-v0",
        agent=score(90, 100, 110),
        baselines={"random": score(10, 12), "best_blind": blind, "shuffled_observations": score(200, 210)},
        dream=score(150, 170),
        action_shuffle_ratio=2.0,
        real_steps=1000,
        real_tics=4000,
        seconds={"evaluate": 3.0},
    ).to_dict()


@pytest.fixture
def content(tmp_path: Path) -> Content:
    frames = np.zeros((4, 16, 16, 3), np.uint8)
    write_video(frames, tmp_path / "dream.mp4", frames_per_second=10)
    write_picture(frames[0], tmp_path / "grid.png")
    return Content(
        title="Game-v0 <script>alert(1)</script>",
        verdict=verdict(),
        media=[(tmp_path / "dream.mp4", 'A "dream" & more'), (tmp_path / "grid.png", "A grid")],
        missing=["the moon (too far)"],
        charts={"Training": [Chart("loss", [Line("round 0", [1, 2], [3, 4])], "steps")]},
        folded={"More": [Chart("entropy", [Line("round 0", [1, 2], [3, 4])], "steps")]},
        facts={"Facts": {"steps": 3}},
        tables={"Settings": {"agent.gamma": 0.99}},
    )


def test_it_holds_all_and_fetches_nothing(content: Content, tmp_path: Path) -> None:
    path = write_report(content, tmp_path / "new")
    text = path.read_text()
    seen = Checked(text)
    [video], [picture] = seen.all("video"), seen.all("img")
    for source, file in ((video["src"], "dream.mp4"), (picture["src"], "grid.png")):
        assert source is not None
        assert base64.b64decode(source.partition("base64,")[2]) == (tmp_path / file).read_bytes()
    words = re.sub(r"base64,[A-Za-z0-9+/=]*", "", text)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", words)
    assert seen.all("script") == seen.all("link") == seen.all("iframe") == []
    assert "<script>alert(1)</script>" in seen.text  # as text, in title and heading
    for expected in ("Verdict", "Training", "More", "entropy", "agent.gamma", "0.99", "the moon (too far)"):
        assert expected in seen.text


def test_everything_seen_can_be_heard(content: Content) -> None:
    seen = Checked(page(content))
    assert seen.all("video")[0]["aria-label"] == 'A "dream" & more'
    assert seen.all("img")[0]["alt"] == "A grid"
    assert len(seen.all("svg")) == 2
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in seen.all("svg"))
    assert seen.all("html")[0]["lang"] == "en"
    assert all(heading.get("scope") for heading in seen.all("th"))


def test_the_verdict_compares_honestly(content: Content) -> None:
    seen = Checked(page(content))
    assert "reaches 100 in the real environment" in seen.text
    assert "best blind, 25" in seen.text  # an agent that is shown another's frames is no rival
    assert "best blind (1, 2 x 8 steps)" in seen.text


def test_what_is_too_large_is_named(content: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "LARGEST_EMBEDDED", 100)
    seen = Checked(page(content))
    assert seen.all("video") == []
    assert "dream.mp4 has 0 MB and lies beside this page" in seen.text


def test_little_is_enough() -> None:
    seen = Checked(page(Content("A model", facts={"Facts": {"a": 1.5}})))
    assert "Verdict" not in seen.text
    assert "1.5" in seen.text
