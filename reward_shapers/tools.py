"""Tool calls against those of a reference: names, argument names and argument values (ToolRL, arXiv 2504.13958).

The reference is part of the task. ``task.data["tool_calls"]`` lists the calls that the episode should make, in any
order, each as ``{"name": str, "arguments": {...}}``; ``task.data["tool_calls_by_turn"]`` holds one such list for each
turn. A task without it is unmeasured; one whose list is empty asks for no call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from agentgym.errors import TaskError, unknown_name
from agentgym.reward import Amount, Scope, Shaper
from agentgym.types import Message, Task, ToolCall, Trajectory

from .scales import UNIT, Scale, scaled

CALLS = "tool_calls"
CALLS_BY_TURN = "tool_calls_by_turn"

Granularity = Literal["fine", "refined", "intermediate", "coarse"]
"""``fine``: names, argument names and values count each by themselves. ``refined``: so, but the list of names, and
each list of argument names, counts whole or not at all, order included. ``intermediate``: names, and whole calls.
``coarse``: all or nothing, order included."""
Unasked = Literal["lowest", "free"]
"""What calls cost where the reference has none. ``lowest``: the formula as it stands, so that any call is the worst
answer and none the best. ``free``: as ToolRL ships it, the middle of the scale whatever is called."""

_GRANULARITIES = ("fine", "refined", "intermediate", "coarse")
_NOTHING = object()
_UNREADABLE = ToolCall("", "", {})
"""Stands for calls that could not be parsed; no reference has this name."""


def agreement(reference: Sequence[ToolCall], made: Sequence[ToolCall], granularity: Granularity = "fine") -> float:
    """Return how far ``made`` agrees with ``reference``, in [0, 1]: ``S / S_max`` of ToolRL.

    ``S = J(names) + Σ_g max_p [J(arguments of g, of p) + number of equal values]`` and
    ``S_max = 1 + Σ_g (1 + number of arguments of g)``, where ``J`` is the Jaccard index of two multisets, ``g`` runs
    over the reference in its order and ``p`` over the calls of the same name that are not matched yet. Equal lists
    agree at once. Values are equal as Python has it: ``1`` is ``1.0`` and not ``"1"``.
    """
    same = _plain(reference) == _plain(made)
    if same or granularity == "coarse":
        return float(same)
    strict = granularity == "refined"
    score = _overlap([call.name for call in reference], [call.name for call in made], strict=strict)
    most = 1.0
    left = list(made)
    for wanted in reference:
        most += 1.0 if granularity == "intermediate" else 1.0 + len(wanted.arguments)
        gains = [_call_agreement(wanted, call, granularity) for call in left]
        best = max(gains, default=0.0)
        if best > 0:
            left.pop(gains.index(best))
            score += best
    return score / most


def tool_match(
    *,
    scope: Scope = "trajectory",
    granularity: Granularity = "fine",
    scale: Scale = UNIT,
    unasked: Unasked = "lowest",
) -> Shaper:
    """Return the reward for calling what the reference calls: `agreement`, put on ``scale``.

    Source: ToolRL, ``R_corr = 6 S / S_max - 3``, which is ``scale=Scale(-3, 3)``. With ``scope="trajectory"`` all
    calls of the episode together meet the reference, and what cannot be parsed counts as a call it does not have. With
    ``scope="turn"`` each turn meets its own, and an unreadable call spoils its turn, as published; the mean over the
    reference's turns is paid where it is earned. Turns that were not reached score lowest, at the last turn; those
    after the reference's last have nothing to earn.

    Raises:
        UnknownNameError: no such granularity or treatment of unasked calls.
    """
    if granularity not in _GRANULARITIES:
        raise unknown_name("granularity", granularity, _GRANULARITIES)
    if unasked not in ("lowest", "free"):
        raise unknown_name("treatment of unasked calls", unasked, ("lowest", "free"))

    def share(reference: Sequence[ToolCall], made: Sequence[ToolCall]) -> float:
        return 0.5 if not reference and unasked == "free" else agreement(reference, made, granularity)

    def whole(trajectory: Trajectory, low: float, high: float) -> Amount:
        reference = reference_calls(trajectory.task)
        if reference is None:
            return None
        made = [call for turn in trajectory.turns for call in calls_made(turn.sample.message)]
        return low + (high - low) * share(reference, made)

    def by_turn(trajectory: Trajectory, low: float, high: float) -> Sequence[Amount]:
        references = reference_calls_by_turn(trajectory.task)
        turns = len(trajectory.turns)
        if not references:
            return [None] * turns
        amounts = [0.0] * turns
        for place, (turn, reference) in enumerate(zip(trajectory.turns, references, strict=False)):
            made = calls_made(turn.sample.message)
            spoiled = _UNREADABLE in made and (bool(reference) or unasked == "lowest")
            amounts[place] = (low + (high - low) * (0.0 if spoiled else share(reference, made))) / len(references)
        if turns:
            amounts[-1] += low * max(0, len(references) - turns) / len(references)
        return amounts

    key = CALLS if scope == "trajectory" else CALLS_BY_TURN
    price = whole if scope == "trajectory" else by_turn
    return scaled("tool_match", price, scale, scope=scope, needs=f"task.data['{key}']")


def calls_made(message: Message) -> tuple[ToolCall, ...]:
    """Return the calls of an assistant's message; what looks like one but could not be parsed has an empty name."""
    unreadable = max(message.content.count("<tool_call>"), message.content.count("</tool_call>"))
    return (*message.tool_calls, *(_UNREADABLE,) * unreadable)


