from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.data.counting import CountingEnv, contents, fill, read_picture, spec
from worldsim.data.collection import Collector, collect, episode_seed, is_held_out, unfinished
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError
from worldsim.rollouts import Action
from worldsim.scripted_policies import StickyRandom

random_policy = partial(StickyRandom, gym.spaces.Discrete(5))


class BlockRandom:
    """Random actions that depend on who plays beside whom, as the last bit of a batched network does."""

    name = "block-random"

    def reset(self, seeds: Sequence[int]) -> None:
        self._random = np.random.default_rng(list(seeds))

    def __call__(self, frames: NDArray[np.uint8], rows: NDArray[np.int64]) -> list[Action]:
        return [int(action) for action in self._random.integers(5, size=len(rows))]


class FailingEnv(CountingEnv):
    """Fails in the middle of the first episode that begins when the file `trap` holds that many lines or more."""

    def __init__(self, trap: Path, episodes: int) -> None:
        super().__init__()
        self._trap = trap
        self._episodes = episodes

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        with open(self._trap, "a") as file:
            file.write("begun\n")
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        if self.count == 2 and self._trap.read_text().count("\n") >= self._episodes:
            raise RuntimeError("the engine stopped")
        return super().step(action)


def run(folder: Path, make_env: Callable[[], Any] = CountingEnv, **changes: Any) -> EpisodeStore:
    arguments: dict[str, Any] = {
        "budget_tics": 401,
        "workers": 1,
        "seed": 3,
        "round": 0,
        "held_out_fraction": 0.25,
        "policy_name": "sticky",
        "progress": False,
    }
    policy: Any = BlockRandom if changes.get("side_by_side") else random_policy
    return collect(folder, spec(), make_env, policy, **{**arguments, **changes})


def test_a_round_uses_its_budget_and_no_more(tmp_path: Path) -> None:
    store = run(tmp_path / "store")
    assert store.total_tics() in (400, 401)  # a step of 2 tics no longer fits in 1
    last = store[len(store) - 1]
    assert last.truncated[-1]
    assert not last.terminated[-1]
    for one in store:
        ends = one.terminated | one.truncated
        assert ends[-1]
        assert not ends[:-1].any()
        assert one.tics in (2 * len(one), 2 * len(one) - 1)
        assert (one.policy, one.round) == ("sticky", 0)
    assert len({one.seed for one in store}) == len(store)


def test_each_step_stands_between_its_frames(tmp_path: Path) -> None:
    for number, one in enumerate(run(tmp_path / "store")):
        numbers, steps = read_picture(one.frames)
        assert one.seed == episode_seed(3, 0, number)
        assert (numbers == one.seed % 2**24).all()
        assert steps.tolist() == list(range(len(one) + 1))
        np.testing.assert_array_equal(one.rewards, one.actions)  # the environment rewards the action itself
        assert one.split == ("held_out" if is_held_out(number, 0.25) else "train")


def test_two_workers_play_the_same_episodes_as_one(tmp_path: Path) -> None:
    one = {entry.seed: entry for entry in run(tmp_path / "one", budget_tics=800).entries}
    two = run(tmp_path / "two", budget_tics=801, workers=2)
    assert list(two.shards) == ["round00-worker00", "round00-worker01"]
    assert 797 <= two.total_tics() <= 801
    for worker, name in enumerate(two.shards):
        seeds = [entry.seed for i, entry in enumerate(two.entries) if two.shard_name(i) == name]
        assert seeds == [episode_seed(3, 0, worker + 2 * k) for k in range(len(seeds))]
    whole = [entry for i, entry in enumerate(two.entries) if not two[i].truncated[-1] and entry.seed in one]
    assert len(whole) > 5
    for entry in whole:
        assert entry.frames_crc32 == one[entry.seed].frames_crc32
        assert entry.steps_crc32 == one[entry.seed].steps_crc32
        assert entry.split == one[entry.seed].split


