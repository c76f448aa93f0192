"""A length penalty that waits until the task is solved often enough."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from agentgym.claims import Claim, Measured, Reals
from agentgym.errors import ConfigError
from agentgym.reward import Gate, Openness, Part, Shaper, above

from .length import Unit, check_unit, lengths_of
from .transforms import logistic


def conditional_length(outcome: Shaper, *, alpha: float, pass_rate: float, unit: Unit = "tokens") -> Shaper:
    """Return ``R_o − α·σ((len − mean)/std)`` for the solved of a group that is solved often enough, else ``R_o``.

    Mean and std are over the trajectories of the group that are known to be solved. Source: GRPO-λ, arXiv 2505.18086,
    which turns the penalty on for the groups of a batch with the highest share of solved trajectories (the top 20 %); a
    reward sees one group, so the share from which on it applies is given, as ``pass_rate``.

    Keeps *sign consistency*.

    Raises:
        ConfigError: ``alpha`` is not within 0 and 1, where it could outweigh success, or ``pass_rate`` is not.
    """
    for name, value in (("alpha", alpha), ("pass_rate", pass_rate)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name} of conditional_length is {value}; it must be within 0 and 1")
    penalty = relative_length(outcome, unit=unit).when(above(outcome, 0.0) & solved_often(outcome, pass_rate))
    return outcome - alpha * penalty


def relative_length(outcome: Shaper, *, unit: Unit = "tokens") -> Shaper:
    """Return ``σ((len − mean)/std)``, the mean and deviation (ddof 0) over the group's solved trajectories, in (0, 1).

    Where all solved ones are as long as each other it is ½; where none is solved, 0. One whose length is not known has
    no say, and is unmeasured.

    Breaks *validity*: outcomes that are not known are left out of the group's mean.

    Raises:
        UnknownNameError: no such unit.
    """
    check_unit(unit)
    name = "relative_length"

    def claims(measured: Measured) -> tuple[Claim, ...]:
        length_G = lengths_of(measured.group, unit)
        solved_G = measured.amounts_GT(outcome, "trajectory")[:, 0] > 0
        return (measured.laid_out(name, "trajectory", _standing(length_G, solved_G)[:, None]),)

    return Shaper(name, (Part(name, "trajectory", 0.0, 1.0),), claims, outcome.signals, needs_group=True)


def solved_often(outcome: Shaper, pass_rate: float) -> Gate:
    """Return the gate that is open where at least ``pass_rate`` of the group's trajectories are solved.

    Undecided where that hangs on outcomes that are not known.

    Breaks *prefix-only*: the outcome decides.
    """

    def decide(measured: Measured) -> Openness:
        paid_G = measured.amounts_GT(outcome, "trajectory")[:, 0]
        least, most = (paid_G > 0).sum(), (~(paid_G <= 0)).sum()  # the unknown may all have failed, or none
        surely, maybe = (solved / max(len(paid_G), 1) >= pass_rate for solved in (least, most))
        return np.full((len(paid_G), 1), float(surely) if surely == maybe else np.nan)

    return Gate(f"solved({outcome.name}) >= {pass_rate:g}", decide, outcome.signals, needs_group=True)


def _standing(length_G: Reals, solved_G: NDArray[np.bool_]) -> Reals:
    among = length_G[solved_G & ~np.isnan(length_G)]
    if not len(among):
        return np.where(np.isnan(length_G), np.nan, 0.0)
    deviation = among.std()
    gap_G = length_G - among.mean()
    return logistic(gap_G / deviation if deviation > 0 else 0.0 * gap_G)


__all__ = ["conditional_length", "relative_length", "solved_often"]
