"""Dreams on a GPU without a launch for every operator: networks that are compiled and replayed as CUDA graphs.

A dreamt step asks small networks several times; eager PyTorch launches a kernel for each operator, and small ones take
longer to launch than to run. `torch.compile` fuses many of them, and a CUDA graph launches what is left in one go. What
is random, and what a row keeps, stays outside: compiled dreams are the same dreams, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from worldsim.dynamics.dit import DiTOutput
from worldsim.dynamics.dit_dynamics import DiTDynamics
from worldsim.errors import UserError
from worldsim.world_model import WorldModel


def compile_networks(model: WorldModel, **options: Any) -> None:
    """From now on `model` denoises, remembers and decodes by compiled networks, as CUDA graphs.

    The first steps of each number of rows wait for the compiler: for a viewer, or for many thousands of steps.
    Raises UserError for a model that is not on a GPU, and for other dynamics than the DiT.

    options: of `torch.compile` in place of CUDA graphs, on any device.
    """
    if not options and model.device.type != "cuda":
        raise UserError(f"compiled dreams need a GPU, the world model is on {model.device}: load it with device='cuda'")
    if not isinstance(model.dynamics, DiTDynamics):
        raise UserError(
            f"compiled dreams know the DiT alone, this is {type(model.dynamics).__name__}: leave it as it is"
        )
    networks: list[Any] = [model.dynamics.dit]
    if model.dynamics.sampler is not None:
        networks.append(model.dynamics.sampler)
    for network in networks:
        network.forward = _compiled(network.forward, options)
    tokenizer: Any = model.tokenizer
    tokenizer.decode = _compiled(tokenizer.decode, options)


def _compiled(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    """`function`, compiled for each shape of its tensors. What it gives is copied: the next replay writes there."""
    compiled = torch.compile(function, fullgraph=True, dynamic=False, **(options or {"mode": "reduce-overhead"}))

    def run(*arguments: Any) -> Any:
        return _copied(compiled(*arguments))

    return run


def _copied(given: Any) -> Any:
    if isinstance(given, DiTOutput):
        return DiTOutput(given.latents.clone(), given.belief.clone(), given.memory.clone())
    assert isinstance(given, Tensor)
    return given.clone()
