"""Changes of an amount by itself, for ``reward.then(transform)``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from agentgym.errors import ConfigError
from agentgym.reward import Transform, finite

Reals = NDArray[np.float64]


def monotone(form: str, function: Callable[[Reals], Reals]) -> Transform:
    """Return ``function``, which never turns from rising to falling, as a transform of each amount by itself."""

    def bounds(low: float, high: float) -> tuple[float, float]:
        ends = np.sort(function(np.array([low, high])))
        return float(ends[0]), float(ends[1])

    return Transform(form, lambda claim: function(claim.value), bounds)


def clip(low: float, high: float) -> Transform:
    """Return the transform that keeps each amount within ``[low, high]``."""
    finite("low end of a clip", low)
    finite("high end of a clip", high)
    if low > high:
        raise ConfigError(f"clip from {low:g} to {high:g} is empty; give the lower end first")
    return monotone(f"clip({{}}, {low:g}, {high:g})", lambda value_N: np.clip(value_N, low, high))


def affine(factor: float, offset: float) -> Transform:
    """Return the transform ``factor * amount + offset``; unlike a weight it moves the zero."""
    finite("factor of an affine transform", factor)
    finite("offset of an affine transform", offset)
    if factor == 0:
        raise ConfigError("factor of an affine transform is 0; it would forget what it is given")
    return monotone(f"affine({{}}, {factor:g}, {offset:g})", lambda value_N: factor * value_N + offset)


def scale(source: tuple[float, float], target: tuple[float, float] = (0.0, 1.0)) -> Transform:
    """Return the affine transform that takes the range ``source`` to ``target``, such as (-3, 3) to (0, 1)."""
    (low, high), (to_low, to_high) = source, target
    for end in (low, high, to_low, to_high):
        finite("end of a scale's range", end)
    if low >= high:
        raise ConfigError(f"a scale's source range from {low:g} to {high:g} is empty; give the lower end first")
    factor = (to_high - to_low) / (high - low)
    return affine(factor, to_low - factor * low)


def clip_negative(eta: float) -> Transform:
    """Return the transform ``min(amount − η, 0)``, under which no sum of step scores rises above 0 (Clip).

    Source: Gao et al., "On Designing Effective RL Reward at Training Time for LLM Reasoning", arXiv 2410.15115. The
    value of ``eta`` is not published.
    """
    finite("eta of a negative clip", eta)
    return monotone(f"clip_negative({{}}, {eta:g})", lambda value_N: np.minimum(value_N - eta, 0.0))


def sigmoid(k: float = 1.0) -> Transform:
    """Return the transform ``σ(k · amount)``, into (0, 1)."""
    check_slope(k)
    return monotone(f"sigmoid({{}}, {k:g})", lambda value_N: logistic(k * value_N))


def tanh() -> Transform:
    """Return the transform ``tanh(amount)``, into (−1, 1)."""
    return monotone("tanh({})", np.tanh)


def log_sigmoid(reference: float, floor: float) -> Transform:
    """Return the transform ``max(log σ(amount − reference), floor)``, into [floor, 0].

    Summed over properties it is the log-probability that all of them are good. It falls without bound below the
    reference, hence the ``floor``. Source: Wang et al., "Transforming and Combining Rewards", arXiv 2402.00742; how the
    reference is chosen is not settled there, so neither number has a default.
    """
    finite("reference of a log-sigmoid", reference)
    _check_floor(floor)
    return monotone(
        f"log_sigmoid({{}} - {reference:g}, {floor:g})",
        lambda value_N: np.maximum(log_logistic(value_N - reference), floor),
    )


def logistic(x: Reals) -> Reals:
    """Return σ(x) = 1 / (1 + e^{−x}) without overflow."""
    return np.asarray(np.exp(log_logistic(x)))


def log_logistic(x: Reals) -> Reals:
    """Return log σ(x) without overflow."""
    return np.asarray(np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x))))


def check_slope(k: float) -> None:
    """Check that the slope ``k`` of a sigmoid is finite and above 0.

    Raises:
        ConfigError: it is not.
    """
    finite("slope k of a sigmoid", k)
    if k <= 0:
        raise ConfigError(f"slope k of a sigmoid is {k:g}; it must be above 0, or more would not be better")


def _check_floor(floor: float) -> None:
    finite("floor of a log-sigmoid", floor)
    if floor >= 0:
        raise ConfigError(f"floor of a log-sigmoid is {floor:g}; it must be negative, as every logarithm here is")


__all__ = [
    "affine",
    "check_slope",
    "clip",
    "clip_negative",
    "log_logistic",
    "log_sigmoid",
    "logistic",
    "monotone",
    "scale",
    "sigmoid",
    "tanh",
]
