"""Changes of an amount, for ``reward.then(transform)``."""

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


__all__ = ["affine", "clip", "monotone", "scale"]
