"""Gathers what a run, or a model, has to show into one page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from worldsim.data.files import explained
from worldsim.errors import UserError
from worldsim.evaluation.charts import Line
from worldsim.evaluation.pictures import CAPTIONS
from worldsim.evaluation.report import KINDS, Chart, Content, write_report
from worldsim.evaluation.verdict import FILE
from worldsim.evaluation.world import HORIZONS
from worldsim.training_log import METRICS

# The curves that tell how a training went; all others are there behind a click.
MAIN_CURVES = {
    "tokenizer": ("loss", "psnr"),
    "dynamics": ("loss", "latent", "reward", "termination"),
    "agent": ("return_at_start", "value_at_start", "entropy", "episode_length", "excess_risk"),
}


def report(out: Path, model: Path, run: Path | None, missing: Sequence[str] = ()) -> Path:
    """Write OUT/report.html; returns its path.

    model: the world model's folder. run: the run that made it, whose verdict and curves are shown. The videos are
    those of OUT/videos. missing: what cannot be shown, and why.
    """
    videos = out / "videos"
    with explained("read what to report", out):
        captions, config = read_json(videos / CAPTIONS), read_json(model / "config.json")
        verdict, settings, curves = None, {}, {}
        if run is not None:
            if (run / FILE).exists():
                verdict = read_json(run / FILE)
            settings = _flat(read_json(run / "config.json"))
            curves = {stage: _curves(run, stage) for stage in MAIN_CURVES}
        charts = {} if verdict is None else {"The dream against reality": _error_over_horizon(verdict["world"])}
        charts |= {f"Training: {stage}": [c for c in curves[stage] if c.title in main] for stage, main in _main(curves)}
        folded = {
            f"All other curves: {stage}": [c for c in curves[stage] if c.title not in main]
            for stage, main in _main(curves)
        }
        content = Content(
            title=f"{config['env']['id']}: a dream and its agent",
            verdict=verdict,
            # A GIF shows what the mp4 beside it shows.
            media=[(videos / name, text) for name, text in captions.items() if _shown(name)],
            missing=missing,
            charts={name: shown for name, shown in charts.items() if shown},
            folded={name: shown for name, shown in folded.items() if shown},
            facts={} if verdict is not None else {"What the model says of itself": config["training"]},
            tables=_tables(config, verdict, settings),
        )
        return write_report(content, out)


def read_json(path: Path) -> dict[str, Any]:
    """What a file of the run says. UserError for one that is damaged, OSError for one that is not there."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): delete it and run `worldsim run` again") from None
    return content


def _shown(name: str) -> bool:
    return Path(name).suffix in KINDS and not name.endswith(".gif")


def _main(curves: Mapping[str, Sequence[Chart]]) -> Iterable[tuple[str, tuple[str, ...]]]:
    return [(stage, MAIN_CURVES[stage]) for stage in curves]


def _curves(run: Path, stage: str) -> list[Chart]:
    """A chart for each number that the trainings of a stage logged, a line for each round."""
    found = {"first training": run / stage / METRICS}  # the tokenizer's lies beside the rounds
    found |= {folder.name.replace("-", " "): folder / stage / METRICS for folder in sorted(run.glob("round-*"))}
    rounds = {name: _read_metrics(path) for name, path in found.items() if path.exists()}
    names = dict.fromkeys(name for records in rounds.values() for record in records for name in record)
    charts = []
    for name in names:
        if name in ("step", "seconds"):
            continue
        lines = []
        for label, records in rounds.items():
            points = [(record["step"], record[name]) for record in records if math.isfinite(record.get(name, math.nan))]
            if len(points) > 1:
                xs, ys = zip(*points, strict=True)
                lines.append(Line(label, xs, ys))
        if lines:
            charts.append(Chart(name, lines, "updates" if stage == "agent" else "steps"))
    return charts


def _read_metrics(path: Path) -> list[dict[str, float]]:
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:  # the torn last line of a run that was killed
            break
    return records


def _error_over_horizon(world: Mapping[str, float]) -> list[Chart]:
    """The dream's PSNR by the steps ahead, beside what can be had for nothing and what the tokenizer allows."""
    names = {"dream": "psnr_dream", "last real frame": "psnr_copy", "tokenizer": "psnr_tokenizer"}
    lines = []
    for label, name in names.items():
        known = [(math.log2(steps), world[f"{name}_{steps}"]) for steps in HORIZONS if f"{name}_{steps}" in world]
        if known:
            xs, ys = zip(*known, strict=True)
            lines.append(Line(label, xs, ys))
    ticks = {math.log2(steps): str(steps) for steps in HORIZONS}
    return [Chart("PSNR in dB", lines, "steps ahead", ticks)] if lines else []


def _tables(
    config: Mapping[str, Any], verdict: Mapping[str, Any] | None, settings: Mapping[str, object]
) -> dict[str, Mapping[str, object]]:
    tables: dict[str, Mapping[str, object]] = {}
    if verdict is not None:
        tables["All measures of the world model"] = verdict["world"]
        tables["Seconds of each stage"] = verdict["seconds"]
        tables["Versions"] = verdict["versions"]
    tables["The environment"] = _flat(config["env"])
    tables["All settings"] = settings or _flat({name: config[name] for name in ("tokenizer", "dynamics")})
    return tables


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, object]:
    """Nested settings as key.below: value."""
    rows: dict[str, object] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            rows |= _flat(value, f"{before}{name}.")
        else:
            rows[f"{before}{name}"] = json.dumps(value)
    return rows
