"""The command line. Joins the packages, imports what a command needs when it runs, and turns errors into one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from worldsim import __version__
from worldsim.errors import UserError

if TYPE_CHECKING:
    from worldsim.workflow.config import RunConfig

RUN_EXAMPLES = """\
examples:
  worldsim run quickstart                         CartPole from pixels, minutes on two cores
  worldsim run quickstart seed=1 --folder runs/q1
  worldsim run take_cover dynamics.size=tiny      VizDoom Take Cover; any setting can be given as key=value
  worldsim run take_cover_mdn_rnn                 Ha & Schmidhuber's models on the same data
  worldsim run my_game.yaml env.id=ALE/Pong-v5    a config of your own: see configs/ for the keys
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
DREAM_EXAMPLES = """\
examples:
  worldsim dream runs/quickstart                  the trained policy plays its dream: dream.mp4
  worldsim dream take_cover --random --steps 2000 --seed 7 --out long.mp4

In Python: gymnasium.make("worldsim:worldsim/Dream-v0", model="runs/quickstart/round-00/world_model")
"""
PLAY_EXAMPLES = """\
examples:
  worldsim play take_cover                        opens a page on which the dream follows your keys
  worldsim play quickstart --beside-real          the real env beside it, fed the same actions
  worldsim play runs/quickstart --no-browser --port 9000
  worldsim play take_cover --host 0.0.0.0         for other machines; the printed address carries a secret

Needs: pip install "worldsim-rl[play]". Only this machine can connect unless --host says otherwise. Ctrl-C ends it.
"""
EVALUATE_EXAMPLES = """\
examples:
  worldsim evaluate runs/quickstart --out verdicts/quickstart
  worldsim evaluate take_cover --episodes 20 --seed 5000000 --out /tmp/verdict
  worldsim evaluate runs/quickstart --world --out worlds/quickstart

Writes OUT/verdict.json: returns of the policy and of blind baselines on the same seeds, and the dream's own estimate.
With --world instead OUT/world.html, world.json, world.png and OUT/tensorboard: how far the dream holds, whether it
obeys actions, how it ends and drifts. A run's held-out episodes serve; for another model OUT/episodes are played.
"""
RENDER_EXAMPLES = """\
examples:
  worldsim render runs/quickstart                 into runs/quickstart/videos and runs/quickstart/report.html
  worldsim render take_cover --gif --out pictures a released model; each video as a GIF too

real_beside_dream  held-out episodes, dreams along the same actions, and the error between them
several_dreams     several dreams from one start: what the model holds possible
temperatures       one start dreamt from cold to hot
long_dream         the agent in its dream, with its action probabilities and the return it expects
agent_real         the same in the real env (its simulator must be installed)
grid.png           originals, reconstructions and dreams at steps 1, 2, 4, 8, 16, 32
report.html        all of it with the verdict and the training curves, in one file that opens offline
"""

MODELS_EXAMPLES = """\
examples:
  worldsim models                                 name, environment, size, scores and licence of each
  worldsim dream take_cover                       a name serves wherever a model is asked for
"""
PULL_EXAMPLES = """\
examples:
  worldsim pull someone/pong-dream                into models/pong-dream
  worldsim pull someone/pong-dream --out pong
  worldsim pull /shared/models/pong               from a folder: paths begin with / or ./

The hub needs `pip install "worldsim-rl[hub]"`; private models need `hf auth login`. Only model files are fetched
(safetensors, JSON, a card), and they are checked before they take their place.
"""
PUSH_EXAMPLES = """\
examples:
  worldsim push runs/pong someone/pong-dream      the run's newest model with its policy
  worldsim push runs/pong someone/pong-dream --private
  worldsim push runs/pong /shared/models/pong     into a new folder

The hub needs `pip install "worldsim-rl[hub]"` and `hf auth login`.
"""
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for what the user can mend, 130 for Ctrl-C."""
    options = _parsed(arguments)
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ and options.command is not _run:
            raise UserError("torchrun is for the commands run and train: start this one alone")
        options.command(options)
    except KeyboardInterrupt as stop:
        if _speaks():
            print(f"worldsim: {str(stop) or 'stopped; run the same command again to go on'}", file=sys.stderr)
        return 130
    except Exception as error:
        if not _speaks():
            return 2
        if options.debug or not _is_for_the_user(error):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"worldsim: {message}", file=sys.stderr)
        return 2
    return 0


def _speaks() -> bool:
    """Whether this process says why it ends. Of those that torchrun started, the first one to end does."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return True
    from worldsim.distributed import speaks_first

    return speaks_first()


