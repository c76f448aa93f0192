"""With three calls in ten failing, nothing is scored 0 for it, and what is measured still says the truth."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from agentgym.errors import JudgeError
from agentgym.judge import Question
from agentgym.judging.openai import OpenAIJudge
from agentgym.judging.patience import Patience
from agentgym.judging.server import Fault, Faults, JudgeServer

TRAJECTORIES, ITEMS, RATE = 30, 10, 0.3
AT_ONCE = 40
LENGTHS_G = 1 + np.arange(TRAJECTORIES) * 37 % 101
SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "satisfied": {"type": "boolean"}},
    "required": ["reason", "satisfied"],
    "additionalProperties": False,
}
WAYS: list[dict[Fault, float]] = [{fault: RATE} for fault in Fault if fault is not Fault.LIE]
WAYS.append({fault: RATE / len(WAYS) for way in WAYS for fault in way})


def coin(question: Question) -> Mapping[str, Any]:
    """Say yes to about six answers in ten, always to the same."""
    answer = question.material["answer"].encode()
    return {"reason": "so the coin fell", "satisfied": hashlib.sha256(answer).digest()[0] < 154}


def question(trajectory: int, item: int) -> Question:
    walk = "north. " * int(LENGTHS_G[trajectory])
    return Question(f"Does item {item} hold?", {"answer": f"Walk {trajectory}, item {item}: {walk}"}, SCHEMA)


def faultless() -> NDArray[np.float64]:
    return np.array([[coin(question(g, i))["satisfied"] for i in range(ITEMS)] for g in range(TRAJECTORIES)], float)


async def measure(judge: OpenAIJudge) -> NDArray[np.float64]:
    """Return the verdicts (trajectories, items), NaN where there is none."""

    async def value(trajectory: int, item: int) -> float:
        try:
            return float((await judge.ask(question(trajectory, item))).value["satisfied"])
        except JudgeError:
            return math.nan

    async with judge:
        values = await asyncio.gather(*(value(g, i) for g in range(TRAJECTORIES) for i in range(ITEMS)))
    return np.array(values).reshape(TRAJECTORIES, ITEMS)


def unhurried_s() -> float:
    """Return a deadline that no call of `AT_ONCE` misses on this machine, busy as it is."""

    async def all_at_once() -> float:
        async with OpenAIJudge(server.url, "fake", concurrency=AT_ONCE) as judge:
            began = time.monotonic()
            await asyncio.gather(*(judge.ask(question(g, i)) for g in range(AT_ONCE // ITEMS) for i in range(ITEMS)))
            return time.monotonic() - began

    with JudgeServer(coin) as server:
        return max(0.5, 8 * asyncio.run(all_at_once()))


def check(measured_GI: NDArray[np.float64]) -> None:
    """Check that what is measured is what the judge without faults says, and that nothing about it was selected."""
    truth_GI, there_GI = faultless(), ~np.isnan(measured_GI)

    # No zero for a failure, item by item.
    assert np.array_equal(measured_GI[there_GI], truth_GI[there_GI])

    # At least 90 % of trajectories keep at least 90 % of their items.
    kept_G = there_GI.mean(axis=1)
    assert (kept_G >= 0.9).mean() >= 0.9

    # Survival does not depend on length: the correlation lies within the 95 % bounds of none, 1.96 / √G.
    assert abs(np.corrcoef(kept_G, LENGTHS_G)[0, 1]) < 1.96 / math.sqrt(TRAJECTORIES)

    # The mean over what was measured agrees with the faultless one within its 95 % interval.
    values = measured_GI[there_GI]
    assert abs(values.mean() - truth_GI.mean()) <= 1.96 * values.std(ddof=1) / math.sqrt(values.size)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "+".join(way))
def test_failures_leave_items_unmeasured_and_nothing_else(way: dict[Fault, float]):
    call_s = unhurried_s() if Fault.STALL in way else 60.0
    patience = Patience(attempts=3, call_s=call_s, total_s=4 * call_s, first_wait_s=0.0)
    with JudgeServer(coin, Faults(way)) as server:
        judge = OpenAIJudge(server.url, "fake", concurrency=AT_ONCE, patience=patience)
        measured_GI = asyncio.run(measure(judge))
    assert sum(server.happened.values()) / judge.spent.calls == pytest.approx(RATE, abs=0.06)
    assert judge.spent.failures == np.isnan(measured_GI).sum() > 0
    check(measured_GI)


def test_a_judge_that_scored_0_for_its_failures_would_not_pass():
    lost = np.zeros((TRAJECTORIES, ITEMS), np.bool_)
    lost[::4, 3] = True
    check(np.where(lost, np.nan, faultless()))
    with pytest.raises(AssertionError):
        check(np.where(lost, 0.0, faultless()))


def test_failures_that_befell_long_episodes_alone_would_not_pass():
    lost = np.zeros((TRAJECTORIES, ITEMS), np.bool_)
    lost[LENGTHS_G > 50, 3] = True
    with pytest.raises(AssertionError):
        check(np.where(lost, np.nan, faultless()))
