"""Keeps made-up games in ALFWorld's own layout, made when asked for, side by side and resumably::

    CACHE/alfworld/KEY/settings.json       what these games are
    CACHE/alfworld/KEY/json_2.1.1/SPLIT/TASK-…-SCENE/trial_SPLIT_INDEX_HASH/
                                           traj_data.json, initial_state.pddl, game.tw-pddl
    CACHE/alfworld/KEY/index/SPLIT/INDEX   where a game is, once it is there whole

KEY is a hash of the settings. A game appears whole or not at all, and only after a player who sees everything has won
it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentgym.bar import Progress
from agentgym.errors import InfrastructureError
from agentgym.remote import Worker

from . import written
from .engine import Engine
from .gamefile import read_game
from .generate import Draft, Settings, draft
from .oracle import commands, plan, read_goal
from .room import furniture, look

DATA_FOLDER = "json_2.1.1"
_MAKE_TIMEOUT_S = 600.0


class GameStore:
    """The games of one `Settings`."""

    def __init__(self, settings: Settings, cache_dir: Path) -> None:
        self.settings = settings
        self.folder = cache_dir / "alfworld" / settings.key
        self._cache_dir = cache_dir

    def ensure(self, split: str, index: int) -> Path:
        """Return the folder of a game, which is made if it is not there."""
        return self._made(split, index) or make(self.settings, self._cache_dir, split, index)

    def prepare(self, split: str, indices: Sequence[int], workers: int, progress: Progress | None) -> None:
        """Make these games of ``split``, ``workers`` at a time. Interrupted, it goes on where it was."""
        missing = [index for index in indices if self._made(split, index) is None]
        ready = len(indices) - len(missing)
        if progress:
            progress(ready, len(indices))
        with _Makers(min(workers, len(missing)) or 1) as makers:
            for job in as_completed([makers.make(self.settings, self._cache_dir, split, index) for index in missing]):
                job.result()
                ready += 1
                if progress:
                    progress(ready, len(indices))

    def _made(self, split: str, index: int) -> Path | None:
        try:
            folder = self.folder / (self.folder / "index" / split / str(index)).read_text()
        except FileNotFoundError:
            return None
        return folder if (folder / "game.tw-pddl").is_file() else None


def make(settings: Settings, cache_dir: Path, split: str, index: int) -> Path:
    """Make one game, prove that it can be won, put it into the cache, and return its folder.

    Raises:
        InfrastructureError: the plan does not win it, which is a fault of the generator.
    """
    root = cache_dir / "alfworld" / settings.key
    drawn = draft(settings, split, index)
    trial = f"trial_{split}_{index:05d}_{drawn.content[:8]}"
    place = Path(DATA_FOLDER) / split / drawn.name / trial
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    _described(settings, root)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=root) as workshop:
        made = Path(workshop) / "game"
        made.mkdir()
        _write(drawn, trial, made, cache_dir)
        try:
            made.rename(root / place)
        except OSError:  # another process was faster
            if not (root / place / "game.tw-pddl").is_file():
                raise
    _put(root / "index" / split / str(index), str(place))
    return root / place


def make_here(settings: dict[str, Any], cache_dir: str, split: str, index: int) -> None:
    """Make one game, in a worker."""
    lists = {name: tuple(settings[name]) for name in ("task_types", "scene_kinds")}
    make(Settings(**{**settings, **lists}), Path(cache_dir), split, index)


class _Makers:
    """Processes that make games side by side."""

    def __init__(self, workers: int) -> None:
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="alfworld-make")
        self._idle = list(range(workers))
        self._workers: dict[int, Worker] = {}

    def make(self, settings: Settings, cache_dir: Path, split: str, index: int) -> Future[None]:
        """Make one game when its turn comes."""
        return self._threads.submit(
            self._ask, settings=asdict(settings), cache_dir=str(cache_dir), split=split, index=index
        )

    def __enter__(self) -> _Makers:
        return self

    def __exit__(self, *exc: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers.values():
            worker.close()

    def _ask(self, **arguments: Any) -> None:
        number = self._idle.pop()
        try:
            if number not in self._workers:
                self._workers[number] = Worker(f"ALFWorld game maker {number}")
            self._workers[number].run(make_here, _MAKE_TIMEOUT_S, **arguments)
        finally:
            self._idle.append(number)


def _write(drawn: Draft, trial: str, folder: Path, cache_dir: Path) -> None:
    trajectory = written.trajectory(drawn, trial)
    (folder / "traj_data.json").write_text(json.dumps(trajectory, indent=1))
    game = written.game(drawn, trial, ())
    (folder / "initial_state.pddl").write_text(game["pddl_problem"])
    path = folder / "game.tw-pddl"
    path.write_text(json.dumps(game))
    path.write_text(json.dumps({**game, "walkthrough": walkthrough(path, cache_dir)}))


def walkthrough(path: Path, cache_dir: Path) -> list[str]:
    """Return the commands that win a game, after winning it with them.

    Raises:
        InfrastructureError: they do not win.
    """
    goal = read_goal(json.loads((path.parent / "traj_data.json").read_text()))
    with closing(Engine(cache_dir)) as engine:
        engine.load(read_game(path))
        room = look(engine.facts, furniture(engine.facts))
        errands = plan(room, goal)
        said = list(commands(room, errands or (), engine.name_of))
        for command in said:
            if not engine.step(command).understood:
                raise InfrastructureError(f"{path.parent.name}: '{command}' of the plan {said} is not possible")
        if not engine.view.won or not said:
            raise InfrastructureError(f"{path.parent.name}: the plan {said} does not win {goal}")
    return said


def _described(settings: Settings, root: Path) -> None:
    if not (root / "settings.json").is_file():
        _put(root / "settings.json", json.dumps(settings.described(), indent=1))


def _put(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".making-", dir=path.parent)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(name).rename(path)
