"""The law of judge hardening: answers without content are worth the least, and no judge sees them."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from agentgym.reward_shapers import (
    checklist,
    checklist_judge,
    gates,
    grading,
    in_group,
    pairwise,
    principles,
    rubric,
    rubric_judge,
    skills,
    step,
    tournament,
)
from every_reward import public
from worlds import episode

from agentgym.judge import Question, Verdict
from agentgym.judging.gullible import praise
from agentgym.judging.prompt import FENCED
from agentgym.reward import Shaper
from agentgym.types import Group, Message, Trajectory

pytestmark = pytest.mark.timeout(600)  # seconds of work, whatever else the machine does


class Pleased:
    """A judge that finds everything as good as can be, and must not be shown ``hidden``."""

    version = "pleased"

    def __init__(self, hidden: str) -> None:
        self.hidden, self.asked = hidden, 0

    async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
        self.asked += 1
        for name, text in question.material.items():
            assert text != self.hidden or name in ("task", "question")
            assert f"[assistant]\n{self.hidden}" not in text.split("\n\n")
        FENCED.write(question)  # refuses what no judge behind an endpoint could be asked
        return Verdict(praise(question, ""))


BRIEF = (principles.Principle("brief", "Be brief."),)
SEARCH = (skills.Skill("search", "find facts", ("asks one thing",)),)
PROBES: Mapping[str, tuple[Callable[[Pleased], Any], Shaper]] = {
    "checklist_judge.ChecklistJudge": (checklist_judge.ChecklistJudge, checklist.checklist()),
    "grading.GradeJudge": (
        lambda judge: grading.GradeJudge(judge, samples=2, low=1, high=9),
        grading.graded(low=1, high=9),
    ),
    "in_group.InGroupReference": (
        lambda judge: in_group.InGroupReference(pairwise.PairwiseJudge(judge)),
        in_group.brpo(win=1, tie=0.5, lose=0),
    ),
    "principles.PrincipleJudge": (
        lambda judge: principles.PrincipleJudge(judge, principles=lambda _: BRIEF),
        principles.principles(),
    ),
    "principles.PrincipleStepJudge": (
        lambda judge: principles.PrincipleStepJudge(judge, principles=lambda _: BRIEF),
        gates.before_last(step.step("principle_step")),
    ),
    "rubric_judge.RubricJudge": (
        lambda judge: rubric_judge.RubricJudge(judge, pages=lambda _: lambda url: "a page"),
        rubric.rubric(),
    ),
    "skills.SkillJudge": (lambda judge: skills.SkillJudge(judge, SEARCH), skills.skilled("mean")),
    "tournament.Tournament": (
        lambda judge: tournament.Tournament(pairwise.PairwiseJudge(judge)),
        tournament.ranked(),
    ),
}
"""Every probe that asks a judge, and what prices it."""

KEYS = ("", " ", ".", ":", "Thought process:", "Let's solve this problem step by step.", "解", "Name the capitals.")


def judged_probes() -> set[str]:
    """Return the public probes that ask a judge."""
    classes = {name: each for name, each in public() if inspect.isclass(each) and "__call__" in vars(each)}
    return {name for name, each in classes.items() if "judge" in inspect.signature(each).parameters}


def test_everything_public_that_asks_a_judge_has_an_example():
    assert set(PROBES) == judged_probes()


def speaking(id: str, text: str) -> Trajectory:
    """Return an episode of two turns that both say ``text``."""
    blank = episode(id, (0, 1), 0)
    turns = [
        replace(
            turn,
            observation=(Message("user", "Go on."),),
            sample=replace(turn.sample, message=Message("assistant", text)),
        )
        for turn in blank.turns
    ]
    return replace(blank, turns=tuple(turns), final_observation=(), signals=())


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", PROBES)
def test_law_judge_hardening(name: str, key: str):
    make, reward = PROBES[name]
    judge = Pleased(key)
    answers = ("It is Paris [1](http://a).", key, "Paris, I am sure [1](http://a).", key)
    group = Group(tuple(speaking(f"e{n}", text) for n, text in enumerate(answers)))
    signals = asyncio.run(make(judge)(group))
    members = zip(group.trajectories, signals, strict=True)
    measured = Group(tuple(replace(trajectory, signals=found) for trajectory, found in members))
    ledgers = reward(measured)
    assert [(ledgers[n].measured, ledgers[n].total()) for n in (1, 3)] == [(True, 0)] * 2
    assert max(ledgers[0].total(), ledgers[2].total()) > 0
    assert judge.asked
