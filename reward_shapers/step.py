"""What each turn brought."""

from __future__ import annotations

import math

from agentgym.reward import Shaper, signal


def step(name: str, *, item: str = "", low: float = -math.inf, high: float = math.inf) -> Shaper:
    """Return the reward that pays the signal ``name`` of each turn at that turn.

    The sum over the turns is what counts, so the signal should be a gain (``progress`` made by this turn), not a
    standing (progress so far).

    Breaks *bounded*: every turn is paid.
    """
    return signal(name, scope="turn", item=item, low=low, high=high)


__all__ = ["step"]
