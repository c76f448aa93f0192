"""A sibling as the reference of the others (BRPO)."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest
from agentgym.reward_shapers.in_group import AGAINST, REFERENCE, InGroupReference, brpo
from agentgym.reward_shapers.pairwise import Comparison, PairwiseJudge
from episodes import SilentJudge

from agentgym.errors import ConfigError
from agentgym.ledger import Status
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message


class ByLength(PairwiseJudge):
    """The longer id wins; an id of seven letters cannot be judged."""

    async def compare(self, first: Trajectory, second: Trajectory) -> Comparison:
        if 7 in (len(first.id), len(second.id)):
            return Comparison(None, "JudgeError: stalled", 1.0)
        return Comparison((float(len(first.id)), float(len(second.id))), cost=1.0, evidence="longer")


def episode(id: str, *signals: Signal) -> Trajectory:
    turn = Turn((), empty_sample(text_message("assistant", id)), np.empty(0, np.int32))
    return Trajectory(id, "g", Task("t", "Write.", 9), (turn,), (), StopReason.DONE, signals, 0)


def measure(*ids: str, step: int = 0, **how: object) -> dict[str, tuple[Signal, ...]]:
    probe = InGroupReference(ByLength(SilentJudge()), **how)  # type: ignore[arg-type]
    return dict(zip(ids, asyncio.run(probe(Group(tuple(map(episode, ids)), step))), strict=True))


def reference(signals: dict[str, tuple[Signal, ...]]) -> str:
    (found,) = [id for id, one in signals.items() if one[0].value == 1]
    return found


def test_everyone_else_is_compared_with_the_one_drawn():
    ids = ("x", "xx", "yy", "xxx")
    drawn = {}
    for step in range(40):
        signals = measure(*ids, step=step)
        one = drawn[step] = reference(signals)
        assert [signal.name for signal in signals[one]] == [REFERENCE]
        for id in set(ids) - {one}:
            lead = len(id) - len(one)
            assert signals[id][1].value == (1.0 if lead > 0 else 0.0 if lead < 0 else 0.5)
            assert (signals[id][1].name, signals[id][1].cost) == (AGAINST, 1.0)
    assert set(drawn.values()) == set(ids), "the draw changes from step to step"


def test_law_permutation_equivariance():
    assert measure("a", "bb", "ccc") == dict(sorted(measure("ccc", "a", "bb").items()))


def test_what_was_not_judged_is_unmeasured():
    for step in range(10):
        signals = measure("a", "bb", "sevenly", step=step)
        against = {id: one[-1] for id, one in signals.items() if id != reference(signals)}
        unknown = {"sevenly"} if "sevenly" in against else set(against)
        assert {id for id, signal in against.items() if signal.value is None} == unknown
        assert all(against[id].cause == "JudgeError: stalled" for id in unknown)


def test_answers_without_content_are_not_drawn_and_lose():
    for step in range(10):
        signals = measure("a", "bb", "", step=step, contentless=lambda text, prompt: "" if text else "empty")
        assert reference(signals) != ""
        assert (signals[""][1].value, signals[""][1].cost) == (0.0, 0.0)
    none = measure("a", "b", contentless=lambda text, prompt: "empty")
    assert [one[-1].value for one in none.values()] == [0.0, 0.0]


def test_what_is_paid():
    group = Group(
        (
            episode("r", Signal(REFERENCE, 1.0, "p")),
            *(episode(str(v), Signal(REFERENCE, 0.0, "p"), Signal(AGAINST, v, "p")) for v in (1.0, 0.5, 0.0, None)),
        )
    )
    ledgers = brpo(win=2.0, tie=0.25, lose=-1.0)(group)
    assert [ledger.total() for ledger in ledgers] == [0, 2, 0.25, -1, 0]
    assert [Status(int(ledger.status[0])) for ledger in ledgers] == [
        Status.INELIGIBLE,
        Status.PAID,
        Status.PAID,
        Status.PAID,
        Status.UNMEASURED,
    ]
    assert brpo(win=2.0, tie=0.25, lose=-1.0).range(3) == (-1, 2)
    with pytest.raises(ConfigError, match="tie of brpo"):
        brpo(win=1, tie=math.nan, lose=0)
