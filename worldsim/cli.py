"""The command line. Reads what is asked for, runs it, and turns errors into one line."""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Sequence

from worldsim import __version__
from worldsim.commands.data import add_data
from worldsim.commands.models import add_exchange, add_shows
from worldsim.commands.parser import Parser
from worldsim.commands.settings import add_settings
from worldsim.commands.walks import add_walks, run_walk, take_words
from worldsim.errors import UserError
from worldsim.torchrun import under_torchrun
from worldsim.waiting import wait_briefly


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for what the user can mend, 130 for Ctrl-C, 141 where
    nobody reads on.
    """
    wait_briefly()
    options = _parsed(arguments)
    try:
        if under_torchrun() and options.command is not run_walk:
            raise UserError("torchrun is for the commands run and train: start this one alone")
        options.command(options)
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        if _speaks():
            print(f"worldsim: {str(stop) or 'stopped; run the same command again to go on'}", file=sys.stderr)
        return 130
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 141  # as of a program that the signal ends: 128 + SIGPIPE
        if not _speaks():
            return 2
        if options.debug or not _is_for_the_user(error):
            raise
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"worldsim: {message}", file=sys.stderr)
        return 2
    return 0


def _nobody_reads() -> bool:
    """Whether what is printed goes to a pipe that has been closed, as by `head`. Nothing more is written then."""
    poll = select.poll()
    poll.register(sys.stdout, select.POLLOUT)
    closed = any(event & select.POLLERR for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
    return closed


def _speaks() -> bool:
    """Whether this process says why it ends. Of those that torchrun started, the first one to end does."""
    if not under_torchrun():
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


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; `key=value` may also stand behind `--folder`, which argparse alone would not understand."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if "overrides" in options:
        words = [text for text in rest if not text.startswith("-")]
        rest = [text for text in rest if text.startswith("-")]
        take_words(options, words)
    if rest:
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="worldsim",
        description="Train agents in the dream of a diffusion-transformer world model, judge them in the real env.",
        epilog="First steps: worldsim run quickstart. Each command explains itself: worldsim COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"worldsim {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

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

    add_walks(add)
    add_settings(add)
    add_shows(add)
    add_exchange(add)
    add_data(add)
    return parser
