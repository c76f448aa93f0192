"""What was paid, for what and why: one `Ledger` for each trajectory that was priced."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agentgym.types import Signal, Trajectory

WHOLE = -1
"""In a column of turns: the trajectory as a whole. In a column of signals: none."""


class Status(IntEnum):
    """What became of an entry."""

    PAID = 0
    "Its amount was credited in full or, through a gate that is partly open, in part."
    CLOSED = 1
    "A gate is shut: worth 0, whatever its value."
    INELIGIBLE = 2
    "Nothing could be earned here, as by an item whose dependency is not satisfied."
    UNMEASURED = 3
    "Its value, or a gate it hangs on, is not known: out of every mean, never 0."


class Entry(NamedTuple):
    """One row of a ledger, for people."""

    component: str
    item: str
    turn: int | None
    raw: float
    value: float
    weight: float
    openness: float
    gates: str
    status: Status
    credited: float
    signal: Signal | None
    "The measurement that was priced, with its source, cause and evidence."
    needs: str
    "What the component is worked out from, where it says so."


@dataclass(frozen=True, slots=True, eq=False)
class Ledger:
    """What one trajectory was paid under one reward.

    Columns have shape (N,), a row for each amount claimed; ``credited = value * weight * openness`` where paid, else 0.
    """

    reward: str
    "The reward as an expression."
    trajectory: Trajectory
    component_names: tuple[str, ...]
    component_needs: tuple[str, ...]
    "What each component is worked out from, such as ``task.data['answer']``; empty where it does not say."
    item_names: tuple[str, ...]
    gate_names: tuple[str, ...]
    component: NDArray[np.int32]
    "Index into ``component_names``."
    item: NDArray[np.int32]
    "Index into ``item_names``."
    turn: NDArray[np.int32]
    "Turn it was earned at, or `WHOLE`."
    raw: NDArray[np.float64]
    "As measured; NaN where it was not."
    value: NDArray[np.float64]
    "After the transforms."
    weight: NDArray[np.float64]
    openness: NDArray[np.float64]
    "Of all its gates together, in [0, 1]; NaN undecided."
    gates: NDArray[np.int32]
    "Index into ``gate_names``; the name is empty where there is none."
    status: NDArray[np.int8]
    "A `Status`."
    credited: NDArray[np.float64]
    signal: NDArray[np.int32]
    "Index into ``trajectory.signals``, or -1 where no signal was read or found."

    def __eq__(self, other: object) -> bool:
        """Whether both pay the same for the same reasons: equal columns, names and signals, NaN equal to NaN."""
        if not isinstance(other, Ledger):
            return NotImplemented
        if self.trajectory.signals != other.trajectory.signals:
            return False
        names = (field.name for field in fields(self) if field.name != "trajectory")
        return all(_same(getattr(self, name), getattr(other, name)) for name in names)

    def credit_CT(self) -> NDArray[np.float64]:
        """Return what each component pays at each turn, (C, T); a whole trajectory's amount sits on the last turn.

        An episode without turns has nothing to credit: shape (C, 0), though `total` may differ from 0.
        """
        shape = len(self.component_names), len(self.trajectory.turns)
        if not shape[1]:
            return np.zeros(shape)
        credit = np.bincount(self._cell(), self.credited, shape[0] * shape[1])
        return credit.astype(np.float64, copy=False).reshape(shape)

    def mask_CT(self) -> NDArray[np.bool_]:
        """Return where the credit is known, (C, T): False where an entry is unmeasured."""
        mask = np.ones((len(self.component_names), len(self.trajectory.turns)), np.bool_)
        if mask.size:
            mask.flat[self._cell()[self.status == Status.UNMEASURED]] = False
        return mask

    def total(self) -> float:
        """Return the sum of what was paid. It is a lower or upper part of the truth unless `measured`."""
        return float(self.credited.sum())

    @property
    def measured(self) -> bool:
        """Whether no entry is unmeasured."""
        return not bool((self.status == Status.UNMEASURED).any())

    def entries(self) -> Iterator[Entry]:
        """Yield the rows in the order of the turns they are credited to, those of the whole trajectory last."""
        rank = np.where(self.turn == WHOLE, len(self.trajectory.turns), self.turn)
        for n in np.argsort(rank, kind="stable").tolist():
            yield Entry(
                component=self.component_names[self.component[n]],
                item=self.item_names[self.item[n]],
                turn=None if self.turn[n] == WHOLE else int(self.turn[n]),
                raw=float(self.raw[n]),
                value=float(self.value[n]),
                weight=float(self.weight[n]),
                openness=float(self.openness[n]),
                gates=self.gate_names[self.gates[n]],
                status=Status(int(self.status[n])),
                credited=float(self.credited[n]),
                signal=None if self.signal[n] < 0 else self.trajectory.signals[self.signal[n]],
                needs=self.component_needs[self.component[n]],
            )

    def explain(self) -> str:
        """Return the ledger as a table: who paid, for which turn, through which gate, on what evidence."""
        head = ("turn", "component", "value", "weight", "open", "credited", "status", "gates", "evidence")
        rows = [head, *(_cells(entry) for entry in self.entries())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        table = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        turns = len(self.trajectory.turns)
        title = (
            f"{self.reward}\ntrajectory {self.trajectory.id}: {turns} turn{'s' * (turns != 1)}, "
            f"{self.trajectory.stop}, paid {self.total():g}{'' if self.measured else ' (not all of it measured)'}"
        )
        return "\n".join([title, *(line.rstrip() for line in table)])

    def _cell(self) -> NDArray[np.int64]:
        """Return the flat (C, T) cell of each row; there is at least one turn."""
        turns = len(self.trajectory.turns)
        return self.component.astype(np.int64) * turns + np.where(self.turn == WHOLE, turns - 1, self.turn)


def _same(mine: object, theirs: object) -> bool:
    if isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray):
        return np.array_equal(mine, theirs, equal_nan=True)
    return mine == theirs


def _cells(entry: Entry) -> tuple[str, ...]:
    signal = entry.signal
    transformed = "" if entry.raw == entry.value or np.isnan(entry.raw) else f" (raw {entry.raw:g})"
    evidence = ""
    if signal is None and entry.status is Status.UNMEASURED:
        evidence = f"needs {entry.needs}" if entry.needs else "no signal"
    if signal is not None:
        evidence = textwrap.shorten(": ".join(filter(None, (signal.source, signal.cause, signal.evidence))), 100)
    return (
        "end" if entry.turn is None else str(entry.turn),
        f"{entry.component}[{entry.item}]" if entry.item else entry.component,
        "?" if np.isnan(entry.value) else f"{entry.value:g}{transformed}",
        f"{entry.weight:g}",
        "?" if np.isnan(entry.openness) else f"{entry.openness:g}",
        f"{entry.credited:g}" if entry.status is Status.PAID else "-",
        entry.status.name.lower(),
        entry.gates or "-",
        evidence,
    )


__all__ = ["WHOLE", "Entry", "Ledger", "Status"]
