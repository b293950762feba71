"""Configs: dataclass defaults <- a YAML file <- `key=value` overrides, in one strict order.

A config is a dataclass whose fields all have defaults; its fields are bool, int, float, str, Literal, lists, dicts,
other config dataclasses, or `None` beside one of these. Whatever the file or an override says must name a field and
have its type, or a `UserError` of one line says where, what was expected and which key is nearest.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from worldsim.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ConfigT = TypeVar("ConfigT", bound="DataclassInstance")

SHIPPED_FOLDER = Path(__file__).parent / "configs"
KEY_PATTERN = re.compile(r"[^\s.=\[\]]+(\.[^\s.=\[\]]+)*")


def load_config(cls: type[ConfigT], path: Path | None = None, overrides: Sequence[str] = ()) -> ConfigT:
    """The config of class `cls`: its defaults, changed by the file at `path`, then by `overrides` from left to right.

    Args:
        cls: a dataclass. A `ValueError` from its `__post_init__` is told to the user as it is.
        path: a YAML file, or None for the defaults alone.
        overrides: texts such as `dynamics.width=256`, `env.crop=[10, 0, 4, 4]` or `env.max_episode_tics=null`;
            the value is YAML.

    Raises:
        UserError: unknown key, wrong type, missing value, malformed override, a file that is missing or no YAML.
    """
    from omegaconf import OmegaConf

    config: Any = OmegaConf.structured(cls)
    if path is not None:
        config = _merge(cls, config, _read_yaml(path), source=str(path))
    return _finished(cls, config, overrides, " with ".join([str(path or "defaults"), *overrides]))


def from_dict(cls: type[ConfigT], values: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> ConfigT:
    """The config from plain values, as `to_dict` gives them, changed by `overrides`; as strict as `load_config`."""
    from omegaconf import OmegaConf

    config = _merge(cls, OmegaConf.structured(cls), dict(values), source)
    return _finished(cls, config, overrides, source)


def names_given(overrides: Sequence[str]) -> set[str]:
    """The full names of the settings that `key=value` texts give, such as `env.frame_skip`."""
    names: set[str] = set()

    def gather(values: Mapping[Any, Any], prefix: str) -> None:
        for key, value in values.items():
            name = f"{prefix}{key}"
            names.add(name)
            if isinstance(value, Mapping):
                gather(value, f"{name}.")

    for override in overrides:
        gather(_parse_override(override), "")
    return names


def shipped_configs() -> list[str]:
    """The names of the configs that come with worldsim, sorted."""
    return sorted(path.stem for path in SHIPPED_FOLDER.glob("*.yaml"))


def resolve_config_path(name_or_path: str | Path) -> Path:
    """The YAML file that is meant by a path, or by the name of a shipped config such as `quickstart`.

    Raises:
        UserError: neither such a file nor such a name; the message lists the names.
    """
    text = str(name_or_path)
    shipped = SHIPPED_FOLDER / f"{text}.yaml"
    looks_like_path = text.endswith((".yaml", ".yml")) or Path(text).name != text
    if not looks_like_path and shipped.is_file():
        return shipped
    if Path(text).is_file():
        return Path(text)
    raise UserError(_no_such_config(text, "does not exist" if looks_like_path else "is neither a file nor shipped"))


def to_dict(config: DataclassInstance) -> dict[str, Any]:
    """The config as nested dicts, lists and plain values, ready for JSON and YAML."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def save_yaml(config: DataclassInstance, path: Path) -> None:
    """Write every value of `config` to `path`, all or nothing; `load_config(type(config), path)` gives it back.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
    """
    from omegaconf import OmegaConf

    text = OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}; free the disk or choose a folder you may write to") from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two nested dicts, one line each: `dynamics.width: 128 on disk, 256 asked`.

    `old` is what lies on disk, `new` what is asked for. A key that one of them lacks counts as a difference.
    """
    return _differences(old, new, prefix="")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> list[str]:
    lines: list[str] = []
    for key in [*new, *(key for key in old if key not in new)]:
        name = f"{prefix}{key}"
        before, after = _plain(old.get(key)), _plain(new.get(key))
        if key not in old:
            lines.append(f"{name}: not on disk, {_show(after)} asked")
        elif key not in new:
            lines.append(f"{name}: {_show(before)} on disk, not asked")
        elif isinstance(before, dict) and isinstance(after, dict):
            lines += _differences(before, after, prefix=f"{name}.")
        elif before != after:
            lines.append(f"{name}: {_show(before)} on disk, {_show(after)} asked")
    return lines


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.name if isinstance(value, Enum) else value


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]  # as YAML, and so the user, writes them
    return str(value)


def _no_such_config(text: str, problem: str) -> str:
    names = shipped_configs()
    near = difflib.get_close_matches(Path(text).stem, names, n=1)
    hint = f" Did you mean: '{near[0]}'?" if near else ""
    return f"config '{text}' {problem}.{hint} Give a YAML file or one of: {', '.join(names) or '(none shipped)'}"


def _read_yaml(path: Path) -> dict[Any, Any]:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(_no_such_config(str(path), "does not exist")) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file; expected YAML with lines of `key: value`") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from None
    try:
        # One bare word parses as {word: None}; the merge then refuses the word as a key.
        data = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}{_yaml_problem(error)}") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {_explain(error)}") from None
    except AssertionError:  # what OmegaConf says to a document that is a single number
        data = None
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected lines of `key: value`, got {_brief(data if data is not None else text)}")
    return data


def _parse_override(override: str) -> dict[Any, Any]:
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key, equals, value = override.partition("=")
    if not equals or not KEY_PATTERN.fullmatch(key):
        raise UserError(f"override {override!r}: expected key=value, such as seed=3 or dynamics.width=256")
    if not value.strip():
        raise UserError(f"override {override!r}: no value; write {key}=null for none or {key}=\"''\" for an empty text")
    try:
        data = OmegaConf.to_container(OmegaConf.from_dotlist([override]))
    except yaml.YAMLError as error:
        raise UserError(f"override {override!r}{_yaml_problem(error, with_line=False)}") from None
    except OmegaConfBaseException as error:
        raise UserError(f"override {override!r}: {_explain(error)}") from None
    assert isinstance(data, dict)
    return data


def _merge(cls: type[Any], config: Any, data: dict[Any, Any], source: str) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _check_kinds(cls, data, key="", source=source)
    try:
        return OmegaConf.merge(config, data)
    except OmegaConfBaseException as error:
        raise UserError(f"{source}: {_explain(error)}") from None


def _finished(cls: type[ConfigT], config: Any, overrides: Sequence[str], source: str) -> ConfigT:
    """The dataclass of a merged config, changed by `overrides`; UserError for what only shows now."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for override in overrides:
        config = _merge(cls, config, _parse_override(override), source=f"override {override!r}")
    try:
        result: Any = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:  # an interpolation that leads nowhere, a field without default and value
        raise UserError(f"{source}: {_explain(error)}") from None
    except ValueError as error:  # a config class that refuses its values
        raise UserError(f"{source}: {_first_line(error)}") from None
    assert isinstance(result, cls)
    return result


