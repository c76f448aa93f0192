"""Clip and delta with their golden vectors, decay with counts and length, and the laws they keep or break."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from agentgym.reward_shapers.sequences import count_decay, delta, led_to, length_decay, sampled_tokens
from agentgym.reward_shapers.step import step
from agentgym.reward_shapers.transforms import clip_negative, log_sigmoid, sigmoid, tanh
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.errors import ConfigError, UsageError
from agentgym.ledger import Ledger, Status
from agentgym.reward import Shaper, signal
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

law = settings(deadline=None, max_examples=40)
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


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (delta(STEP), [-0.3, 0.1, 0.4, 0]),
        (STEP.then(clip_negative(0.5)), [-0.3, 0, -0.1, 0]),
        (delta(STEP.then(clip_negative(0.5))), [-0.3, 0.1, -0.1, 0]),  # clipped p: −.3, 0, −.1, 0
    ],
)
def test_golden_vectors(reward: Shaper, expected: list[float]):
    np.testing.assert_allclose(price(reward, episode([0.2, 0.5, 0.4, 0.9])).credit_CT(), [expected], atol=1e-12)


def test_the_answer_earns_nothing_under_delta_though_nobody_scored_it():
    ledger = price(delta(STEP), episode([0.2, 0.5, None]))
    np.testing.assert_allclose(ledger.credit_CT(), [[-0.3, 0.5, 0]])
    assert ledger.status[-1] == Status.INELIGIBLE
    assert ledger.measured


def test_a_step_that_is_not_scored_leaves_both_differences_unknown():
    ledger = price(delta(STEP), episode([0.2, None, 0.4, 0.9]))
    assert ledger.mask_CT().tolist() == [[False, False, True, True]]


@law
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_law_telescoping(p: list[float]):
    """From each step on delta returns that step's score, so repeating a trivial step earns nothing."""
    (credit,) = price(delta(STEP), episode(list(p))).credit_CT()
    np.testing.assert_allclose(np.cumsum(credit[::-1])[::-1][:-1], p[:-1], atol=1e-9)
    assert credit[-1] == 0


@law
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_law_bounded_sum(p: list[float]):
    """However many steps: clip is bounded above by 0, delta by one step's score, while the plain sum is not."""
    assert price(STEP.then(clip_negative(0.5)), episode(list(p))).total() <= 0
    assert -1e-9 <= price(delta(STEP), episode(list(p))).total() <= 1 + 1e-9
    assert price(STEP, episode([1.0] * 12)).total() == 12


def test_ranges_are_declared():
    assert delta(STEP).range(1) == (-1, 1)
    assert delta(step("p")).range(1) == (-math.inf, math.inf)
    assert STEP.then(clip_negative(0.5)).range(4) == (-2, 0)
    assert count_decay(STEP, beta=1, key=led_to).range(3) == (0, 3)
    assert WON.then(length_decay(0.9)).range(3) == (0, 1)


def test_counts_decay_within_the_episode():
    reward = count_decay(STEP, beta=0.5, key=led_to)
    ledger = price(reward, episode([1.0, 1.0, 0.5, 1.0, None], seen="aabaa"))
    np.testing.assert_allclose(ledger.credit_CT(), [[1, 2**-0.5, 0.5, 3**-0.5, 0]])
    assert ledger.mask_CT().tolist() == [[True, True, True, True, False]]
    assert str(reward) == "count_decay(p, 0.5)"


@law
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


def test_law_prefix_only_is_broken_by_the_length_and_by_the_difference_with_the_next_step():
    """By design: VeRPO's decay knows the whole length, and delta the next score."""
    decayed, difference = STEP.then(length_decay(0.5)), delta(STEP)
    short, longer = episode([0.5, 0.5]), episode([0.5, 0.5, 0.75])
    assert price(decayed, short).credit_CT()[0, 0] == 0.125
    assert price(decayed, longer).credit_CT()[0, 0] == 0.0625
    assert price(difference, short).credit_CT()[0].tolist() == [0.5, 0]
    assert price(difference, longer).credit_CT()[0].tolist() == [0, 0.5, 0]


def test_a_success_counts_for_more_the_shorter_it_was():
    assert price(WON.then(length_decay(0.5)), episode([0, 0, 0])).total() == 0.125
    assert price(WON.then(length_decay(0.5, sampled_tokens)), episode([0])).total() == 0.125  # three tokens
    assert price(WON.then(length_decay(0.5)), episode([0, 0], won=0)).total() == 0


@pytest.mark.parametrize(
    ("transform", "expected", "bounds"),
    [
        (sigmoid(2), [1 / (1 + math.exp(-2)), 0.5], (0.5, 1 / (1 + math.exp(-2)))),
        (tanh(), [math.tanh(1), 0], (0, math.tanh(1))),
        (log_sigmoid(1, -9), [math.log(0.5), -math.log(1 + math.e)], (-math.log(1 + math.e), math.log(0.5))),
        (log_sigmoid(100, -9), [-9, -9], (-9, -9)),
    ],
)
def test_curves(transform: object, expected: list[float], bounds: tuple[float, float]):
    reward = STEP.then(transform)  # type: ignore[arg-type]
    np.testing.assert_allclose(price(reward, episode([1, 0])).credit_CT(), [expected], atol=1e-12)
    assert reward.range(1) == pytest.approx(bounds)


def test_curves_do_not_overflow():
    far = step("p").then(sigmoid(1e6))
    assert price(far, episode([1.0, 0.0])).credit_CT().tolist() == [[1, 0.5]]
    assert step("p").then(log_sigmoid(0, -3)).range(1) == (-3, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: clip_negative(math.nan),
        lambda: log_sigmoid(0, 0),
        lambda: log_sigmoid(math.nan, -1),
        lambda: sigmoid(math.inf),
        lambda: delta(WON + STEP),
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
