"""What the rubric probe asks of an answer and its citations."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from agentgym.reward_shapers.rubric import Rubric
from agentgym.reward_shapers.rubric_judge import (
    CITATION,
    SHIPPED_CITATION,
    RubricJudge,
    cited,
    seen_in_observations,
)
from episodes import ScriptedJudge

from agentgym.errors import TaskError
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

ITEMS = Rubric(("<E0> was held in <E1>.", "<E2> is a river."), ("E0", "E1", "E2"))


def turn(said: str, *seen: str) -> Turn:
    observation = tuple(text_message("tool", text) for text in seen)
    return Turn(observation, empty_sample(text_message("assistant", said)), np.empty(0, np.int32))


def episode(*turns: Turn) -> Trajectory:
    return Trajectory("e", "g", Task("t", "Where?", 9), turns, (), StopReason.DONE, (), 0)


CITED = episode(turn("open http://a"), turn("The Games in Rome [1](http://a).", "http://a says Rome"))


def answering(named: Mapping[str, Any] | None, supported: Mapping[str, bool] | None) -> ScriptedJudge:
    """Return the judge that finds these entities named, and these statements supported."""
    return ScriptedJudge(lambda question, _: named if "answer" in question.material else supported)


def measure(judge: ScriptedJudge, trajectory: Trajectory = CITED, **how: object) -> dict[tuple[str, str], Signal]:
    (signals,) = asyncio.run(RubricJudge(judge, items=ITEMS, **how)(Group((trajectory,))))  # type: ignore[arg-type]
    return {(signal.name.removeprefix("rubric_"), signal.item): signal for signal in signals}


def values(signals: dict[tuple[str, str], Signal]) -> list[float | None]:
    return [signals[name, item].value for name in ("identified", "supported") for item in ("S1", "S2")]


NAMED = {"E0": "the Games", "E1": "Rome", "E2": None}


def test_filled_statements_are_judged_by_the_cited_pages_that_were_seen():
    judge = answering(NAMED, {"S1": True})
    signals = measure(judge)
    assert values(signals) == [1, 0, 1, 0]
    assert judge.asked[1].material == {
        "page 1": "http://a\nhttp://a says Rome",
        "statement S1": "the Games was held in Rome.",
    }
    assert signals["supported", "S1"].evidence == "why"
    assert sum(signal.cost for signal in signals.values()) == 1.0
    assert {signal.source for signal in signals.values()} == {"rubric@v1"}
    assert "The Games in Rome" not in judge.asked[0].instructions


def test_without_a_usable_citation_nothing_is_supported_and_nobody_asked():
    for said in ("The Games in Rome.", "The Games in Rome [1](http://never-seen)."):
        judge = answering(NAMED, {"S1": True})
        assert values(measure(judge, episode(turn("x"), turn(said, "http://a says Rome")))) == [1, 0, 0, 0]
        assert len(judge.asked) == 1


def test_a_judge_that_fails_leaves_unmeasured_what_it_was_asked():
    assert values(measure(answering(None, None))) == [None] * 4
    signals = measure(answering(NAMED, None))
    assert values(signals) == [1, 0, None, 0]
    assert signals["supported", "S1"].cause == "JudgeError: stalled"


def test_an_answer_without_content_is_0_without_a_question():
    judge = answering(NAMED, {"S1": True})
    assert values(measure(judge, contentless=lambda text, prompt: "opener")) == [0] * 4
    assert values(measure(judge, episode())) == [0] * 4
    assert judge.asked == []


def test_forms_of_citation():
    text = "a [1](http://a). b [[2](http://b), [3](http://c)] [4](http://a)"
    pages = {"http://a": "A", "http://b": "B", "http://c": ""}
    assert cited(text, CITATION, pages.__getitem__) == {"http://a": "A", "http://b": "B"}
    assert cited(text, SHIPPED_CITATION, pages.__getitem__) == {"http://b": "B"}
    many = " ".join(f"[{n}](http://{n})" for n in range(30))
    assert list(cited(many, CITATION, lambda url: url)) == [f"http://{n}" for n in range(20)]


def test_pages_are_what_the_world_told_once_each():
    page = seen_in_observations(
        episode(turn("I know http://z"), turn("x", "http://a: 1", "http://a: 1", "http://a: 2"))
    )
    assert page("http://a") == "http://a: 1\n\nhttp://a: 2"
    assert page("http://z") == ""


def test_a_group_of_none():
    assert asyncio.run(RubricJudge(answering(None, None), items=ITEMS)(Group(()))) == []
    with pytest.raises(TaskError, match="no rubric"):
        asyncio.run(RubricJudge(answering(None, None))(Group((CITED,))))
