"""Who may start now: at most so many at a time, in the order they came, by a bound that may move."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Gate:
    """Lets as many in as ``limit`` says whenever somebody comes or goes; at least one, so that it always goes on."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.inside = 0
        "How many are in."

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Wait for a place, and give it back in the end. Where there is one at once, nothing else runs in between."""
        if self._waiting or not self._room():
            await self._wait()
        else:
            self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
            self._admit()

    async def _wait(self) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # let in and broken off at once
                self.inside -= 1
                self._admit()
            raise

    def _room(self) -> bool:
        return self.inside < max(1, self._limit())

    def _admit(self) -> None:
        while self._waiting and self._room():
            place = self._waiting.popleft()
            if not place.done():
                self.inside += 1
                place.set_result(None)


__all__ = ["Gate"]
