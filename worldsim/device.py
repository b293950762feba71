"""Which device and which precision to compute in, chosen from short names and said in one printable line."""

from __future__ import annotations

import contextlib
import functools
import platform
import time
from contextlib import AbstractContextManager
from pathlib import Path

import torch

from worldsim.errors import UserError

_PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32}
# What bf16 must gain on a CPU: casts eat some of it, and a machine's noise must not decide.
_WORTHWHILE_SPEEDUP = 1.2


def choose_device(name: str) -> torch.device:
    """The device called `name`: "auto" (CUDA where there is one, else the CPU), "cpu", "cuda", "cuda:1", "mps".

    Raises UserError for a name that is no device and for a device this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r} is no device: write auto, cpu, cuda or cuda:0") from None
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(f"device {name!r} was asked for, but torch sees {count} CUDA devices: write auto or cpu")
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise UserError(f"device {name!r} was asked for, but torch sees no MPS device: write auto or cpu")
    elif device.type != "cpu":
        raise UserError(f"device {name!r} is not supported: write auto, cpu, cuda or cuda:0")
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products called `name` ("auto", "bf16", "fp32") on `device`.

    "auto" is bf16 where the hardware multiplies bf16 matrices (CUDA from Ampere on, CPUs with AMX or AVX512_BF16) and,
    on a CPU, is measured to do so faster; fp32 elsewhere. Weights stay fp32 either way. Raises UserError for any other
    name.
    """
    if name == "auto":
        return torch.bfloat16 if _multiplies_bf16(device) else torch.float32
    if name not in _PRECISIONS:
        raise UserError(f"precision {name!r} is unknown: write auto, bf16 or fp32")
    return _PRECISIONS[name]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """A context in which matrix products run in `dtype` (nothing changes for fp32)."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def describe(device: torch.device, dtype: torch.dtype) -> str:
    """One line for the user, e.g. "cpu (x86_64, 2 threads), bf16, torch 2.13.0"."""
    precision = next((name for name, value in _PRECISIONS.items() if value == dtype), str(dtype).removeprefix("torch."))
    if device.type == "cuda":
        what = f"{device} ({torch.cuda.get_device_name(device)})"
    elif device.type == "cpu":
        what = f"cpu ({platform.machine() or 'unknown machine'}, {torch.get_num_threads()} threads)"
    else:
        what = str(device)
    return f"{what}, {precision}, torch {torch.__version__}"


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not {"amx_bf16", "avx512_bf16"} & _cpu_flags():
        return False
    return _cpu_speedup_of_bf16() > _WORTHWHILE_SPEEDUP


@functools.cache
def _cpu_speedup_of_bf16() -> float:
    """How many times as fast a product as wide as the networks' is in bf16, 30 ms; flags do not tell.

    With AVX512_BF16 alone some CPUs take half of the time of fp32, others twice as long.
    """
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        left, right = torch.ones(2048, 256, dtype=dtype), torch.ones(256, 512, dtype=dtype)
        torch.mm(left, right)  # the first one is prepared
        seconds[dtype] = min(_seconds_of_product(left, right) for _ in range(5))
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _seconds_of_product(left: torch.Tensor, right: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.mm(left, right)
    return time.perf_counter() - start


def _cpu_flags() -> set[str]:
    """The CPU's instruction sets as Linux lists them; empty elsewhere, where "auto" then means fp32."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())
