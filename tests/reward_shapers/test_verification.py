"""Test results as rewards: pass ratio, resolved, and weights by how hard the group finds a test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from agentgym.reward_shapers.verification import Density, pass_ratio, resolved, weighted_tests
from episodes import total
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import ConfigError, TaskError
from agentgym.ledger import Status
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

TURN = Turn((), empty_sample(text_message("assistant", "edit")), np.empty(0, np.int32))
Results = Sequence[float | None]


def episode(*signals: Signal, turns: int = 1, data: Mapping[str, Any] | None = None) -> Trajectory:
    return Trajectory("e", "g", Task("t", "", 9, data=data or {}), (TURN,) * turns, (), StopReason.DONE, signals, 0)


def suite(name: str, results: Results, turn: int | None = None) -> list[Signal]:
    return [Signal(name, value, "pytest", turn=turn, item=f"t{j}") for j, value in enumerate(results)]


def patched(fixed: Results, kept: Results, patch: float | None = 1.0, **data: list[str]) -> Trajectory:
    signals = [*suite("fail_to_pass", fixed), *suite("pass_to_pass", kept), Signal("patch", patch, "git")]
    return episode(*signals, data=data)


@pytest.mark.parametrize(
    ("fixed", "kept", "patch", "ratio", "whole"),
    [
        ([1, 1], [1, 1, 1], 1, 1, 1),
        ([1, 0], [1, 1, 0], 1, 3 / 5, 0),
        ([0, 0], [1, 1, 1], 1, 3 / 5, 0),  # a patch that does nothing: the ratio's hole
        ([0, 0], [1, 1, 1], 0, 0, 0),  # no patch at all
        ([1, None], [1, 1, 1], 1, None, None),
        ([0, None], [1, 1, 1], 1, None, 0),
        ([1, None], [1, 1, 1], 0, 0, 0),
        ([1, 1], [1, 1, 1], None, None, None),
        ([], [], 1, None, None),
        ([1], [], 1, 1, 1),
    ],
)
def test_tests_to_fix_and_tests_to_keep(
    fixed: Results, kept: Results, patch: float | None, ratio: float | None, whole: float | None
):
    trajectory = patched(fixed, kept, patch)
    assert total(pass_ratio(), trajectory) == (None if ratio is None else pytest.approx(ratio))
    assert total(resolved(), trajectory) == whole


def test_a_run_that_was_cut_short_is_not_half_right():
    listed = {"fail_to_pass": ["t0", "t1"], "pass_to_pass": ["t0"]}
    assert total(pass_ratio(), patched([1, 1], [1], **listed)) == 1
    short = patched([1], [1], **listed)
    assert total(pass_ratio(), short) is None
    assert total(resolved(), short) is None
    (ledger,) = pass_ratio()(Group((short,)))
    assert "needs 'fail_to_pass' and 'pass_to_pass' of every test" in ledger.explain()
    assert str(pass_ratio()) == "pass_ratio | patch"
    assert pass_ratio().signals == {"fail_to_pass", "pass_to_pass", "patch"}
    with pytest.raises(TaskError, match="task 't': data\\['fail_to_pass'\\] must list the names of tests"):
        total(pass_ratio(), episode(data={"fail_to_pass": "t0"}))


DENSITY = Density(sigma=0.1, delta=0.5)


def by_the_equation(passed: list[list[float]], sigma: float, delta: float, alpha: float) -> list[float]:
    """VeRPO's R_turn of each of M rows, weights summing to 1, in plain loops."""
    tests = range(len(passed[0]))
    rho = [sum(row[j] for row in passed) / len(passed) for j in tests]
    kernel = [sum(math.exp(-((rho[j] - rho[k]) ** 2) / (2 * sigma**2)) for k in tests) for j in tests]
    weights = [math.exp(-alpha * rho[j]) / (kernel[j] + delta) for j in tests]
    return [sum(weights[j] * row[j] for j in tests) / sum(weights) for row in passed]


def test_weights_by_hand():
    """Three easy tests that all pass and a hard one: far apart, so that three share what one has for itself."""
    weights = Density(sigma=0.01, delta=0.0, alpha=0.0).weights(np.array([1.0, 1.0, 1.0, 0.25]))
    assert weights.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])
    harder = Density(sigma=0.01, delta=0.5, alpha=2.0).weights(np.array([1.0, 0.5]))
    assert harder.tolist() == pytest.approx([math.exp(-2) / 1.5, math.exp(-1) / 1.5])
    # as near as one width: each counts exp(-1/2) of the other
    near = Density(sigma=0.5, delta=0.0, alpha=0.0).weights(np.array([0.0, 0.5]))
    assert near.tolist() == pytest.approx([1 / (1 + math.exp(-0.5))] * 2)


