"""Sub-answers that tool calls bring to light, with the golden vectors of FTRL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from agentgym.reward_shapers.solves import solve_f1, solve_step
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import TaskError, UnknownNameError
from agentgym.reward import Shaper
from agentgym.types import Group, Message, Observation, StopReason, Task, ToolCall, Trajectory, Turn, empty_sample

Acts = tuple[str, list[tuple[str, str | None]]]
"""What a turn says, and its calls: the tool and what it answers, None where that was not recorded."""


def episode(*acts: Acts, data: Mapping[str, Any] | None = None) -> Trajectory:
    turns, observation = [], ()
    for content, calls in acts:
        asked = tuple(ToolCall(f"c{n}", tool, {}) for n, (tool, _) in enumerate(calls))
        turns.append(Turn(observation, empty_sample(Message("assistant", content, asked)), np.empty(0, np.int32)))
        observation: Observation = tuple(
            Message("tool", output, tool_call_id=f"c{n}") for n, (_, output) in enumerate(calls) if output is not None
        )
    return Trajectory("e", "g", Task("t", "", 9, data=data or {}), tuple(turns), observation, StopReason.DONE, (), 0)


def credit(reward: Shaper, trajectory: Trajectory) -> list[float | None]:
    (ledger,) = reward(Group((trajectory,)))
    credits, masks = ledger.credit_CT()[0].tolist(), ledger.mask_CT()[0].tolist()
    return [amount if known else None for amount, known in zip(credits, masks, strict=True)]


CAPITALS = {"sub_answers": {"capital": ["Paris", "Rome", "Oslo"]}, "answer": "Paris, Rome, Oslo"}
OUTPUTS = ["it is PARIS.", "it is Rome", "oslo!"]


@pytest.mark.parametrize(("q", "p", "paid"), [(1, 1, 1), (1, 2, 2 / 3), (2, 2, 4 / 3), (0, 1, 0), (3, 3, 1.5)])
def test_golden_vectors(q: int, p: int, paid: float):
    calls = [("capital", OUTPUTS[n] if n < q else "nothing") for n in range(p)]
    trajectory = episode(("", calls), data=CAPITALS)  # type: ignore[arg-type]
    assert credit(solve_step(), trajectory) == [pytest.approx(paid)]
    assert credit(solve_step("precision"), trajectory) == [pytest.approx(q / p)]
    assert credit(solve_step("recall"), trajectory) == [q]
    assert credit(solve_step("product"), trajectory) == [pytest.approx(q * q / p)]
    assert credit(solve_f1(), trajectory) == [pytest.approx(2 * q / (p + 3))]


def test_an_answer_is_solved_once_and_by_its_own_tool():
    data = {"sub_answers": {"capital": ["Paris, France"], "river": ["Seine"]}}
    trajectory = episode(
        ("", [("capital", "Paris"), ("river", "paris, in france")]),
        ("", [("capital", "Paris is in France, on the Seine"), ("capital", "Paris, France")]),
        ("", [("river", "the Seine")]),
        data=data,
    )
    assert credit(solve_step("recall"), trajectory) == [0, 1, 1]
    assert sum(filter(None, credit(solve_f1(), trajectory))) == pytest.approx(2 * 2 / (5 + 2))


@pytest.mark.parametrize(
    ("said", "paid"),
    [
        ("", -0.5),
        (" \n", -0.5),
        ("<tool_call>{oops</tool_call>", -0.3),
        ("So: paris Rome, OSLO.", 1 / 3),
        ("I do not know", 0),
    ],
)
def test_turns_without_calls(said: str, paid: float):
    """One of the three is solved before, so that two are left."""
    assert credit(solve_step(), episode(("", [("capital", "Paris")]), (said, []), data=CAPITALS)) == [
        1,
        pytest.approx(paid),
    ]


def test_when_all_is_solved_the_answer_is_worth_most():
    solved: Acts = ("", [("capital", output) for output in OUTPUTS])
    assert credit(solve_step(), episode(solved, ("Paris, Rome, Oslo", []), data=CAPITALS)) == [1.5, 1]
    assert credit(solve_step(), episode(solved, ("done", []), data=CAPITALS)) == [1.5, 0.5]
    no_answer = {"sub_answers": CAPITALS["sub_answers"]}
    assert credit(solve_step(), episode(solved, ("Paris, Rome, Oslo", []), data=no_answer)) == [1.5, 0.5]


def test_an_output_that_was_not_recorded_hides_what_comes_after():
    lost = episode(("", [("capital", "Rome")]), ("", [("capital", None)]), ("go on", []), data=CAPITALS)
    assert credit(solve_step(), lost) == [1, None, None]
    assert credit(solve_f1(), lost)[-1] is None


def test_a_task_without_sub_answers_is_unmeasured_and_says_so():
    (ledger,) = solve_step()(Group((episode(("so", [])),)))
    assert not ledger.measured
    assert "needs task.data['sub_answers'] and the output of every call" in ledger.explain()
    assert credit(solve_f1(), episode(("so", []))) == [None]
    for wrong in ({}, [], {"a": "b"}, {"a": []}, {"a": [" , "]}, {"a": [1]}):
        with pytest.raises(TaskError, match="task 't': data\\['sub_answers'\\] must hold"):
            credit(solve_step(), episode(("so", []), data={"sub_answers": wrong}))
    with pytest.raises(UnknownNameError, match="no form of a solve reward 'f2'"):
        solve_step("f2")  # type: ignore[arg-type]


CALLS = st.lists(
    st.tuples(st.sampled_from(["capital", "river"]), st.sampled_from([*OUTPUTS, "paris rome oslo", "no"])), max_size=4
)


@given(st.lists(st.tuples(st.sampled_from(["", "Paris Rome Oslo", "so"]), CALLS), min_size=1, max_size=5))
def test_law_bounded(acts: list[Acts]):
    trajectory = episode(*acts, data=CAPITALS)
    for form in ("f1", "precision", "recall", "product"):
        reward = solve_step(form)  # type: ignore[arg-type]
        low, high = reward.range(1)
        paid = [amount for amount in credit(reward, trajectory) if amount is not None]
        assert len(paid) == len(acts)
        assert all(low <= amount <= high for amount in paid)
    assert 0 <= solve_f1()(Group((trajectory,)))[0].total() <= 1
    solved = credit(solve_step("recall"), episode(*[(said, calls) for said, calls in acts if calls], data=CAPITALS))
    assert sum(filter(None, solved)) <= 3
