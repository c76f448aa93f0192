"""The range a source pays on, which may move with the training step.

A source has a unit scale unless told otherwise, so that its weight means what it says. The scale of a publication is
a `Scale` of its own: ``Scale(-3, 3)``, or ``Scale(linear(-2, -3, over=150), linear(2, 3, over=150))`` where it
widens in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agentgym.errors import ConfigError
from agentgym.reward import Amount, Part, Scope, Shaper, finite, per_group
from agentgym.types import Group, Trajectory

from .schedules import Schedule

End = float | Schedule
"""A number, the same at every training step or not."""


def end_at(end: End, step: int) -> float:
    """Return the number at training step ``step``."""
    return end.at(step) if isinstance(end, Schedule) else end


def extremes_of(end: End) -> tuple[float, float]:
    """Return the numbers between which ``end`` moves."""
    return (end.low, end.high) if isinstance(end, Schedule) else (end, end)


@dataclass(frozen=True, slots=True)
class Scale:
    """What the worst and the best are paid: a share ``s`` in [0, 1] becomes ``low + (high - low) * s``.

    Raises:
        ConfigError: an end is not finite, or the lower one is ever above what the other ever is.
    """

    low: End = 0.0
    high: End = 1.0

    def __post_init__(self) -> None:
        for end in (*extremes_of(self.low), *extremes_of(self.high)):
            finite("end of a scale", end)
        low, high = extremes_of(self.low)[1], extremes_of(self.high)[0]
        if low > high:
            raise ConfigError(f"a scale from as much as {low:g} to as little as {high:g} may be empty; lower end first")

    def at(self, step: int) -> tuple[float, float]:
        """Return both ends at training step ``step``."""
        return end_at(self.low, step), end_at(self.high, step)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the most that is paid at any step."""
        return extremes_of(self.low)[0], extremes_of(self.high)[1]


UNIT = Scale(0.0, 1.0)

Price = Callable[[Trajectory, float, float], Amount | Sequence[Amount]]
"""What a trajectory, or each of its turns, is paid on the scale from the first number to the second."""


def scaled(name: str, price: Price, scale: Scale, *, scope: Scope, needs: str) -> Shaper:
    """Lift ``price`` to a reward on ``scale`` as it stands at the group's training step.

    Amounts of single turns are shares of the trajectory's and sum to it, so that nothing is gained by more of them.
    """

    def amounts(group: Group) -> list[Amount | Sequence[Amount]]:
        low, high = scale.at(group.step)
        return [price(trajectory, low, high) for trajectory in group.trajectories]

    low, high = scale.bounds
    if scope == "turn":
        low, high = min(low, 0.0), max(high, 0.0)
    part = Part(name, scope, low, high, total=(low, high))
    return replace(per_group(name, amounts, scope=scope, needs=needs), parts=(part,), needs_group=False)


__all__ = ["UNIT", "End", "Price", "Scale", "end_at", "extremes_of", "scaled"]
