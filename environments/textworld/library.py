"""The user's own game files, and opening any game file with care: an interpreter fed with garbage crashes."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agentgym.errors import TaskError, missing_extra

from .engine import Cartridge, Engine
from .games import build, file_hash, one_at_a_time

try:
    from textworld.generator.game import Game
except ImportError as error:
    raise missing_extra("textworld", error.name or "textworld", "the TextWorld environment") from error

_KEPT = 128
"""Games kept parsed in memory."""
_Stamp = tuple[tuple[int, int] | None, ...]
_shelf: OrderedDict[Path, tuple[_Stamp, Cartridge]] = OrderedDict()
"""Games read so far, the latest last: many environments of one process play the same ones."""
_at_the_shelf = threading.Lock()


class Library:
    """Own games by name, and opening any game."""

    def __init__(self, files: Sequence[Path], cache_dir: Path) -> None:
        self.games: dict[str, Path] = {}
        "Name -> story file."
        self._compiled = cache_dir / "textworld" / "compiled"
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
        cartridge = read_cartridge(story)
        made_as = cartridge.game.metadata.get("z8_sha256") if cartridge.game else None
        for expected, way_out in ((sha256, "make the tasks again"), (made_as, "delete its folder to make it anew")):
            if expected and expected != cartridge.sha256:
                found = f"{cartridge.sha256[:12]}, not {expected[:12]}"
                raise TaskError(f"{story} has changed since it was recorded ({found}); {way_out}")
        if current is not None:
            if current.cartridge is cartridge:
                return current
            current.close()
        return Engine(cartridge)

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


def read_cartridge(story: Path) -> Cartridge:
    """Return the game in ``story``, read again only where its files have changed.

    Raises:
        TaskError: it is gone, or no game.
    """
    with _at_the_shelf:
        stamp = _stamp(story), _stamp(story.with_suffix(".json"))
        kept = _shelf.get(story)
        if kept is None or kept[0] != stamp:
            check_story(story)
            kept = _shelf[story] = stamp, Cartridge(story, file_hash(story), _read_logic(story))
            while len(_shelf) > _KEPT:
                _shelf.popitem(last=False)
        _shelf.move_to_end(story)
        return kept[1]


def check_story(story: Path) -> None:
    """Look at the header and checksum of a Z-machine story file.

    Raises:
        TaskError: it is not one, or it is damaged.
    """
    if not story.is_file():
        raise TaskError(f"the game file {story} is gone; put it back, or make the tasks again")
    data = story.read_bytes()
    if len(data) < 64 or story.suffix != f".z{data[0]}" or not 1 <= data[0] <= 8:
        raise TaskError(f"{story} is not a Z-machine game; give a .z8 story file or the .json that TextWorld saved")
    unit = 2 if data[0] <= 3 else 4 if data[0] <= 5 else 8
    length = int.from_bytes(data[26:28], "big") * unit
    if not length:
        return
    total = int(np.frombuffer(data[64:length], np.uint8).sum(dtype=np.int64)) & 0xFFFF
    if length > len(data) or total != int.from_bytes(data[28:30], "big"):
        raise TaskError(f"{story} is damaged (its own checksum does not match); copy or make the game again")


def _read_logic(story: Path) -> Game | None:
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


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_size
