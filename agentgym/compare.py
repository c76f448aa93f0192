"""How far two rewards agree on what happened: their order of siblings, and a distance that ignores what cannot matter.

Rewards are compared within groups, as most advantages compare: an amount that all siblings are paid, whatever they
did, changes nothing. Confidence intervals resample whole groups (percentile bootstrap over clusters).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
RESAMPLES = 2000
"""Of the bootstrap."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; NaN where the episodes do not tell."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One episode on which two rewards disagree."""

    episode: str
    a: float
    "What the first reward pays."
    b: float
    difference: float
    "Of the canonical amounts, ``a`` minus ``b``."


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rewards, side by side."""

    episodes: int
    "Those that both rewards price in full, with at least one such sibling."
    left_out: int
    kendall: Estimate
    "τ-b over all pairs of siblings."
    spearman: Estimate
    "Of the ranks among siblings."
    distance: float
    "In [0, 1]; see `distance`."
    most: tuple[Disagreement, ...]
    "Where they disagree most."

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        estimates = {name: _fields(getattr(self, name)) for name in ("kendall", "spearman")}
        counts = {"episodes": self.episodes, "left_out": self.left_out, "distance": self.distance}
        return counts | estimates | {"most": [_fields(one) for one in self.most]}


def compare(names: Sequence[Sequence[str]], a: Sequence[Reals], b: Sequence[Reals], *, worst: int = 5) -> Comparison:
    """Compare what two rewards pay.

    Args:
        names: the episodes of each group.
        a: the first reward's total of each episode, (G,) for each group; NaN: unmeasured.
        b: the second reward's.
        worst: episodes to name.
    """
    kept: list[tuple[list[str], Reals, Reals]] = []
    for group, a_G, b_G in zip(names, a, b, strict=True):
        known_G = ~np.isnan(a_G) & ~np.isnan(b_G)
        if known_G.sum() > 1:
            kept.append(([group[place] for place in np.flatnonzero(known_G).tolist()], a_G[known_G], b_G[known_G]))
    episodes = sum(len(group) for group, _, _ in kept)
    pairs = np.array([_pairs(a_G, b_G) for _, a_G, b_G in kept]).reshape(-1, 3)
    products = np.array([_products(ranks(a_G), ranks(b_G)) for _, a_G, b_G in kept]).reshape(-1, 3)
    a_canonical, b_canonical = canonical([a_G for _, a_G, _ in kept]), canonical([b_G for _, _, b_G in kept])
    return Comparison(
        episodes=episodes,
        left_out=sum(map(len, names)) - episodes,
        kendall=_estimate(pairs),
        spearman=_estimate(products),
        distance=distance(a_canonical, b_canonical),
        most=_most(kept, a_canonical - b_canonical, worst),
    )


def canonical(totals: Sequence[Reals]) -> Reals:
    """Return what a reward pays each episode, (N,) over all groups, in the standard form of a STARC metric.

    The sum an episode is paid is centred over its group, then all of it is scaled to length 1; a reward that pays all
    siblings alike stays 0. Centring takes away what is the same for all episodes of a task: a constant, and shaping by
    a potential that is 0 where episodes end (its sum over an episode is then the potential of the start, γ = 1).
    Source: Skalse et al., "STARC", arXiv 2309.15257, canonicalise then normalise, here over the recorded episodes in
    place of all transitions.
    """
    centred = np.concatenate([np.empty(0), *(total_G - total_G.mean() for total_G in totals)])
    length, size = float(np.linalg.norm(centred)), float(np.linalg.norm(np.concatenate([np.empty(0), *totals])))
    if length <= 1e-12 * size:  # what rounding leaves of a group that is paid alike
        return np.zeros_like(centred)
    return centred / length


def distance(a_canonical: Reals, b_canonical: Reals) -> float:
    """Return half the length of the difference of two `canonical` rewards, in [0, 1].

    0: they order and space siblings alike; 1: one is the other's negative; ½: one of them pays all siblings alike.
    With ρ the correlation within groups it is ``√((1 − ρ) / 2)``, the Pearson distance of EPIC (Gleave et al.,
    arXiv 2006.13900).
    """
    return min(1.0, float(np.linalg.norm(a_canonical - b_canonical)) / 2)


def ranks(values_G: Reals) -> Reals:
    """Return the ranks of ``values_G`` from 1, tied values sharing their mean rank."""
    _, place, count = np.unique(values_G, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    mean: Reals = (2 * last - count + 1) / 2
    return mean[place.reshape(-1)]


def _pairs(a_G: Reals, b_G: Reals) -> tuple[float, float, float]:
    """Return over all pairs of siblings: concordant minus discordant, untied in ``a``, untied in ``b``.

    Their ratio ``S / √(n_a n_b)`` is Kendall's τ-b (Kendall 1945).
    """
    a_GG, b_GG = np.sign(a_G[:, None] - a_G), np.sign(b_G[:, None] - b_G)
    return _products(a_GG, b_GG, centre=False)


def _products(a: Reals, b: Reals, *, centre: bool = True) -> tuple[float, float, float]:
    if centre:
        a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum()), float((a * a).sum()), float((b * b).sum())


def _estimate(sums_K3: Reals) -> Estimate:
    """Return the pooled correlation of the groups' products, with its interval."""
    value = float(_correlation(sums_K3.sum(0, keepdims=True))[0])
    if len(sums_K3) < 2:
        return Estimate(value, math.nan, math.nan)
    count = len(sums_K3)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    resampled = _correlation(drawn @ sums_K3)
    resampled = resampled[~np.isnan(resampled)]
    low, high = np.quantile(resampled, [0.025, 0.975]) if len(resampled) else (math.nan, math.nan)
    return Estimate(value, float(low), float(high))


def _correlation(sums_R3: Reals) -> Reals:
    both = np.sqrt(sums_R3[:, 1] * sums_R3[:, 2])
    correlation: Reals = np.divide(sums_R3[:, 0], both, out=np.full(len(both), np.nan), where=both > 0)
    return correlation


def _most(kept: Sequence[tuple[list[str], Reals, Reals]], difference: Reals, worst: int) -> tuple[Disagreement, ...]:
    names = [name for group, _, _ in kept for name in group]
    a, b = (np.concatenate([np.empty(0), *(one[side] for one in kept)]) for side in (1, 2))
    order = np.argsort(-np.abs(difference), kind="stable")[:worst].tolist()
    return tuple(Disagreement(names[n], float(a[n]), float(b[n]), float(difference[n])) for n in order if difference[n])


def _fields(one: Estimate | Disagreement) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__}


__all__ = ["RESAMPLES", "Comparison", "Disagreement", "Estimate", "canonical", "compare", "distance", "ranks"]
