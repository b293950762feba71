"""Eyes or learning: what the policy's network becomes if somebody who knows teaches it.

    python -m benchmarks.taught_policy take_cover --out taught
    python -m benchmarks.taught_policy take_cover --feature-frames 8 --out O
    python -m benchmarks.taught_policy take_cover --stack-ages 0 1 2 4 --seconds 180 --out O

No dream and no rewards: in the real env the planner of `benchmarks.take_cover_ceiling`, which is told of every fireball
that was seen, says at each step what each action risks; the network sees what the world model's agents see, features or
decoded frames, and learns to take what risks least. From the second round on the pupil plays and the planner judges, so
that the pupil learns what it meets (DAgger: Ross et al. 2011). What it scores is what these eyes allow at so many
labelled steps. A policy that learned in dreams and is far below it lacks learning; one that is not, lacks eyes, or what
it is shown.

Printed after each round: the risk that the likeliest action has beyond the least, on steps learned from and on held-out
episodes, beside the best constant action's; and the pupil's mean return. At the end its score on 64 other episodes. OUT
gets taught.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.take_cover_ceiling import KNOWLEDGE, Planner, planner_of
from worldsim import envs
from worldsim.agents.dagger import teaching_losses
from worldsim.agents.networks import PolicyNetwork, network_spec
from worldsim.agents.pictures import Pictures
from worldsim.data.files import write_json
from worldsim.dream import DreamVectorEnv
from worldsim.evaluation.statistics import bootstrap_interval
from worldsim.model_folder import find_model
from worldsim.rollouts import Env, play_side_by_side, several
from worldsim.workflow.policies import SIDE_BY_SIDE, DreamTrainedPolicy, EachRow
from worldsim.workflow.reality import env_config
from worldsim.workflow.showing import load_here
from worldsim.world_model import WorldModel

HIDDEN = (256, 256)
STRIDES = ((4, 2), (4, 2), (4, 1))  # of convolutions on frames, as in configs/take_cover.yaml
SHARPNESS = 0.05  # of the teacher's choice: actions that risk so much more are e times less wanted
MIRROR = [0, 2, 1]  # none, right and left as a mirror shows them: pictures are learned from both ways
RISK_WEIGHT = 2.0
TEACHER_NOISE = 0.15  # share of random actions while the teacher plays: it must show how to get out of trouble
HELD_OUT = 8  # every so many-th episode
JUDGED, JUDGE_SEED = 64, 300_000


Seen = NDArray[Any]  # features as float16, or frame stacks as uint8


@dataclass
class Lessons:
    """What was seen, (S, ...), what each action risked, (S, A), and in which episode, (S,): lists of rows."""

    seen: list[Seen] = field(default_factory=list)
    risks: list[NDArray[np.float32]] = field(default_factory=list)
    episodes: list[int] = field(default_factory=list)

    def arrays(self) -> tuple[Seen, NDArray[np.float32], NDArray[np.bool_]]:
        """seen, risks, and which are held out."""
        return np.stack(self.seen), np.stack(self.risks), np.array(self.episodes) % HELD_OUT == 0


class Pupil:
    """An `ObservationPolicy`: the network acts, the teacher where there is none yet; what the teacher says is kept."""

    def __init__(self, planner: Planner, network: PolicyNetwork | None, lessons: Lessons | None) -> None:
        self.planner, self.network, self.lessons = planner, network, lessons

    def reset(self, seed: int) -> None:
        """A new episode."""
        self.planner.reset()
        self.seed, self.random = seed, np.random.default_rng(seed)

    def act(self, observation: NDArray[Any]) -> int:
        """The pupil's likeliest action; the teacher's, and sometimes any."""
        if self.lessons is not None or self.network is None:
            risks = self.planner.risks()
        if self.lessons is not None:
            self.lessons.seen.append(observation if observation.dtype == np.uint8 else observation.astype(np.float16))
            self.lessons.risks.append(risks.astype(np.float32))
            self.lessons.episodes.append(self.seed)
        if self.network is not None:
            return int(self.network.act(observation[None], greedy=True)[0])
        if self.random.random() < TEACHER_NOISE:
            return int(self.random.integers(len(risks)))
        return int(risks.argmin())


def main() -> None:
    """Teach, judge, write."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    folder = find_model(arguments.model)
    model = load_here(folder)
    model.feature_frames = arguments.feature_frames or model.feature_frames
    model.stack_ages = tuple(arguments.stack_ages or model.stack_ages)
    config = env_config(model.spec, folder)
    lessons, network, report = Lessons(), None, []
    with several(partial(envs.make, config), SIDE_BY_SIDE) as real:
        planners = [planner_of(env, model.spec.action_meanings, arguments.knows) for env in real]
        seed = arguments.seed
        for number in range(arguments.rounds):
            returns: list[float] = []
            enough = len(lessons.seen) + arguments.steps
            while len(lessons.seen) < enough:
                returns += play(model, real, planners, network, lessons, range(seed, seed + SIDE_BY_SIDE))
                seed += SIDE_BY_SIDE
            network = pupil(model)
            figures = teach(network, *lessons.arrays(), seconds=arguments.seconds, seed=number)
            report.append({"steps": len(lessons.seen), "return": float(np.mean(returns)), **figures})
            print(
                f"round {number}: " + ", ".join(f"{name} {value:.4g}" for name, value in report[-1].items()), flush=True
            )
        judged: list[float] = []
        for first in range(JUDGE_SEED, JUDGE_SEED + JUDGED, SIDE_BY_SIDE):
            judged += play(model, real, planners, network, None, range(first, first + SIDE_BY_SIDE))
    low, high = bootstrap_interval(judged)
    print(f"taught: {np.mean(judged):.0f} (95 % {low:.0f} to {high:.0f}, {len(judged)} episodes, greedy)")
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out / "taught.json", {"knows": arguments.knows, "rounds": report, "returns": judged})


