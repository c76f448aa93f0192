"""Measuring what is recorded: a probe reads the episodes of a group, or asks a judge about them, and returns signals.

Environments measure while an episode runs; probes measure afterwards, whenever and as often as somebody wants to know.
Neither prices anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from agentgym.env import Environment
from agentgym.types import Group, Signal, Trajectory


class OpenAt(Protocol):
    """Opens the world of an episode as it stood, where the world can branch."""

    def __call__(self, trajectory: Trajectory, turn: int) -> AbstractContextManager[Environment]:
        """Return the world as it stood before ``turn`` was acted; ``len(trajectory.turns)``: as it was left.

        Raises:
            InfrastructureError: the world cannot be brought back there.
        """


class Probe(Protocol):
    """Measures the trajectories of a group."""

    @property
    def name(self) -> str:
        """The ``source`` of its signals."""

    @property
    def signals(self) -> frozenset[str]:
        """Names of the signals it emits."""

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return the signals of each trajectory, in order; what could not be measured has no value, and a cause.

        Raises:
            UsageError: the probe needs ``open_at``, or something else that the episodes do not hold.
        """


def supplemented(trajectory: Trajectory, signals: Sequence[Signal]) -> Trajectory:
    """Return ``trajectory`` with ``signals``, which take the place of those of the same name, turn and item."""
    places = {(signal.name, signal.turn, signal.item) for signal in signals}
    kept = (signal for signal in trajectory.signals if (signal.name, signal.turn, signal.item) not in places)
    return replace(trajectory, signals=(*kept, *signals))


__all__ = ["OpenAt", "Probe", "supplemented"]
