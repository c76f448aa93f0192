from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

GAMES = {"demo": 2, "train": 5, "valid": 1, "test": 1}


@pytest.fixture(scope="session")
def game_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests: a game takes half a second to make."""
    return tmp_path_factory.mktemp("games")


@pytest.fixture(scope="session")
def small(game_cache: Path) -> dict[str, Any]:
    """Arguments of a small TextWorld, whose games are made when first asked for."""
    return {"games": GAMES, "cache_dir": str(game_cache), "max_turns": 12}
