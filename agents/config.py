"""Settings of the agents: actor-critic, CMA-ES and DAgger."""

from __future__ import annotations

from dataclasses import dataclass, field

from worldsim.agents.errors import AgentConfigError

ADVANTAGE_SCALES = ("std", "percentile")


@dataclass
class ActorCriticConfig:
    """Settings of `ActorCriticLearner`; one update uses `horizon * envs.num_envs` transitions."""

    horizon: int = 32  # environment steps per row and update
    reset_each_update: bool = True
    """True: every update begins with a freshly seeded `envs.reset`, so that a checkpoint needs no environment state
    (dreams); False: episodes go on from update to update (real environments).
    """
    gamma: float = 0.99  # discount, in [0, 1]
    return_lambda: float = 0.95  # trace decay of the lambda-returns, in [0, 1]
    epochs: int = 4  # passes over an update's transitions
    minibatch_size: int = 256  # transitions per gradient step, at most
    learning_rate: float = 3e-4  # of Adam
    adam_epsilon: float = 1e-5
    """What Adam adds to the root of the mean square of a gradient."""
    gradient_clip: float = 0.5  # largest norm, of the policy's gradient and of the value's, each by itself
    clip_ratio: float = 0.2  # PPO's epsilon
    max_kl: float = 0.03
    """The policy rests for the remaining epochs of an update once an epoch's mean KL(old || new) is above it; the value
    goes on. 0: never.
    """
    entropy_bonus: float = 0.01  # weight of the entropy in nats beside advantages of unit scale
    entropy_bonus_final: float = 0.001  # what it moves to, linearly
    entropy_decay_updates: int = 0  # within so many updates; 0: it stays
    advantage_scale: str = "std"
    """Centred advantages are divided: "std", by their standard deviation over the update (at least `advantage_floor`);
    "percentile", by DreamerV3's max(1, moving average of the returns' 95th - 5th percentile).
    """
    advantage_floor: float = 0.01  # for "std"
    hidden: list[int] = field(default_factory=lambda: [256, 256])
    """Widths of the policy's and of the value's trunk (two networks, which share the convolutions on pictures)."""
    strides: list[list[int]] = field(default_factory=list)
    """Of the convolutions that read pictures, [rows, columns] each; empty: as the size of the picture suggests."""
    initial_persistence: float = 0.0
    """With what probability a new policy repeats its last action, in [0, 1); 0: it draws each anew. Where only lasting
    motion pays, draws that forget each other never find it. Needs discrete actions and observations that tell the last
    one, as a world model's features and frame stacks do.
    """


@dataclass
class CmaEsConfig:
    """Settings of `CmaEsLearner`; one update is a generation."""

    population: int = 64  # candidates in a generation; the env's rows, a multiple of it, are shared out among them
    elites: int = 4  # the best of them that play again, against the best so far
    sigma: float = 0.1  # standard deviation of the first generation's parameters, above 0


@dataclass
class DaggerConfig:
    """Settings of `DaggerLearner`, beside horizon, hidden and strides; no other of the actor-critic's counts."""

    teacher_share: float = 0.25  # of the dreams that the plans play themselves, in [0, 1]
    label_every: int = 2
    """Steps from one moment that plans judge to the next: those between are much alike, and judging takes as long as
    dreaming.
    """
    sharpness: float = 0.015
    """An action that risks so much more than the least risky one is wanted e times less; above 0."""
    epochs: int = 8  # passes over the moments of an update
    minibatch_size: int = 256  # moments in a gradient step, at most
    learning_rate: float = 1e-3  # of AdamW
    weight_decay: float = 0.01  # of AdamW
    gradient_clip: float = 1.0  # largest norm of a gradient


@dataclass
class AgentConfig(ActorCriticConfig):
    """Settings of an agent: those of the actor-critic, which kind it is, and those of the other kinds."""

    kind: str = "actor_critic"  # "actor_critic", "cma_es" or "dagger"
    cma_es: CmaEsConfig = field(default_factory=CmaEsConfig)
    dagger: DaggerConfig = field(default_factory=DaggerConfig)


