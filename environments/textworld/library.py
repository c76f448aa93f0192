"""The user's own game files, and opening any game file with care: an interpreter fed with garbage crashes."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agentgym.errors import TaskError, missing_extra

from .engine import Engine
from .games import build, file_hash, one_at_a_time

try:
    from textworld.generator.game import Game
except ImportError as error:
    raise missing_extra("textworld", error.name or "textworld", "the TextWorld environment") from error

_KEPT = 64
"""Games kept parsed in memory."""


class Library:
    """Own games by name, and every game opened so far."""

    def __init__(self, files: Sequence[Path], cache_dir: Path) -> None:
        self.games: dict[str, Path] = {}
        "Name -> story file."
        self._compiled = cache_dir / "textworld" / "compiled"
        self._opened: OrderedDict[Path, tuple[tuple[int, int], str, Game | None]] = OrderedDict()
        for file in files:
            name = file.stem if file.stem not in self.games else f"{file.stem}-{len(self.games)}"
            self.games[name] = self._story_of(file)

    def hashes(self) -> dict[str, str]:
        """Return name -> hash of the story file, as the files are now."""
        return {name: file_hash(story) for name, story in self.games.items()}

    def engine(self, story: Path, sha256: str | None, current: Engine | None) -> Engine:
        """Return an engine with ``story`` in it: ``current`` if it is the one, otherwise a new one.

        Raises:
            TaskError: the file is no game, or not the one that ``sha256`` was taken of.
        """
        before = self._opened.get(story)
        game = self._open(story, sha256)
        if current is not None and current.story == story and before is self._opened[story]:
            return current
        if current is not None:
            current.close()
        return Engine(story, game)

    def _open(self, story: Path, sha256: str | None) -> Game | None:
        """Return the logic of ``story``, read again only where the file has changed."""
        stamp = _stamp(story)
        kept = self._opened.get(story)
        if kept is None or kept[0] != stamp:
            check_story(story)
            kept = (stamp, file_hash(story), read_logic(story))
            self._opened[story] = kept
            while len(self._opened) > _KEPT:
                self._opened.popitem(last=False)
        self._opened.move_to_end(story)
        made_as = kept[2].metadata.get("z8_sha256") if kept[2] else None
        for expected, way_out in ((sha256, "make the tasks again"), (made_as, "delete its folder to make it anew")):
            if expected and expected != kept[1]:
                found = f"{kept[1][:12]}, not {expected[:12]}"
                raise TaskError(f"{story} has changed since it was recorded ({found}); {way_out}")
        return kept[2]

    def _story_of(self, file: Path) -> Path:
        """Return the story file that ``file`` stands for; TextWorld's ``.json`` without one is compiled."""
        if not file.is_file():
            raise TaskError(f"no game file {file}; files takes existing .z8 or TextWorld .json files")
        story = file.with_suffix(".z8") if file.suffix == ".json" else file
        if story.is_file():
            check_story(story)
            return story
        folder = self._compiled / file_hash(file)[:24]
        if not (folder / "game.json").is_file():
            build(_load_logic(file), folder)
        return folder / "game.z8"


def check_story(story: Path) -> None:
    """Look at the header and checksum of a Z-machine story file.

    Raises:
        TaskError: it is not one, or it is damaged.
    """
    data = story.read_bytes() if story.is_file() else b""
    if len(data) < 64 or story.suffix != f".z{data[0]}" or not 1 <= data[0] <= 8:
        raise TaskError(f"{story} is not a Z-machine game; give a .z8 story file or the .json that TextWorld saved")
    unit = 2 if data[0] <= 3 else 4 if data[0] <= 5 else 8
    length = int.from_bytes(data[26:28], "big") * unit
    if not length:
        return
    total = int(np.frombuffer(data[64:length], np.uint8).sum(dtype=np.int64)) & 0xFFFF
    if length > len(data) or total != int.from_bytes(data[28:30], "big"):
        raise TaskError(f"{story} is damaged (its own checksum does not match); copy or make the game again")


def read_logic(story: Path) -> Game | None:
    """Return what TextWorld knows of ``story`` from the ``.json`` beside it, or None where there is none."""
    path = story.with_suffix(".json")
    return _load_logic(path) if path.is_file() else None


def _load_logic(path: Path) -> Game:
    try:
        data = json.loads(path.read_bytes())
        with one_at_a_time:
            return Game.deserialize(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{path} is not a game saved by TextWorld ({error!r}); give the .json written by tw-make"
        raise TaskError(message) from error


def _stamp(path: Path) -> tuple[int, int]:
    if not path.is_file():
        raise TaskError(f"the game file {path} is gone; put it back, or make the tasks again")
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size
