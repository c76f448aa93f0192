"""Measuring a stored run again: a probe over its groups, what it finds added to the run's folder."""

from __future__ import annotations

import asyncio
import pkgutil
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from agentgym.errors import ConfigError, UnknownNameError, UsageError
from agentgym.probe import Probe
from agentgym.recipes import check_params
from agentgym.reward import Shaper
from agentgym.store import iter_groups
from agentgym.store_signals import Asked, Measurements, SignalsFile
from agentgym.types import Group, Signal

CONCURRENCY = 8
"""Groups that are measured at the same time; a judge's client has a limit of its own."""


@dataclass(slots=True)
class Measured:
    """What came of measuring a run."""

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

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def resolve_probe(name: str, params: Mapping[str, Any]) -> Probe:
    """Return the probe that ``module:callable`` makes of ``params``.

    Raises:
        UnknownNameError: there is nothing of that name.
        ConfigError: it takes other parameters, or what it makes is no probe.
    """
    if ":" not in name:
        raise UnknownNameError(f"no probe '{name}'; name it as module:callable, where the callable returns a probe")
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownNameError(f"no probe '{name}': {error}") from error
    if not callable(found):
        raise ConfigError(f"probe '{name}' is a {type(found).__name__}, not something that returns a probe")
    check_params(f"probe '{name}'", found, params)
    made = found(**params)
    if isinstance(made, Shaper) or not (callable(made) and hasattr(made, "name") and hasattr(made, "signals")):
        raise ConfigError(f"'{name}' returned a {type(made).__name__}, which is no agentgym.probe.Probe")
    return cast(Probe, made)


async def measure(path: Path, probe: Probe, asked: Asked, *, again: bool = False) -> Measured:
    """Measure the episodes of the run in ``path`` by ``probe``, and add what it finds to the run's signals.

    A group is measured whole, since a probe may compare siblings, and left out where all of it was measured before,
    unless ``again``. What had no value is asked for again.

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

        queue = wanted()

        async def work() -> None:
            for group in queue:
                for trajectory, signals in zip(group.trajectories, await measured(probe, group), strict=True):
                    file.append(asked, trajectory, signals)
                    _count(result, signals)

        async with entered(probe):
            await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return result


async def measured(probe: Probe, group: Group) -> list[tuple[Signal, ...]]:
    """Return what ``probe`` measures of ``group``, checked.

    Raises:
        UsageError: it did not answer for each trajectory, or emitted a signal that it does not declare.
    """
    found = await probe(group)
    undeclared = {signal.name for signals in found for signal in signals} - probe.signals
    if len(found) != len(group.trajectories) or undeclared:
        raise UsageError(
            f"probe '{probe.name}' answered for {len(found)} of {len(group.trajectories)} trajectories, with "
            f"undeclared signals: {', '.join(sorted(undeclared)) or 'none'}"
        )
    return found


@asynccontextmanager
async def entered(*probes: Probe) -> AsyncIterator[None]:
    """Enter those of ``probes`` that are asynchronous context managers, and leave them in the end."""
    if not probes:
        yield
        return
    first, *others = probes
    async with entered(*others):
        if isinstance(first, AbstractAsyncContextManager):
            async with first:
                yield
        else:
            yield


def _count(result: Measured, signals: Sequence[Signal]) -> None:
    result.episodes += 1
    result.signals += len(signals)
    result.unmeasured += sum(signal.value is None for signal in signals)
    result.cost += sum(signal.cost for signal in signals)


__all__ = ["CONCURRENCY", "Measured", "entered", "measure", "measured", "resolve_probe"]