def play(
    model: WorldModel,
    real: Sequence[Env],
    planners: Sequence[Planner],
    network: PolicyNetwork | None,
    lessons: Lessons | None,
    seeds: range,
) -> list[float]:
    """Returns of an episode in each env; `lessons` grow."""
    rows = iter(planners)  # a policy is made for each row, in order
    policy = DreamTrainedPolicy(model, EachRow(lambda: Pupil(next(rows), network, lessons)))
    return [result.total_reward for result in play_side_by_side(real, policy, list(seeds), keep_frames=False)]


def pupil(model: WorldModel) -> PolicyNetwork:
    """A network that knows nothing yet, as an agent begins with."""
    rows = DreamVectorEnv(model, 1, observation=model.agent_observation)
    network = PolicyNetwork(network_spec(rows, HIDDEN, STRIDES), torch.Generator().manual_seed(0))
    network.convolve_in(model.dtype)
    return network


def teach(
    network: PolicyNetwork,
    seen: Seen,
    risks: NDArray[np.float32],
    held_out: NDArray[np.bool_],
    *,
    seconds: float,
    seed: int,
    batch: int = 256,
    learning_rate: float = 1e-3,
) -> dict[str, float]:
    """Train for some CPU seconds; what the likeliest action risks beyond the least, on both kinds of steps."""
    random = np.random.default_rng(seed)
    learned, kept = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    network.inputs.observe(_rows(seen, learned[::7]))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    begin, updates = time.process_time(), 0
    while (done := (time.process_time() - begin) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (updates + 1) / 100) * (1 - done)
        chosen = random.choice(learned, batch)
        shown, risked = _rows(seen, chosen), torch.from_numpy(risks[chosen])
        if isinstance(network.inputs, Pictures) and updates % 2:
            shown, risked = mirrored(shown, network.inputs.planes), risked[:, MIRROR]
        loss = loss_of(network(shown).log_probs, risked)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        updates += 1
    some = random.choice(learned, min(len(learned), 4000), replace=False)
    constant = float(_excess(risks[kept]).mean(0).min()) if len(kept) else float("nan")
    return {
        "updates": updates,
        "excess_learned": excess_risk(network, seen, risks, some),
        "excess_held_out": excess_risk(network, seen, risks, kept),
        "excess_of_a_constant": constant,
    }


def loss_of(logits: Tensor, risks: Tensor) -> Tensor:
    """Cross-entropy to a soft choice of what risks least, and the expected excess risk. logits, risks: (B, A)."""
    return teaching_losses(logits.log_softmax(1), risks, SHARPNESS, RISK_WEIGHT).mean()


@torch.no_grad()
def excess_risk(network: PolicyNetwork, seen: Seen, risks: NDArray[np.float32], steps: NDArray[np.int64]) -> float:
    """Mean over `steps` of what the likeliest action risks beyond the least; NaN without any."""
    found = []
    for part in np.array_split(steps, max(1, len(steps) // 1000)):
        likeliest = network(_rows(seen, part)).log_probs.argmax(1).numpy()
        found.append(_excess(risks[part])[np.arange(len(part)), likeliest])
    return float(np.concatenate(found).mean()) if len(steps) else float("nan")


def mirrored(stacks: Tensor, planes: int) -> Tensor:
    """Frame stacks (B, H, W, K C + A) as a mirror shows them; planes: A, those of the last action."""
    frames, told = stacks.tensor_split([stacks.shape[3] - planes], dim=3)
    return torch.cat([frames.flip(2), told[..., MIRROR]], dim=3)


def _excess(risks: NDArray[np.float32]) -> NDArray[np.float32]:
    return risks - risks.min(1, keepdims=True)


def _rows(seen: Seen, rows: NDArray[np.int64]) -> Tensor:
    chosen = seen[rows]
    return torch.from_numpy(chosen if chosen.dtype == np.uint8 else chosen.astype(np.float32))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a Take Cover world model: a folder, a run folder, or a released model's name")
    parser.add_argument("--out", type=Path, required=True, help="folder for taught.json")
    parser.add_argument("--knows", choices=KNOWLEDGE, default="remembered", help="what the teacher is told of")
    parser.add_argument("--feature-frames", type=int, help="that the network sees (default: the model's own)")
    parser.add_argument("--stack-ages", type=int, nargs="+", help="of the decoded frames that it sees instead")
    parser.add_argument("--rounds", type=int, default=5, help="of playing and learning (default: 5)")
    parser.add_argument("--steps", type=int, default=16_000, help="labelled in each round, at least (default: 16000)")
    parser.add_argument("--seconds", type=float, default=120, help="CPU seconds of learning a round (default: 120)")
    parser.add_argument("--seed", type=int, default=400_000, help="first episode's (default: 400000)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: 1)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
