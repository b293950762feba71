"""Saved policies come back equal; whatever else lies in the folder is named."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from worldsim.agents.errors import AgentConfigError, PolicyFileError
from worldsim.agents.networks import NetworkSpec, PolicyNetwork
from worldsim.agents.policies import NetworkPolicy
from worldsim.agents.policy_io import load_policy, load_value, read_policy_config, save_policy
from worldsim.agents.values import ValueNetwork

SPEC = NetworkSpec((5,), False, {"type": "box", "shape": [2], "low": [-1, 0], "high": [1, 4]}, (8, 8))
OBSERVATIONS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)


@pytest.fixture
def policy() -> PolicyNetwork:
    network = PolicyNetwork(SPEC, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.head.weight, generator=torch.Generator().manual_seed(1))
    network.inputs.observe(torch.randn(30, 5, generator=torch.Generator().manual_seed(2)) * 4)
    return network


def test_round_trip(policy: PolicyNetwork, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "a" / "b", notes={"trained in": "a dream"})
    restored = load_policy(tmp_path / "a" / "b")
    assert restored.spec == SPEC
    assert not restored.training
    assert read_policy_config(tmp_path / "a" / "b")["notes"] == {"trained in": "a dream"}
    for greedy in (True, False):
        before, after = (p.act(OBSERVATIONS, torch.Generator().manual_seed(5), greedy) for p in (policy, restored))
        np.testing.assert_array_equal(before, after)
    save_policy(PolicyNetwork(SPEC), tmp_path / "a" / "b")  # a newer policy takes the place
    assert (load_policy(tmp_path / "a" / "b").act(OBSERVATIONS, greedy=True) == [0, 2]).all()


def test_what_is_known_of_the_observations_is_kept(tmp_path: Path) -> None:
    layout = {"frames": 1, "tokens": 2, "channels": 3, "belief": 4, "action": 2}
    told = NetworkSpec((18,), False, {"type": "discrete", "n": 2, "start": 0}, (8,), layout=layout)
    network = PolicyNetwork(told, torch.Generator().manual_seed(0))
    network.persist(0.8)
    save_policy(network, tmp_path)
    restored = load_policy(tmp_path)
    observations = torch.randn(5, 18, generator=torch.Generator().manual_seed(1))
    assert restored.spec == told
    torch.testing.assert_close(restored(observations).log_probs, network(observations).log_probs, rtol=0, atol=0)


def test_policies_of_before_there_were_group_norms_have_none(tmp_path: Path) -> None:
    older = NetworkSpec((16, 16, 3), True, {"type": "discrete", "n": 2, "start": 0}, (8,), group_norm=False)
    network = PolicyNetwork(older, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.head.weight, generator=torch.Generator().manual_seed(1))
    save_policy(network, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["spec"]["group_norm"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    restored = load_policy(tmp_path)
    assert restored.spec == older
    pictures = torch.randint(256, (4, 16, 16, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    torch.testing.assert_close(restored(pictures).log_probs, network(pictures).log_probs, rtol=0, atol=0)


def test_the_value_lies_beside_its_policy(policy: PolicyNetwork, tmp_path: Path) -> None:
    value = ValueNetwork(SPEC, torch.Generator().manual_seed(3))
    torch.nn.init.normal_(value.head.weight, generator=torch.Generator().manual_seed(4))
    value.observe(torch.tensor([10.0, 30.0]))
    save_policy(policy, tmp_path, value=value)
    restored = load_value(tmp_path)
    assert restored is not None
    inputs = policy.inputs(torch.from_numpy(OBSERVATIONS))
    torch.testing.assert_close(restored(inputs), value(inputs), rtol=0, atol=0)
    weights = tmp_path / "value.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(PolicyFileError, match=r"value\.safetensors.*truncated, damaged or replaced"):
        load_value(tmp_path)
    save_policy(policy, tmp_path)  # without one, the old one does not stay
    assert load_value(tmp_path) is None
    assert not weights.exists()


def test_missing_files(policy: PolicyNetwork, tmp_path: Path) -> None:
    with pytest.raises(PolicyFileError, match=r"config\.json is missing"):
        load_policy(tmp_path)
    save_policy(policy, tmp_path)
    (tmp_path / "policy.safetensors").unlink()
    with pytest.raises(PolicyFileError, match=r"policy\.safetensors is missing"):
        load_policy(tmp_path)


def test_truncated_files(policy: PolicyNetwork, tmp_path: Path) -> None:
    save_policy(policy, tmp_path)
    weights, config = tmp_path / "policy.safetensors", tmp_path / "config.json"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(PolicyFileError, match="truncated, damaged or replaced"):
        load_policy(tmp_path)
    config.write_text(config.read_text()[:40])
    with pytest.raises(PolicyFileError, match="not JSON"):
        load_policy(tmp_path)


def test_foreign_files(policy: PolicyNetwork, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "bert"}')
    with pytest.raises(PolicyFileError, match="does not describe a policy"):
        load_policy(tmp_path)
    with pytest.raises(PolicyFileError, match="does not describe a policy"):
        save_policy(policy, tmp_path)
    assert config.read_text() == '{"model_type": "bert"}'
    config.unlink()
    save_policy(policy, tmp_path)
    content = json.loads(config.read_text())
    content["spec"]["hidden"] = [8, 9]
    config.write_text(json.dumps(content))
    with pytest.raises(PolicyFileError, match="does not fit its config"):
        load_policy(tmp_path)
    config.write_text(json.dumps(content | {"version": 99}))
    with pytest.raises(PolicyFileError, match="version 99"):
        load_policy(tmp_path)


def test_network_policy_continues_after_pickling(policy: PolicyNetwork) -> None:
    player = NetworkPolicy(policy, temperature=1.3, epsilon=0.3, seed=4)
    started = [player.act(row) for row in OBSERVATIONS]
    copy = pickle.loads(pickle.dumps(player))
    for row in OBSERVATIONS:
        np.testing.assert_array_equal(player.act(row), copy(row))
    player.reset(4)
    np.testing.assert_array_equal([player.act(row) for row in OBSERVATIONS], started)
    player.reset(5)
    assert any((player.act(row) != action).any() for row, action in zip(OBSERVATIONS, started, strict=True))


def test_network_policy_options() -> None:
    network = PolicyNetwork(NetworkSpec((5,), False, {"type": "discrete", "n": 4, "start": 0}, (8,)))
    with torch.no_grad():
        network.head.bias[2] = 2.0  # P(2) = e^2 / (e^2 + 3) = 0.711
    row = OBSERVATIONS[0]

    def share_of_two(player: NetworkPolicy) -> float:
        actions = [player.act(row) for _ in range(800)]
        assert all(type(action) is int for action in actions)
        return actions.count(2) / len(actions)

    assert share_of_two(NetworkPolicy(network, greedy=True)) == 1.0
    assert share_of_two(NetworkPolicy(network)) == pytest.approx(0.711, abs=0.05)
    assert share_of_two(NetworkPolicy(network, temperature=0.5)) == pytest.approx(0.948, abs=0.03)
    assert share_of_two(NetworkPolicy(network, greedy=True, epsilon=0.4)) == pytest.approx(0.7, abs=0.05)
    with pytest.raises(AgentConfigError, match="temperature must be above 0"):
        NetworkPolicy(network, temperature=0.0)
    with pytest.raises(AgentConfigError, match="epsilon must be in"):
        NetworkPolicy(network, epsilon=1.5)
