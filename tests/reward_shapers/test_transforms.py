"""Transforms of single amounts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from agentgym.reward_shapers.step import step
from agentgym.reward_shapers.transforms import affine, clip, clip_negative, log_sigmoid, scale, sigmoid, tanh

from agentgym.errors import ConfigError
from agentgym.reward import Shaper
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

MATCH = step("match", low=-3, high=3)
STEP = step("p", low=0, high=1)


def paid(reward: Shaper, values: list[float]) -> list[float]:
    """Return what each turn is paid where signal ``p`` has these values."""
    turn = Turn((), empty_sample(text_message("assistant", "look")), np.empty(0, np.int32))
    signals = tuple(Signal("p", value, "model", turn=t) for t, value in enumerate(values))
    trajectory = Trajectory("t", "g", Task("t", "", 9), (turn,) * len(values), (), StopReason.DONE, signals, 0)
    (ledger,) = reward(Group((trajectory,)))
    return ledger.credit_CT()[0].tolist()


@pytest.mark.parametrize(
    ("reward", "printed", "paid", "bounds"),
    [
        (MATCH.then(clip(-1, 1)), "clip(match, -1, 1)", [-1, 0, 1, 0], (-1, 1)),
        ((0.5 * MATCH).then(clip(-1, 1)), "clip(0.5*match, -1, 1)", [-1, 0, 1, 0], (-1, 1)),
        (0.5 * MATCH.then(clip(-1, 1)), "0.5*clip(match, -1, 1)", [-0.5, 0, 0.5, 0], (-0.5, 0.5)),
        (MATCH.then(affine(-1, 1)), "affine(match, -1, 1)", [4, 1, -2, 0], (-2, 4)),
        (MATCH.then(scale((-3, 3))), "affine(match, 0.166667, 0.5)", [0, 0.5, 1, 0], (0, 1)),
    ],
)
def test_transforms(reward: Shaper, printed: str, paid: list[float], bounds: tuple[float, float]):
    turn = Turn((), empty_sample(text_message("assistant", "look")), np.empty(0, np.int32))
    signals = tuple(Signal("match", value, "world", turn=t) for t, value in enumerate([-3.0, 0.0, 3.0, None]))
    trajectory = Trajectory("t", "g", Task("t", "", 9), (turn,) * 4, (), StopReason.DONE, signals, 0)
    (ledger,) = reward(Group((trajectory,)))
    assert str(reward) == printed
    np.testing.assert_allclose(ledger.credit_CT(), [paid])
    assert ledger.mask_CT().tolist() == [[True, True, True, False]]
    assert reward.range(1) == pytest.approx(bounds)


def test_unbounded_amounts_are_bounded_by_a_clip():
    assert step("score").range(2) == (-math.inf, math.inf)
    assert step("score").then(clip(0, 1)).range(2) == (0, 2)
    assert (0 * step("score")).range(2) == (0, 0)


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
    np.testing.assert_allclose(paid(reward, [1, 0]), expected, atol=1e-12)
    assert reward.range(1) == pytest.approx(bounds)


def test_curves_do_not_overflow():
    far = step("p").then(sigmoid(1e6))
    assert paid(far, [1.0, 0.0]) == [1, 0.5]
    assert step("p").then(log_sigmoid(0, -3)).range(1) == (-3, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: clip(1, 0),
        lambda: clip(0, math.inf),
        lambda: affine(math.nan, 0),
        lambda: affine(0, 1),
        lambda: scale((1, 1)),
        lambda: clip_negative(math.nan),
        lambda: log_sigmoid(0, 0),
        lambda: log_sigmoid(math.nan, -1),
        lambda: sigmoid(math.inf),
    ],
)
def test_transforms_without_sense_are_refused(make: object):
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]
