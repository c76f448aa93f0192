"""Several rewards into one: ensembles of judges, properties that must all hold, a nominal reward and its doubters.

Each takes rewards and returns a reward of a single component, which pays once for the trajectory or, with
``scope="turn"``, at each turn (what a member pays for the whole trajectory then counts at each of its turns). What
becomes of an unmeasured member is declared by each:

===================  ================================================================================
left out             `mean`, `median`, `cautious`, `entropic`; unmeasured where no member is measured
unknown              `worst`, unless a measured member is as low as any unmeasured one could be
                     `nominal_and_worst`, the same of its worst; its nominal must be measured
                     `all_good`: a sum is unknown with any of its parts
===================  ================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from agentgym.claims import Claim, Measured
from agentgym.errors import ConfigError
from agentgym.reward import Part, Scope, Shaper, finite

from .transforms import log_logistic, log_sigmoid

Reals = NDArray[np.float64]
Bounds = tuple[float, float]


def mean(*members: Shaper, weights: Sequence[float] = (), scope: Scope = "trajectory") -> Shaper:
    """Return Σ w r / Σ w over the measured members; without ``weights`` all count the same."""
    weights = tuple(weights) or (1.0,) * len(members)
    for weight in weights:
        finite("weight of a mean's member", weight)
    if len(weights) != len(members) or min(weights, default=1.0) <= 0:
        raise ConfigError(f"a mean of {len(members)} members needs as many weights above 0, not {weights}")
    weight_M = np.array(weights, np.float64)
    shown = "" if len(set(weights)) == 1 else f"; {', '.join(f'{weight:g}' for weight in weights)}"
    return _reduced("mean", members, scope, lambda r_MGT: _average(r_MGT, weight_M), _hull, shown)


def median(*members: Shaper, scope: Scope = "trajectory") -> Shaper:
    """Return the median of the measured members; of an even number the mean of the two in the middle."""

    def reduce(r_MGT: Reals) -> Reals:
        ordered_MGT = np.sort(r_MGT, axis=0)  # NaN last
        count_GT = (~np.isnan(r_MGT)).sum(0)
        middle_2GT = np.stack([np.maximum(count_GT - 1, 0) // 2, np.minimum(count_GT // 2, len(r_MGT) - 1)])
        return np.asarray(np.take_along_axis(ordered_MGT, middle_2GT, 0).mean(0))

    return _reduced("median", members, scope, reduce, _hull)


def worst(*members: Shaper, scope: Scope = "trajectory") -> Shaper:
    """Return the least of the members, unknown where an unmeasured one could be less.

    How little a member could pay is its declared range: give signals their ``low`` to have more decided.
    """
    lows = [_member_bounds(member, scope)[0] for member in members]
    return _reduced("worst", members, scope, lambda r_MGT: _least(r_MGT, lows), _least_bounds)


def cautious(*members: Shaper, k: float, scope: Scope = "trajectory") -> Shaper:
    """Return mean − k·σ over the measured members, with σ the deviation of the ensemble itself (ddof 0).

    Source: among the reducers of Eisenstein et al., "Helping or Herding?", arXiv 2312.09244. A lone measured member
    has σ = 0.
    """
    finite("k of a cautious mean", k)
    if k < 0:
        raise ConfigError(f"k of a cautious mean is {k:g}; below 0 it would reward disagreement")

    def reduce(r_MGT: Reals) -> Reals:
        mean_GT = _average(r_MGT)
        return mean_GT - k * np.sqrt(_average((r_MGT - mean_GT) ** 2))

    def bounds(ranges: Sequence[Bounds]) -> Bounds:
        low, high = _hull(ranges)
        return (low - k * (high - low) / 2 if math.isfinite(high - low) else -math.inf, high)

    return _reduced("cautious", members, scope, reduce, bounds, f"; k={k:g}")


def nominal_and_worst(nominal: Shaper, *members: Shaper, share: float, scope: Scope = "trajectory") -> Shaper:
    """Return λ·nominal + (1−λ)·min over ``members``, λ being ``share``.

    Source: Reward-Robust RLHF, which mixes what a nominal reward says with the worst that an ensemble says.
    """
    _check_share("share of the nominal reward", share)
    lows = [_member_bounds(member, scope)[0] for member in members]

    def reduce(r_MGT: Reals) -> Reals:
        terms = ((share, r_MGT[0]), (1 - share, _least(r_MGT[1:], lows)))
        return np.asarray(sum(weight * r_GT for weight, r_GT in terms if weight))

    def bounds(ranges: Sequence[Bounds]) -> Bounds:
        pair = [(share, ranges[0]), (1 - share, _least_bounds(ranges[1:]))]
        low, high = (sum(weight * ends[end] for weight, ends in pair if weight) for end in (0, 1))
        return low, high

    if not members:
        raise ConfigError("nominal_and_worst needs at least one reward besides the nominal one")
    return _reduced("nominal_and_worst", (nominal, *members), scope, reduce, bounds, f"; {share:g}")


def entropic(*members: Shaper, beta: float, scope: Scope = "trajectory") -> Shaper:
    """Return −β log E e^{−r/β} over the measured members, each as likely as the other.

    It goes from the worst of them (β → 0) to their mean (β → ∞), and is about mean − var/2β on the way. Source: arXiv
    2606.09073.
    """
    finite("beta of an entropic mean", beta)
    if beta <= 0:
        raise ConfigError(f"beta of an entropic mean is {beta:g}; it must be above 0")

    def reduce(r_MGT: Reals) -> Reals:
        least_GT = _least(r_MGT, [math.inf] * len(r_MGT))
        return least_GT - beta * np.log(_average(np.exp(-(r_MGT - least_GT) / beta)))

    return _reduced("entropic", members, scope, reduce, _hull, f"; beta={beta:g}")


def all_good(*members: Shaper, references: Sequence[float], floor: float, scope: Scope = "trajectory") -> Shaper:
    """Return Σ_a log σ(r_a − ref_a): the log-probability that every member is good, each at least ``floor``.

    Diminishing where a property is good already, and a strong push on the worst one: a logical AND. Source: arXiv
    2402.00742. Added up without being reduced, ``a.then(log_sigmoid(…)) + b.then(…)`` pays the same in components of
    their own.
    """
    if len(references) != len(members):
        raise ConfigError(f"all_good of {len(members)} members needs a reference for each; got {len(references)}")
    good = [log_sigmoid(reference, floor) for reference in references]

    def reduce(r_MGT: Reals) -> Reals:
        reference_MGT = np.array(references, np.float64)[:, None, None]
        return np.asarray(np.maximum(log_logistic(r_MGT - reference_MGT), floor).sum(0))

    def bounds(ranges: Sequence[Bounds]) -> Bounds:
        ends = [transform.bounds(*range_) for transform, range_ in zip(good, ranges, strict=True)]
        return sum(low for low, _ in ends), sum(high for _, high in ends)

    return _reduced("all_good", members, scope, reduce, bounds)


def _reduced(
    name: str,
    members: Sequence[Shaper],
    scope: Scope,
    reduce: Callable[[Reals], Reals],
    bounds: Callable[[Sequence[Bounds]], Bounds],
    shown: str = "",
) -> Shaper:
    """Return the reward that pays ``reduce`` of what the members pay, (M, G, T) with NaN for unmeasured."""
    if not members:
        raise ConfigError(f"{name} needs at least one reward")
    expression = f"{name}({', '.join(member.name for member in members)}{shown})"

    def claims(measured: Measured) -> tuple[Claim, ...]:
        r_MGT = np.stack([measured.amounts_GT(member, scope) for member in members])
        return (measured.laid_out(expression, scope, reduce(r_MGT)),)

    low, high = bounds([_member_bounds(member, scope) for member in members])
    return Shaper(
        expression,
        (Part(expression, scope, low, high),),
        claims,
        frozenset().union(*(member.signals for member in members)),
        any(member.needs_group for member in members),
    )


def _member_bounds(member: Shaper, scope: Scope) -> Bounds:
    """Return the least and the most a member pays at one turn, or over an episode of any length."""
    low, high = member.range(1)
    if scope == "trajectory" and any(part.scope == "turn" for part in member.parts):
        return (0.0 if low >= 0 else -math.inf), (0.0 if high <= 0 else math.inf)
    return low, high


def _average(r_MGT: Reals, weight_M: Reals | None = None) -> Reals:
    """Return the weighted mean of what is measured, NaN where nothing is."""
    known_MGT = ~np.isnan(r_MGT)
    weight_MGT = known_MGT * (np.ones(len(r_MGT)) if weight_M is None else weight_M)[:, None, None]
    total_GT = weight_MGT.sum(0)
    summed_GT = (weight_MGT * np.where(known_MGT, r_MGT, 0.0)).sum(0)
    return np.where(total_GT > 0, summed_GT / np.where(total_GT > 0, total_GT, 1.0), np.nan)


def _least(r_MGT: Reals, lows: Sequence[float]) -> Reals:
    """Return the least member, NaN where none is measured or one unmeasured could be below, by its low end."""
    known_MGT = ~np.isnan(r_MGT)
    least_GT = np.where(known_MGT, r_MGT, np.inf).min(0)
    possible_GT = np.where(known_MGT, np.inf, np.array(lows, np.float64)[:, None, None]).min(0)
    return np.where(known_MGT.any(0) & (least_GT <= possible_GT), least_GT, np.nan)


def _hull(ranges: Sequence[Bounds]) -> Bounds:
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _least_bounds(ranges: Sequence[Bounds]) -> Bounds:
    return min(low for low, _ in ranges), min(high for _, high in ranges)


def _check_share(what: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ConfigError(f"{what} is {share}; it must be within 0 and 1")


__all__ = ["all_good", "cautious", "entropic", "mean", "median", "nominal_and_worst", "worst"]
