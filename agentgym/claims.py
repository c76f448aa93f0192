"""A group in columns: what was `Measured` in it, and each `Claim` that a component makes on it.

Signals are read once; from there on pricing is array arithmetic over all trajectories of the group at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from agentgym.errors import UsageError
from agentgym.ledger import WHOLE, Ledger, Status
from agentgym.types import Group

if TYPE_CHECKING:
    from agentgym.reward import Gate, Shaper

Scope = Literal["turn", "trajectory"]
Ints = NDArray[np.int32]
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What one component claims for the trajectories of a group. Columns have shape (N,)."""

    component: str
    trajectory: Ints
    "Place in the group."
    turn: Ints
    "Turn it is earned at, or `WHOLE`."
    raw: Reals
    value: Reals
    "NaN: unmeasured."
    signal: Ints
    openness: Reals
    eligible: NDArray[np.bool_]
    item: Ints
    item_names: tuple[str, ...] = ("",)
    weight: float = 1.0
    gates: str = ""
    needs: str = ""
    "What its rows are worked out from; says why one without a signal is unmeasured."

    def gated(self, gate: str, openness: Reals) -> Claim:
        """Return the claim behind one more gate."""
        return replace(
            self, openness=kleene_and(self.openness, openness), gates=f"{self.gates} & {gate}" if self.gates else gate
        )

    def weighted(self) -> Claim:
        """Return the claim with its weight taken into its value."""
        return replace(self, value=self.weight * self.value, weight=1.0)

    def status(self) -> NDArray[np.int8]:
        """Return the `Status` of each row. A shut gate decides whatever the value, an undecided one leaves it open."""
        status = np.where(np.isnan(self.openness * self.value), Status.UNMEASURED, Status.PAID).astype(np.int8)
        status[self.openness == 0] = Status.CLOSED
        status[~self.eligible] = Status.INELIGIBLE
        return status

    def amount(self) -> Reals:
        """Return what each row is worth: 0 where closed or ineligible, NaN where unmeasured."""
        closed = (self.openness == 0) | ~self.eligible
        return np.where(closed, 0.0, self.value * self.weight * self.openness)


