"""Asks a judge to compare two episodes of the same task, in both orders of presentation (ArenaRL, arXiv 2601.06487)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from agentgym.errors import ConfigError, JudgeError, unknown_name
from agentgym.judge import Judge, Question
from agentgym.types import Trajectory

from .asking import acts, verdict

TOP = 10
"""Criteria are scored from 0 to this."""

Disagreement = Literal["sum", "tie"]


@dataclass(frozen=True, slots=True)
class Aspect:
    """One side of an episode, with the share of its score and the criteria whose mean it is."""

    name: str
    weight: float
    criteria: tuple[str, ...]


ARENA = (
    Aspect("path", 0.6, ("breadth", "relevance", "detail")),
    Aspect("answer", 0.4, ("relevance", "feasibility", "detail", "clarity")),
)
"""What the authors' code compares journeys by."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two episodes scored against each other, over both orders; ``scores`` None: there is no verdict."""

    scores: tuple[float, float] | None
    cause: str = ""
    cost: float = 0.0
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class PairwiseJudge:
    """Compares two episodes by the score each gets beside the other.

    Where the orders name different winners, ``sum`` lets the sums decide (the authors' code), ``tie`` calls it a tie.

    Raises:
        ConfigError: aspects without weight or criteria.
        UnknownNameError: another way with disagreement.
    """

    judge: Judge
    aspects: tuple[Aspect, ...] = field(default=ARENA)
    disagreement: Disagreement = "sum"

    def __post_init__(self) -> None:
        if self.disagreement not in get_args(Disagreement):
            raise unknown_name("way with disagreeing orders", self.disagreement, get_args(Disagreement))
        if not self.aspects or any(aspect.weight <= 0 or not aspect.criteria for aspect in self.aspects):
            raise ConfigError("a comparison needs aspects, each with a weight above 0 and at least one criterion")

    async def compare(self, first: Trajectory, second: Trajectory) -> Comparison:
        """Return the scores of ``first`` and ``second``, each the sum over the two orders.

        One order without a verdict leaves the comparison without one: alone it would favour a position.
        """
        orders = ((first, second), (second, first))
        asked = [self.judge.ask(self.question(a, b)) for a, b in orders]
        verdicts = await asyncio.gather(*asked, return_exceptions=True)
        costs = 0.0
        scores: list[tuple[float, float] | None] = []
        reasons: list[str] = []
        for answer in verdicts:
            if isinstance(answer, JudgeError):
                scores.append(None)
                reasons.append(f"JudgeError: {answer}")
            elif isinstance(answer, BaseException):
                raise answer
            else:
                costs += answer.cost
                scores.append((self._score("A", answer.value), self._score("B", answer.value)))
                reasons.append(answer.reason)
        straight, turned = scores
        if straight is None or turned is None:
            cause = "; ".join(reason for reason, pair in zip(reasons, scores, strict=True) if pair is None)
            return Comparison(None, cause, costs)
        totals = (straight[0] + turned[1], straight[1] + turned[0])
        split = (straight[0] - straight[1]) * (turned[1] - turned[0]) < 0
        if split and self.disagreement == "tie":
            totals = (sum(totals) / 2, sum(totals) / 2)
        return Comparison(totals, cost=costs, evidence=" | ".join(reasons))

    def question(self, a: Trajectory, b: Trajectory) -> Question:
        """Return the question that shows ``a`` first."""
        listed = "\n".join(f"- {aspect.name}: {', '.join(aspect.criteria)}" for aspect in self.aspects)
        score = {"type": "number", "minimum": 0, "maximum": TOP}
        keys = [f"{who}_{key}" for who in "AB" for key in self._keys()]
        return Question(
            f"Two assistants, A and B, worked on the same task. Score both from 0 to {TOP} on each criterion, by what "
            f"they did and not by the order in which they are shown.\n{listed}",
            {"task": a.task.prompt, "assistant A": acts(a), "assistant B": acts(b)},
            verdict(**dict.fromkeys(keys, score)),
        )

    def _keys(self) -> list[str]:
        return [f"{aspect.name}_{criterion}" for aspect in self.aspects for criterion in aspect.criteria]

    def _score(self, who: str, value: Mapping[str, Any]) -> float:
        return math.fsum(
            aspect.weight * math.fsum(value[f"{who}_{aspect.name}_{c}"] for c in aspect.criteria) / len(aspect.criteria)
            for aspect in self.aspects
        )


__all__ = ["ARENA", "TOP", "Aspect", "Comparison", "Disagreement", "PairwiseJudge"]
