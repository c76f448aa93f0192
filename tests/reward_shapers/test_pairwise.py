"""Two episodes compared in both orders."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from agentgym.reward_shapers.pairwise import ARENA, Aspect, PairwiseJudge

from agentgym.errors import ConfigError, JudgeError, UnknownNameError
from agentgym.judge import Question, Verdict
from agentgym.types import StopReason, Task, Trajectory, Turn, empty_sample, text_message


def episode(said: str) -> Trajectory:
    turn = Turn((text_message("user", "SEEN"),), empty_sample(text_message("assistant", said)), np.empty(0, np.int32))
    return Trajectory(said, "g", Task("t", "Plan.", 9), (turn,), (), StopReason.DONE, (), 0)


class Scorer:
    """Scores each answer by ``scores``, adds ``bias`` to whoever is shown first, and stalls where ``first`` is."""

    version = "v1"

    def __init__(self, scores: dict[str, float], bias: float = 0.0, stalls: str = "-") -> None:
        self.scores, self.bias, self.stalls = scores, bias, stalls
        self.asked: list[Question] = []

    async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
        self.asked.append(question)
        a, b = (question.material[f"assistant {who}"].split()[-1] for who in "AB")
        if a == self.stalls:
            raise JudgeError("stalled")
        points = {"A": self.scores[a] + self.bias, "B": self.scores[b]}
        keys = [key for key in question.schema["properties"] if key != "reason"]
        return Verdict({"reason": f"{a} first", **{key: points[key[0]] for key in keys}}, cost=0.5)


def compare(judge: Scorer, **how: object):
    return asyncio.run(PairwiseJudge(judge, **how).compare(episode("x"), episode("y")))  # type: ignore[arg-type]


def test_scores_of_both_orders_are_added():
    result = compare(Scorer({"x": 6, "y": 5}))
    assert result.scores == pytest.approx((12, 10))
    assert (result.cost, result.cause, result.evidence) == (1.0, "", "x first | y first")


def test_a_bias_for_a_position_cancels_or_makes_a_tie():
    assert compare(Scorer({"x": 6, "y": 5}, bias=3)).scores == pytest.approx((15, 13))
    assert compare(Scorer({"x": 6, "y": 5}, bias=3), disagreement="tie").scores == pytest.approx((14, 14))
    assert compare(Scorer({"x": 6, "y": 5}, bias=0.5), disagreement="tie").scores == pytest.approx((12.5, 10.5))


def test_aspects_are_weighted_means_of_criteria():
    class ByCriterion(Scorer):
        async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
            values = dict.fromkeys(question.schema["properties"], 0.0)
            values |= {"reason": "", "A_path_breadth": 3.0, "B_path_breadth": 3.0, "A_answer_clarity": 8.0}
            return Verdict(values)

    # x is A once: .6·3/3 + .4·8/4, and B once: .6·3/3; y the other way round.
    assert compare(ByCriterion({})).scores == pytest.approx((0.6 + 0.8 + 0.6, 0.6 + 0.6 + 0.8))
    assert [(aspect.name, aspect.weight) for aspect in ARENA] == [("path", 0.6), ("answer", 0.4)]


@pytest.mark.parametrize("stalls", ["x", "y"])
def test_one_order_alone_is_no_verdict(stalls: str):
    result = compare(Scorer({"x": 6, "y": 5}, stalls=stalls))
    assert (result.scores, result.cause, result.cost) == (None, "JudgeError: stalled", 0.5)


def test_the_judge_sees_what_was_done_and_not_what_was_seen():
    judge = Scorer({"x": 6, "y": 5})
    compare(judge)
    assert [(q.material["assistant A"], q.material["assistant B"]) for q in judge.asked] == [
        ("[assistant]\nx", "[assistant]\ny"),
        ("[assistant]\ny", "[assistant]\nx"),
    ]
    assert "SEEN" not in str(judge.asked)


def test_bad_settings_are_refused():
    with pytest.raises(UnknownNameError, match="sum, tie"):
        PairwiseJudge(Scorer({}), disagreement="first")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="criterion"):
        PairwiseJudge(Scorer({}), (Aspect("path", 1.0, ()),))


def test_an_error_of_another_kind_is_not_hidden():
    with pytest.raises(KeyError):
        compare(Scorer({"x": 1}))
