"""A world model on disk: safetensors, JSON and a model card. Data only, nothing that executes.

FOLDER/config.json            format version, environment, settings of tokenizer and dynamics, training figures
FOLDER/tokenizer.safetensors  FOLDER/dynamics.safetensors  FOLDER/start_contexts.safetensors
FOLDER/endings.safetensors    where a network of its own foresees endings
FOLDER/plans.safetensors      where one foresees what plans lead to
FOLDER/README.md              the model card
FOLDER/policy/                optional: a policy trained in this dream
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from worldsim.config import from_dict
from worldsim.data.actions import action_feature_count
from worldsim.data.episode import EnvSpec
from worldsim.data.files import explained, write_json, write_whole
from worldsim.dynamics.build import build_dynamics
from worldsim.dynamics.config import DynamicsConfig
from worldsim.endings import EndingConfig, EndingReader
from worldsim.errors import UserError
from worldsim.plan_reader import PlanConfig, PlanReader
from worldsim.quantization import dequantize, quantize
from worldsim.start_contexts import StartContexts
from worldsim.tokenizers.build import build_tokenizer, code_vectors
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.world_model import WorldModel

FORMAT_VERSION = 1
PRETRAINED = Path(__file__).parent / "pretrained"
LICENCE = "MIT"  # of the models that worldsim makes


def released_models(pretrained: Path = PRETRAINED) -> list[str]:
    """Names of the world models that ship with the package."""
    return sorted(folder.name for folder in pretrained.glob("*") if (folder / "config.json").is_file())


def find_model(name_or_folder: Path | str) -> Path:
    """The folder of a released model, a model folder itself, or the newest model of a run folder.

    A folder goes before a released model of its name, unless it is that of a run without a model yet. Raises UserError
    if there is none.
    """
    given, released = Path(name_or_folder), PRETRAINED / str(name_or_folder)
    rounds = sorted(given.glob("round-*/world_model/config.json"))
    if rounds:
        return rounds[-1].parent
    there = [folder for folder in (given, released) if (folder / "config.json").is_file()]
    models = [folder for folder in there if not _is_run(folder)]
    if models:
        return models[0]
    if there:
        raise UserError(f"the run in {str(given)!r} has no world model yet: let `worldsim run` or `train` go on")
    names = ", ".join(released_models()) or "none"
    raise UserError(
        f"no world model at {str(name_or_folder)!r}: expected a folder with a config.json, the folder of a run, or the "
        f"name of a released model ({names})"
    )


def episodes_beside(name_or_folder: Path | str, model: Path) -> Path | None:
    """The episodes of the run folder that `find_model` found `model` in; None where it is no part of a run, such as a
    released model whose name a run without a model bears too.
    """
    given = Path(name_or_folder)
    episodes = given / "episodes"
    return episodes if episodes.is_dir() and model.resolve().is_relative_to(given.resolve()) else None


def save_model(model: WorldModel, folder: Path, *, small: bool = False) -> None:
    """Write `model` into `folder`; config.json comes last, so a folder that has one is whole.

    small: store matrices of weights with 8 bits (see worldsim.quantization), for a release.
    """

    def pack(module: nn.Module) -> dict[str, Tensor]:
        tensors = module.state_dict()
        return quantize(tensors, exact={name for name, _ in module.named_buffers()}) if small else tensors

    with explained("save the world model", folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").unlink(missing_ok=True)  # of an older model, which is whole no more
        _save_tensors(pack(model.tokenizer), folder / "tokenizer.safetensors")
        _save_tensors(pack(model.dynamics), folder / "dynamics.safetensors")
        for name, reader in (("endings", model.endings), ("plans", model.plans)):
            (folder / f"{name}.safetensors").unlink(missing_ok=True)
            if reader is not None:
                _save_tensors(pack(reader), folder / f"{name}.safetensors")
        _save_tensors(model.start_contexts.tensors(), folder / "start_contexts.safetensors")
        write_whole(folder / "README.md", _model_card(model).encode())
        write_json(
            folder / "config.json",
            {
                "format": "worldsim world model",
                "format_version": FORMAT_VERSION,
                "licence": LICENCE,
                "env": model.spec.to_dict(),
                "tokenizer": asdict(model.tokenizer.config),
                "dynamics": asdict(model.dynamics.config),
                "endings": None if model.endings is None else asdict(model.endings.config),
                "plans": None if model.plans is None else asdict(model.plans.config),
                "temperature": model.temperature,
                "feature_frames": model.feature_frames,
                "stack_ages": list(model.stack_ages),
                "uncertainty_quantiles": {f"{level:g}": value for level, value in model.uncertainty_quantiles.items()},
                "training": model.training,
            },
        )


def load_model(
    name_or_folder: Path | str, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> WorldModel:
    """Read a world model. Raises UserError for a missing, foreign, newer, incomplete or damaged folder."""
    folder = find_model(name_or_folder)
    config = _read_config(folder)
    try:
        spec = EnvSpec.from_dict(config["env"])
        tokenizer_config = from_dict(TokenizerConfig, config["tokenizer"], f"{folder}/config.json")
        dynamics_config = from_dict(DynamicsConfig, config["dynamics"], f"{folder}/config.json")
        temperature = float(config.get("temperature", 1.0))
        feature_frames = int(config.get("feature_frames", 1))
        stack_ages = [int(age) for age in config.get("stack_ages", [])]
        ending_config = plan_config = None
        if config.get("endings") is not None:
            ending_config = from_dict(EndingConfig, config["endings"], f"{folder}/config.json")
        if config.get("plans") is not None:
            plan_config = from_dict(PlanConfig, config["plans"], f"{folder}/config.json")
        quantiles = {float(level): float(value) for level, value in config.get("uncertainty_quantiles", {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}/config.json is incomplete ({error!r}): fetch the model again") from None
    tokenizer = build_tokenizer(tokenizer_config, spec.frame_shape)
    tokens, channels = tokenizer.latent_shape
    dynamics = build_dynamics(
        dynamics_config, tokens, channels, tokenizer.grid, action_feature_count(spec), code_vectors(tokenizer)
    )
    endings = plans = None
    networks: list[tuple[str, nn.Module]] = [("tokenizer", tokenizer), ("dynamics", dynamics)]
    if ending_config is not None:
        endings = EndingReader(ending_config, tokens, channels, action_feature_count(spec))
        networks.append(("endings", endings))
    if plan_config is not None:
        plans = PlanReader(plan_config, spec.frame_shape, action_feature_count(spec))
        networks.append(("plans", plans))
    for name, module in networks:
        path = folder / f"{name}.safetensors"
        try:
            module.load_state_dict(dequantize(_load_tensors(path)))
        except RuntimeError as error:
            reason = str(error).splitlines()[-1].strip()
            raise UserError(f"{path} does not fit {folder / 'config.json'}: {reason}; fetch the model again") from None
    path = folder / "start_contexts.safetensors"
    try:
        contexts = StartContexts(**_load_tensors(path))
    except TypeError as error:
        raise UserError(f"{path} does not hold start contexts ({error}): fetch the model again") from None
    return WorldModel(
        spec,
        tokenizer,
        dynamics,
        contexts,
        device=device,
        dtype=dtype,
        temperature=temperature,
        feature_frames=feature_frames,
        stack_ages=stack_ages,
        endings=endings,
        plans=plans,
        uncertainty_quantiles=quantiles,
        training=config.get("training", {}),
    )


def _is_run(folder: Path) -> bool:
    """Whether it holds the settings of a run, not the facts of a model."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    return isinstance(config, dict) and "rounds" in config


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}): fetch the model again") from None
    if not isinstance(config, dict) or config.get("format") != "worldsim world model":
        raise UserError(f"{path} does not describe a worldsim world model: give a folder made by `worldsim run`")
    if config.get("format_version") != FORMAT_VERSION:
        version = config.get("format_version")
        raise UserError(f"{path} has format version {version}, this worldsim reads {FORMAT_VERSION}: update worldsim")
    return config


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(whole))


def _load_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"{path} is missing: fetch the model again")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or cut short ({error}): fetch the model again") from None


def _model_card(model: WorldModel) -> str:
    spec, training = model.spec, model.training
    tokens, channels = model.latent_shape
    lines = [
        f"# World model of {spec.id}",
        "",
        f"{model.dynamics.description()} that dreams {spec.frame_shape[0]}x{spec.frame_shape[1]} frames as {tokens} "
        f"tokens of {channels} numbers.",
        "",
        "```python",
        "import gymnasium",
        "",
        'env = gymnasium.make("worldsim:worldsim/Dream-v0", model="THIS FOLDER")',
        "```",
        "",
        f"- Actions: {', '.join(spec.action_meanings)}",
        f"- Frames per second of the real environment: {spec.frames_per_second:g}",
        f"- Environment settings: `{json.dumps(spec.settings)}`",
        f"- Temperature of its dreams: {model.temperature:g}",
        f"- Start contexts: {len(model.start_contexts)}, from training episodes only",
        "",
        "## Training",
        "",
        *[f"- {name}: {value}" for name, value in training.items()],
        "",
        f"Licence: {LICENCE}, like worldsim itself. Dreams are guesses: judge a policy in the real environment.",
        "",
    ]
    return "\n".join(lines)
