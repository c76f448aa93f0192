"""Which games there are to play: the real ones where there are any, else made-up ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import Literal

from agentgym.bar import Progress
from agentgym.errors import TaskError, unknown_name
from agentgym.types import Task

from . import data
from .generate import SPLITS, Settings, draft
from .store import GameStore

Source = Literal["auto", "real", "generated"]
GAMES = {"demo": 200, "train": 500, "valid_seen": 60, "valid_unseen": 60}
"""How many generated games each split holds unless told otherwise."""
_PATIENCE = 1000
"""So many games in a row that are too large mean that there are no small ones."""
PROMPT = "You are in a household. Do the task. Answer with one command."


class Games:
    """The tasks of every split, and where their files are."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        sizes: Mapping[str, int],
        max_turns: int,
        cache_dir: Path,
        *,
        partial: bool,
        most_places: int | None = None,
    ) -> None:
        for name in sizes:
            if name not in SPLITS:
                raise unknown_name("split", name, SPLITS)
        self._root = None if source == "generated" else data.real_data()
        if source == "real" and self._root is None:
            raise TaskError(f'there is no real data: set ${data.VARIABLE}, or give source="generated"')
        self.splits = tuple(data.PUBLISHED) if self._root else SPLITS
        self._settings = settings
        self._sizes = {**GAMES, **sizes}
        self._max_turns = max_turns
        self._partial = partial
        self._most_places = most_places
        self._store = GameStore(settings, cache_dir)
        self._tasks: dict[str, tuple[Task, ...]] = {}
        self._by_id: dict[str, Task] = {}

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of ``split``; no game is made for it."""
        if split not in self._tasks:
            if split not in self.splits:
                raise unknown_name("split", split, self.splits)
            made = self._real(self._root, split) if self._root else self._generated(split)
            self._tasks[split] = made
            self._by_id.update({task.id: task for task in made})
        return self._tasks[split]

    def find(self, task_id: str) -> Task:
        """Return the task of that id.

        Raises:
            UnknownNameError: there is none.
        """
        for split in self.splits:
            if f"/{split}/" in task_id:
                self.tasks(split)
        if task_id not in self._by_id:
            raise unknown_name("task", task_id, self._by_id)
        return self._by_id[task_id]

    def folder(self, task: Task) -> Path:
        """Return the folder of a task's game, which is made if it is not there."""
        if task.data["source"] == "real":
            if self._root is None:
                raise TaskError(f"'{task.id}' is a real game, but ${data.VARIABLE} names no data; set it")
            return self._root / task.split / str(task.data["folder"])
        return self._store.ensure(task.split, task.data["index"])

    def prepare(self, split: str, most: int | None, workers: int, progress: Progress | None) -> None:
        """Make those of the first ``most`` games (None: all) that are not there; real games need no making."""
        tasks = self.tasks(split)[:most]
        if self._root is None:
            self._store.prepare(split, [task.data["index"] for task in tasks], workers, progress)

    def _real(self, root: Path, split: str) -> tuple[Task, ...]:
        return tuple(
            self._task(f"alfworld/real/{split}/{game}", split, {"source": "real", "folder": game})
            for game in data.games(root, split, partial=self._partial)
            if game.partition("-")[0] in self._settings.task_types
        )

    def _generated(self, split: str) -> tuple[Task, ...]:
        name = "generated" if self._settings == Settings() else f"generated-{self._settings.key[:8]}"
        chosen = count() if self._most_places is None else _small(self._settings, split, self._most_places)
        return tuple(
            self._task(f"alfworld/{name}/{split}/{index}", split, {"source": "generated", "index": index})
            for index in islice(chosen, self._sizes[split])
        )

    def _task(self, task_id: str, split: str, known: Mapping[str, str | int]) -> Task:
        return Task(task_id, PROMPT, self._max_turns, split=split, data=known)


def _small(settings: Settings, split: str, most_places: int) -> Iterator[int]:
    """Yield the numbers of the games whose rooms have at most so many receptacles.

    Raises:
        TaskError: there are none.
    """
    last = -1
    for index in count():
        if _places(settings, split, index) <= most_places:
            last = index
            yield index
        elif index - last >= _PATIENCE:
            raise TaskError(f"no room for split '{split}' of {settings} has {most_places} receptacles or fewer")


@cache
def _places(settings: Settings, split: str, index: int) -> int:
    return len(draft(settings, split, index).scene.receptacles)
