"""Which games there are to play: generated ones of one or several difficulties, and the user's own files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from agentgym.bar import Progress
from agentgym.errors import UsageError, unknown_name
from agentgym.types import Task

from .cache import SPLIT_SHARES, GameStore
from .games import GameSettings
from .library import Library

GAMES = {"demo": 200, "train": 500, "valid": 60, "test": 60}
"""How many games each split holds unless told otherwise; of each level, where there are several."""
FILES = "files"
"""The split made of the user's own game files."""
PROMPT = "Play this text game and reach its goal. Answer with one command."


class Catalogue:
    """The tasks of every split, and where their files are."""

    def __init__(
        self,
        settings: GameSettings,
        levels: Sequence[Mapping[str, object]],
        sizes: Mapping[str, int],
        max_turns: int,
        library: Library,
        cache_dir: Path,
    ) -> None:
        for name in sizes:
            if name not in SPLIT_SHARES:
                raise unknown_name("split", name, SPLIT_SHARES)
        self._sizes = {**GAMES, **sizes}
        self._max_turns = max_turns
        self._library = library
        self._levelled = bool(levels)
        self._stores = [GameStore(chosen, cache_dir) for chosen in _each(settings, levels)]
        self._tasks: dict[str, tuple[Task, ...]] = {}
        self._by_id: dict[str, Task] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return (*self._sizes, *([FILES] if self._library.games else []))

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of ``split``, its levels in turns; no game is made for it."""
        if split not in self._tasks:
            if split not in self.splits:
                raise unknown_name("split", split, self.splits)
            made = self._of_files() if split == FILES else self._generated(split)
            self._tasks[split] = made
            self._by_id.update({task.id: task for task in made})
        return self._tasks[split]

    def find(self, task_id: str) -> Task:
        """Return the task of that id.

        Raises:
            UnknownNameError: there is none.
        """
        for split in self.splits:
            self.tasks(split)
        if task_id not in self._by_id:
            raise unknown_name("task", task_id, self._by_id)
        return self._by_id[task_id]

    def story(self, task: Task) -> Path:
        """Return the story file of ``task``, which is made if it is not there."""
        if task.split == FILES:
            return self._library.games[str(task.data["name"])]
        folder: Path = self._stores[task.data.get("level", 0)].ensure(task.split, task.data["index"])
        return folder / "game.z8"

    def prepare(self, split: str, count: int | None, workers: int, progress: Progress | None) -> None:
        """Make those of the first ``count`` games (None: all) that are not there; own files need no making."""
        tasks = self.tasks(split)[:count]
        if split == FILES:
            return
        before = 0
        for level, store in enumerate(self._stores):
            wanted = sum(task.data.get("level", 0) == level for task in tasks)
            store.prepare(split, wanted, workers, _shifted(progress, before, len(tasks)))
            before += wanted

    def _generated(self, split: str) -> tuple[Task, ...]:
        return tuple(
            self._task(split, index, level, store.settings)
            for index in range(self._sizes[split])
            for level, store in enumerate(self._stores)
        )

    def _task(self, split: str, index: int, level: int, settings: GameSettings) -> Task:
        data = {"index": index, **({"level": level} if self._levelled else {})}
        return Task(f"textworld/{settings.name}/{split}/{index}", PROMPT, self._max_turns, split=split, data=data)

    def _of_files(self) -> tuple[Task, ...]:
        return tuple(
            Task(f"textworld/{FILES}/{name}", PROMPT, self._max_turns, split=FILES, data={"name": name, "sha256": sha})
            for name, sha in self._library.hashes().items()
        )


def _each(settings: GameSettings, levels: Sequence[Mapping[str, object]]) -> list[GameSettings]:
    """Return the settings of every level: those given, with what the level says otherwise.

    Raises:
        UnknownNameError: a level sets what is no setting of games.
        UsageError: two levels make the same games.
    """
    for level in levels:
        for name in level:
            if name not in GameSettings.__slots__:
                raise unknown_name("setting of a level", name, GameSettings.__slots__)
    chosen = [replace(settings, **level) for level in levels] or [settings]  # type: ignore[arg-type]
    if len({one.key for one in chosen}) < len(chosen):
        raise UsageError("two levels make the same games; let each differ in a setting that its challenge reads")
    return chosen


def _shifted(progress: Progress | None, before: int, wanted: int) -> Progress | None:
    return None if progress is None else lambda ready, _: progress(before + ready, wanted)
