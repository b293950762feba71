"""Threads of torch that wait for each other let go of their core soon."""

from __future__ import annotations

import os

SPINS = "GOMP_SPINCOUNT"
_BRIEF = "1000"  # turns; left alone GNU's OpenMP takes up to 300,000


def wait_briefly() -> None:
    """Have OpenMP's threads spin for a moment before they sleep; what the user has set stands.

    Only before torch is imported: GNU's OpenMP reads its settings once. Threads that spin keep the core from whoever
    they wait for: beside one other busy process a training of two threads comes to a standstill. Brief spins cost a
    seventh of a dream's speed where nothing else runs (benchmarks/LOG.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(SPINS, _BRIEF)