def _check_kinds(hint: Any, value: Any, key: str, source: str) -> None:
    """Refuse a group, list or single value in another's place, and `???`: OmegaConf is vague or silent about these."""
    if value == "???":
        raise UserError(f"{source}: {key}: no value; give one in place of ???")
    hint = _without_none(hint)
    if hint is Any or value is None or (isinstance(value, str) and value.startswith("${")):
        return  # OmegaConf knows what may be None, and what an interpolation leads to
    kind = typing.get_origin(hint) or hint
    items: list[tuple[str, Any, Any]] = []  # of what lies below: key, type hint, value
    if dataclasses.is_dataclass(hint):
        expected = f"keys below it ({', '.join(field.name for field in dataclasses.fields(hint))})"
        fits = isinstance(value, dict)
        hints = typing.get_type_hints(hint)
        items = [(f"{key}.{name}".lstrip("."), hints[name], value[name]) for name in hints if fits and name in value]
    elif kind in (list, tuple):
        expected = "a list such as [1, 2]"
        fits = isinstance(value, list)
        inner = (*typing.get_args(hint), Any)[0]
        items = [(f"{key}[{index}]", inner, item) for index, item in enumerate(value if fits else [])]
    elif kind is dict:
        expected = "keys and values, such as {name: 1}"
        fits = isinstance(value, dict)
        inner = (*typing.get_args(hint), Any, Any)[1]
        items = [(f"{key}.{name}", inner, item) for name, item in (value if fits else {}).items()]
    else:
        expected = f"one value of type {getattr(hint, '__name__', hint)}"
        fits = not isinstance(value, list | dict)
    if not fits:
        raise UserError(f"{source}: {key}: expected {expected}, got {_brief(value)}")
    for below, inner, item in items:
        _check_kinds(inner, item, key=below, source=source)


def _without_none(hint: Any) -> Any:
    """`X` for `X | None`, `Any` for another union (OmegaConf takes only unions of single values), else the hint."""
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    return options[0] if len(options) == 1 else Any


def _explain(error: Any) -> str:
    """One line from an OmegaConf error: the key, then its own words, then the keys there are if it named none."""
    from omegaconf.errors import ConfigKeyError, MissingMandatoryValue

    text = _first_line(error)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: no value; it has no default, so give one"
    if not isinstance(error, ConfigKeyError):
        return f"{error.full_key}: {text}" if error.full_key else text
    if "Did you mean" not in text and dataclasses.is_dataclass(error.object_type):
        text += f". Its keys: {', '.join(field.name for field in dataclasses.fields(error.object_type))}"
    prefix, _, _ = (error.full_key or "").rpartition(".")
    return f"{prefix}: {text}" if prefix else text


def _yaml_problem(error: Any, with_line: bool = True) -> str:
    """What YAML found wrong and where, to be put behind the name of the source."""
    mark = getattr(error, "problem_mark", None)
    where = f", line {mark.line + 1}" if with_line and mark is not None else ""
    return f"{where}: not valid YAML: {getattr(error, 'problem', None) or _first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
