"""Bias and variance of the advantage estimators, against exact policy gradients.

    python benchmarks/estimators.py            # 200 000 groups of 8 for each process; writes results/estimators.json
    python benchmarks/estimators.py --quick    # 20 000

Each process is a small decision process in which the policy chooses at every turn to go on or to stop, so that how
long an episode lasts, and how many baselines are subtracted, is its own doing. The exact gradient is the sum over all
trajectories of p(τ) R(τ) ∇log p(τ), checked against finite differences of an independent dynamic programme.

The estimate of one group is (1/n) Σ_i Σ_t A_it ∇log π(a_it), with A from the functions the trainer calls
(`agentgym.train.advantage`). Estimators marked † are not in agentgym; they are here for comparison:

* *per-turn-index*: Σ_{u≥t} (r_iu − mean of r_u over the rollouts alive at u), the normalisation by turn index of
  MT-GRPO-style trainers, without the division by a standard deviation.
* *step-weighted mean*: R_i minus the mean of R over all *steps* of the group, as GiGPO's episode term is computed when
  every step is a row.
* *average for lone turns*: ``turn_rtg_loo`` with the moving average only where nobody else is there.
* *lone turn zeroed*: the same with no advantage there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentgym.train.advantage import (
    ESTIMATORS,
    Bools,
    Cells,
    Reals,
    TurnBaseline,
    returns_to_go,
    scaled,
    turn_leave_one_out,
)

GROUP = 8
BATCH = 32
"""Groups in a training batch: what reinforce_pp whitens over, and after which the moving average is updated."""
CHUNK = 250 * BATCH
RESULTS = Path(__file__).parent / "results" / "estimators.json"

CONTINUE, STOP = 0, 1


# ---------------------------------------------------------------------------------------------------- the processes


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """A decision process of ``T`` turns, ``S`` states, two actions and one coin flip after each action.

    In state s at turn t the policy stops with probability sigmoid(features_TSK[t, s] · theta_K). Action a pays
    base_TSA, and bonus_TSA more when the coin, heads with probability heads_TSA, shows heads. Continuing leads to
    next_SX[s, coin]; stopping, or the last turn, ends the episode.
    """

    name: str
    story: str
    theta_K: Reals
    features_TSK: Reals
    base_TSA: Reals
    bonus_TSA: Reals
    heads_TSA: Reals
    next_SX: NDArray[np.int64]

    @property
    def horizon(self) -> int:
        """Number of turns."""
        return len(self.features_TSK)

    def stop_TS(self, theta_K: Reals | None = None) -> Reals:
        """Return the probability of stopping."""
        return np.asarray(1.0 / (1.0 + np.exp(-self.features_TSK @ (self.theta_K if theta_K is None else theta_K))))


def stop_dense(stop: float = 0.25, horizon: int = 8) -> Process:
    """Return the process where every turn of going on pays 1 with probability one half, and stopping nothing."""
    base_TSA = np.zeros((horizon, 1, 2))
    bonus_TSA = np.zeros((horizon, 1, 2))
    bonus_TSA[..., CONTINUE] = 1.0
    story = f"going on pays 1 or 0 by a fair coin at each of {horizon} turns; stop probability {stop}"
    return _memoryless("stop_dense", story, stop, base_TSA, bonus_TSA, np.full((horizon, 1, 2), 0.5))


def stop_terminal(stop: float = 0.4, horizon: int = 8) -> Process:
    """Return the process where only stopping pays: 1 with a chance that rises from 0.2 to 0.8 with the turns.

    The last turn pays only if the policy stops there. At ``stop=0.25`` both pulls cancel and the gradient nearly
    vanishes, so shares of it mean little; the sweep has that point.
    """
    bonus_TSA = np.zeros((horizon, 1, 2))
    bonus_TSA[..., STOP] = 1.0
    heads_TSA = np.broadcast_to(np.linspace(0.2, 0.8, horizon)[:, None, None], (horizon, 1, 2))
    story = f"stopping pays 1 with a chance rising from 0.2 to 0.8 over {horizon} turns; stop probability {stop}"
    return _memoryless("stop_terminal", story, stop, np.zeros((horizon, 1, 2)), bonus_TSA, heads_TSA)


def _memoryless(name: str, story: str, stop: float, base_TSA: Reals, bonus_TSA: Reals, heads_TSA: Reals) -> Process:
    horizon = base_TSA.shape[0]
    theta_K = np.array([np.log(stop / (1.0 - stop))])
    next_SX = np.zeros((1, 2), np.int64)
    return Process(name, story, theta_K, np.ones((horizon, 1, 1)), base_TSA, bonus_TSA, heads_TSA, next_SX)


def work_submit(horizon: int = 6, steps: int = 3) -> Process:
    """Return the chain of work and submission: step rewards for progress, a cost per turn, an outcome at the end."""
    states = steps + 1
    progress_S = np.arange(states) / steps
    features_TSK = np.broadcast_to(np.stack([np.ones(states), progress_S], -1), (horizon, states, 2))
    base_TSA = np.full((horizon, states, 2), -0.05)
    bonus_TSA = np.zeros((horizon, states, 2))
    bonus_TSA[:, :-1, CONTINUE] = 0.2
    bonus_TSA[:, :, STOP] = 1.0
    heads_TSA = np.full((horizon, states, 2), 0.6)
    heads_TSA[:, :, STOP] = 0.9 * progress_S
    next_SX = np.stack([np.arange(states), np.minimum(np.arange(states) + 1, steps)], -1)
    story = (
        f"work succeeds with 0.6 and pays 0.2 for each of {steps} steps; every turn costs 0.05; submitting pays 1 with"
        f" chance 0.9·progress; {horizon} turns; the stop logit is −2 + 2·progress (two parameters)"
    )
    theta_K = np.array([-2.0, 2.0])
    return Process("work_submit", story, theta_K, features_TSK, base_TSA, bonus_TSA, heads_TSA, next_SX)


# --------------------------------------------------------------------------------------------------- exact gradients


def trajectories(process: Process) -> Iterator[tuple[float, float, Reals]]:
    """Yield probability, return and ∇log p of every trajectory."""
    stop_TS = process.stop_TS()

    def walk(t: int, s: int, p: float, paid: float, score_K: Reals) -> Iterator[tuple[float, float, Reals]]:
        if t == process.horizon:
            yield p, paid, score_K
            return
        stop = float(stop_TS[t, s])
        feature_K = process.features_TSK[t, s]
        for action, p_action, slope in ((CONTINUE, 1.0 - stop, -stop), (STOP, stop, 1.0 - stop)):
            heads = float(process.heads_TSA[t, s, action])
            for coin, p_coin in ((0, 1.0 - heads), (1, heads)):
                if p_coin == 0.0:
                    continue
                pay = float(process.base_TSA[t, s, action] + coin * process.bonus_TSA[t, s, action])
                then = process.horizon if action == STOP else t + 1
                state = int(process.next_SX[s, coin])
                yield from walk(then, state, p * p_action * p_coin, paid + pay, score_K + slope * feature_K)

    yield from walk(0, 0, 1.0, 0.0, np.zeros(len(process.theta_K)))


def exact_gradient(process: Process) -> Reals:
    """Return ∇J = Σ_τ p(τ) R(τ) ∇log p(τ)."""
    total_K = np.zeros(len(process.theta_K))
    for p, paid, score_K in trajectories(process):
        total_K += p * paid * score_K
    return total_K


def exact_values(process: Process, theta_K: Reals | None = None) -> Reals:
    """Return the value V[t, s] under the policy, by backward induction."""
    stop_TS = process.stop_TS(theta_K)
    reward_TSA = process.base_TSA + process.heads_TSA * process.bonus_TSA
    value_TS = np.zeros((process.horizon + 1, stop_TS.shape[1]))
    for t in reversed(range(process.horizon)):
        heads_S = process.heads_TSA[t, :, CONTINUE]
        next_S = (1 - heads_S) * value_TS[t + 1, process.next_SX[:, 0]] + heads_S * value_TS[
            t + 1, process.next_SX[:, 1]
        ]
        go_on_S = reward_TSA[t, :, CONTINUE] + next_S
        value_TS[t] = (1 - stop_TS[t]) * go_on_S + stop_TS[t] * reward_TSA[t, :, STOP]
    return value_TS[:-1]


def difference_gradient(process: Process, step: float = 1e-6) -> Reals:
    """Return ∇J by central differences of V[0, 0]."""
    theta_K = process.theta_K
    moves = step * np.eye(len(theta_K))
    ahead_K = [exact_values(process, theta_K + move_K)[0, 0] for move_K in moves]
    behind_K = [exact_values(process, theta_K - move_K)[0, 0] for move_K in moves]
    return np.asarray((np.array(ahead_K) - np.array(behind_K)) / (2 * step))


# ------------------------------------------------------------------------------------------------------- the samples


@dataclass(frozen=True, slots=True, eq=False)
class Sampled:
    """Groups drawn from a process; ``B`` counts groups."""

    reward_BGT: Reals
    alive_BGT: Bools
    value_BGT: Reals
    "Exact value of the state before each turn."
    score_BGTK: Reals
    "∇log π of the action taken, 0 on turns not reached."

    def cells(self) -> Cells:
        """Return the grid the estimators take."""
        return Cells(self.reward_BGT, self.alive_BGT)


def draw(process: Process, rng: np.random.Generator, groups: int, size: int = GROUP) -> Sampled:
    """Draw ``groups`` groups of ``size`` rollouts."""
    shape = (groups, size, process.horizon)
    stop_TS, value_TS = process.stop_TS(), exact_values(process)
    reward, alive, value = np.zeros(shape), np.zeros(shape, np.bool_), np.zeros(shape)
    score = np.zeros((*shape, len(process.theta_K)))
    here, state = np.ones(shape[:2], np.bool_), np.zeros(shape[:2], np.int64)
    for t in range(process.horizon):
        stop = stop_TS[t, state]
        action = (rng.random(shape[:2]) < stop).astype(np.int64)
        coin = (rng.random(shape[:2]) < process.heads_TSA[t, state, action]).astype(np.int64)
        alive[..., t] = here
        value[..., t] = here * value_TS[t, state]
        reward[..., t] = here * (process.base_TSA[t, state, action] + coin * process.bonus_TSA[t, state, action])
        score[..., t, :] = (here * (action - stop))[..., None] * process.features_TSK[t, state]
        here = here & (action == CONTINUE)
        state = process.next_SX[state, coin]
    return Sampled(reward, alive, value, score)


# ---------------------------------------------------------------------------------------------------- the estimators

Advantage = Callable[[Sampled, "MovingAverage"], Reals]


class MovingAverage:
    """The trainer's moving average: read for a batch of `BATCH` groups, then updated with it."""

    def __init__(self) -> None:
        self.baseline = TurnBaseline()

    def prior_BT(self, drawn: Sampled) -> Reals:
        """Return for each group the average as it stood before the group's batch."""
        groups, _, turns = drawn.reward_BGT.shape
        before = []
        for start in range(0, groups, BATCH):
            rows = slice(start, start + BATCH)
            before.append(self.baseline.values(turns))
            self.baseline.absorb(Cells(drawn.reward_BGT[rows], drawn.alive_BGT[rows]))
        return np.repeat(np.stack(before), BATCH, axis=0)[:groups]


