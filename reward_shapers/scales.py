"""The range a source pays on, which may move with the training step.

A source has a unit scale unless told otherwise, so that its weight means what it says. The scale of a publication is
a `Scale` of its own: ``Scale(-3, 3)``, or ``Scale(Ramp(-2, -3, 150), Ramp(2, 3, 150))`` where it widens in training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from agentgym.errors import ConfigError
from agentgym.reward import Amount, Scope, Shaper, finite, per_group
from agentgym.types import Group, Trajectory


@dataclass(frozen=True, slots=True)
class Ramp:
    """A number that moves in a straight line from ``first`` to ``last`` over ``steps`` training steps and stays."""

    first: float
    last: float
    steps: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"a ramp over {self.steps} steps goes nowhere; give at least 1")

    def at(self, step: int) -> float:
        """Return the number at training step ``step``."""
        return self.first + (self.last - self.first) * min(max(step / self.steps, 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class Switch:
    """A number that is ``first`` before training step ``step`` and ``last`` from it on."""

    first: float
    last: float
    step: int

    def at(self, step: int) -> float:
        """Return the number at training step ``step``."""
        return self.first if step < self.step else self.last


End = float | Ramp | Switch


def end_at(end: End, step: int) -> float:
    """Return the number at training step ``step``."""
    return end.at(step) if isinstance(end, Ramp | Switch) else end


def extremes_of(end: End) -> tuple[float, ...]:
    """Return the numbers between which ``end`` moves."""
    return (end.first, end.last) if isinstance(end, Ramp | Switch) else (end,)


def _turns_at(end: End) -> set[int]:
    """Return the steps at which ``end`` may be farthest from another one: both are straight in between."""
    match end:
        case Ramp():
            return {end.steps}
        case Switch():
            return {end.step - 1, end.step}
        case _:
            return set()


@dataclass(frozen=True, slots=True)
class Scale:
    """What the worst and the best are paid: a share ``s`` in [0, 1] becomes ``low + (high - low) * s``.

    Raises:
        ConfigError: an end is not finite, or the lower one is above the other at some step.
    """

    low: End = 0.0
    high: End = 1.0

    def __post_init__(self) -> None:
        for end in (*extremes_of(self.low), *extremes_of(self.high)):
            finite("end of a scale", end)
        turning = {0}.union(*(_turns_at(end) for end in (self.low, self.high)))
        for step in turning:
            low, high = self.at(step)
            if low > high:
                raise ConfigError(f"a scale from {low:g} to {high:g} at step {step} is empty; give the lower end first")

    def at(self, step: int) -> tuple[float, float]:
        """Return both ends at training step ``step``."""
        return end_at(self.low, step), end_at(self.high, step)

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the most that is paid at any step."""
        return min(extremes_of(self.low)), max(extremes_of(self.high))


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
    return replace(per_group(name, amounts, scope=scope, needs=needs, low=low, high=high), needs_group=False)


__all__ = ["UNIT", "End", "Price", "Ramp", "Scale", "Switch", "end_at", "extremes_of", "scaled"]
