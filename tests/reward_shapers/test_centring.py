"""Preference As Reward and its baselines: the golden vector, values worked by hand, references that are unmeasured."""

from __future__ import annotations

import math

import numpy as np
import pytest
from agentgym.reward_shapers.centring import (
    centred,
    centred_polynomial,
    centred_tanh,
    fitted_polynomial,
    log_preference,
    min_max,
    preference,
    preference_shifted,
    standardised,
    within_deviation,
)
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import ConfigError
from agentgym.reward import Rewrite, Shaper, Transform, signal
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

TURN = Turn((), empty_sample(text_message("assistant", "look")), np.empty(0, np.int32))
SCORE = signal("score", scope="trajectory")
FIRST, SECOND = (signal("reference", scope="trajectory", item=item) for item in "01")


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def paid(reward: Shaper, score: float | None, references: tuple[float | None, ...] = ()) -> float:
    """Return what is paid, NaN where that is unmeasured."""
    signals = [Signal("reference", value, "model", item=str(m)) for m, value in enumerate(references)]
    signals.append(Signal("score", score, "model"))
    task = Task("t", "", 9)
    (ledger,) = reward(Group((Trajectory("t", "g", task, (TURN,), (), StopReason.DONE, tuple(signals), 0),)))
    return ledger.total() if ledger.measured else math.nan


@pytest.mark.parametrize(("score", "expected"), [(0, 0.3845), (3, 0.9167)])
def test_golden_vector_of_preference_as_reward(score: float, expected: float):
    assert paid(SCORE.then(preference(0, 1)), score) == pytest.approx(expected, abs=5e-5)
    assert paid(SCORE.then(preference(FIRST, SECOND)), score, (0, 1)) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (preference(0, 1, k=2), (sigmoid(4) + sigmoid(2)) / 2),
        (preference_shifted(0, 1), (sigmoid(-1) + sigmoid(-2)) / 2),
        (centred(0, 1), 1.5),
        (centred_tanh(0, 1), (math.tanh(2) + math.tanh(1)) / 2),
        # Sample deviation of 0 and 1 is √½; the 85 % quantile of a standard normal is 1.036433.
        (log_preference(0, 1, floor=-9), math.log(sigmoid(2 - (0.5 + 1.036433 * (math.sqrt(0.5) + 1e-5))))),
        (log_preference(5.0, floor=-1), -1),
        (standardised(1, 0.5), 2),
        (within_deviation(1, 0.5), 1.5),
        (min_max(0, 8), 0.25),
    ],
)
def test_values_worked_by_hand(change: Rewrite | Transform, expected: float):
    assert paid(SCORE.then(change), 2) == pytest.approx(expected)


def test_the_polynomial_is_the_least_squares_fit():
    """The normal equations hold: what is left over is orthogonal to every power of x."""
    x = np.linspace(-5, 5, 100)[1:-1]
    ends = np.array([-5.0, 5.0])
    left = np.array([1 / (1 + np.exp(-v)) for v in x]) - fitted_polynomial(x)
    # At the ends themselves the fit is replaced by 0 and 1; its own value there follows from its symmetry about ½.
    inner = fitted_polynomial(np.array([-5 + 1e-9, 5 - 1e-9]))
    left_ends = np.array([1 / (1 + np.exp(5.0)), 1 / (1 + np.exp(-5.0))]) - inner
    for power in range(6):
        assert (left * x**power).sum() + (left_ends * ends**power).sum() == pytest.approx(0, abs=1e-4)
    assert fitted_polynomial(np.array([-6.0, -5.0, 5.0, 6.0])).tolist() == [0, 0, 1, 1]
    assert paid(SCORE.then(centred_polynomial(0, 7)), 0.0) == pytest.approx(0.25)  # ½ and 0


def test_unmeasured_references_are_left_out_and_without_any_nothing_is_known():
    reward = SCORE.then(preference(FIRST, SECOND))
    assert paid(reward, 3, (0, None)) == pytest.approx(sigmoid(3))
    assert math.isnan(paid(reward, 3, (None, None)))
    assert math.isnan(paid(reward, None, (0, 1)))
    assert paid(SCORE.then(log_preference(FIRST, SECOND, floor=-9)), 2, (None, 1)) == pytest.approx(
        math.log(sigmoid(1 - 1.036433 * 1e-5))
    )


def test_they_declare_what_they_read_and_the_range_they_pay():
    reward = SCORE.then(preference(FIRST, 1.0, k=2))
    assert reward.signals == {"score", "reference"}
    assert str(reward) == "preference(score, k=2)"
    assert reward.range(5) == (0, 1)
    assert SCORE.then(log_preference(0, floor=-3)).range(1) == (-3, 0)


@given(st.floats(-50, 50), st.floats(-5, 5))
def test_law_bounded(score: float, reference: float):
    for change in (
        preference(reference),
        preference_shifted(reference),
        centred_tanh(reference),
        centred_polynomial(reference),
        log_preference(reference, floor=-4),
    ):
        reward = SCORE.then(change)
        low, high = reward.range(1)
        assert low - 1e-9 <= paid(reward, score) <= high + 1e-9


@pytest.mark.parametrize(
    "make",
    [
        lambda: preference(),
        lambda: preference(math.nan),
        lambda: preference(0, k=math.inf),
        lambda: standardised(0, 0),
        lambda: within_deviation(0, -1),
        lambda: log_preference(0, floor=math.inf),
    ],
)
def test_what_makes_no_sense_is_refused(make: object):
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]
