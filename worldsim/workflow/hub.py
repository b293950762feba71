"""World models to and from the Hugging Face hub, or a folder that several people share.

Only files that a model folder consists of travel, by their names: safetensors, JSON and a card, nothing that executes.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worldsim.agents.policy_io import load_policy, load_value
from worldsim.data.files import explained
from worldsim.errors import UserError
from worldsim.model_folder import find_model, load_model

MODEL_FILES = (
    "README.md",
    "config.json",
    "tokenizer.safetensors",
    "dynamics.safetensors",
    "endings.safetensors",
    "plans.safetensors",
    "start_contexts.safetensors",
    "policy/config.json",
    "policy/policy.safetensors",
    "policy/value.safetensors",
)


def pull(source: str, out: Path | None) -> Path:
    """Fetch a world model from `source`, OWNER/NAME on the hub or a folder (./NAME, /NAME), into `out`; returns it.

    out: a folder that is not there yet, by default models/NAME. It appears when all is there and fits together.
    Raises UserError for a source that cannot be had or holds no whole model, PolicyFileError for a damaged policy.
    """
    local = _is_folder(source)
    if not local:
        _check_repository(source)
    target = out or Path("models") / Path(source).name
    _check_free(target)
    with tempfile.TemporaryDirectory() as temporary:
        if local:
            fetched = find_model(Path(source).expanduser())
        else:
            fetched = Path(temporary)
            client = _client()
            with _hub_errors(f"pull {source}"):
                client.snapshot_download(source, local_dir=fetched, allow_patterns=list(MODEL_FILES))
        if not (fetched / "config.json").is_file():
            raise UserError(f"{source} holds no world model (no config.json): expected one made by `worldsim push`")
        return _place(fetched, target)


def push(name_or_folder: str, target: str, *, private: bool) -> str:
    """Send a model (or a run's newest) to `target`, OWNER/NAME on the hub or a new folder; returns where it is.

    private: of a repository that is made for it. Raises UserError for a model that is not whole, and for whatever the
    hub refuses, PolicyFileError for a damaged policy.
    """
    local = _is_folder(target)
    if not local:
        _check_repository(target)
    folder = find_model(name_or_folder)
    _check_whole(folder)
    if local:
        return str(_place(folder, Path(target).expanduser()))
    client = _client()
    with tempfile.TemporaryDirectory() as temporary:
        _copy(folder, Path(temporary))
        card = Path(temporary) / "README.md"
        if not card.read_text(encoding="utf-8").startswith("---\n"):  # a pulled model brings the hub's header
            card.write_text(_header() + card.read_text(encoding="utf-8"), encoding="utf-8")
        with _hub_errors(f"push to {target}"):
            client.create_repo(target, private=private, exist_ok=True)
            # A policy of an older model would go along with the new one.
            client.upload_folder(
                repo_id=target,
                folder_path=temporary,
                commit_message="World model of worldsim",
                delete_patterns=list(MODEL_FILES),
            )
    return f"{client.endpoint}/{target}"


def _is_folder(text: str) -> bool:
    """Only what is written like a path: a folder that happens to be called like a repository changes nothing."""
    return text.startswith(("/", "./", "../", "~")) or text in (".", "..")


def _check_repository(name: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"{name!r}: expected OWNER/NAME on the hub, or a folder that begins with ./ or /")


def _client() -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise UserError('the hub needs a package that is not installed: pip install "worldsim-rl[hub]"') from None
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="worldsim")


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the client's own, those of its HTTP library, and the system's
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"cannot {what}: {reason}; check the name, the network and `hf auth login`") from error


def _check_free(target: Path) -> None:
    if target.exists():
        raise UserError(f"{target} is there already: choose a new folder")


def _place(folder: Path, target: Path) -> Path:
    """A copy of a model folder at `target`, whole or not at all."""
    _check_free(target)
    temporary = target.with_name(f".{target.name}.tmp")
    with explained("place the world model", target.parent):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            _copy(folder, temporary)
            _check_whole(temporary)
            os.replace(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def _copy(folder: Path, target: Path) -> None:
    for name in MODEL_FILES:
        if (folder / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)


def _check_whole(folder: Path) -> None:
    load_model(folder)
    if (folder / "policy").is_dir():
        load_policy(folder / "policy")
        load_value(folder / "policy")


def _header() -> str:
    """What the hub reads off a card."""
    lines = ("license: mit", "library_name: worldsim", "pipeline_tag: reinforcement-learning", "tags:", "- world-model")
    return "\n".join(("---", *lines, "---", "", ""))
