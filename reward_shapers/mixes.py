"""How published methods put an outcome and a reward for the way there together.

Each takes rewards on a unit scale, with their range declared, so that a weight means the same whatever it weighs:
``signal("thinking", scope="trajectory", low=0, high=1)``, or a transform that brings it there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agentgym.claims import Claim, Measured
from agentgym.errors import ConfigError
from agentgym.reward import Gate, Openness, Rewrite, Shaper, above, finite

from .gates import before_last, proportional, sign_shift
from .schedules import annealing, scheduled


def posterior(outcome: Shaper, process: Shaper, form: Shaper | None = None) -> Shaper:
    """Return ``R_f + R_o + R_o·R_t``: Posterior-GRPO, arXiv 2508.05170.

    The process counts only where the outcome succeeds, and tells apart those that all do. How the source brings its
    reward model's score to 0 … 1 is not published: ``process`` comes on that scale.

    Keeps *sign consistency*.
    """
    _check_unit(outcome, process, *([form] if form else []))
    reward = outcome + process.when(proportional(outcome))
    return form + reward if form else reward


def citation(outcome: Shaper, rubric: Shaper, *, alpha: float = 0.3) -> Shaper:
    """Return ``1[R_o = 1]·((1−α)·R_o + α·R_r / max_G R_r)``: C-GRPO, arXiv 2601.06021.

    The best of the group is taken over all rollouts, failed ones included. The shipped code works this quotient out
    and then uses R_r itself; `citation_unscaled` does that. The paper's is ours.

    Keeps *sign consistency*.
    """
    return _citation(outcome, rubric, over_best(rubric), alpha)


def citation_unscaled(outcome: Shaper, rubric: Shaper, *, alpha: float = 0.3) -> Shaper:
    """Return ``1[R_o = 1]·((1−α)·R_o + α·R_r)``: C-GRPO as its repository ships it.

    Keeps *sign consistency*.
    """
    return _citation(outcome, rubric, rubric, alpha)


def renorm(outcome: Shaper, process: Shaper, *, beta: float = 1.0) -> Shaper:
    """Return ``R_o`` at the end and ``r_p,t + R_o − β`` at every turn before the last: PPR, arXiv 2509.25598.

    The last turn is not judged. A turn whose verdict is invalid has no reward in the source; here it is unmeasured.

    Keeps *sign consistency*. Breaks *prefix-only*: the outcome moves every turn, and the last pays nothing.
    """
    _check_unit(outcome, process)
    return sign_shift(before_last(process), outcome, beta=beta) + outcome


def trusted(outcome: Shaper, thinking: Shaper, *, alpha: float = 0.3, over: int = 500) -> Shaper:
    """Return ``R_o + γ·α·e^{−step/T}·R_t``: Trust-GRPO of SophiaVL-R1, arXiv 2505.17018.

    γ is `trust`; T, ``over`` training steps, and α are those of the source.

    Keeps *sign consistency*.
    """
    finite("alpha of trusted", alpha)
    _check_unit(outcome, thinking)
    annealed = alpha * thinking.then(scheduled(annealing(over=over)))
    return outcome + annealed.when(trust(outcome, thinking))


def trust(outcome: Shaper, thinking: Shaper, *, correct: float = 0.5) -> Gate:
    """Return the gate that is open as far as a group's thinking reward agrees with its outcomes.

    It is 1 where the correct trajectories (outcome at least ``correct``) have at least the mean thinking reward of the
    wrong ones, else e^{μ_c − μ_w}, and shut where all are correct or all wrong, since then nothing can be compared.
    Source: SophiaVL-R1, arXiv 2505.17018. Its code asks for no thinking reward of wrong answers and takes 0, so that
    there γ is 1 nearly always; the paper judges all of them, as here. Unmeasured trajectories are left out of the
    means; the gate is undecided where they could make the missing side.
    """
    finite("outcome that counts as correct", correct)

    def decide(measured: Measured) -> Openness:
        solved_G = measured.amounts_GT(outcome, "trajectory")[:, 0]
        thought_G = measured.amounts_GT(thinking, "trajectory")[:, 0]
        known_G = ~np.isnan(solved_G)
        right_G, wrong_G = known_G & (solved_G >= correct), known_G & (solved_G < correct)
        if not (right_G.any() and wrong_G.any()):
            gamma = 0.0 if known_G.all() else np.nan
        else:
            gamma = float(np.minimum(1.0, np.exp(_mean(thought_G[right_G]) - _mean(thought_G[wrong_G]))))
        return np.full((len(solved_G), 1), gamma)

    return Gate(f"trust({thinking.name})", decide, outcome.signals | thinking.signals, needs_group=True)


def over_best(reward: Shaper) -> Shaper:
    """Return ``reward`` divided by the most that any trajectory of the group is paid; 0 where that is not above 0.

    Unmeasured trajectories are left out of the maximum.
    """

    def apply(measured: Measured, claim: Claim) -> Claim:
        paid_G = measured.amounts_GT(reward, "trajectory")[:, 0]
        best = float(np.nanmax(paid_G)) if (~np.isnan(paid_G)).any() else np.nan
        scaled = claim.value / best if best > 0 else np.where(np.isnan(claim.value), np.nan, 0.0)
        return replace(claim, value=scaled)

    def bounds(low: float, high: float) -> tuple[float, float]:
        return (0.0 if low >= 0 else -np.inf), (0.0 if high <= 0 else 1.0 if low >= 0 else np.inf)

    return reward.then(Rewrite("over_best({})", apply, bounds, needs_group=True))


def _citation(outcome: Shaper, rubric: Shaper, shown: Shaper, alpha: float) -> Shaper:
    if not 0 <= alpha <= 1:
        raise ConfigError(f"alpha of citation is {alpha}; it must be within 0 and 1")
    _check_unit(outcome, rubric)
    return ((1 - alpha) * outcome + alpha * shown).when(above(outcome, 1.0, strict=False))


def _mean(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _check_unit(*rewards: Shaper) -> None:
    for reward in rewards:
        low, high = reward.range(1)
        if low < -1e-9 or high > 1 + 1e-9:
            raise ConfigError(
                f"'{reward.name}' pays from {low:g} to {high:g}; a mix weighs rewards declared within 0 and 1: "
                "give the signal low=0 and high=1, or bring it there with .then(scale(…)) or .then(clip(0, 1))"
            )


__all__ = ["citation", "citation_unscaled", "over_best", "posterior", "renorm", "trust", "trusted"]
