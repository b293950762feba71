"""Commands on a trained model: dream, play, evaluate, render, and models, pull, push."""

from __future__ import annotations

import argparse
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from worldsim.commands.parser import MODEL_HELP, Add
from worldsim.errors import UserError

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
With --world (needs the extra "metrics") instead OUT/world.html, world.json, world.png and OUT/tensorboard: how far the
dream holds, whether it obeys actions, how it ends and drifts. A run's held-out episodes serve; for another model
OUT/episodes are played.
"""
RENDER_EXAMPLES = """\
examples:
  worldsim render runs/quickstart                 into runs/quickstart/videos and runs/quickstart/report.html
  worldsim render take_cover --gif --out pictures a released model; each video as a GIF too

real_beside_dream  held-out episodes, dreams along the same actions, and the error between them
several_dreams     several dreams from one start: what the model holds possible
temperatures       one start dreamt from cold to hot
long_dream         the agent in its dream, with its action probabilities and, if it expects any, the return
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


def add_shows(add: Add) -> None:
    """The commands that show and judge a model."""
    dream = add("dream", "dream with the model's policy or with random actions and write a video", DREAM_EXAMPLES)
    dream.add_argument("model", help=MODEL_HELP)
    dream.add_argument("--steps", type=int, default=500, help="length of the dream (default: 500)")
    dream.add_argument("--seed", type=int, default=0, help="the same seed dreams the same dream (default: 0)")
    dream.add_argument("--temperature", type=float, help="variance of the noise, 0 or more (default: the model's own)")
    dream.add_argument("--random", action="store_true", help="random actions even if the model has a policy")
    dream.add_argument("--out", type=Path, default=Path("dream.mp4"), help="default: dream.mp4")
    dream.set_defaults(command=_dream)

    play = add("play", "dream in the browser; the dream follows your keys", PLAY_EXAMPLES)
    play.add_argument("model", help=MODEL_HELP)
    play.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    play.add_argument("--port", type=int, default=8765, help="0 takes any free one (default: 8765)")
    play.add_argument("--beside-real", action="store_true", help="show the real env, fed the same actions")
    play.add_argument("--no-browser", action="store_true", help="print the address, open nothing")
    play.set_defaults(command=_play)

    evaluate = add("evaluate", "score a model's policy and the baselines in the real env", EVALUATE_EXAMPLES)
    evaluate.add_argument("model", help=MODEL_HELP)
    evaluate.add_argument("--episodes", type=int, default=100, help="real episodes of each policy (default: 100)")
    evaluate.add_argument(
        "--seed",
        type=int,
        default=10_000_000,  # nothing that is released was chosen or compared on these
        help="first evaluation seed (default: 10000000; a run's own verdict has 1000000)",
    )
    evaluate.add_argument("--world", action="store_true", help="judge the dream itself instead of the policy")
    evaluate.add_argument("--out", type=Path, required=True, help="folder for verdict.json (with --world: world.html)")
    evaluate.set_defaults(command=_evaluate)

    render = add("render", "write videos, pictures and a report of reality beside the dream", RENDER_EXAMPLES)
    render.add_argument("model", help=MODEL_HELP)
    render.add_argument("--gif", action="store_true", help="write each video as a GIF too")
    render.add_argument("--out", type=Path, help="default: the run folder, or renders/NAME for a model")
    render.set_defaults(command=_render)


def add_exchange(add: Add) -> None:
    """The commands that list, fetch and send models."""
    models = add("models", "list the released models", MODELS_EXAMPLES)
    models.set_defaults(command=_models)

    pull = add("pull", "fetch a model from the Hugging Face hub or a folder", PULL_EXAMPLES)
    pull.add_argument("source", help="OWNER/NAME on the hub, or a folder")
    pull.add_argument("--out", type=Path, help="a new folder (default: models/NAME)")
    pull.set_defaults(command=_pull)

    push = add("push", "send a model to the Hugging Face hub or a folder", PUSH_EXAMPLES)
    push.add_argument("model", help=MODEL_HELP)
    push.add_argument("target", help="OWNER/NAME on the hub, or a new folder")
    push.add_argument("--private", action="store_true", help="if a repository is made, only you can see it")
    push.set_defaults(command=_push)


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
