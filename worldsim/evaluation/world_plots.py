"""The figures on a world model as plots. `report` is what world.json holds; see worldsim.workflow.world_report."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldsim.errors import UserError
from worldsim.rendering import Frames

Report = Mapping[str, Any]
INCHES = (4.6, 3.3)  # of one plot
STYLES = {  # colour and line of what is compared, the same in every plot
    "dream_mean": ("mean of the draws", "#1f5fa8", "-"),
    "dream_best": ("best of the draws", "#6fa8dc", "-"),
    "dream": ("dream", "#1f5fa8", "-"),
    "tokenizer": ("tokenizer (ceiling)", "#4c9a52", "--"),
    "watching": ("watching (floor)", "#4c9a52", "--"),
    "copy_last": ("last frame copied", "#8a8a8a", "--"),
    "shuffled": ("other actions", "#c4562f", ":"),
}


@dataclass(frozen=True)
class Plot:
    """One plot: its title, what it shows in a sentence, and how it is drawn on matplotlib axes."""

    title: str
    caption: str
    draw: Callable[[Any, Report], None]


def check_matplotlib() -> None:
    """Raises UserError where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("plots need matplotlib, which is not installed: pip install 'worldsim-rl[metrics]'")


def plots_of(report: Report) -> list[Plot]:
    """The plots for which the report holds figures."""
    horizon, endings, obedience = report["horizon"], report["endings"], report["obedience"]
    plots = [
        Plot("PSNR over the horizon", "Decibels, more is better.", _horizon_plot("psnr", "dB")),
        Plot("SSIM over the horizon", "1 is equal, more is better.", _horizon_plot("ssim", "SSIM")),
        Plot(
            "Error on moving pixels",
            f"Grey levels, less is better. Below a copied frame up to {horizon['better_than_copy_until']} steps.",
            _horizon_plot("moving_error", "grey levels"),
        ),
    ]
    if report["extras"].get("vmaf"):
        plots.append(Plot("VMAF over the horizon", "0 to 100, more is better.", _vmaf_plot))
    if report["extras"].get("fd_efficientnet_lite0"):
        plots.append(Plot("FD-EffNetLite0", "Distance to other real frames, less is better.", _frechet_plot))
    if endings.get("heads"):
        plots.append(Plot("Endings: calibration", "A step ahead, by tenths of the steps.", _calibration_plot))
    if endings.get("replays"):
        plots.append(Plot("Survival along recorded actions", "Real with its 95 % interval.", _survival_plot))
        plots.append(Plot("Return of recorded actions", "One point for each episode.", _returns_plot))
    if obedience.get("inverse_dynamics"):
        plots.append(Plot("Which action was it?", "Told by a network that learnt from real frames.", _inverse_plot))
    if obedience.get("effects"):
        plots.append(Plot("Effects of actions", "Branches from one moment, real against dreamt.", _effects_plot))
    if obedience.get("regret"):
        plots.append(Plot("The dream decides", "Best of 5 sequences by the dream, scored in reality.", _regret_plot))
    if report["probes"].get("quantities"):
        plots.append(Plot("Probes of the true state", "Error in standard deviations; 1 knows nothing.", _probe_plot))
    plots.append(Plot("Drift", "Long dreams, which go on behind their ends, over real frames; 1 is real.", _drift_plot))
    return plots


