"""What turns are usually worth: a moving average across batches, and the columns it is kept for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agentgym.train.advantage.grid import (
    SUM,
    Bools,
    Cells,
    GroupRewards,
    Reals,
    check_unit,
    padded,
    rest_known,
    returns_to_go,
)


class TurnBaseline:
    """Moving average of the return-to-go at each turn index, by task family and component.

    ``turn_rtg_loo`` lets it stand in for siblings on turns that few of them reached. That stays unbiased as long as a
    group is estimated *before* it is taken in: `estimate` first, then `update`.

    The average weighs by rollouts: with s ← d·s + Σ G_t and c ← d·c + #alive at each update that sees turn t,
    the value is s / c, and 0 for a turn never seen.
    """

    def __init__(self, *, decay: float = 0.9, gamma: float = 1.0) -> None:
        check_unit("decay", decay)
        check_unit("gamma", gamma)
        self.decay = decay
        self.gamma = gamma
        self._sums: dict[tuple[str, str], Reals] = {}
        self._counts: dict[tuple[str, str], Reals] = {}

    def value(self, turn: int, *, family: str = "", component: str = SUM) -> float:
        """Return the average at ``turn``, 0 where nothing is known."""
        return float(self.values(turn + 1, family=family, component=component)[turn])

    def values(self, turns: int, *, family: str = "", component: str = SUM) -> Reals:
        """Return the averages ``[T]`` of the first ``turns`` turns."""
        value_T = np.zeros(turns)
        key = (family, component)
        if key in self._sums:
            seen = min(turns, len(self._sums[key]))
            count_T = self._counts[key][:seen]
            np.divide(self._sums[key][:seen], count_T, out=value_T[:seen], where=count_T > 0)
        return value_T

    def update(self, groups: Sequence[GroupRewards]) -> None:
        """Take in a batch whose advantages have been estimated."""
        batches: dict[tuple[str, str], list[Cells]] = {}
        for group in groups:
            for name, (_, cells) in columns(group, gamma=self.gamma, lam=1.0, baseline=None).items():
                batches.setdefault((group.family, name), []).append(cells)
        for (family, name), cells_of in batches.items():
            tallies = [_tally(cells) for cells in cells_of]
            self._step((family, name), _summed([s for s, _ in tallies]), _summed([c for _, c in tallies]))

    def absorb(self, cells: Cells, *, family: str = "", component: str = SUM) -> None:
        """Take in one column of many groups at once, as `update` does for a batch."""
        self._step((family, component), *_tally(cells))

    def _step(self, key: tuple[str, str], sum_T: Reals, count_T: Reals) -> None:
        decay_T = np.where(count_T > 0, self.decay, 1.0)
        for table, new_T in ((self._sums, sum_T), (self._counts, count_T)):
            turns = max(len(new_T), len(table.get(key, ())))
            old_T = padded(table.get(key, np.zeros(0)), turns)
            table[key] = old_T * padded(decay_T, turns, fill=1.0) + padded(new_T, turns)

    def state(self) -> dict[str, Any]:
        """Return everything as plain lists, numbers and strings."""
        tables = [
            {"family": key[0], "component": key[1], "sum": sum_T.tolist(), "count": self._counts[key].tolist()}
            for key, sum_T in sorted(self._sums.items())
        ]
        return {"decay": self.decay, "gamma": self.gamma, "tables": tables}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TurnBaseline:
        """Return the baseline that `state` described."""
        baseline = cls(decay=state["decay"], gamma=state["gamma"])
        for table in state["tables"]:
            key = (table["family"], table["component"])
            baseline._sums[key] = np.array(table["sum"], np.float64)
            baseline._counts[key] = np.array(table["count"], np.float64)
        return baseline


def columns(
    group: GroupRewards, *, gamma: float, lam: float, baseline: TurnBaseline | None, omega: float = 1.0
) -> dict[str, tuple[float, Cells]]:
    """Return weight and cells of each component, or of their sum where a critic takes part."""
    turns = group.alive_GT.shape[1]
    weights = group.weights or (1.0,) * len(group.components)

    def cells(name: str, reward_GT: Reals, measured_GT: Bools | None) -> Cells:
        prior_T = None if baseline is None else baseline.values(turns, family=group.family, component=name)
        end_G = group.bootstrap_G
        if end_G is not None:
            end_G = np.zeros_like(end_G) if group.truncated_G is None else np.where(group.truncated_G, end_G, 0.0)
        return Cells(
            reward_GT,
            group.alive_GT,
            measured_GT,
            gamma,
            lam,
            omega,
            values_GT=group.values_GT,
            bootstrap_G=end_G,
            prior_T=prior_T,
            states_GT=group.states_GT,
            actions_GT=group.actions_GT,
        )

    measured_GTC = group.measured_GTC
    if group.has_critic:
        counts_C = np.array(weights) != 0
        known_GT = None if measured_GTC is None else np.all(measured_GTC | ~counts_C, axis=2)
        paid_GTC = group.reward_GTC if measured_GTC is None else np.where(measured_GTC, group.reward_GTC, 0.0)
        return {SUM: (1.0, cells(SUM, paid_GTC @ np.array(weights, np.float64), known_GT))}
    return {
        name: (
            weights[c],
            cells(name, group.reward_GTC[:, :, c], None if measured_GTC is None else measured_GTC[:, :, c]),
        )
        for c, name in enumerate(group.components)
    }


def _tally(cells: Cells) -> tuple[Reals, Reals]:
    """Return the sum of returns-to-go and the number of rollouts at each turn."""
    known_GT = rest_known(cells)
    return_GT = np.where(known_GT, returns_to_go(cells.ahead_GT, cells.gamma), 0.0)
    axes = tuple(range(known_GT.ndim - 1))
    return return_GT.sum(axes), known_GT.sum(axes).astype(np.float64)


def _summed(rows: Sequence[Reals]) -> Reals:
    """Return the sum of arrays ``[T]`` of different lengths."""
    turns = max(len(row) for row in rows)
    return np.asarray(np.sum([padded(row, turns) for row in rows], axis=0), np.float64)


__all__ = ["TurnBaseline", "columns"]
