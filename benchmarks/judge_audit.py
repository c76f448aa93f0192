"""How often each shipped judge recipe pays for an attack, with our defences and without, before a gullible judge.

    python benchmarks/judge_audit.py            # prints, and writes benchmarks/results/judge_audit.json

This tests the defences and no model: the judge is a fake behind real HTTP, which judges by a rule that knows how the
games are won and has every published weakness of `agentgym.judging.gullible` to the full. It is fooled wherever a
defence lets it, so that what is not paid was held by a defence, by the shape of the recipe, or because nothing about
the attack speaks to those weaknesses; the column without defences tells which.

Attacks are `agentgym.attacks` on the recorded episodes of TextWorld in ``tests/golden`` that failed. An attack works
where it is paid more than the episode it was made from. *With defences*: fenced prompts, answers without content kept
from the judge, both orders of presentation, entrants by lot; all of them are defaults. *Without*: headings for fences,
every answer put to the judge, one order, entrants in the order of the group.

How to read it:

- Fences keep the material in its place. They cannot make a judge deaf to an order that it reads and wants to obey, and
  no list holds every sentence that says nothing: *order*, *lone opening* and *padding* get through.
- TextWorld tells its goal in the first message, under the same prompt for all games. A transcript from another game
  brings its own goal along, and nothing that the judge is shown gives it away: *swapped task*.
- A rate is relative to the honest price, which stands beside it. Where one order favours who is shown first, an honest
  failure is paid too much already and an attack has little to add: `brpo` without defences.
- `ppr` takes something for every step that is not perfect, so that ending early pays: *truncated*. That is its formula.
- Commands are short: *first sentence* and *repetition* change little in these episodes.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentgym.reward_shapers.asking import Contentless, answer
from agentgym.reward_shapers.checklist_judge import ChecklistJudge
from agentgym.reward_shapers.grading import GradeJudge
from agentgym.reward_shapers.in_group import InGroupReference
from agentgym.reward_shapers.pairwise import Comparison, PairwiseJudge
from agentgym.reward_shapers.principles import PrincipleJudge, PrincipleStepJudge
from agentgym.reward_shapers.rubric_judge import CITATION as CITED
from agentgym.reward_shapers.rubric_judge import RubricJudge
from agentgym.reward_shapers.skills import Skill, SkillJudge
from agentgym.reward_shapers.tournament import Draw, Tournament

from agentgym.attacks import MASTER_KEYS, OTHER_KEYS, Case, attacks
from agentgym.audit import Audit, Finding, audit, trials
from agentgym.evaluate import succeeded, wilson
from agentgym.judge import Judge, Question, Verdict
from agentgym.judging.contentless import contentless
from agentgym.judging.gullible import (
    candidates,
    chat_turns,
    first_position,
    foreign_voices,
    gullible,
    hidden_instructions,
    lone_openings,
    long_answers,
    master_keys,
    these_answers,
)
from agentgym.judging.openai import OpenAIJudge
from agentgym.judging.prompt import FENCED, Format
from agentgym.judging.server import JudgeServer, Rule
from agentgym.judging.undefended import UNDEFENDED
from agentgym.probe import Probe
from agentgym.provenance import provenance
from agentgym.recipes import resolve
from agentgym.store import trajectory_from_json
from agentgym.types import Group, Trajectory, Turn

ROOT = pathlib.Path(__file__).resolve().parent.parent
EPISODES = ROOT / "tests" / "golden" / "episodes.jsonl"
RESULT = ROOT / "benchmarks" / "results" / "judge_audit.json"
TESTS = "the defences of these recipes, against a fake judge with published weaknesses; it says nothing of any model"
LONG = 500
"""Words of an answer that the judge is impressed by."""
SAMPLES, LOW, HIGH = 3, 0, 10
LIBRARY = (Skill("acting", "to change the world", ("It is a step towards the goal.",)),)
FOCUS = "assistant.content.user_visible_reply"
ASKED: Mapping[str, Any] = {
    "checklist": [[{"id": "C0", "question": "Is the goal reached?", "weight": 1.0, "focus_on": FOCUS}]],
    "rubric": {"entities": ["E0"], "statements": ["The goal is reached in <E0>."]},
    "principles": {"purpose": "It reaches the goal of the game."},
}
"""What the recipes ask of a task."""


# ---------------------------------------------------------------------------------------------------------- defences


class OneOrder(PairwiseJudge):
    """Compares in one order of presentation alone."""

    async def compare(self, first: Trajectory, second: Trajectory) -> Comparison:
        verdict = await self.judge.ask(self.question(first, second))
        return Comparison((self._score("A", verdict.value), self._score("B", verdict.value)))


@dataclass(frozen=True)
class Defences:
    """What stands between an answer and the judge."""

    form: Format
    contentless: Contentless
    pairwise: Callable[[Judge], PairwiseJudge]
    draw: Draw


WITH = Defences(FENCED, contentless, PairwiseJudge, "lot")
WITHOUT = Defences(UNDEFENDED, lambda text, prompt: "", OneOrder, "order")


# ----------------------------------------------------------------------------------------------------------- recipes


def checklist(judge: Judge, using: Defences) -> Probe:
    return ChecklistJudge(judge, contentless=using.contentless)


def rubric(judge: Judge, using: Defences) -> Probe:
    return RubricJudge(judge, contentless=using.contentless)


def steps(judge: Judge, using: Defences) -> Probe:
    return PrincipleStepJudge(judge, contentless=using.contentless)


def whole(judge: Judge, using: Defences) -> Probe:
    return PrincipleJudge(judge, contentless=using.contentless)


def skills(judge: Judge, using: Defences) -> Probe:
    return SkillJudge(judge, LIBRARY, contentless=using.contentless)


def grades(judge: Judge, using: Defences) -> Probe:
    return GradeJudge(judge, samples=SAMPLES, low=LOW, high=HIGH, meta=judge, contentless=using.contentless)


def tournament(judge: Judge, using: Defences) -> Probe:
    return Tournament(using.pairwise(judge), draw=using.draw, contentless=using.contentless)


def every_pair(judge: Judge, using: Defences) -> Probe:
    pairs = using.pairwise(judge)
    return Tournament(pairs, bracket="round_robin", draw=using.draw, contentless=using.contentless)


def in_group(judge: Judge, using: Defences) -> Probe:
    return InGroupReference(using.pairwise(judge), contentless=using.contentless)


def everything(case: Case) -> bool:
    return True


def cites(case: Case) -> bool:
    return bool(CITED.search(answer(case.honest)))


@dataclass(frozen=True)
class Audited:
    """A recipe and the probe that measures for it."""

    label: str
    probe: Callable[[Judge, Defences], Probe]
    params: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""
    "The label, where it is empty."
    fits: Callable[[Case], bool] = everything
    "Episodes that the recipe can say something about."

    @property
    def name(self) -> str:
        return self.recipe or self.label


RECIPES = (
    Audited("cm2", checklist),
    Audited("carr", rubric, fits=cites),
    Audited("carr, rubric alone", rubric, recipe="agentgym.reward_shapers.rubric:rubric", fits=cites),
    Audited("ppr", steps),
    Audited("clip_delta", steps, {"eta": 0.5}),
    Audited("principled", whole),
    Audited("all_good", whole, {"references": {"purpose": 0.5}, "floor": -5.0}),
    Audited("rlvrr", whole, {"content": 0.5, "style": 0.5}),
    Audited("scribe", skills, {"weight": 0.5, "adds": "mean"}),
    Audited("arena, single elimination", tournament, recipe="arena"),
    Audited("arena, every pair", every_pair, recipe="arena"),
    Audited("brpo", in_group, {"win": 1.0, "tie": 0.0, "lose": -1.0}),
    Audited("grm", grades),
    Audited("grm, most trusted", grades, {"keep": 2}, recipe="grm"),
    Audited("posterior", grades),
    Audited("sophiavl", grades),
    Audited("par", grades, {"reference": 5.0}),
    Audited("ensemble", grades, {"members": SAMPLES}),
    Audited("robust", grades, {"members": SAMPLES, "share": 0.5}),
)


# ------------------------------------------------------------------------------------------------- episodes and judge


def recorded() -> list[Group]:
    """Return the recorded groups: an expert, somebody who wins later, and two who fail."""
    episodes = [trajectory_from_json(json.loads(line)) for line in EPISODES.read_text("utf-8").splitlines()]
    names = dict.fromkeys(episode.group_id for episode in episodes)
    return [asked(Group(tuple(e for e in episodes if e.group_id == name))) for name in names]


def asked(group: Group) -> Group:
    """Return the group with a task that says what recipes ask of it."""
    expert = group.trajectories[0]
    data = {**ASKED, "key_content": command(expert.turns[-1]).split()}
    task = replace(expert.task, data={**expert.task.data, **data})
    return replace(group, trajectories=tuple(replace(one, task=task) for one in group.trajectories))


def cases(groups: Sequence[Group], most: int | None) -> list[Case]:
    """Return at most so many failing episodes of each group, with the winners of all games to borrow from."""
    winners = tuple(one for group in groups for one in group.trajectories if succeeded(one, "won"))
    made = []
    for group in groups:
        failing = [place for place, one in enumerate(group.trajectories) if succeeded(one, "won") is False]
        made += [Case(group, victim, winners) for victim in failing[:most]]
    return made


def command(turn: Turn) -> str:
    return turn.sample.message.content.partition("\n")[0]


def gullible_judge(experts: Iterable[Trajectory]) -> Rule:
    """Return the judge: it knows what the experts did, and falls for all that published judges fell for.

    A whole episode is good where it ends a game, a step where an expert took it and it was not taken before.
    """
    played = [[command(turn) for turn in expert.turns] for expert in experts]
    deeds = {deed for deeds in played for deed in deeds}
    ends = {deeds[-1] for deeds in played}

    def won(text: str) -> bool:
        return not ends.isdisjoint(text.splitlines())

    def good(question: Question, key: str) -> bool:
        shown = question.material
        if candidates(question):
            return won(shown[f"assistant {key[0]}"])
        if "conversation" in shown:
            step = shown["step"] if "step" in shown else shown["last step"]
            return not deeds.isdisjoint({*step.splitlines()} - {*shown["conversation"].splitlines()})
        if "page 1" in shown:
            return shown["statement S1"].rpartition(" in ")[2].rstrip(".") in shown["page 1"]
        return any(map(won, shown.values()))

    def value(question: Question, key: str, schema: Mapping[str, Any]) -> Any:
        if key == "maximum" or key == "skill":
            return schema.get("enum", [1])[-1]  # no opinions: every step is out of 1, and calls for acting
        best = good(question, key)
        if schema["type"] == "boolean":
            return best
        if "null" in schema["type"]:
            return "it" if best else None
        return schema.get("maximum", 1) if best else schema.get("minimum", 0)

    def rule(question: Question) -> Mapping[str, Any]:
        properties = {key: part for key, part in question.schema["properties"].items() if key != "reason"}
        return {"reason": "by rule", **{key: value(question, key, part) for key, part in properties.items()}}

    def torn(question: Question) -> str | None:
        """Prefer who is shown first, of two that are equally good."""
        equal = len({won(question.material[name]) for name in candidates(question)}) == 1
        return first_position(question) if equal else None

    weak = gullible(
        rule,
        chat_turns,
        foreign_voices,
        hidden_instructions,
        these_answers(*MASTER_KEYS, *OTHER_KEYS),
        master_keys,
        lone_openings,
        long_answers(LONG),
        torn,
    )
    return lambda question: named(question, weak(question))


def named(question: Question, verdict: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the verdict, which calls what it would name by the last place that the answer cites, if any."""
    if verdict.get("E0") is None:
        return verdict
    places = CITED.findall(question.material["answer"])
    return {**verdict, "E0": places[-1] if places else None}