def draw_page(report: Report, pictures: Mapping[str, Frames]) -> bytes:
    """All plots, and the pictures below them, two in a row, as one PNG."""
    plots = plots_of(report)
    across, pair = 5, 2  # plots and pictures in a row
    down = -(-len(plots) // across)
    shown = list(pictures.items())
    rows = [shown[first : first + pair] for first in range(0, len(shown), pair)]
    width = INCHES[0] * across / pair
    heights = [max(width * picture.shape[0] / picture.shape[1] for _, picture in row) + 0.3 for row in rows]
    figure = _figure((INCHES[0] * across, INCHES[1] * down + sum(heights) + 0.6))
    grid = figure.add_gridspec(down + len(rows), across * pair, height_ratios=[INCHES[1]] * down + heights)
    for number, plot in enumerate(plots):
        column = pair * (number % across)
        _draw(figure.add_subplot(grid[number // across, column : column + pair]), plot, report)
    for line, row in enumerate(rows):
        for column, (title, picture) in enumerate(row):
            axes = figure.add_subplot(grid[down + line, across * column : across * (column + 1)])
            axes.imshow(picture, interpolation="antialiased")
            axes.set_anchor("N")
            axes.set_title(title, fontsize=9, loc="left")
            axes.axis("off")
    figure.suptitle(f"{report['env_id']}: how far the dream holds ({report['model']})", fontsize=12)
    return _png(figure, 90)


def draw_plot(plot: Plot, report: Report) -> bytes:
    """One plot as PNG."""
    figure = _figure(INCHES)
    _draw(figure.add_subplot(), plot, report)
    return _png(figure, 110)


def _figure(inches: tuple[float, float]) -> Any:
    check_matplotlib()
    from matplotlib.figure import Figure  # without pyplot nothing is global and no window can open

    return Figure(figsize=inches, layout="constrained")


def _png(figure: Any, dots_per_inch: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch)
    return buffer.getvalue()


def _draw(axes: Any, plot: Plot, report: Report) -> None:
    plot.draw(axes, report)
    axes.set_title(plot.title, fontsize=9)
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_size(7)
    axes.yaxis.label.set_size(7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _line(axes: Any, x: Sequence[float], y: Sequence[float | None], name: str) -> None:
    label, colour, style = STYLES[name]
    axes.plot(x, [np.nan if value is None else value for value in y], style, color=colour, label=label, marker=".")


def _over_horizon(axes: Any, horizons: Sequence[int], unit: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(horizons, [str(k) for k in horizons])
    axes.set_xlabel("steps ahead")
    axes.set_ylabel(unit)
    axes.legend(fontsize=6, frameon=False)


def _horizon_plot(measure: str, unit: str) -> Callable[[Any, Report], None]:
    def draw(axes: Any, report: Report) -> None:
        horizons, curves = report["horizon"]["horizons"], report["horizon"][measure]
        for name, values in curves.items():
            _line(axes, horizons, values, name)
        _over_horizon(axes, horizons, unit)

    return draw


def _vmaf_plot(axes: Any, report: Report) -> None:
    vmaf = report["extras"]["vmaf"]
    for name in ("dream", "tokenizer", "copy_last"):
        _line(axes, vmaf["horizons"], vmaf[name], name)
    _over_horizon(axes, vmaf["horizons"], "VMAF")


def _frechet_plot(axes: Any, report: Report) -> None:
    distances = report["extras"]["fd_efficientnet_lite0"]
    ranges = [name for name in ("near", "far") if name in distances]
    for number, (name, colour) in enumerate((("real", "#8a8a8a"), ("tokenizer", "#4c9a52"), ("dream", "#1f5fa8"))):
        x = np.arange(len(ranges)) + (number - 1) * 0.27
        axes.bar_label(
            axes.bar(x, [distances[k][name] for k in ranges], 0.25, color=colour, label=name), fmt="%.0f", fontsize=6
        )
    steps = [f"{distances[k]['steps'][0]} to {distances[k]['steps'][1]} steps ahead" for k in ranges]
    axes.set_xticks(range(len(ranges)), steps)
    axes.set_ylabel("distance")
    axes.legend(fontsize=6, frameon=False)


def _calibration_plot(axes: Any, report: Report) -> None:
    heads = report["endings"]["heads"]
    predicted, observed = ([row[name] for row in heads["bins"]] for name in ("predicted", "observed"))
    counts = [row["steps"] for row in heads["bins"]]
    spread = [1.96 * (rate * (1 - rate) / count) ** 0.5 for rate, count in zip(observed, counts, strict=True)]
    top = max([*predicted, *observed, 1e-6])
    axes.plot([0, top], [0, top], "--", color="#8a8a8a")
    axes.errorbar(predicted, observed, yerr=spread, fmt="o", ms=3, color="#1f5fa8", elinewidth=0.8)
    axes.set_xlabel("predicted probability of an ending")
    axes.set_ylabel("observed rate")
    auroc = heads["termination_auroc"]
    told = "" if auroc is None else f"AUROC {auroc:.3f}, "
    axes.text(0.03, 0.95, f"{told}{heads['endings']} endings", transform=axes.transAxes, fontsize=7, va="top")


def _survival_plot(axes: Any, report: Report) -> None:
    replays = report["endings"]["replays"]
    steps = np.arange(1, replays["steps"] + 1)
    low, high = replays["survival_interval"]
    axes.fill_between(steps, low, high, color="#8a8a8a", alpha=0.25, linewidth=0)
    axes.plot(steps, replays["survival_observed"], color="#5a5a5a", label="real")
    axes.plot(steps, replays["survival_predicted"], color="#1f5fa8", label="dream")
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("steps from the start of an episode")
    axes.set_ylabel("share that goes on")
    axes.legend(fontsize=6, frameon=False)


def _returns_plot(axes: Any, report: Report) -> None:
    replays = report["endings"]["replays"]
    real, dreamt = replays["returns"]["real"], replays["returns"]["dreamt"]
    low, high = min(*real, *dreamt), max(*real, *dreamt)
    axes.plot([low, high], [low, high], "--", color="#8a8a8a")
    axes.plot(real, dreamt, ".", color="#1f5fa8", alpha=0.6)
    axes.set_xlabel(f"real return of {replays['steps']} steps")
    axes.set_ylabel("dreamt")
    if replays["return_correlation"] is not None:
        told = f"correlation {replays['return_correlation']:.2f}"
        axes.text(0.03, 0.95, told, transform=axes.transAxes, fontsize=7, va="top")


def _inverse_plot(axes: Any, report: Report) -> None:
    scores = report["obedience"]["inverse_dynamics"]
    kinds = ("real", "tokenizer", "dream")
    measures = [name for name in ("accuracy", "changed_accuracy", "r2") if name in scores["real"]]
    labels = {"accuracy": "all", "changed_accuracy": "action just changed", "r2": "all"}
    colours = ("#1f5fa8", "#6fa8dc")
    for number, measure in enumerate(measures):
        x = np.arange(len(kinds)) + (number - (len(measures) - 1) / 2) * 0.38
        values = [scores[kind].get(measure, np.nan) for kind in kinds]
        bars = axes.bar(x, values, 0.36, color=colours[number], label=labels[measure])
        axes.bar_label(bars, fmt="%.2f", fontsize=6)
    axes.axhline(scores["chance"], color="#8a8a8a", linestyle="--", label="commonest action")
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set_ylabel("r2" if "r2" in measures else "share told rightly")
    axes.set_ylim(None, 1.3)
    axes.legend(fontsize=6, frameon=False, loc="upper center", ncols=3)


def _effects_plot(axes: Any, report: Report) -> None:
    effects = report["obedience"]["effects"]
    curves = {
        "effect_correlation": ("correlation of effects", "#1f5fa8"),
        "effect_size": ("size, dreamt over real", "#4c9a52"),
        "right_branch": ("nearest to its own branch", "#c4562f"),
        "chance": ("the same by chance", "#d9a08c"),
    }
    for name, (label, colour) in curves.items():
        values = [np.nan if value is None else value for value in effects[name]]
        axes.plot(effects["steps"], values, color=colour, label=label, marker=".")
    axes.axhline(1, color="#8a8a8a", linestyle="--", linewidth=0.8)
    axes.margins(y=0.3)  # room for the legend
    axes.set_ylim(0, None)
    axes.set_xlabel("steps since the branches part")
    axes.legend(fontsize=6, frameon=False, loc="upper left", ncols=2)


def _regret_plot(axes: Any, report: Report) -> None:
    regret = report["obedience"]["regret"]
    _bars(axes, ["the dream's pick", "a random pick"], [regret["regret"], regret["regret_random"]], "regret (return)")
    told = f"it mattered at {regret['decided']} of {regret['moments']} moments"
    axes.text(0.03, 0.97, told, transform=axes.transAxes, fontsize=7, va="top")
    axes.margins(y=0.25)


def _probe_plot(axes: Any, report: Report) -> None:
    probes = report["probes"]
    colours = ("#1f5fa8", "#c4562f", "#4c9a52", "#8e5bb5", "#b8860b", "#2a9d8f")
    for number, (name, curves) in enumerate(probes["quantities"].items()):
        colour = colours[number % len(colours)]
        for curve, style in (("dream", "-"), ("watching", "--"), ("copy_last", ":")):
            values = [np.nan if value is None else value for value in curves[curve]]
            axes.plot(probes["horizons"], values, style, color=colour, label=name if curve == "dream" else None)
    axes.plot([], [], "--", color="#8a8a8a", label="watching")
    axes.plot([], [], ":", color="#8a8a8a", label="last frame copied")
    axes.set_ylim(0, None)
    _over_horizon(axes, probes["horizons"], "error / standard deviation")


def _drift_plot(axes: Any, report: Report) -> None:
    drift = report["drift"]
    names = {"latent_rms": "latents", "sharpness": "sharpness", "round_trip": "round trip"}
    for (name, label), colour in zip(names.items(), ("#1f5fa8", "#4c9a52", "#c4562f"), strict=True):
        values = np.array(drift[name]) / max(drift["real"][name], 1e-9)
        axes.plot(drift["steps_measured"], values, color=colour, label=label)
    axes.plot(drift["steps_measured"], drift["alive"], color="#8a8a8a", label="has not ended")
    axes.axhline(1, color="#8a8a8a", linestyle="--", linewidth=0.8)
    axes.axvline(drift["training_frames"], color="#8a8a8a", linestyle=":", linewidth=0.8, label="length of training")
    axes.set_ylim(0, None)
    axes.set_xlabel("steps dreamt")
    axes.legend(fontsize=6, frameon=False)


def _bars(axes: Any, names: Sequence[str], values: Sequence[float], unit: str) -> None:
    bars = axes.bar(names, values, 0.6, color="#1f5fa8")
    axes.bar_label(bars, fmt="%.3g", fontsize=7)
    axes.set_ylabel(unit)