class Measured:
    """The signals of a group in columns, read once; what claims and gates were worked out on them is remembered.

    Raises:
        UsageError: a trajectory that must not be scored, or a signal at a turn that is not there or without bounds.
    """

    def __init__(self, group: Group) -> None:
        for trajectory in group.trajectories:
            if not trajectory.stop.scored:
                raise UsageError(
                    f"trajectory '{trajectory.id}' ended by {trajectory.stop}, which says nothing about the policy; "
                    "leave it out of the group, it must not be priced"
                )
        self.group = group
        self.turns_G = np.array([len(trajectory.turns) for trajectory in group.trajectories], np.int32)
        self.width = max(1, int(self.turns_G.max(initial=0)))
        signals = [signal for trajectory in group.trajectories for signal in trajectory.signals]
        counts = np.array([len(trajectory.signals) for trajectory in group.trajectories], np.int64)
        self._trajectory = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self._index = (np.arange(len(signals)) - np.repeat(np.cumsum(counts) - counts, counts)).astype(np.int32)
        self._value: Reals = np.array([signal.value for signal in signals], np.float64)  # None becomes NaN
        turn: Reals = np.array([signal.turn for signal in signals], np.float64)
        wrong = np.isinf(self._value) | (turn < 0) | (turn >= self.turns_G[self._trajectory])
        if wrong.any():
            bad, owner = signals[int(wrong.argmax())], group.trajectories[self._trajectory[wrong.argmax()]]
            raise UsageError(
                f"trajectory '{owner.id}' of {len(owner.turns)} turns has signal '{bad.name}' from {bad.source} with "
                f"value {bad.value} at turn {bad.turn}; values are finite and turns count from 0"
            )
        self._turn = np.where(np.isnan(turn), WHOLE, turn).astype(np.int32)
        self._names, self._name = _coded([signal.name for signal in signals])
        self._items, self._item = _coded([signal.item for signal in signals])
        self._first_row_G = np.cumsum(self.turns_G) - self.turns_G
        self._claims: dict[Shaper, tuple[Claim, ...]] = {}
        self._openness: dict[Gate, Reals] = {}

    def claims(self, shaper: Shaper) -> tuple[Claim, ...]:
        """Return what ``shaper`` claims."""
        if shaper not in self._claims:
            self._claims[shaper] = shaper.claims(self)
        return self._claims[shaper]

    def openness_GT(self, gate: Gate) -> Reals:
        """Return how far ``gate`` is open, (G, T)."""
        if gate not in self._openness:
            openness_GT = gate.decide(self) + np.zeros((len(self.turns_G), self.width))
            if ((openness_GT < 0) | (openness_GT > 1)).any():
                raise UsageError(f"gate '{gate}' must decide between 0 and 1, or NaN where it cannot")
            self._openness[gate] = openness_GT
        return self._openness[gate]

    def openness_at(self, gate: Gate, claim: Claim) -> Reals:
        """Return how far ``gate`` is open for each row of ``claim``, (N,); for a whole trajectory at its last turn."""
        last = np.maximum(self.turns_G - 1, 0)[claim.trajectory]
        return self.openness_GT(gate)[claim.trajectory, np.where(claim.turn == WHOLE, last, claim.turn)]

    def amounts_GT(self, shaper: Shaper, scope: Scope) -> Reals:
        """Return what ``shaper`` pays, NaN where unmeasured: at each turn (G, T), or over each trajectory (G, 1).

        What is paid for a whole trajectory belongs to each of its turns.
        """
        trajectories = len(self.turns_G)
        total_GT = np.zeros((trajectories, self.width if scope == "turn" else 1))
        for claim in self.claims(shaper):
            amount, at_turn = claim.amount(), claim.turn != WHOLE
            if scope == "turn" and at_turn.any():
                cell = claim.trajectory[at_turn].astype(np.int64) * self.width + claim.turn[at_turn]
                total_GT += np.bincount(cell, amount[at_turn], total_GT.size).reshape(total_GT.shape)
                amount = np.where(at_turn, 0.0, amount)
            total_GT += np.bincount(claim.trajectory, amount, trajectories)[:, None]
        return total_GT

    def read(self, name: str, item: str, scope: Scope, component: str) -> Claim:
        """Return signal ``name`` as a claim: a row for each turn or each trajectory, unmeasured where it is missing."""
        claim = self._blank(component, scope, item)
        found = np.flatnonzero(
            (self._name == self._names.get(name, WHOLE))
            & (self._item == self._items.get(item, WHOLE))
            & ((self._turn == WHOLE) == (scope == "trajectory"))
        )
        trajectory = self._trajectory[found]
        row = trajectory if scope == "trajectory" else self._first_row_G[trajectory] + self._turn[found]
        claim.raw[row] = self._value[found]
        claim.signal[row] = self._index[found]
        return claim

    def lift(self, name: str, scope: Scope, amounts: Sequence[object], needs: str = "") -> Claim:
        """Return what a function pays as a claim: ``amounts`` has one for each trajectory, or for each of its turns.

        Raises:
            UsageError: it holds something else, or an infinite amount.
        """
        claim = self._blank(name, scope, "")
        try:
            rows = [np.array(amount, np.float64) for amount in amounts]  # None becomes NaN
        except (TypeError, ValueError):
            rows = []
        expected = [(turns,) if scope == "turn" else () for turns in self.turns_G.tolist()]
        if [row.shape for row in rows] != expected or any(np.isinf(row).any() for row in rows):
            each = "turn of each trajectory" if scope == "turn" else "trajectory"
            raise UsageError(f"reward '{name}' must return a finite amount, or None, for each {each}")
        claim.raw[:] = np.concatenate([np.empty(0), *(row.reshape(-1) for row in rows)])
        return replace(claim, needs=needs)

    def laid_out(self, component: str, scope: Scope, amount_GT: Reals) -> Claim:
        """Return amounts at each turn (G, T), or of each whole trajectory (G, 1), as a claim; NaN is unmeasured."""
        claim = self._blank(component, scope, "")
        claim.raw[:] = amount_GT[claim.trajectory, 0 if scope == "trajectory" else claim.turn]
        return claim

    def _blank(self, component: str, scope: Scope, item: str) -> Claim:
        trajectories = np.arange(len(self.turns_G), dtype=np.int32)
        if scope == "turn":
            trajectory = np.repeat(trajectories, self.turns_G)
            turn = (np.arange(len(trajectory)) - self._first_row_G[trajectory]).astype(np.int32)
        else:
            trajectory, turn = trajectories, np.full(len(trajectories), WHOLE, np.int32)
        raw = np.full(len(trajectory), np.nan)
        return Claim(
            component,
            trajectory,
            turn,
            raw,
            value=raw,
            signal=np.full(len(trajectory), WHOLE, np.int32),
            openness=np.ones(len(trajectory)),
            eligible=np.ones(len(trajectory), np.bool_),
            item=np.zeros(len(trajectory), np.int32),
            item_names=(item,),
        )


