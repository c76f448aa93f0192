"""How far the rollouts may run ahead of the learner.

A training step's rollouts are admitted, not its results discarded: what is thrown away for being old would mostly be
long episodes. At version v, counted in training steps, those of the steps up to v + 1 + lag have been started, so that
no token is older than ``lag`` steps when it is learnt from. Steps are learnt in their order. With lag 0 nothing runs
ahead, and the loop is the synchronous one.

Source of the rule: AReaL, arXiv 2505.24298, its staleness-aware training.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Starts the work of coming steps while one is learnt.

    Args:
        start: does the rollouts of a step.
        lag: steps that may be under way beyond the one that is waited for.
        last: step after which nothing is started.
    """

    def __init__(self, start: Callable[[int], Awaitable[T]], *, lag: int, last: int) -> None:
        self._start, self._lag, self._last = start, lag, last
        self._under_way: dict[int, asyncio.Future[T]] = {}

    async def of(self, step: int) -> T:
        """Return what came of ``step``, once all steps before it have been learnt."""
        for number in range(step, min(step + self._lag, self._last) + 1):
            if number not in self._under_way:
                self._under_way[number] = asyncio.ensure_future(self._start(number))
        return await self._under_way.pop(step)

    async def aclose(self) -> None:
        """Break off what is under way. Twice is fine."""
        waiting, self._under_way = list(self._under_way.values()), {}
        for work in waiting:
            work.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


__all__ = ["Ahead"]