# ----------------------------------------------------------------------------------------------------------- measuring


class Remembering:
    """Puts each question to ``judge`` once: siblings are asked about again at every attack."""

    def __init__(self, judge: Judge) -> None:
        self.judge, self.version = judge, judge.version
        self.known: dict[tuple[Any, ...], asyncio.Task[Verdict]] = {}

    async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
        key = (question.instructions, *question.material.items(), json.dumps(question.schema), sample)
        if key not in self.known:
            self.known[key] = asyncio.ensure_future(self.judge.ask(question, sample=sample))
        return await self.known[key]


async def audits(using: Defences, rule: Rule, chosen: Sequence[Audited], given: Sequence[Case]) -> list[Audit]:
    """Return the audit of each recipe, asked over HTTP."""
    found = []
    with JudgeServer(rule, form=using.form) as server:
        async with OpenAIJudge(server.url, "gullible", form=using.form) as asked:
            judge = Remembering(asked)
            for one in chosen:
                tried = trials([case for case in given if one.fits(case)], attacks())
                found.append(await audit(resolve(one.name, one.params), tried, probes=[one.probe(judge, using)]))
    return found


def rows(label: str, guarded: Audit, bare: Audit) -> list[dict[str, Any]]:
    """Return what each family of attacks came to, with defences and without."""
    families: dict[str, list[tuple[Finding, Finding]]] = {}
    for pair in zip(guarded.findings, bare.findings, strict=True):
        families.setdefault(pair[0].attack.partition(":")[0], []).append(pair)
    return [
        {
            "recipe": label,
            "attack": family,
            "variants": len(pairs),
            "episodes": max(one.episodes for one, _ in pairs),
            "with": share([one for one, _ in pairs]),
            "without": share([one for _, one in pairs]),
            "gets through": [one.attack.partition(": ")[2] or family for one, _ in pairs if one.hits],
        }
        for family, pairs in families.items()
    ]


