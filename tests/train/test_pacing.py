from __future__ import annotations

import asyncio

import pytest

from agentgym.train.pacing import Ahead


class Log:
    """Work that notes when it begins, and ends when it is told to."""

    def __init__(self) -> None:
        self.learnt = 0
        self.begun: list[tuple[int, int]] = []

    async def start(self, step: int) -> int:
        self.begun.append((step, self.learnt))
        await asyncio.sleep(0.001 * (5 - step % 5))  # later steps are often ready first
        return step


async def train(log: Log, *, lag: int, steps: int) -> None:
    ahead = Ahead(log.start, lag=lag, last=steps)
    for step in range(1, steps + 1):
        assert await ahead.of(step) == step, "steps are learnt in their order"
        await asyncio.sleep(0.002)
        log.learnt = step
    await ahead.aclose()


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_nothing_begins_before_its_bound_allows(lag: int) -> None:
    log = Log()
    asyncio.run(train(log, lag=lag, steps=12))
    assert [step for step, _ in log.begun] == list(range(1, 13)), "each once, in order, and none after the last"
    assert all(step <= learnt + 1 + lag for step, learnt in log.begun)
    assert max(step - learnt - 1 for step, learnt in log.begun) == lag, "and as early as it allows"


def test_without_lag_nothing_runs_while_it_learns() -> None:
    async def work() -> None:
        log = Log()
        ahead = Ahead(log.start, lag=0, last=5)
        await ahead.of(1)
        await asyncio.sleep(0.02)
        assert log.begun == [(1, 0)]

    asyncio.run(work())


def test_an_error_comes_with_its_step() -> None:
    async def start(step: int) -> int:
        if step == 2:
            raise ValueError("the second")
        return step

    async def work() -> None:
        ahead = Ahead(start, lag=2, last=5)
        assert await ahead.of(1) == 1
        with pytest.raises(ValueError, match="the second"):
            await ahead.of(2)
        await ahead.aclose()

    asyncio.run(work())


def test_what_is_under_way_is_broken_off() -> None:
    broken: list[int] = []

    async def start(step: int) -> int:
        try:
            await asyncio.sleep(0 if step == 1 else 600)
        except asyncio.CancelledError:
            broken.append(step)
            raise
        return step

    async def work() -> None:
        ahead = Ahead(start, lag=3, last=9)
        await ahead.of(1)
        await ahead.aclose()
        await ahead.aclose()

    asyncio.run(work())
    assert broken == [2, 3, 4]
