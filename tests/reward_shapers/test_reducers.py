"""Reducers: values worked by hand, what becomes of the unmeasured, and the laws."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from agentgym.reward_shapers.reducers import all_good, cautious, entropic, mean, median, nominal_and_worst, worst
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import ConfigError
from agentgym.ledger import Ledger
from agentgym.reward import Shaper, signal
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

TURN = Turn((), empty_sample(text_message("assistant", "look")), np.empty(0, np.int32))
A, B, C = (signal(name, scope="trajectory", low=0, high=1) for name in "abc")
ENSEMBLES: dict[str, Callable[..., Shaper]] = {
    "mean": mean,
    "median": median,
    "worst": worst,
    "cautious": lambda *members: cautious(*members, k=0.5),
    "entropic": lambda *members: entropic(*members, beta=0.5),
    "nominal_and_worst": lambda first, *members: nominal_and_worst(first, *members, share=0.25),
    "all_good": lambda *members: all_good(*members, references=[0.5] * len(members), floor=-4),
}


def price(shaper: Shaper, turns: int = 2, **values: float | list[float | None] | None) -> Ledger:
    signals = []
    for name, value in values.items():
        if isinstance(value, list):
            signals += [Signal(name, v, "judge", turn=t) for t, v in enumerate(value)]
        else:
            signals.append(Signal(name, value, "judge"))
    task = Task("t", "", 9)
    (ledger,) = shaper(Group((Trajectory("t", "g", task, (TURN,) * turns, (), StopReason.DONE, tuple(signals), 0),)))
    return ledger


def total(shaper: Shaper, **values: float | list[float | None] | None) -> float:
    """Return what is paid, NaN where that is unmeasured."""
    ledger = price(shaper, **values)
    return ledger.total() if ledger.measured else math.nan


@pytest.mark.parametrize(
    ("shaper", "expected"),
    [
        (mean(A, B, C), 0.5),
        (mean(A, B, C, weights=[1, 1, 2]), 0.55),
        (median(A, B, C), 0.6),
        (median(A, B), 0.4),
        (worst(A, B, C), 0.2),
        # Around ½: −.3, .1, .2, squares .09, .01, .04 of mean .14/3.
        (cautious(A, B, C, k=2), 0.5 - 2 * math.sqrt(0.14 / 3)),
        (nominal_and_worst(C, A, B, share=0.25), 0.25 * 0.7 + 0.75 * 0.2),
        (nominal_and_worst(C, A, B, share=1), 0.7),
        (entropic(A, B, beta=0.5), -0.5 * math.log((math.exp(-0.4) + math.exp(-1.2)) / 2)),
        (all_good(A, B, references=[0.2, 0.6], floor=-9), 2 * math.log(0.5)),
        (all_good(A, B, references=[100, 0.6], floor=-9), math.log(0.5) - 9),
    ],
)
def test_values_worked_by_hand(shaper: Shaper, expected: float):
    assert total(shaper, a=0.2, b=0.6, c=0.7) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("shaper", "expected"),
    [
        (mean(A, B, C), 0.45),
        (mean(A, B, C, weights=[1, 3, 2]), (0.2 + 2 * 0.7) / 3),
        (median(A, B, C), 0.45),
        (cautious(A, B, C, k=1), 0.2),
        (entropic(A, B, C, beta=1), -math.log((math.exp(-0.2) + math.exp(-0.7)) / 2)),
        (worst(A, B, C), math.nan),
        (nominal_and_worst(A, B, C, share=0.5), math.nan),
        (nominal_and_worst(B, A, C, share=0.5), math.nan),
        (nominal_and_worst(B, A, C, share=0), 0.2),
        (nominal_and_worst(A, B, C, share=1), 0.2),
        (all_good(A, B, C, references=[0, 0, 0], floor=-9), math.nan),
    ],
)
def test_an_unmeasured_member_is_left_out_or_leaves_it_unknown_as_declared(shaper: Shaper, expected: float):
    assert total(shaper, a=0.2, b=None, c=0.7) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_without_any_measured_member_nothing_is_known(name: str):
    assert math.isnan(total(ENSEMBLES[name](A, B, C), a=None, b=None))


def test_the_worst_is_decided_where_no_unmeasured_member_could_be_below():
    assert total(worst(A, B), a=0, b=None) == 0
    assert math.isnan(total(worst(A, signal("b", scope="trajectory")), a=0))
    assert total(worst(A, signal("b", scope="trajectory", low=0.5)), a=0.5) == 0.5


def test_at_each_turn():
    p = signal("p", scope="turn", low=0, high=1)
    ledger = price(worst(p, A, scope="turn"), turns=3, p=[0.1, 0.9, None], a=0.5)
    assert ledger.credit_CT().tolist() == [[0.1, 0.5, 0]]
    assert ledger.mask_CT().tolist() == [[True, True, False]]
    assert total(mean(p, A), p=[0.1, 0.4], a=0.7) == pytest.approx(0.6)  # over the trajectory: the sum over turns


def test_a_weighted_member_is_reduced_with_its_weight():
    assert total(worst(2 * A, B), a=0.2, b=0.6) == pytest.approx(0.4)


def test_they_print_themselves_and_know_what_they_read():
    assert str(mean(A, B)) == "mean(a, b)"
    assert str(0.3 * mean(A, B, weights=[1, 2])) == "0.3*mean(a, b; 1, 2)"
    assert str(worst(A, 0.5 * B) + C) == "worst(a, 0.5*b) + c"
    assert entropic(A, B, beta=1).signals == {"a", "b"}


numbers = st.floats(0, 1).map(lambda x: round(x, 3))
known_or_not = st.lists(st.one_of(numbers, st.none()), min_size=3, max_size=3)


@pytest.mark.parametrize("name", ENSEMBLES)
@given(values=known_or_not)
def test_law_bounded(name: str, values: list[float | None]):
    shaper = ENSEMBLES[name](A, B, C)
    low, high = shaper.range(2)
    assert math.isfinite(low)
    paid = total(shaper, **dict(zip("abc", values, strict=True)))
    assert math.isnan(paid) or low - 1e-9 <= paid <= high + 1e-9


@pytest.mark.parametrize("name", ENSEMBLES)
@given(values=known_or_not, filled=numbers)
def test_law_what_is_decided_stays_so_whatever_the_unmeasured_turns_out_to_be(
    name: str, values: list[float | None], filled: float
):
    """For those that leave an unmeasured member unknown; the others leave it out, and say so."""
    if name not in ("worst", "nominal_and_worst", "all_good"):
        return
    shaper = ENSEMBLES[name](A, B, C)
    before = total(shaper, **dict(zip("abc", values, strict=True)))
    if not math.isnan(before):
        after = [filled if value is None else value for value in values]
        assert total(shaper, **dict(zip("abc", after, strict=True))) == pytest.approx(before)


@given(values=st.lists(numbers, min_size=3, max_size=3))
def test_entropic_goes_from_the_worst_to_the_mean(values: list[float]):
    given_ = dict(zip("abc", values, strict=True))
    assert total(entropic(A, B, C, beta=1e-4), **given_) == pytest.approx(min(values), abs=2e-4)
    assert total(entropic(A, B, C, beta=1e5), **given_) == pytest.approx(np.mean(values), abs=1e-4)
    assert total(entropic(A, B, C, beta=20), **given_) == pytest.approx(np.mean(values) - np.var(values) / 40, abs=5e-4)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: mean(), "at least one"),
        (lambda: mean(A, B, weights=[1]), "as many weights"),
        (lambda: mean(A, weights=[0]), "above 0"),
        (lambda: mean(A, weights=[math.nan]), "finite"),
        (lambda: cautious(A, k=-1), "reward disagreement"),
        (lambda: nominal_and_worst(A, share=0.5), "besides the nominal"),
        (lambda: nominal_and_worst(A, B, share=1.5), "within 0 and 1"),
        (lambda: entropic(A, beta=0), "above 0"),
        (lambda: all_good(A, B, references=[1], floor=-1), "a reference for each"),
        (lambda: all_good(A, references=[1], floor=0), "must be negative"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], Shaper], says: str):
    with pytest.raises(ConfigError, match=says):
        make()
