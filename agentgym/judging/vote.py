"""Asking several times and taking the mean or the majority, as DeepSeek-GRM's k samples (arXiv 2504.02495) are."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from agentgym.errors import JudgeError, UsageError
from agentgym.judge import Judge, Question, Verdict

Reduce = Callable[[Sequence[float]], float]


@dataclass(frozen=True, slots=True)
class Vote:
    """What several verdicts on one question come to."""

    value: float
    verdicts: tuple[Verdict, ...]
    "Those that came, in order of their sample."
    causes: tuple[str, ...]
    "Why the others did not."

    @property
    def cost(self) -> float:
        """What the verdicts cost together."""
        return sum(verdict.cost for verdict in self.verdicts)


async def vote(
    judge: Judge,
    question: Question,
    k: int,
    *,
    key: str | Callable[[Mapping[str, Any]], float],
    needed: int | None = None,
    reduce: Reduce = fmean,
) -> Vote:
    """Ask ``k`` samples at once and return what those that came add up to.

    Args:
        judge: whose samples differ (temperature above 0).
        question: what is asked.
        k: samples, from number 0.
        key: a verdict's number: a property's name (true is 1), or a function of the verdict.
        needed: fewest verdicts that make a vote; None: more than half of ``k``.
        reduce: `statistics.fmean` or `majority`.

    Raises:
        JudgeError: fewer came than are needed, or they are tied. What was asked about is unmeasured.
        UsageError: ``k`` or ``needed`` cannot be meant, or ``key`` is no number of the verdict.
    """
    least = k // 2 + 1 if needed is None else needed
    if not 1 <= least <= k:
        raise UsageError(f"a vote of {k} cannot need {least} verdicts; need at least 1 and at most {k}")
    asked = [judge.ask(question, sample=sample) for sample in range(k)]
    answers = await asyncio.gather(*asked, return_exceptions=True)  # all end before anything is raised
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, JudgeError):
            raise answer
    verdicts = tuple(answer for answer in answers if isinstance(answer, Verdict))
    causes = tuple(str(answer) for answer in answers if isinstance(answer, JudgeError))
    if len(verdicts) < least:
        raise JudgeError(
            f"{len(verdicts)} of {k} verdicts came, {least} are needed; {'; '.join(dict.fromkeys(causes))}"
        )
    return Vote(reduce([_number(verdict.value, key) for verdict in verdicts]), verdicts, causes)


def majority(values: Sequence[float]) -> float:
    """Return the value given most often.

    Raises:
        JudgeError: two are: the judge does not know.
    """
    (first, count), *others = Counter(values).most_common(2)
    if others and others[0][1] == count:
        raise JudgeError(f"the vote is tied: {count} verdicts each for {first:g} and {others[0][0]:g}")
    return first


def _number(value: Mapping[str, Any], key: str | Callable[[Mapping[str, Any]], float]) -> float:
    try:
        number = float(value[key] if isinstance(key, str) else key(value))
    except (LookupError, TypeError, ValueError) as error:
        raise UsageError(f"{key!r} is no number of a verdict with properties {', '.join(value)}") from error
    if not math.isfinite(number):
        raise UsageError(f"{key!r} of a verdict is {number}; votes are finite")
    return number


__all__ = ["Reduce", "Vote", "majority", "vote"]
