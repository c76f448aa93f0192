"""Weights and gates that change while training goes on: pure functions of ``Group.step``.

Gymnasium environments know no training step: there a schedule stands at step 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from agentgym.claims import Claim, Measured
from agentgym.errors import ConfigError
from agentgym.reward import Gate, Openness, Rewrite, finite


@dataclass(frozen=True, slots=True)
class Schedule:
    """A number for each training step."""

    form: str
    "How it prints."
    at: Callable[[int], float]
    low: float
    "The least it ever is."
    high: float


def linear(start: float, end: float, *, over: int) -> Schedule:
    """Return the schedule from ``start`` at step 0 to ``end`` at step ``over``, and ``end`` from there on.

    ToolRL (arXiv 2504.13958, `SCHEDULEREWARD`) moves the format's most from 2 to 1 and that of correctness from 2 to 3
    over 150 steps.
    """
    _check(start, end, over)
    return Schedule(
        f"linear({start:g}, {end:g}, over={over})",
        lambda step: start + (end - start) * min(step / over, 1.0),
        min(start, end),
        max(start, end),
    )


def switch(before: float, after: float, *, at: int) -> Schedule:
    """Return the schedule that is ``before`` up to step ``at`` and ``after`` from there on.

    ToolRL (`MAX1STEP30MAX3`) divides correctness by 3 before step 30, and the format by 2 from there on.
    """
    _check(before, after, at)
    return Schedule(
        f"switch({before:g}, {after:g}, at={at})",
        lambda step: after if step >= at else before,
        min(before, after),
        max(before, after),
    )


def annealing(*, over: int) -> Schedule:
    """Return the schedule e^{−step/T}, T being ``over``: SophiaVL-R1 (arXiv 2505.17018), with T = 500 in its code."""
    _check(0.0, 0.0, over)
    return Schedule(f"annealing(over={over})", lambda step: math.exp(-step / over), 0.0, 1.0)


def scheduled(schedule: Schedule) -> Rewrite:
    """Return the change that multiplies an amount by what ``schedule`` says at the group's step."""

    def apply(measured: Measured, claim: Claim) -> Claim:
        return replace(claim, value=schedule.at(measured.group.step) * claim.value)

    def bounds(low: float, high: float) -> tuple[float, float]:
        ends = [factor * end if factor else 0.0 for factor in (schedule.low, schedule.high) for end in (low, high)]
        return min(ends), max(ends)

    return Rewrite(f"{schedule.form}*{{}}", apply, bounds)


def from_step(first: int) -> Gate:
    """Return the gate that is open from training step ``first`` on."""

    def decide(measured: Measured) -> Openness:
        return np.full((len(measured.turns_G), measured.width), float(measured.group.step >= first))

    return Gate(f"step >= {first}", decide)


def _check(start: float, end: float, steps: int) -> None:
    finite("start of a schedule", start)
    finite("end of a schedule", end)
    if steps < 1:
        raise ConfigError(f"a schedule over {steps} steps has no steps; give at least 1")


__all__ = ["Schedule", "annealing", "from_step", "linear", "scheduled", "switch"]
