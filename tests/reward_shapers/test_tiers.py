"""Nearness in tiers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from agentgym.reward_shapers.tiers import QUARTERS, gained, ssl, tiered
from episodes import episode
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import ConfigError
from agentgym.reward import signal
from agentgym.types import Group, Turn, empty_sample, text_message

TURN = Turn((), empty_sample(text_message("assistant", "look")), np.empty(0, np.int32))
NEAR = signal("near", scope="trajectory", low=0.0, high=1.0)
VALUES = (0.0, 0.25, 0.5, 1.0)


@pytest.mark.parametrize(
    ("near", "tier"), [(0, 0), (0.24, 0), (0.25, 0.25), (0.49, 0.25), (0.5, 0.5), (0.75, 1), (1, 1), (None, None)]
)
def test_zones(near: float | None, tier: float | None):
    reward = ssl(NEAR, alpha=0.5, edges=QUARTERS, values=VALUES)
    (lost,), (won,) = reward(Group((episode(won=0, near=near),))), reward(Group((episode(won=1, near=near),)))
    assert lost.measured == (tier is not None)
    if tier is not None:
        assert lost.total() == pytest.approx(0.5 * tier)
        assert won.total() == pytest.approx(1 + 0.5 * tier)
    assert str(reward) == "won + 0.5*tiered(near, 0.25, 0.5, 0.75)"
    assert reward.range(1) == (0, 1.5)


def test_gains_of_the_turns_are_one_standing():
    reward = gained("progress")
    gains: list[list[float | None]] = [[0.25, 0, 0.5], [0.25, None, 0.5], [0.25]]
    whole, lost, missing = reward(Group(tuple(episode(3, progress=each) for each in gains)))
    assert whole.total() == 0.75
    assert not lost.measured
    assert not missing.measured
    assert "needs 'progress' of every turn" in missing.explain()
    assert reward.signals == {"progress"}


@pytest.mark.parametrize(
    ("edges", "values"),
    [
        ((), (1,)),
        ((0.5,), (1,)),
        ((0.5, 0.5), (0, 1, 2)),
        ((0.5,), (1, 0)),
        ((math.nan,), (0, 1)),
        ((0,), (0, math.inf)),
    ],
)
def test_tiers_without_sense_are_refused(edges: tuple[float, ...], values: tuple[float, ...]):
    with pytest.raises(ConfigError):
        tiered(edges, values)


@given(st.floats(0, 1), st.floats(0, 1))
def test_law_tiers_keep_the_order(one: float, other: float):
    reward = NEAR.then(tiered(QUARTERS, VALUES))
    less, more = (reward(Group((episode(won=0, near=near),)))[0].total() for near in sorted((one, other)))
    assert 0 <= less <= more <= 1
