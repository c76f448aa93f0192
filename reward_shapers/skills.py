"""Skills with rubrics of their own: each step is routed to a skill, whose criteria are then verified (SCRIBE).

A judge that must say whether given criteria are met varies less than one that is asked how good a step is. Source:
arXiv 2601.03555, of which the formula of the reward and the schema of the rubric are not public: how criteria add up
is a parameter without default.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from agentgym.errors import ConfigError, JudgeError, unknown_name
from agentgym.judge import Judge, Question
from agentgym.judging.contentless import contentless
from agentgym.probe import OpenAt
from agentgym.reward import Amount, Shaper, per_trajectory
from agentgym.types import Group, Signal, Trajectory

from .asking import Contentless, history, said, source, transcript, verdict, without_content

ROUTED, CRITERION = "skill_routed", "skill_criterion"
NO_SKILL = "none"

Adds = Literal["mean", "all"]


@dataclass(frozen=True, slots=True)
class Skill:
    """A kind of sub-goal, and what doing it well means.

    Raises:
        ConfigError: it has no criteria.
    """

    name: str
    description: str
    criteria: tuple[str, ...]
    "Each is met or not."

    def __post_init__(self) -> None:
        if not self.criteria:
            raise ConfigError(f"skill '{self.name}' has no criteria")


class SkillJudge:
    """Emits ``skill_routed`` at each turn, 1 where it needs a skill of the library, 0 where none fits.

    For the skill it emits ``skill_criterion`` for each criterion, item ``skill/1`` and so on: 1 met, 0 not. Two
    questions a turn: which skill, and which criteria. A turn without content is routed nowhere.

    Raises:
        ConfigError: no skills, or two of one name.
    """

    signals = frozenset({ROUTED, CRITERION})

    def __init__(self, judge: Judge, library: Sequence[Skill], *, contentless: Contentless = contentless) -> None:
        names = [skill.name for skill in library]
        if not names or len(set(names)) < len(names) or NO_SKILL in names:
            raise ConfigError(f"skills need at least one, with names that differ and are not '{NO_SKILL}'; got {names}")
        self.judge = judge
        self.library = {skill.name: skill for skill in library}
        self.contentless = contentless

    @property
    def name(self) -> str:
        """The ``source`` of its signals."""
        return source("skills", self.judge)

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return the signals of each trajectory, turn by turn."""
        measured = (
            asyncio.gather(*(self._turn(each, turn) for turn in range(len(each.turns)))) for each in group.trajectories
        )
        return [tuple(s for turn in turns for s in turn) for turns in await asyncio.gather(*measured)]

    async def _turn(self, trajectory: Trajectory, turn: int) -> list[Signal]:
        text = said(trajectory.turns[turn].sample.message)
        why = self.contentless(text, trajectory.task.prompt)
        if why:
            return [without_content(Signal(ROUTED, None, self.name, turn), why)]
        material = {
            "task": trajectory.task.prompt,
            "conversation": transcript(history(trajectory, turn)[:-1]),
            "step": text,
        }
        try:
            routed = await self.judge.ask(self._route(material))
        except JudgeError as error:
            return [Signal(ROUTED, None, self.name, turn, cause=f"JudgeError: {error}")]
        skill = self.library.get(str(routed.value["skill"]))
        found = Signal(
            ROUTED,
            float(skill is not None),
            self.name,
            turn,
            cost=routed.cost,
            evidence=f"{routed.value['skill']}: {routed.reason}",
        )
        return [found] if skill is None else [found, *await self._verify(skill, material, turn)]

    async def _verify(self, skill: Skill, material: dict[str, str], turn: int) -> list[Signal]:
        items = [f"{skill.name}/{number + 1}" for number in range(len(skill.criteria))]
        keys = [f"criterion_{number + 1}" for number in range(len(skill.criteria))]
        listed = "\n".join(f"{key}: {text}" for key, text in zip(keys, skill.criteria, strict=True))
        asked = Question(
            f"Does the step meet each of these criteria for the skill '{skill.name}' ({skill.description})?\n{listed}",
            material,
            verdict(**{key: {"type": "boolean"} for key in keys}),
        )
        try:
            answer = await self.judge.ask(asked)
        except JudgeError as error:
            return [Signal(CRITERION, None, self.name, turn, item, f"JudgeError: {error}") for item in items]
        return [
            Signal(
                CRITERION,
                float(answer.value[key]),
                self.name,
                turn,
                item,
                cost=answer.cost / len(keys),
                evidence=f"{text} → {answer.reason}",
            )
            for item, key, text in zip(items, keys, skill.criteria, strict=True)
        ]

    def _route(self, material: dict[str, str]) -> Question:
        listed = "\n".join(f"- {skill.name}: {skill.description}" for skill in self.library.values())
        return Question(
            f"Which skill does the sub-goal of this step call for? Say '{NO_SKILL}' where none fits.\n{listed}",
            material,
            verdict(skill={"type": "string", "enum": [NO_SKILL, *self.library]}),
        )


def skilled(adds: Adds, *, name: str = "skilled") -> Shaper:
    """Return at each turn how well its skill was done, in [0, 1], and 0 at a turn that no skill fits.

    ``mean`` pays the share of the criteria that are met, ``all`` pays 1 where all are. Unmeasured where it depends on
    a criterion that is, or on the routing.

    Breaks *bounded*: every turn is paid.

    Raises:
        UnknownNameError: another way to add up.
    """
    if adds not in get_args(Adds):
        raise unknown_name("way to add up criteria", adds, get_args(Adds))
    reduce = _REDUCE[adds]

    def per_turn(trajectory: Trajectory) -> list[Amount]:
        routed: dict[int | None, float | None] = {}
        criteria: dict[int | None, dict[str, float | None]] = {}
        for signal in trajectory.signals:
            if signal.name == ROUTED:
                routed[signal.turn] = signal.value
            elif signal.name == CRITERION:
                criteria.setdefault(signal.turn, {})[signal.item] = signal.value
        turns = range(len(trajectory.turns))
        return [reduce([*criteria.get(t, {}).values()]) if routed.get(t) == 1 else routed.get(t) for t in turns]

    return per_trajectory(name, per_turn, scope="turn", signals={ROUTED, CRITERION}, low=0.0, high=1.0)


def _mean(met: Sequence[float | None]) -> Amount:
    known = [value for value in met if value is not None]
    return sum(known) / len(known) if known and len(known) == len(met) else None


def _all(met: Sequence[float | None]) -> Amount:
    if 0.0 in met:
        return 0.0
    return None if None in met or not met else 1.0


_REDUCE: dict[Adds, Callable[[Sequence[float | None]], Amount]] = {"mean": _mean, "all": _all}


__all__ = ["CRITERION", "NO_SKILL", "ROUTED", "Adds", "Skill", "SkillJudge", "skilled"]
