"""Asks a judge, after each turn, which items of a checklist are satisfied (CM2)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import replace

from agentgym.judge import Judge, Question
from agentgym.judging.contentless import contentless
from agentgym.probe import OpenAt
from agentgym.tools import tool_calls_json
from agentgym.types import Group, Message, Signal, Trajectory

from .asking import YES_NO, Contentless, measure, said, says_yes, source, transcript, without_content
from .checklist import SIGNAL
from .checklist_items import Checklist, Focus, Item, checklist_of

_THINKING = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)


class ChecklistJudge:
    """Emits ``checklist_item`` for each item at each turn of its stage: 1 where it is satisfied after that turn.

    One question an item and turn. An item that was satisfied is not asked again, unless ``again``. A turn that says
    nothing changes nothing: it keeps what was known before, and no judge is asked.
    """

    signals = frozenset({SIGNAL})

    def __init__(
        self,
        judge: Judge,
        *,
        items: Checklist | None = None,
        again: bool = False,
        contentless: Contentless = contentless,
    ) -> None:
        self.judge = judge
        self.items = items
        self.again = again
        self.contentless = contentless

    @property
    def name(self) -> str:
        """The ``source`` of its signals."""
        return source("checklist", self.judge)

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return the signals of each trajectory, item by item and in the order of the turns.

        Raises:
            ConfigError, TaskError: there is no checklist, or a wrong one.
        """
        listed = self.items or checklist_of(group)
        return list(await asyncio.gather(*(self._trajectory(each, listed) for each in group.trajectories)))

    async def _trajectory(self, trajectory: Trajectory, listed: Checklist) -> tuple[Signal, ...]:
        columns = await asyncio.gather(
            *(
                self._item(trajectory, item, stage, name)
                for stage, items in enumerate(listed.stages)
                for item, name in zip(items, listed.names(stage), strict=True)
            )
        )
        return tuple(signal for column in columns for signal in column)

    async def _item(self, trajectory: Trajectory, item: Item, stage: int, name: str) -> list[Signal]:
        signals: list[Signal] = []
        standing = Signal(SIGNAL, 0.0, self.name, item=name)
        for number, turn in enumerate(trajectory.turns):
            if turn.stage != stage:
                continue
            why = self.contentless(said(turn.sample.message), trajectory.task.prompt)
            if why:
                standing = without_content(replace(standing, turn=number, cost=0.0), why, standing.value)
            else:
                blank = Signal(SIGNAL, None, self.name, number, name)
                standing = await measure(self.judge, question(trajectory, item, number), blank, says_yes)
            signals.append(standing)
            if standing.value == 1 and not self.again:
                break
        return signals


def question(trajectory: Trajectory, item: Item, turn: int) -> Question:
    """Return the question whether ``item`` is satisfied after ``turn``.

    The judge sees the conversation so far and, apart, what of this stage the item is about. Thinking is shown only to
    items about it.
    """
    stage = trajectory.turns[turn].stage
    before = [
        m for past in trajectory.turns[:turn] if past.stage < stage for m in (*past.observation, past.sample.message)
    ]
    here = list(_exchange(trajectory, turn))
    thinking = item.focus_on == "assistant.content.thinking"
    material = {
        "earlier conversation": transcript(_shown(before, thinking)),
        "this exchange so far": transcript(_shown(here, thinking)),
        "what to look at": "\n\n".join(filter(None, (focus(m, item.focus_on) for m in here))),
    }
    if item.evidence:
        material["from the reference dialogue"] = "\n\n".join(one.snippet for one in item.evidence)
    return Question(_instructions(item), {name: text for name, text in material.items() if text}, YES_NO)


def focus(message: Message, what: Focus) -> str:
    """Return the part of a message that ``what`` names; empty where it has none."""
    match what:
        case "user.content":
            return message.content if message.role == "user" else ""
        case "tool.content":
            return message.content if message.role == "tool" else ""
        case "assistant.tool_calls":
            return tool_calls_json(message.tool_calls) if message.role == "assistant" else ""
        case "assistant.content.thinking":
            return "\n".join(_THINKING.findall(message.content)) if message.role == "assistant" else ""
        case "assistant.content.user_visible_reply":
            return _THINKING.sub("", message.content).strip() if message.role == "assistant" else ""


def _exchange(trajectory: Trajectory, turn: int) -> Iterable[Message]:
    """Yield what was said in the stage of ``turn`` up to it, and what the world answered to it."""
    stage = trajectory.turns[turn].stage
    for past in trajectory.turns[: turn + 1]:
        if past.stage == stage:
            yield from past.observation
            yield past.sample.message
    last = turn + 1 == len(trajectory.turns)
    answer = trajectory.final_observation if last else trajectory.turns[turn + 1].observation
    goes_on = last or trajectory.turns[turn + 1].stage == stage
    yield from (message for message in answer if goes_on or message.role == "tool")


def _shown(messages: Iterable[Message], thinking: bool) -> list[Message]:
    if thinking:
        return list(messages)
    return [replace(message, content=_THINKING.sub("", message.content).strip()) for message in messages]


def _instructions(item: Item) -> str:
    examples = "".join(f"\n- {example}" for example in item.failure_examples)
    return "\n".join(
        filter(
            None,
            (
                "An assistant works with a user and with tools. Judge one criterion on the conversation as it stands.",
                f"Criterion: {item.question}",
                f"Look at: {item.focus_on}, in this exchange.",
                f"It is met if: {item.pass_condition}" if item.pass_condition else "",
                f"It is not met in cases such as:{examples}" if examples else "",
                "The reference dialogue shows one way to meet it; other ways count." if item.evidence else "",
                "In `reason`, say what the conversation is about, then hold what you look at against the criterion, "
                "against the condition, and against the cases. Then `answer` true if the criterion is met by now.",
            ),
        )
    )


__all__ = ["ChecklistJudge", "focus", "question"]
