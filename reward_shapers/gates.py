"""Conditions on what was measured, for ``reward.when(gate)``, and rewards whose levels gate each other."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agentgym.errors import ConfigError, unknown_name
from agentgym.reward import Gate, Scope, Shaper, above, signal

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
    """Return the gate that is open where the trajectory's signal ``name`` is above 0: `submitted`, `patch`, `won`."""
    return replace(threshold(name, ">", 0.0, scope="trajectory"), name=name)


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


__all__ = ["Comparison", "Level", "accumulate", "direct", "passed", "threshold"]
