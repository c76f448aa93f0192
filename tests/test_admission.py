"""A gate lets in as many as it may, in the order they came, and loses no place."""

from __future__ import annotations

import asyncio

from agentgym.admission import Gate


async def visit(gate: Gate, number: int, seen: list[int], leave: asyncio.Event) -> None:
    async with gate():
        seen.append(number)
        await leave.wait()


def test_at_most_so_many_are_in_and_they_come_in_order() -> None:
    async def work() -> None:
        gate, seen = Gate(lambda: 2), []
        events = [asyncio.Event() for _ in range(5)]
        visits = [asyncio.create_task(visit(gate, n, seen, event)) for n, event in enumerate(events)]
        await asyncio.sleep(0)
        assert (seen, gate.inside) == ([0, 1], 2)
        for n, event in enumerate(events):
            event.set()
            await visits[n]
            await asyncio.sleep(0)
            assert gate.inside == min(2, 4 - n)
        assert seen == [0, 1, 2, 3, 4]

    asyncio.run(work())


def test_a_bound_that_moves_is_followed() -> None:
    async def work() -> None:
        bound = [4]
        gate, seen, leave = Gate(lambda: bound[0]), [], asyncio.Event()
        visits = [asyncio.create_task(visit(gate, n, seen, leave)) for n in range(4)]
        await asyncio.sleep(0)
        bound[0] = 1
        late = [asyncio.create_task(visit(gate, n, seen, asyncio.Event())) for n in (4, 5)]
        leave.set()
        await asyncio.gather(*visits)
        await asyncio.sleep(0)
        assert (seen, gate.inside) == ([0, 1, 2, 3, 4], 1), "those inside stay; of those outside one comes in"
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        assert gate.inside == 0

    asyncio.run(work())


def test_a_bound_below_one_lets_one_in() -> None:
    async def work() -> None:
        async with Gate(lambda: 0)():
            pass

    asyncio.run(work())


def test_whoever_gives_up_outside_takes_no_place() -> None:
    async def work(let_in: bool) -> None:
        gate, seen = Gate(lambda: 1), []
        holder = gate()
        await holder.__aenter__()
        waiting = asyncio.create_task(visit(gate, 1, seen, asyncio.Event()))
        await asyncio.sleep(0)
        if let_in:
            await holder.__aexit__(None, None, None)  # the place is given to the one that waits, which has not run yet
            assert gate.inside == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        if not let_in:
            await holder.__aexit__(None, None, None)
        assert (seen, gate.inside) == ([], 0)

    asyncio.run(work(False))
    asyncio.run(work(True))


def test_with_room_nothing_runs_in_between() -> None:
    """A policy in lockstep has to know of every rollout before the first of them waits."""

    async def work() -> None:
        order: list[str] = []

        async def other() -> None:
            order.append("other")

        gate: Gate = Gate(lambda: 1)
        task = asyncio.create_task(other())
        async with gate():
            order.append("in")
        await task
        assert order == ["in", "other"]

    asyncio.run(work())
