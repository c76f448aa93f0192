"""TextWorld games as an agentgym environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gymnasium.error import ResetNeeded

from agentgym.bar import Progress, shown
from agentgym.env import Environment, Info, info
from agentgym.errors import UsageError, unknown_name
from agentgym.files import default_cache_dir
from agentgym.spaces import ActionSpace, Messages
from agentgym.types import Action, Message, Observation, Signal, StopReason, Task, as_action

from . import text
from .catalogue import FILES, Catalogue
from .engine import Engine, Saved, Scene
from .games import SKILLS, Challenge, GameSettings, Goal, Rewards, Theme
from .library import Library

SOURCE = "textworld"
SIGNALS = ("progress", "grounded", "score", "repeated", "won", "lost", "excess_steps")

READING = "examine cookbook"
"""What has to be done to know a recipe: it is listed, though other things that only tell are not."""

_NO_LOGIC = "the game has no TextWorld logic (.json) beside it"
_NO_PLAN = "no winning plan is known for this game"
_NO_SCORE = "the game keeps no score"
_NO_STATE = "the state of this game cannot be told"


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where an episode stands, beside the game itself."""

    turns: int = 0
    progress: float | None = None
    "1: won, 0: as far as at the start, negative: farther away; None: not known for this game."
    seen: frozenset[str] = frozenset()
    "States that were visited."
    read: bool = False
    "Whether the recipe was read."
    ended: bool = False


