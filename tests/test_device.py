from __future__ import annotations

from pathlib import Path

import pytest
import torch

from worldsim import device as device_module
from worldsim.device import autocast, choose_device, choose_precision, describe
from worldsim.errors import UserError

CPU = torch.device("cpu")


def test_auto_takes_cuda_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "meta"])
def test_unknown_devices_are_named(name: str) -> None:
    with pytest.raises(UserError, match=f"device '{name}'"):
        choose_device(name)


def test_missing_cuda_device_says_how_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1").index == 1
    with pytest.raises(UserError, match="sees 2 CUDA devices"):
        choose_device("cuda:2")


@pytest.mark.parametrize(
    ("flags", "speedup", "expected"),
    [
        ({"avx2"}, 2.0, torch.float32),
        ({"avx2", "avx512_bf16"}, 2.0, torch.bfloat16),
        ({"avx2", "avx512_bf16"}, 0.5, torch.float32),
        ({"amx_bf16"}, 6.0, torch.bfloat16),
    ],
)
def test_auto_precision_is_bf16_where_the_hardware_has_it_and_gains_by_it(
    flags: set[str], speedup: float, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "_cpu_flags", lambda: flags)
    monkeypatch.setattr(device_module, "_cpu_speedup_of_bf16", lambda: speedup)
    assert choose_precision("auto", CPU) == expected


def test_the_speedup_of_bf16_is_the_ratio_of_the_measured_times(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {torch.float32: 3.0, torch.bfloat16: 2.0}
    monkeypatch.setattr(device_module, "_seconds_of_product", lambda left, _: seconds[left.dtype])
    device_module._cpu_speedup_of_bf16.cache_clear()
    assert device_module._cpu_speedup_of_bf16() == 1.5
    device_module._cpu_speedup_of_bf16.cache_clear()


def test_named_precisions() -> None:
    assert choose_precision("bf16", CPU) == torch.bfloat16
    assert choose_precision("fp32", CPU) == torch.float32
    with pytest.raises(UserError, match="fp16"):
        choose_precision("fp16", CPU)


def test_autocast_changes_products_only_for_bf16() -> None:
    x = torch.ones(2, 2)
    with autocast(CPU, torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
    with autocast(CPU, torch.float32):
        assert (x @ x).dtype == torch.float32


def test_the_printed_line_names_device_and_precision() -> None:
    line = describe(CPU, torch.bfloat16)
    assert line.startswith("cpu (")
    assert "bf16" in line
    assert "\n" not in line


def test_cpu_flags_are_read_where_linux_lists_them() -> None:
    assert bool(device_module._cpu_flags()) == (
        Path("/proc/cpuinfo").exists() and "flags" in Path("/proc/cpuinfo").read_text()
    )