def kleene_and(a: Reals, b: Reals) -> Reals:
    """Return the product of how far two gates are open: Kleene's "and" on {0, NaN, 1}, 0 where either is shut."""
    return np.where((a == 0) | (b == 0), 0.0, a * b)


def ledgers(reward: str, components: tuple[str, ...], measured: Measured, claims: Sequence[Claim]) -> list[Ledger]:
    """Return the ledger of each trajectory of the group; their columns are views of the group's."""
    item_names = tuple(name for claim in claims for name in claim.item_names)
    gate_names = tuple(dict.fromkeys(claim.gates for claim in claims))
    needs = {claim.component: claim.needs for claim in reversed(claims) if claim.needs}
    rows = [len(claim.trajectory) for claim in claims]
    items = [len(claim.item_names) for claim in claims]
    owner = np.concatenate([claim.trajectory for claim in claims])
    order = np.argsort(owner, kind="stable")

    def each(constants: list[Any], dtype: type) -> NDArray[Any]:
        return np.repeat(np.array(constants, dtype), rows)[order]

    def joined(blocks: list[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(blocks)[order]

    first_item = each([end - count for end, count in zip(itertools.accumulate(items), items, strict=True)], np.int32)
    columns = {
        "component": each([components.index(claim.component) for claim in claims], np.int32),
        "item": first_item + joined([claim.item for claim in claims]),
        "turn": joined([claim.turn for claim in claims]),
        "raw": joined([claim.raw for claim in claims]),
        "value": joined([claim.value for claim in claims]),
        "weight": each([claim.weight for claim in claims], np.float64),
        "openness": joined([claim.openness for claim in claims]),
        "gates": each([gate_names.index(claim.gates) for claim in claims], np.int32),
        "status": joined([claim.status() for claim in claims]),
        "credited": np.nan_to_num(joined([claim.amount() for claim in claims])),
        "signal": joined([claim.signal for claim in claims]),
    }
    bounds = np.searchsorted(owner[order], np.arange(len(measured.turns_G) + 1)).tolist()
    names = (components, tuple(needs.get(component, "") for component in components), item_names, gate_names)
    return [
        Ledger(reward, trajectory, *names, **{k: v[start:end] for k, v in columns.items()})
        for trajectory, (start, end) in zip(measured.group.trajectories, itertools.pairwise(bounds), strict=True)
    ]


def _coded(words: list[str]) -> tuple[dict[str, int], Ints]:
    codes = {word: code for code, word in enumerate(dict.fromkeys(words))}
    if len(codes) < 2:
        return codes, np.zeros(len(words), np.int32)
    return codes, np.fromiter(map(codes.__getitem__, words), np.int32, len(words))


__all__ = ["Claim", "Measured", "Scope", "kleene_and", "ledgers"]
