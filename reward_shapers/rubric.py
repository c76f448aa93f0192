"""Citation-aware rubric rewards: entities named, statements supported by cited pages, one chain to the answer (CaRR).

A rubric is a list of single-hop statements with entity slots, such as "<E0> was held in <E1>"; ``E0`` is the answer.
A statement counts where all its entities are named, a page the policy saw and cited supports it, and statements that
count join it to the root. The first two are measured (`RubricJudge`), the third is worked out from them.

Source: "Chaining the Evidence", arXiv 2601.06021.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentgym.claims import Claim, Measured
from agentgym.errors import ConfigError, TaskError
from agentgym.reward import Part, Shaper
from agentgym.types import Group

IDENTIFIED, SUPPORTED = "rubric_identified", "rubric_supported"
_SLOT = re.compile(r"<(E\d+)>")


@dataclass(frozen=True, slots=True)
class Rubric:
    """Statements about entities, one of which is the answer.

    Raises:
        ConfigError: there is no statement, one without an entity or with an unknown one, or an unknown root.
    """

    statements: tuple[str, ...]
    entities: tuple[str, ...]
    root: str = "E0"

    def __post_init__(self) -> None:
        known = ", ".join(self.entities) or "none"
        if not self.statements:
            raise ConfigError("a rubric needs at least one statement")
        if self.root not in self.entities:
            raise ConfigError(f"the rubric's root '{self.root}' is an unknown entity; known: {known}")
        for number, statement in enumerate(self.statements):
            named = self.named(number)
            unknown = [entity for entity in named if entity not in self.entities]
            if unknown or not named:
                what = f"names the unknown entity '{unknown[0]}'" if unknown else "names no entity"
                raise ConfigError(f"rubric statement {number} ({statement!r}) {what}; known: {known}")

    def named(self, number: int) -> tuple[str, ...]:
        """Return the entities that statement ``number`` speaks of."""
        return tuple(dict.fromkeys(_SLOT.findall(self.statements[number])))

    def filled(self, number: int, values: Mapping[str, str]) -> str:
        """Return statement ``number`` with its entities' names in place of their slots."""
        return _SLOT.sub(lambda slot: values[slot[1]], self.statements[number])

    def items(self) -> tuple[str, ...]:
        """Return the statements' names in signals."""
        return tuple(f"S{number + 1}" for number in range(len(self.statements)))

    def connected(self, counting: Collection[int]) -> set[int]:
        """Return which of the statements ``counting`` are joined to the root by each other."""
        reached, joined = {self.root}, set[int]()
        waiting = {number: self.named(number) for number in counting}
        while found := {number for number, named in waiting.items() if reached.intersection(named)}:
            joined |= found
            reached.update(*(waiting.pop(number) for number in found))
        return joined


def rubric_of(group: Group) -> Rubric:
    """Return the rubric of the group's task: ``data["rubric"]`` with ``statements``, ``entities`` and maybe ``root``.

    Raises:
        TaskError: the task has none.
        ConfigError: it has a wrong one.
    """
    task = group.trajectories[0].task
    data: Mapping[str, Any] | None = task.data.get("rubric")
    if data is None:
        raise TaskError(f"task '{task.id}' has no rubric; put one under its data['rubric'] or pass it")
    try:
        return Rubric(tuple(data["statements"]), tuple(data["entities"]), str(data.get("root", "E0")))
    except (KeyError, TypeError) as error:
        raise ConfigError(f"task '{task.id}': a rubric has 'statements' and 'entities'; got {error}") from error


def rubric(*, items: Rubric | None = None, chained: bool = True, name: str = "rubric") -> Shaper:
    """Return the share of statements that are identified, supported and connected, in [0, 1].

    ``chained=False`` does not ask for connection. C-GRPO pays it beside the outcome: `mixes.citation`.
    """

    def claims(measured: Measured) -> tuple[Claim, ...]:
        if not measured.group.trajectories:
            return (measured.lift(name, "trajectory", []),)
        return (measured.lift(name, "trajectory", _shares(measured, items or rubric_of(measured.group), chained)),)

    part = Part(name, "trajectory", 0.0, 1.0)
    return Shaper(name, (part,), claims, frozenset({IDENTIFIED, SUPPORTED}))


def _shares(measured: Measured, listed: Rubric, chained: bool) -> list[float]:
    """Return #(counting statements) / #statements, NaN where it depends on what was not measured."""
    names = listed.items()
    columns = [[measured.read(signal, n, "trajectory", n).raw for n in names] for signal in (IDENTIFIED, SUPPORTED)]
    both_CG = np.array(columns, np.float64)
    counts_GC = np.where((both_CG == 0).any(axis=0), 0.0, both_CG.prod(axis=0)).T
    return [_share(listed, counts_C.tolist(), chained) for counts_C in counts_GC]


def _share(listed: Rubric, counts_C: Sequence[float], chained: bool) -> float:
    surely = {number for number, counts in enumerate(counts_C) if counts == 1}
    maybe = {number for number, counts in enumerate(counts_C) if counts != 0}
    if chained:  # more support never disconnects anything: the ends of what is possible are the two extremes
        surely, maybe = listed.connected(surely), listed.connected(maybe)
    return len(surely) / len(listed.statements) if surely == maybe else np.nan


__all__ = ["IDENTIFIED", "SUPPORTED", "Rubric", "rubric", "rubric_of"]
