"""The command ``agentgym``. The commands are in `app`; each does its work in a module of its own, loaded when used."""

from __future__ import annotations

from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line ``words`` (the process's own unless given) and return its exit code.

    0: done; 1: `doctor` found something missing; 2: a usage error; 3: the infrastructure failed; 130: interrupted.
    """
    from .app import run

    return run(words)


__all__ = ["main"]
