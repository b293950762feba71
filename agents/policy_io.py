"""Saved policies: a folder with `policy.safetensors` (weights) and `config.json` (what they belong to). No pickle.

Beside them there may be `value.safetensors`: the value network that the policy learned with, for whoever wants to see
what the agent expects.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from worldsim.agents.errors import PolicyFileError
from worldsim.agents.networks import NetworkSpec, PolicyNetwork
from worldsim.agents.values import ValueNetwork

FORMAT = "worldsim-policy"
VERSION = 1
WEIGHTS = "policy.safetensors"
VALUE_WEIGHTS = "value.safetensors"
CONFIG = "config.json"


def save_policy(
    policy: PolicyNetwork, folder: Path, notes: Mapping[str, Any] | None = None, value: ValueNetwork | None = None
) -> None:
    """Write the policy (weights, input statistics, spec) into `folder`, over an older policy if there is one.

    notes: plain data to keep beside it (where it was trained, for instance); `read_policy_config` gives it back.
    value: the value network that learned with it. Each file is replaced at once; a crash between them shows on
    loading. Raises PolicyFileError for a folder that holds a foreign config.json.
    """
    folder = Path(folder)
    if (folder / CONFIG).exists():
        read_policy_config(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = _packed(policy)
    config = {
        "format": FORMAT,
        "version": VERSION,
        "spec": asdict(policy.spec),
        "notes": dict(notes or {}),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    _replace(folder / WEIGHTS, weights)
    if value is None:
        (folder / VALUE_WEIGHTS).unlink(missing_ok=True)  # of an older policy
    else:
        value_weights = _packed(value)
        config["value_sha256"] = hashlib.sha256(value_weights).hexdigest()
        _replace(folder / VALUE_WEIGHTS, value_weights)
    _replace(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def read_policy_config(folder: Path) -> dict[str, Any]:
    """The saved policy's config.json: "format", "version", "spec", "notes", "weights_sha256".

    Raises PolicyFileError if it is missing, unreadable, or not that of a policy of this version.
    """
    path = Path(folder) / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PolicyFileError(f"No policy in '{folder}': {CONFIG} is missing.") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise PolicyFileError(f"'{path}' is not JSON: the file is damaged or foreign.") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise PolicyFileError(f'\'{path}\' does not describe a policy: expected "format": "{FORMAT}".')
    if config.get("version") != VERSION:
        raise PolicyFileError(f"'{path}' has version {config.get('version')}, this program reads version {VERSION}.")
    return config


def load_policy(folder: Path, device: torch.device | str = "cpu") -> PolicyNetwork:
    """The policy saved in `folder`, in evaluation mode. Raises PolicyFileError for unusable files."""
    config = read_policy_config(folder)
    data = _read_weights(Path(folder) / WEIGHTS, config.get("weights_sha256"))
    with _fitting(folder):
        policy = PolicyNetwork(_spec(config))
        policy.load_state_dict(load(data))
    return policy.to(device).eval()


def load_value(folder: Path, device: torch.device | str = "cpu") -> ValueNetwork | None:
    """The value network saved beside the policy in `folder`, in evaluation mode; None where none was saved.

    It takes the policy's inputs: `value(policy.inputs(observations))`. Raises PolicyFileError for unusable files.
    """
    config = read_policy_config(folder)
    if "value_sha256" not in config:
        return None
    data = _read_weights(Path(folder) / VALUE_WEIGHTS, config["value_sha256"])
    with _fitting(folder):
        value = ValueNetwork(_spec(config))
        value.load_state_dict(load(data))
    return value.to(device).eval()


def _packed(network: nn.Module) -> bytes:
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()})


def _read_weights(path: Path, digest: Any) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise PolicyFileError(f"No policy in '{path.parent}': {path.name} is missing.") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise PolicyFileError(f"'{path}' is not what {CONFIG} was written for: it is truncated, damaged or replaced.")
    return data


def _spec(config: Mapping[str, Any]) -> NetworkSpec:
    spec = config["spec"]
    return NetworkSpec(
        tuple(spec["observation_shape"]),
        bool(spec["pixels"]),
        spec["action_space"],
        tuple(spec["hidden"]),
        int(spec.get("reads", 0)),  # policies of before there were controllers or layouts have none of these
        bool(spec.get("deterministic", False)),
        None if spec.get("layout") is None else {"frames": 1, **spec["layout"]},
        tuple((int(down), int(across)) for down, across in spec.get("strides", [])),
        bool(spec.get("group_norm", False)),
    )


@contextmanager
def _fitting(folder: Path) -> Iterator[None]:
    """Whatever goes wrong inside means that weights and config.json do not belong together."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise PolicyFileError(f"The policy in '{folder}' does not fit its {CONFIG}: {reason}") from error


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that it is either the old or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
