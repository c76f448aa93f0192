"""Ranges that sources pay on."""

from __future__ import annotations

import math

import pytest
from agentgym.reward_shapers.scales import Scale, scaled
from agentgym.reward_shapers.schedules import linear, switch

from agentgym.errors import ConfigError
from agentgym.types import Group, StopReason, Task, Trajectory


@pytest.mark.parametrize(
    ("scale", "at", "bounds"),
    [
        (Scale(), {0: (0, 1), 500: (0, 1)}, (0, 1)),
        # ToolRL's schedule of correctness: (3 - 2) * step / 150 + 2
        (
            Scale(linear(-2, -3, over=150), linear(2, 3, over=150)),
            {0: (-2, 2), 75: (-2.5, 2.5), 150: (-3, 3), 400: (-3, 3)},
            (-3, 3),
        ),
        (Scale(switch(-1, -3, at=30), switch(1, 3, at=30)), {0: (-1, 1), 29: (-1, 1), 30: (-3, 3)}, (-3, 3)),
        (Scale(0, switch(1, 0.5, at=30)), {29: (0, 1), 30: (0, 0.5)}, (0, 1)),
    ],
)
def test_scales_by_step(scale: Scale, at: dict[int, tuple[float, float]], bounds: tuple[float, float]):
    for step, ends in at.items():
        assert scale.at(step) == pytest.approx(ends)
    assert scale.bounds == bounds


def test_a_reward_follows_its_scale_and_needs_no_siblings():
    reward = scaled(
        "half", lambda _, low, high: (low + high) / 2, Scale(0, linear(2, 4, over=10)), scope="trajectory", needs=""
    )
    trajectory = Trajectory("e", "g", Task("t", "", 9), (), (), StopReason.DONE, (), 0)
    assert [reward(Group((trajectory,), step))[0].total() for step in (0, 5, 10)] == [1, 1.5, 2]
    assert not reward.needs_group
    assert reward.range(1) == (0, 4)


def test_amounts_of_turns_may_be_nothing():
    reward = scaled("x", lambda *_: [], Scale(1, 2), scope="turn", needs="")
    assert reward.range(1) == (0, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Scale(1, 0),
        lambda: Scale(math.nan, 1),
        lambda: Scale(0, linear(1, math.inf, over=3)),
        lambda: Scale(0, linear(1, -1, over=3)),
        lambda: Scale(switch(0, 2, at=5), 1),
        lambda: Scale(linear(0, 1, over=10), switch(0, 2, at=6)),
        lambda: linear(0, 1, over=0),
    ],
)
def test_scales_without_sense_are_refused(make: object):
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]