def _is_for_the_user(error: Exception) -> bool:
    """Whether the message alone tells what to mend."""
    if isinstance(error, UserError | OSError | MemoryError):
        return True
    from gymnasium.error import Error as GymnasiumError

    from worldsim.agents.errors import AgentConfigError, PolicyFileError, UnusableSpaceError
    from worldsim.envs.errors import InvalidActionError, UnusableEnvironmentError

    agents_errors = AgentConfigError | PolicyFileError | UnusableSpaceError
    return isinstance(error, GymnasiumError | agents_errors | InvalidActionError | UnusableEnvironmentError)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; `key=value` may also stand behind `--folder`, which argparse alone would not understand."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if "overrides" in options:
        words = [text for text in rest if not text.startswith("-")]
        rest = [text for text in rest if text.startswith("-")]
        _take_words(options, words)
    if rest:
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _take_words(options: argparse.Namespace, later: list[str]) -> None:
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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="worldsim",
        description="Train agents in the dream of a diffusion-transformer world model, judge them in the real env.",
        epilog="First steps: worldsim run quickstart. Each command explains itself: worldsim COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"worldsim {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def add(name: str, summary: str, examples: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=examples,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(parser=command)
        return command

    _add_walks(add)
    model_help = "a world model folder, a run folder, or a released model's name"
    dream = add("dream", "dream with the model's policy or with random actions and write a video", DREAM_EXAMPLES)
    dream.add_argument("model", help=model_help)
    dream.add_argument("--steps", type=int, default=500, help="length of the dream (default: 500)")
    dream.add_argument("--seed", type=int, default=0, help="the same seed dreams the same dream (default: 0)")
    dream.add_argument("--temperature", type=float, help="variance of the noise, 0 or more (default: the model's own)")
    dream.add_argument("--random", action="store_true", help="random actions even if the model has a policy")
    dream.add_argument("--out", type=Path, default=Path("dream.mp4"), help="default: dream.mp4")
    dream.set_defaults(command=_dream)

    play = add("play", "dream in the browser; the dream follows your keys", PLAY_EXAMPLES)
    play.add_argument("model", help=model_help)
    play.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    play.add_argument("--port", type=int, default=8765, help="0 takes any free one (default: 8765)")
    play.add_argument("--beside-real", action="store_true", help="show the real env, fed the same actions")
    play.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    play.set_defaults(command=_play)

    evaluate = add("evaluate", "score a model's policy and the baselines in the real env", EVALUATE_EXAMPLES)
    evaluate.add_argument("model", help=model_help)
    evaluate.add_argument("--episodes", type=int, default=100, help="real episodes of each policy (default: 100)")
    evaluate.add_argument("--seed", type=int, default=2_000_000, help="first evaluation seed (default: 2000000)")
    evaluate.add_argument("--world", action="store_true", help="judge the dream itself instead of the policy")
    evaluate.add_argument("--out", type=Path, required=True, help="folder for verdict.json (with --world: world.html)")
    evaluate.set_defaults(command=_evaluate)

    render = add("render", "write videos, pictures and a report of reality beside the dream", RENDER_EXAMPLES)
    render.add_argument("model", help=model_help)
    render.add_argument("--gif", action="store_true", help="write each video as a GIF too")
    render.add_argument("--out", type=Path, help="default: the run folder, or renders/NAME for a model")
    render.set_defaults(command=_render)
    _add_models(add, model_help)
    _add_data(add("data", "import, export, validate and describe episodes", DATA_EXAMPLES))
    return parser


def _add_models(add: Callable[[str, str, str], argparse.ArgumentParser], model_help: str) -> None:
    """The commands that list, fetch and send world models."""
    models = add("models", "list the released models", MODELS_EXAMPLES)
    models.set_defaults(command=_models)

    pull = add("pull", "fetch a model from the Hugging Face hub or a folder", PULL_EXAMPLES)
    pull.add_argument("source", help="OWNER/NAME on the hub, or a folder")
    pull.add_argument("--out", type=Path, help="a new folder (default: models/NAME)")
    pull.set_defaults(command=_pull)

    push = add("push", "send a model to the Hugging Face hub or a folder", PUSH_EXAMPLES)
    push.add_argument("model", help=model_help)
    push.add_argument("target", help="OWNER/NAME on the hub, or a new folder")
    push.add_argument("--private", action="store_true", help="if a repository is made, only you can see it")
    push.set_defaults(command=_push)


def _add_data(data: argparse.ArgumentParser) -> None:
    """The commands on folders of episodes."""
    actions = data.add_subparsers(required=True, metavar="ACTION", parser_class=_Parser)

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


def _add_walks(add: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
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
        walk.set_defaults(command=_collect if name == "collect" else _run)


def _run(options: argparse.Namespace) -> None:
    if options.env is not None:
        _run_env(options)
        return
    config, folder = _config_and_folder(options)
    from worldsim.workflow.run import run

    run(config, folder, print, until=options.until)


def _run_env(options: argparse.Namespace) -> None:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("--env: each process would infer settings of its own; under torchrun give a config")
    from worldsim.workflow.inferred_run import run_env, run_folder

    run_env(options.env, options.folder or run_folder(options.env), options.overrides, print, until=options.until)


def _collect(options: argparse.Namespace) -> None:
    if options.collector is None:
        _run(options)
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


def _play(options: argparse.Namespace) -> None:
    for module in ("fastapi", "uvicorn", "websockets"):
        if find_spec(module) is None:
            raise UserError(
                f'play needs the package {module!r}, which is not installed; pip install "worldsim-rl[play]"'
            )
    from worldsim.play.server import play

    play(
        options.model,
        host=options.host,
        port=options.port,
        beside_real=options.beside_real,
        open_browser=not options.no_browser,
        say=partial(print, flush=True),
    )


def _evaluate(options: argparse.Namespace) -> None:
    if options.world:
        from worldsim.workflow.world_report import evaluate_world

        evaluate_world(options.model, options.out, episodes=options.episodes, seed=options.seed)
        print(f"report on the world model written: {options.out / 'world.html'}")
        return
    from worldsim.workflow.verdict import evaluate_model

    evaluate_model(options.model, options.out, episodes=options.episodes, seed=options.seed)
    print(f"verdict written: {options.out / 'verdict.json'}")


def _render(options: argparse.Namespace) -> None:
    from worldsim.workflow.showing import render

    print(f"report written: {render(options.model, options.out, gif=options.gif, say=print)}")


def _models(options: argparse.Namespace) -> None:
    from worldsim.workflow.models import print_releases

    print_releases()


def _pull(options: argparse.Namespace) -> None:
    from worldsim.workflow.hub import pull

    print(f"model pulled: {pull(options.source, options.out)}")


def _push(options: argparse.Namespace) -> None:
    from worldsim.workflow.hub import push

    print(f"model pushed: {push(options.model, options.target, private=options.private)}")


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
