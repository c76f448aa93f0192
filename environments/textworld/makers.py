"""Processes that make games side by side: TextWorld's generator is pure Python and holds the interpreter's lock."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from textworld.generator.game import Game

from agentgym.remote import Worker

from .games import GameSettings, build, build_candidate, content_hash, make

_MAKE_TIMEOUT_S = 600.0
_AHEAD = 8
"""Candidates asked of each process before their turn."""
_KEPT = 256
"""Games that a process keeps between hashing and compiling them."""

_made: OrderedDict[tuple[str, int], Game] = OrderedDict()


def content_here(settings: dict[str, Any], candidate: int) -> str | None:
    """Return the content hash of a candidate, in a worker, which keeps the game for `build_here`."""
    chosen = GameSettings(**settings)
    game = make(chosen, candidate)
    if game is None:
        return None
    _made[chosen.key, candidate] = game
    if len(_made) > _KEPT:
        _made.popitem(last=False)
    return content_hash(game)


def build_here(settings: dict[str, Any], candidate: int, folder: str) -> None:
    """Compile a candidate into ``folder``, in a worker."""
    chosen = GameSettings(**settings)
    game = _made.pop((chosen.key, candidate), None)
    if game is None:
        build_candidate(chosen, candidate, Path(folder))
    else:
        build(game, Path(folder))


class Makers:
    """As many processes as asked for, each with a queue; the same candidate always goes to the same one."""

    def __init__(self, settings: GameSettings, workers: int) -> None:
        self._settings = asdict(settings)
        self._queues = [ThreadPoolExecutor(1, thread_name_prefix="textworld-make") for _ in range(max(1, workers))]
        self._workers: dict[int, Worker] = {}
        self._ahead: deque[tuple[int, Future[str | None]]] = deque()

    def content(self, candidate: int) -> str | None:
        """Return the content hash of ``candidate``, and let those that follow be made meanwhile."""
        while self._ahead and self._ahead[0][0] < candidate:
            self._ahead.popleft()
        first = self._ahead[-1][0] + 1 if self._ahead else candidate
        for number in range(first, candidate + _AHEAD * len(self._queues)):
            self._ahead.append((number, self._submit(number, content_here)))
        return self._ahead.popleft()[1].result()

    def build(self, candidate: int, folder: Path) -> Future[None]:
        """Compile ``candidate`` into ``folder`` when its turn comes."""
        return self._submit(candidate, build_here, folder=str(folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for queue in self._queues:
            queue.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers.values():
            worker.close()

    def _submit(self, candidate: int, function: Callable[..., Any], **arguments: Any) -> Future[Any]:
        number = candidate % len(self._queues)
        return self._queues[number].submit(self._ask, number, function, candidate=candidate, **arguments)

    def _ask(self, number: int, function: Callable[..., Any], **arguments: Any) -> Any:
        if number not in self._workers:
            self._workers[number] = Worker(f"TextWorld game maker {number}")
        return self._workers[number].run(function, _MAKE_TIMEOUT_S, settings=self._settings, **arguments)
