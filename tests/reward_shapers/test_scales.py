"""Ranges that sources pay on."""

from __future__ import annotations

import math

import pytest
from agentgym.reward_shapers.scales import Ramp, Scale, Switch, scaled

from agentgym.errors import ConfigError
from agentgym.types import Group, StopReason, Task, Trajectory


@pytest.mark.parametrize(
    ("scale", "at", "bounds"),
    [
        (Scale(), {0: (0, 1), 500: (0, 1)}, (0, 1)),
        # ToolRL's schedule of correctness: (3 - 2) * step / 150 + 2
        (Scale(Ramp(-2, -3, 150), Ramp(2, 3, 150)), {0: (-2, 2), 75: (-2.5, 2.5), 150: (-3, 3), 400: (-3, 3)}, (-3, 3)),
        (Scale(Switch(-1, -3, 30), Switch(1, 3, 30)), {0: (-1, 1), 29: (-1, 1), 30: (-3, 3)}, (-3, 3)),
        (Scale(0, Switch(1, 0.5, 30)), {29: (0, 1), 30: (0, 0.5)}, (0, 1)),
    ],
)
def test_scales_by_step(scale: Scale, at: dict[int, tuple[float, float]], bounds: tuple[float, float]):
    for step, ends in at.items():
        assert scale.at(step) == pytest.approx(ends)
    assert scale.bounds == bounds


def test_a_reward_follows_its_scale_and_needs_no_siblings():
    reward = scaled(
        "half", lambda _, low, high: (low + high) / 2, Scale(0, Ramp(2, 4, 10)), scope="trajectory", needs=""
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
        lambda: Scale(0, Ramp(1, math.inf, 3)),
        lambda: Scale(0, Ramp(1, -1, 3)),
        lambda: Scale(Switch(0, 2, 5), 1),
        lambda: Scale(Ramp(0, 1, 10), Switch(0, 2, 6)),
        lambda: Ramp(0, 1, 0),
    ],
)
def test_scales_without_sense_are_refused(make: object):
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]