def shipped(name: str) -> Advantage:
    """Return the shipped estimator ``name``, with its own normalisation, without a moving average."""
    estimator = ESTIMATORS[name]

    def advantage(drawn: Sampled, _: MovingAverage) -> Reals:
        cells = drawn.cells()
        raw, known = estimator.advantage(cells), estimator.known(cells)
        if estimator.own_scale == "group":
            return estimator.normalise(raw, known)
        if estimator.own_scale == "batch":
            rows = (-1, BATCH * raw.shape[1], raw.shape[2])
            return estimator.normalise(raw.reshape(rows), known.reshape(rows)).reshape(raw.shape)
        return raw

    return advantage


def with_average(drawn: Sampled, average: MovingAverage) -> Reals:
    """The default: turn_rtg_loo, with the moving average in the place of missing siblings."""
    return turn_leave_one_out(replace(drawn.cells(), prior_T=average.prior_BT(drawn)))


def with_average_scaled(drawn: Sampled, average: MovingAverage) -> Reals:
    """The default, with ``scale="group"``."""
    return scaled(with_average(drawn, average), drawn.alive_BGT)


def lone_zeroed(drawn: Sampled, _: MovingAverage) -> Reals:
    """turn_rtg_loo without credit where nobody else is there."""
    return np.where(drawn.alive_BGT.sum(1, keepdims=True) > 1, turn_leave_one_out(drawn.cells()), 0.0)


