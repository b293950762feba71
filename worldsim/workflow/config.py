"""All settings of a run, as one tree of dataclasses whose defaults are the documentation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from worldsim.agents.config import AgentConfig
from worldsim.dynamics.config import DynamicsConfig
from worldsim.endings import EndingConfig
from worldsim.envs.config import EnvConfig
from worldsim.plan_reader import PlanConfig
from worldsim.tokenizers.config import TokenizerConfig


@dataclass
class CollectConfig:
    """Real data."""

    tics: list[int] = field(default_factory=lambda: [40_000])  # steps of the underlying env, one budget per round
    source: str | None = None  # a folder of episodes to take in round 0 instead of playing; its tics count, not `tics`
    workers: int = 2  # processes, each with a shard of its own
    stickiness: str = "mixed"  # of the random policy of round 0: a probability, or "mixed": one per episode
    # Options for `env.reset` in round 0, such as a wider range of first states: random play alone goes few places.
    reset_options: dict[str, float] = field(default_factory=dict)
    policy_noise: float = 0.1  # later rounds: share of steps with a sticky random action instead of the policy's
    # Mean length of the spells in which these steps come: long ones show what plans lead to where the policy gets to.
    noise_steps: float = 1.0
    held_out_fraction: float = 0.1  # of episodes, never trained on
    # Where the env looks alike in a mirror: for each action the one that it becomes there, as [0, 2, 1] for none, right
    # and left. Training episodes then count twice; the copies cost no tics. Empty: no copies.
    mirror_actions: list[int] = field(default_factory=list)
    compression: str = "none"  # "none" or "zstd"


@dataclass
class DreamConfig:
    """The dream in which the agent trains."""

    num_envs: int = 64  # rows dreamt at once
    max_episode_steps: int = 32  # a dream is cut here and the value function takes over
    ending_fraction: float = 0.0  # of dreams, that begin at most max_episode_steps before a real ending
    # At this step of a real episode or later dreams begin while the agent learns, but for the few at first frames.
    start_from_step: int = 0
    context_frames: int = 8  # real frames before the first dreamt one
    feature_frames: int = 1  # how many frames back the agent sees; more: also what has left the picture since
    # In place of features the agent sees decoded frames of these ages in steps, as [0, 1, 2, 4], and its last action.
    stack_ages: list[int] = field(default_factory=list)
    temperature: float = 1.0  # of the model's dreams: variance of the sampler's noise
    calibrate_temperature: bool = False  # instead: raise it until dreams end as often as reality does


@dataclass
class EvaluateConfig:
    """The verdict in the real env."""

    episodes: int = 100  # real ones, played by the agent and by each baseline
    seed: int = 1_000_000  # first evaluation seed; the blind baseline is tuned on seeds 500,000 below (or above) it
    blind_tuning_episodes: int = 16  # real ones on which the best blind sequence is chosen
    dream_episodes: int = 100  # whole dreams of the agent, beside the real episodes
    greedy: bool = False  # the most probable actions in place of draws
    workers: int = 2  # processes that play


@dataclass
class RunConfig:
    """One experiment: from a real env to a verdict."""

    seed: int = 0  # of everything that is random but the verdict's episodes, which evaluate.seed says
    rounds: int = 1  # of collecting, training the world model and training the agent
    device: str = "auto"  # "cpu", "cuda" or "cuda:1"; auto: a GPU where there is one
    precision: str = "auto"  # "fp32" or "bf16"; auto: bf16 where it is faster
    threads: int = 0  # CPU threads of torch; 0: all cores
    distributed: str = "ddp"  # only read under torchrun; "fully_shard": each process holds its share of the weights
    checkpoint_seconds: float = 120  # of training between two checkpoints; 0: one after each step
    env: EnvConfig = field(default_factory=EnvConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    endings: EndingConfig = field(default_factory=EndingConfig)
    plans: PlanConfig = field(default_factory=PlanConfig)
    dream: DreamConfig = field(default_factory=DreamConfig)
    agent_updates: list[int] = field(default_factory=lambda: [150])  # or generations of CMA-ES; one number per round
    agent: AgentConfig = field(default_factory=AgentConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


def plan_steps(config: RunConfig, round_number: int) -> int:
    """Training steps of a round's reader of plans: of `plans.steps` the share that its tics have of all rounds' tics.

    With the steps of the last round a reader of the first one learns its few hundred endings by heart.
    """
    tics = config.collect.tics
    return math.ceil(config.plans.steps * sum(tics[: round_number + 1]) / sum(tics))
