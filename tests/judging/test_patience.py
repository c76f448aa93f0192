"""Waits between calls: growing, bounded, always the same, and as long as the endpoint asks."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from agentgym.errors import ConfigError
from agentgym.judging.patience import Patience, retry_after_s, uniform


def test_waits_are_drawn_below_a_bound_that_doubles():
    patience = Patience(first_wait_s=0.5, longest_wait_s=3.0)
    for attempt, bound in enumerate([0.5, 1.0, 2.0, 3.0, 3.0]):
        waits = [patience.wait_s(f"key {n}", attempt) for n in range(400)]
        assert 0 <= min(waits) < 0.05 * bound
        assert 0.95 * bound < max(waits) <= bound
        assert sum(waits) / 400 == pytest.approx(bound / 2, rel=0.1)
    assert patience.wait_s("key", 10_000) <= 3.0


def test_waits_are_always_the_same_for_a_seed():
    assert Patience(seed=1).wait_s("key", 2) == Patience(seed=1).wait_s("key", 2)
    assert Patience(seed=1).wait_s("key", 2) != Patience(seed=2).wait_s("key", 2)


def test_no_first_wait_is_no_wait():
    assert Patience(first_wait_s=0.0).wait_s("key", 4) == 0.0


def test_draws_are_uniform():
    draws = [uniform(0, n) for n in range(2000)]
    assert 0 <= min(draws) < 0.01 < 0.99 < max(draws) < 1
    assert sum(draws) / 2000 == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, 0), ("0", 0), ("7", 7), (" 120 ", 120), ("soon", 0), ("-3", 0), ("1.5", 0)]
)
def test_retry_after_in_seconds(header: str | None, seconds: float):
    assert retry_after_s(header) == seconds


def test_retry_after_as_a_date():
    assert retry_after_s(formatdate(time.time() + 60, usegmt=True)) == pytest.approx(60, abs=5)
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 0}, {"call_s": 0.0}, {"total_s": -1.0}, {"first_wait_s": -0.1}, {"longest_wait_s": float("nan")}],
)
def test_patience_that_cannot_be_meant(wrong: dict[str, float]):
    with pytest.raises(ConfigError, match="patience needs"):
        Patience(**wrong)  # type: ignore[arg-type]
