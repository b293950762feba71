"""Training with several processes that share every batch: what `torchrun` starts, as if it were one process.

All processes draw the same batch and the same random numbers from the same seeds; each computes every n-th row of them,
and gradients are averaged. So losses, checkpoints and weights are those of one process up to the order of sums, and
a training goes on with another number of processes. Without torchrun nothing here does anything.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode

from worldsim.errors import UserError
from worldsim.torchrun import under_torchrun

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

T = TypeVar("T")
Loss = Callable[..., tuple[Tensor, dict[str, Tensor]]]

KINDS = ("ddp", "fully_shard")
NO_TIMEOUT = timedelta(days=365)  # processes wait while the first one collects or trains the agent
UNSHARED_DRAWS = {
    *(torch.randperm, torch.bernoulli, torch.multinomial, torch.normal, torch.poisson),
    *(torch.rand_like, torch.randn_like, torch.randint_like),
    *(Tensor.bernoulli, Tensor.bernoulli_, Tensor.multinomial, Tensor.normal_, Tensor.uniform_, Tensor.random_),
    *(Tensor.exponential_, Tensor.geometric_, Tensor.cauchy_, Tensor.log_normal_),
    *(F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, F.gumbel_softmax),
}


@dataclass
class _Group:
    """The processes of this training. kind: of KINDS. alone: the first one works while the others wait."""

    rank: int
    size: int
    kind: str
    alone: bool = False


_group: _Group | None = None


def size() -> int:
    """How many processes share the work at hand; 1 without torchrun and inside `on_rank_0`."""
    return 1 if _group is None or _group.alone else _group.size


def rank() -> int:
    """Which of them this is, from 0."""
    return 0 if _group is None or _group.alone else _group.rank


def rows() -> slice:
    """The rows of a batch that are this process's: every `size()`-th.

    Not one block of rows, so that the first rows of the batch are the first ones of each process.
    """
    return slice(rank(), None, size())


# --- beginning and end -----------------------------------------------------------------------------------------------


@contextmanager
def joined(kind: str) -> Iterator[None]:
    """While entered, the processes that torchrun started are one group; `kind` of KINDS says how they share weights.

    Does nothing without torchrun. Raises UserError when another process ends without a word.
    """
    global _group  # noqa: PLW0603 (there is one group of processes, as there is one process)
    if not under_torchrun() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend, store=_store(), rank=_environment("RANK"), world_size=_environment("WORLD_SIZE"), timeout=NO_TIMEOUT
    )
    _group = _Group(dist.get_rank(), dist.get_world_size(), kind)
    try:
        yield
        dist.destroy_process_group()
    except RuntimeError as error:
        if not any(words in str(error) for words in ("closed by peer", "reset by peer", "Broken pipe")):
            raise
        raise UserError(
            "another process of this training ended without a word (it may have run out of memory): "
            "run the same command again to go on from the last checkpoint"
        ) from error
    finally:
        _group = None


def local_device(device: torch.device) -> torch.device:
    """The device of this process: the GPU of its number on this machine, where `device` is "cuda".

    Raises UserError if there is no such GPU, or for a device that processes cannot share.
    """
    if size() == 1:
        return device
    if device.type == "cuda":
        number, count = _environment("LOCAL_RANK"), torch.cuda.device_count()
        if str(device) != "cuda" or number >= count:
            raise UserError(
                f"device {device} for {_environment('LOCAL_WORLD_SIZE')} processes on a machine with {count} GPUs: "
                "write device=cuda, and start no more processes than GPUs (--nproc-per-node)"
            )
        torch.cuda.set_device(number)
        return torch.device("cuda", number)
    if device.type != "cpu":
        raise UserError(f"device {device} cannot be shared by processes: write device=cpu or cuda, or leave torchrun")
    return device


def local_size() -> int:
    """How many processes there are on this machine."""
    return 1 if size() == 1 else _environment("LOCAL_WORLD_SIZE")


def speaks_first() -> bool:
    """Whether this process is the first one to end with an error: it says so, and the others are silent.

    One that fails takes the others with it, and what they would say is only that their connection broke.
    """
    if not under_torchrun():
        return True
    try:
        return int(_store().add("failures", 1)) == 1
    except RuntimeError:  # torchrun itself is gone: better said twice than never
        return True


@lru_cache(maxsize=1)
def _store() -> Any:
    """The dictionary that all processes share; torchrun keeps it, so it outlives each of them."""
    from torch.distributed.distributed_c10d import PrefixStore

    store, _, _ = next(rendezvous("env://", timeout=timedelta(minutes=10)))
    return PrefixStore(f"worldsim/{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)


def _environment(name: str) -> int:
    return int(os.environ[name])


# --- together and alone ----------------------------------------------------------------------------------------------


def on_rank_0(work: Callable[[], T]) -> T | None:
    """What `work` returns in the first process; the others wait for it, as long as it takes, and get None.

    While it works the first process counts as the only one.
    """
    if _group is None or _group.alone:
        return work()
    result = None
    if _group.rank == 0:
        _group.alone = True
        try:
            result = work()
        finally:
            _group.alone = False
    largest(0)  # returns when all have come here
    return result


def largest(*numbers: int) -> list[int]:
    """The largest over all processes of each number."""
    if size() == 1:
        return list(numbers)
    tensor = torch.tensor(numbers)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return [int(number) for number in tensor]


def means(values: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean over all processes of each scalar; rows are shared evenly, so that is the mean over the batch."""
    if size() > 1:
        stacked = torch.stack([value.detach().float() for value in values.values()])
        dist.all_reduce(stacked)
        values = dict(zip(values, stacked / size(), strict=True))
    return {name: float(value) for name, value in values.items()}


