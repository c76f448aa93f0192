"""Whose time it is: every moment of a run belongs to exactly one activity, so that shares of its time add up to one."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

Activity = Literal["learn", "decode", "judge", "worlds", "sync"]
ORDER: tuple[Activity, ...] = ("learn", "decode", "judge", "worlds", "sync")
"Of several that go on at once, a moment belongs to the first."
OTHER = "other"
"The loop itself: none of them goes on."


class Clock:
    """Adds up the seconds of activities. Any thread may use it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._lock = now, threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._seconds: dict[str, float] = dict.fromkeys((*ORDER, OTHER), 0.0)
        self._since = now()

    @contextmanager
    def __call__(self, activity: Activity) -> Iterator[None]:
        """Count what happens inside as ``activity``."""
        self._change(activity, 1)
        try:
            yield
        finally:
            self._change(activity, -1)

    def read(self) -> dict[str, float]:
        """Return the seconds since the clock was made, by activity; `OTHER` is what is left."""
        with self._lock:
            self._settle()
            return dict(self._seconds)

    def _change(self, activity: Activity, by: int) -> None:
        with self._lock:
            self._settle()
            self._under_way[activity] += by

    def _settle(self) -> None:
        now = self._now()
        owner = next((activity for activity in ORDER if self._under_way[activity]), OTHER)
        self._seconds[owner] += now - self._since
        self._since = now


__all__ = ["ORDER", "OTHER", "Activity", "Clock"]
