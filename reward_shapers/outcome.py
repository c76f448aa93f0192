"""What the episode as a whole came to."""

from __future__ import annotations

from agentgym.reward import Shaper, signal


def outcome(name: str = "won", *, item: str = "", low: float = 0.0, high: float = 1.0) -> Shaper:
    """Return the reward that pays the trajectory's signal ``name`` once, on the last turn."""
    return signal(name, scope="trajectory", item=item, low=low, high=high)


__all__ = ["outcome"]
