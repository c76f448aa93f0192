"""Tool calls against a reference, with the golden vectors of the official ToolRL reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from agentgym.reward_shapers.scales import Scale
from agentgym.reward_shapers.tools import agreement, calls_made, tool_match
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import TaskError, UnknownNameError
from agentgym.ledger import Status
from agentgym.reward import Shaper
from agentgym.types import Group, Message, StopReason, Task, ToolCall, Trajectory, Turn, empty_sample

PUBLISHED = Scale(-3, 3)


def call(tool: str, **arguments: Any) -> ToolCall:
    return ToolCall("c", tool, arguments)


def plain(calls: Sequence[ToolCall]) -> list[dict[str, Any]]:
    return [{"name": one.name, "arguments": dict(one.arguments)} for one in calls]


def turn(*calls: ToolCall, content: str = "") -> Turn:
    return Turn((), empty_sample(Message("assistant", content, calls)), np.empty(0, np.int32))


def episode(data: Mapping[str, Any], *turns: Turn) -> Trajectory:
    return Trajectory("e", "g", Task("t", "", 9, data=data), turns, (), StopReason.DONE, (), 0)


def total(shaper: Shaper, data: Mapping[str, Any], *turns: Turn, step: int = 0) -> float | None:
    (ledger,) = shaper(Group((episode(data, *turns),), step))
    return ledger.total() if ledger.measured else None


SEARCH = call("search", query="mars", limit=3)
OPEN = call("open", page=1)


@pytest.mark.parametrize(
    ("wanted", "made", "paid"),
    [
        ([SEARCH], [SEARCH], 3.0),
        ([SEARCH], [call("search", query="mars", limit=4)], 1.5),
        ([SEARCH], [call("find", query="mars", limit=3)], -3.0),
        ([SEARCH, OPEN], [OPEN, SEARCH], 3.0),
        ([SEARCH], [], -3.0),
    ],
    ids=["exact", "one value wrong", "wrong tool", "order swapped", "no call"],
)
def test_golden_vectors(wanted: list[ToolCall], made: list[ToolCall], paid: float):
    data = {"tool_calls": plain(wanted), "tool_calls_by_turn": [plain(wanted)]}
    for scope in ("trajectory", "turn"):
        reward = tool_match(scale=PUBLISHED, scope=scope)  # type: ignore[arg-type]
        assert total(reward, data, turn(*made)) == pytest.approx(paid)
        unit = tool_match(scope=scope)  # type: ignore[arg-type]
        assert total(unit, data, turn(*made)) == pytest.approx((paid + 3) / 6)


@pytest.mark.parametrize(
    ("wanted", "made", "share"),
    [
        # S = 1/2 (one name of two) + 1 (argument name) + 1 (value); S_max = 1 + (1 + 1)
        ([OPEN], [OPEN, SEARCH], 2.5 / 3),
        # a value of another type is another value: 1 + 1 + 0 of 3
        ([OPEN], [call("open", page="1")], 2 / 3),
        # one argument name of two shared, its value right: 1 + 1/2 + 1 of 4
        ([SEARCH], [call("search", query="mars")], 2.5 / 4),
        # an argument more than asked for: 1 + 1/2 + 1 of 3
        ([OPEN], [call("open", page=1, fast=True)], 2.5 / 3),
        # nothing shared but the name: 1 + 0 + 0 of 3
        ([OPEN], [call("open", line=1)], 1 / 3),
        # called twice: names 1/2, and the better of the two: 1 + 1, of 3
        ([OPEN], [call("open", page=2), OPEN], 2.5 / 3),
        # a call without arguments: names 1 and argument names 1 of 2
        ([call("stop")], [call("stop")], 1.0),
        # {a, a, b} and {a, b, b} share two of four: 1/2; both "open"s have one partner, worth 2; "stop" is worth 1
        ([OPEN, OPEN, call("stop")], [OPEN, call("stop"), call("stop")], (0.5 + 2 + 1) / (1 + 2 + 2 + 1)),
        ([], [], 1.0),
        ([], [OPEN], 0.0),
    ],
)
def test_agreement_by_hand(wanted: list[ToolCall], made: list[ToolCall], share: float):
    assert agreement(wanted, made) == pytest.approx(share)


@pytest.mark.parametrize(
    ("granularity", "made", "share"),
    [
        # one of two calls is right to the letter, one value of the other is wrong; in the reference's order
        ("fine", [SEARCH, call("open", page=2)], (1 + 3 + 1) / 6),
        ("refined", [SEARCH, call("open", page=2)], (1 + 3 + 1) / 6),
        ("intermediate", [SEARCH, call("open", page=2)], (1 + 1) / 3),
        ("coarse", [SEARCH, call("open", page=2)], 0.0),
        # the right calls in another order
        ("fine", [OPEN, SEARCH], 1.0),
        ("refined", [OPEN, SEARCH], (0 + 3 + 2) / 6),
        ("intermediate", [OPEN, SEARCH], 1.0),
        ("coarse", [OPEN, SEARCH], 0.0),
        # an argument left out: J of the names of its arguments is 1/2, or 0 if they must be the same
        ("fine", [call("search", query="mars"), OPEN], (1 + 1.5 + 2) / 6),
        ("refined", [call("search", query="mars"), OPEN], (1 + 1 + 2) / 6),
        ("coarse", [SEARCH, OPEN], 1.0),
        ("refined", [call("search", limit=3, query="mars"), OPEN], 1.0),
    ],
)
def test_granularities(granularity: str, made: list[ToolCall], share: float):
    data = {"tool_calls": plain([SEARCH, OPEN])}
    reward = tool_match(granularity=granularity)  # type: ignore[arg-type]
    assert total(reward, data, turn(*made)) == pytest.approx(share)


def test_calls_nobody_asked_for_are_not_free():
    none = {"tool_calls": [], "tool_calls_by_turn": [[]]}
    for scope in ("trajectory", "turn"):
        fixed = tool_match(scale=PUBLISHED, scope=scope)  # type: ignore[arg-type]
        assert total(fixed, none, turn(OPEN)) == -3
        assert total(fixed, none, turn(content="no need to")) == 3
        assert total(fixed, none, turn(content="<tool_call>{")) == -3
        free = tool_match(scale=PUBLISHED, scope=scope, unasked="free")  # type: ignore[arg-type]
        assert total(free, none, turn(OPEN)) == total(free, none, turn(content="no need to")) == 0
        assert total(free, none, turn(content="<tool_call>{")) == 0


def test_a_call_that_cannot_be_read_is_one_that_nobody_asked_for():
    assert [
        one.name for one in calls_made(turn(OPEN, content="<tool_call>{</tool_call> <tool_call>").sample.message)
    ] == [
        "open",
        "",
        "",
    ]
    data = {"tool_calls": plain([OPEN]), "tool_calls_by_turn": [plain([OPEN])]}
    half = turn(OPEN, content="<tool_call>\n{oops\n</tool_call>")
    assert total(tool_match(), data, half) == pytest.approx(2.5 / 3)
    assert total(tool_match(scope="turn"), data, half) == 0  # as published: one unreadable call spoils the turn


def test_turns_meet_their_own_reference_and_sum_to_the_mean_over_it():
    data = {"tool_calls_by_turn": [plain([SEARCH]), plain([OPEN])]}
    reward = tool_match(scope="turn", scale=PUBLISHED)
    half_right = turn(call("search", query="mars", limit=4))
    (ledger,) = reward(Group((episode(data, half_right, turn(OPEN)),)))
    assert ledger.credit_CT().tolist() == [[0.75, 1.5]]
    (early,) = reward(Group((episode(data, half_right),)))
    assert early.credit_CT().tolist() == [[0.75 - 1.5]]  # the turn it never took is as bad as a wrong one
    (late,) = reward(Group((episode(data, half_right, turn(OPEN), turn(OPEN)),)))
    assert late.credit_CT().tolist() == [[0.75, 1.5, 0]]


def test_a_task_without_a_reference_is_unmeasured_and_says_so():
    for scope, key in (("trajectory", "tool_calls"), ("turn", "tool_calls_by_turn")):
        (ledger,) = tool_match(scope=scope)(Group((episode({}, turn(OPEN)),)))  # type: ignore[arg-type]
        assert ledger.status.tolist() == [Status.UNMEASURED]
        assert f"needs task.data['{key}']" in ledger.explain()
    assert total(tool_match(scope="turn"), {"tool_calls_by_turn": []}, turn(OPEN)) is None


@pytest.mark.parametrize(
    "calls", ["search", 3, [{"name": "search"}], [{"name": "", "arguments": {}}], [["search", {}]], [{"arguments": {}}]]
)
def test_a_malformed_reference_is_the_tasks_fault(calls: object):
    with pytest.raises(TaskError, match="task 't': data\\['tool_calls'\\] must list calls"):
        total(tool_match(), {"tool_calls": calls}, turn(OPEN))
    with pytest.raises(TaskError, match="tool_calls_by_turn"):
        total(tool_match(scope="turn"), {"tool_calls_by_turn": [calls]}, turn(OPEN))


def test_unknown_variants_are_refused():
    with pytest.raises(UnknownNameError, match="no granularity 'fin'; did you mean 'fine'"):
        tool_match(granularity="fin")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="no treatment of unasked calls 'ignored'"):
        tool_match(unasked="ignored")  # type: ignore[arg-type]


CALLS = st.lists(
    st.builds(
        lambda name, arguments: ToolCall("c", name, arguments),
        st.sampled_from(["a", "b"]),
        st.dictionaries(st.sampled_from(["x", "y", "z"]), st.sampled_from([0, 1, "1", None]), max_size=3),
    ),
    max_size=4,
)


def by_the_equation(wanted: list[ToolCall], made: list[ToolCall]) -> float:
    """S / S_max of ToolRL in plain loops."""

    def jaccard(a: list[str], b: list[str]) -> float:
        if a == b:
            return 1.0
        if not a or not b:
            return 0.0
        common = sum(min(a.count(key), b.count(key)) for key in set(a))
        return common / (len(a) + len(b) - common)

    score, most, used = jaccard([w.name for w in wanted], [m.name for m in made]), 1.0, set()
    for w in wanted:
        most += 1 + len(w.arguments)
        best, who = 0.0, -1
        for i, m in enumerate(made):
            if i not in used and m.name == w.name:
                equal = sum(1 for k in w.arguments if k in m.arguments and m.arguments[k] == w.arguments[k])
                worth = jaccard(list(w.arguments), list(m.arguments)) + equal
                if worth > best:
                    best, who = worth, i
        used.add(who)
        score += best
    return score / most


@given(CALLS, CALLS)
def test_agreement_is_the_equations(wanted: list[ToolCall], made: list[ToolCall]):
    assert agreement(wanted, made) == pytest.approx(by_the_equation(wanted, made))


@given(CALLS, CALLS, st.sampled_from(["fine", "refined", "intermediate", "coarse"]))
def test_law_bounded_and_best_for_the_reference_itself(wanted: list[ToolCall], made: list[ToolCall], granularity: str):
    assert 0 <= agreement(wanted, made, granularity) <= 1  # type: ignore[arg-type]
    assert agreement(wanted, wanted, granularity) == 1  # type: ignore[arg-type]


@given(st.lists(CALLS, min_size=1, max_size=3), st.lists(CALLS, min_size=1, max_size=5), st.sampled_from([0, 60, 999]))
def test_law_a_trajectory_is_paid_within_its_bounds_however_many_turns(
    wanted: list[list[ToolCall]], made: list[list[ToolCall]], step: int
):
    data = {"tool_calls_by_turn": [plain(calls) for calls in wanted], "tool_calls": plain(wanted[0])}
    for scope in ("turn", "trajectory"):
        reward = tool_match(scope=scope, scale=PUBLISHED)  # type: ignore[arg-type]
        paid = total(reward, data, *(turn(*calls) for calls in made), step=step)
        assert paid is not None
        assert -3 - 1e-9 <= paid <= 3 + 1e-9
        assert reward.range(1) == (-3, 3)


@given(st.permutations(range(4)))
def test_law_a_group_may_stand_in_any_order(order: list[int]):
    data = {"tool_calls": plain([SEARCH, OPEN])}
    members = [episode(data, turn(*calls)) for calls in ([], [OPEN], [SEARCH], [SEARCH, OPEN])]
    expected = [ledger.total() for ledger in tool_match()(Group(tuple(members)))]
    shuffled = tool_match()(Group(tuple(members[place] for place in order)))
    assert [ledger.total() for ledger in shuffled] == [expected[place] for place in order]
