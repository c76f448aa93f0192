"""Makes games and keeps them: deterministic, parallel, resumable, and never the same game in two splits.

One endless stream of seeds makes candidate games. What a game *is* (its rooms, things, places and quest; not its
prose) is hashed, and the hash alone says which split the game belongs to. So splits cannot share a game, a split
never depends on the size of another, and growing one keeps its first games. Making a candidate takes some 25 ms and
compiling a game that is wanted some 400 ms; both are kept in the cache::

    CACHE/textworld/SETTINGS-KEY/settings.json      what these games are
    CACHE/textworld/SETTINGS-KEY/contents.jsonl     candidate -> content hash, appended as candidates are made
    CACHE/textworld/SETTINGS-KEY/games/CANDIDATE/   game.z8, game.json: appears whole or not at all
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from agentgym.errors import InfrastructureError, TaskError, UsageError, missing_extra, unknown_name

try:
    from textworld.challenges import CHALLENGES
    from textworld.generator import KnowledgeBase, QuestGenerationError, generate_inform7_source, make_game
    from textworld.generator.game import Game, GameOptions
    from textworld.generator.inform7.world2inform7 import I7_DEFAULT_PATH
except ImportError as error:
    raise missing_extra("textworld", error.name or "textworld", "the TextWorld environment") from error

Challenge = Literal["custom", "coin_collector", "treasure_hunter"]
Theme = Literal["house", "basic"]
"""How TextWorld's own grammars tell a custom game: in a house full of named things, or plainly, as box5 in room2."""
Progress = Callable[[int, int], None]
"""Called with (games ready, games wanted)."""

CHALLENGE_LEVELS = {"coin_collector": 300, "treasure_hunter": 30}
GENERATOR_VERSION = 1
"""Raise it when the same settings would make other games."""
SPLIT_SHARES = {"demo": 4, "train": 8, "valid": 2, "test": 2}
"""Which part of all games, in sixteenths, belongs to each split."""
_SPLIT_OF_DIGIT = [split for split, share in SPLIT_SHARES.items() for _ in range(share)]
_PATIENCE = 1000
"""So many candidates in a row without a new game for a split mean that there are no more."""
_COMPILE_TIMEOUT_S = 180.0

one_at_a_time = threading.Lock()
"""Held for what is not thread-safe: TextWorld's generator and its parser, which reads saved games, and Python's
``warnings.catch_warnings``. Playing is, and the Inform compilers are processes; both run in parallel."""


@dataclass(frozen=True, slots=True)
class GameSettings:
    """What games to make: ``level`` says it for the challenges, the other sizes for custom games."""

    challenge: Challenge = "custom"
    rooms: int = 2
    objects: int = 3
    quest_length: int = 3
    level: int = 1
    theme: Theme = "house"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.challenge != "custom" and self.challenge not in CHALLENGE_LEVELS:
            known = ", ".join(["custom", *CHALLENGE_LEVELS])
            raise UsageError(f"no TextWorld challenge '{self.challenge}'; known: {known}")
        if self.theme not in get_args(Theme):
            raise unknown_name("TextWorld theme", self.theme, get_args(Theme))
        top = CHALLENGE_LEVELS.get(self.challenge)
        if top is not None and not 1 <= self.level <= top:
            raise UsageError(f"level of {self.challenge} is {self.level}; it goes from 1 to {top}")
        if min(self.rooms, self.objects, self.quest_length) < 1:
            raise UsageError(f"rooms, objects and quest_length are counts from 1 up, not {self}")

    @property
    def name(self) -> str:
        """Short and readable, such as ``custom-r2-o3-q3``; the seed is told where it is not 0."""
        custom = f"r{self.rooms}-o{self.objects}-q{self.quest_length}" + f"-{self.theme}" * (self.theme != "house")
        size = custom if self.challenge == "custom" else f"l{self.level}"
        return f"{self.challenge}-{size}" + (f"-s{self.seed}" if self.seed else "")

    def described(self) -> dict[str, Any]:
        """Everything that decides which games these settings make."""
        fields = asdict(self)
        unused = ("level",) if self.challenge == "custom" else ("rooms", "objects", "quest_length", "theme")
        chosen = {name: value for name, value in fields.items() if name not in unused}
        return {**chosen, "generator": GENERATOR_VERSION, "textworld": version("textworld")}

    @property
    def key(self) -> str:
        """Address of these games in the cache."""
        return f"{self.name}-{_hash(self.described())[:12]}"


def default_cache_dir() -> Path:
    """Return ``$AGENTGYM_CACHE``, or ``~/.cache/agentgym``."""
    return Path(os.environ.get("AGENTGYM_CACHE") or Path.home() / ".cache" / "agentgym")


def make(settings: GameSettings, candidate: int) -> Game | None:
    """Return candidate number ``candidate``, always the same; None where the generator finds no quest."""
    options = GameOptions()
    options.nb_rooms, options.nb_objects = settings.rooms, settings.objects
    options.quest_length = settings.quest_length
    options.grammar.theme = settings.theme
    options.grammar.include_adj = False
    options.grammar.blend_instructions = False
    options.grammar.blend_descriptions = False
    options.grammar.only_last_action = False
    options.seeds = int(np.random.SeedSequence([settings.seed, candidate]).generate_state(1)[0] >> 1)
    with one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # coin_collector plays its own solution, in an engine that warns
        try:
            if settings.challenge == "custom":
                options.kb = KnowledgeBase.default()
                return make_game(options)
            return CHALLENGES[f"tw-{settings.challenge}"][1]({"level": settings.level}, options)
        except QuestGenerationError:
            return None


