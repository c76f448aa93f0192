"""Whoever watches a run. Nothing of the run depends on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Observer(Protocol):
    """Is told what happens as it happens."""

    def phase(self, name: str, total: int | None = None) -> None:
        """A part of the run begins that will make ``total`` advances."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """The current phase got on."""

    def measured(self, kind: str, step: int, metrics: dict[str, Any]) -> None:
        """A line was added to the run's metrics."""

    def say(self, line: str) -> None:
        """Something worth reading once."""


class Quiet:
    """Shows nothing."""

    def phase(self, name: str, total: int | None = None) -> None:
        """Show nothing."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Show nothing."""

    def measured(self, kind: str, step: int, metrics: dict[str, Any]) -> None:
        """Show nothing."""

    def say(self, line: str) -> None:
        """Show nothing."""


def advancing(observer: Observer) -> Callable[[int, int], None]:
    """Return a callback, told how many are ready of how many, that advances ``observer`` by those that are new."""
    before = 0

    def progress(ready: int, _: int) -> None:
        nonlocal before
        observer.advance(ready - before)
        before = ready

    return progress


__all__ = ["Observer", "Quiet", "advancing"]
