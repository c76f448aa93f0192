"""A progress bar on standard error, for what takes minutes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]
"""Called with (ready, wanted)."""


@contextmanager
def shown(title: str, progress: Progress | None) -> Iterator[Progress | None]:
    """Yield ``progress``, or where there is none and standard error is a terminal, what moves a bar there.

    The bar appears with the first call.
    """
    if progress is not None or not sys.stderr.isatty():
        yield progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        row = bar.add_task(title, total=None)
        yield lambda ready, wanted: bar.update(row, completed=ready, total=wanted)


__all__ = ["Progress", "shown"]
