"""Probes by name: each function here is a probe that a configuration may choose, with its parameters.

A parameter of type `Judge` is written as a table, such as ``judge = { url = "http://localhost:8000/v1", model = "…" }``
(`agentgym.judging.endpoint`). Checklists, rubrics and references come with the tasks, in their ``data``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentgym.errors import ConfigError
from agentgym.judge import Judge

from .checklist_judge import ChecklistJudge
from .grading import GradeJudge
from .pairwise import Disagreement, PairwiseJudge
from .principles import Principle, PrincipleJudge, Principles, PrincipleStepJudge, principles_of
from .rubric_judge import RubricJudge
from .skills import Skill, SkillJudge
from .tournament import Draw, Tournament
from .verifier import VerifierProgress


def checklist(judge: Judge, again: bool = False) -> ChecklistJudge:
    """Return the judge of the task's checklist, item by item and turn by turn: ``checklist_item``."""
    return ChecklistJudge(judge, again=again)


def rubric(judge: Judge) -> RubricJudge:
    """Return the judge of the task's rubric of entities: ``rubric_identified`` and ``rubric_supported``."""
    return RubricJudge(judge)


def grade(judge: Judge, samples: int, low: int, high: int, meta: Judge | None = None) -> GradeJudge:
    """Return the judge that grades an episode several times: ``grade``, and with ``meta`` its ``grade_trust``."""
    return GradeJudge(judge, samples=samples, low=low, high=high, meta=meta)


def principles(judge: Judge, principles: Mapping[str, str] | None = None) -> PrincipleJudge:
    """Return the judge of the whole answer by each principle, name -> text, or by the task's own: ``principle``."""
    return PrincipleJudge(judge, principles=_principles(principles))


def principle_steps(judge: Judge, principles: Mapping[str, str] | None = None) -> PrincipleStepJudge:
    """Return the judge of each turn by principles, name -> text, or by the task's own: ``principle_step``."""
    return PrincipleStepJudge(judge, principles=_principles(principles))


def skills(judge: Judge, library: Sequence[Mapping[str, Any]]) -> SkillJudge:
    """Return the judge that routes each turn to a skill and checks its criteria: ``skill_criterion``.

    Each skill of the library is a table with ``name``, ``description`` and ``criteria``, a list of texts.
    """
    return SkillJudge(judge, [_skill(table) for table in library])


def tournament(
    judge: Judge, bracket: str = "single_elimination", draw: Draw = "lot", disagreement: Disagreement = "sum"
) -> Tournament:
    """Return the judge that compares siblings two by two and ranks them: ``place`` and ``match``."""
    return Tournament(PairwiseJudge(judge, disagreement=disagreement), bracket=bracket, draw=draw)


def verifier(signal: str = "won") -> VerifierProgress:
    """Return the probe that reopens the world at every turn and asks it how things stand: ``verified_gain``."""
    return VerifierProgress(signal)


def _principles(given: Mapping[str, str] | None) -> Principles:
    if given is None:
        return principles_of
    listed = tuple(Principle(name, text) for name, text in given.items())
    if not listed:
        raise ConfigError("'principles' is empty; name some, or leave it out to take the task's own")
    return lambda group: listed


def _skill(table: Mapping[str, Any]) -> Skill:
    if set(table) != {"name", "description", "criteria"}:
        raise ConfigError(f"a skill is a table with name, description and criteria; got {table!r}")
    return Skill(str(table["name"]), str(table["description"]), tuple(map(str, table["criteria"])))


__all__ = [
    "checklist",
    "grade",
    "principle_steps",
    "principles",
    "rubric",
    "skills",
    "tournament",
    "verifier",
]
