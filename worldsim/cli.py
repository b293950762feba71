"""The command line. Joins the packages, imports what a command needs when it runs, and turns errors into one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from worldsim import __version__
from worldsim.errors import UserError

RUN_HELP = """\
examples:
  worldsim run quickstart                         CartPole from pixels, minutes on two cores
  worldsim run quickstart seed=1 --folder runs/q1
  worldsim run configs/take_cover.yaml            VizDoom Take Cover
  worldsim run take_cover dynamics.size=tiny      override any setting by key=value

The same command goes on where an interrupted run stopped. Watch it: tensorboard --logdir FOLDER
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for what the user can mend, 130 for Ctrl-C."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        options.command(options)
    except KeyboardInterrupt:
        print("\nstopped; run the same command again to go on", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug or not _is_for_the_user(error):
            raise
        message = " ".join(str(error).split())
        print(f"worldsim: {message}", file=sys.stderr)
        return 2
    return 0


def _is_for_the_user(error: Exception) -> bool:
    """Whether the message alone tells what to mend."""
    if isinstance(error, UserError | OSError):
        return True
    from gymnasium.error import Error as GymnasiumError

    from worldsim.agents.errors import AgentConfigError, PolicyFileError, UnusableSpaceError
    from worldsim.envs.errors import InvalidActionError, UnusableEnvironmentError

    agents_errors = AgentConfigError | PolicyFileError | UnusableSpaceError
    return isinstance(error, GymnasiumError | agents_errors | InvalidActionError | UnusableEnvironmentError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="worldsim",
        description="Train agents in the dream of a diffusion-transformer world model, judge them in the real env.",
    )
    parser.add_argument("--version", action="version", version=f"worldsim {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter

    walks = {
        "run": ("the whole walk: collect, train, dream, evaluate", "evaluate"),
        "collect": ("only collect the real episodes of round 0", "collect"),
        "train": ("collect and train: tokenizer, dynamics, agent; no verdict", "agent"),
    }
    for name, (summary, until) in walks.items():
        walk = commands.add_parser(name, help=summary, description=summary, epilog=RUN_HELP, formatter_class=raw)
        walk.add_argument("config", help="a YAML file, or the name of a config that ships with worldsim")
        walk.add_argument("overrides", nargs="*", metavar="key=value", help="settings that differ from the file")
        walk.add_argument("--folder", type=Path, help="where the run lives (default: runs/CONFIG)")
        if name == "train":
            walk.add_argument("--until", choices=("tokenizer", "dynamics", "agent"), default="agent")
        else:
            walk.set_defaults(until=until)
        walk.set_defaults(command=_run)

    model_help = "a world model folder, a run folder, or a released model's name"
    dream = commands.add_parser("dream", help="dream with a random or trained policy and write a video")
    dream.add_argument("model", help=model_help)
    dream.add_argument("--steps", type=int, default=500)
    dream.add_argument("--seed", type=int, default=0)
    dream.add_argument("--temperature", type=float, default=1.0)
    dream.add_argument("--random", action="store_true", help="random actions even if the model has a policy")
    dream.add_argument("--out", type=Path, default=Path("dream.mp4"))
    dream.set_defaults(command=_dream)

    evaluate = commands.add_parser("evaluate", help="score a model's policy and the baselines in the real env")
    evaluate.add_argument("model", help=model_help)
    evaluate.add_argument("--episodes", type=int, default=100)
    evaluate.add_argument("--seed", type=int, default=2_000_000, help="first evaluation seed")
    evaluate.add_argument("--out", type=Path, required=True, help="folder for verdict.json")
    evaluate.set_defaults(command=_evaluate)

    render = commands.add_parser("render", help="videos and pictures: reality beside the dream")
    render.add_argument("model", help="a run folder (its held-out episodes are shown)")
    render.add_argument("--out", type=Path, help="default: RUN/videos")
    render.set_defaults(command=_render)
    return parser


def _run(options: argparse.Namespace) -> None:
    from worldsim.config import load_config, resolve_config_path

    path = resolve_config_path(options.config)
    from worldsim.workflow.config import RunConfig

    config = load_config(RunConfig, path, options.overrides)
    from worldsim.workflow.run import run

    run(config, options.folder or Path("runs") / path.stem, print, until=options.until)


def _dream(options: argparse.Namespace) -> None:
    from worldsim.workflow.showing import dream_video

    dream_video(
        options.model,
        options.out,
        steps=options.steps,
        seed=options.seed,
        temperature=options.temperature,
        random_actions=options.random,
    )
    print(f"dream written: {options.out}")


def _evaluate(options: argparse.Namespace) -> None:
    from worldsim.workflow.verdict import evaluate_model

    evaluate_model(options.model, options.out, episodes=options.episodes, seed=options.seed)
    print(f"verdict written: {options.out / 'verdict.json'}")


def _render(options: argparse.Namespace) -> None:
    from worldsim.workflow.showing import render_run

    print(f"videos and pictures: {render_run(Path(options.model), options.out)}")
