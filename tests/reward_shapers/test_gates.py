"""Predicates on signals, and gated accumulation with the golden vectors of arXiv 2508.10548."""

from __future__ import annotations

import math

import numpy as np
import pytest
from agentgym.reward_shapers.gates import Level, accumulate, direct, passed, threshold
from agentgym.reward_shapers.outcome import outcome
from agentgym.reward_shapers.step import step
from episodes import price
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import ConfigError, UnknownNameError
from agentgym.ledger import Status
from agentgym.reward import signal
from agentgym.types import Turn, empty_sample, text_message

TURN = Turn((), empty_sample(text_message("assistant", "look")), np.empty(0, np.int32))
FORMAT = Level("format", signal("format", scope="trajectory"))
STEPS = Level("steps", step("steps"))
OUTCOME = Level("outcome", outcome("outcome"))


@pytest.mark.parametrize(
    ("won", "form", "steps", "gated", "ungated"),
    [(1, 0.2, [0.1, 0.1], 1.4, 1.4), (0, 0.2, [0.1, 0.1], 0, 0.4), (1, 0, [0.1, 0.1], 1.0, 1.2)],
)
def test_golden_vectors(won: float, form: float, steps: list[float | None], gated: float, ungated: float):
    measured = {"outcome": won, "format": form, "steps": steps}
    assert price(accumulate(STEPS, FORMAT, OUTCOME), **measured).total() == pytest.approx(gated)
    assert price(direct(STEPS, FORMAT, OUTCOME), **measured).total() == pytest.approx(ungated)


def test_it_is_a_sum_of_gated_levels_and_prints_as_one():
    assert str(accumulate(STEPS, FORMAT, OUTCOME)) == (
        "(steps | format > 0 & outcome > 0) + (format | outcome > 0) + outcome"
    )
    assert str(direct(STEPS, FORMAT, OUTCOME)) == "steps + format + outcome"
    assert str(accumulate(OUTCOME)) == "outcome"


def test_gates_read_what_the_higher_levels_pay_by_themselves():
    """The middle level is shut by the top one, but stays open to the lowest, which has the top one to pass as well."""
    middle = Level("middle", signal("middle", scope="trajectory"), threshold=0.5)
    shaper = accumulate(Level("low", signal("low", scope="trajectory")), middle, Level("top", outcome("top"), -1.0))
    assert price(shaper, low=1, middle=1, top=0).credit_CT()[:, -1].tolist() == [1, 1, 0]
    assert price(shaper, low=1, middle=0.25, top=0).credit_CT()[:, -1].tolist() == [0, 0.25, 0]
    shut = accumulate(Level("low", signal("low", scope="trajectory")), middle, Level("top", outcome("top")))
    ledger = price(shut, low=1, middle=1, top=0)
    assert ledger.status.tolist() == [Status.CLOSED, Status.CLOSED, Status.PAID]
    assert ledger.value.tolist() == [1, 1, 0]


@pytest.mark.parametrize(("strict", "paid"), [(True, 1.0), (False, 1.2)])
def test_a_threshold_is_strict_or_inclusive(strict: bool, paid: float):
    shaper = accumulate(STEPS, Level("outcome", outcome("outcome"), 1.0, strict=strict))
    assert price(shaper, outcome=1, steps=[0.1, 0.1]).total() == pytest.approx(paid)


def test_a_level_may_decide_turn_by_turn():
    grounded = Level("grounded", step("grounded"), scope="turn")
    ledger = price(accumulate(STEPS, grounded, OUTCOME), turns=3, outcome=1, steps=[1, 2, 4], grounded=[1, 0, None])
    assert ledger.credit_CT()[0].tolist() == [1, 0, 0]
    assert ledger.status[:3].tolist() == [Status.PAID, Status.CLOSED, Status.UNMEASURED]


# What the lowest level becomes, by what the two above it are: passed, failed or unmeasured.
PASSES = {1.0: "passed", 0.0: "failed", None: "unmeasured"}


@pytest.mark.parametrize("middle", PASSES)
@pytest.mark.parametrize("top", PASSES)
def test_an_unmeasured_level_matters_only_where_the_decision_depends_on_it(middle: float | None, top: float | None):
    ledger = price(accumulate(STEPS, FORMAT, OUTCOME), steps=[0.1, 0.1], format=middle, outcome=top)
    if 0.0 in (middle, top):
        expected = Status.CLOSED
    elif None in (middle, top):
        expected = Status.UNMEASURED
    else:
        expected = Status.PAID
    assert ledger.status[:2].tolist() == [expected] * 2


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_law_sign_consistency(steps: list[float | None], more: list[float | None]):
    """Where no level pays less than 0, a failed episode never out-ranks a solved one; added up directly it may."""
    levels = (STEPS, FORMAT, OUTCOME)
    failed = price(accumulate(*levels), turns=3, outcome=0, format=1, steps=more)
    solved = price(accumulate(*levels), turns=3, outcome=1, format=0, steps=steps)
    assert failed.total() <= solved.total()


def test_levels_must_have_names_that_differ():
    for make in (accumulate, direct):
        with pytest.raises(ConfigError, match="got: none"):
            make()
        with pytest.raises(ConfigError, match="got: steps, steps"):
            make(STEPS, STEPS)
    with pytest.raises(ConfigError, match="threshold of 'x' is nan"):
        accumulate(STEPS, Level("x", outcome(), math.nan))


@pytest.mark.parametrize(
    ("comparison", "at", "at_half", "below"), [(">", 0, 0, 1), (">=", 0, 1, 1), ("<", 1, 0, 0), ("<=", 1, 1, 0)]
)
def test_thresholds_compare(comparison: str, at: float, at_half: float, below: float):
    for value, paid in ((0.25, at), (0.5, at_half), (0.75, below)):
        gate = threshold("size", comparison, 0.5, scope="trajectory")  # type: ignore[arg-type]
        assert str(gate) == f"size {comparison} 0.5"
        assert price(outcome().when(gate), won=1, size=value).total() == paid
    assert not price(outcome().when(gate), won=1).measured
    at_turn = threshold("size", comparison, 0.5, scope="turn")  # type: ignore[arg-type]
    ledger = price(step("p").when(at_turn), turns=3, p=[1, 1, 1], size=[0.25, 0.5, 0.75])
    assert ledger.credit_CT().tolist() == [[at, at_half, below]]


def test_an_unknown_comparison_is_refused():
    with pytest.raises(UnknownNameError, match="no comparison '=='"):
        threshold("size", "==", 0.5, scope="turn")  # type: ignore[arg-type]


def test_free_standing_predicates_gate_as_written():
    reward = outcome("tests") + 0.3 * step("progress") | passed("submitted") & passed("patch")
    assert str(reward) == "tests + 0.3*progress | submitted & patch"
    assert reward.signals == {"tests", "progress", "submitted", "patch"}
    assert price(reward, tests=1, progress=[1, 1], submitted=1, patch=1).total() == pytest.approx(1.6)
    assert price(reward, tests=1, progress=[1, 1], submitted=0).status.tolist() == [Status.CLOSED] * 3
    assert price(reward, tests=1, progress=[1, 1], submitted=1).status.tolist() == [Status.UNMEASURED] * 3
