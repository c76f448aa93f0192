"""Principles for steps and for whole answers, given at every call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from agentgym.reward_shapers.principles import (
    Principle,
    PrincipleJudge,
    PrincipleStepJudge,
    digest,
    from_step,
    principles,
)

from agentgym.errors import ConfigError, JudgeError, TaskError
from agentgym.judge import Question, Verdict
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

BRIEF, KIND = Principle("brief", "Be brief."), Principle("kind", "Be kind.")


def episode(turns: int = 3, *signals: Signal, data: Mapping[str, Any] | None = None) -> Trajectory:
    acted = tuple(
        Turn(
            (text_message("user", f"see {t}"),),
            empty_sample(text_message("assistant", f"do {t}")),
            np.empty(0, np.int32),
        )
        for t in range(turns)
    )
    return Trajectory("e", "g", Task("t", "Go.", 9, data=data or {}), acted, (), StopReason.DONE, signals, 0)


class Judge:
    version = "v1"

    def __init__(self, script: Callable[[Question], Mapping[str, Any] | None]) -> None:
        self.script = script
        self.asked: list[Question] = []

    async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
        self.asked.append(question)
        value = self.script(question)
        if value is None:
            raise JudgeError("stalled")
        assert set(question.schema["required"]) == {"reason", *value}
        return Verdict({"reason": "why", **value}, cost=0.5)


def step_scored(scores: dict[str, tuple[int, int] | None], **how: object) -> tuple[tuple[Signal, ...], Judge]:
    def script(question: Question) -> Mapping[str, Any] | None:
        score = scores[question.material["last step"]]
        return None if score is None else {"score": score[0], "maximum": score[1]}

    judge = Judge(script)
    probe = PrincipleStepJudge(judge, principles=lambda group: (BRIEF,), **how)  # type: ignore[arg-type]
    (signals,) = asyncio.run(probe(Group((episode(len(scores)),))))
    return signals, judge


def test_each_step_but_the_last_gets_its_score_over_its_maximum():
    signals, judge = step_scored({"do 0": (3, 4), "do 1": (0, 5), "do 2": (9, 9)})
    assert [(s.turn, s.value, s.cost, s.evidence) for s in signals] == [(0, 0.75, 0.5, "why"), (1, 0.0, 0.5, "why")]
    assert signals[0].source == f"principle_step@v1#{digest((BRIEF,))}"
    assert "Be brief." in judge.asked[0].instructions
    assert judge.asked[1].material["conversation"].endswith("see 1")
    assert judge.asked[1].material["what the world answered"] == "[user]\nsee 2"


@pytest.mark.parametrize("score", [(-1, 4), (5, 4), (0, 0), None])
def test_what_is_no_score_is_unmeasured(score):
    signals, _ = step_scored({"do 0": score, "do 1": (1, 1)})
    assert signals[0].value is None
    assert signals[0].cause.startswith("JudgeError: ")
    assert signals[0].cost == (0.5 if score else 0.0)


def test_a_step_without_content_is_0_without_a_question():
    signals, judge = step_scored({"do 0": (4, 4), "do 1": (1, 1)}, contentless=lambda text, prompt: "opener")
    assert (signals[0].value, judge.asked) == (0.0, [])


def ask_whole(answers: dict[str, bool | None], step: int = 0, **how: Any) -> tuple[tuple[Signal, ...], Judge]:
    def script(question: Question) -> Mapping[str, Any] | None:
        answer = next(value for text, value in answers.items() if text in question.instructions)
        return None if answer is None else {"answer": answer}

    judge = Judge(script)
    (signals,) = asyncio.run(PrincipleJudge(judge, **how)(Group((episode(),), step)))
    return signals, judge


def test_each_principle_is_a_question_of_its_own():
    signals, judge = ask_whole({"brief": True, "kind": None}, principles=lambda group: (BRIEF, KIND))
    assert [(s.name, s.item, s.value, s.evidence) for s in signals] == [
        ("principle", "brief", 1.0, "Be brief. → why"),
        ("principle", "kind", None, ""),
    ]
    assert signals[1].cause == "JudgeError: stalled"
    assert all("do 0" in q.material["what the assistant did"] for q in judge.asked)
    none, silent = ask_whole({}, principles=lambda group: (BRIEF,), contentless=lambda text, prompt: "opener")
    assert ([s.value for s in none], silent.asked) == ([0.0], [])


def test_principles_change_while_training_and_sources_tell():
    schedule = from_step({0: (BRIEF,), 10: (BRIEF, KIND)})
    answers: dict[str, bool | None] = {"brief": True, "kind": False}
    assert [s.item for s in ask_whole(answers, 9, principles=schedule)[0]] == ["brief"]
    assert [s.item for s in ask_whole(answers, 10, principles=schedule)[0]] == ["brief", "kind"]
    reworded = from_step({0: (replace(BRIEF, text="Be very brief."),)})
    sources = {ask_whole(answers, principles=each)[0][0].source for each in (schedule, reworded)}
    assert len(sources) == 2
    with pytest.raises(ConfigError, match="starts at step 0"):
        from_step({5: (BRIEF,)})


def test_the_task_may_carry_principles():
    judge = Judge(lambda question: {"answer": True})
    carried = episode(data={"principles": {"brief": "Be brief."}})
    ((signal,),) = asyncio.run(PrincipleJudge(judge)(Group((carried,))))
    assert (signal.item, signal.value) == ("brief", 1.0)
    with pytest.raises(TaskError, match="'t' has no principles"):
        asyncio.run(PrincipleStepJudge(judge)(Group((episode(),))))
    assert asyncio.run(PrincipleJudge(judge)(Group(()))) == []


def share(weights: Mapping[str, float] | None, **kept: float | None) -> float | None:
    signals = [Signal("principle", value, "judge", item=item) for item, value in kept.items()]
    (ledger,) = principles(weights)(Group((episode(1, *signals),)))
    return ledger.total() if ledger.measured else None


def test_the_weighted_share_of_principles_is_paid():
    assert share(None, brief=1, kind=0) == 0.5
    assert share({"brief": 3, "kind": 1}, brief=1, kind=0) == 0.75
    assert share({"brief": 1}, brief=1, kind=None) == 1
    assert share(None, brief=1, kind=None) is None
    assert share({"other": 1}, brief=1) is None
    with pytest.raises(ConfigError, match="weight of principle 'brief'"):
        principles({"brief": -1})