def reference_calls(task: Task) -> tuple[ToolCall, ...] | None:
    """Return the calls the task asks for, or None where it does not say.

    Raises:
        TaskError: ``task.data["tool_calls"]`` is something else than a list of calls.
    """
    return None if CALLS not in task.data else _calls(task, CALLS, task.data[CALLS])


def reference_calls_by_turn(task: Task) -> tuple[tuple[ToolCall, ...], ...] | None:
    """Return the calls the task asks for at each turn, or None where it does not say.

    Raises:
        TaskError: ``task.data["tool_calls_by_turn"]`` is something else than a list of lists of calls.
    """
    if CALLS_BY_TURN not in task.data:
        return None
    turns = task.data[CALLS_BY_TURN]
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise _malformed(task, CALLS_BY_TURN, turns)
    return tuple(_calls(task, CALLS_BY_TURN, calls) for calls in turns)


def _calls(task: Task, key: str, calls: Any) -> tuple[ToolCall, ...]:
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise _malformed(task, key, calls)
    read = []
    for call in calls:
        match call:
            case {"name": str(name), "arguments": Mapping() as arguments} if name:
                read.append(ToolCall("", name, arguments))
            case _:
                raise _malformed(task, key, call)
    return tuple(read)


def _malformed(task: Task, key: str, found: object) -> TaskError:
    return TaskError(
        f"task '{task.id}': data['{key}'] must list calls as {{'name': …, 'arguments': {{…}}}}, a list for each turn "
        f"where it says so; found {found!r}"
    )


def _plain(calls: Sequence[ToolCall]) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, dict(call.arguments)) for call in calls]


def _call_agreement(wanted: ToolCall, call: ToolCall, granularity: Granularity) -> float:
    if call.name != wanted.name:
        return 0.0
    if granularity == "intermediate":
        return float(dict(call.arguments) == dict(wanted.arguments))
    equal = sum(1 for name, value in wanted.arguments.items() if call.arguments.get(name, _NOTHING) == value)
    return equal + _overlap(list(wanted.arguments), list(call.arguments), strict=granularity == "refined")


def _overlap(wanted: list[str], found: list[str], *, strict: bool) -> float:
    """Return the Jaccard index of two multisets, 1 where both are empty; ``strict``: whether the lists are equal."""
    if strict or wanted == found:
        return float(wanted == found)
    shared = (Counter(wanted) & Counter(found)).total()
    return shared / (len(wanted) + len(found) - shared)


__all__ = [
    "CALLS",
    "CALLS_BY_TURN",
    "Granularity",
    "Unasked",
    "agreement",
    "calls_made",
    "reference_calls",
    "reference_calls_by_turn",
    "tool_match",
]
