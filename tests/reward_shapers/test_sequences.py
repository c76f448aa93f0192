"""Decay with counts and with length, and the laws they keep or break."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from agentgym.reward_shapers.sequences import count_decay, led_to, length_decay
from agentgym.reward_shapers.step import step
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import ConfigError, UnknownNameError, UsageError
from agentgym.ledger import Ledger
from agentgym.reward import Shaper, signal
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

STEP = step("p", low=0, high=1)
WON = signal("won", scope="trajectory", low=0, high=1)
NO_IDS = np.empty(0, np.int32)


def episode(p: list[float | None], seen: str = "", won: float = 1.0) -> Trajectory:
    """An episode with these step scores, whose observations after the first are the letters of ``seen``."""
    texts = [(text_message("tool", letter),) for letter in seen.ljust(len(p), ".")]
    before = [(), *texts[:-1]]
    sample = replace(empty_sample(text_message("assistant", "look")), token_ids_N=np.zeros(3, np.int32))
    turns = tuple(Turn(observation, sample, NO_IDS) for observation in before[: len(p)])
    signals = [Signal("p", value, "model", turn=t) for t, value in enumerate(p)]
    signals.append(Signal("won", won, "world"))
    return Trajectory("t", "g", Task("t", "", 9), turns, texts[-1] if p else (), StopReason.DONE, tuple(signals), 0)


def price(reward: Shaper, trajectory: Trajectory) -> Ledger:
    (ledger,) = reward(Group((trajectory,)))
    return ledger


def test_ranges_are_declared():
    assert count_decay(STEP, beta=1, key=led_to).range(3) == (0, 3)
    assert WON.then(length_decay(0.9)).range(3) == (0, 1)


def test_counts_decay_within_the_episode():
    reward = count_decay(STEP, beta=0.5, key=led_to)
    ledger = price(reward, episode([1.0, 1.0, 0.5, 1.0, None], seen="aabaa"))
    np.testing.assert_allclose(ledger.credit_CT(), [[1, 2**-0.5, 0.5, 3**-0.5, 0]])
    assert ledger.mask_CT().tolist() == [[True, True, True, True, False]]
    assert str(reward) == "count_decay(p, 0.5)"


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("ab")), min_size=2, max_size=8), st.data())
def test_law_prefix_only(steps: list[tuple[float, str]], data: st.DataObject):
    """A count decay does not look ahead."""
    cut = data.draw(st.integers(1, len(steps)))
    reward = count_decay(STEP, beta=1, key=led_to)
    whole, part = (
        price(reward, episode([p for p, _ in some], seen="".join(letter for _, letter in some))).credit_CT()[0]
        for some in (steps, steps[:cut])
    )
    np.testing.assert_allclose(whole[:cut], part)


def test_law_prefix_only_is_broken_by_the_length():
    """By design: VeRPO's decay knows the whole length."""
    decayed = STEP.then(length_decay(0.5))
    short, longer = episode([0.5, 0.5]), episode([0.5, 0.5, 0.75])
    assert price(decayed, short).credit_CT()[0, 0] == 0.125
    assert price(decayed, longer).credit_CT()[0, 0] == 0.0625


def test_a_success_counts_for_more_the_shorter_it_was():
    assert price(WON.then(length_decay(0.5)), episode([0, 0, 0])).total() == 0.125
    assert price(WON.then(length_decay(0.5, unit="tokens")), episode([0])).total() == 0.125  # three tokens
    assert price(WON.then(length_decay(0.5)), episode([0, 0], won=0)).total() == 0


def test_a_length_that_was_not_recorded_is_no_length_of_0():
    trajectory = episode([0])
    blank = replace(trajectory.turns[0], sample=empty_sample(text_message("assistant", "look")))
    ledger = price(WON.then(length_decay(0.5, unit="tokens")), replace(trajectory, turns=(blank,)))
    assert not ledger.measured


@pytest.mark.parametrize(
    "make",
    [
        lambda: count_decay(WON, beta=1, key=led_to),
        lambda: count_decay(STEP, beta=-1, key=led_to),
        lambda: length_decay(0),
        lambda: length_decay(1.5),
    ],
)
def test_what_makes_no_sense_is_refused(make: object):
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]


def test_a_key_must_be_given_for_each_turn():
    with pytest.raises(UsageError, match="gave 1 values for the 2 turns of trajectory 't'"):
        price(count_decay(STEP, beta=1, key=lambda t: ["x"]), episode([1, 1]))


def test_a_unit_that_is_none_is_refused():
    with pytest.raises(UnknownNameError, match="unit of length"):
        length_decay(0.5, unit="miles")  # type: ignore[arg-type]