def lone_average(drawn: Sampled, average: MovingAverage) -> Reals:
    """turn_rtg_loo with the moving average for lone turns alone, not for missing siblings."""
    prior_B1T = average.prior_BT(drawn)[:, None, :]
    lone_BGT = drawn.alive_BGT & (drawn.alive_BGT.sum(1, keepdims=True) == 1)
    return turn_leave_one_out(drawn.cells()) - np.where(lone_BGT, prior_B1T, 0.0)


def exact_value(drawn: Sampled, _: MovingAverage) -> Reals:
    """gae with γ = λ = 1 and the exact value function."""
    return ESTIMATORS["gae"].advantage(replace(drawn.cells(), values_GT=drawn.value_BGT))


def zero_value(drawn: Sampled, _: MovingAverage) -> Reals:
    """gae with γ = λ = 1 and an untrained critic that says 0."""
    return ESTIMATORS["gae"].advantage(replace(drawn.cells(), values_GT=np.zeros_like(drawn.value_BGT)))


def per_turn_index(drawn: Sampled, _: MovingAverage) -> Reals:
    """Σ_{u≥t} (r_iu − mean of r_u over all rollouts alive at u)."""
    alive = drawn.alive_BGT
    mean = (drawn.reward_BGT * alive).sum(1, keepdims=True) / np.maximum(alive.sum(1, keepdims=True), 1)
    return np.where(alive, returns_to_go(np.where(alive, drawn.reward_BGT - mean, 0.0)), 0.0)


