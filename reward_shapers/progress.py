"""Credit for progress, in the order of the turns.

A *gain* is what a turn brought, a *standing* is where things stood after it, a *score* is what somebody said of the
turn by itself.

===================== ======== ======== =========================================================================
transform             from     to       what it is for
===================== ======== ======== =========================================================================
`standings`           gains    standing summing up
`gains`               standing gain     what stood is paid once, not at every turn
`advances`            standing gain     only what was never reached before pays: going back and forth earns nothing
`delta`               score    gain     many harmless turns are worth no more than one, as under `clip_negative`
===================== ======== ======== =========================================================================

An unmeasured turn is stepped over: it stays unmeasured, and its neighbours are compared with each other, so that the
sums keep their meaning whatever was lost. Only what is summed up from gains is unknown from the first unknown one on.
What a turn is paid depends on nothing after it, but for `delta`, which looks one turn ahead, and for what is paid at
the last turn by `delta`, `shaping` and `spa_shipped`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from agentgym.claims import Claim, Measured, Reals
from agentgym.errors import ConfigError, UsageError, unknown_name
from agentgym.ledger import WHOLE
from agentgym.reward import Bounds, Part, Shaper, Transform, finite

from .step import step

Keep = Literal["never", "truncated", "always"]
"""Of which episodes the potential they ended at counts; see `shaping`."""


# -------------------------------------------------------------------------------------------------------- transforms


def standings() -> Transform:
    """Return the transform from gains to standings: ``s_t = g_0 + … + g_t``."""

    def change(turns: _Turns) -> Reals:
        unknown_ST = np.isnan(turns.value_ST) & turns.claimed_ST
        summed_ST = np.cumsum(np.nan_to_num(turns.value_ST), axis=1)
        return np.where(np.logical_or.accumulate(unknown_ST, axis=1), np.nan, summed_ST)

    def bounds(low: float, high: float) -> tuple[float, float]:
        return (0.0 if low >= 0 else -np.inf), (0.0 if high <= 0 else np.inf)

    return _in_order("standings({})", change, bounds)


def gains(start: float = 0.0) -> Transform:
    """Return the transform from standings to gains: ``g_t = s_t − s_{t−1}``, where ``s_{−1}`` is ``start``.

    They telescope: an episode's gains sum to its last standing less ``start``.
    """
    finite("start of gains", start)

    def bounds(low: float, high: float) -> tuple[float, float]:
        least, most = min(low, start), max(high, start)
        return least - most, most - least

    def total(low: float, high: float) -> tuple[float, float]:
        return min(low - start, 0.0), max(high - start, 0.0)

    form = f"gains({{}}, {start:g})" if start else "gains({})"
    return _in_order(form, lambda turns: turns.value_ST - _preceding(turns.value_ST, start)[0], bounds, total)


def advances(start: float = 0.0) -> Transform:
    """Return the transform from standings to what was newly reached: ``max_{u≤t} s_u − max_{u<t} s_u``.

    ``s_{−1}`` is ``start``. Never negative; an episode's sum is the best it ever stood, less ``start``.
    """
    finite("start of advances", start)

    def change(turns: _Turns) -> Reals:
        opening_S1 = np.full((len(turns.value_ST), 1), start)
        best_ST = np.fmax.accumulate(np.concatenate([opening_S1, turns.value_ST], axis=1), axis=1)
        return np.diff(best_ST, axis=1)

    def bounds(low: float, high: float) -> tuple[float, float]:
        return 0.0, max(high - start, 0.0)

    form = f"advances({{}}, {start:g})" if start else "advances({})"
    return _in_order(form, change, bounds, bounds)


def delta() -> Transform:
    """Return the transform ``r_k = p_k − p_{k+1}`` for all but the last two turns, then ``p_{K−1}`` and 0.

    The undiscounted return from turn k is ``p_k``, whatever the number of turns. The last turn gives the answer, which
    the outcome pays: where nobody scores it, ``before_last(reward).then(delta())`` asks for no score there. Source:
    the *Delta* of "On Designing Effective RL Reward at Training Time for LLM Reasoning", arXiv 2410.15115.

    Breaks *prefix-only*: a turn is compared with the one that follows.
    """

    def change(turns: _Turns) -> Reals:
        last_ST = turns.last()
        score_ST = np.where(last_ST, np.nan, turns.value_ST)
        next_ST = _preceding(score_ST[:, ::-1], 0.0)[0][:, ::-1]
        return np.where(last_ST, 0.0, score_ST - next_ST)

    def bounds(low: float, high: float) -> tuple[float, float]:
        least, most = min(low, 0.0), max(high, 0.0)
        return least - most, most - least

    return _in_order("delta({})", change, bounds, lambda low, high: (min(low, 0.0), max(high, 0.0)))


# ----------------------------------------------------------------------------------------------------------- rewards


def subgoals(gain: str = "progress", *, high: float = 1.0) -> Shaper:
    """Return the reward for sub-goals as they are reached for the first time: ``advances(standings(progress))``.

    Losing a sub-goal costs nothing and reaching it again pays nothing. An episode earns between 0 and ``high``, the
    most that the gains of an episode sum to.
    """
    reached = step(gain).then(standings())
    return replace(reached, parts=tuple(replace(part, high=high) for part in reached.parts)).then(advances())


def spa(*, alpha: float, beta: float, estimate: str = "progress_estimate", grounded: str = "grounded") -> Shaper:
    """Return the fused step reward of SPA-RL, ``r_t = α ĉ_t + β g_t``: estimated progress, and executability.

    Source: arXiv 2505.20732; α and β are not known for certain (1 and 0.5 are likely), so they have no default. This is
    what the paper says, and the one to use; what its code does instead is `spa_shipped`. Neither is bounded over an
    episode: each executable turn pays β.

    Breaks *bounded*: every executable turn is paid. Breaks *scale honesty*: estimates have the scale they were
    trained on.
    """
    return alpha * step(estimate) + beta * step(grounded, low=0.0, high=1.0)


def spa_shipped(*, beta: float, outcome: str = "won", grounded: str = "grounded") -> Shaper:
    """Return what the code of SPA-RL pays: ``R_i − mean_{j≠i} R_j`` at every turn, and ``β g_t`` with ``g_T = 1``.

    Its data script (prm/rl_data_org.py) overwrites the estimate by this leave-one-out advantage of the outcome, the
    same for every turn, and counts the last turn as executable. An only child, and one whose siblings' outcomes are all
    unmeasured, has nothing to be compared with and gets 0 for it.

    Breaks *bounded*: every turn is paid. Breaks *prefix-only*: the outcome is paid at every turn. Breaks *scale
    honesty*: nothing is known of the outcome's scale.
    """

    def advantage(measured: Measured) -> tuple[Claim, ...]:
        found = measured.read(outcome, "", "trajectory", outcome)
        loo_G = _leave_one_out(found.value)
        spread = measured.lift("loo", "turn", [np.full(t, v) for t, v in zip(measured.turns_G, loo_G, strict=True)])
        return (replace(spread, signal=found.signal[spread.trajectory]),)

    def executable(measured: Measured) -> tuple[Claim, ...]:
        claim = measured.read(grounded, "", "turn", grounded)
        last_N = claim.turn == measured.turns_G[claim.trajectory] - 1
        return (replace(claim, value=np.where(last_N, 1.0, claim.value)),)

    compared = Shaper(f"loo({outcome})", (Part("loo", "turn"),), advantage, frozenset({outcome}), needs_group=True)
    grounding = Shaper(f"{grounded}_or_last", (Part(grounded, "turn", 0.0, 1.0),), executable, frozenset({grounded}))
    return compared + beta * grounding


def shaping(potential: Shaper, *, gamma: float, start: float = 0.0, keep: Keep = "never") -> Shaper:
    """Return potential-based shaping, ``F_t = γ Φ(s_{t+1}) − Φ(s_t)``, of a potential that is given as standings.

    What ``potential`` pays at turn t is Φ(s_{t+1}), where things stood after it; ``start`` is Φ(s_0). The discounted
    sum of an episode is ``γ^T Φ(s_T) − Φ(s_0)``, so no policy gains on another by it, provided that Φ counts as 0 where
    an episode ends. An episode of which no potential was measured is unmeasured. Source: Ng, Harada, Russell 1999,
    "Policy invariance under reward transformations"; for how episodes end Grześ 2017, "Reward shaping in episodic
    reinforcement learning".

    Args:
        gamma: The trainer's own discount, in (0, 1]: invariance needs the same.
        keep: ``never``: Φ is 0 at every end. ``truncated``: it counts where an episode was cut, for a trainer that
            bootstraps a value there. ``always``: it counts at every end, and the optimal policy may be another one.

    Breaks *prefix-only*: the last turn pays back where things stood.

    Raises:
        ConfigError: a number is out of range, or the potential is not paid at each turn.
    """
    finite("start of a potential", start)
    if not 0 < gamma <= 1:
        raise ConfigError(f"gamma of shaping is {gamma:g}; a discount is above 0 and at most 1")
    if keep not in get_args(Keep):
        raise unknown_name("end of shaping to keep", keep, get_args(Keep))
    if any(part.scope != "turn" for part in potential.parts):
        raise ConfigError(f"'{potential.name}' is not paid at each turn, and cannot be a potential")

    def claims(measured: Measured) -> tuple[Claim, ...]:
        stops = [trajectory.stop for trajectory in measured.group.trajectories]
        kept_G = np.array([keep == "always" or (keep == "truncated" and stop.truncated) for stop in stops], np.bool_)

        def shaped(claim: Claim) -> Claim:
            weighted = replace(claim, value=claim.weight * claim.value, weight=1.0)
            turns, place = _table(weighted)
            before_ST, skipped_ST = _preceding(turns.value_ST, start)
            ends = claim.turn == measured.turns_G[claim.trajectory] - 1
            after_N = np.where(ends & ~kept_G[claim.trajectory], 0.0, weighted.value)
            shaped_N = gamma * after_N - (before_ST / gamma**skipped_ST)[place]
            known_S: NDArray[np.bool_] = np.any(~np.isnan(turns.value_ST), axis=1)
            return replace(weighted, value=np.where(known_S[place[0]], shaped_N, np.nan))

        return tuple(shaped(claim) for claim in measured.claims(potential))

    def bounds(low: float, high: float) -> tuple[float, float]:
        least, most = min(low, start, 0.0), max(high, start, 0.0)
        return gamma * least - most, gamma * most - least

    def total(low: float, high: float) -> tuple[float, float]:
        return min(low, 0.0) - start, max(high, 0.0) - start

    return replace(
        potential,
        name=f"shaping({potential.name}, {gamma:g})",
        parts=tuple(part.mapped(bounds, total if gamma == 1 else None) for part in potential.parts),
        claims=claims,
    )


# ---------------------------------------------------------------------------------------------------- turns in order


@dataclass(frozen=True, slots=True, eq=False)
class _Turns:
    """Amounts side by side, a row for each trajectory and item: (S, T), NaN where unmeasured or not claimed."""

    value_ST: Reals
    claimed_ST: NDArray[np.bool_]

    def last(self) -> NDArray[np.bool_]:
        """Return where the last turn of each row is."""
        turns = self.value_ST.shape[1]
        final_S = turns - 1 - np.argmax(self.claimed_ST[:, ::-1], axis=1)
        return np.asarray(np.arange(turns) == final_S[:, None])


def _table(claim: Claim) -> tuple[_Turns, tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Return the amounts of ``claim`` side by side, and the place (row, turn) of each of its rows.

    Raises:
        UsageError: an amount belongs to no turn.
    """
    if (claim.turn == WHOLE).any():
        raise UsageError(
            f"'{claim.component}' is paid for whole trajectories; what was asked of it needs turns in order"
        )
    sequence = claim.trajectory.astype(np.int64) * len(claim.item_names) + claim.item
    rows, row = np.unique(sequence, return_inverse=True)
    place = (row.astype(np.int64), claim.turn)
    value_ST = np.full((len(rows), int(claim.turn.max(initial=0)) + 1), np.nan)
    claimed_ST = np.zeros(value_ST.shape, np.bool_)
    value_ST[place], claimed_ST[place] = claim.value, True
    return _Turns(value_ST, claimed_ST), place


