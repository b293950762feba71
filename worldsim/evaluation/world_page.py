"""The figures on a world model as one self-contained HTML page, and as scalars and images for TensorBoard."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worldsim.evaluation.world_plots import Report, draw_plot, plots_of
from worldsim.rendering import Frames

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1240px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; } td, th { padding: .15em .9em .15em 0; text-align: left; vertical-align: top; }
td:nth-child(2) { font-variant-numeric: tabular-nums; white-space: nowrap; }
.plots { display: flex; flex-wrap: wrap; gap: 1em; } figure { margin: 0 0 1em; width: 390px; }
figure img { width: 100%; } figcaption { font-size: 13px; color: #555; }
.wide { max-width: 100%; image-rendering: pixelated; } .note { color: #a33; }
"""


def summarize(report: Report) -> list[tuple[str, str, str]]:
    """The main figures: name, value, and what it means or stands beside."""
    return [row for part in (_horizon_rows, _ending_rows, _obedience_rows, _dream_rows) for row in part(report)]


def write_page(report: Report, pictures: Mapping[str, Frames]) -> str:
    """The page as HTML that needs no other file."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(value)}</td><td>{html.escape(beside)}</td></tr>"
        for name, value, beside in summarize(report)
    )
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in report["notes"])
    plots = "".join(
        f'<figure><img src="{_as_data(draw_plot(plot, report))}" alt="{html.escape(plot.title)}">'
        f"<figcaption>{html.escape(plot.caption)}</figcaption></figure>"
        for plot in plots_of(report)
    )
    shown = "".join(
        f'<h2>{html.escape(title)}</h2><img class="wide" src="{_as_data(_png(picture))}" alt="{html.escape(title)}">'
        for title, picture in pictures.items()
    )
    title = html.escape(f"{report['env_id']}: how far the dream holds")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>{title}</h1><p>{html.escape(_about(report))}</p>{notes}"
        "<table><tr><th></th><th>dream</th><th>beside it</th></tr>"
        f'{rows}</table><h2>Plots</h2><div class="plots">{plots}</div>{shown}</body></html>\n'
    )


def write_scalars(report: Report, pictures: Mapping[str, Frames], folder: Path) -> None:
    """Curves as scalars whose step is the horizon (or the step dreamt), single figures at step 0, pictures."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    try:
        for name, step, value in scalars(report):
            writer.add_scalar(name, value, step)
        for title, picture in pictures.items():
            writer.add_image(title, picture, 0, dataformats="HWC")
    finally:
        writer.close()


def scalars(report: Report) -> Iterator[tuple[str, int, float]]:
    """Every number of the report that is a curve over steps or stands alone: name, step, value."""
    axes = {"horizon": "horizons", "extras/vmaf": "horizons", "probes": "horizons", "drift": "steps_measured"}
    axes |= {"obedience/effects": "steps"}
    for section in ("horizon", "endings", "obedience", "probes", "drift", "extras"):
        yield from _walk(section, report[section], axes, None)


def _walk(
    name: str, value: Any, axes: Mapping[str, str], steps: Sequence[int] | None
) -> Iterator[tuple[str, int, float]]:
    if isinstance(value, Mapping):
        if name in axes and axes[name] in value:
            steps = value[axes[name]]
        for key, inner in value.items():
            if steps is None or inner is not steps:
                yield from _walk(f"{name}/{key}", inner, axes, steps)
    elif isinstance(value, list):
        numbers = all(isinstance(inner, int | float | None) for inner in value)
        if numbers and steps is not None and len(value) == len(steps):
            yield from ((name, k, float(inner)) for k, inner in zip(steps, value, strict=True) if inner is not None)
        elif numbers and "survival" in name:
            yield from ((name, k, float(inner)) for k, inner in enumerate(value, start=1))
    elif isinstance(value, int | float):
        yield name, 0, float(value)


def _horizon_rows(report: Report) -> Iterator[tuple[str, str, str]]:
    horizon = report["horizon"]
    yield (
        "better than a copied frame up to",
        f"{horizon['better_than_copy_until']} steps",
        "by the error on moving pixels, at every horizon until then",
    )
    for k in (1, 8, 32, 64):
        if k in horizon["horizons"]:
            at = horizon["horizons"].index(k)
            for name, unit, digits in (("psnr", " dB", 1), ("moving_error", " grey levels", 1)):
                curves = {curve: values[at] for curve, values in horizon[name].items()}
                label = "PSNR" if name == "psnr" else "error on moving pixels"
                beside = ", ".join(
                    f"{text} {_number(curves[curve], digits)}"
                    for curve, text in (
                        ("dream_best", f"best of {horizon['draws']}"),
                        ("copy_last", "copied frame"),
                        ("tokenizer", "tokenizer"),
                        ("shuffled", "other actions"),
                    )
                )
                yield f"{label}, step {k}", _number(curves["dream_mean"], digits, unit), beside


