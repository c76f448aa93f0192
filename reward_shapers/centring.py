"""Rewards measured against references: Preference As Reward and the baselines it was published with.

A reference is what the same reward model says of another answer to the same prompt: a number, or a reward that reads
it from the episode, such as ``signal("reference_score", scope="trajectory", item="0")``. References that are
unmeasured are left out of the mean; without any the amount is unmeasured.

Source of all: Fu et al., "Reward Shaping to Mitigate Reward Hacking in RLHF", arXiv 2502.18770, and
`trainers/reward_shaper.py` of its repository. The shipped code standardises, clips and scales by running statistics of
the training so far. A price must not depend on what was priced before, so here they are given.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from agentgym.claims import Claim, Measured
from agentgym.errors import ConfigError
from agentgym.reward import Rewrite, Shaper, Transform, finite

from .transforms import affine, check_slope, clip, log_logistic, logistic, scale

Reals = NDArray[np.float64]
Reference = float | Shaper

SGFC_SHIFT = 3.0
"""What the published baseline SGFC takes from the reward before it is compared."""
LSC_QUANTILE, LSC_EPSILON = 0.85, 1e-5
"""Quantile of the references that the published baseline LSC compares with, and what it adds to their deviation."""


def preference(*references: Reference, k: float = 1.0) -> Rewrite:
    """Return the change (1/M) Σ_m σ(k · (r − r_m)), into (0, 1): PAR.

    It is the Bradley–Terry probability that the answer is preferred to its references; one reference is enough.
    """
    check_slope(k)
    return _against(f"preference({{}}, k={k:g})", references, lambda gap: logistic(k * gap), (0.0, 1.0))


def preference_shifted(*references: Reference, k: float = 1.0, shift: float = SGFC_SHIFT) -> Rewrite:
    """Return the change (1/M) Σ_m σ(k · (r − shift − r_m)), into (0, 1): the baseline SGFC."""
    check_slope(k)
    finite("shift of a preference", shift)
    form = f"preference({{}} - {shift:g}, k={k:g})"
    return _against(form, references, lambda gap: logistic(k * (gap - shift)), (0.0, 1.0))


def centred(*references: Reference) -> Rewrite:
    """Return the change r − mean of the references."""
    return _against("centred({})", references, lambda gap: gap, (-math.inf, math.inf))


def centred_tanh(*references: Reference) -> Rewrite:
    """Return the change (1/M) Σ_m tanh(r − r_m), into (−1, 1)."""
    return _against("centred_tanh({})", references, np.tanh, (-1.0, 1.0))


def centred_polynomial(*references: Reference) -> Rewrite:
    """Return the change (1/M) Σ_m q(r − r_m), with q the polynomial of degree 5 fitted to σ on [−5, 5].

    Below −5 q is 0 and above 5 it is 1. Fitted as in the source: least squares on 100 points evenly spread.
    """
    inside = np.polyval(_coefficients(), np.linspace(-5, 5, 1001))
    bounds = float(inside.min()), float(inside.max())
    return _against("centred_polynomial({})", references, fitted_polynomial, bounds)


def log_preference(*references: Reference, floor: float) -> Rewrite:
    """Return the change max(log σ(r − q), floor) with q the 85 % quantile of the references: the baseline LSC.

    The quantile is that of the normal distribution with the references' mean and sample deviation (0 for a single
    one) plus 1e-5, as in the source. The floor is ours, since the logarithm falls without bound.
    """
    finite("floor of a log preference", floor)
    distance = NormalDist().inv_cdf(LSC_QUANTILE)

    def compare(value_N: Reals, reference_MN: Reals) -> Reals:
        mean_N, deviation_N = _moments(reference_MN)
        return np.maximum(log_logistic(value_N - (mean_N + distance * (deviation_N + LSC_EPSILON))), floor)

    return _rewrite(f"log_preference({{}}, {floor:g})", references, compare, lambda low, high: (min(floor, 0.0), 0.0))


def standardised(mean: float, deviation: float) -> Transform:
    """Return the transform (r − mean) / deviation: the baseline "meanstd"."""
    _check_deviation(deviation)
    return affine(1 / deviation, -mean / deviation)


def within_deviation(mean: float, deviation: float) -> Transform:
    """Return the transform that keeps r within mean ± deviation: the baseline "clipping"."""
    _check_deviation(deviation)
    return clip(mean - deviation, mean + deviation)


def min_max(low: float, high: float) -> Transform:
    """Return the transform (r − low) / (high − low): the baseline "minmax"."""
    return scale((low, high))


def fitted_polynomial(x: Reals) -> Reals:
    """Return the polynomial of degree 5 that the source fits to σ on [−5, 5]; 0 below and 1 above."""
    inside = np.polyval(_coefficients(), np.clip(x, -5, 5))
    return np.where(x <= -5, 0.0, np.where(x >= 5, 1.0, inside))


@functools.cache
def _coefficients() -> Reals:
    x = np.linspace(-5, 5, 100)
    return np.asarray(np.polyfit(x, logistic(x), 5), np.float64)


def _against(
    form: str, references: tuple[Reference, ...], function: Callable[[Reals], Reals], range_: tuple[float, float]
) -> Rewrite:
    """Return the change that averages ``function`` of the gap over the references that are measured."""

    def compare(value_N: Reals, reference_MN: Reals) -> Reals:
        return _mean(function(value_N - reference_MN))

    return _rewrite(form, references, compare, lambda low, high: range_)


def _rewrite(
    form: str,
    references: tuple[Reference, ...],
    compare: Callable[[Reals, Reals], Reals],
    bounds: Callable[[float, float], tuple[float, float]],
) -> Rewrite:
    if not references:
        raise ConfigError(f"{form.format('…')} needs at least one reference: a number, or a reward that reads one")
    shapers = [reference for reference in references if isinstance(reference, Shaper)]
    for number in (reference for reference in references if not isinstance(reference, Shaper)):
        finite("reference", number)

    def apply(measured: Measured, claim: Claim) -> Claim:
        reference_MN = np.stack([_at(measured, claim, reference) for reference in references])
        return replace(claim, value=compare(claim.value, reference_MN))

    signals = frozenset().union(*(shaper.signals for shaper in shapers))
    return Rewrite(form, apply, bounds, signals, any(shaper.needs_group for shaper in shapers))


def _at(measured: Measured, claim: Claim, reference: Reference) -> Reals:
    if isinstance(reference, Shaper):
        return np.asarray(measured.amounts_GT(reference, "trajectory")[claim.trajectory, 0])
    return np.full(len(claim.value), float(reference))


def _mean(x_MN: Reals) -> Reals:
    """Return the mean over the first axis of what is measured, NaN where nothing is."""
    count_N = (~np.isnan(x_MN)).sum(0)
    return np.where(count_N > 0, np.nan_to_num(x_MN).sum(0) / np.maximum(count_N, 1), np.nan)


def _moments(x_MN: Reals) -> tuple[Reals, Reals]:
    """Return mean and sample deviation over the first axis of what is measured."""
    mean_N = _mean(x_MN)
    count_N = (~np.isnan(x_MN)).sum(0)
    squares_N = np.nan_to_num((x_MN - mean_N) ** 2).sum(0)
    return mean_N, np.sqrt(squares_N / np.maximum(count_N - 1, 1))


def _check_deviation(deviation: float) -> None:
    finite("deviation", deviation)
    if deviation <= 0:
        raise ConfigError(f"deviation is {deviation:g}; it must be above 0")


__all__ = [
    "Reference",
    "centred",
    "centred_polynomial",
    "centred_tanh",
    "fitted_polynomial",
    "log_preference",
    "min_max",
    "preference",
    "preference_shifted",
    "standardised",
    "within_deviation",
]
