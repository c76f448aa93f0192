"""What the checklist probe asks, when, and what becomes of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from agentgym.reward_shapers.checklist import checklist
from agentgym.reward_shapers.checklist_items import Checklist, Evidence, Item
from agentgym.reward_shapers.checklist_judge import ChecklistJudge, focus
from episodes import ScriptedJudge

from agentgym.errors import TaskError
from agentgym.judge import Question
from agentgym.types import (
    Group,
    Message,
    Signal,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
    Turn,
    empty_sample,
    text_message,
)

FOUND = Item("C0", "Was the flight found?", 0.4, "tool.content", "A number is shown.", ("An error.",))
TOLD = Item(
    "C1",
    "Was it told?",
    0.6,
    "assistant.content.user_visible_reply",
    dependence=("C0",),
    evidence=(Evidence(0, 1, "tool.content", "LH 123"),),
)
ITEMS = Checklist(((FOUND, TOLD),))


def said(text: str, *before: Message, stage: int = 0, calls: tuple[ToolCall, ...] = ()) -> Turn:
    return Turn(before, empty_sample(Message("assistant", text, calls)), np.empty(0, np.int32), stage=stage)


CALL = ToolCall("1", "search", {"to": "Rome"})
EPISODE = Trajectory(
    "e",
    "g",
    Task("t", "Book.", 9),
    (
        said("<think>where to?</think>I search.", text_message("user", "To Rome!"), calls=(CALL,)),
        said("Flight LH 123.", text_message("tool", "LH 123")),
        said("Bye.", text_message("user", "Thanks!"), stage=1),
    ),
    (),
    StopReason.DONE,
    (),
    0,
)


def answering(answers: Callable[[Question], bool | None]) -> ScriptedJudge:
    """Return the judge that says yes or no, or nothing, to each question."""

    def script(question: Question, _: int) -> dict[str, bool] | None:
        answer = answers(question)
        return None if answer is None else {"answer": answer}

    return ScriptedJudge(script)


def measured(judge: ScriptedJudge, episode: Trajectory = EPISODE, **how: object) -> tuple[Signal, ...]:
    probe = ChecklistJudge(judge, items=ITEMS, **how)  # type: ignore[arg-type]
    ((*signals,),) = asyncio.run(probe(Group((episode,))))
    return tuple(signals)


def by_item(question: Question) -> str:
    return "C0" if "found" in question.instructions else "C1"


def places(signals: tuple[Signal, ...]) -> list[tuple[str, int | None, float | None]]:
    return [(signal.item, signal.turn, signal.value) for signal in signals]


def test_each_item_is_asked_at_each_turn_of_its_stage_until_it_is_satisfied():
    judge = answering(lambda question: by_item(question) == "C0")
    signals = measured(judge)
    assert places(signals) == [("0/C0", 0, 1.0), ("0/C1", 0, 0.0), ("0/C1", 1, 0.0)]
    assert len(judge.asked) == 3
    assert {(s.name, s.source, s.cost, s.evidence) for s in signals} == {("checklist_item", "checklist@v1", 0.5, "why")}
    again = measured(answering(lambda _: True), again=True)
    assert places(again) == [("0/C0", 0, 1.0), ("0/C0", 1, 1.0), ("0/C1", 0, 1.0), ("0/C1", 1, 1.0)]


def test_a_judge_that_does_not_answer_leaves_the_item_unmeasured():
    signals = measured(answering(lambda question: None if by_item(question) == "C1" else True))
    assert places(signals) == [("0/C0", 0, 1.0), ("0/C1", 0, None), ("0/C1", 1, None)]
    assert signals[1].cause == "JudgeError: stalled"


def test_the_focus_decides_what_the_judge_sees():
    judge = answering(lambda _: False)
    measured(judge)
    first, second = (judge.asked[n] for n in (0, 2)) if by_item(judge.asked[2]) == "C0" else judge.asked[:2]
    material = {by_item(q) + str("LH" in q.material["this exchange so far"]): q.material for q in judge.asked}
    assert material["C0True"]["what to look at"] == "LH 123"
    assert material["C1True"]["what to look at"] == "I search.\n\nFlight LH 123."
    assert material["C1True"]["from the reference dialogue"] == "LH 123"
    assert all("where to?" not in text for q in judge.asked for text in q.material.values())
    assert "An error." in first.instructions
    assert "Thanks!" not in str([q.material for q in judge.asked])
    assert second.schema["required"] == ["reason", "answer"]


def test_the_policys_words_never_stand_in_the_instructions():
    judge = answering(lambda _: False)
    measured(judge)
    assert all("I search" not in q.instructions and "LH 123" not in q.instructions for q in judge.asked)


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("user.content", ""),
        ("tool.content", ""),
        ("assistant.tool_calls", '\n<tool_call>\n{"name": "search", "arguments": {"to": "Rome"}}\n</tool_call>'),
        ("assistant.content.thinking", "where to?"),
        ("assistant.content.user_visible_reply", "I search."),
    ],
)
def test_parts_of_a_message(what: str, expected: str):
    assert focus(EPISODE.turns[0].sample.message, what) == expected  # type: ignore[arg-type]


def test_a_turn_that_says_nothing_keeps_what_was_known():
    def empty(text: str, prompt: str) -> str:
        assert prompt == "Book."
        return "empty" if text.startswith("Flight") else ""

    judge = answering(lambda question: None if by_item(question) == "C0" else False)
    signals = measured(judge, contentless=empty)
    assert places(signals) == [("0/C0", 0, None), ("0/C0", 1, None), ("0/C1", 0, 0.0), ("0/C1", 1, 0.0)]
    assert len(judge.asked) == 2
    assert (signals[3].cost, signals[3].evidence) == (0.0, "not put to the judge: empty")
    all_empty = measured(answering(lambda _: True), contentless=lambda text, prompt: "empty")
    assert [signal.value for signal in all_empty] == [0.0] * 4


def test_what_it_measures_is_what_the_reward_reads():
    judge = answering(lambda q: by_item(q) == "C0" or "LH 123" in q.material["this exchange so far"])
    signals = measured(judge)
    probe = ChecklistJudge(judge, items=ITEMS)
    reward = checklist(items=ITEMS)
    reward.require(probe.signals, "the probe")
    (ledger,) = reward(Group((Trajectory(**{**_fields(EPISODE), "signals": signals}),)))
    # C1 is told by turn 0 already: the world answered with the number right after it, together with C0.
    assert ledger.total() == pytest.approx(0.4)


def _fields(trajectory: Trajectory) -> dict[str, object]:
    return {name: getattr(trajectory, name) for name in trajectory.__slots__}


def test_without_a_checklist_nothing_is_asked():
    judge = answering(lambda _: True)
    with pytest.raises(TaskError, match="no checklist"):
        asyncio.run(ChecklistJudge(judge)(Group((EPISODE,))))
    assert asyncio.run(ChecklistJudge(judge)(Group(()))) == []
    assert judge.asked == []
