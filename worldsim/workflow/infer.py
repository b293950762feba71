"""Settings for an env that nobody has described, each with its reason, from a short look at it.

What worked on the envs that were tuned by hand (configs/, benchmarks/LOG.md), cut to a run of minutes: few latent
tokens, a small transformer, two rounds, so that the second sees where the first one's agent goes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worldsim.dynamics.config import SIZES
from worldsim.workflow.config import RunConfig
from worldsim.workflow.look import UNKNOWN_LENGTH, Look, frame_size

MINUTES = 12.0
SHARES = {"collect": 0.15, "tokenizer": 0.25, "dynamics": 0.35, "agent": 0.15, "evaluate": 0.1}  # of the time

# Pictures
SMALL_PICTURE = 32  # pixels a side up to which a picture is kept as it is
KEPT_CONTRAST = 0.35  # of what is looked at (`Look.kept`), enough for a frame of that size
LARGEST_PATCH = 8
TOKENS = 4  # of a frame: what a step of the dynamics costs goes with them
PIXELS_OF_A_SMALL_TOKEN = 300  # up to here half of the channels do
# Time
SLOWEST_RATE, FASTEST_RATE = 10.0, 25.0  # decisions a second; one frame skip between them is looked for
MOVED_ON = 0.4  # share of the largest change that a step should bring
MOVED_AT_ONCE = 0.7  # from this share on, a single tic moves things by their own size: moves of a board, not motion
SHORTEST_EPISODE_STEPS = 6  # of a typical random episode, whatever the frame skip
CAP_STEPS = 1000  # of an episode where the env has no limit of its own
# Data
MOST_STEPS, FEWEST_STEPS = 60_000, 1_500
HELD_OUT_EPISODES = 5
FEWEST_EPISODES_OF_A_WORKER = 3  # in the first round, where the env itself sets no limit
FEW_ENDINGS = 1_000
# Seconds on one core, measured (benchmarks/LOG.md): batches of 32 frames and 16 clips of 20.
TOKENIZER_SECONDS, TOKENIZER_SECONDS_A_PATCH = 0.018, 0.0015  # a step
DYNAMICS_SECONDS, DYNAMICS_SECONDS_A_TOKEN = 0.0005, 0.00022  # a frame, for `micro`, registers among the tokens
PASSES_OF_TRAINING = 7  # forward, backward and optimizer, in forward passes of one frame
LEARNING_SECONDS = 0.6  # of the actor-critic, an update
POLICY_SECONDS = 0.003  # of an agent's step in the real env, for its look through the model
# Episodes of each policy, tuning episodes of the blind ones, and how many of these a candidate plays in the mean.
EVALUATIONS = ((100, 16, 6.2), (50, 8, 5.3), (30, 4, 4.0), (20, 2, 2.0), (20, 1, 1.0), (10, 1, 1.0))
LOOKING_POLICIES, BLIND_POLICIES = 2, 4
HOLDS_OF_A_SEQUENCE = 10


@dataclass(frozen=True)
class Reason:
    """A setting that was inferred: its name such as `env.frame_skip`, its value, and why it has it."""

    setting: str
    value: Any
    why: str


def infer(
    look: Look, asked: RunConfig, fixed: Collection[str] = (), *, minutes: float = MINUTES, cores: int = 2
) -> tuple[RunConfig, list[Reason]]:
    """The settings of a run of about so many minutes on so many cores, and the reasons for those that were inferred.

    asked: the user's settings. fixed: the names of those that he gave himself; they stay, and the others fit them.
    """
    draft = _Draft(copy.deepcopy(asked), frozenset(fixed))
    _pictures(draft, look)
    _time(draft, look)
    _networks(draft, look)
    _amounts(draft, look, minutes * 60, cores)
    return draft.config, draft.reasons


@dataclass
class _Draft:
    """A config in the making."""

    config: RunConfig
    fixed: frozenset[str]
    reasons: list[Reason] = field(default_factory=list)

    def set(self, setting: str, value: Any, why: str) -> None:
        """Take the value, unless the user gave one."""
        if setting in self.fixed:
            return
        *path, name = setting.split(".")
        owner: Any = self.config
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, name, value)
        self.reasons = [reason for reason in self.reasons if reason.setting != setting]
        self.reasons.append(Reason(setting, value, why))


def moves_at_once(look: Look) -> bool:
    """Whether one tic moves things by their own size, as in grid worlds and board games."""
    if look.tics_per_second is None:
        return True
    return look.changes.get(1, 0.0) >= MOVED_AT_ONCE * max(look.changes.values(), default=math.inf)


def _pictures(draft: _Draft, look: Look) -> None:
    """Frame size, colours, and patches that divide it."""
    (height, width), why = _frame_size(look)
    draft.set("env.frame_height", height, why)
    draft.set("env.frame_width", width, why)
    draft.set("env.grayscale", look.grey, "its channels are always equal" if look.grey else "its channels differ")
    size = draft.config.env.frame_height, draft.config.env.frame_width
    patch = max(p for p in range(1, LARGEST_PATCH + 1) if size[0] % p == 0 and size[1] % p == 0)
    draft.set("tokenizer.patch", patch, f"divides {size[0]}x{size[1]}")
    patch = draft.config.tokenizer.patch
    grid = size[0] // patch, size[1] // patch
    merge = merged(grid)
    tokens = math.prod(grid) // math.prod(merge)
    draft.set("tokenizer.merge", list(merge), f"{tokens} latent token{'s' * (tokens > 1)} a frame: few are fast")


def _frame_size(look: Look) -> tuple[tuple[int, int], str]:
    height, width = look.picture
    if max(look.picture) <= SMALL_PICTURE:
        if math.gcd(height, width) > 2:
            return (height, width), f"the picture is small, so it is kept as it is ({height}x{width})"
        return frame_size(look.picture, 16 * math.ceil(min(look.picture) / 16)), "the next multiples of 16"
    sides = [side for side in look.kept if side < min(look.picture) + 16]
    for side in sides:
        if look.kept[side] >= KEPT_CONTRAST:
            kept = f"small changes keep {look.kept[side]:.0%} of their contrast (of {height}x{width})"
            return frame_size(look.picture, side), kept
    if not sides:
        return frame_size(look.picture, min(64, 16 * math.ceil(min(look.picture) / 16))), "hardly anything changed"
    return frame_size(look.picture, sides[-1]), f"small changes keep only {look.kept[sides[-1]]:.0%} even so"


def merged(grid: tuple[int, int]) -> tuple[int, int]:
    """[rows, cols] of patches of one token, so that a grid has about TOKENS, each as square as can be."""
    rows, cols = grid

    def misfit(merge: tuple[int, int]) -> tuple[float, float]:
        tokens = rows * cols / math.prod(merge)
        return abs(math.log(tokens / TOKENS)), abs(math.log(merge[0] / merge[1]))

    choices = [(r, c) for r in range(1, rows + 1) for c in range(1, cols + 1) if rows % r == 0 and cols % c == 0]
    return min(choices, key=misfit)


def _time(draft: _Draft, look: Look) -> None:
    """Frame skip, cap, and how long random play holds an action."""
    draft.set("env.frame_skip", *_frame_skip(look))
    if look.max_episode_tics is None:
        longest = max(look.episode_tics, default=0)
        tics = max(CAP_STEPS * draft.config.env.frame_skip, _round(4 * longest))
        draft.set("env.max_episode_tics", tics, "the env has no limit, and dreams must end")
    if look.action_space["type"] == "box":
        why = "held actions go places; drawn anew at each step they would cancel out"
        draft.set("collect.stickiness", "mixed", why)
    elif moves_at_once(look):
        draft.set("collect.stickiness", "0.3", "of single moves, long held ones only run into a wall")


def _frame_skip(look: Look) -> tuple[int, str]:
    if look.tics_per_second is None:
        return 1, "the env states no frame rate: each step is a move"
    if moves_at_once(look):
        return 1, "a single step moves things by their own size: it is a move"
    typical = float(np.mean(look.episode_tics)) if look.episode_tics else math.inf
    largest = max(look.changes.values(), default=1.0)
    chosen, why = 1, f"{look.tics_per_second:.3g} decisions a second"
    for skip in (1, 2, 4):
        rate = look.tics_per_second / skip
        if skip > 1 and (rate < SLOWEST_RATE or typical / skip < SHORTEST_EPISODE_STEPS):
            break
        share = look.changes.get(skip, 0.0) / largest
        chosen = skip
        why = f"{rate:.3g} decisions a second, each brings {share:.0%} of the change that ever comes"
        if rate <= FASTEST_RATE and share >= MOVED_ON:
            break
    return chosen, why


def _networks(draft: _Draft, look: Look) -> None:
    """Tokenizer and dynamics but for their number of steps."""
    config = draft.config
    pixels = config.env.frame_height * config.env.frame_width
    tokens = _tokens(config)
    channels = 32 if pixels / tokens <= PIXELS_OF_A_SMALL_TOKEN else 64
    draft.set("tokenizer.channels", channels, f"numbers for {pixels // tokens} pixels")
    minutes = "enough for a run of minutes"
    heads = config.tokenizer.heads
    draft.set("tokenizer.width", heads * math.ceil(128 / heads), minutes)
    draft.set("tokenizer.encoder_layers", 1, minutes)
    draft.set("tokenizer.decoder_layers", 2, minutes)
    draft.set("tokenizer.batch_frames", 32, minutes)
    draft.set("tokenizer.mask_max", 0.0, "what is hidden in training is guessed later")
    if look.kept and max(look.kept.values()) < KEPT_CONTRAST:
        draft.set("tokenizer.contrast_weight", 20.0, "small changes are faint at this size")
    draft.set("tokenizer.latent_noise", 0.05, "small things are to outlive it")
    draft.set("dynamics.size", "micro", minutes)
    window = max(8, config.dream.context_frames) if "dream.context_frames" in draft.fixed else 8
    draft.set("dynamics.window", window, "what is remembered; short clips leave time for more steps of training")
    draft.set("dynamics.clip_frames", config.dynamics.window * 3 // 2, "so that training meets a full window")
    draft.set("dream.context_frames", config.dynamics.window, "as many as are remembered")
    draft.set("dynamics.learning_rate", 0.006, "as in the quickstart, of the same size")
    steps = 2 if moves_at_once(look) else 4
    why = "single moves leave little open" if steps == 2 else "a dream must choose among what may come"
    if "dynamics.sampling_steps" in draft.fixed:
        steps, why = config.dynamics.sampling_steps, "those that dreams take are trained"
    draft.set("dynamics.finest_steps", steps, why)
    if config.dynamics.kind == "mdn_rnn":
        draft.set("dynamics.optimizer", "adamw", "an LSTM has no matrices for Muon")
    draft.set("dynamics.sampling_steps", config.dynamics.finest_steps, "as trained")


def _amounts(draft: _Draft, look: Look, seconds: float, cores: int) -> None:
    """How much of everything, so that it fits the time; what fast envs leave goes to the dynamics."""
    config = draft.config
    lists = {"collect.tics": config.collect.tics, "agent_updates": config.agent_updates}
    given = [name for name in lists if name in draft.fixed]
    if given:
        draft.set("rounds", len(lists[given[0]]), f"as many as {given[0]} has entries")
    else:
        draft.set("rounds", 2, "the second sees where the first one's agent goes")
    draft.set("collect.workers", cores, "the times are meant for so many cores")
    draft.set("evaluate.workers", cores, "the times are meant for so many cores")
    skip, rounds = config.env.frame_skip, config.rounds
    step_seconds = skip * look.seconds_per_tic + look.seconds_per_frame

    room = seconds * SHARES["collect"]
    wanted = room * config.collect.workers / step_seconds
    steps = int(min(max(wanted, FEWEST_STEPS), MOST_STEPS))
    per_second = f"{skip / step_seconds:,.0f} tics a second and core"
    why = f"{per_second}, {room:.0f} s" if wanted <= MOST_STEPS else f"{MOST_STEPS:,} steps are plenty; {per_second}"
    draft.set("collect.tics", [_round(part * skip) for part in _parts(steps, rounds, first=2.0)], why)
    if look.max_episode_tics is None:
        most = config.collect.tics[0] // (FEWEST_EPISODES_OF_A_WORKER * config.collect.workers)
        if (config.env.max_episode_tics or math.inf) > most:
            draft.set("env.max_episode_tics", max(skip, most), "the data are to hold some whole episodes")
    tics = sum(config.collect.tics)
    spare = max(0.0, room - tics / skip * step_seconds / config.collect.workers)
    typical = float(np.mean(look.episode_tics)) if look.episode_tics else float(_limit(config, look))
    episodes = config.collect.tics[0] / min(typical, config.collect.tics[0] / config.collect.workers)
    share = float(np.clip(math.ceil(100 * HELD_OUT_EPISODES / episodes) / 100, 0.1, 0.34))
    draft.set("collect.held_out_fraction", share, f"of about {episodes:,.0f} episodes")
    _heads(draft, look, tics)

    clip_frames = config.dynamics.batch_clips * config.dynamics.clip_frames
    frame_seconds = _frame_seconds(config)
    patches = config.env.frame_height * config.env.frame_width // config.tokenizer.patch**2
    room = seconds * SHARES["tokenizer"] * cores
    trained = room / (TOKENIZER_SECONDS + TOKENIZER_SECONDS_A_PATCH * patches) / (1 + 0.2 * (rounds - 1))
    draft.set("tokenizer.steps", _within(trained, 200, 4000), f"{room / cores:.0f} s for all rounds")
    draft.set("tokenizer.warmup_steps", min(100, config.tokenizer.steps // 10), "a tenth of the steps at most")
    if rounds > 1:
        draft.set("tokenizer.refine_steps", _round(config.tokenizer.steps / 5), "a later round shows new places")
    room = (seconds * SHARES["dynamics"] + spare) * cores
    trained = room / rounds / (clip_frames * frame_seconds)
    draft.set("dynamics.steps", _within(trained, 100, 3000), f"{room / cores / rounds:.0f} s in each round")
    draft.set("dynamics.warmup_steps", min(50, config.dynamics.steps // 10), "a tenth of the steps at most")

    passes = config.dynamics.sampling_steps + 1.5
    update = config.dream.num_envs * config.agent.horizon * passes * frame_seconds / PASSES_OF_TRAINING
    room = seconds * SHARES["agent"] * cores
    updates = max(rounds * 5, int(room / (update + LEARNING_SECONDS)))
    draft.set("agent_updates", [max(1, part) for part in _parts(updates, rounds, first=0.6)], f"{room / cores:.0f} s")
    draft.set("agent.epochs", 10, "dreaming is what an update costs: learn all there is in it")
    _verdict(draft, look, step_seconds, seconds * SHARES["evaluate"])


def _heads(draft: _Draft, look: Look, tics: int) -> None:
    """Where endings are few they are soon known by heart."""
    seen = sum(look.episode_tics)
    endings = round(tics * look.endings / seen) if seen else 0
    if 0 < endings < FEW_ENDINGS:
        why = f"about {endings} endings in the data are soon known by heart"
        draft.set("dynamics.termination_weight", 0.05, why)
        draft.set("dynamics.head_dropout", 0.4, why)


def _verdict(draft: _Draft, look: Look, step_seconds: float, seconds: float) -> None:
    """As many episodes as fit; an agent may live twice as long as random play."""
    config = draft.config
    skip, limit = config.env.frame_skip, _limit(config, look)
    typical = float(np.mean(look.episode_tics)) if look.episode_tics else limit
    blind = typical / skip * step_seconds
    looking = min(2 * typical, limit) / skip * (step_seconds + POLICY_SECONDS)
    candidates = _blind_candidates(look.action_space)

    def total(episodes: int, searched: float) -> float:
        played = looking * LOOKING_POLICIES * episodes + blind * (BLIND_POLICIES * episodes + searched * candidates)
        return played / config.evaluate.workers

    fitting = [choice for choice in EVALUATIONS if total(choice[0], choice[2]) <= seconds]
    episodes, tuning, _ = (fitting or EVALUATIONS[-1:])[0]
    why = f"an episode of the agent takes about {looking:.2g} s, a blind one {blind:.2g} s"
    draft.set("evaluate.episodes", episodes, why)
    draft.set("evaluate.blind_tuning_episodes", tuning, why)
    draft.set("evaluate.dream_episodes", episodes, "as many as real ones")
    if not moves_at_once(look):
        draft.set("evaluate.greedy", True, "the likeliest action is judged")


def _blind_candidates(space: dict[str, Any]) -> int:
    """About how many sequences the blind baseline tries."""
    if space["type"] == "box":
        return 2 * (math.prod(space["shape"]) + 1) * HOLDS_OF_A_SEQUENCE
    if space["type"] == "multi_binary":
        count = 2 ** space["n"]
    else:
        count = space["n"] if space["type"] == "discrete" else math.prod(space["nvec"])
    among = min(6, count)
    return among * (among - 1) * HOLDS_OF_A_SEQUENCE


def _frame_seconds(config: RunConfig) -> float:
    """Of training the dynamics on one frame, on one core; sizes differ by a little less than their weights do."""
    weights = SIZES[config.dynamics.size].width ** 2 * SIZES[config.dynamics.size].depth
    micro = SIZES["micro"].width ** 2 * SIZES["micro"].depth
    tokens = _tokens(config) + config.dynamics.registers
    return (DYNAMICS_SECONDS + DYNAMICS_SECONDS_A_TOKEN * tokens) * (weights / micro) ** 0.8


def _tokens(config: RunConfig) -> int:
    settings = config.tokenizer
    patches = (config.env.frame_height // settings.patch) * (config.env.frame_width // settings.patch)
    return max(1, patches // math.prod(settings.merge)) if settings.kind == "vit" else 1


def _limit(config: RunConfig, look: Look) -> int:
    return min(
        (limit for limit in (config.env.max_episode_tics, look.max_episode_tics) if limit), default=UNKNOWN_LENGTH
    )


def _parts(total: int, rounds: int, first: float) -> list[int]:
    """`total` in one part a round, the first of which is `first` times each of the others."""
    weights = [first] + [1.0] * (rounds - 1)
    return [int(total * weight / sum(weights)) for weight in weights]


def _within(value: float, least: int, most: int) -> int:
    return _round(min(max(value, least), most))


def _round(value: float) -> int:
    """Two digits that count."""
    digits = max(0, len(str(int(value))) - 2)
    return int(value) // 10**digits * 10**digits
