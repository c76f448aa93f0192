"""HTTP on this machine's loopback from a thread: what stands in for engines and judges is served by it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from aiohttp import web


class LoopbackServer:
    """Serves `application` from a thread of its own, while in its ``with`` statement.

    Args:
        name: of the thread.
        port: 0 takes a free one.
    """

    def __init__(self, name: str, *, port: int = 0) -> None:
        self.port = port
        "Where it listens."
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._runner: web.AppRunner | None = None

    def application(self) -> web.Application:
        """Return what is served; handlers run on the server's thread, and end when who asked hangs up."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        from aiohttp import web

        self._runner = web.AppRunner(
            self.application(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]


__all__ = ["LoopbackServer"]
