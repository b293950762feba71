"""Settings of the agents: actor-critic, CMA-ES and DAgger."""

from __future__ import annotations

from dataclasses import dataclass, field

from worldsim.agents.errors import AgentConfigError

ADVANTAGE_SCALES = ("std", "percentile")


@dataclass
class ActorCriticConfig:
    """Settings of `ActorCriticLearner`; one update uses `horizon * envs.num_envs` transitions.

    horizon: environment steps per row and update.
    reset_each_update: True starts every update with a freshly seeded `envs.reset`, so that a checkpoint needs no
        environment state (dreams); False carries episodes over from update to update (real environments).
    gamma, return_lambda: discount and trace decay of the lambda-returns, in [0, 1].
    epochs, minibatch_size: passes over an update's transitions, and transitions per gradient step (an upper bound).
    learning_rate, adam_epsilon, gradient_clip: Adam; policy and value gradients are clipped apart, by norm.
    clip_ratio: PPO's epsilon. max_kl: the policy rests for the remaining epochs of an update once an epoch's
        mean KL(old || new) is above it; the value goes on. 0 = never.
    entropy_bonus: weight of the entropy in nats beside advantages of unit scale; it moves linearly to
        `entropy_bonus_final` within `entropy_decay_updates` updates (0 = stays).
    advantage_scale: "std" divides centred advantages by their standard deviation over the update (at least
        `advantage_floor`); "percentile" by DreamerV3's max(1, moving average of the returns' 95th - 5th percentile).
    hidden: widths of the policy's and of the value's trunk (two networks, which share the convolutions on pictures).
    strides: of the convolutions that read pictures, [rows, columns] each; empty: as the size of the picture suggests.
    initial_persistence: with what probability a new policy repeats its last action, in [0, 1); 0: it draws each anew.
        Where only lasting motion pays, draws that forget each other never find it. Needs discrete actions and
        observations that tell the last one, as a world model's features and frame stacks do.
    """

    horizon: int = 32
    reset_each_update: bool = True
    gamma: float = 0.99
    return_lambda: float = 0.95
    epochs: int = 4
    minibatch_size: int = 256
    learning_rate: float = 3e-4
    adam_epsilon: float = 1e-5
    gradient_clip: float = 0.5
    clip_ratio: float = 0.2
    max_kl: float = 0.03
    entropy_bonus: float = 0.01
    entropy_bonus_final: float = 0.001
    entropy_decay_updates: int = 0
    advantage_scale: str = "std"
    advantage_floor: float = 0.01
    hidden: list[int] = field(default_factory=lambda: [256, 256])
    strides: list[list[int]] = field(default_factory=list)
    initial_persistence: float = 0.0


@dataclass
class CmaEsConfig:
    """Settings of `CmaEsLearner`; one update is a generation.

    population: candidates in a generation; the env's rows, a multiple of it, are shared out among them.
    elites: the best of them that play again, against the best so far.
    sigma: standard deviation of the first generation's parameters, above 0.
    """

    population: int = 64
    elites: int = 4
    sigma: float = 0.1


@dataclass
class DaggerConfig:
    """Settings of `DaggerLearner`, beside horizon, hidden and strides; those of the actor-critic do not count for it.

    teacher_share: of the dreams that the plans play themselves, in [0, 1].
    label_every: steps from one moment that plans judge to the next: those between are much alike, and judging takes as
        long as dreaming.
    sharpness: an action that risks so much more than the least risky one is wanted e times less, above 0.
    epochs, minibatch_size: passes over the moments of an update, and moments in a gradient step (an upper bound).
    learning_rate, weight_decay, gradient_clip: of AdamW.
    """

    teacher_share: float = 0.25
    label_every: int = 2
    sharpness: float = 0.015
    epochs: int = 8
    minibatch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    gradient_clip: float = 1.0


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
