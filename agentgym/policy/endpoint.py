"""One server over HTTP: every call has a deadline, and every failure names the server and what it was asked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from agentgym.errors import DeadlineError, PolicyError, UsageError, missing_extra

try:
    import aiohttp
except ImportError as error:
    raise missing_extra("train", "aiohttp", "a policy served over HTTP") from error

_JSON = {"Content-Type": "application/json"}


class UnreachableError(PolicyError):
    """There was no connection, or it broke."""


class DroppedError(UnreachableError):
    """The server closed the connection, or reset it, before it answered."""


class Endpoint:
    """Calls to one server. Open it with ``async with``, once for each event loop it is used in.

    Args:
        url: where the server listens, without a path.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.lost = ""
        "Why nothing is expected of this server any more."
        self._open: dict[bool, aiohttp.ClientSession] = {}
        self._waits: set[asyncio.Timeout] = set()

    async def __aenter__(self) -> Endpoint:
        self.lost = ""
        for pooled in (True, False):
            self._open[pooled] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=not pooled),
                timeout=aiohttp.ClientTimeout(total=None),  # ours counts the whole call, body included
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        sessions, self._open = self._open, {}
        for session in sessions.values():
            await session.close()

    def give_up(self, why: str) -> None:
        """Expect nothing of the server any more: whoever waits for it is told ``why`` at once, as is who asks later."""
        self.lost = why
        for wait in [wait for wait in self._waits if not wait.expired()]:
            wait.reschedule(asyncio.get_running_loop().time())

    async def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, deadline_s: float) -> Any:
        """Return the JSON that the server answers a call of its controls with, over a connection of its own.

        Raises:
            DeadlineError: no answer within ``deadline_s``.
            PolicyError: the server is out of reach, refuses, or answers with something else than JSON.
        """
        return _accepted(*await self._ask(method, path, body, deadline_s, pooled=False), self._named(method, path))

    async def text(self, path: str, *, deadline_s: float) -> str | None:
        """Return the text at ``path``, or None if the server has none there; raises as `call` does."""
        status, data = await self._ask("GET", path, None, deadline_s, pooled=False)
        return data.decode(errors="replace") if status == 200 else None

    async def ask(self, path: str, body: Mapping[str, Any], *, deadline_s: float) -> Any:
        """Return the JSON that the server answers a request for tokens with.

        Connections are kept between requests. One that the server closed meanwhile is replaced once: such a request
        asks for the same tokens when it is made again.

        Raises:
            DeadlineError: no answer within ``deadline_s``.
            PolicyError: as for `call`.
        """
        began = time.monotonic()
        try:
            answer = await self._ask("POST", path, body, deadline_s, pooled=True)
        except DroppedError:
            answer = await self._ask("POST", path, body, deadline_s - (time.monotonic() - began), pooled=False)
        return _accepted(*answer, self._named("POST", path))

    async def knows(self, path: str, *, deadline_s: float) -> bool:
        """Return whether the server has something at ``path``; that it takes another method is an answer, too."""
        status, _ = await self._ask("GET", path, None, deadline_s, pooled=False)
        return status != 404

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, deadline_s: float, *, pooled: bool
    ) -> tuple[int, bytes]:
        what = self._named(method, path)
        if self.lost:
            raise PolicyError(self.lost)
        if not self._open:
            raise UsageError(f"the server at {self.url} is not open; call it inside `async with`")
        data = None if body is None else json.dumps(body).encode()
        try:
            async with asyncio.timeout(max(deadline_s, 0.0)) as wait:
                self._waits.add(wait)
                try:
                    session = self._open[pooled]
                    async with session.request(method, self.url + path, data=data, headers=_JSON) as answer:
                        return answer.status, await answer.read()
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            if self.lost:
                raise PolicyError(self.lost) from None
            raise DeadlineError(f"{what} was not answered within {deadline_s:.3g} s") from None
        except aiohttp.ServerDisconnectedError as error:
            raise DroppedError(f"{what} was dropped: the server closed the connection") from error
        except aiohttp.ClientError as error:
            reset = isinstance(error, aiohttp.ClientOSError) and not isinstance(error, aiohttp.ClientConnectorError)
            kind = DroppedError if reset else UnreachableError
            raise kind(f"{what} failed: {type(error).__name__}: {error}") from error

    def _named(self, method: str, path: str) -> str:
        return f"{method} {self.url}{path}"


def _accepted(status: int, data: bytes, what: str) -> Any:
    text = data.decode(errors="replace").strip()
    if status != 200:
        raise PolicyError(f"{what} was answered by {status}: {text[:300] or 'nothing'}")
    try:
        return json.loads(text or "null")
    except ValueError as error:
        raise PolicyError(f"{what} was answered by what is no JSON: {text[:80]!r}") from error


__all__ = ["DroppedError", "Endpoint", "UnreachableError"]
