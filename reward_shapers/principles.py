"""Judging by principles: each step by a score (PPR), or the whole answer by yes and no to each of them.

Principles are data given at every call, so they may change from one training step to the next without a new judge;
each signal names the principle it was measured by. Sources: PPR, arXiv 2509.25598, which pays
them by ReNorm (`mixes.renorm`); binary principles as in
RLBFF, adjusted while training as in SALMON, written by whoever asks as in RewardAnything.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agentgym.errors import ConfigError, JudgeError, TaskError
from agentgym.judge import Judge, Question
from agentgym.judging.contentless import contentless
from agentgym.probe import OpenAt
from agentgym.reward import Shaper, finite, per_trajectory
from agentgym.types import Group, Signal, Trajectory

from .asking import (
    YES_NO,
    Contentless,
    acts,
    answer,
    history,
    measure,
    said,
    says_yes,
    source,
    transcript,
    verdict,
    without_content,
)

STEP, WHOLE_ANSWER = "principle_step", "principle"


@dataclass(frozen=True, slots=True)
class Principle:
    """Something an answer or a step should keep."""

    name: str
    text: str


Principles = Callable[[Group], tuple[Principle, ...]]
"""The principles that a group is judged by: they may hang on its task and on its training step."""


def principles_of(group: Group) -> tuple[Principle, ...]:
    """Return the principles of the group's task: ``data["principles"]``, name -> text.

    Raises:
        TaskError: the task has none.
    """
    task = group.trajectories[0].task
    data: Mapping[str, str] = task.data.get("principles", {})
    if not data:
        raise TaskError(f"task '{task.id}' has no principles; put some under its data['principles'] or pass them")
    return tuple(Principle(name, text) for name, text in data.items())


def from_step(schedule: Mapping[int, tuple[Principle, ...]]) -> Principles:
    """Return principles that change while training: those of the last step in ``schedule`` that has been reached.

    Raises:
        ConfigError: the schedule says nothing of step 0.
    """
    if 0 not in schedule:
        raise ConfigError(f"a schedule of principles starts at step 0; got: {sorted(schedule) or 'nothing'}")
    return lambda group: schedule[max(step for step in schedule if step <= group.step)]


class PrincipleStepJudge:
    """Emits ``principle_step`` for every turn but the last: the judge's score over its own maximum, in [0, 1] (PPR).

    A score below 0 or above its maximum is no verdict; the turn is unmeasured.
    """

    signals = frozenset({STEP})

    def __init__(
        self, judge: Judge, *, principles: Principles = principles_of, contentless: Contentless = contentless
    ) -> None:
        self.judge = judge
        self.principles = principles
        self.contentless = contentless

    @property
    def name(self) -> str:
        """The ``source`` of its signals."""
        return source("principle_step", self.judge)

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return a signal for each turn but the last of each trajectory."""
        if not group.trajectories:
            return []
        principles = self.principles(group)
        measured = (
            asyncio.gather(*(self._turn(each, turn, principles) for turn in range(len(each.turns) - 1)))
            for each in group.trajectories
        )
        return [tuple(signals) for signals in await asyncio.gather(*measured)]

    async def _turn(self, trajectory: Trajectory, turn: int, principles: tuple[Principle, ...]) -> Signal:
        blank = Signal(STEP, None, f"{self.name}#{digest(principles)}", turn)
        text = said(trajectory.turns[turn].sample.message)
        why = self.contentless(text, trajectory.task.prompt)
        if why:
            return without_content(blank, why)
        listed = "\n".join(f"- {principle.name}: {principle.text}" for principle in principles)
        asked = Question(
            "An assistant works on a task step by step. Analyse its last step by these principles, then give it a "
            f"whole-number score and the maximum a perfect step would get.\n{listed}",
            {
                "task": trajectory.task.prompt,
                "conversation": transcript(history(trajectory, turn)[:-1]),
                "last step": text,
                "what the world answered": transcript(trajectory.turns[turn + 1].observation),
            },
            verdict(score={"type": "integer"}, maximum={"type": "integer"}),
        )
        return await measure(self.judge, asked, blank, score_over_maximum)