def step_weighted_mean(drawn: Sampled, _: MovingAverage) -> Reals:
    """R_i − mean of R over the group's steps."""
    alive = drawn.alive_BGT
    total = drawn.reward_BGT.sum(-1, keepdims=True)
    mean = (total * alive).sum((1, 2), keepdims=True) / alive.sum((1, 2), keepdims=True)
    return np.where(alive, total - mean, 0.0)


ROWS: dict[str, Advantage] = {
    "rloo": shipped("rloo"),
    "turn_rtg_loo": with_average,
    "turn_rtg_loo, no average": shipped("turn_rtg_loo"),
    "turn_rtg_loo, scale group": with_average_scaled,
    "dr_grpo": shipped("dr_grpo"),
    "grpo": shipped("grpo"),
    "reinforce_pp": shipped("reinforce_pp"),
    "gae, exact values": exact_value,
    "gae, zero values": zero_value,
    "per-turn-index †": per_turn_index,
    "step-weighted mean †": step_weighted_mean,
    "average for lone turns †": lone_average,
    "lone turn zeroed †": lone_zeroed,
}


# ---------------------------------------------------------------------------------------------------- the measurement


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of one estimator on one process."""

    estimator: str
    share: float
    "Mean estimate along the true gradient, as a share of it: 1 is unbiased."
    share_se: float
    cosine: float
    "Between the mean estimate and the true gradient."
    z: float
    "Largest distance of the mean from the truth over the parameters, in standard errors."
    sd: float
    "Standard deviation of one group's estimate (root of the summed variances of the parameters)."
    variance_ratio: float
    "Variance relative to rloo's."
    equal_mean_ratio: float
    "The same once both are scaled to the same mean along the true gradient: the noise a step size cannot undo."
    rescaled_bias: float
    "share / c − 1 for an estimator with a known constant factor c; else share − 1."


class Moments:
    """Running sums of the estimates of groups, and of the means of batches."""

    def __init__(self, parameters: int) -> None:
        self.groups = self.batches = 0
        self.sum_K = np.zeros(parameters)
        self.squares = 0.0
        self.batch_outer_KK = np.zeros((parameters, parameters))

    def add(self, gradient_BK: Reals) -> None:
        """Take in the estimates of some groups, a multiple of `BATCH`."""
        batch_K = gradient_BK.reshape(-1, BATCH, gradient_BK.shape[1]).mean(1)
        self.groups += len(gradient_BK)
        self.batches += len(batch_K)
        self.sum_K += gradient_BK.sum(0)
        self.squares += float((gradient_BK**2).sum())
        self.batch_outer_KK += batch_K.T @ batch_K

    def row(self, name: str, exact_K: Reals, rloo_variance: float | None) -> Row:
        """Return the row of the table."""
        mean_K = self.sum_K / self.groups
        variance = self.squares / self.groups - float(mean_K @ mean_K)
        covariance_KK = (self.batch_outer_KK / self.batches - np.outer(mean_K, mean_K)) / self.batches
        along_K = exact_K / float(exact_K @ exact_K)
        share = float(mean_K @ along_K)
        known_factor = (GROUP - 1) / GROUP if name == "dr_grpo" else 1.0
        return Row(
            estimator=name,
            share=share,
            share_se=float(np.sqrt(along_K @ covariance_KK @ along_K)),
            cosine=float(mean_K @ exact_K / np.linalg.norm(mean_K) / np.linalg.norm(exact_K)),
            z=float(np.max(np.abs(mean_K - exact_K) / np.sqrt(np.diag(covariance_KK)))),
            sd=float(np.sqrt(variance)),
            variance_ratio=variance / (rloo_variance or variance),
            equal_mean_ratio=variance / (rloo_variance or variance) / share**2,
            rescaled_bias=share / known_factor - 1.0,
        )


def measure(process: Process, groups: int, seed: int, rows: dict[str, Advantage], size: int = GROUP) -> list[Row]:
    """Return one row for each estimator, all on the same samples; ``rows`` starts with rloo."""
    rng = np.random.default_rng(seed)
    exact_K = difference_gradient(process)
    moments = {name: Moments(len(exact_K)) for name in rows}
    averages = {name: MovingAverage() for name in rows}
    for start in range(0, groups, CHUNK):
        drawn = draw(process, rng, min(CHUNK, groups - start), size)
        for name, advantage in rows.items():
            weight_BGT = advantage(drawn, averages[name])
            moments[name].add(np.einsum("bgt,bgtk->bk", weight_BGT, drawn.score_BGTK) / size)
    result: list[Row] = []
    for name in rows:
        result.append(moments[name].row(name, exact_K, result[0].sd ** 2 if result else None))
    return result


# --------------------------------------------------------------------------------------------------------- the report

SWEEP_ROWS = ("rloo", "turn_rtg_loo", "turn_rtg_loo, no average", "average for lone turns †", "gae, exact values")
SWEEP = tuple(itertools.product((stop_dense, stop_terminal), (4, 8, 16), (0.1, 0.25, 0.4, 0.6)))
UNBIASED = ("rloo", "turn_rtg_loo")
CEILINGS = {"stop_dense": 0.60, "stop_terminal": 1.15}
"""Largest variance of turn_rtg_loo that we accept, relative to rloo's."""


