"""Measuring groups by probes: those of a training step, of an audit, or of a stored run, whose folder keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from agentgym.env import Environment
from agentgym.errors import UsageError
from agentgym.probe import Probe, supplemented
from agentgym.reopen import Replay
from agentgym.store import iter_groups
from agentgym.store_signals import Asked, Measurements, SignalsFile
from agentgym.types import Group, Signal

T = TypeVar("T")

CONCURRENCY = 8
"""Groups that are measured at the same time; a judge's client has a limit of its own."""


@dataclass(slots=True)
class Measured:
    """What came of measuring."""

    episodes: int = 0
    "Measured now."
    skipped: int = 0
    "Measured before, all of it with a value."
    signals: int = 0
    unmeasured: int = 0
    "Of the signals: those without a value."
    cost: float = 0.0
    dropped_bytes: int = 0
    "Of a half-written last line that was cut off."

    def count(self, signals: Sequence[Signal]) -> None:
        """Count what was measured."""
        self.signals += len(signals)
        self.unmeasured += sum(signal.value is None for signal in signals)
        self.cost += sum(signal.cost for signal in signals)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


class Measuring:
    """Probes at work on groups, a few groups at a time. Open it with ``async with``.

    Args:
        probes: measure each group one after the other, so that a later one reads what the earlier ones said.
        make_environment: gives a world like the one the episodes were played in, for probes that reopen it; None: there
            is none.
    """

    def __init__(self, probes: Sequence[Probe], make_environment: Callable[[], Environment] | None = None) -> None:
        self.probes = tuple(probes)
        self._make_environment = make_environment
        self._worlds: list[Replay] = []
        "Those that nobody is using."
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            opened.callback(self._close_worlds)
            for probe in self.probes:
                if isinstance(probe, AbstractAsyncContextManager):
                    await opened.enter_async_context(probe)
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.aclose()

    async def signals(self, probe: Probe, group: Group) -> list[tuple[Signal, ...]]:
        """Return what ``probe`` measures of ``group``, checked.

        Raises:
            UsageError: it did not answer for each trajectory, emitted a signal that it does not declare, or needs
                something that the episodes do not hold.
        """
        with self._world() as open_at:
            found = await probe(group, open_at)
        undeclared = {signal.name for signals in found for signal in signals} - probe.signals
        if len(found) != len(group.trajectories) or undeclared:
            raise UsageError(
                f"probe '{probe.name}' answered for {len(found)} of {len(group.trajectories)} trajectories, with "
                f"undeclared signals: {', '.join(sorted(undeclared)) or 'none'}"
            )
        return found

    async def group(self, group: Group) -> tuple[Group, list[Signal]]:
        """Return ``group`` with what all probes measure of it, and that alone."""
        measured: list[Signal] = []
        for probe in self.probes:
            found = await self.signals(probe, group)
            both = zip(group.trajectories, found, strict=True)
            group = replace(group, trajectories=tuple(supplemented(t, more) for t, more in both))
            measured += (signal for signals in found for signal in signals)
        return group, measured

    async def groups(self, groups: Sequence[Group]) -> tuple[list[Group], Measured]:
        """Return ``groups``, in order, with what all probes measure of them, and how much that was."""
        made: list[tuple[Group, list[Signal]]] = [(group, []) for group in groups]

        async def work(number: int) -> None:
            made[number] = await self.group(groups[number])

        await each(range(len(groups)), work)
        result = Measured(episodes=sum(len(group.trajectories) for group in groups))
        for _, signals in made:  # in order, not as they came: a sum of costs depends on it
            result.count(signals)
        return [group for group, _ in made], result

    @contextmanager
    def _world(self) -> Iterator[Replay | None]:
        if self._make_environment is None:
            yield None
            return
        world = self._worlds.pop() if self._worlds else Replay(self._make_environment)
        try:
            yield world
        finally:
            self._worlds.append(world)

    def _close_worlds(self) -> None:
        while self._worlds:
            self._worlds.pop().close()


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do ``work`` on each of ``items``, `CONCURRENCY` at a time. The first that fails ends all."""
    queue = iter(items)

    async def some() -> None:
        for item in queue:
            await work(item)

    workers = [asyncio.ensure_future(some()) for _ in range(CONCURRENCY)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def measure(
    path: Path,
    probe: Probe,
    asked: Asked,
    *,
    again: bool = False,
    make_environment: Callable[[], Environment] | None = None,
) -> Measured:
    """Measure the episodes of the run in ``path`` by ``probe``, and add what it finds to the run's signals.

    A group is measured whole, since a probe may compare siblings, and left out where all of it was measured before,
    unless ``again``. What had no value is asked for again. ``make_environment`` is that of `Measuring`.

    Raises:
        StoredRunError: there is no run, a line is damaged, or another process writes the run.
        UsageError: the probe needs something that stored episodes do not hold.
    """
    result = Measured()
    with SignalsFile(path) as file:
        result.dropped_bytes = file.dropped_bytes
        before = Measurements(path)

        def wanted() -> Iterator[Group]:
            for episodes in iter_groups(path):
                stored = [episode.trajectory for episode in episodes]
                if not again and all(before.holds(trajectory, asked) for trajectory in stored):
                    result.skipped += len(stored)
                else:
                    yield Group(tuple(before.merged(trajectory) for trajectory in stored), episodes[0].step)

        async with Measuring([probe], make_environment) as measuring:

            async def work(group: Group) -> None:
                found = await measuring.signals(probe, group)
                for trajectory, signals in zip(group.trajectories, found, strict=True):
                    file.append(asked, trajectory, signals)
                    result.count(signals)
                result.episodes += len(found)

            await each(wanted(), work)
    return result


__all__ = ["CONCURRENCY", "Measured", "Measuring", "each", "measure"]
