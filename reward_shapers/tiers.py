"""Nearness in tiers: a proximity in [0, 1], cut into zones that each pay one amount (SSL, arXiv 2601.22491)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from agentgym.errors import ConfigError
from agentgym.reward import Amount, Shaper, Transform, finite, per_trajectory
from agentgym.types import Trajectory

from .outcome import outcome as outcome_of
from .transforms import monotone

QUARTERS = (0.25, 0.5, 0.75)
"""Edges of four equal zones. Four is the number the paper finds best: fewer are nearly binary, more are noise."""


def tiered(edges: Sequence[float], values: Sequence[float]) -> Transform:
    """Return the transform that pays ``values[k]`` in zone ``k``; an amount at an edge is in the zone above it.

    The paper gives neither edges nor values but for quarters, so neither has a default. Zones never pay less than the
    one below, which keeps solutions in their order.

    Raises:
        ConfigError: edges do not rise, values fall, or there is not one value more than there are edges.
    """
    for number in (*edges, *values):
        finite("number of a tier", number)
    rising = all(low < high for low, high in itertools.pairwise(edges))
    growing = all(low <= high for low, high in itertools.pairwise(values))
    if not (rising and growing and edges and len(values) == len(edges) + 1):
        raise ConfigError(
            f"tiers need edges that rise and one value more, which never falls; got edges {list(edges)} "
            f"and values {list(values)}"
        )
    table = np.array(values, np.float64)
    cuts = ", ".join(f"{edge:g}" for edge in edges)
    return monotone(f"tiered({{}}, {cuts})", lambda amount_N: table[np.searchsorted(edges, amount_N, side="right")])


def ssl(
    proximity: Shaper, *, alpha: float, edges: Sequence[float], values: Sequence[float], outcome: str = "won"
) -> Shaper:
    """Return ``R(τ) = C(τ) + α Ŝ(τ)``: the outcome, and the tier that ``proximity`` to the solution is in.

    ``proximity`` pays each trajectory once, such as `gained`.
    """
    return outcome_of(outcome) + alpha * proximity.then(tiered(edges, values))


def gained(name: str, *, low: float = 0.0, high: float = 1.0) -> Shaper:
    """Return the sum of what signal ``name`` says each turn gained, paid once; unmeasured if any turn is."""

    def amount(trajectory: Trajectory) -> Amount:
        at_turn = {signal.turn: signal.value for signal in trajectory.signals if signal.name == name}
        gains = [at_turn.get(turn) for turn in range(len(trajectory.turns))]
        known = [gain for gain in gains if gain is not None]
        return sum(known) if len(known) == len(gains) else None

    return per_trajectory(
        name, amount, scope="trajectory", signals={name}, needs=f"'{name}' of every turn", low=low, high=high
    )


__all__ = ["QUARTERS", "gained", "ssl", "tiered"]