def test_turns_of_the_group_share_the_weights():
    """Test 0 passes at all three turns, test 1 at one of three: rates 1 and 1/3, far apart at this width."""
    reward = weighted_tests(Density(sigma=0.01, delta=0.0))
    two = episode(*suite("tests", [1, 0], 0), *suite("tests", [1, 1], 1), turns=2)
    one = episode(*suite("tests", [1, 0], 0))
    first, second = reward(Group((two, one)))
    easy, hard = math.exp(-2), math.exp(-2 / 3)
    assert first.credit_CT().tolist() == [pytest.approx([easy / (easy + hard), 1.0])]
    assert second.credit_CT().tolist() == [pytest.approx([easy / (easy + hard)])]
    raw, _ = weighted_tests(Density(sigma=0.01, delta=0.0), normalised=False)(Group((two, one)))
    assert raw.credit_CT().tolist() == [pytest.approx([easy, easy + hard])]


def test_whole_trajectories_may_be_weighed_instead():
    reward = weighted_tests(DENSITY, scope="trajectory")
    group = Group((episode(*suite("tests", [1, 0])), episode(*suite("tests", [1, 1])), episode()))
    easy, hard, none = reward(group)
    expected = by_the_equation([[1, 0], [1, 1]], 0.1, 0.5, 2.0)
    assert [easy.total(), hard.total()] == pytest.approx(expected)
    assert none.status.tolist() == [Status.UNMEASURED]


def test_what_could_not_be_run_is_out_of_every_mean():
    reward = weighted_tests(Density(sigma=0.01, delta=0.0))
    runs = [[1, 0], [1, 1], [1, None], [0, 1]]
    members = [episode(*suite("tests", row, 0)) for row in runs]
    ledgers = reward(Group(tuple(members)))
    assert [ledger.measured for ledger in ledgers] == [True, True, False, True]
    easy, hard = math.exp(-2 * 3 / 4), math.exp(-2 * 2 / 3)  # rates 3 of 4, and 2 of the 3 that could be run
    assert ledgers[0].total() == pytest.approx(easy / (easy + hard))
    broken = [episode(*suite("tests", [*row[:1], None], 0)) for row in runs]
    assert [ledger.total() for ledger in reward(Group(tuple(broken)))] == [1, 1, 1, 0]  # left out: nobody could run it
    (nothing,) = reward(Group((episode(turns=2),)))
    assert nothing.status.tolist() == [Status.UNMEASURED] * 2
    listed = episode(*suite("tests", [1], 0), data={"tests": ["t0", "t1"]})
    assert [ledger.measured for ledger in reward(Group((listed, members[0])))] == [False, True]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Density(sigma=0, delta=0),
        lambda: Density(sigma=1, delta=-1),
        lambda: Density(sigma=1, delta=0, alpha=-1),
        lambda: Density(sigma=math.nan, delta=0),
    ],
)
def test_densities_without_sense_are_refused(make: object):
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]


ROWS = st.integers(1, 4).flatmap(
    lambda tests: st.lists(
        st.lists(st.sampled_from([0.0, 1.0]), min_size=tests, max_size=tests), min_size=1, max_size=5
    )
)


@given(ROWS, st.floats(0.01, 2), st.floats(0, 2), st.floats(0, 4))
def test_it_is_the_papers_equation(rows: list[list[float]], sigma: float, delta: float, alpha: float):
    group = Group(tuple(episode(*suite("tests", row, 0)) for row in rows))
    paid = [ledger.total() for ledger in weighted_tests(Density(sigma, delta, alpha))(group)]
    assert paid == pytest.approx(by_the_equation(rows, sigma, delta, alpha))


@given(ROWS, st.randoms())
def test_law_bounded_at_each_turn_and_the_same_in_any_order(rows: list[list[float]], random: Any):
    members = [episode(*suite("tests", row, 0)) for row in rows]
    reward = weighted_tests(DENSITY)
    paid = [ledger.total() for ledger in reward(Group(tuple(members)))]
    assert all(0 <= amount <= 1 + 1e-9 for amount in paid)
    assert reward.range(1) == (0, 1)
    order = random.sample(range(len(members)), len(members))
    shuffled = reward(Group(tuple(members[place] for place in order)))
    assert [ledger.total() for ledger in shuffled] == pytest.approx([paid[place] for place in order])


def test_law_one_is_broken_by_design_a_passing_answer_is_worth_repeating():
    """Unless the mean over the turns is taken away, as the paper's advantage does."""
    once = episode(*suite("tests", [1], 0))
    thrice = episode(*(signal for turn in range(3) for signal in suite("tests", [1], turn)), turns=3)
    paid = [ledger.total() for ledger in weighted_tests(DENSITY)(Group((once, thrice)))]
    assert paid == pytest.approx([1, 3])