def content_hash(game: Game) -> str:
    """Return a hash of what the game is: rooms, things, where they are, and the quest; not how the prose puts it."""
    name = {entity_id: info.name or entity_id for entity_id, info in game.infos.items()}
    facts = sorted([fact.name, *(name[arg.name] for arg in fact.arguments)] for fact in game.world.facts)
    quests = [quest.commands for quest in game.quests] or [game.metadata.get("walkthrough")]
    return _hash([facts, quests, game.metadata.get("walkthrough")])


def build(game: Game, folder: Path) -> None:
    """Compile ``game`` into ``folder``, which appears whole or not at all; one that is already there stays.

    Raises:
        InfrastructureError: the compiler failed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as workshop:
        made = Path(workshop) / "game"
        made.mkdir()
        _compile(game, Path(workshop), made / "game.z8")
        game.metadata["z8_sha256"] = file_hash(made / "game.z8")
        game.save(str(made / "game.json"))
        try:
            made.rename(folder)
        except OSError:
            if not (folder / "game.json").is_file():
                raise


def _compile(game: Game, workshop: Path, story: Path) -> None:
    """Run Inform 7 and Inform 6, as TextWorld does, without the index that nobody reads (0.1 s a game)."""
    inform = Path(os.environ.get("INFORM_HOME", I7_DEFAULT_PATH)) / "share" / "inform7"
    (workshop / "Source").mkdir()
    with one_at_a_time:
        source = generate_inform7_source(game)
    (workshop / "Source" / "story.ni").write_text(source)
    (workshop / "uuid.txt").touch()
    internal = str(inform / "Internal")
    inform7 = [str(inform / "Compilers" / "ni"), "--noindex", "--internal", internal, "--format=.z8"]
    inform6 = [str(inform / "Compilers" / "inform6"), "-E2wSv8F0", str(workshop / "Build" / "auto.inf"), str(story)]
    for command in ([*inform7, "--project", str(workshop)], inform6):
        done = subprocess.run(command, capture_output=True, timeout=_COMPILE_TIMEOUT_S, check=False)
        if done.returncode:
            tail = (done.stdout + done.stderr).decode(errors="replace")[-800:]
            raise InfrastructureError(f"{Path(command[0]).name} failed with {done.returncode} on a game: {tail}")


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


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
        if len(self._slots[split]) <= index:
            self._read_contents()
        since = 0
        while len(self._slots[split]) <= index:
            before = len(self._slots[split])
            self._admit(self._make_content(len(self._contents)))
            since = since + 1 if len(self._slots[split]) == before else 0
            if since >= _PATIENCE:
                raise TaskError(
                    f"{self.settings.name} makes only {before} different games for split '{split}', but game {index} "
                    "was asked for; ask for fewer games or for larger ones"
                )
        return self._slots[split][index]

    def ensure(self, split: str, index: int) -> Path:
        """Return the folder of a game, which is made if it is not there."""
        candidate = self.candidate(split, index)
        folder = self._game_folder(candidate)
        if not (folder / "game.json").is_file():
            self._build(candidate)
        return folder

    def missing(self, split: str, count: int) -> Sequence[int]:
        """Return the candidates among the first ``count`` games of ``split`` that are not in the cache."""
        wanted = [self.candidate(split, index) for index in range(count)]
        return [candidate for candidate in wanted if not (self._game_folder(candidate) / "game.json").is_file()]

    def prepare(self, split: str, count: int, workers: int, progress: Progress | None) -> None:
        """Make the first ``count`` games of ``split``, ``workers`` at a time. Interrupted, it goes on where it was."""
        missing = self.missing(split, count)
        ready = count - len(missing)
        if progress:
            progress(ready, count)
        with ThreadPoolExecutor(max(1, workers), thread_name_prefix="textworld-build") as pool:
            jobs = [pool.submit(self._build, candidate) for candidate in missing]
            try:
                for done in as_completed(jobs):
                    done.result()
                    ready += 1
                    if progress:
                        progress(ready, count)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _build(self, candidate: int) -> None:
        game = make(self.settings, candidate)
        if game is None:
            raise InfrastructureError(f"{self.settings.name}: candidate {candidate} is no game any more")
        build(game, self._game_folder(candidate))

    def forget(self, folder: Path) -> None:
        """Take a damaged game out of the cache."""
        shutil.rmtree(folder, ignore_errors=True)

    def _game_folder(self, candidate: int) -> Path:
        return self.folder / "games" / str(candidate)

    def _make_content(self, candidate: int) -> str | None:
        game = make(self.settings, candidate)
        content = None if game is None else content_hash(game)
        line = json.dumps({"candidate": candidate, "content": content}) + "\n"
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "settings.json").write_text(json.dumps(self.settings.described(), indent=1))
        with (self.folder / "contents.jsonl").open("a") as file:
            file.write(line)
        return content

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