def report(process: Process, rows: list[Row], groups: int) -> str:
    """Return the markdown table of one process."""
    gradient = ", ".join(f"{g:.4f}" for g in exact_gradient(process))
    lines = [
        f"### {process.name}",
        "",
        f"{process.story}. Exact gradient ({gradient}); {groups} groups of {GROUP}.",
        "",
        "| estimator | mean / true | bias % | bias % less known factor | cosine | z | sd | variance / rloo |"
        " same at equal mean |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r.estimator} | {r.share:.4f} ± {r.share_se:.4f} | {100 * (r.share - 1):+.1f} |"
            f" {100 * r.rescaled_bias:+.1f} | {r.cosine:.4f} | {r.z:.1f} | {r.sd:.4f} | {r.variance_ratio:.3f} |"
            f" {r.equal_mean_ratio:.2f} |"
        )
    return "\n".join(lines)


def sweep(groups: int, seed: int) -> list[dict[str, Any]]:
    """Return variance ratios over stop probabilities and horizons."""
    found = []
    for make, horizon, stop in SWEEP:
        process = make(stop, horizon)
        rows = measure(process, groups, seed, {name: ROWS[name] for name in SWEEP_ROWS})
        ratios = {r.estimator: r.variance_ratio for r in rows[1:]}
        gradient = float(difference_gradient(process)[0])
        point = {"process": process.name, "stop": stop, "horizon": horizon, "gradient": gradient}
        found.append({**point, "z": rows[1].z, "ratios": ratios})
    return found