@pytest.mark.parametrize(("workers", "side_by_side"), [(1, 0), (2, 0), (1, 3), (2, 3)])
def test_an_interrupted_round_ends_as_one_that_was_not(tmp_path: Path, workers: int, side_by_side: int) -> None:
    settings: dict[str, Any] = {"workers": workers, "side_by_side": side_by_side}
    run(tmp_path / "whole", **settings)
    trap = tmp_path / "trap"
    with pytest.raises(UserError, match="the engine stopped"):
        run(tmp_path / "resumed", partial(FailingEnv, trap, 6), **settings)
    stored = len(EpisodeStore.open(tmp_path / "resumed"))
    assert 1 <= stored < len(EpisodeStore.open(tmp_path / "whole"))
    resumed = run(tmp_path / "resumed", **settings)
    resumed.verify()
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


def test_an_interrupted_block_is_played_again_as_a_whole(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", side_by_side=4)
    assert len(whole) > 8
    for stored in range(1, 9):  # the process was killed between two episodes of a block
        folder = tmp_path / str(stored)
        fill(EpisodeStore.create(folder, spec()), "round00-worker00", *(whole[number] for number in range(stored)))
        (folder / "round00.json").write_bytes((tmp_path / "whole" / "round00.json").read_bytes())
        run(folder, side_by_side=4)
        assert contents(folder) == contents(tmp_path / "whole"), stored


def test_the_last_block_leaves_room_for_whole_episodes(tmp_path: Path) -> None:
    store = run(tmp_path / "store", side_by_side=16, budget_tics=1001)
    assert 960 <= store.total_tics() <= 1001
    assert (store.lengths[-16:] < 3).sum() <= 3


def test_a_finished_round_is_not_played_again(tmp_path: Path) -> None:
    def never() -> CountingEnv:
        raise AssertionError("no environment is needed")

    run(tmp_path / "store")
    before = contents(tmp_path / "store")
    run(tmp_path / "store", never)
    assert contents(tmp_path / "store") == before


def test_rounds_and_larger_budgets_add_episodes(tmp_path: Path) -> None:
    first = [entry.seed for entry in run(tmp_path / "store").entries]
    second = run(tmp_path / "store", round=1, policy_name="learned")
    assert [entry.round for entry in second.entries] == [0] * len(first) + [1] * (len(second) - len(first))
    assert {entry.policy for entry in second.entries if entry.round == 1} == {"learned"}
    assert not set(first) & {entry.seed for entry in second.entries if entry.round == 1}
    larger = run(tmp_path / "store", budget_tics=600)
    assert [entry.seed for entry in larger.entries if entry.round == 0][: len(first)] == first
    assert sum(entry.tics for entry in larger.entries if entry.round == 0) in (599, 600)


def test_a_budget_never_breaks_when_steps_are_larger(tmp_path: Path) -> None:
    for budget in range(20, 60):
        used = run(tmp_path / str(budget), budget_tics=budget).total_tics()
        assert budget - 1 <= used <= budget


def test_steps_of_single_episodes_can_be_limited(tmp_path: Path) -> None:
    store = run(tmp_path / "store", max_steps=4)
    assert store.lengths.max() == 4
    assert all(one.truncated[-1] for one in store if len(one) == 4 and not one.terminated[-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "seed was 3, now 4"),
        ({"workers": 2}, "workers was 1, now 2"),
        ({"held_out_fraction": 0.1}, "held_out_fraction was 0.25"),
        ({"policy_name": "other"}, "policy was sticky, now other"),
        ({"max_steps": 7}, "max_steps was None, now 7"),
    ],
)
def test_a_round_cannot_go_on_with_other_values(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run(tmp_path / "store")
    before = contents(tmp_path / "store")
    with pytest.raises(UserError, match=message):
        run(tmp_path / "store", **change)
    assert contents(tmp_path / "store") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 0}, "0 workers"),
        ({"budget_tics": 1, "workers": 2}, "1 tics for 2 workers"),
        ({"held_out_fraction": 0.9}, "held_out_fraction: 0.9"),
    ],
)
def test_unusable_values(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path / "store", **change)
    assert not (tmp_path / "store").exists()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_writer_of_the_round_is_noticed(tmp_path: Path) -> None:
    store = run(tmp_path / "store")
    with store.writer("round00-worker00"), pytest.raises(UserError, match="written by another process"):
        run(tmp_path / "store", budget_tics=800)
    fill(store, "imported")
    assert len(run(tmp_path / "store")) == len(store)


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.1, 0.3, 0.5])
def test_the_held_out_fraction_is_exact(fraction: float) -> None:
    held_out = [number for number in range(1000) if is_held_out(number, fraction)]
    assert len(held_out) == round(1000 * fraction)
    if fraction:
        assert held_out[0] == 1, "two episodes suffice to have both splits"


