"""Test results as rewards: which tests passed, how many, and how hard they were for the group.

A test result is a signal with the test as its ``item``: 1 passed, 0 failed, without a value where the test could not
be run. What ``task.data`` lists under the signal's name (``task.data["fail_to_pass"]``, …) must all be there: a run
that was cut short is unmeasured, not half right.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentgym.errors import ConfigError, TaskError
from agentgym.reward import Amount, Scope, Shaper, finite, per_group, per_trajectory
from agentgym.types import Group, Trajectory

from .gates import passed

Reals = NDArray[np.float64]


def pass_ratio(*, patch: str = "patch", fixed: str = "fail_to_pass", kept: str = "pass_to_pass") -> Shaper:
    """Return the share of tests that pass, those to be fixed and those to be kept together; 0 without a patch.

    ``(F2P passed + P2P passed) / (F2P + P2P)``. Source: "A Practitioner's Guide to Multi-turn Agentic RL", its SWE
    reward. Most tests to be kept pass as things stand, so that a patch which does nothing is paid almost all of it:
    the signal ``patch`` shuts out the empty one only, and `resolved` any that fixes too little.
    """

    def ratio(trajectory: Trajectory) -> Amount:
        results = [*_final_results(trajectory, fixed), *_final_results(trajectory, kept)]
        known = [result for result in results if result is not None]
        return sum(known) / len(known) if results and len(known) == len(results) else None

    return _of_tests("pass_ratio", ratio, fixed, kept).when(passed(patch))


def resolved(*, patch: str = "patch", fixed: str = "fail_to_pass", kept: str = "pass_to_pass") -> Shaper:
    """Return 1 where all tests pass, those to be fixed and those to be kept, else 0 (SWE-bench's "resolved").

    One failure decides, whatever else could not be run.
    """

    def all_pass(trajectory: Trajectory) -> Amount:
        results = [*_final_results(trajectory, fixed), *_final_results(trajectory, kept)]
        if 0.0 in results:
            return 0.0
        return None if not results or None in results else 1.0

    return _of_tests("resolved", all_pass, fixed, kept).when(passed(patch))


@dataclass(frozen=True, slots=True)
class Density:
    """How VeRPO weighs tests by how often the group passes them. The paper gives no ``sigma`` and no ``delta``.

    Raises:
        ConfigError: a parameter is not finite, ``sigma`` is not above 0, or ``alpha`` or ``delta`` below it.
    """

    sigma: float
    "Width of the kernel: tests whose pass rates are this near share their weight."
    delta: float
    "Added to the density, so that nothing is divided by 0."
    alpha: float = 2.0
    "How much more a hard test weighs."

    def __post_init__(self) -> None:
        for name, value in (("sigma", self.sigma), ("delta", self.delta), ("alpha", self.alpha)):
            finite(f"{name} of a density", value)
        if self.sigma <= 0 or self.delta < 0 or self.alpha < 0:
            raise ConfigError(
                f"a density needs sigma above 0, and delta and alpha of 0 or more; got sigma={self.sigma:g}, "
                f"delta={self.delta:g}, alpha={self.alpha:g}"
            )

    def weights(self, rate_J: Reals) -> Reals:
        """Return the weight of each test, (J,), from the rate at which it passes, (J,) in [0, 1].

        ``w'_j = exp(−α ρ_j) / (N̂_j + δ)`` with ``N̂_j = Σ_j' exp(−(ρ_j − ρ_j')² / 2σ²)``. Tests with the same rate
        have the same weight and are counted together, so that the cost is quadratic in the different rates only.
        """
        rate_K, kind_J, count_K = np.unique(rate_J, return_inverse=True, return_counts=True)
        distance_KK = (rate_K[:, None] - rate_K[None, :]) / self.sigma
        density_K = np.exp(-0.5 * distance_KK**2) @ count_K
        weight_K: Reals = np.exp(-self.alpha * rate_K) / (density_K + self.delta)
        return weight_K[kind_J]


def weighted_tests(density: Density, *, scope: Scope = "turn", name: str = "tests", normalised: bool = True) -> Shaper:
    """Return VeRPO's dense reward: the weights of the tests that pass, ``Σ_j w'_j p_j``, at each turn that ran them.

    Weights are worked out over the group: ``ρ_j`` is the share of turns (trajectories, for that scope) at which test
    ``j`` passed, of those at which it could be run; a test that could be run at none is left out. Weights sum to 1
    here; as published (``normalised=False``) the scale changes with the task and has no upper end. A turn at which a
    test could not be run, or none was, is unmeasured.

    Each turn is paid for all that passes at it, so the sum grows with the turns: the paper's advantage takes the mean
    over all turns of the group away, and without that a passing answer is worth repeating. Source: arXiv 2601.03525.

    Breaks *bounded*: every turn is paid for all that passes at it. Breaks *prefix-only*: how hard a test is shows
    over the whole group.
    """

    def amounts(group: Group) -> Sequence[Amount | Sequence[Amount]]:
        passed_MJ, rows_G = _results(group, name, scope)
        passed_MJ = passed_MJ[:, ~np.isnan(passed_MJ).all(axis=0)]  # what nobody could run says nothing of anyone
        weight_J = density.weights(np.nanmean(passed_MJ, axis=0)) if passed_MJ.size else np.empty(0)
        share_J = weight_J / weight_J.sum() if normalised else weight_J
        paid_M = passed_MJ @ share_J if passed_MJ.size else np.full(len(passed_MJ), np.nan)
        if scope == "turn":
            return [paid_M[start:end].tolist() for start, end in rows_G]
        return [float(paid_M[start]) for start, _ in rows_G]

    high = 1.0 if normalised else math.inf
    return per_group(
        "weighted_tests", amounts, scope=scope, signals={name}, needs=f"'{name}' of every test", low=0.0, high=high
    )


def _of_tests(name: str, function: Callable[[Trajectory], Amount], *signals: str) -> Shaper:
    needs = f"{' and '.join(map(repr, signals))} of every test"
    return per_trajectory(name, function, scope="trajectory", signals=signals, needs=needs, low=0.0, high=1.0)


def _listed(trajectory: Trajectory, name: str) -> tuple[str, ...]:
    """Return the tests that the task lists under ``name``."""
    tests = trajectory.task.data.get(name, ())
    if isinstance(tests, str) or not isinstance(tests, Sequence) or not all(isinstance(test, str) for test in tests):
        raise TaskError(f"task '{trajectory.task.id}': data['{name}'] must list the names of tests; found {tests!r}")
    return tuple(tests)


def _final_results(trajectory: Trajectory, name: str) -> list[float | None]:
    """Return what became of each test ``name`` of the whole trajectory; None where it was not, or could not be, run."""
    results: dict[str, float | None] = dict.fromkeys(_listed(trajectory, name))
    for signal in trajectory.signals:
        if signal.name == name and signal.turn is None:
            results[signal.item] = signal.value
    return list(results.values())


def _results(group: Group, name: str, scope: Scope) -> tuple[Reals, list[tuple[int, int]]]:
    """Return which tests passed, (M, J), NaN where not run, and the first row and the end of each trajectory's."""
    found = [
        (g, signal)
        for g, trajectory in enumerate(group.trajectories)
        for signal in trajectory.signals
        if signal.name == name and (signal.turn is None) == (scope == "trajectory")
    ]
    listed = [test for trajectory in group.trajectories for test in _listed(trajectory, name)]
    column = {test: j for j, test in enumerate(dict.fromkeys([*listed, *(signal.item for _, signal in found)]))}
    rows = [len(trajectory.turns) if scope == "turn" else 1 for trajectory in group.trajectories]
    ends = np.cumsum([0, *rows]).tolist()
    passed_MJ = np.full((ends[-1], len(column)), np.nan)
    for g, signal in found:
        value = np.nan if signal.value is None else signal.value
        passed_MJ[ends[g] + (signal.turn or 0), column[signal.item]] = value
    return passed_MJ, list(itertools.pairwise(ends))


__all__ = ["Density", "pass_ratio", "resolved", "weighted_tests"]
