"""Checklists: what an exchange should bring, as binary items with weights and dependencies.

A task carries one under ``data["checklist"]``: a list of stages, each a list of items in the JSON schema of CM2::

    [[{"id": "C0", "focus_on": "tool.content", "question": "Was the flight found?", "weight": 1.0,
       "pass_condition": "…", "failure_examples": ["…"], "required_for_next_turn": true, "dependence": [],
       "evidence": [{"turn": 0, "step": 1, "from": "tool.content", "snippet": "…"}]}]]

What CM2 calls a turn is a *stage* here (one exchange with the user), and its step is our turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Literal, get_args

from agentgym.errors import ConfigError, TaskError
from agentgym.types import Group

Focus = Literal[
    "user.content",
    "assistant.tool_calls",
    "assistant.content.thinking",
    "assistant.content.user_visible_reply",
    "tool.content",
]
"""What of a conversation an item is about."""

ROUNDING = 1e-6
"""How far from 1 the weights of a stage may sum by rounding in the file."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where in the reference dialogue an item comes from."""

    turn: int
    step: int
    focus: Focus
    snippet: str


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that is satisfied or not."""

    id: str
    "Unique within its stage."
    question: str
    "Answered by yes or no."
    weight: float
    focus_on: Focus
    pass_condition: str = ""
    failure_examples: tuple[str, ...] = ()
    required_for_next_turn: bool = False
    "Whether the user goes on to the next stage only where this is satisfied."
    dependence: tuple[str, ...] = ()
    "Ids of the items of the same stage that must be satisfied before this one counts."
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Checklist:
    """The items of each stage.

    Raises:
        ConfigError: a stage without items, two items of one id, weights that do not sum to 1, or dependencies that
            are unknown or form a cycle.
    """

    stages: tuple[tuple[Item, ...], ...]

    def __post_init__(self) -> None:
        for stage, items in enumerate(self.stages):
            _check_stage(f"stage {stage} of the checklist", items)

    def names(self, stage: int) -> tuple[str, ...]:
        """Return the names of a stage's items in signals: ``0/C1`` is item ``C1`` of stage 0."""
        return tuple(f"{stage}/{item.id}" for item in self.stages[stage])

    def dependencies(self, stage: int) -> tuple[tuple[int, ...], ...]:
        """Return for each item of a stage the places of those it depends on."""
        place = {item.id: number for number, item in enumerate(self.stages[stage])}
        return tuple(tuple(place[name] for name in item.dependence) for item in self.stages[stage])


def parse(stages: Any) -> Checklist:
    """Return the checklist of JSON data.

    Raises:
        ConfigError: it is not one; the message names the stage, the item and the field.
    """
    if isinstance(stages, str) or not isinstance(stages, Sequence) or not all(isinstance(s, Sequence) for s in stages):
        raise ConfigError("a checklist is a list of stages, each a list of items")
    return Checklist(tuple(tuple(_item(stage, data) for data in items) for stage, items in enumerate(stages)))


def checklist_of(group: Group) -> Checklist:
    """Return the checklist that the task of ``group`` carries.

    Raises:
        TaskError: the task has none.
        ConfigError: it has a wrong one, or the trajectories are of tasks with different ones.
    """
    if not group.trajectories:
        return Checklist(())
    tasks = [trajectory.task for trajectory in group.trajectories]
    data = tasks[0].data.get("checklist")
    if data is None:
        raise TaskError(f"task '{tasks[0].id}' has no checklist; put one under its data['checklist'] or pass it")
    if any(task is not tasks[0] and task.data.get("checklist") != data for task in tasks):
        raise ConfigError(f"the trajectories of a group share one checklist; task '{tasks[0].id}' is not alone in it")
    try:
        return parse(data)
    except ConfigError as error:
        raise ConfigError(f"task '{tasks[0].id}': {error}") from error


def _check_stage(where: str, items: tuple[Item, ...]) -> None:
    ids = [item.id for item in items]
    if not ids or len(set(ids)) < len(ids):
        raise ConfigError(f"{where} needs at least one item, with ids that differ; got: {', '.join(ids) or 'none'}")
    for item in items:
        if not (math.isfinite(item.weight) and item.weight >= 0):
            raise ConfigError(f"{where}: weight of item '{item.id}' is {item.weight}; it must be finite and at least 0")
        if item.focus_on not in get_args(Focus):
            known = ", ".join(get_args(Focus))
            raise ConfigError(f"{where}: item '{item.id}' has an unknown focus '{item.focus_on}'; known: {known}")
        unknown = [name for name in item.dependence if name not in ids]
        if unknown:
            raise ConfigError(f"{where}: item '{item.id}' depends on unknown {unknown}; known: {', '.join(ids)}")
    total = math.fsum(item.weight for item in items)
    if abs(total - 1) > ROUNDING:
        raise ConfigError(f"{where}: the weights sum to {total:g}, not to 1")
    try:
        TopologicalSorter({item.id: item.dependence for item in items}).prepare()
    except CycleError as error:
        raise ConfigError(f"{where}: dependencies form a cycle: {' -> '.join(error.args[1])}") from error


def _item(stage: int, data: Any) -> Item:
    where = f"stage {stage} of the checklist, item {data.get('id', '?')!r}" if isinstance(data, Mapping) else ""
    try:
        return Item(
            id=str(data["id"]),
            question=str(data["question"]),
            weight=float(data["weight"]),
            focus_on=data["focus_on"],
            pass_condition=str(data.get("pass_condition", "")),
            failure_examples=tuple(map(str, data.get("failure_examples", ()))),
            required_for_next_turn=bool(data.get("required_for_next_turn", False)),
            dependence=tuple(map(str, data.get("dependence", ()))),
            evidence=tuple(
                Evidence(int(one["turn"]), int(one["step"]), one["from"], str(one["snippet"]))
                for one in data.get("evidence", ())
            ),
        )
    except KeyError as error:
        raise ConfigError(f"{where} lacks the field {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{where or f'stage {stage} of the checklist'}: {error}") from error


__all__ = ["Checklist", "Evidence", "Focus", "Item", "checklist_of", "parse"]
