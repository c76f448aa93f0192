"""Pricing a stored run again, group by group: no model and no world, and never more than one group in memory."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agentgym.errors import StoredRunError, unknown_name
from agentgym.ledger import Ledger, Status
from agentgym.reward import Shaper
from agentgym.store import Episode, iter_groups
from agentgym.store_signals import Measurements
from agentgym.types import Group


@dataclass(frozen=True, slots=True)
class Selection:
    """Which stored episodes are meant."""

    step: int | None = None
    "Those of this training step; None: of all."
    split: str | None = None
    "Those of tasks of this split; None: of all."

    def takes(self, episode: Episode) -> bool:
        """Return whether ``episode`` is meant."""
        task = episode.trajectory.task
        return self.step in (None, episode.step) and self.split in (None, task.split)


ALL = Selection()


@dataclass(slots=True)
class Tally:
    """A mean over the episodes where a value is known, and how many there were where it is not."""

    total: float = 0.0
    measured: int = 0
    unmeasured: int = 0

    def add(self, value: float | None) -> None:
        """Count one episode; None: unmeasured."""
        if value is None:
            self.unmeasured += 1
        else:
            self.total += value
            self.measured += 1

    def as_dict(self) -> dict[str, float]:
        """Return ``mean`` (NaN where nothing was measured) and ``unmeasured``, the share of episodes in [0, 1]."""
        episodes = self.measured + self.unmeasured
        return {
            "mean": self.total / self.measured if self.measured else math.nan,
            "unmeasured": self.unmeasured / episodes if episodes else math.nan,
        }


@dataclass(slots=True)
class Prices:
    """What episodes are paid under one reward, in the mean."""

    reward: str
    total: Tally = field(default_factory=Tally)
    components: dict[str, Tally] = field(default_factory=dict)

    def add(self, total: float | None, components: Mapping[str, float | None]) -> None:
        """Count one episode."""
        self.total.add(total)
        for name, value in components.items():
            self.components.setdefault(name, Tally()).add(value)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        parts = {name: tally.as_dict() for name, tally in self.components.items()}
        return {"reward": self.reward, "total": self.total.as_dict(), "components": parts}


def groups(path: Path, selection: Selection = ALL) -> Iterator[tuple[Group, tuple[Episode, ...]]]:
    """Yield the stored groups of a run, with all that was measured since, and the episodes as they were stored.

    Raises:
        StoredRunError: there is no run, or a line is damaged.
    """
    since = Measurements(path)
    for siblings in iter_groups(path):
        episodes = tuple(episode for episode in siblings if selection.takes(episode))
        if episodes:
            merged = tuple(since.merged(episode.trajectory) for episode in episodes)
            yield Group(merged, episodes[0].step), episodes


def score(path: Path, shaper: Shaper, selection: Selection = ALL) -> dict[str, Any]:
    """Price the episodes of the run in ``path`` under ``shaper``; return what they were paid and would be paid.

    Raises:
        StoredRunError: there is no such episode, or a line is damaged.
        ConfigError: the reward reads a signal that was measured in none of them.
    """
    before, after = Prices(""), Prices(shaper.name)
    episodes = 0
    seen: set[str] = set()
    with without_collector():
        for group, stored in groups(path, selection):
            for ledger, episode in zip(shaper(group), stored, strict=True):
                after.add(_total(ledger), by_component(ledger))
                before.reward = episode.paid["reward"]
                before.add(*_as_paid(episode.paid))
                seen.update(signal.name for signal in ledger.trajectory.signals)
                episodes += 1
    if not episodes:
        raise StoredRunError(f"'{path}' holds no such episode; see --step and --split")
    shaper.require(seen, f"run '{path}'")
    return {"run": str(path), "episodes": episodes, "before": before.as_dict(), "after": after.as_dict()}


def find(path: Path, episode_id: str) -> tuple[Group, int]:
    """Return the group that episode ``episode_id`` is stored in, and its place there.

    Raises:
        UnknownNameError: there is none; the message names the nearest.
    """
    known: list[str] = []
    for group, _ in groups(path):
        names = [trajectory.id for trajectory in group.trajectories]
        if episode_id in names:
            return group, names.index(episode_id)
        known += names
    few = known if len(known) <= _SHOWN else [*known[: _SHOWN - 1], known[-1]]
    raise unknown_name("episode", episode_id, few)


def by_component(ledger: Ledger) -> dict[str, float | None]:
    """Return what each component pays over the whole episode; None where an entry of it is unmeasured."""
    paid = np.bincount(ledger.component, ledger.credited, len(ledger.component_names)).tolist()
    unknown = set(ledger.component[ledger.status == Status.UNMEASURED].tolist())
    return {
        name: None if place in unknown else amount
        for place, (name, amount) in enumerate(zip(ledger.component_names, paid, strict=True))
    }


@contextmanager
def without_collector() -> Iterator[None]:
    """Hold off the search for reference cycles: stored episodes have none, and it would take a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _total(ledger: Ledger) -> float | None:
    return ledger.total() if ledger.measured else None


def _as_paid(paid: Mapping[str, Any]) -> tuple[float | None, dict[str, float | None]]:
    unknown = paid["unmeasured_turns"]
    parts = {name: None if unknown.get(name) else math.fsum(credit) for name, credit in paid["credit"].items()}
    return paid["total"] if paid["measured"] else None, parts


_SHOWN = 8
"Episodes that an error message names."

__all__ = [
    "ALL",
    "Prices",
    "Selection",
    "Tally",
    "by_component",
    "find",
    "groups",
    "score",
    "without_collector",
]
