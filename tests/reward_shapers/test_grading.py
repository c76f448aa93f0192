"""Grades asked several times, and the vote on them."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from agentgym.reward_shapers.grading import GRADE, TRUST, GradeJudge, graded
from episodes import ScriptedJudge

from agentgym.errors import ConfigError, UnknownNameError
from agentgym.judge import Question
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message


def episode(*signals: Signal) -> Trajectory:
    turn = Turn((), empty_sample(text_message("assistant", "a poem")), np.empty(0, np.int32))
    return Trajectory("e", "g", Task("t", "Write.", 9), (turn,), (), StopReason.DONE, signals, 0)


def grades(*values: int | None) -> ScriptedJudge:
    def script(question: Question, sample: int) -> dict[str, Any] | None:
        return None if values[sample] is None else {"reason": f"critique {sample}", "grade": values[sample]}

    return ScriptedJudge(script)


def measure(judge: ScriptedJudge, samples: int, **how: Any) -> tuple[Signal, ...]:
    (signals,) = asyncio.run(GradeJudge(judge, samples=samples, low=1, high=9, **how)(Group((episode(),))))
    return signals


def test_each_sample_is_a_signal_of_its_own():
    judge = grades(3, None, 8, 12)
    signals = measure(judge, 4)
    assert [(s.name, s.item, s.value, s.source) for s in signals] == [
        (GRADE, str(n), value, "grade@v1") for n, value in enumerate([3.0, None, 8.0, None])
    ]
    assert judge.samples == [0, 1, 2, 3]
    assert (signals[0].evidence, signals[0].cost) == ("critique 0", 0.5)
    assert [signals[n].cause for n in (1, 3)] == ["JudgeError: stalled", "JudgeError: grade 12 is not between 1 and 9"]


def test_a_meta_judge_says_how_far_to_trust_each_critique():
    def trust(question: Question, sample: int) -> dict[str, Any] | None:
        return {"trust": 0.9 if question.material["critique"] == "critique 0\nGrade: 3" else 0.2}

    meta = ScriptedJudge(trust, version="m1")
    signals = measure(grades(3, 5, None), 3, meta=meta)
    assert [(s.name, s.item, s.value) for s in signals] == [
        (GRADE, "0", 3.0),
        (TRUST, "0", 0.9),
        (GRADE, "1", 5.0),
        (TRUST, "1", 0.2),
        (GRADE, "2", None),
    ]
    assert signals[1].source == "grade_trust@m1"
    assert GradeJudge(meta, samples=1, low=0, high=1, meta=meta).signals == {GRADE, TRUST}
    assert GradeJudge(meta, samples=1, low=0, high=1).signals == {GRADE}


def test_judges_that_grade_the_same_episodes_have_names_of_their_own():
    meta = ScriptedJudge(lambda question, sample: {"trust": 0.5 if question.material["critique"][-1] == "3" else 1.0})
    thinking = measure(grades(3, 5), 2, meta=meta, signal="thinking")
    answered = measure(grades(9), 1, signal="answer")
    assert [(s.name, s.item, s.value) for s in (*thinking, *answered)] == [
        ("thinking", "0", 3.0),
        ("thinking_trust", "0", 0.5),
        ("thinking", "1", 5.0),
        ("thinking_trust", "1", 1.0),
        ("answer", "0", 9.0),
    ]
    assert {s.source for s in (*thinking, *answered)} == {"thinking@v1", "thinking_trust@v1", "answer@v1"}
    assert GradeJudge(meta, samples=1, low=0, high=1, meta=meta, signal="x").signals == {"x", "x_trust"}
    group = Group((episode(*thinking, *answered),))
    for reward, paid in (
        (graded(low=1, high=9, signal="thinking"), 3 / 8),
        (graded(low=1, high=9, signal="thinking", keep=1), 4 / 8),
        (graded(low=1, high=9, signal="answer"), 1),
    ):
        assert reward(group)[0].total() == paid
    assert graded(low=1, high=9, signal="x", keep=1).signals == {"x", "x_trust"}
    assert not graded(low=1, high=9)(group)[0].measured


def test_an_answer_without_content_gets_the_lowest_grade_and_no_question():
    judge = grades(9, 9)
    signals = measure(judge, 2, contentless=lambda text, prompt: "opener")
    assert ([s.value for s in signals], judge.samples) == ([1.0, 1.0], [])
    reward = graded(low=1, high=9)
    assert reward(Group((episode(*signals),)))[0].total() == 0
    trusted = measure(judge, 2, contentless=lambda text, prompt: "opener", meta=judge)
    assert graded(low=1, high=9, keep=1)(Group((episode(*trusted),)))[0].total() == 0


def vote(values: list[float | None], trust: list[float | None] | None = None, **how: Any) -> float | None:
    signals = [Signal(GRADE, value, "judge", item=str(n)) for n, value in enumerate(values)]
    signals += [Signal(TRUST, value, "meta", item=str(n)) for n, value in enumerate(trust or [])]
    (ledger,) = graded(low=0, high=10, **how)(Group((episode(*signals),)))
    return ledger.total() if ledger.measured else None


def test_votes():
    assert vote([1, 2, 9]) == pytest.approx(0.4)
    assert vote([1, 2, 9], vote="sum") == pytest.approx(1.2)
    assert vote([1, 2, 9], vote="median") == pytest.approx(0.2)


def test_the_majority_is_what_most_say_and_a_tie_is_no_vote():
    assert vote([3, 3, 5, 8], vote="majority") == pytest.approx(0.3)
    assert vote([3, 3, 5, 5], vote="majority") is None
    assert vote([7], vote="majority") == pytest.approx(0.7)


def test_too_few_grades_are_none():
    assert vote([1, None, None], needed=2) is None
    assert vote([1, None, 9], needed=2) == pytest.approx(0.5)
    assert vote([1, 2, 9], [0.1, None, None], keep=2, needed=2) is None


def test_a_grade_that_is_missing_does_not_vote():
    assert vote([1, None, 9]) == pytest.approx(0.5)
    assert vote([1, None, 9], vote="sum") is None
    assert vote([None, None]) is None
    assert vote([]) is None


def test_only_the_most_trusted_vote():
    assert vote([1, 2, 9], [0.1, 0.9, 0.8], keep=2) == pytest.approx(0.55)
    assert vote([1, 2, 9], [0.1, None, 0.8], keep=2) == pytest.approx(0.5)
    assert vote([1, 2], [None, None], keep=1) is None
    assert graded(low=0, high=1, keep=1).signals == {GRADE, TRUST}


def test_bad_settings_are_refused():
    for how in ({"samples": 0, "low": 0, "high": 1}, {"samples": 1, "low": 1, "high": 1}):
        with pytest.raises(ConfigError):
            GradeJudge(grades(1), **how)
    with pytest.raises(ConfigError, match="empty"):
        graded(low=1, high=1)
    for how in ({"keep": 0}, {"needed": 0}, {"keep": 1, "needed": 2}):
        with pytest.raises(ConfigError, match="need one or more"):
            graded(low=0, high=1, **how)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="no vote 'max'"):
        graded("max", low=0, high=1)  # type: ignore[arg-type]
