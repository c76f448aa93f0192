"""Steps routed to skills, and their criteria verified."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from agentgym.reward_shapers.skills import CRITERION, ROUTED, Skill, SkillJudge, skilled
from episodes import ScriptedJudge

from agentgym.errors import ConfigError, UnknownNameError
from agentgym.judge import Question
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

LIBRARY = (Skill("search", "find facts", ("asks one thing", "names the thing")), Skill("sum", "add up", ("is right",)))


def episode(*said: str, signals: tuple[Signal, ...] = ()) -> Trajectory:
    turns = tuple(
        Turn((text_message("user", "next"),), empty_sample(text_message("assistant", text)), np.empty(0, np.int32))
        for text in said
    )
    return Trajectory("e", "g", Task("t", "Solve.", 9), turns, (), StopReason.DONE, signals, 0)


def answering(skills: Mapping[str, str | None], criteria: Mapping[str, tuple[bool, ...] | None]) -> ScriptedJudge:
    """Return the judge that routes each step to its skill, and says which criteria it meets."""

    def script(question: Question, _: int) -> dict[str, Any] | None:
        step = question.material["step"]
        if "skill" in question.schema["properties"]:
            assert question.schema["properties"]["skill"]["enum"] == ["none", "search", "sum"]
            return None if skills[step] is None else {"skill": skills[step]}
        met = criteria[step]
        return None if met is None else {f"criterion_{n + 1}": one for n, one in enumerate(met)}

    return ScriptedJudge(script)


def measure(judge: ScriptedJudge, *said: str, **how: Any) -> list[tuple[str, int | None, str, float | None]]:
    (signals,) = asyncio.run(SkillJudge(judge, LIBRARY, **how)(Group((episode(*said),))))
    return [(s.name, s.turn, s.item, s.value) for s in signals]


def test_a_step_is_routed_and_its_criteria_verified():
    judge = answering({"a": "search", "b": "none", "c": "sum"}, {"a": (True, False), "c": (True,)})
    assert measure(judge, "a", "b", "c") == [
        (ROUTED, 0, "", 1.0),
        (CRITERION, 0, "search/1", 1.0),
        (CRITERION, 0, "search/2", 0.0),
        (ROUTED, 1, "", 0.0),
        (ROUTED, 2, "", 1.0),
        (CRITERION, 2, "sum/1", 1.0),
    ]
    assert len(judge.asked) == 5
    verified = [q for q in judge.asked if "criterion_1" in q.schema["properties"]]
    assert "criterion_2: names the thing" in verified[0].instructions


def test_failures_leave_the_step_unmeasured():
    assert measure(answering({"a": None}, {}), "a") == [(ROUTED, 0, "", None)]
    assert measure(answering({"a": "sum"}, {"a": None}), "a")[1:] == [(CRITERION, 0, "sum/1", None)]


def test_a_step_without_content_is_0_without_a_question():
    judge = answering({}, {})
    assert measure(judge, "a", contentless=lambda text, prompt: "opener") == [(ROUTED, 0, "", 0.0)]
    assert judge.asked == []


@pytest.mark.parametrize(
    ("routed", "met", "mean", "every"),
    [
        (1.0, (1.0, 1.0), 1.0, 1.0),
        (1.0, (1.0, 0.0), 0.5, 0.0),
        (1.0, (0.0, None), None, 0.0),
        (1.0, (1.0, None), None, None),
        (1.0, (), None, None),
        (0.0, (), 0.0, 0.0),
        (None, (), None, None),
    ],
)
def test_what_is_paid(routed, met, mean: float | None, every: float | None):
    signals = (
        Signal(ROUTED, routed, "judge", 0),
        *(Signal(CRITERION, value, "judge", 0, f"search/{n}") for n, value in enumerate(met)),
    )
    for adds, expected in (("mean", mean), ("all", every)):
        (ledger,) = skilled(adds)(Group((episode("a", signals=signals),)))  # type: ignore[arg-type]
        assert (ledger.total() if ledger.measured else None) == expected


def test_a_turn_that_was_not_measured_is_not_paid():
    (ledger,) = skilled("mean")(Group((episode("a", "b", signals=(Signal(ROUTED, 0.0, "judge", 1),)),)))
    assert ledger.mask_CT().tolist() == [[False, True]]


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="no criteria"):
        Skill("x", "", ())
    for library in ((), (LIBRARY[0], LIBRARY[0]), (Skill("none", "", ("x",)),)):
        with pytest.raises(ConfigError, match="skills need"):
            SkillJudge(answering({}, {}), library)
    with pytest.raises(UnknownNameError, match="no way to add up"):
        skilled("sum")  # type: ignore[arg-type]
