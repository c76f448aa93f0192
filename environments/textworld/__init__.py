"""TextWorld: text games made to measure, with a known way to win from wherever the player stands."""

from __future__ import annotations

from .environment import GAMES, TextWorldEnvironment

__all__ = ["GAMES", "TextWorldEnvironment"]
