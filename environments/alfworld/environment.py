"""ALFWorld as an agentgym environment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from gymnasium.error import ResetNeeded

from agentgym.bar import Progress, shown
from agentgym.env import Environment, Info, info
from agentgym.errors import TaskError, UsageError, unknown_name
from agentgym.files import default_cache_dir
from agentgym.spaces import ActionSpace, Messages
from agentgym.types import Action, Message, Observation, Signal, StopReason, Task, as_action

from . import oracle, wheel, words
from .engine import Engine, Saved, View
from .gamefile import read_game
from .games import Games, Source
from .generate import Settings
from .handcoded import HandcodedExpert
from .measure import SIGNALS, Measure
from .words import GoalStyle

Expert = Literal["oracle", "handcoded"]


class AlfworldEnvironment(Environment):
    """Household tasks in text: find things, clean, heat or cool them, and put them where they belong.

    Where ``$ALFWORLD_DATA`` holds the real data (`alfworld-download` fetches it), its three splits are played as they
    are. Elsewhere games are made up by the same rules, in the same rooms: splits ``train``, ``valid_seen``,
    ``valid_unseen`` and ``demo``. Every task's id and data say which of the two it is; scores on generated games are
    not comparable with published ones.

    What is measured (source ``alfworld``):

    ============ ========== =========================================================================================
    signal       turn       value
    ============ ========== =========================================================================================
    progress     each       change of 1 - (commands left to win) / (commands left at first), from -1 to 1; an episode's
                            sum is 1 if won
    subgoals     each       share of the task's steps (take, clean, place, …) first reached by this turn, in their order
    grounded     each       1 if the world carried the command out, else 0
    repeated     each       1 if the room stands as it stood before in this episode; the evidence names the state
    won          None       1 or 0, when the game is won, its turns are used up or it is cut from outside
    subgoals     None       share of the task's steps that were reached
    excess_steps None       turns taken beyond the shortest plan; not measured where the game was not won
    ============ ========== =========================================================================================

    Args:
        source: ``real``, ``generated``, or ``auto``: real where there is any.
        task_types: Which of ALFWorld's six task types are played (`wheel.TASK_TYPES`); none: all.
        scene_kinds: Kinds of rooms of generated games (`wheel.SCENE_KINDS`); none: all.
        clutter: At most so many of each thing that a generated game is not about; 0: an empty room.
        most_places: Only generated games in rooms with at most so many receptacles; they keep their numbers.
        seed: Seed of the whole set of generated games.
        games: How many generated games each split holds; splits left out keep their default (`GAMES`).
        partial: Whether real data may be incomplete.
        trust: Whether code in a game's grammar may be run. Give it only for files whose maker you know.
        split: Where ``reset`` without a task draws from.
        max_turns: Turns after which an episode is cut.
        cache_dir: Where games are kept; by default ``$AGENTGYM_CACHE`` or ``~/.cache/agentgym``.
        goal_style: ``templated``: the task as the game tells it; ``human``: as people put it (in generated games: in
            their manner).
        expert: Whose next command is told to scripted policies: ``oracle`` sees everything and is never longer than
            need be, ``handcoded`` is ALFWorld's own, which searches.
        show_admissible: Whether observations list the commands that can be carried out.
        hide: Commands, or first words of commands, left out of that list and of what scripted players choose from.
            They work all the same.
        unlisted: The same, left out of the list alone: with ``go`` it is short, since the opening says what there is.
        remind: Whether every observation ends by telling the task again, right before the commands.
    """

    def __init__(
        self,
        *,
        source: Source = "auto",
        task_types: Sequence[str] = (),
        scene_kinds: Sequence[str] = (),
        clutter: int = 3,
        most_places: int | None = None,
        seed: int = 0,
        games: Mapping[str, int] | None = None,
        partial: bool = False,
        trust: bool = False,
        split: str = "train",
        max_turns: int = 50,
        cache_dir: str | Path | None = None,
        goal_style: GoalStyle = "templated",
        expert: Expert = "oracle",
        show_admissible: bool = True,
        hide: Sequence[str] = ("examine", "look", "inventory", "help"),
        unlisted: Sequence[str] = (),
        remind: bool = False,
    ) -> None:
        self.metadata = {"render_modes": [], "signals": SIGNALS}
        self.observation_space = Messages()
        self.action_space = ActionSpace()
        for what, given, allowed in (
            ("source", source, Source),
            ("goal style", goal_style, GoalStyle),
            ("expert", expert, Expert),
        ):
            if given not in get_args(allowed):
                raise unknown_name(what, given, get_args(allowed))
        if max_turns < 1:
            raise UsageError(f"max_turns is {max_turns}; an episode has at least 1 turn")
        self.settings = Settings(
            tuple(task_types) or wheel.TASK_TYPES, tuple(scene_kinds) or wheel.SCENE_KINDS, clutter, seed
        )
        self._trust = trust
        self._cache_dir = Path(cache_dir).expanduser() if cache_dir else default_cache_dir()
        self._goal_style = goal_style
        self._expert_kind = expert
        self._show_admissible = show_admissible
        self._hide, self._unlisted = frozenset(hide), frozenset(unlisted)
        self._remind = remind
        self._games = Games(
            self.settings,
            source,
            games or {},
            max_turns,
            self._cache_dir,
            partial=partial,
            most_places=most_places,
        )
        self.split = split
        self.tasks(split)
        self._engine: Engine | None = None
        self._task: Task | None = None
        self._measure: Measure | None = None
        "None where no episode is under way."
        self._words = ""
        self._episode = 0
        self._saved: dict[str, tuple[Saved, Measure]] = {}

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of ``split``; no game is made for it."""
        return self._games.tasks(split)

    def prepare(
        self, split: str, *, count: int | None = None, workers: int = 2, progress: Progress | None = None
    ) -> None:
        """Make those of the first ``count`` games of ``split`` (None: all) that are not in the cache yet.

        ``workers`` are made at a time. Interrupted, it goes on where it stopped. ``progress`` is called with (ready,
        wanted); by default a bar is drawn if standard error is a terminal. Real games need no making.
        """
        with shown(f"ALFWorld games, {split}", progress) as advance:
            self._games.prepare(split, count, workers, advance)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Start an episode; see `Environment.reset`."""
        super().reset(seed=seed)
        self._task = task = self._chosen((options or {}).get("task"))
        self._measure = None
        self._saved.clear()
        self._episode += 1
        folder = self.folder(task)
        game = read_game(folder / "game.tw-pddl")
        trajectory = _read_trajectory(folder)
        if self._engine is None:
            self._engine = Engine(self._cache_dir, trust=self._trust)
        view = self._engine.load(game)
        self._words = words.task(view.feedback, trajectory, self._goal_style, task.id)
        handcoded = HandcodedExpert(trajectory, task.id, self._cache_dir) if self._expert_kind == "handcoded" else None
        self._measure = Measure(oracle.read_goal(trajectory), self._engine, handcoded)
        told = words.opening(view.feedback, "" if self._remind else self._words)
        return self._observation(told, view), self._info(view, ())

    def step(self, action: Action | str) -> tuple[Observation, float, bool, bool, Info]:
        """Act; see `Environment.step`. The reward is 1 when the game is won and else 0, as ALFWorld's."""
        engine, measure = self._playing()
        assert self._task is not None
        said = words.command(as_action(action).content)
        view = engine.step(said)
        signals = measure.turn(said, view, engine)
        cut = not view.won and measure.turns >= self._task.max_turns
        stop = StopReason.DONE if view.won else StopReason.MAX_TURNS if cut else None
        if stop:
            measure.ended = True
            signals += measure.verdict(view)
        observed, told = self._observation(view.feedback.strip(), view), self._info(view, signals, stop)
        return observed, float(view.won), view.won, cut, told

    def conclude(self) -> tuple[Signal, ...]:
        """End a game that is cut from outside, and return the verdict on it as it stands."""
        engine, measure = self._playing()
        measure.ended = True
        return measure.verdict(engine.view)

    def snapshot(self) -> str:
        """Save the episode as it stands; good until the next reset."""
        if self._engine is None or self._measure is None:
            raise ResetNeeded("there is nothing to save before reset()")
        state_ref = f"alfworld-{self._episode}-{len(self._saved)}"
        self._saved[state_ref] = (self._engine.save(), self._measure.copy())
        return state_ref

    def restore(self, state_ref: str) -> None:
        """Put the episode back as it stood at ``state_ref``, any number of times."""
        if state_ref not in self._saved or self._engine is None:
            raise unknown_name("snapshot of this episode", state_ref, self._saved)
        saved, measure = self._saved[state_ref]
        self._engine.restore(saved)
        self._measure = measure.copy()

    def close(self) -> None:
        """Free the engine. Closing twice is fine."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        self._measure = None
        self._saved.clear()

    def _playing(self) -> tuple[Engine, Measure]:
        if self._engine is None or self._measure is None or self._measure.ended:
            raise ResetNeeded("the episode is over or has not begun; call reset()")
        return self._engine, self._measure

    def _chosen(self, asked: Task | str | None) -> Task:
        if asked is None:
            tasks = self.tasks(self.split)
            if not tasks:
                raise UsageError(f"split '{self.split}' is empty; ask for more games or for another split")
            return tasks[int(self.np_random.integers(len(tasks)))]
        known = self._games.find(asked if isinstance(asked, str) else asked.id)
        return known if isinstance(asked, str) else asked

    def folder(self, task: Task) -> Path:
        """Return the folder of a task's game, which is made if it is not there."""
        return self._games.folder(task)

    def _observation(self, said: str, view: View) -> Observation:
        lines = [said]
        if self._remind and not view.won:
            lines.append(f"Task: {self._words}")
        if self._show_admissible and not view.won:
            shown = [command for command in self._open(view) if not _among(command, self._unlisted)]
            lines.append("Commands: " + (" | ".join(shown) or "none"))
        return (Message("user", "\n".join(lines)),)

    def _open(self, view: View) -> tuple[str, ...]:
        return tuple(command for command in view.admissible if not _among(command, self._hide))

    def _info(self, view: View, signals: tuple[Signal, ...], stop: StopReason | None = None) -> Info:
        assert self._task is not None
        assert self._measure is not None
        hints = {"admissible": self._open(view), "expert": self._measure.hint}
        return info(self._task, signals=signals, stop=stop, privileged=hints)


def _read_trajectory(folder: Path) -> Mapping[str, Any]:
    path = folder / "traj_data.json"
    try:
        found: Mapping[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise TaskError(f"{path} is gone; put it back, or make the tasks again") from None
    except ValueError as error:
        raise TaskError(f"{path} is damaged or was not copied whole ({error}); copy it again") from error
    return found


def _among(command: str, named: frozenset[str]) -> bool:
    """Whether a command is named, or its first word is."""
    return command in named or command.partition(" ")[0] in named
