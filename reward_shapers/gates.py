"""Conditions on what was measured, for ``reward.when(gate)``, and rewards whose levels gate each other."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from agentgym.claims import Claim, Measured
from agentgym.errors import ConfigError, unknown_name
from agentgym.ledger import WHOLE
from agentgym.reward import Gate, Openness, Rewrite, Scope, Shaper, above, finite, signal

Comparison = Literal[">", ">=", "<", "<="]


def threshold(name: str, comparison: Comparison, value: float, *, scope: Scope) -> Gate:
    """Return the gate that is open where signal ``name`` compares so with ``value``; undecided where it is unmeasured.

    With ``scope="turn"`` each turn's own measurement decides for that turn, and a turn-less amount by the last one.
    """
    source = signal(name, scope=scope)
    match comparison:
        case ">" | ">=":
            return above(source, value, strict=comparison == ">", scope=scope)
        case "<" | "<=":
            not_above = ~above(source, value, strict=comparison == "<=", scope=scope)
            at = "@turn" if scope == "turn" else ""
            return replace(not_above, name=f"{name}{at} {comparison} {value:g}")
    raise unknown_name("comparison", comparison, [">", ">=", "<", "<="])


def passed(name: str) -> Gate:
    """Return the gate that is open where the trajectory's signal ``name`` is above 0: `submitted`, `patch`, `won`.

    Breaks *prefix-only*: what is known in the end decides for every turn.
    """
    return replace(threshold(name, ">", 0.0, scope="trajectory"), name=name)


ROUNDING = 1e-9
"""How far beyond 0 or 1 a sum of weights may lie and still count as 0 or 1."""


def proportional(reward: Shaper, *, scope: Scope = "trajectory") -> Gate:
    """Return the gate that is open as far as ``reward`` pays: what lies behind it is multiplied by it.

    Undecided where the reward is unmeasured. Posterior-GRPO (arXiv 2508.05170) and C-GRPO (arXiv 2601.06021) multiply
    a process reward by the outcome like this.

    Breaks *prefix-only*: what is paid in the end decides for every turn.

    Raises:
        ConfigError: the reward is declared to pay less than 0 or more than 1.
    """
    low, high = reward.range(1)
    if (np.isfinite(low) and low < -ROUNDING) or (np.isfinite(high) and high > 1 + ROUNDING):
        raise ConfigError(
            f"'{reward.name}' pays from {low:g} to {high:g} and cannot be how far a gate is open; "
            "bring it to 0 … 1 first, with .then(scale(…)) or .then(clip(0, 1))"
        )

    def decide(measured: Measured) -> Openness:
        amount = measured.amounts_GT(reward, scope)
        within = np.clip(amount, 0.0, 1.0)
        return np.where(np.abs(amount - within) <= ROUNDING, within, amount)

    name = f"{reward.name}@turn" if scope == "turn" else reward.name
    return Gate(f"({name})" if " " in name else name, decide, reward.signals, reward.needs_group)


def sign_shift(reward: Shaper, outcome: Shaper, *, beta: float = 1.0) -> Shaper:
    """Return ``r + R_o − β`` for each amount r of ``reward``, R_o being what ``outcome`` pays over the trajectory.

    With r and R_o within 0 and 1 and β = 1 nothing in a failed episode is above 0 and nothing in a solved one below.
    Source: ReNorm of PPR, arXiv 2509.25598. A public review notes that each further turn of a failed episode takes
    something away, which pushes towards short ones.

    Breaks *prefix-only*: the outcome moves every turn.
    """
    finite("beta of a sign shift", beta)
    low, high = outcome.range(1)

    def apply(measured: Measured, claim: Claim) -> Claim:
        solved_G = measured.amounts_GT(outcome, "trajectory")[:, 0]
        return replace(claim, value=claim.value + solved_G[claim.trajectory] - beta)

    return reward.then(
        Rewrite(
            f"({{}} + {outcome.name} - {beta:g})",
            apply,
            lambda least, most: (least + low - beta, most + high - beta),
            outcome.signals,
            outcome.needs_group,
        )
    )


def before_last(reward: Shaper) -> Shaper:
    """Return ``reward`` without its entries at the last turn, where nothing can be earned: they are ineligible.

    Breaks *prefix-only*: which turn is the last is known when it is over.
    """

    def apply(measured: Measured, claim: Claim) -> Claim:
        last = (claim.turn != WHOLE) & (claim.turn == measured.turns_G[claim.trajectory] - 1)
        return replace(claim, eligible=claim.eligible & ~last)

    change = Rewrite("before_last({})", apply, lambda low, high: (min(low, 0.0), max(high, 0.0)))
    return reward.then(change)


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A reward with its place in an order of priority: what lies below it is paid where it passes its threshold."""

    name: str
    reward: Shaper
    threshold: float = 0.0
    "In units of what the reward pays, its weight included."
    strict: bool = True
    scope: Scope = "trajectory"

    def gate(self) -> Gate:
        """Return the gate this level is to the levels below."""
        return above(self.reward, self.threshold, strict=self.strict, scope=self.scope, name=self.name)


def accumulate(*levels: Level) -> Shaper:
    """Return the gated accumulation of ``levels``, the lowest first: ``Σᵢ R⁽ⁱ⁾ · Πⱼ﹥ᵢ 1[R⁽ʲ⁾ > gⱼ]`` (G-RA).

    The gates read what each higher level pays by itself, not what the levels above it let through. Source: Sun et al.,
    "Gated Reward Accumulation", arXiv 2508.10548.

    Breaks *prefix-only*: a level is let through by what the higher ones come to in the end.
    """
    _check_levels(levels)
    gates = [level.gate() for level in levels]
    below = [
        level.reward.when(functools.reduce(operator.and_, gates[place:]))
        for place, level in enumerate(levels[:-1], start=1)
    ]
    return functools.reduce(operator.add, [*below, levels[-1].reward])


def direct(*levels: Level) -> Shaper:
    """Return the same sum without gates: the baseline D-RA of arXiv 2508.10548."""
    _check_levels(levels)
    return functools.reduce(operator.add, (level.reward for level in levels))


def _check_levels(levels: Sequence[Level]) -> None:
    names = [level.name for level in levels]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"levels need at least one, with names that differ; got: {', '.join(names) or 'none'}")


__all__ = [
    "Comparison",
    "Level",
    "accumulate",
    "before_last",
    "direct",
    "passed",
    "proportional",
    "sign_shift",
    "threshold",
]
