"""The controller of Ha & Schmidhuber (2018), "World models", arXiv 1803.10122: linear, evolved by CMA-ES.

It has at most MOST_PARAMETERS parameters, as in the paper. It reads all features where they are few enough: the 512
latents and 128 beliefs of Take Cover's DiT with three actions make 3 * 641 = 1,923. Where there are more, it reads as
many fixed random directions of them as the parameters allow.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldsim.agents.actions import ActionCoder
from worldsim.agents.config import CmaEsConfig, check_cma_es
from worldsim.agents.errors import AgentConfigError, UnusableSpaceError, fitting_checkpoint
from worldsim.agents.networks import Inputs, NetworkSpec, PolicyNetwork, build_trunk, network_spec
from worldsim.agents.rollout import Envs, check_autoreset
from worldsim.agents.values import ValueNetwork

MOST_PARAMETERS = 2000
SELECTION, FINAL, RANDOM_PLAY = range(3)  # what seeds are for
MEASURED_STEPS = 32  # of random play, which the statistics of the inputs come from


class CmaEsLearner:
    """Evolves `policy`, one generation for each `update()`.

    The rows of `envs` are shared out among the candidates, and each candidate meets the same seeds; its score is the
    mean return of its rows' first episodes, so the envs must end every episode. The best `elites` then play again, on
    other seeds and more rows each, against the best controller so far: the winner is `policy`. A single best score of
    a whole population is mostly luck; this one is not.

    A search by CMA-ES is a function of its seed and of the scores it is told. So a checkpoint holds the scores, and n
    generations equal m, a restored checkpoint, and n - m, bit for bit. Raises AgentConfigError for settings out of
    range or where the package `cma` is missing, UnusableSpaceError for envs it cannot learn in.
    """

    def __init__(self, config: CmaEsConfig, envs: Envs, seed: int = 0) -> None:
        check_cma_es(config, envs.num_envs)
        check_autoreset(envs)
        self.config = config
        self.envs = envs
        self.seed = seed
        self.policy = PolicyNetwork(controller_spec(envs), torch.Generator().manual_seed(seed))
        self.value: ValueNetwork | None = None
        self._scores: list[NDArray[np.float64]] = []  # (population,) of each generation
        self._start = _parameters(self.policy)
        self._search = self._new_search()

    def begin_with(self, state: Mapping[str, Any]) -> None:
        """Search around the controller of an earlier learner's `state_dict()`, with its statistics of the inputs."""
        self.policy.load_state_dict(state["policy"])
        self._start, self._scores = _parameters(self.policy), []
        self._search = self._new_search()

    def update(self) -> dict[str, float]:
        """One generation. Returns the scores of population, best candidate and champion, sigma, and the speed."""
        started = time.perf_counter()
        assert isinstance(self.policy.inputs, Inputs)  # `controller_spec` takes no pictures
        if not int(self.policy.inputs.count):
            self._measure_inputs()
        generation = len(self._scores)
        candidates = np.stack(self._search.ask())  # (population, parameters)
        scores, steps = self._play(candidates, generation, SELECTION)
        self._search.tell(list(candidates), (-scores).tolist())
        self._scores.append(scores)

        best = np.argsort(-scores, kind="stable")[: self.config.elites]
        finalists = np.concatenate([_parameters(self.policy)[None], candidates[best]])
        final_scores, final_steps = self._play(finalists, generation, FINAL)
        _set_parameters(self.policy, finalists[int(final_scores.argmax())])
        return {
            "score": float(scores.mean()),
            "best_score": float(scores.max()),
            "champion_score": float(final_scores.max()),
            "sigma": float(self._search.sigma),
            "env_steps_per_second": (steps + final_steps) / (time.perf_counter() - started),
        }

    def state_dict(self) -> dict[str, Any]:
        """All of the learner's state: tensors and plain numbers, so that `torch.load(weights_only=True)` reads it."""
        scores = np.array(self._scores).reshape(-1, self.config.population)
        return {
            "policy": self.policy.state_dict(),
            "seed": self.seed,
            "sigma": self.config.sigma,
            "start": torch.from_numpy(self._start),
            "scores": torch.from_numpy(scores),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`: the search is told all scores again, some tenths of a second a generation.

        Raises AgentConfigError if it comes from another controller or other settings.
        """
        with fitting_checkpoint():
            self.policy.load_state_dict(state["policy"])
            settings = (state["seed"], state["sigma"], state["scores"].shape[1])
            start, scores = state["start"].numpy().copy(), state["scores"].numpy().copy()
        if settings != (own := (self.seed, self.config.sigma, self.config.population)):
            raise AgentConfigError(
                "The checkpoint belongs to another agent or other settings: seed, sigma and population are "
                f"{settings}, expected {own}"
            )
        self._start = start
        self._search = self._new_search()
        self._scores = []
        for told in scores:
            self._search.tell(self._search.ask(), (-told).tolist())
            self._scores.append(told)

    def _new_search(self) -> Any:
        """CMA-ES (Hansen 2016, arXiv 1604.00772) around `_start`, with a random state of its own."""
        random = np.random.default_rng(self.seed)
        options = {
            "popsize": self.config.population,
            "seed": math.nan,  # leaves numpy's global state alone
            "randn": lambda *shape: random.standard_normal(shape),
            "verbose": -9,
        }
        return import_cma().CMAEvolutionStrategy(self._start, self.config.sigma, options)

    def _measure_inputs(self) -> None:
        """Give the policy the mean and variance of its inputs under random play."""
        random = np.random.default_rng(self.seed)
        observations, _ = _reset(self.envs, _seeds(self.seed, 0, RANDOM_PLAY, self.envs.num_envs))
        seen = [observations]
        for _ in range(MEASURED_STEPS):
            actions = np.stack([self.policy.actions.uniform(random) for _ in range(self.envs.num_envs)])
            seen.append(self.envs.step(actions)[0])
        self.policy.inputs.observe(torch.from_numpy(np.concatenate(seen)))

    @torch.no_grad()
    def _play(self, candidates: NDArray[np.float64], generation: int, purpose: int) -> tuple[NDArray[np.float64], int]:
        """Mean returns (C,) of candidates (C, parameters) over the first episodes of their rows; env steps taken."""
        count, rows = len(candidates), self.envs.num_envs
        each = rows // count
        owner = np.minimum(np.arange(rows) // each, count - 1)  # the rows left over follow the last, and do not count
        weight, bias = _split(self.policy, torch.from_numpy(candidates).float())
        weight, bias = weight[owner], bias[owner]  # (B, A, F), (B, A)
        seeds = _seeds(self.seed, generation, purpose, each)
        observations, _ = _reset(self.envs, [seeds[row % each] for row in range(rows)])
        returns, running = np.zeros(rows), np.arange(rows) < count * each
        steps = 0
        while running.any():
            features = self.policy.trunk(self.policy.inputs(torch.from_numpy(observations)))  # (B, F)
            output = torch.einsum("baf,bf->ba", weight, features) + bias
            raw = self.policy.actions.distribution(output, torch.zeros(output.shape[-1])).mode()
            observations, rewards, terminated, truncated, _ = self.envs.step(self.policy.actions.decode(raw))
            returns[running] += np.asarray(rewards, np.float64)[running]
            running &= ~(terminated | truncated)
            steps += rows
        if not np.isfinite(returns).all():
            raise ValueError("The vector env gave rewards that are not finite.")
        return returns[: count * each].reshape(count, each).mean(1), steps


def controller_spec(envs: Envs) -> NetworkSpec:
    """A linear policy that takes its likeliest action, with at most MOST_PARAMETERS parameters; of a world model's
    features it sees latents and belief.

    Raises UnusableSpaceError for pixels and for more actions than parameters allow.
    """
    spec = network_spec(envs, ())
    if spec.pixels:
        raise UnusableSpaceError("CMA-ES evolves a linear controller on features, not on pixels: observe features.")
    actions, features = ActionCoder(spec.action_space).size, build_trunk(spec)[1]
    most = MOST_PARAMETERS // actions - 1  # a bias is a parameter too
    if most < 1:
        raise UnusableSpaceError(f"{actions} actions leave no parameter of {MOST_PARAMETERS} for what is observed.")
    return replace(spec, reads=most if features > most else 0, deterministic=True)


def _parameters(policy: PolicyNetwork) -> NDArray[np.float64]:
    """Weights and biases of the controller as one vector."""
    flat = torch.cat([policy.head.weight.detach().flatten(), policy.head.bias.detach()])
    return flat.double().numpy()


def _set_parameters(policy: PolicyNetwork, parameters: NDArray[np.float64]) -> None:
    weight, bias = _split(policy, torch.from_numpy(parameters).float())
    with torch.no_grad():
        policy.head.weight.copy_(weight)
        policy.head.bias.copy_(bias)


def _split(policy: PolicyNetwork, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """(..., parameters) -> weights (..., A, F) and biases (..., A)."""
    actions = policy.actions.size
    weight, bias = parameters[..., :-actions], parameters[..., -actions:]
    return weight.unflatten(-1, (actions, -1)), bias


def _seeds(seed: int, generation: int, purpose: int, count: int) -> list[int]:
    """`count` seeds in [0, 2**31), other ones for each purpose."""
    return (np.random.SeedSequence([seed, generation, purpose]).generate_state(count) >> 1).tolist()


def _reset(envs: Envs, seeds: list[int]) -> Any:
    """Gymnasium's own vector envs take a list of seeds; their annotation says less."""
    return envs.reset(seed=cast(int, seeds))


def import_cma() -> Any:
    """The package `cma`, which only this module needs. Raises AgentConfigError where it is missing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no matplotlib
            import cma
    except ModuleNotFoundError:
        raise AgentConfigError("kind is cma_es, which needs the package cma: pip install 'worldsim-rl[cma]'") from None
    return cma
