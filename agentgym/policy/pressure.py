"""How many episodes a server's key-value cache bears, found out while they run.

A cache that is full makes vLLM preempt: it forgets answers half written and reads all of them again. One that is half
empty wastes the machine. So the number of episodes rises by additive steps and falls by a factor (Chiu and Jain,
"Analysis of the increase and decrease algorithms for congestion avoidance", 1989), and nothing that runs is broken off.
As there, each change waits until the one before it can be felt: episodes fill the cache as they grow, and leave it only
when they end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

GROW_BELOW, SHRINK_ABOVE = 0.6, 0.8
"Shares of the cache in use between which the number stays."
SHRINK_BY = 0.8
STEPS_TO_MOST = 16
"So many steps lead from nothing to the most."

_LINE = re.compile(r"^vllm:(kv_cache_usage_perc|num_preemptions(?:_total)?)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pressure:
    """What a server says of its cache."""

    usage: float
    "Share in use, 0 to 1."
    preemptions: float
    "Answers forgotten since it started."


def read_pressure(text: str) -> Pressure | None:
    """Return what is said in ``text``, as Prometheus reads it; None where the cache is not told of.

    >>> read_pressure('vllm:kv_cache_usage_perc{engine="0"} 0.25\\nvllm:num_preemptions_total{engine="0"} 3.0')
    Pressure(usage=0.25, preemptions=3.0)
    """
    found = [(name, float(value)) for name, value in _LINE.findall(text)]
    usage = [value for name, value in found if name.startswith("kv")]
    return Pressure(max(usage), sum(value for name, value in found if name.startswith("num"))) if usage else None


class Concurrency:
    """The number of episodes in flight that is wished for now.

    Args:
        most: it begins with, and never goes beyond.
        least: it never goes below.
    """

    def __init__(self, most: int, least: int = 1) -> None:
        self._most, self._least, self._limit = most, least, float(most)
        self._preemptions: dict[str, float] = {}
        self._fullest = 0.0
        self._ended = 0

    @property
    def limit(self) -> int:
        """Episodes that may be in flight."""
        return int(self._limit)

    def fullest(self) -> float:
        """Return the largest share of a cache that was in use since this was last asked."""
        found, self._fullest = self._fullest, 0.0
        return found

    def observe(self, said: Iterable[tuple[str, Pressure]], *, under_way: int, ended: int) -> None:
        """Take in what servers (by name) say at one moment. The fullest decides, since episodes do not move.

        The number falls again only when no more than it are ``under_way``, and rises only when as many are, and as many
        have ``ended`` since it changed: of those there are now, most began under it.
        """
        readings = dict(said)
        if not readings:
            return
        usage = max(pressure.usage for pressure in readings.values())
        self._fullest = max(self._fullest, usage)
        preempted = any(p.preemptions > self._preemptions.get(name, p.preemptions) for name, p in readings.items())
        self._preemptions |= {name: pressure.preemptions for name, pressure in readings.items()}
        limit = self._limit
        if preempted or usage > SHRINK_ABOVE:
            if under_way <= max(limit, self._least):
                limit = max(float(self._least), limit * SHRINK_BY)
        elif usage < GROW_BELOW and under_way >= self.limit and ended - self._ended >= self.limit:
            limit = min(float(self._most), limit + self._most / STEPS_TO_MOST)
        if limit != self._limit:
            self._limit, self._ended = limit, ended


__all__ = ["GROW_BELOW", "SHRINK_ABOVE", "SHRINK_BY", "STEPS_TO_MOST", "Concurrency", "Pressure", "read_pressure"]
