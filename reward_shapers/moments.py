"""When each item of a checklist became satisfied, as far as it is known.

An item is satisfied or not after each turn of its stage, and stays satisfied: its *moment* is the turn that satisfied
it, infinite where none did. Verdicts that are missing leave it between an earliest and a latest turn, and what follows
from moments is decided on that interval: known where every moment in it gives the same answer, NaN where not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentgym.claims import Claim, Measured

from .checklist_items import Checklist

Reals = NDArray[np.float64]
Ints = NDArray[np.int32]
NEVER = np.inf


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The turns that the trajectories of a group spent in one stage. Columns have shape (N,)."""

    row: NDArray[np.intp]
    "Place among all turns of the group."
    trajectory: Ints
    turn: Ints


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """One item, in every trajectory of a group."""

    earliest_G: Reals
    latest_G: Reals
    last_G: Reals
    "The last turn of the stage; -1 where it was not reached."
    signal_G: Ints
    "Index of the measurement that decided, or -1."

    def earned_G(self, dependencies: list[Moments]) -> Reals:
        """Return 1 where the item flipped after all of ``dependencies``, else 0 (CM2, Eq. 2 summed over steps).

        Satisfied before or together with a dependency, it earns nothing, ever.
        """
        surely = np.isfinite(self.latest_G)
        last_chance_G = np.minimum(self.latest_G, self.last_G)
        maybe = np.isfinite(self.earliest_G)
        for dependency in dependencies:
            surely &= dependency.latest_G < self.earliest_G
            maybe &= dependency.earliest_G < last_chance_G
        return _known(surely, ~maybe)

    def eligible_N(self, rows: Rows, dependencies: list[Moments]) -> Reals:
        """Return 1 before the turns at which the item was open to be earned, else 0 (CM2, the set E of Eq. 10)."""
        open_ = self.earliest_G[rows.trajectory] >= rows.turn
        shut = self.latest_G[rows.trajectory] < rows.turn
        for dependency in dependencies:
            open_ &= dependency.latest_G[rows.trajectory] < rows.turn
            shut |= dependency.earliest_G[rows.trajectory] >= rows.turn
        return _known(open_, shut)

    def satisfied_G(self) -> Reals:
        """Return 1 where the item was satisfied in the end, else 0."""
        return _known(np.isfinite(self.latest_G), ~np.isfinite(self.earliest_G))


def stage_of_turns(measured: Measured) -> Ints:
    """Return the stage of every turn of the group, trajectory by trajectory, (N,)."""
    stages = [turn.stage for trajectory in measured.group.trajectories for turn in trajectory.turns]
    return np.array(stages, np.int32)


def stage_moments(
    measured: Measured, checklist: Checklist, stage: int, stage_N: Ints, signal: str
) -> tuple[Rows, list[Moments]]:
    """Return the turns spent in ``stage``, and the moments of its items as the signals called ``signal`` tell them."""
    claims = [measured.read(signal, name, "turn", signal) for name in checklist.names(stage)]
    row = np.flatnonzero(stage_N == stage)
    rows = Rows(row, claims[0].trajectory[row], claims[0].turn[row])
    return rows, [_moments(claim, rows, len(measured.turns_G)) for claim in claims]


def _moments(claim: Claim, rows: Rows, trajectories: int) -> Moments:
    verdict_N = claim.raw[rows.row]
    first_G = _extreme(np.minimum, rows.trajectory, rows.turn, trajectories, NEVER)
    last_G = _extreme(np.maximum, rows.trajectory, rows.turn, trajectories, -1.0)
    yes = verdict_N == 1
    latest_G = _extreme(np.minimum, rows.trajectory[yes], rows.turn[yes], trajectories, NEVER)
    # Satisfied items stay so: a no rules out every turn up to its own, and a no after a yes says nothing.
    no = ~np.isnan(verdict_N) & (rows.turn < latest_G[rows.trajectory])
    no_G = _extreme(np.maximum, rows.trajectory[no], rows.turn[no], trajectories, -1.0)
    earliest_G = np.maximum(first_G, no_G + 1)
    earliest_G = np.where(earliest_G > last_G, NEVER, earliest_G)
    decided_N = rows.turn == np.minimum(latest_G, last_G)[rows.trajectory]
    signal_G = np.full(trajectories, -1, np.int32)
    signal_G[rows.trajectory[decided_N]] = claim.signal[rows.row[decided_N]]
    return Moments(earliest_G, latest_G, last_G, signal_G)


def _extreme(function: np.ufunc, trajectory: Ints, turn: Ints, trajectories: int, otherwise: float) -> Reals:
    result_G = np.full(trajectories, otherwise)
    function.at(result_G, trajectory, turn)
    return result_G


def _known(yes: NDArray[np.bool_], no: NDArray[np.bool_]) -> Reals:
    return np.where(yes, 1.0, np.where(no, 0.0, np.nan))


__all__ = ["Moments", "Rows", "stage_moments", "stage_of_turns"]
