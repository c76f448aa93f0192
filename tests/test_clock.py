"""Every moment belongs to one activity."""

from __future__ import annotations

import pytest

from agentgym.clock import ORDER, OTHER, Clock


class Hands:
    """A clock's hands, moved by the test."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_a_moment_belongs_to_the_first_of_what_goes_on() -> None:
    hands = Hands()
    clock = Clock(hands)
    hands.at += 1  # nothing goes on
    with clock("worlds"):
        hands.at += 2
        with clock("decode"):
            hands.at += 4
            with clock("decode"):
                hands.at += 8
            with clock("learn"):
                hands.at += 16
        hands.at += 32
    hands.at += 64
    wanted = dict.fromkeys(ORDER, 0.0) | {"worlds": 34.0, "decode": 12.0, "learn": 16.0, OTHER: 65.0}
    assert clock.read() == wanted
    assert sum(wanted.values()) == hands.at - 100


def test_what_fails_is_over() -> None:
    hands = Hands()
    clock = Clock(hands)

    def fail() -> None:
        with clock("judge"):
            hands.at += 3
            raise ValueError("judge")

    with pytest.raises(ValueError, match="judge"):
        fail()
    hands.at += 5
    assert (clock.read()["judge"], clock.read()[OTHER]) == (3.0, 5.0)