class TextWorldEnvironment(Environment):
    """Text games: go, open, take, put and unlock until the objective is reached.

    Splits ``demo``, ``train``, ``valid`` and ``test`` hold generated games, no game twice; ``files`` holds the user's.
    Games are made on the spot when first asked for; `prepare` makes many at once.

    What is measured (source ``textworld``):

    ============ ========== =========================================================================================
    signal       turn       value
    ============ ========== =========================================================================================
    progress     each       change of 1 - (commands left to win) / (commands left at first), which goes from -1 to 1;
                            a game that cannot be won any more stands no better than at first, so the sum of an
                            episode is 1 if won and otherwise below
    grounded     each       1 if the world carried the command out, 0 if it was not understood, impossible or empty
    score        each       points gained, as a share of the highest score
    repeated     each       1 if the world stands as it stood before in this episode; the evidence names the state
    won, lost    None       1 or 0, when the game ends, its turns are used up or it is cut from outside
    score        None       points in the end, as a share of the highest score
    excess_steps None       turns taken beyond the plan known at first; not measured where the game was not won
    ============ ========== =========================================================================================

    Foreign story files (``.z3`` to ``.z8``), without TextWorld's ``.json``, have no progress and no command list. Of
    the games that Jericho supports, score, end and states are known; of others, the text alone. Of cooking games with
    the skill ``drop`` TextWorld knows no plan, so their progress is unmeasured.

    Args:
        challenge: ``custom`` (rooms, objects, quest_length), or TextWorld's ``coin_collector`` or ``treasure_hunter``
            (level), ``simple`` (rewards, goal) or ``cooking`` (skills).
        rooms: Rooms of a custom game.
        objects: Things in a custom game.
        quest_length: Commands that a custom game's objective takes.
        level: Difficulty of a challenge.
        theme: How a custom game is told: ``house`` names things as people do; ``basic`` is plain and short;
            ``plain`` is so too, with few different names.
        rewards: How often a simple game's score rises: ``dense``, ``balanced`` or ``sparse``.
        goal: How much a simple game tells of its objective: ``detailed``, ``brief`` or ``none``.
        skills: What a cooking game takes: ``recipe`` (ingredients), ``take`` (how many of them are to be found),
            ``go`` (rooms: 1, 6, 9 or 12), and whether ``open``, ``cook``, ``cut`` and ``drop`` are needed.
        levels: Difficulties, the easiest first: each a table of those settings above, or of skills, that it changes.
            Their games take turns in every split, and tasks say their level, which a curriculum reads.
        games: How many games each split holds, of each level; splits left out keep their default (`GAMES`).
        seed: Seed of the whole set of games.
        files: Own games: ``.z8`` (best with TextWorld's ``.json`` beside it) or TextWorld's ``.json`` alone.
        split: Where ``reset`` without a task draws from; by default ``files`` if there are any, else ``train``.
        max_turns: Turns after which an episode is cut.
        cache_dir: Where games are kept; by default ``$AGENTGYM_CACHE`` or ``~/.cache/agentgym``.
        show_admissible: Whether observations list the commands that make sense.
        hide: Commands, or first words of commands, left out of that list. They work all the same.
        terse: Whether the objective is told without TextWorld's words of welcome and farewell (some 25 tokens).
        remind: Whether every observation ends by telling the objective again, right before the commands.
    """

    def __init__(
        self,
        *,
        challenge: Challenge = "custom",
        rooms: int = 2,
        objects: int = 3,
        quest_length: int = 3,
        level: int = 1,
        theme: Theme = "house",
        rewards: Rewards = "dense",
        goal: Goal = "detailed",
        skills: Mapping[str, Any] | None = None,
        levels: Sequence[Mapping[str, Any]] = (),
        games: Mapping[str, int] | None = None,
        seed: int = 0,
        files: Sequence[str | Path] = (),
        split: str | None = None,
        max_turns: int = 30,
        cache_dir: str | Path | None = None,
        show_admissible: bool = True,
        hide: Sequence[str] = ("examine", "look", "inventory"),
        terse: bool = True,
        remind: bool = False,
    ) -> None:
        self.metadata = {"render_modes": [], "signals": SIGNALS}
        self.observation_space = Messages()
        self.action_space = ActionSpace()
        for name in skills or {}:
            if name not in SKILLS:
                raise unknown_name("cooking skill", name, SKILLS)
        self.settings = GameSettings(
            challenge, rooms, objects, quest_length, level, theme, seed, rewards, goal, **(skills or {})
        )
        if max_turns < 1:
            raise UsageError(f"max_turns is {max_turns}; an episode has at least 1 turn")
        self._show_admissible = show_admissible
        self._hide = tuple(hide)
        self._terse = terse
        self._remind = remind
        cache = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        self._library = Library([Path(file).expanduser() for file in files], cache)
        self._games = Catalogue(self.settings, levels, games or {}, max_turns, self._library, cache)
        self.split = split or (FILES if files else "train")
        self.tasks(self.split)
        self._engine: Engine | None = None
        self._task: Task | None = None
        self._standing = _Standing(ended=True)
        self._first_plan = 0
        self._shown: tuple[tuple[str, ...], str] = ((), "")
        self._episode = 0
        self._saved: dict[str, tuple[Saved, _Standing]] = {}

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of ``split``; no game is made for it."""
        return self._games.tasks(split)

    def prepare(
        self, split: str, *, count: int | None = None, workers: int = 2, progress: Progress | None = None
    ) -> None:
        """Make those of the first ``count`` games of ``split`` (None: all) that are not in the cache yet.

        ``workers`` are made at a time. Interrupted, it goes on where it stopped. ``progress`` is called with (ready,
        wanted); by default a bar is drawn if standard error is a terminal.
        """
        with shown(f"TextWorld games, {split}", progress) as advance:
            self._games.prepare(split, count, workers, advance)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Start an episode; see `Environment.reset`."""
        super().reset(seed=seed)
        self._task = task = self._chosen((options or {}).get("task"))
        self._standing = _Standing(ended=True)
        self._saved.clear()
        self._episode += 1
        self._engine = self._library.engine(self.story(task), task.data.get("sha256"), self._engine)
        scene = self._engine.reset()
        self._first_plan = len(scene.plan or ())
        self._standing = _Standing(progress=0.0 if self._first_plan else None, seen=frozenset([scene.signature]))
        room = text.opening(scene.raw, self._engine.objective)
        holding = text.clean(self._engine.aside("inventory")) if self._engine.game else ""
        lines = ("" if self._remind else self._goal(), room, holding)
        observed = self._observation("\n".join(line for line in lines if line), scene)
        return observed, self._info(scene, ())

    def step(self, action: Action | str) -> tuple[Observation, float, bool, bool, Info]:
        """Act; see `Environment.step`. The reward is the gain in score, as a share of the highest score."""
        if self._standing.ended or self._engine is None or self._task is None:
            raise ResetNeeded("the episode is over or has not begun; call reset()")
        before, standing = self._engine.scene, self._standing
        command = text.command(as_action(action).content)
        if not command or text.out_of_world(command):
            scene = replace(before, raw=text.REFUSED, understood=False)
        else:
            scene = self._engine.step(command)
        progress = self._progress(scene)
        done = scene.won or scene.lost
        cut = not done and standing.turns + 1 >= self._task.max_turns
        self._standing = _Standing(
            standing.turns + 1,
            progress,
            standing.seen | {scene.signature},
            standing.read or (command == READING and scene.understood),
            done or cut,
        )
        gain = self._score(scene.score - before.score)
        signals: tuple[Signal, ...] = (
            self._delta("progress", standing.progress, progress, standing.turns),
            Signal("grounded", float(scene.understood), SOURCE, standing.turns),
            Signal("score", gain, SOURCE, standing.turns, cause="" if gain is not None else _NO_SCORE),
            _repeated(scene, standing),
        )
        stop = StopReason.DONE if done else StopReason.MAX_TURNS if cut else None
        if stop:
            signals += self._verdict(scene)
        observed = self._observation(text.clean(scene.raw), scene)
        return observed, gain or 0.0, done, cut, self._info(scene, signals, stop)

    def conclude(self) -> tuple[Signal, ...]:
        """End a game that is cut from outside, and return the verdict on it as it stands."""
        if self._standing.ended or self._engine is None:
            raise ResetNeeded("the episode is over or has not begun; call reset()")
        self._standing = replace(self._standing, ended=True)
        return self._verdict(self._engine.scene)

    def snapshot(self) -> str:
        """Save the episode as it stands; good until the next reset."""
        if self._engine is None:
            raise ResetNeeded("there is nothing to save before reset()")
        state_ref = f"textworld-{self._episode}-{len(self._saved)}"
        self._saved[state_ref] = (self._engine.save(), self._standing)
        return state_ref

    def restore(self, state_ref: str) -> None:
        """Put the episode back as it stood at ``state_ref``, any number of times."""
        if state_ref not in self._saved or self._engine is None:
            raise unknown_name("snapshot of this episode", state_ref, self._saved)
        saved, self._standing = self._saved[state_ref]
        self._engine.load(saved)

    def close(self) -> None:
        """Free the interpreter. Closing twice is fine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        self._standing = _Standing(ended=True)
        self._saved.clear()

    def _chosen(self, asked: Task | str | None) -> Task:
        if asked is None:
            tasks = self.tasks(self.split)
            if not tasks:
                raise UsageError(f"split '{self.split}' is empty; give games={{'{self.split}': n}} or another split")
            return tasks[int(self.np_random.integers(len(tasks)))]
        known = self._games.find(asked if isinstance(asked, str) else asked.id)
        return known if isinstance(asked, str) else asked

    def story(self, task: Task) -> Path:
        """Return the story file of ``task``, which is made if it is not there."""
        return self._games.story(task)

    def _progress(self, scene: Scene) -> float | None:
        """Share of the winning plan that is done. A game that cannot be won any more stands no better than at first."""
        before = self._standing.progress
        if before is None:
            return None
        if scene.won:
            return 1.0
        if scene.plan is None:
            return min(before, 0.0)
        return max(-1.0, 1.0 - len(scene.plan) / self._first_plan)

    def _delta(self, name: str, before: float | None, after: float | None, turn: int) -> Signal:
        if before is None or after is None:
            has_logic = self._engine is not None and self._engine.game is not None
            return Signal(name, None, SOURCE, turn, cause=_NO_PLAN if has_logic else _NO_LOGIC)
        return Signal(name, after - before, SOURCE, turn)

    def _score(self, points: int) -> float | None:
        highest = self._engine.max_score if self._engine else 0
        return points / highest if highest else None

    def _verdict(self, scene: Scene) -> tuple[Signal, ...]:
        """What is said of the trajectory as a whole."""
        score = self._score(scene.score)
        known = scene.won and self._first_plan > 0
        why = _NO_PLAN if scene.won else "the game was not won"
        return (
            Signal("won", float(scene.won), SOURCE),
            Signal("lost", float(scene.lost), SOURCE),
            Signal("score", score, SOURCE, cause="" if score is not None else _NO_SCORE),
            Signal(
                "excess_steps",
                float(self._standing.turns - self._first_plan) if known else None,
                SOURCE,
                cause="" if known else why,
            ),
        )

    def _goal(self) -> str:
        assert self._engine is not None
        objective = self._engine.objective
        return text.terse(objective) if self._terse else objective

    def _observation(self, said: str, scene: Scene) -> Observation:
        if self._remind and not (scene.won or scene.lost):
            said = f"{said}\nGoal: {self._goal()}"
        if not (self._show_admissible and scene.admissible) or scene.won or scene.lost:
            return (Message("user", said),)
        if self._shown[0] is not scene.admissible:
            commands = [command for command in scene.admissible if not self._hidden(command)]
            self._shown = (scene.admissible, "\nCommands: " + " | ".join(commands))
        return (Message("user", said + self._shown[1]),)

    def _hidden(self, command: str) -> bool:
        return command in self._hide or (command != READING and command.partition(" ")[0] in self._hide)

    def _info(self, scene: Scene, signals: tuple[Signal, ...], stop: StopReason | None = None) -> Info:
        assert self._task is not None
        hints = {"admissible": scene.admissible, "expert": self._expert(scene)}
        return info(self._task, signals=signals, stop=stop, privileged=hints)

    def _expert(self, scene: Scene) -> str | None:
        """Return the plan's next command; a recipe is read first, so that who watches can know why."""
        if scene.plan and not self._standing.read and READING in scene.admissible:
            return READING
        return scene.plan[0] if scene.plan else None


def _repeated(scene: Scene, standing: _Standing) -> Signal:
    if not scene.signature:
        return Signal("repeated", None, SOURCE, standing.turns, cause=_NO_STATE)
    again = float(scene.signature in standing.seen)
    return Signal("repeated", again, SOURCE, standing.turns, evidence=scene.signature)