def check_cma_es(config: CmaEsConfig, num_envs: int) -> None:
    """Raise AgentConfigError for the first setting outside its range, or one that `num_envs` rows do not fit."""
    if config.population < 4:
        raise AgentConfigError(f"cma_es.population must be at least 4, got {config.population}.")
    if not 1 <= config.elites < config.population:
        raise AgentConfigError(
            f"cma_es.elites must be from 1 to below the population, {config.population}, got {config.elites}."
        )
    if not config.sigma > 0:
        raise AgentConfigError(f"cma_es.sigma must be above 0, got {config.sigma}.")
    if num_envs % config.population:
        raise AgentConfigError(
            f"cma_es.population is {config.population}, which must divide the number of rows, {num_envs}."
        )


def check_dagger(config: DaggerConfig) -> None:
    """Raise AgentConfigError for the first setting outside its range."""
    for name in ("label_every", "epochs", "minibatch_size"):
        if getattr(config, name) < 1:
            raise AgentConfigError(f"dagger.{name} must be at least 1, got {getattr(config, name)}.")
    if not 0 <= config.teacher_share <= 1:
        raise AgentConfigError(f"dagger.teacher_share must be in [0, 1], got {config.teacher_share}.")
    for name in ("sharpness", "learning_rate", "gradient_clip"):
        if not getattr(config, name) > 0:
            raise AgentConfigError(f"dagger.{name} must be above 0, got {getattr(config, name)}.")
    if not config.weight_decay >= 0:
        raise AgentConfigError(f"dagger.weight_decay must be 0 or more, got {config.weight_decay}.")


def check_config(config: ActorCriticConfig) -> None:
    """Raise AgentConfigError for the first setting outside its range."""
    at_least_one = ("horizon", "epochs", "minibatch_size")
    positive = ("learning_rate", "adam_epsilon", "gradient_clip", "clip_ratio", "advantage_floor")
    not_negative = ("max_kl", "entropy_bonus", "entropy_bonus_final", "entropy_decay_updates")
    unit = ("gamma", "return_lambda")
    for name in at_least_one:
        if getattr(config, name) < 1:
            raise AgentConfigError(f"{name} must be at least 1, got {getattr(config, name)}.")
    for name in positive:
        if not getattr(config, name) > 0:
            raise AgentConfigError(f"{name} must be above 0, got {getattr(config, name)}.")
    for name in not_negative:
        if not getattr(config, name) >= 0:
            raise AgentConfigError(f"{name} must be 0 or more, got {getattr(config, name)}.")
    for name in unit:
        if not 0 <= getattr(config, name) <= 1:
            raise AgentConfigError(f"{name} must be in [0, 1], got {getattr(config, name)}.")
    if not 0 <= config.initial_persistence < 1:
        raise AgentConfigError(f"initial_persistence must be in [0, 1), got {config.initial_persistence}.")
    if config.advantage_scale not in ADVANTAGE_SCALES:
        expected = " or ".join(f"'{name}'" for name in ADVANTAGE_SCALES)
        raise AgentConfigError(f"advantage_scale must be {expected}, got '{config.advantage_scale}'.")
    if any(len(pair) != 2 or min(pair) < 1 for pair in config.strides):
        raise AgentConfigError(f"strides must be pairs of rows and columns, 1 or more each, got {config.strides}.")
    if not config.hidden or min(config.hidden) < 1:
        raise AgentConfigError(f"hidden must name at least one width above 0, got {list(config.hidden)}.")


def entropy_weight(config: ActorCriticConfig, update: int) -> float:
    """The entropy bonus of update number `update` (from 0)."""
    if config.entropy_decay_updates == 0:
        return config.entropy_bonus
    done = min(update / config.entropy_decay_updates, 1.0)
    return config.entropy_bonus + done * (config.entropy_bonus_final - config.entropy_bonus)