def _preceding(value_ST: Reals, start: float) -> tuple[Reals, NDArray[np.int64]]:
    """Return the measured amount before each one, ``start`` where there is none, and how many turns lie between."""
    turns = value_ST.shape[1]
    seen_ST = np.where(np.isnan(value_ST), -1, np.arange(turns))
    nearest_ST = np.maximum.accumulate(np.pad(seen_ST, ((0, 0), (1, 0)), constant_values=-1)[:, :-1], axis=1)
    amount_ST = np.take_along_axis(value_ST, np.maximum(nearest_ST, 0), axis=1)
    return np.where(nearest_ST < 0, start, amount_ST), np.arange(turns) - nearest_ST - 1


def _in_order(form: str, change: Callable[[_Turns], Reals], bounds: Bounds, total: Bounds | None = None) -> Transform:
    """Return the transform that changes the amounts of each trajectory and item in the order of their turns."""

    def apply(claim: Claim) -> Reals:
        turns, place = _table(claim)
        changed: Reals = change(turns)[place]
        return changed

    return Transform(form, apply, bounds, total)


def _leave_one_out(value_G: Reals) -> Reals:
    """Return each value less the mean of the other measured ones; 0 where there are none, NaN where unmeasured."""
    known_G = ~np.isnan(value_G)
    others_G = known_G.sum() - known_G
    rest_G = np.nansum(value_G) - np.nan_to_num(value_G)
    mean_G = np.divide(rest_G, others_G, out=value_G.copy(), where=others_G > 0)
    return np.asarray(value_G - mean_G)


__all__ = [
    "Keep",
    "advances",
    "delta",
    "gains",
    "shaping",
    "spa",
    "spa_shipped",
    "standings",
    "subgoals",
]