# --- the loss --------------------------------------------------------------------------------------------------------

_sharing = False


def data_parallel(model: nn.Module, loss: Loss) -> Loss:
    """`loss` of `model`, whose gradients are averaged over all processes, each computing its `rows()` of the batch.

    loss: any arguments -> a scalar and its parts. Call this before the optimizers are made: with "fully_shard" the
    parameters become DTensors, of which each process holds its share. One group of parameters is gathered at a time:
    a layer of an outermost ModuleList, or all that is in none.
    """
    if _group is None or _group.alone:
        return loss
    module: nn.Module = _LossModule(model, loss)
    if _group.kind == "ddp":
        module = DistributedDataParallel(module)
    else:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        # Layers return views (keys and values); nothing here changes one in place.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
        mesh = init_device_mesh(next(model.parameters()).device.type, (_group.size,))
        layers = [layer for part in model.modules() if isinstance(part, nn.ModuleList) for layer in part]
        inside = {id(part) for layer in layers for part in layer.modules() if part is not layer}
        for layer in layers:
            if id(layer) not in inside:  # what lies in a layer is gathered with it
                fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh)
    return partial(_shared_loss, module)


def shared_count(count: Tensor) -> Tensor:
    """`count` (a scalar), at least 1, as the divisor of a sum over the rows.

    In a shared loss: the count of the whole batch over the number of processes. So the mean over all processes of
    sum / shared_count(count) is the ratio that one process would have found.
    """
    if not _sharing:
        return count.clamp(min=1)
    total = count.detach().clone()
    dist.all_reduce(total)
    return total.clamp(min=1) / size()


def shared_sum(tensor: Tensor) -> Tensor:
    """In a shared loss: the sum of the processes' tensors, without a gradient; elsewhere the tensor itself."""
    if not _sharing:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


class _LossModule(nn.Module):
    """The loss as a module's forward pass, which is what DDP and fully_shard know how to surround."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, *arguments: Any, **named: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self._loss(*arguments, **named)


def _shared_loss(module: nn.Module, *arguments: Any, **named: Any) -> tuple[Tensor, dict[str, Tensor]]:
    global _sharing  # noqa: PLW0603
    _sharing = True
    try:
        with _SharedDraws():
            result: tuple[Tensor, dict[str, Tensor]] = module(*arguments, **named)
    finally:
        _sharing = False
    return result


class _SharedDraws(TorchFunctionMode):
    """Random numbers for rows are drawn for the whole batch, and those of this process's rows are kept.

    So all generators, torch's own among them, stay the same in all processes, and each row gets the mask, the noise and
    the dropout that it would get in one process.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.rand or function is torch.randn:
            shape = args[0] if isinstance(args[0], Sequence) else args
            return function(_of_whole_batch(shape), **kwargs)[rows()].contiguous()
        if function is torch.randint:
            return cast(Any, function)(*args[:-1], _of_whole_batch(args[-1]), **kwargs)[rows()].contiguous()
        if function is F.dropout:
            return _dropout(*args, **kwargs)
        if function in UNSHARED_DRAWS:
            raise NotImplementedError(f"{function} in a shared loss: say in worldsim.distributed how rows share it")
        return function(*args, **kwargs)


def _dropout(values: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    if not training:
        return values
    ones = torch.ones(_of_whole_batch(values.shape), dtype=values.dtype, device=values.device)
    return values * F.dropout(ones, p)[rows()]


def _of_whole_batch(shape: Sequence[int]) -> tuple[int, ...]:
    return (shape[0] * size(), *shape[1:])


# --- whole tensors ---------------------------------------------------------------------------------------------------


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, or the whole of one that is shared out; then all processes must ask together."""
    return tensor.full_tensor() if _is_share(tensor) else tensor


def whole_state(state: Any) -> Any:
    """A state dict with whole tensors in place of shares: what one process would save."""
    if _group is None:
        return state
    if isinstance(state, Tensor):
        return whole(state)
    if isinstance(state, Mapping):
        return {key: whole_state(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole_state(value) for value in state)
    return state


def load_model(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load whole tensors into a model whose parameters may be shared out."""
    shares = {name: own for name, own in model.state_dict().items() if _is_share(own) and name in state}
    model.load_state_dict({**state, **{name: _share_like(state[name], own) for name, own in shares.items()}})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a whole state into an optimizer whose parameters may be shared out."""
    optimizer.load_state_dict(state)
    if not isinstance(optimizer, torch.optim.AdamW):  # Muon's momenta are whole in all processes
        return
    for parameter, values in optimizer.state.items():
        if _is_share(parameter):
            values |= {name: _share_like(value, parameter) for name, value in values.items() if value.ndim}


def part_for(parameter: Tensor, whole_tensor: Tensor) -> Tensor:
    """A tensor that all processes hold whole, as an operand for a parameter that may be shared out."""
    if not _is_share(parameter):
        return whole_tensor
    from torch.distributed.tensor import DTensor, Replicate

    return DTensor.from_local(whole_tensor, parameter.device_mesh, [Replicate()], run_check=False)


def _is_share(tensor: Any) -> TypeGuard[DTensor]:
    """Whether a process holds only its share of the tensor."""
    if _group is None or _group.kind != "fully_shard":
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def _share_like(tensor: Tensor, own: DTensor) -> DTensor:
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(own.device), own.device_mesh, own.placements)
