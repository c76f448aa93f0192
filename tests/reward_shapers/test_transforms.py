"""Transforms of single amounts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from agentgym.reward_shapers.step import step
from agentgym.reward_shapers.transforms import affine, clip, scale

from agentgym.errors import ConfigError
from agentgym.reward import Shaper
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

MATCH = step("match", low=-3, high=3)


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
    "make",
    [
        lambda: clip(1, 0),
        lambda: clip(0, math.inf),
        lambda: affine(math.nan, 0),
        lambda: affine(0, 1),
        lambda: scale((1, 1)),
    ],
)
def test_transforms_without_sense_are_refused(make: object):
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]
