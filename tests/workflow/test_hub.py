"""Models travel to and from a folder and a hub that is none."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.workflow.fake_hub import FakeHub, running_hub
from tests.worlds import tiny_plan_reader, tiny_reader, tiny_world
from worldsim.agents.errors import PolicyFileError
from worldsim.agents.networks import PolicyNetwork, network_spec
from worldsim.agents.policy_io import save_policy
from worldsim.agents.values import ValueNetwork
from worldsim.dream import DreamVectorEnv
from worldsim.errors import UserError
from worldsim.model_folder import load_model, save_model
from worldsim.workflow.hub import MODEL_FILES, pull, push


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tiny_world()
    model.endings, model.plans = tiny_reader(model), tiny_plan_reader(model)
    save_model(model, tmp_path / "model")
    spec = network_spec(DreamVectorEnv(model, 1, observation="features"), [8])
    save_policy(PolicyNetwork(spec), tmp_path / "model" / "policy", value=ValueNetwork(spec))
    (tmp_path / "model" / "setup.py").write_text("raise SystemExit('nothing of this may travel')")
    return tmp_path / "model"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    pytest.importorskip("huggingface_hub", reason="the hub's client is not installed: pip install -e .[hub]")
    for name, value in {"HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": "hf_right", "HF_HUB_DISABLE_XET": "1"}.items():
        monkeypatch.setenv(name, value)
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub
        assert hub.unknown == []


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_through_a_folder_and_back(folder: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared" / "columns"
    assert push(str(folder), str(shared), private=False) == str(shared)
    assert pull(str(shared), tmp_path / "mine") == tmp_path / "mine"
    assert set(files(tmp_path / "mine")) == set(MODEL_FILES)
    assert files(tmp_path / "mine") == files(shared)
    assert torch.equal(load_model(tmp_path / "mine").start_contexts.latents, tiny_world().start_contexts.latents)
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["columns"]


def test_through_the_hub_and_back(folder: Path, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert push(str(folder), "someone/columns", private=True) == f"{hub.url}/someone/columns"
    sent = hub.repositories["someone/columns"]
    assert set(sent) == set(MODEL_FILES)
    assert hub.private == {"someone/columns": True}
    assert hub.tokens == {"Bearer hf_right"}
    assert sent["README.md"].startswith(b"---\nlicense: mit\n")
    assert sent["README.md"].endswith((folder / "README.md").read_bytes())
    sent["loader.py"] = b"raise SystemExit('nothing of this may travel')"
    got = pull("someone/columns", None)
    assert got == Path("models/columns")
    del sent["loader.py"]
    assert files(got) == sent
    push(str(got), "someone/columns", private=False)  # again, over the older one, with one header
    assert hub.repositories["someone/columns"]["README.md"].count(b"license: mit") == 1
    hub.repositories["someone/columns"]["paper.pdf"] = b"somebody's own"
    shutil.rmtree(got / "policy")
    push(str(got), "someone/columns", private=False)  # an older model's policy does not stay beside a new one
    assert set(hub.repositories["someone/columns"]) == {*files(got), "paper.pdf"}


@pytest.mark.parametrize("name", ["dynamics.safetensors", "policy/policy.safetensors", "config.json"])
def test_what_is_damaged_does_not_take_its_place(folder: Path, hub: FakeHub, tmp_path: Path, name: str) -> None:
    push(str(folder), "someone/columns", private=False)
    hub.repositories["someone/columns"][name] = hub.repositories["someone/columns"][name][:-9]
    with pytest.raises((UserError, PolicyFileError), match=name.rpartition("/")[2].partition(".")[0]):
        pull("someone/columns", tmp_path / "new" / "columns")
    assert list((tmp_path / "new").iterdir()) == []


def test_what_is_not_there(folder: Path, hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="cannot pull no/body"):
        pull("no/body", tmp_path / "out")
    hub.repositories["some/text"] = {"README.md": b"a novel"}
    with pytest.raises(UserError, match="holds no world model"):
        pull("some/text", tmp_path / "out")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match=r"cannot push to some/text.*hf auth login"):
        push(str(folder), "some/text", private=False)
    assert not (tmp_path / "out").exists()


def test_nobody_answers(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot pull some/one: .*network"):
        pull("some/one", tmp_path / "out")


def test_wrong_names_and_places(folder: Path, tmp_path: Path) -> None:
    for name in ("pong", "a/b/c", "some one/pong", ""):
        with pytest.raises(UserError, match="OWNER/NAME"):
            pull(name, tmp_path / "out")
        with pytest.raises(UserError, match="OWNER/NAME"):
            push(str(folder), name, private=False)
    with pytest.raises(UserError, match="no world model"):
        pull(str(tmp_path / "nothing"), tmp_path / "out")
    with pytest.raises(UserError, match="there already"):
        pull(str(folder), tmp_path)
    (folder / "tokenizer.safetensors").unlink()
    with pytest.raises(UserError, match="tokenizer"):
        push(str(folder), str(tmp_path / "out"), private=False)
    assert not (tmp_path / "out").exists()


def test_without_the_client_it_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"worldsim-rl\[hub\]"):
        pull("some/one", tmp_path / "out")
    with pytest.raises(UserError, match=r"worldsim-rl\[hub\]"):
        push(str(folder), "some/one", private=False)
