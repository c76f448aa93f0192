"""Whether the assistant's messages keep to a format: a rule is a yes or no on one turn.

The environment has taken readable tool calls out of a message's text, so that what is left of their tags is a call
that could not be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from agentgym.errors import ConfigError, TaskError
from agentgym.reward import Amount, Scope, Shaper
from agentgym.types import Task, Trajectory, Turn

from .scales import UNIT, Scale, scaled

SECTIONS = "sections"
CALL = "tool_call"
"""The section that tool calls are."""

Rule = Callable[[Turn, Task], bool | None]
"""Whether a turn keeps to it; None where the task does not say what it asks for."""


def well_formed(*rules: Rule, scope: Scope = "trajectory", scale: Scale = UNIT, needs: str = "a turn") -> Shaper:
    """Return the share of turns that keep to all ``rules``, put on ``scale``.

    With ``scope="turn"`` each turn is paid its part of it. One broken rule decides, whatever another does not know;
    an episode without turns is unmeasured. ``needs`` names what the rules read besides the turn.

    Breaks *prefix-only*: a turn's part is the smaller the more turns there are.

    Raises:
        ConfigError: no rule is given.
    """
    if not rules:
        raise ConfigError("a format needs at least one rule, such as format.calls_readable")

    def kept(turn: Turn, task: Task) -> float | None:
        verdicts = [rule(turn, task) for rule in rules]
        if False in verdicts:
            return 0.0
        return None if None in verdicts else 1.0

    def price(trajectory: Trajectory, low: float, high: float) -> Amount | Sequence[Amount]:
        turns = len(trajectory.turns)
        shares = [kept(turn, trajectory.task) for turn in trajectory.turns]
        paid = [None if share is None else (low + (high - low) * share) / turns for share in shares]
        if scope == "turn":
            return paid
        known = [amount for amount in paid if amount is not None]
        return sum(known) if known and len(known) == turns else None

    return scaled("well_formed", price, scale, scope=scope, needs=needs)


def calls_readable(turn: Turn, _: Task) -> bool:
    """Whether no call was made that cannot be read."""
    content = turn.sample.message.content
    return f"<{CALL}>" not in content and f"</{CALL}>" not in content


def finished(turn: Turn, _: Task) -> bool:
    """Whether the message was not cut off at its limit."""
    return turn.sample.finish == "stop"


def not_empty(turn: Turn, _: Task) -> bool:
    """Whether something was said or called."""
    return bool(turn.sample.message.content.strip() or turn.sample.message.tool_calls)


def calls(at_least: int, at_most: int) -> Rule:
    """Return the rule that a turn makes so many readable calls.

    Raises:
        ConfigError: no number is.
    """
    if not 0 <= at_least <= at_most:
        raise ConfigError(f"no number of calls is at least {at_least} and at most {at_most}")

    def rule(turn: Turn, _: Task) -> bool:
        return at_least <= len(turn.sample.message.tool_calls) <= at_most

    return rule


def sections(*names: str) -> Rule:
    """Return the rule that a message is these sections in this order, each ``<name>…</name>`` once, and nothing else.

    The section ``tool_call`` stands for one readable call or more, wherever they are: a recorded message no longer
    says. A message that calls something without it breaks the rule. Source: ToolRL's format reward.
    """
    tagged = [name for name in names if name != CALL]
    pattern = re.compile(r"\s*".join(f"<{re.escape(name)}>.*?</{re.escape(name)}>" for name in tagged), re.DOTALL)

    def rule(turn: Turn, task: Task) -> bool:
        message = turn.sample.message
        once = all(message.content.count(f"<{name}>") == message.content.count(f"</{name}>") == 1 for name in tagged)
        as_asked = bool(message.tool_calls) == (CALL in names) and calls_readable(turn, task)
        return once and as_asked and pattern.fullmatch(message.content.strip()) is not None

    return rule


def task_sections(turn: Turn, task: Task) -> bool | None:
    """Whether a message has the `sections` that ``task.data["sections"]`` lists: ``["think", "tool_call"]``.

    Raises:
        TaskError: it is no list of names.
    """
    if SECTIONS not in task.data:
        return None
    names = task.data[SECTIONS]
    if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise TaskError(f"task '{task.id}': data['{SECTIONS}'] must list the names of sections; found {names!r}")
    return sections(*names)(turn, task)


__all__ = [
    "CALL",
    "SECTIONS",
    "Rule",
    "calls",
    "calls_readable",
    "finished",
    "not_empty",
    "sections",
    "task_sections",
    "well_formed",
]
