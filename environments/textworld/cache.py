"""Keeps games: each in one split only, made when asked for, side by side and resumably.

One endless stream of seeds makes candidate games. What a game *is* (its rooms, things, places and quest; not its
prose) is hashed, and the hash alone says which split the game belongs to. So splits cannot share a game, a split
never depends on the size of another, and growing one keeps its first games. Making a candidate takes some 25 ms and
compiling a game that is wanted some 400 ms; both are kept in the cache::

    CACHE/textworld/SETTINGS-KEY/settings.json      what these games are
    CACHE/textworld/SETTINGS-KEY/contents.jsonl     candidate -> content hash, appended as candidates are made
    CACHE/textworld/SETTINGS-KEY/games/CANDIDATE/   game.z8, game.json: appears whole or not at all
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, as_completed
from functools import partial
from pathlib import Path

from agentgym.bar import Progress
from agentgym.errors import TaskError

from .games import GameSettings, build_candidate, content_of
from .makers import Makers

SPLIT_SHARES = {"demo": 4, "train": 8, "valid": 2, "test": 2}
"""Which part of all games, in sixteenths, belongs to each split."""
_SPLIT_OF_DIGIT = [split for split, share in SPLIT_SHARES.items() for _ in range(share)]
_PATIENCE = 1000
"""So many candidates in a row without a new game for a split mean that there are no more."""


class GameStore:
    """The games of one `GameSettings`, made when asked for and kept in the cache."""

    def __init__(self, settings: GameSettings, cache_dir: Path) -> None:
        self.settings = settings
        self.folder = cache_dir / "textworld" / settings.key
        self._contents: list[str | None] = []
        self._slots: dict[str, list[int]] = {split: [] for split in SPLIT_SHARES}
        self._seen: set[str] = set()

    def candidate(self, split: str, index: int) -> int:
        """Return which candidate is game ``index`` of ``split``, making candidates until that is known.

        Raises:
            TaskError: these settings do not make so many different games.
        """
        return self._grow(split, index, partial(content_of, self.settings))

    def ensure(self, split: str, index: int) -> Path:
        """Return the folder of a game, which is made if it is not there."""
        candidate = self.candidate(split, index)
        folder = self._game_folder(candidate)
        if not self._is_built(candidate):
            build_candidate(self.settings, candidate, folder)
        return folder

    def prepare(self, split: str, count: int, workers: int, progress: Progress | None) -> None:
        """Make the first ``count`` games of ``split``, ``workers`` at a time. Interrupted, it goes on where it was."""
        ready, jobs = 0, list[Future[None]]()

        def report() -> None:
            if progress:
                progress(ready + sum(job.done() for job in jobs), count)

        with Makers(self.settings, workers) as makers:
            for index in range(count):
                candidate = self._grow(split, index, makers.content)
                if self._is_built(candidate):
                    ready += 1
                else:
                    jobs.append(makers.build(candidate, self._game_folder(candidate)))
                report()
            for job in as_completed(jobs):
                job.result()
                report()

    def forget(self, folder: Path) -> None:
        """Take a damaged game out of the cache."""
        shutil.rmtree(folder, ignore_errors=True)

    def _grow(self, split: str, index: int, content: Callable[[int], str | None]) -> int:
        if len(self._slots[split]) <= index:
            self._read_contents()
        since = 0
        while len(self._slots[split]) <= index:
            before, candidate = len(self._slots[split]), len(self._contents)
            found = content(candidate)
            self._write_content(candidate, found)
            self._admit(found)
            since = since + 1 if len(self._slots[split]) == before else 0
            if since >= _PATIENCE:
                raise TaskError(
                    f"{self.settings.name} makes only {before} different games for split '{split}', but game {index} "
                    "was asked for; ask for fewer games or for larger ones"
                )
        return self._slots[split][index]

    def _is_built(self, candidate: int) -> bool:
        return (self._game_folder(candidate) / "game.json").is_file()

    def _game_folder(self, candidate: int) -> Path:
        return self.folder / "games" / str(candidate)

    def _write_content(self, candidate: int, content: str | None) -> None:
        line = json.dumps({"candidate": candidate, "content": content}) + "\n"
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "settings.json").write_text(json.dumps(self.settings.described(), indent=1))
        with (self.folder / "contents.jsonl").open("a") as file:
            file.write(line)

    def _admit(self, content: str | None) -> None:
        candidate = len(self._contents)
        self._contents.append(content)
        if content is not None and content not in self._seen:
            self._seen.add(content)
            self._slots[_SPLIT_OF_DIGIT[int(content[0], 16)]].append(candidate)

    def _read_contents(self) -> None:
        known = dict(self._stored_contents())
        while len(self._contents) in known:
            self._admit(known[len(self._contents)])

    def _stored_contents(self) -> Iterator[tuple[int, str | None]]:
        """Yield what is on file; a line cut short by an interruption is passed over and made again."""
        path = self.folder / "contents.jsonl"
        for line in path.read_text().splitlines() if path.is_file() else ():
            try:
                entry = json.loads(line)
                yield int(entry["candidate"]), entry["content"]
            except (ValueError, KeyError, TypeError):
                continue