def _ending_rows(report: Report) -> Iterator[tuple[str, str, str]]:
    heads, replays = report["endings"].get("heads"), report["endings"].get("replays")
    if heads:
        yield (
            "AUROC of endings, one step ahead",
            _number(heads["termination_auroc"], 3),
            f"{heads['endings']} endings in {heads['steps']} steps",
        )
        yield (
            "hazard per step, predicted",
            _number(heads["hazard_predicted"], 4),
            f"observed {heads['hazard_observed']:.4f}, calibration error {heads['calibration_error']:.4f}",
        )
        yield (
            "reward error",
            _number(heads["reward_error"], 3),
            f"of a constant {heads['reward_error_of_a_constant']:.3f}",
        )
    if replays:
        yield (
            f"return of recorded actions, {replays['steps']} steps, dreamt",
            _number(replays["return_dreamt"], 1),
            f"real {replays['return_real']:.1f}, correlation {_number(replays['return_correlation'], 2)}, "
            f"error {replays['return_error']:.1f} (of the mean {replays['return_error_of_the_mean']:.1f})",
        )


def _obedience_rows(report: Report) -> Iterator[tuple[str, str, str]]:
    obedience = report["obedience"]
    yield "action-shuffle ratio", _number(obedience["action_shuffle_ratio"], 2), "1: the dream ignores actions"
    if inverse := obedience.get("inverse_dynamics"):
        for measure in ("accuracy", "changed_accuracy", "r2"):
            if measure in inverse["real"]:
                beside = f"real {inverse['real'][measure]:.3f}, real through the tokenizer "
                beside += f"{inverse['tokenizer'][measure]:.3f}"
                chance = f", commonest action {inverse['chance']:.3f}" if measure == "accuracy" else ""
                name = {
                    "accuracy": "actions told from dreamt frames",
                    "changed_accuracy": "the same, where the action just changed",
                    "r2": "actions told from dreamt frames, r2",
                }[measure]
                yield name, _number(inverse["dream"].get(measure), 3), beside + chance
    if effects := obedience.get("effects"):
        for at in (3, len(effects["steps"]) - 1):
            yield (
                f"correlation of actions' effects, step {effects['steps'][at]}",
                _number(effects["effect_correlation"][at], 2),
                f"dreamt effects are {_number(effects['effect_size'][at], 2)} times as large; nearest to their own "
                f"branch {_number(effects['right_branch'][at], 2)} (chance {_number(effects['chance'][at], 2)})",
            )
    if regret := obedience.get("regret"):
        yield (
            "regret of the dream's pick of 5 sequences",
            _number(regret["regret"], 2),
            f"of a random pick {regret['regret_random']:.2f}; the best one is found in "
            f"{_number(regret['share_of_best'], 2)} of {regret['decided']} moments where it matters "
            f"(random {_number(regret['share_of_best_random'], 2)})",
        )


def _dream_rows(report: Report) -> Iterator[tuple[str, str, str]]:
    probes = report["probes"]
    for name, curves in probes.get("quantities", {}).items():
        for k in (8, 32):
            if k in probes["horizons"] and curves["dream"][at := probes["horizons"].index(k)] is not None:
                yield (
                    f"{name}, error at step {k}",
                    _number(curves["dream"][at], 2, " sd"),
                    f"copied frame {curves['copy_last'][at]:.2f}, watching {curves['watching'][at]:.2f}",
                )
    drift = report["drift"]
    yield (
        f"after {drift['steps_measured'][-1]} steps",
        f"{drift['sharpness'][-1] / max(drift['real']['sharpness'], 1e-9):.2f} of the sharpness",
        f"round trip {drift['round_trip'][-1]:.3f} (real {drift['real']['round_trip']:.3f}), latent rms "
        f"{drift['latent_rms'][-1]:.2f} (real {drift['real']['latent_rms']:.2f}), memory grew by "
        f"{_number(drift['memory_growth_megabytes'], 0, ' MB')}",
    )
    distances = report["extras"].get("fd_efficientnet_lite0") or {}
    for name in ("near", "far"):
        if name in distances:
            at = distances[name]
            yield (
                f"FD-EffNetLite0, {at['steps'][0]} to {at['steps'][1]} steps ahead",
                _number(at["dream"], 0),
                f"real frames {at['real']:.0f}, through the tokenizer {at['tokenizer']:.0f} "
                f"({distances['frames']} frames each)",
            )


def _about(report: Report) -> str:
    horizon = report["horizon"]
    return (
        f"World model {report['model']}, judged on {report['episodes']['held_out']} real episodes that it was not "
        f"trained on: {horizon['starts'][0]} starts, {horizon['draws']} dreams from each, at temperature "
        f"{report['temperature']:g}. {sum(report['seconds'].values()) / 60:.1f} minutes. "
        f"worldsim {report['versions']['worldsim']}, torch {report['versions']['torch']}. All figures: world.json."
    )


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return "-" if value is None else f"{value:.{digits}f}{unit}"


def _png(picture: Frames) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG")
    return buffer.getvalue()


def _as_data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