class PrincipleJudge:
    """Emits ``principle`` for each principle, on the whole episode: 1 where it is kept, else 0."""

    signals = frozenset({WHOLE_ANSWER})

    def __init__(
        self, judge: Judge, *, principles: Principles = principles_of, contentless: Contentless = contentless
    ) -> None:
        self.judge = judge
        self.principles = principles
        self.contentless = contentless

    @property
    def name(self) -> str:
        """The ``source`` of its signals."""
        return source("principle", self.judge)

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return a signal for each principle that holds for the group now."""
        if not group.trajectories:
            return []
        principles = self.principles(group)
        measured = (
            asyncio.gather(*(self._one(each, principle) for principle in principles)) for each in group.trajectories
        )
        return [tuple(signals) for signals in await asyncio.gather(*measured)]

    async def _one(self, trajectory: Trajectory, principle: Principle) -> Signal:
        blank = Signal(WHOLE_ANSWER, None, f"{self.name}#{digest((principle,))}", item=principle.name)
        why = self.contentless(answer(trajectory), trajectory.task.prompt)
        if why:
            return without_content(blank, why)
        asked = Question(
            f"Does what the assistant did satisfy this principle?\n{principle.name}: {principle.text}",
            {"task": trajectory.task.prompt, "what the assistant did": acts(trajectory)},
            YES_NO,
        )
        signal = await measure(self.judge, asked, blank, says_yes)
        return replace(signal, evidence=f"{principle.text} → {signal.evidence}") if signal.evidence else signal


def score_over_maximum(value: Mapping[str, Any]) -> float:
    """Return ``score / maximum`` of a verdict, in [0, 1].

    Raises:
        JudgeError: the score is not between 0 and the maximum.
    """
    score, maximum = value["score"], value["maximum"]
    if not 0 <= score <= maximum or maximum == 0:
        raise JudgeError(f"score {score} of {maximum} is no score")
    return float(score / maximum)


def digest(principles: tuple[Principle, ...]) -> str:
    """Return a short word for the text of ``principles``, so that measurements under different ones are told apart."""
    text = "\n".join(f"{principle.name}\0{principle.text}" for principle in principles)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def principles(weights: Mapping[str, float] | None = None, *, name: str = "principles") -> Shaper:
    """Return the weighted share in [0, 1] of the principles that were asked about and kept.

    ``weights`` are by the principle's name, 1 each where not given; a name that is not listed then counts nothing.
    Unmeasured where a principle that counts is.

    Raises:
        ConfigError: a weight below 0 or not finite.
    """
    for principle, weight in (weights or {}).items():
        finite(f"weight of principle '{principle}'", weight)
        if weight < 0:
            raise ConfigError(f"weight of principle '{principle}' is {weight:g}; turn the principle round instead")

    def share(trajectory: Trajectory) -> float | None:
        values = {signal.item: signal.value for signal in trajectory.signals if signal.name == WHOLE_ANSWER}
        kept = {item: 1.0 if weights is None else weights.get(item, 0.0) for item in values}
        counted = [(weight, values[item]) for item, weight in kept.items() if weight]
        if not counted:
            return None
        total = sum(weight for weight, _ in counted)
        amounts = [weight * value for weight, value in counted if value is not None]
        return sum(amounts) / total if len(amounts) == len(counted) else None

    return per_trajectory(name, share, scope="trajectory", signals={WHOLE_ANSWER}, low=0.0, high=1.0)


__all__ = [
    "STEP",
    "WHOLE_ANSWER",
    "Principle",
    "PrincipleJudge",
    "PrincipleStepJudge",
    "Principles",
    "digest",
    "from_step",
    "principles",
    "principles_of",
    "score_over_maximum",
]
