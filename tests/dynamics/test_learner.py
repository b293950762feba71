"""Training of the dynamics: resumes bitwise, learns from latents on disk."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.episodes import played
from worldsim.data.episode import EnvSpec
from worldsim.data.latents import LatentCache, encode_store
from worldsim.data.store import EpisodeStore
from worldsim.dynamics.config import DynamicsConfig
from worldsim.dynamics.learner import DynamicsLearner
from worldsim.tokenizers.build import build_tokenizer
from worldsim.tokenizers.config import TokenizerConfig
from worldsim.tokenizers.pixel_range import to_model_range


@pytest.fixture
def data(tmp_path: Path) -> tuple[EpisodeStore, LatentCache]:
    """Frames are bright after action 1 and dark after action 0."""
    spec = EnvSpec("Light-v0", {}, (8, 8, 1), {"type": "discrete", "n": 2}, ["dark", "bright"], 10.0, None, False)
    store = EpisodeStore.create(tmp_path / "episodes", spec)
    random = np.random.default_rng(0)
    with store.writer("only") as writer:
        for number in range(12):
            length = int(random.integers(5, 30))
            actions = random.integers(0, 2, length)
            light = np.concatenate([[0], actions]).astype(np.uint8)
            frames = np.broadcast_to(40 + 170 * light[:, None, None, None], (length + 1, 8, 8, 1)).astype(np.uint8)
            writer.append(
                played(
                    np.ascontiguousarray(frames),
                    actions,
                    np.ones(length, np.float32),
                    seed=number,
                    split="held_out" if number < 3 else "train",
                )
            )
    store.refresh()
    tokenizer = build_tokenizer(TokenizerConfig(kind="pixels", patch=4), spec.frame_shape)
    return store, encode_store(store, tokenizer, "pixels", torch.device("cpu"), torch.float32, progress=False)


def learner(
    data: tuple[EpisodeStore, LatentCache], optimizer: str = "muon", steps: int = 8, kind: str = "dit"
) -> DynamicsLearner:
    config = DynamicsConfig(
        kind=kind,
        size="debug",
        window=4,
        clip_frames=8,
        belief_size=32 if kind == "mdn_rnn" else 8,
        steps=steps,
        warmup_steps=2,
        optimizer=optimizer,
        learning_rate=2e-2 if kind == "mdn_rnn" else 5e-3,
        self_context_fraction=0.25,
        ema_decay=0.9,
    )
    codes = to_model_range(torch.tensor([[40], [125], [210]], dtype=torch.uint8)).expand(3, 16)  # dark, grey, bright
    return DynamicsLearner(config, *data, (2, 2), seed=3, codes=codes)


@pytest.mark.parametrize(
    ("kind", "optimizer"), [("dit", "muon"), ("dit", "adamw"), ("mdn_rnn", "adamw"), ("video_gpt", "muon")]
)
def test_interrupted_equals_uninterrupted_bitwise(
    data: tuple[EpisodeStore, LatentCache], kind: str, optimizer: str
) -> None:
    torch.manual_seed(0)
    whole = learner(data, optimizer, kind=kind)
    for _ in range(4):
        whole.update()
    saved, randomness = whole.state_dict(), torch.get_rng_state()
    saved = torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, saved)
    expected = [whole.update()["loss"] for _ in range(4)]
    resumed = learner(data, optimizer, kind=kind)
    resumed.load_state_dict(saved)
    torch.set_rng_state(randomness)
    assert [resumed.update()["loss"] for _ in range(4)] == expected
    for one, other in zip(whole.average.parameters(), resumed.average.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("kind", "optimizer", "steps"), [("dit", "muon", 120), ("mdn_rnn", "adamw", 200), ("video_gpt", "muon", 60)]
)
def test_actions_come_to_matter(data: tuple[EpisodeStore, LatentCache], kind: str, optimizer: str, steps: int) -> None:
    trained = learner(data, optimizer, steps, kind=kind)
    before = trained.evaluate()
    for _ in range(steps):
        trained.update()
    after = trained.evaluate()
    assert before["action_shuffle_ratio"] == pytest.approx(1.0, abs=0.05)
    assert after["held_out_latent"] < 0.4 * before["held_out_latent"]
    assert after["action_shuffle_ratio"] > 2.0


def test_bits_are_counted_for_each_number_of_a_frame(data: tuple[EpisodeStore, LatentCache]) -> None:
    figures = learner(data, kind="video_gpt").evaluate()
    # Before training all codes are alike: 4 tokens of 3 codes stand for 8 x 8 pixels.
    assert figures["held_out_bits_per_dimension"] == pytest.approx(4 * math.log2(3) / 64, rel=1e-5)
    assert figures["held_out_code_bits"] == pytest.approx(4 * math.log2(3), rel=1e-5)
    assert "held_out_bits_per_dimension" not in learner(data).evaluate()
