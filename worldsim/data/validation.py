"""What ruins a world model silently: it trains, the losses fall, and the dream ignores the actions.

Everything here is judged from recorded frames, actions and rewards alone. A *problem* is to be mended before training;
a *remark* is to be known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from worldsim.data.actions import action_features
from worldsim.data.alignment import LAGS, LEAST_STEPS, Alignment, align_actions, align_rewards
from worldsim.data.motion import motion_features, shrunken
from worldsim.data.store import EpisodeStore
from worldsim.errors import UserError

MOST_STEPS = 12_000  # of each policy's episodes that are looked at
PERIODS = range(2, 13)
LEAP = 1.15  # times the change before and after: a step that makes up for a lost frame
THUMBNAIL = 16  # side in pixels of the frames that are compared across episodes


@dataclass(frozen=True)
class Finding:
    """One thing found. `about`: a word or two; `text`: what, where, and the remedy."""

    problem: bool
    about: str
    text: str


@dataclass(frozen=True)
class Evidence:
    """One episode as it is looked at."""

    motion: NDArray[np.float32]  # (T, F)
    features: NDArray[np.float32]  # (T, A), of actions
    actions: NDArray[np.float64]  # (T, A) as stored, (T, 1) if discrete
    rewards: NDArray[np.float32]  # (T,)
    change: NDArray[np.float32]  # (T,) mean absolute change to the next frame, in grey levels
    thumbnails: NDArray[np.float32]  # (T+1, h, w)
    terminated: bool


def validate(store: EpisodeStore, progress: bool = True) -> list[Finding]:
    """All findings, problems first. Raises UserError for a store without episodes and for damaged ones."""
    if not len(store):
        raise UserError(f"{store.folder} holds 0 episodes: nothing to validate; collect or import some first")
    findings, skips = [*_endings(store), *_splits(store)], list(_tics(store))
    groups: dict[str, list[Evidence]] = {}
    chosen = _chosen(store)
    total = int(sum(store.lengths[episodes].sum() for episodes in chosen.values()))
    with tqdm(total=total, desc="look at episodes", unit="step", unit_scale=True, disable=not progress) as bar:
        for policy, episodes in chosen.items():
            groups[policy] = []
            for i in episodes:
                groups[policy].append(_look(store, i))
                bar.update(int(store.lengths[i]))
    everything = [evidence for group in groups.values() for evidence in group]
    findings += [*_constant_actions(store, everything), *_rewards(everything)]
    findings += (broken := [*skips, *_duplicates(everything), *_joined(everything)])
    if any(finding.problem for finding in broken):
        text = "not judged: it is what changes from frame to frame that tells; mend the frames and validate again"
        return _sorted([*findings, Finding(False, "alignment", text)])
    for policy, group in groups.items():
        of = f" ({policy})" if len(groups) > 1 else ""
        held = list(_held_actions(group, of))  # they have no lag of their own until that is mended
        findings += [*(held or _action_lag(group, of)), *_reward_lag(group, of)]
    return _sorted(findings)


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: not finding.problem)


def _chosen(store: EpisodeStore) -> dict[str, list[int]]:
    """Episodes of each policy, drawn until they have MOST_STEPS; a copy in a mirror shows nothing new."""
    chosen: dict[str, list[int]] = defaultdict(list)
    steps: dict[str, int] = defaultdict(int)
    for i in np.random.default_rng(0).permutation(store.played()).tolist():
        policy = store.entries[i].policy
        if steps[policy] < MOST_STEPS:
            chosen[policy].append(i)
            steps[policy] += int(store.lengths[i])
    return dict(sorted(chosen.items()))


def _look(store: EpisodeStore, i: int) -> Evidence:
    episode = store[i]
    steps = len(episode)
    # A blank last frame is no picture: the step before it is repeated in its place.
    blank = store.spec.blank_terminal_frame and bool(episode.terminated[-1]) and steps > 1
    frames = np.concatenate([episode.frames[:-1], episode.frames[-2:-1]]) if blank else episode.frames
    change = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3), dtype=np.float32)
    grey = episode.frames.mean(axis=-1, dtype=np.float32)
    if blank:
        change[-1] = np.median(change[:-1])
    return Evidence(
        motion=motion_features(frames),
        features=action_features(store.spec, torch.from_numpy(np.array(episode.actions))).numpy(),
        actions=np.array(episode.actions, np.float64).reshape(steps, -1),
        rewards=episode.rewards,
        change=change,
        thumbnails=shrunken(grey, min(THUMBNAIL, grey.shape[1]), min(THUMBNAIL, grey.shape[2])),
        terminated=bool(episode.terminated[-1]),
    )


# --- what the index and the steps tell -------------------------------------------------------------------------------


def _endings(store: EpisodeStore) -> Iterator[Finding]:
    last = [store.steps(i)[-1] for i in range(len(store))]
    open_ends = [i for i, step in enumerate(last) if not step["terminated"] and not step["truncated"]]
    if open_ends:
        yield Finding(
            True,
            "endings",
            f"{len(open_ends)} of {len(store)} episodes neither terminate nor are truncated (the first is episode "
            f"{open_ends[0]}): the end was not recorded; mark their last steps and import them again",
        )
    if not any(step["terminated"] for step in last):
        yield Finding(False, "endings", "no episode terminates: dreams will not end on their own")


def _tics(store: EpisodeStore) -> Iterator[Finding]:
    """Steps of the env in a step of the agent, which the store counts, against the frame skip that it states."""
    played = store.played()
    lengths, tics = store.lengths[played], np.array([store.entries[i].tics for i in played])
    stated = store.spec.settings.get("frame_skip")
    skip = int(stated) if stated else int(np.median(np.ceil(tics / lengths)))
    wrong = np.flatnonzero((tics > skip * lengths) | (tics <= skip * (lengths - 1)))
    if len(wrong):
        i = int(wrong[0])
        yield Finding(
            True,
            "frame skip",
            f"{len(wrong)} of {len(played)} episodes do not take {skip} tics a step (episode {played[i]}: {tics[i]} "
            f"tics in {lengths[i]} steps): a step means different times; keep each frame skip in a store of its own",
        )


def _splits(store: EpisodeStore) -> Iterator[Finding]:
    for split in ("train", "held_out"):
        if not len(store.indices(split)):
            yield Finding(False, "splits", f"no {split} episodes: training wants some; import with another --held-out")


def _constant_actions(store: EpisodeStore, episodes: Sequence[Evidence]) -> Iterator[Finding]:
    actions = np.concatenate([evidence.actions for evidence in episodes])
    constant = np.flatnonzero(np.ptp(actions, axis=0) == 0)
    if len(constant) == actions.shape[1]:
        text = f"every action is {actions[0].tolist()}: a dream cannot learn what actions do; record others too"
        yield Finding(True, "actions", text)
        return
    for index in constant.tolist():
        name = store.spec.action_meanings[index] if index < len(store.spec.action_meanings) else f"number {index}"
        yield Finding(True, "actions", f"{name} is always {actions[0, index]:g}: record it moving, or leave it out")
    if store.spec.action_space["type"] == "discrete":
        seen = set(actions[:, 0].astype(int).tolist())
        never = [index for index in range(int(store.spec.action_space["n"])) if index not in seen]
        if never:
            yield Finding(False, "actions", f"never taken: {_list([str(index) for index in never])}")
    same = sum(bool((np.ptp(evidence.actions, axis=0) == 0).all()) for evidence in episodes)
    if same > len(episodes) / 2:
        text = f"{same} of {len(episodes)} episodes hold one action to their end: record some in which it changes"
        yield Finding(same > 0.9 * len(episodes), "actions", text)


def _held_actions(episodes: Sequence[Evidence], of: str) -> Iterator[Finding]:
    """Actions that only ever change at every p-th step were chosen once for p recorded frames."""
    times = [np.flatnonzero((np.diff(evidence.actions, axis=0) != 0).any(axis=1)) + 1 for evidence in episodes]
    changed = np.concatenate(times)
    periods = [p for p in range(2, 65) if len(changed) >= 50 and (changed % p == 0).mean() >= 0.99]
    if periods and max(periods) in PERIODS:
        period = max(periods)
        yield Finding(
            True,
            "frame skip",
            f"actions{of} change only at every {period}th step: an agent chose once for {period} recorded frames; keep "
            f"each {period}th frame and action, and sum the rewards between",
        )


def _rewards(episodes: Sequence[Evidence]) -> Iterator[Finding]:
    rewards = np.concatenate([evidence.rewards for evidence in episodes])
    if np.ptp(rewards) == 0:
        ends = any(evidence.terminated for evidence in episodes) and rewards[0] != 0
        aim = f"only to {'make episodes last' if rewards[0] > 0 else 'end them soon'}" if ends else "nothing"
        yield Finding(False, "rewards", f"every reward is {rewards[0]:g}: an agent can learn {aim}")


# --- what the frames tell --------------------------------------------------------------------------------------------


def _duplicates(episodes: Sequence[Evidence]) -> Iterator[Finding]:
    """Frames that a recorder repeated: at a fixed rhythm, or so that the next frame makes up for it."""
    moving = np.concatenate([evidence.change[evidence.change > 0] for evidence in episodes])
    if not len(moving):
        yield Finding(True, "frames", "all frames of an episode are the same: nothing was recorded")
        return
    threshold = 0.02 * float(np.median(moving))  # a lossy video changes a little where nothing moves
    still = [evidence.change <= threshold for evidence in episodes]
    share = float(np.concatenate(still).mean())
    for period in PERIODS if sum(map(len, still)) >= LEAST_STEPS else ():
        rates = [np.concatenate([one[phase::period] for one in still]).mean() for phase in range(period)]
        if max(rates) > 0.9 and min(rates) < 0.1:
            yield Finding(
                True,
                "duplicated frames",
                f"{share:.0%} of the frames repeat the one before, in a rhythm of {period}: frames were recorded more "
                "often than the game drew them; keep each picture once, with the action that led to it",
            )
            return
    often, usual, score = _made_up(episodes, still)
    if often > max(0.4, 2 * usual) and score > 4:
        yield Finding(
            True,
            "duplicated frames",
            f"{share:.1%} of the frames repeat the one before, and after {often:.0%} of them the picture leaps (else "
            f"{usual:.0%}): the recorder fell behind; drop these frames with their actions, or record again",
        )
    elif share > 0.05:
        text = f"{share:.0%} of the steps leave the frame as it was: fine where actions may do nothing"
        yield Finding(False, "duplicated frames", text)


def _made_up(episodes: Sequence[Evidence], still: Sequence[NDArray[np.bool_]]) -> tuple[float, float, float]:
    """How often more changes in a step than in those around it: after a still step, after others; and the difference
    in standard errors.

    Something that stood still and starts again changes little at first. Only a frame that was lost makes a leap.
    """
    after: list[NDArray[np.bool_]] = []
    rest: list[NDArray[np.bool_]] = []
    for evidence, one in zip(episodes, still, strict=True):
        change = evidence.change
        leaps = change[2:-1] > LEAP * np.maximum(change[:-3], change[3:])  # (T-3,) of step t + 2
        moving = ~(one[:-3] | one[2:-1] | one[3:])
        after.append(leaps[moving & one[1:-2]])
        rest.append(leaps[moving & ~one[1:-2]])
    count = sum(map(len, after))
    if count < 20:
        return 0.0, 0.0, 0.0
    often, usual = float(np.concatenate(after).mean()), float(np.concatenate(rest).mean())
    return often, usual, (often - usual) / float(np.sqrt(max(usual * (1 - usual), 0.01) / count))


def _joined(episodes: Sequence[Evidence]) -> Iterator[Finding]:
    """Episodes that go on after their end: in the middle the picture jumps back to where episodes begin."""
    if len(episodes) < 3:
        return
    first = np.stack([evidence.thumbnails[0] for evidence in episodes])
    nearest = [np.sort(np.abs(first - one).mean(axis=(1, 2)))[1] for one in first]
    near = max(0.5, float(np.quantile(nearest, 0.9)))  # grey levels in which beginnings differ
    steps = [np.abs(np.diff(evidence.thumbnails, axis=0)).mean(axis=(1, 2)) for evidence in episodes]
    usual = float(np.quantile(np.concatenate(steps), 0.95))
    where = []
    for number, evidence in enumerate(episodes):
        others = np.delete(first, number, axis=0)[:64]
        away = np.array([np.abs(others - one).mean(axis=(1, 2)).min() for one in evidence.thumbnails])  # (T+1,)
        jumps = (away[1:] <= near) & (away[:-1] > 4 * near) & (steps[number] > max(1.5 * usual, 4 * near))
        where += [(number, int(t)) for t in np.flatnonzero(jumps)]
    if where:
        many = len({number for number, _ in where})
        yield Finding(
            many >= 0.1 * len(episodes),
            "endings",
            f"in {many} of {len(episodes)} episodes looked at, the picture jumps back to a beginning, such as after "
            f"step {where[0][1]}: an ending was not recorded there; cut the episodes apart",
        )


def _action_lag(episodes: Sequence[Evidence], of: str) -> Iterator[Finding]:
    found = align_actions([evidence.motion for evidence in episodes], [evidence.features for evidence in episodes])
    if not found.lags:
        yield Finding(False, "alignment", f"actions{of}: no effect on the frames was found{_too_few(episodes)}")
    elif found.lags == (0,):
        yield Finding(False, "alignment", f"actions{of} belong where they are ({_gains(found)})")
    elif 0 in found.lags:
        yield Finding(
            False,
            "alignment",
            f"actions{of} may belong at lag {_list([f'{lag:+d}' for lag in found.lags])} ({_gains(found)}): whoever "
            "acted reacts to the frames, which hides it; a few episodes of random play would tell",
        )
    else:
        lag = found.lags[0]
        other = "" if lag > 0 else ", unless the env shows what an action does a frame late"
        yield Finding(True, "alignment", f"actions{of} are {_shift(lag)}{other} ({_gains(found)}); {_remedy(lag)}")


def _reward_lag(episodes: Sequence[Evidence], of: str) -> Iterator[Finding]:
    found = align_rewards([evidence.motion for evidence in episodes], [evidence.rewards for evidence in episodes])
    if len(found.lags) > 1 and 0 in found.lags:
        which = _list([f"{lag:+d}" for lag in found.lags])
        text = f"rewards{of} may belong at lag {which} ({_gains(found)}){_too_few(episodes)}"
        yield Finding(False, "alignment", text)
        return
    lag, why = (found.lags[-1], _gains(found)) if found.lags else _odd_rewards(episodes)
    if lag is None:
        yield Finding(False, "alignment", f"rewards{of}: frames do not tell when they were earned{_too_few(episodes)}")
    elif lag == 0:
        yield Finding(False, "alignment", f"rewards{of} belong where they are ({why})")
    else:
        other = "" if lag > 0 else ", unless the env shows what earned them a frame late"
        yield Finding(True, "alignment", f"rewards{of} are {_shift(lag)}{other} ({why}); {_remedy(lag)}")


def _odd_rewards(episodes: Sequence[Evidence]) -> tuple[int | None, str]:
    """Where rewards belong that are all alike but for the ends of episodes, and why; None: that does not tell."""
    ended = [evidence.rewards for evidence in episodes if len(evidence.rewards) > 4 and evidence.terminated]
    if len(ended) < 10:
        return None, ""
    middle = np.concatenate([rewards[1:-2] for rewards in ended])
    values, counts = np.unique(middle, return_counts=True)
    usual = values[counts.argmax()]
    if (middle != usual).mean() > 0.01:
        return None, ""
    first, last_but_one, last = (np.mean([rewards[t] != usual for rewards in ended]) for t in (0, -2, -1))
    share = (
        f"rewards other than {usual:g}: {first:.0%} of first, {last_but_one:.0%} of last but one, {last:.0%} of last"
    )
    if last_but_one > 0.1:
        return -1, f"{share} steps, where an episode should end with the last"
    if first > 0.1:
        return (1, f"{share} steps, where none should stand out at the beginning") if last < 0.1 else (None, "")
    return (0, f"{share} steps") if last > 0.1 else (None, "")


def _shift(lag: int) -> str:
    late = "late" if lag > 0 else "early"
    return f"recorded {abs(lag)} step{'s' if abs(lag) > 1 else ''} too {late}"


def _remedy(lag: int) -> str:
    return f"what stands at step t + {lag} belongs to step t" if lag > 0 else f"what stands at t - {-lag} belongs to t"


def _gains(found: Alignment) -> str:
    largest = max(found.gains)
    return "explained at lag " + ", ".join(
        f"{lag:+d}: {max(0.0, gain) / largest:.0%}" for lag, gain in zip(LAGS, found.gains, strict=True)
    )


def _too_few(episodes: Sequence[Evidence]) -> str:
    steps = sum(len(evidence.rewards) for evidence in episodes)
    return f" in {steps} steps; a few thousand tell more" if steps < 3000 else ""


def _list(items: Sequence[str], most: int = 12) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
