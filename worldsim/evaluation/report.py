"""The report of a run: one HTML file that holds everything it shows and opens without a network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from worldsim.data.files import explained, write_whole
from worldsim.evaluation.charts import Interval, Line, interval_chart, line_chart, number
from worldsim.evaluation.report_style import STYLE
from worldsim.evaluation.verdict import above, sequence

FILE = "report.html"
LARGEST_EMBEDDED = 16_000_000  # bytes of a video or picture; larger ones are only named
LARGEST_TOGETHER = 48_000_000
KINDS = {".mp4": "video/mp4", ".gif": "image/gif", ".png": "image/png"}
# Nothing may be fetched, and no script may run: what a page of numbers and pictures needs is in it.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"


@dataclass(frozen=True)
class Chart:
    """Lines over `x_name`; ticks: see `line_chart`."""

    title: str
    lines: Sequence[Line]
    x_name: str
    ticks: Mapping[float, str] | None = None


@dataclass(frozen=True)
class Content:
    """What a report shows; empty things are left out.

    verdict: as in verdict.json. media: (file, caption), in this order. missing: what is not shown, and why. charts:
    by their heading, `folded` ones behind a click. facts, tables: heading to name to value, as plain text.
    """

    title: str
    verdict: Mapping[str, Any] | None = None
    media: Sequence[tuple[Path, str]] = ()
    missing: Sequence[str] = ()
    charts: Mapping[str, Sequence[Chart]] = field(default_factory=dict)
    folded: Mapping[str, Sequence[Chart]] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


def write_report(content: Content, folder: Path) -> Path:
    """Writes FOLDER/report.html, all of it or nothing; returns its path. UserError if it cannot be written."""
    path = folder / FILE
    with explained("write the report", folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, page(content).encode())
    return path


def page(content: Content) -> str:
    """The whole page."""
    verdict = content.verdict
    parts = [f"<h1>{escape(content.title)}</h1>"]
    if verdict is not None:
        parts += [f'<p class="lead">{_lead(verdict)}</p>', "<h2>Verdict</h2>", _intervals(verdict), _table(verdict)]
    parts += [_facts(name, facts) for name, facts in content.facts.items() if facts]
    if content.media or content.missing:
        parts += ["<h2>What it looks like</h2>", f'<div class="media">{"".join(_media(content.media))}</div>']
        parts += [f'<p class="missing">Not shown: {escape(what)}.</p>' for what in content.missing]
    for name, charts in content.charts.items():
        parts.append(f'<h2>{escape(name)}</h2><div class="charts">{_charts(charts)}</div>')
    for name, charts in content.folded.items():
        parts.append(_folded(name, f'<div class="charts">{_charts(charts)}</div>'))
    parts += [_folded(name, _rows(rows)) for name, rows in content.tables.items() if rows]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(content.title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _lead(verdict: Mapping[str, Any]) -> str:
    agent = verdict["agent"]
    low, high = agent["ci95"]
    rivals = {name: score for name, score in verdict["baselines"].items() if name != "shuffled_observations"}
    best = max(rivals, key=lambda name: float(rivals[name]["mean"]))
    return (
        f"The agent, trained only in the dream, reaches <b>{number(agent['mean'])}</b> in the real environment "
        f"({number(low)} to {number(high)}, {agent['episodes']} episodes). Random play reaches "
        f"{number(verdict['baselines']['random']['mean'])}, the best that does not look, "
        f"{escape(best.replace('_', ' '))}, {number(rivals[best]['mean'])}. "
        f"The data: {verdict['real_tics']:,} real tics ({verdict['real_steps']:,} steps of the agent)."
    )


def _scores(verdict: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    scores = [("agent, real env", verdict["agent"])]
    scores += [(name.replace("_", " ") + sequence(score), score) for name, score in verdict["baselines"].items()]
    return scores + ([] if verdict["dream"] is None else [("agent, in its dream", verdict["dream"])])


def _intervals(verdict: Mapping[str, Any]) -> str:
    rows = [
        Interval(name, score["ci95"][0], score["mean"], score["ci95"][1], strong=k == 0)
        for k, (name, score) in enumerate(_scores(verdict))
    ]
    return interval_chart("Mean return and its 95 % interval", rows)


def _table(verdict: Mapping[str, Any]) -> str:
    rows = []
    for name, score in _scores(verdict):
        compared = above(verdict["agent"], score) if score not in (verdict["agent"], verdict["dream"]) else ""
        numbers = [score["mean"], *score["ci95"], score["mean_length"]]
        cells = "".join(f"<td>{number(value)}</td>" for value in numbers)
        rows.append(
            f'<tr><th scope="row">{escape(name)}</th>{cells}<td>{score["episodes"]}</td><td>{compared}</td></tr>'
        )
    headings = ("policy", "mean", "from", "to", "mean steps", "episodes", "agent is above")
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        "<p><small>Intervals are bootstrapped over episodes; all real scores are on the same seeds, none used before. "
        "The dream's own estimate is no score: a gap between it and reality is what the dream gets wrong.</small></p>"
    )


def _media(media: Sequence[tuple[Path, str]]) -> list[str]:
    parts, together = [], 0
    for path, caption in media:
        size = path.stat().st_size
        spoken = escape(caption, quote=True)
        if size > LARGEST_EMBEDDED or together + size > LARGEST_TOGETHER:
            shown = f"<p>{escape(path.name)} has {size / 1e6:.0f} MB and lies beside this page, not in it.</p>"
        else:
            together += size
            source = f"data:{KINDS[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"
            if path.suffix == ".mp4":
                shown = f'<video src="{source}" controls loop muted playsinline aria-label="{spoken}"></video>'
            else:
                shown = f'<img src="{source}" alt="{spoken}">'
        name = escape(path.stem.replace("_", " "))
        text = f"<figcaption>{escape(caption)}</figcaption>"
        parts.append(f'<figure id="{escape(path.stem)}"><h3>{name}</h3>{shown}{text}</figure>')
    return parts


def _charts(charts: Sequence[Chart]) -> str:
    return "".join(line_chart(chart.title, chart.lines, chart.x_name, ticks=chart.ticks) for chart in charts)


def _facts(name: str, facts: Mapping[str, object]) -> str:
    return f"<h2>{escape(name)}</h2>{_rows(facts)}"


def _rows(rows: Mapping[str, object]) -> str:
    texts = {name: number(value) if isinstance(value, float) else str(value) for name, value in rows.items()}
    cells = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>' for name, text in texts.items()
    )
    return f'<div class="wide"><table class="pairs"><tbody>{cells}</tbody></table></div>'


def _folded(name: str, inside: str) -> str:
    return f"<details><summary>{escape(name)}</summary>{inside}</details>"