def sweep_report(found: list[dict[str, Any]], groups: int) -> str:
    """Return the markdown table of the sweep."""
    names = SWEEP_ROWS[1:]
    lines = [
        "### Where it holds, and where not",
        "",
        f"Variance relative to rloo's, and z of turn_rtg_loo; {groups} groups of {GROUP} at each point.",
        "",
        f"| process | turns | stop | true gradient | z | {' | '.join(names)} |",
        "|---" * (5 + len(names)) + "|",
    ]
    for point in found:
        ratios = " | ".join(f"{point['ratios'][name]:.2f}" for name in names)
        lines.append(
            f"| {point['process']} | {point['horizon']} | {point['stop']} | {point['gradient']:.4f} |"
            f" {point['z']:.1f} | {ratios} |"
        )
    return "\n".join(lines)


def failures(tables: dict[str, list[Row]]) -> list[str]:
    """Return which of our claims the measurement contradicts."""
    found = []
    for process, rows in tables.items():
        for r in rows:
            if r.estimator in UNBIASED and r.z > 3.0:
                found.append(f"{r.estimator} is {r.z:.1f} standard errors off on {process}")
            if r.estimator == "turn_rtg_loo" and r.variance_ratio > CEILINGS.get(process, np.inf):
                found.append(f"variance of turn_rtg_loo is {r.variance_ratio:.2f} of rloo's on {process}")
    return found


def machine() -> dict[str, Any]:
    """Return what the numbers were made on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "utc": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write; return 1 where a claim fails."""
    parser = argparse.ArgumentParser(description="Bias and variance of the advantage estimators.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the groups")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help=f"where the JSON goes (default: {RESULTS.name}, nowhere with --quick)")
    args = parser.parse_args(argv)
    groups, points = (20_000, 3_200) if args.quick else (200_000, 20_000)
    out = args.out or (None if args.quick else RESULTS)

    started = time.perf_counter()
    processes = (stop_dense(), stop_terminal(), work_submit())
    tables = {process.name: measure(process, groups, args.seed, ROWS) for process in processes}
    for process in processes:
        print(report(process, tables[process.name], groups), end="\n\n")
    found = sweep(points, args.seed)
    print(sweep_report(found, points), end="\n\n")
    broken = failures(tables)
    print("\n".join(f"FAILED: {line}" for line in broken) or "All claims hold.")
    if out is not None:
        result = {
            "machine": machine(),
            "seconds": round(time.perf_counter() - started, 1),
            "seed": args.seed,
            "group": GROUP,
            "batch": BATCH,
            "groups": groups,
            "exact_gradients": {p.name: exact_gradient(p).tolist() for p in processes},
            "tables": {name: [asdict(r) for r in rows] for name, rows in tables.items()},
            "sweep_groups": points,
            "sweep": found,
            "failures": broken,
        }
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
