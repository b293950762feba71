"""Trainings small enough for seconds, to be run by one process or by several: `python -m torch.distributed.run ...`.

Called as `shared_training.py DATA KIND OUT STEPS [OUT STEPS ...]`, it trains in each folder OUT up to STEPS: every case
in one named "whole", else those that are handed over.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.episodes import played
from worldsim import distributed
from worldsim.data.episode import EnvSpec
from worldsim.data.latents import LatentCache, encode_store
from worldsim.data.store import EpisodeStore
from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.learner import DynamicsLearner
from worldsim.tokenizers.build import build_tokenizer
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.learner import TokenizerLearner
from worldsim.training import fit

STEPS, HALF = 4, 2  # of a whole training, and of one that is handed over
DYNAMICS: dict[str, dict[str, Any]] = {
    "dit, muon": {"kind": "dit", "self_context_fraction": 0.25, "shortcut_fraction": 0.25, "sampling_steps": 2},
    "dit, adamw": {"kind": "dit", "optimizer": "adamw", "learning_rate": 1e-3},
    "mdn_rnn": {"kind": "mdn_rnn", "optimizer": "adamw", "learning_rate": 1e-3},
    "video_gpt": {"kind": "video_gpt", "optimizer": "adamw", "learning_rate": 1e-3},
}
TOKENIZERS = ("vit", "convolutional", "vq")
CASES = (*DYNAMICS, *TOKENIZERS)
HANDED_OVER = ("dit, muon", "vit")  # one with both optimizers, one with a device generator


def make_data(folder: Path) -> None:
    """Episodes of many lengths, some shorter than a clip: the processes' rows hold different numbers of frames."""
    spec = EnvSpec("Noise-v0", {}, (8, 8, 1), {"type": "discrete", "n": 2}, ["dark", "bright"], 10.0, None, False)
    store = EpisodeStore.create(folder, spec)
    random = np.random.default_rng(0)
    with store.writer("only") as writer:
        for number in range(16):
            length = int(random.integers(2, 12))
            actions = random.integers(0, 2, length)
            light = 60 + 120 * np.concatenate([[0], actions])[:, None, None, None]
            frames = light + random.integers(0, 40, (length + 1, 8, 8, 1))
            writer.append(
                played(
                    frames.astype(np.uint8),
                    actions,
                    actions.astype(np.float32),
                    seed=number,
                    split="held_out" if number < 3 else "train",
                )
            )
    store.refresh()
    tokenizer = build_tokenizer(TokenizerConfig(kind="pixels", patch=4), spec.frame_shape)
    encode_store(store, tokenizer, "pixels", torch.device("cpu"), torch.float32, progress=False)


def learner(case: str, data: Path) -> DynamicsLearner | TokenizerLearner:
    store = EpisodeStore.open(data)
    common = {"steps": STEPS, "warmup_steps": 2, "ema_decay": 0.9}
    if case in DYNAMICS:
        sizes = {"size": "debug", "window": 4, "clip_frames": 6, "belief_size": 8, "batch_clips": 8}
        config = DynamicsConfig(**sizes, **common, **DYNAMICS[case])  # type: ignore[arg-type]
        latents = LatentCache.open(store, "pixels")
        # Quantised by the dynamics: each patch counts as the nearest of these.
        codes = torch.linspace(-1, 1, 8)[:, None].expand(8, latents.latent_shape[1])
        return DynamicsLearner(config, store, latents, (2, 2), seed=3, codes=codes)
    sizes = {"patch": 4, "width": 16, "encoder_layers": 1, "decoder_layers": 2, "heads": 1, "batch_frames": 8}
    return TokenizerLearner(TokenizerConfig(kind=case, channels=4, codes=8, **sizes, **common), store, seed=3)  # type: ignore[arg-type]


def train(data: Path, out: Path, steps: int) -> None:
    for case in CASES if out.name == "whole" else HANDED_OVER:
        fit(learner(case, data), steps=steps, folder=out / case, name=case, log_every=1, progress=False, seed=3)


def train_with(processes: int, data: Path, kind: str, *jobs: object) -> None:
    """Run this file with that many processes; a job is a folder and a number of steps."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *launcher, __file__, data, kind, *jobs]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, timeout=280, env=environment
    )
    assert result.returncode == 0, result.stderr


if __name__ == "__main__":
    torch.set_num_threads(1)
    data, kind, *jobs = sys.argv[1:]
    with distributed.joined(kind):
        for out, steps in zip(jobs[::2], jobs[1::2], strict=True):
            train(Path(data), Path(out), int(steps))
