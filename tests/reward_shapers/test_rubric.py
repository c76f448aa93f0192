"""Rubrics of statements about entities: data, pricing and C-GRPO."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from agentgym.reward_shapers.mixes import citation, citation_unscaled
from agentgym.reward_shapers.outcome import outcome
from agentgym.reward_shapers.rubric import IDENTIFIED, SUPPORTED, Rubric, rubric

from agentgym.errors import ConfigError, TaskError
from agentgym.ledger import Status
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

# S1: E0. S2: E0-E1. S3: E1-E2. S4: E3, an island.
CHAIN = Rubric(
    ("<E0> is an event.", "<E0> was held in <E1>.", "<E1> lies on <E2>.", "<E3> is a river."), ("E0", "E1", "E2", "E3")
)


def episode(supported: Sequence[float | None], identified: Sequence[float | None] = (1, 1, 1, 1), **more: float):
    turn = Turn((), empty_sample(text_message("assistant", "x")), np.empty(0, np.int32))
    signals = [Signal(IDENTIFIED, v, "judge", item=f"S{n + 1}") for n, v in enumerate(identified)]
    signals += [Signal(SUPPORTED, v, "judge", item=f"S{n + 1}") for n, v in enumerate(supported)]
    signals += [Signal(name, v, "world") for name, v in more.items()]
    return Trajectory("e", "g", Task("t", "", 9), (turn,), (), StopReason.DONE, tuple(signals), 0)


def paid(shaper, *episodes: Trajectory) -> list[float | None]:
    return [ledger.total() if ledger.measured else None for ledger in shaper(Group(episodes))]


SHARE = rubric(items=CHAIN)


@pytest.mark.parametrize(
    ("supported", "identified", "share"),
    [
        ([1, 1, 1, 1], [1, 1, 1, 1], 0.75),  # the island is not joined to E0
        ([1, 0, 1, 0], [1, 1, 1, 1], 0.25),  # without S2, S3 is cut off
        ([0, 1, 1, 0], [1, 1, 1, 1], 0.5),
        ([1, 1, 1, 1], [1, 1, 0, 1], 0.5),
        ([0, 0, 1, 1], [1, 1, 1, 1], 0.0),
    ],
)
def test_a_statement_counts_when_identified_supported_and_connected(supported, identified, share: float):
    assert paid(SHARE, episode(supported, identified)) == [share]


def test_connection_need_not_be_asked_for():
    assert paid(rubric(items=CHAIN, chained=False), episode([1, 0, 1, 1])) == [0.75]


def test_the_chain_may_be_long_and_given_in_any_order():
    long = Rubric(tuple(f"<E{n}> is near <E{n + 1}>." for n in reversed(range(50))), tuple(f"E{n}" for n in range(51)))
    assert long.connected(range(50)) == set(range(50))
    assert long.connected(set(range(50)) - {25}) == set(range(26, 50))


@pytest.mark.parametrize("holes", list(itertools.product([0, 1, None], repeat=4)))
def test_an_unmeasured_statement_matters_only_where_the_share_depends_on_it(holes):
    fillings = itertools.product(*[[0, 1] if value is None else [value] for value in holes])
    shares = {len(CHAIN.connected({n for n, v in enumerate(f) if v})) / 4 for f in fillings}
    found = paid(SHARE, episode(holes))
    assert found == (list(shares) if len(shares) == 1 else [None])


def test_what_is_not_identified_need_not_be_supported():
    assert paid(SHARE, episode([1, 1, None, 0], [1, 1, 0, 1])) == [0.5]
    assert paid(SHARE, episode([1, 1, 0, 0], [1, 1, None, 1])) == [0.5]


def test_c_grpo():
    """Shares 3/4 (failed), 1/2, 1/4 (solved), with α = 0.3: the failed one sets the maximum and earns nothing."""
    group = [episode([1, 1, 1, 0], won=0), episode([1, 1, 0, 0], won=1), episode([1, 0, 0, 0], won=1)]
    reward = citation(outcome(), SHARE)
    assert paid(reward, *group) == pytest.approx([0, 0.7 + 0.3 * 2 / 3, 0.7 + 0.3 / 3])
    assert paid(citation_unscaled(outcome(), SHARE), *group) == pytest.approx([0, 0.7 + 0.15, 0.7 + 0.075])
    assert paid(citation(outcome(), SHARE, alpha=0.5), *group) == pytest.approx([0, 0.5 + 1 / 3, 0.5 + 1 / 6])
    assert str(reward) == "0.7*won + 0.3*over_best(rubric) | won >= 1"
    assert reward.range(1) == (0, 1)
    unknown = episode([None] * 4, [None] * 4, won=0)
    (ledger, _) = reward(Group((unknown, group[1])))
    assert set(ledger.status.tolist()) == {Status.CLOSED}


def test_a_group_of_none():
    assert paid(SHARE) == []


@pytest.mark.parametrize(
    ("statements", "entities", "root", "message"),
    [
        (("<E0> is near <E7>.",), ("E0", "E1"), "E0", "names the unknown entity 'E7'; known: E0, E1"),
        (("It rains.",), ("E0",), "E0", "names no entity"),
        ((), ("E0",), "E0", "at least one statement"),
        (("<E1> is.",), ("E1",), "E0", "root 'E0' is an unknown entity"),
    ],
)
def test_wrong_rubrics_are_refused(statements, entities, root: str, message: str):
    with pytest.raises(ConfigError, match=message):
        Rubric(statements, entities, root)


def test_the_task_carries_the_rubric():
    data = {"rubric": {"statements": ["<E1> is."], "entities": ["E1"], "root": "E1"}}
    plain = episode([1], [1])
    task = Task("t", "", 9, data=data)
    assert paid(rubric(), replace(plain, task=task)) == [1]
    with pytest.raises(TaskError, match="'t' has no rubric"):
        rubric()(Group((plain,)))
    with pytest.raises(ConfigError, match="'entities'"):
        rubric()(Group((replace(plain, task=Task("t", "", 9, data={"rubric": {"statements": []}})),)))
