"""A run of an env that is named by its id alone: its settings are inferred, or those that it was begun with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import Any

from worldsim.config import from_dict, load_config, names_given
from worldsim.data.files import write_json
from worldsim.errors import UserError
from worldsim.workflow.config import RunConfig
from worldsim.workflow.infer import Reason, infer
from worldsim.workflow.look import Look, look_at
from worldsim.workflow.run import CONFIG, begun_settings, run

INFERRED = "inferred.json"  # in the run's folder: what was seen, what was inferred, and why
SETTINGS_WIDTH = 46  # characters, in the table of reasons


def run_folder(env_id: str) -> Path:
    """Where a run of this env lives if nobody says: runs/CarRacing-v3, runs/ALE-Breakout-v5."""
    return Path("runs") / env_id.rsplit(":", 1)[-1].replace("/", "-")


def run_env(
    env_id: str, folder: Path, overrides: Sequence[str], say: Callable[[str], None], until: str = "evaluate"
) -> dict[str, Any] | None:
    """`workflow.run.run` with inferred settings. What lies in `folder` goes on as it was begun, without a new look.

    overrides: `key=value` texts; they stay as they are, and what is inferred fits them. Raises UserError for a folder
    that holds a run of another env.
    """
    begun = begun_settings(folder)
    if begun is not None:
        _check_same_env(begun, env_id, folder)
        say(f"going on with the settings in {folder / CONFIG}")
        config = from_dict(RunConfig, begun, str(folder / CONFIG), overrides)
        return run(config, folder, say, until=until)
    asked = load_config(RunConfig, None, overrides)
    fixed = names_given(overrides)
    if "env.id" in fixed:
        raise UserError(f"env.id={asked.env.id}: the env is named already, --env {env_id}; leave one of them out")
    asked.env.id = env_id
    say(f"a look at {env_id} ...")
    look = look_at(asked.env)
    config, reasons = infer(look, asked, fixed)
    for line in table(reasons):
        say(line)

    note = partial(write_json, folder / INFERRED, notes(look, reasons))
    return run(config, folder, say, until=until, when_begun=note)


def table(reasons: Sequence[Reason]) -> list[str]:
    """A line for each reason, with all settings that have it side by side."""
    by_reason: dict[str, list[str]] = {}
    for reason in reasons:
        by_reason.setdefault(reason.why, []).append(f"{reason.setting}={_shown(reason.value)}")
    lines = ["inferred; change any of it with key=value:"]
    for why, settings in by_reason.items():
        first, *more = wrap(_joined(settings), SETTINGS_WIDTH)
        lines += [f"  {first:{SETTINGS_WIDTH}}  {why}", *(f"  {line}" for line in more)]
    return lines


def notes(look: Look, reasons: Sequence[Reason]) -> dict[str, Any]:
    """What INFERRED holds, as JSON types."""
    return {"inferred": [asdict(reason) for reason in reasons], "look": asdict(look)}


def _check_same_env(begun: Mapping[str, Any], env_id: str, folder: Path) -> None:
    before = begun.get("env", {}).get("id")
    if before != env_id:
        raise UserError(f"{folder} was begun with the env {before}, {env_id} asked: use another --folder")


def _joined(settings: Sequence[str]) -> str:
    """`env.frame_height=48 frame_width=48`: a section is named once."""
    shown, last = [], ""
    for setting in settings:
        section = setting.partition("=")[0].rpartition(".")[0]
        shown.append(setting.removeprefix(f"{section}.") if section == last else setting)
        last = section
    return " ".join(shown)


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace(", ", ",")
