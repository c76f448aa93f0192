"""Several verdicts on one question, some of which do not come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agentgym.errors import JudgeError, UsageError
from agentgym.judge import Question, Verdict
from agentgym.judging.vote import majority, vote

QUESTION = Question("How good is it?", {"answer": "x"}, {})


class Says:
    """A judge whose samples are given; None: it gives no verdict."""

    version = "fake-0"

    def __init__(self, scores: Sequence[Any]) -> None:
        self.scores = scores

    async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
        await asyncio.sleep(0)
        if self.scores[sample] is None:
            raise JudgeError("out of reach")
        return Verdict({"reason": "", "score": self.scores[sample]}, cost=0.5)


def tally(scores: Sequence[Any], k: int | None = None, **arguments: Any) -> Any:
    return asyncio.run(vote(Says(scores), QUESTION, k or len(scores), **{"key": "score", **arguments}))


def test_the_mean_is_over_the_verdicts_that_came():
    result = tally([1, 4, None, 10])
    assert result.value == 5.0  # (1 + 4 + 10) / 3, not / 4
    assert [verdict.value["score"] for verdict in result.verdicts] == [1, 4, 10]
    assert result.causes == ("out of reach",)
    assert result.cost == 1.5


@pytest.mark.parametrize(("scores", "value"), [([True, False, True], 1.0), ([3, 3, 5, 8], 3.0), ([2], 2.0)])
def test_the_majority_is_what_most_say(scores: list[Any], value: float):
    assert tally(scores, reduce=majority).value == value


def test_a_tie_is_no_verdict():
    with pytest.raises(JudgeError, match="tied: 1 verdicts each for 1 and 0"):
        tally([True, False], reduce=majority)


def test_a_function_may_read_the_verdict():
    assert tally([1, 2], key=lambda value: value["score"] / 10).value == pytest.approx(0.15)


@pytest.mark.parametrize(("came", "k", "needed", "enough"), [(2, 4, None, False), (3, 4, None, True), (1, 4, 1, True)])
def test_too_few_verdicts_are_none(came: int, k: int, needed: int | None, enough: bool):
    scores = [1] * came + [None] * (k - came)
    if enough:
        assert tally(scores, needed=needed).value == 1
    else:
        with pytest.raises(JudgeError, match="2 of 4 verdicts came, 3 are needed; out of reach"):
            tally(scores, needed=needed)


@pytest.mark.parametrize("arguments", [{"k": 2, "needed": 3}, {"needed": 0}])
def test_needs_that_cannot_be_met_are_refused(arguments: dict[str, int]):
    with pytest.raises(UsageError, match="cannot need"):
        tally([1, 1, 1], **arguments)


@pytest.mark.parametrize("arguments", [{"key": "points"}, {"key": "reason"}, {"key": lambda value: float("nan")}])
def test_a_key_that_is_no_number_is_refused(arguments: dict[str, Any]):
    with pytest.raises(UsageError, match="of a verdict"):
        tally([1, 1], **arguments)
