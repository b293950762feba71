"""run, collect and train: the walk through a run, each to its own end."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from worldsim.commands.parser import Add
from worldsim.errors import UserError
from worldsim.torchrun import under_torchrun

if TYPE_CHECKING:
    from worldsim.workflow.config import RunConfig

RUN_EXAMPLES = """\
examples:
  worldsim run quickstart                         CartPole from pixels, minutes on two cores
  worldsim run quickstart seed=1 --folder runs/q1
  worldsim run take_cover dynamics.size=tiny      VizDoom Take Cover; any setting can be given as key=value
  worldsim run take_cover_mdn_rnn                 Ha & Schmidhuber's models on the same data
  worldsim run take_cover_video_gpt               VideoGPT's, a transformer over codes, on the same data
  worldsim run my_game.yaml env.id=ALE/Pong-v5    a config of your own; worldsim settings lists the keys
  worldsim run --env CarRacing-v3                 no config: settings are inferred from a look at the env, and explained
  worldsim run --env MiniGrid-DoorKey-8x8-v0 env.frame_skip=1 rounds=3
  worldsim run --env my_module:MyGame-v0          an env of your own, registered by my_module
  torchrun --standalone --nproc-per-node 4 -m worldsim run take_cover          four GPUs (docs/scale.md)

The same command goes on where an interrupted run stopped, skips what is finished, and refuses settings that contradict
what lies in the folder. Watch it: tensorboard --logdir FOLDER
"""
COLLECT_EXAMPLES = """\
examples:
  worldsim collect quickstart                            into runs/quickstart/episodes
  worldsim collect take_cover collect.workers=8 --folder runs/t1
  worldsim collect --env ALE/Breakout-v5                 into runs/ALE-Breakout-v5/episodes
  worldsim collect take_cover collect.workers=16 --folder /shared/t1 --collector 3/8    the third of eight

`worldsim run` with the same config (or --env) and folder goes on from these episodes. Collectors on several machines
share the folder and play collect.workers shares, each a part of them; the episodes are those of one machine.
"""
TRAIN_EXAMPLES = """\
examples:
  worldsim train quickstart                       everything but the verdict
  worldsim train take_cover --until dynamics      a world model without an agent
  worldsim train --env Pendulum-v1 --until dynamics
  torchrun --standalone --nproc-per-node 4 -m worldsim train take_cover distributed=fully_shard

`worldsim run` with the same config (or --env) and folder adds what is left.
"""


def add_walks(add: Add) -> None:
    """The commands that walk through a run, each to its own end."""
    walks = {
        "run": ("the whole walk: collect, train, dream, evaluate", RUN_EXAMPLES, "evaluate"),
        "collect": ("only collect the real episodes of round 0", COLLECT_EXAMPLES, "collect"),
        "train": ("collect and train: tokenizer, dynamics, agent; no verdict", TRAIN_EXAMPLES, "agent"),
    }
    for name, (summary, examples, until) in walks.items():
        walk = add(name, summary, examples)
        walk.add_argument("config", nargs="?", help="a YAML file, or the name of a config that ships with worldsim")
        walk.add_argument(
            "--env", metavar="ID", help="instead of a config: a Gymnasium id, whose settings are inferred"
        )
        walk.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file")
        walk.add_argument("--folder", type=Path, help="where the run lives (default: runs/CONFIG or runs/ID)")
        if name == "train":
            walk.add_argument("--until", choices=("tokenizer", "dynamics", "agent"), default=until)
        else:
            walk.set_defaults(until=until)
        if name == "collect":
            walk.add_argument("--collector", metavar="K/N", help="play the K-th of N parts, as one of N collectors")
        walk.set_defaults(command=_collect if name == "collect" else run_walk)


def take_words(options: argparse.Namespace, later: list[str]) -> None:
    """Of the words without a dash the first is the config, where no env is named; all others are `key=value`."""
    words = [*([] if options.config is None else [options.config]), *options.overrides, *later]
    if options.env is None:
        if not words:
            options.parser.error("give a config or --env ID")
        options.config, *options.overrides = words
        return
    if configs := [word for word in words if "=" not in word]:
        options.parser.error(f"give a config ({configs[0]}) or --env {options.env}, not both")
    options.config, options.overrides = None, words


def run_walk(options: argparse.Namespace) -> None:
    """`run`, `train`, and `collect` where one program does it all."""
    if options.env is not None:
        _run_env(options)
        return
    config, folder = _config_and_folder(options)
    from worldsim.workflow.run import run

    run(config, folder, print, until=options.until)


def _run_env(options: argparse.Namespace) -> None:
    if under_torchrun():
        raise UserError("--env: each process would infer settings of its own; under torchrun give a config")
    from worldsim.workflow.inferred_run import run_env, run_folder

    run_env(options.env, options.folder or run_folder(options.env), options.overrides, print, until=options.until)


def _collect(options: argparse.Namespace) -> None:
    if options.collector is None:
        run_walk(options)
        return
    if options.env is not None:
        raise UserError("--env: each machine would infer settings of its own; with --collector give a config")
    number, slash, total = options.collector.partition("/")
    if not (slash and number.isdecimal() and total.isdecimal()):
        raise UserError(f"--collector {options.collector}: expected K/N, such as 3/8 for the third of eight")
    config, folder = _config_and_folder(options)
    from worldsim.data.collection import Collector
    from worldsim.workflow.run import collect_share

    collect_share(config, folder, print, Collector(int(number), int(total)))


def _config_and_folder(options: argparse.Namespace) -> tuple[RunConfig, Path]:
    from worldsim.config import load_config, resolve_config_path

    path = resolve_config_path(options.config)
    from worldsim.workflow.config import RunConfig

    return load_config(RunConfig, path, options.overrides), options.folder or Path("runs") / path.stem