def test_seeds_differ_and_never_change() -> None:
    seeds = {episode_seed(s, r, n) for s in range(5) for r in range(5) for n in range(40)}
    assert len(seeds) == 1000
    assert max(seeds) < 2**31
    assert episode_seed(3, 0, 0) == 788445325


def as_collector(folder: Path, number: int) -> None:
    """What each of the two processes below runs."""
    run(folder, workers=3, collector=Collector(number, 2))


def test_collectors_that_begin_together_play_the_episodes_of_one_program(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "store"
    programs = [f"from tests.data.test_collection import *; as_collector(Path({str(folder)!r}), {k})" for k in (1, 2)]
    processes = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    assert [process.wait(120) for process in processes] == [0, 0]
    run(tmp_path / "one", workers=3)
    expected, found = contents(tmp_path / "one"), contents(folder)
    del found["round00-collectors.json"]
    assert found == expected
    assert len(run(folder, workers=3)) == len(EpisodeStore.open(tmp_path / "one"))


def test_a_round_waits_for_its_collectors(tmp_path: Path) -> None:
    run(tmp_path / "store", workers=4, collector=Collector(2, 3))
    before = contents(tmp_path / "store")
    with pytest.raises(UserError, match=r"lacks the shares of the collectors 1/3, 3/3: .* --collector 1/3"):
        run(tmp_path / "store", workers=4)
    assert contents(tmp_path / "store") == before
    trap = tmp_path / "trap"
    with pytest.raises(UserError, match="the engine stopped"):
        run(tmp_path / "store", partial(FailingEnv, trap, 4), workers=4, collector=Collector(1, 3))
    store = run(tmp_path / "store", workers=4, collector=Collector(1, 3))
    assert unfinished(store, 0, 401) == [Collector(3, 3)]
    store = run(tmp_path / "store", workers=4, collector=Collector(3, 3))
    assert unfinished(store, 0, 401) == []
    assert unfinished(store, 0, 4010) == [Collector(number, 3) for number in (1, 2, 3)]
    run(tmp_path / "whole", workers=4)
    assert {**contents(tmp_path / "store"), **contents(tmp_path / "whole")} == contents(tmp_path / "store")


@pytest.mark.parametrize(("number", "total"), [(0, 2), (3, 2), (1, 5)])
def test_collectors_must_have_workers(tmp_path: Path, number: int, total: int) -> None:
    with pytest.raises(UserError, match=f"collector {number}/{total} of a round with 4 workers"):
        run(tmp_path / "store", workers=4, collector=Collector(number, total))
    assert list(tmp_path.iterdir()) == []


def test_collectors_agree_on_their_number(tmp_path: Path) -> None:
    run(tmp_path / "store", workers=4, collector=Collector(1, 4))
    with pytest.raises(UserError, match="has 4 collectors"):
        run(tmp_path / "store", workers=4, collector=Collector(1, 2))


class HangingEnv(CountingEnv):
    """Hangs in its first step, so that its worker has nothing to send, and says in which process it lives."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        (folder / f"pid-{os.getpid()}").touch()

    def step(self, action: Any) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        time.sleep(600)
        return super().step(action)


def hanging_collection(folder: Path) -> None:
    """What the process below runs."""
    run(folder / "store", partial(HangingEnv, folder), workers=2, budget_tics=10**6)


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_a_collection(tmp_path: Path, kind: signal.Signals) -> None:
    program = f"from tests.data.test_collection import *; hanging_collection(Path({str(tmp_path)!r}))"
    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)

    def wait_for(condition: Callable[[], bool]) -> bool:
        limit = time.monotonic() + 120
        while not (met := condition()) and time.monotonic() < limit:
            time.sleep(0.05)
        return met

    try:
        assert wait_for(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
        workers = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
        assert parent.pid not in workers
        assert all(_alive(pid) for pid in workers)
        parent.send_signal(kind)
        assert parent.wait(120) != 0
        assert wait_for(lambda: not any(_alive(pid) for pid in workers))
    finally:
        parent.kill()
