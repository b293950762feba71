"""What a run computes on."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from worldsim import distributed
from worldsim.device import choose_device, choose_precision
from worldsim.memory import keep_freed_memory
from worldsim.workflow.config import RunConfig


@dataclass(frozen=True)
class Machine:
    """Where and how precisely networks run."""

    device: torch.device
    dtype: torch.dtype


def choose_machine(config: RunConfig) -> Machine:
    """Device and precision as configured, and torch's threads set; processes on one machine share its cores."""
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // distributed.local_size()))
    keep_freed_memory()
    device = distributed.local_device(choose_device(config.device))
    return Machine(device, choose_precision(config.precision, device))
