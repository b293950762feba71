"""data: import, export, validate and describe episodes."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from worldsim.commands.parser import Add, Parser
from worldsim.errors import UserError

DATA_EXAMPLES = """\
examples:
  worldsim data import my_videos episodes --size 64x64   videos, each with an action file (npy or CSV) of its name
  worldsim data import my_npz episodes                   npz files with frames, actions, rewards
  worldsim data import user/game-v0 episodes             a Minari data set, by id or folder
  worldsim data validate episodes                        finds actions off by one, repeated frames, missing endings ...
  worldsim data info episodes                            counts, returns, actions, a contact sheet
  worldsim data export runs/quickstart/episodes --minari me/cartpole-v0

Then train on them: worldsim run CONFIG collect.source=episodes
"""


def add_data(add_command: Add) -> None:
    """The commands on folders of episodes."""
    data = add_command("data", "import, export, validate and describe episodes", DATA_EXAMPLES)
    actions = data.add_subparsers(required=True, metavar="ACTION", parser_class=Parser)

    def add(name: str, summary: str, command: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        action.set_defaults(parser=action, command=command)
        return action

    importing = add("import", "make an episode store of what others recorded", _data_import)
    importing.add_argument("source", help="a folder of videos or npz files, or the folder or id of a Minari data set")
    importing.add_argument("folder", type=Path, help="a new folder for the episodes")
    importing.add_argument("--size", metavar="HxW", help="scale frames to HEIGHTxWIDTH (default: as they are)")
    importing.add_argument("--held-out", type=float, default=0.1, help="share that is never trained on (default: 0.1)")
    importing.add_argument("--without-rewards", action="store_true", help="store 0 where the source has no rewards")
    exporting = add("export", "write episodes for other programs", _data_export)
    exporting.add_argument("folder", type=Path, help="an episode store")
    target = exporting.add_mutually_exclusive_group(required=True)
    target.add_argument("--minari", metavar="ID", help="as a Minari data set, such as me/game-v0")
    target.add_argument("--npz", metavar="FOLDER", type=Path, help="as npz files in a new folder")
    validating = add(
        "validate", "find what ruins world models silently; exit code 2 if there is a problem", _data_validate
    )
    validating.add_argument("folder", type=Path, help="an episode store")
    info = add("info", "show counts, lengths, returns, actions, and write a contact sheet", _data_info)
    info.add_argument("folder", type=Path, help="an episode store")
    info.add_argument("--out", type=Path, help="the contact sheet (default: FOLDER/contact_sheet.png)")


def _data_import(options: argparse.Namespace) -> None:
    from worldsim.data.import_episodes import import_episodes
    from worldsim.data.recordings import ImportSettings

    settings = ImportSettings(options.held_out, _size(options.size), options.without_rewards)
    store, remarks = import_episodes(options.source, options.folder, settings)
    for remark in remarks:
        print(remark)
    print(f"{len(store):,} episodes, {int(store.lengths.sum()):,} steps: {options.folder}")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise UserError(f"--size {text}: expected HEIGHTxWIDTH in pixels, such as 64x64")
    return int(parts[0]), int(parts[1])


def _data_export(options: argparse.Namespace) -> None:
    from worldsim.data.export_episodes import export_minari, export_npz
    from worldsim.data.store import EpisodeStore

    store = EpisodeStore.open(options.folder)
    written = export_npz(store, options.npz) if options.npz else export_minari(store, options.minari)
    print(f"{len(store):,} episodes, {int(store.lengths.sum()):,} steps: {written}")


def _data_validate(options: argparse.Namespace) -> None:
    from worldsim.data.store import EpisodeStore
    from worldsim.data.validation import validate

    findings = validate(EpisodeStore.open(options.folder))
    for finding in findings:
        print(f"{'PROBLEM' if finding.problem else 'remark '}  {finding.about}: {finding.text}")
    if problems := sum(finding.problem for finding in findings):
        raise UserError(f"{options.folder}: {problems} problem{'s' if problems > 1 else ''} to mend before training")


def _data_info(options: argparse.Namespace) -> None:
    from worldsim.data.store import EpisodeStore
    from worldsim.data.summary import describe, write_contact_sheet

    store = EpisodeStore.open(options.folder)
    for line in describe(store):
        print(line)
    print(f"contact sheet: {write_contact_sheet(store, options.out or options.folder / 'contact_sheet.png')}")