def share(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return how often a family works, what is paid on average, and what could not be measured.

    The 95 % Wilson interval is that of as many trials as there are episodes: variants of an attack on one episode are
    not independent, as the judge goes by a rule.
    """
    hits, tried = sum(one.hits for one in findings), sum(one.episodes for one in findings)
    episodes = max(one.episodes for one in findings)
    rate = hits / tried if tried else None
    low, high = wilson(episodes * rate, episodes) if rate is not None else (None, None)  # type: ignore[arg-type]
    return {
        "rate": rate and round(rate, 4),
        "low": low and round(low, 4),
        "high": high and round(high, 4),
        "honest": mean([one.honest for one in findings]),
        "attacked": mean([one.attacked for one in findings]),
        "unmeasured": sum(one.unmeasured for one in findings),
    }


def mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return round(math.fsum(known) / len(known), 4) if known else None


def measure(chosen: Sequence[Audited] = RECIPES, episodes: int | None = None) -> list[dict[str, Any]]:
    """Return a row for each recipe and family of attacks, on at most so many failing episodes of each game."""
    groups = recorded()
    judge = gullible_judge(group.trajectories[0] for group in groups)
    given = cases(groups, episodes)
    guarded, bare = (asyncio.run(audits(using, judge, chosen, given)) for using in (WITH, WITHOUT))
    triples = zip(chosen, guarded, bare, strict=True)
    return [row for one, first, second in triples for row in rows(one.label, first, second)]


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as text."""
    form = "{:<25} {:<27} {:>2} {:>3}  {:<34}  {:<34}  {}"
    lines = [form.format("recipe", "attack", "n", "of", "with defences", "without", "gets through all the same")]
    for row in found:
        rates = (cell(row[arm]) for arm in ("with", "without"))
        counts = row["variants"], row["episodes"]
        lines.append(form.format(row["recipe"], row["attack"], *counts, *rates, ", ".join(row["gets through"])))
    return "\n".join(lines)


def cell(found: Mapping[str, Any]) -> str:
    if found["rate"] is None:
        return "not measured"
    return "{rate:.2f} [{low:.2f}, {high:.2f}] {honest:6.2f} → {attacked:5.2f}".format(**found)


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """Return how many of the recipes each family works against at all."""
    lines = [f"{'works at all against':<28} with  without  of so many recipes"]
    for family in dict.fromkeys(row["attack"] for row in found):
        here = [row for row in found if row["attack"] == family]
        counts = (sum(bool(row[arm]["rate"]) for row in here) for arm in ("with", "without"))
        lines.append("{:<28} {:>4}  {:>7}  {}".format(family, *counts, len(here)))
    return "\n".join(lines)


def written(result: Mapping[str, Any]) -> str:
    """Return JSON with a line for each row."""
    lines = ",\n".join(f"    {json.dumps(row)}" for row in result["rows"])
    head = json.dumps({**result, "rows": []}, indent=2)
    return head.replace('"rows": []', f'"rows": [\n{lines}\n  ]') + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Attacks the shipped judge recipes.")
    parser.add_argument("--episodes", type=int, help="failing episodes of each game; left out: all")
    parser.add_argument("--result", type=pathlib.Path, default=RESULT)
    typed = parser.parse_args()
    made_with = provenance()
    found = measure(episodes=typed.episodes)
    result = {
        "tests": TESTS,
        "date": datetime.date.today().isoformat(),
        "machine": made_with["machine"] | {"python": made_with["python"], "load": round(os.getloadavg()[0], 1)},
        "rows": found,
    }
    typed.result.parent.mkdir(exist_ok=True)
    typed.result.write_text(written(result))
    print(f"{table(found)}\n\n{summary(found)}\n\nThis tests {TESTS}.")


if __name__ == "__main__":
    main()
