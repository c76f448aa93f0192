"""A generative judge asked several times, whose grades are voted on (DeepSeek-GRM).

The judge writes the principles it grades by, a critique, and a grade; samples differ in all three. What each sample
said is measured, the vote is pricing: the same samples may be voted on in another way without asking again.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, get_args

from agentgym.errors import ConfigError, JudgeError, unknown_name
from agentgym.judge import Judge, Question
from agentgym.judging.contentless import contentless
from agentgym.probe import OpenAt
from agentgym.reward import Shaper, per_trajectory
from agentgym.types import Group, Signal, Trajectory

from .asking import Contentless, acts, answer, measure, source, verdict, without_content

GRADE, TRUST = "grade", "grade_trust"

Vote = Literal["mean", "sum", "median", "majority"]


class GradeJudge:
    """Emits ``grade`` for each of ``samples`` verdicts, between ``low`` and ``high``; the item is the sample's number.

    With a ``meta`` judge also ``grade_trust`` for each, in [0, 1]: how much that critique deserves to be heard.
    An answer without content gets the lowest grade each time. Where several judges grade the same episodes, each needs
    a ``signal`` of its own in place of ``grade``, by which `graded` finds what it said.

    Raises:
        ConfigError: fewer than one sample, or an empty scale.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        samples: int,
        low: int,
        high: int,
        meta: Judge | None = None,
        signal: str = GRADE,
        contentless: Contentless = contentless,
    ) -> None:
        if samples < 1 or low >= high:
            raise ConfigError(f"{samples} samples on a scale from {low} to {high}; ask for one or more, low below high")
        self.judge = judge
        self.samples = samples
        self.low = low
        self.high = high
        self.meta = meta
        self.signal = signal
        self.contentless = contentless

    @property
    def signals(self) -> frozenset[str]:
        """Names of the signals it emits."""
        return frozenset({self.signal, trust_in(self.signal)} if self.meta else {self.signal})

    @property
    def name(self) -> str:
        """The ``source`` of its grades."""
        return source(self.signal, self.judge)

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return the grades of each trajectory, sample by sample."""
        measured = (
            asyncio.gather(*(self._sample(each, sample) for sample in range(self.samples)))
            for each in group.trajectories
        )
        return [tuple(s for sample in samples for s in sample) for samples in await asyncio.gather(*measured)]

    async def _sample(self, trajectory: Trajectory, sample: int) -> tuple[Signal, ...]:
        blank = Signal(self.signal, None, self.name, item=str(sample))
        why = self.contentless(answer(trajectory), trajectory.task.prompt)
        if why:
            worst = without_content(blank, why, float(self.low))
            return (worst, replace(worst, name=trust_in(self.signal), value=1.0)) if self.meta else (worst,)
        asked = Question(
            "Grade what an assistant did. First write the principles that matter for this very task, with their "
            "weights, then a critique by them in `reason`, then a whole-number grade from "
            f"{self.low} (worst) to {self.high} (best).",
            {"task": trajectory.task.prompt, "what the assistant did": acts(trajectory)},
            verdict(grade={"type": "integer", "minimum": self.low, "maximum": self.high}),
        )
        grade = await measure(self.judge, asked, blank, lambda value: self._on_scale(value["grade"]), sample=sample)
        if self.meta is None or grade.value is None:
            return (grade,)
        return grade, await self._trust(self.meta, trajectory, grade)

    async def _trust(self, meta: Judge, trajectory: Trajectory, grade: Signal) -> Signal:
        asked = Question(
            "Say how much a critique deserves to be heard, from 0 (wrong or beside the point) to 1 (sound).",
            {
                "task": trajectory.task.prompt,
                "what the assistant did": acts(trajectory),
                "critique": f"{grade.evidence}\nGrade: {grade.value:g}",
            },
            verdict(trust={"type": "number", "minimum": 0, "maximum": 1}),
        )
        blank = Signal(trust_in(self.signal), None, source(trust_in(self.signal), meta), item=grade.item)
        return await measure(meta, asked, blank, lambda value: float(value["trust"]))

    def _on_scale(self, grade: float) -> float:
        if not self.low <= grade <= self.high:
            raise JudgeError(f"grade {grade} is not between {self.low} and {self.high}")
        return float(grade)


def trust_in(signal: str) -> str:
    """Return the name of the signal that says how far to trust the grades called ``signal``."""
    return f"{signal}_trust"


def graded(
    vote: Vote = "mean",
    *,
    low: float,
    high: float,
    needed: int = 1,
    keep: int | None = None,
    signal: str = GRADE,
    name: str = "graded",
) -> Shaper:
    """Return the vote of the grades that were measured, each put on [0, 1]; unmeasured with fewer than ``needed``.

    ``mean`` is ``sum`` over the number of samples; with ``sum``, which the paper takes, and a sample without a verdict
    there is no vote, since it would count as 0. ``majority`` is the grade given most often; where two are,
    the judge does not know, and it is unmeasured. ``keep`` lets only so many of the most trusted vote, as the paper's
    meta reward model does; a grade whose trust is unmeasured does not.

    Breaks *bounded*: ``sum`` grows with the samples. Breaks *scale honesty*: ``sum``.

    Raises:
        UnknownNameError: another vote.
        ConfigError: an empty scale, or nobody to hear.
    """
    if vote not in _VOTES:
        raise unknown_name("vote", vote, get_args(Vote))
    if not low < high:
        raise ConfigError(f"a scale from {low:g} to {high:g} is empty; give the lower end first")
    if needed < 1 or (keep is not None and keep < needed):
        raise ConfigError(f"{keep} grades cannot vote where {needed} are needed; need one or more, and keep as many")

    def outcome(trajectory: Trajectory) -> float | None:
        grades = [each for each in trajectory.signals if each.name == signal]
        heard = [each for each in grades if each.value is not None]
        if keep is not None:
            trusts = (each for each in trajectory.signals if each.name == trust_in(signal))
            trust = {each.item: each.value for each in trusts if each.value is not None}
            trusted = [each for each in heard if each.item in trust]
            heard = sorted(trusted, key=lambda each: trust[each.item], reverse=True)[:keep]
        if len(heard) < needed or (vote == "sum" and keep is None and len(heard) < len(grades)):
            return None
        return _VOTES[vote]([((each.value or 0.0) - low) / (high - low) for each in heard])

    signals = {signal} if keep is None else {signal, trust_in(signal)}
    top = math.inf if vote == "sum" else 1.0
    return per_trajectory(name, outcome, scope="trajectory", signals=signals, low=0.0, high=top)


def _majority(values: Sequence[float]) -> float | None:
    (first, count), *others = Counter(values).most_common(2)
    return None if others and others[0][1] == count else first


_VOTES: dict[Vote, Callable[[Sequence[float]], float | None]] = {
    "mean": statistics.fmean,
    "sum": math.fsum,
    "median": statistics.median,
    "majority": _majority,
}


__all__ = ["GRADE", "TRUST", "GradeJudge", "Vote", "graded", "trust_in"]
