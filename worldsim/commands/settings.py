"""settings: every setting of a run, with its default and what it does."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import io
import json
import textwrap
import tokenize
from collections.abc import Iterator
from typing import Any

from worldsim.commands.parser import Add
from worldsim.errors import UserError

EXAMPLES = """\
examples:
  worldsim settings               all of them
  worldsim settings dynamics      those of the dynamics
  worldsim settings agent.cma_es

Each can stand in a config file, or behind a command as key=value: worldsim run quickstart dynamics.size=tiny
"""
WIDTH = 118
COLUMN = 46  # where the explanations begin


def add_settings(add: Add) -> None:
    """The command that explains all settings."""
    command = add("settings", "list every setting of a run, with its default and what it does", EXAMPLES)
    command.add_argument("section", nargs="?", default="", help="only this one and what is in it (default: all)")
    command.set_defaults(command=_print)


def _print(options: argparse.Namespace) -> None:
    print(settings_text(options.section))


def settings_text(section: str = "") -> str:
    """All settings in `section`, "" for all sections. Raises UserError for one that is not there."""
    from worldsim.workflow.config import RunConfig

    sections = dict(_sections(RunConfig, ""))
    chosen = [text for name, text in sections.items() if not section or f"{name}.".startswith(f"{section}.")]
    if not chosen:
        raise UserError(f"section {section!r}: expected one of {', '.join(name for name in sections if name)}")
    return "\n\n".join(chosen)


def _sections(cls: type[Any], name: str) -> Iterator[tuple[str, str]]:
    """(name, text) of a config class and of those in it."""
    lines = [name or "the run itself"]
    comments: dict[str, str] = {}
    # What a class inherits is explained where it is written down.
    for each in [one for one in cls.__mro__ if dataclasses.is_dataclass(one)]:
        about = " ".join((each.__doc__ or "").split())
        lines += textwrap.wrap(about, WIDTH, initial_indent="  ", subsequent_indent="  ")
        comments = dict(_comments(each)) | comments
    inner: list[tuple[str, type[Any]]] = []
    default = cls()
    for field in dataclasses.fields(cls):
        value, key = getattr(default, field.name), f"{name}.{field.name}".lstrip(".")
        if dataclasses.is_dataclass(value):
            inner.append((key, type(value)))
            continue
        shown = f"  {key}={value if isinstance(value, str) else json.dumps(value)}"
        first, *more = textwrap.wrap(comments.get(field.name, ""), WIDTH - COLUMN) or [""]
        lines += [f"{shown:<{COLUMN - 2}}  {first}".rstrip(), *(" " * COLUMN + line for line in more)]
    yield name, "\n".join(lines)
    for key, other in inner:
        yield from _sections(other, key)


def _comments(cls: type[Any]) -> Iterator[tuple[str, str]]:
    """What the source says of each field: in comments above and behind it, or in a text below it."""
    source = textwrap.dedent(inspect.getsource(cls))
    said = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    lines = source.splitlines()
    [parsed] = ast.parse(source).body
    assert isinstance(parsed, ast.ClassDef)
    for node, after in zip(parsed.body, [*parsed.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        above: list[str] = []
        line = node.lineno - 1
        while line in said and lines[line - 1].lstrip().startswith("#"):
            above.insert(0, said[line])
            line -= 1
        behind = [said[node.lineno]] if node.lineno in said else []
        below = []
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            below = [after.value.value]
        yield node.target.id, " ".join(" ".join([*above, *behind, *below]).split())
