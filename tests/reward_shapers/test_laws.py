"""The laws of rewards, kept by everything in the package or broken by design, where the docstring says so.

=================  =================================================================================================
law                what it says
=================  =================================================================================================
bounded            what an episode is paid lies within the range declared, which does not grow with its turns
sign consistency   a failed episode never out-ranks a solved one; kept by those that say so
gate first         an advantage compares what the gates let through
validity           an episode of which nothing was measured is paid what it would be whatever was found, or unmeasured
prefix-only        what a turn is paid does not change with what comes after it
telescoping        sums of differences are the differences of their ends
equivariance       siblings may stand in any order
degenerate groups  among equals every advantage is exactly 0
judge hardening    answers without content are worth the least, and no judge sees them
scale honesty      what is not on a unit scale says so
=================  =================================================================================================

A docstring breaks a law by ``Breaks *law*: reason.`` and claims the optional one by ``Keeps *sign consistency*``.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
import pkgutil
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import agentgym.reward_shapers
import agentgym.reward_shapers.format as form
import hypothesis
import numpy as np
import pytest
from agentgym.reward_shapers import (
    aligned,
    centring,
    checklist,
    checklist_judge,
    efficiency,
    gates,
    grading,
    in_group,
    item_gates,
    length,
    mixes,
    outcome,
    pairwise,
    principles,
    progress,
    published,
    recipes,
    reducers,
    reference,
    rubric,
    rubric_judge,
    scales,
    schedules,
    sequences,
    skills,
    solves,
    step,
    tiers,
    toolrl,
    tools,
    tournament,
    transforms,
    verification,
)
from hypothesis import given
from hypothesis import strategies as st
from worlds import episode, gone_on_otherwise, group_of, lengths, seeds

from agentgym.judge import Question, Verdict
from agentgym.judging.gullible import praise
from agentgym.judging.prompt import FENCED
from agentgym.ledger import Ledger
from agentgym.reward import Gate, Rewrite, Shaper, Transform, signal
from agentgym.train.advantage import ESTIMATORS, TurnBaseline
from agentgym.train.credit import Crediting, advantages, price
from agentgym.types import Group, Message, Signal, Trajectory

pytestmark = pytest.mark.timeout(600)  # seconds of work, whatever else the machine does

WON, FORM, THINK, NEAR = (signal(name, scope="trajectory", low=0, high=1) for name in ("won", "form", "think", "near"))
P = step.step("p", low=0, high=1)
JUDGED = step.step("judged", low=0, high=1)
REFERENCES = [signal("reference_score", scope="trajectory", item=item, low=-1, high=1) for item in "01"]
OPEN = {name: gates.threshold(name, ">", 0.5, scope="trajectory") for name in ("won", "form", "think")}
LEVELS = (gates.Level("steps", P), gates.Level("form", FORM), gates.Level("won", WON))
DENSITY = verification.Density(sigma=0.2, delta=0.1)

EXAMPLES: dict[str, Shaper | tuple[Shaper, ...]] = {
    "aligned.self_aligned": aligned.self_aligned(),
    "centring.preference": THINK.then(centring.preference(*REFERENCES)),
    "centring.preference_shifted": THINK.then(centring.preference_shifted(*REFERENCES)),
    "centring.centred": THINK.then(centring.centred(*REFERENCES)),
    "centring.centred_tanh": THINK.then(centring.centred_tanh(*REFERENCES)),
    "centring.centred_polynomial": THINK.then(centring.centred_polynomial(0.25)),
    "centring.log_preference": THINK.then(centring.log_preference(*REFERENCES, floor=-4)),
    "centring.standardised": THINK.then(centring.standardised(0.5, 0.25)),
    "centring.within_deviation": THINK.then(centring.within_deviation(0.5, 0.25)),
    "centring.min_max": THINK.then(centring.min_max(0, 2)),
    "checklist.checklist": tuple(checklist.checklist(way) for way in ("trajectory", "stage", "step")),
    "checklist.requirement": P.when(checklist.requirement()),
    "efficiency.conditional_length": efficiency.conditional_length(WON, alpha=0.5, pass_rate=0.5),
    "efficiency.relative_length": efficiency.relative_length(WON),
    "efficiency.solved_often": P.when(efficiency.solved_often(WON, 0.5)),
    "format.well_formed": tuple(form.well_formed(form.calls_readable, scope=s) for s in ("turn", "trajectory")),
    "gates.threshold": P.when(gates.threshold("judged", ">", 0.5, scope="turn")),
    "gates.passed": P.when(gates.passed("won")),
    "gates.proportional": P.when(gates.proportional(WON)),
    "gates.sign_shift": gates.sign_shift(P, WON),
    "gates.before_last": gates.before_last(P),
    "gates.accumulate": gates.accumulate(*LEVELS),
    "gates.direct": gates.direct(*LEVELS),
    "grading.graded": tuple(grading.graded(v, low=0, high=10) for v in ("mean", "median", "majority", "sum")),
    "in_group.brpo": in_group.brpo(win=1, tie=0.5, lose=-1),
    "item_gates.dependencies": THINK.when(item_gates.dependencies(OPEN, {"think": ["won", "form"]})["think"]),
    "item_gates.dependent": item_gates.dependent({"won": WON, "form": FORM}, OPEN, {"form": ["won"]}),
    "item_gates.connected": THINK.when(
        item_gates.connected(OPEN, {"won": ["E0"], "form": ["E0", "E1"], "think": ["E1"]})["think"]
    ),
    "item_gates.required": P.when(item_gates.required({0: gates.threshold("judged", ">", 0.5, scope="turn")})),
    "length.cosine": length.cosine(20, correct=(1, 0.5), wrong=(-1, -0.5), exceeded=-1),
    "length.length_threshold": length.length_threshold(10),
    "length.overlong": length.overlong(4, 1, unit="turns"),
    "length.repetition": tuple(length.repetition(1, scope=s) for s in ("turn", "trajectory")),
    "length.soft_overlong": length.soft_overlong(12, 8),
    "length.thought_length": length.thought_length(5),
    "mixes.citation": mixes.citation(WON, THINK),
    "mixes.citation_unscaled": mixes.citation_unscaled(WON, THINK),
    "mixes.over_best": mixes.over_best(THINK),
    "mixes.posterior": (mixes.posterior(WON, THINK, FORM), mixes.posterior(WON, THINK)),
    "mixes.renorm": mixes.renorm(WON, JUDGED),
    "mixes.trust": THINK.when(mixes.trust(WON, THINK)),
    "mixes.trusted": mixes.trusted(WON, THINK),
    "outcome.outcome": outcome.outcome(),
    "principles.principles": principles.principles(),
    "progress.advances": P.then(progress.advances()),
    "progress.delta": P.then(progress.delta()),
    "progress.gains": P.then(progress.gains()),
    "progress.shaping": progress.shaping(P, gamma=1.0),
    "progress.spa": progress.spa(alpha=1, beta=0.5),
    "progress.spa_shipped": progress.spa_shipped(beta=0.5),
    "progress.standings": step.step("progress").then(progress.standings()),
    "progress.subgoals": progress.subgoals(),
    "published.all_good": published.all_good({"a": 0.5, "b": 0.5}, floor=-4),
    "published.arena": published.arena(),
    "published.carr": (published.carr(), published.carr(shipped=True)),
    "published.clip_delta": published.clip_delta(0.5, score="judged"),
    "published.cm2": tuple(published.cm2(way) for way in ("trajectory", "stage", "step")),
    "published.ensemble": tuple(published.ensemble(2, way) for way in ("mean", "median", "worst", "cautious")),
    "published.grm": (published.grm(), published.grm(keep=1)),
    "published.grpo_lambda": published.grpo_lambda(0.5, 0.5),
    "published.likely": published.likely(-3),
    "published.par": published.par(5),
    "published.pav": published.pav(0.5),
    "published.posterior": published.posterior(),
    "published.ppr": published.ppr(),
    "published.principled": published.principled(),
    "published.rlvrr": published.rlvrr(0.6, 0.4),
    "published.robust": published.robust(0.6, 2),
    "published.sar": published.sar(),
    "published.scribe": published.scribe(0.5),
    "published.sophiavl": published.sophiavl(),
    "published.ssl": published.ssl(0.5, tiers.QUARTERS, (0, 0.2, 0.5, 1)),
    "published.verpo": published.verpo(0.2, 0.1, 0.5, 0.9),
    "recipes.dense": recipes.dense(score=0.1, grounded=0.1, ungrounded=0.1),
    "recipes.direct": recipes.direct(),
    "recipes.gated": recipes.gated(),
    "recipes.outcome": recipes.outcome(),
    "reducers.mean": reducers.mean(WON, THINK),
    "reducers.median": reducers.median(WON, FORM, THINK),
    "reducers.worst": reducers.worst(WON, THINK),
    "reducers.cautious": reducers.cautious(FORM, THINK, k=0.5),
    "reducers.nominal_and_worst": reducers.nominal_and_worst(WON, FORM, THINK, share=0.5),
    "reducers.entropic": reducers.entropic(FORM, THINK, beta=0.5),
    "reducers.all_good": reducers.all_good(FORM, THINK, references=[0.5, 0.5], floor=-4),
    "reference.exact": reference.exact(),
    "reference.normalised_exact": reference.normalised_exact(),
    "reference.ordered_key_content": reference.ordered_key_content(),
    "reference.reference_logprob": reference.reference_logprob(-3),
    "reference.reference_probability": reference.reference_probability(),
    "rubric.rubric": rubric.rubric(),
    "scales.scaled": scales.scaled(
        "half", lambda t, low, high: (low + high) / 2, scales.UNIT, scope="trajectory", needs=""
    ),
    "schedules.from_step": P.when(schedules.from_step(5)),
    "schedules.scheduled": THINK.then(schedules.scheduled(schedules.annealing(over=500))),
    "sequences.count_decay": sequences.count_decay(P, beta=1, key=sequences.led_to),
    "sequences.length_decay": (P.then(sequences.length_decay(0.5)), WON.then(sequences.length_decay(0.5))),
    "skills.skilled": (skills.skilled("mean"), skills.skilled("all")),
    "solves.solve_f1": solves.solve_f1(),
    "solves.solve_step": solves.solve_step(),
    "step.step": P,
    "tiers.gained": tiers.gained("progress"),
    "tiers.ssl": tiers.ssl(NEAR, alpha=0.5, edges=tiers.QUARTERS, values=(0, 0.2, 0.5, 1)),
    "tiers.tiered": NEAR.then(tiers.tiered(tiers.QUARTERS, (0, 0.2, 0.5, 1))),
    "toolrl.toolrl": (*map(toolrl.toolrl, toolrl.VARIANTS), toolrl.toolrl(scope="turn")),
    "tools.tool_match": tuple(tools.tool_match(scope=s) for s in ("turn", "trajectory")),
    "tournament.rank_advantage": tournament.rank_advantage(),
    "tournament.ranked": (tournament.ranked(), tournament.ranked("min")),
    "transforms.affine": THINK.then(transforms.affine(-2, 1)),
    "transforms.clip": THINK.then(transforms.clip(0.25, 0.5)),
    "transforms.clip_negative": P.then(transforms.clip_negative(0.5)),
    "transforms.log_sigmoid": THINK.then(transforms.log_sigmoid(0.5, -4)),
    "transforms.monotone": THINK.then(transforms.monotone("sqrt({})", np.sqrt)),
    "transforms.scale": THINK.then(transforms.scale((0, 1), (-3, 3))),
    "transforms.sigmoid": THINK.then(transforms.sigmoid(2)),
    "transforms.tanh": THINK.then(transforms.tanh()),
    "verification.pass_ratio": verification.pass_ratio(),
    "verification.resolved": verification.resolved(),
    "verification.weighted_tests": (
        verification.weighted_tests(DENSITY),
        verification.weighted_tests(DENSITY, scope="trajectory"),
    ),
}
"""An example of everything public that makes a reward, by module and name; changes and gates with what they change."""

LAWS = ("bounded", "prefix-only", "validity", "scale honesty")
"""Those that may be broken by design."""


# ------------------------------------------------------------------------------------------------ what there is to test


def public() -> Iterator[tuple[str, Any]]:
    """Yield everything that the modules of the package define and offer, by module and name."""
    package = agentgym.reward_shapers
    for module in pkgutil.iter_modules(package.__path__):
        loaded = importlib.import_module(f"{package.__name__}.{module.name}")
        for name in loaded.__all__:
            found = getattr(loaded, name)
            if getattr(found, "__module__", loaded.__name__) == loaded.__name__:
                yield f"{module.name}.{name}", found


@cache
def makers() -> dict[str, Callable[..., Any]]:
    """Return the public functions that make rewards, changes or gates."""
    kinds = (Shaper, Transform, Rewrite, Gate, dict[str, Gate])
    functions = {name: each for name, each in public() if inspect.isfunction(each)}
    return {name: each for name, each in functions.items() if typing.get_type_hints(each).get("return") in kinds}


def judged_probes() -> set[str]:
    """Return the public probes that ask a judge."""
    classes = {name: each for name, each in public() if inspect.isclass(each) and "__call__" in vars(each)}
    return {name for name, each in classes.items() if "judge" in inspect.signature(each).parameters}


def is_source(name: str) -> bool:
    """Return whether it makes a reward from no other one."""
    hints = typing.get_type_hints(makers()[name])
    made = hints.pop("return")
    return made is Shaper and not any(kind in str(hints.values()) for kind in ("Shaper", "Level"))


def said(name: str) -> str:
    return " ".join((makers()[name].__doc__ or "").split())


def broken(law: str) -> set[str]:
    """Return what says of itself that it breaks ``law``."""
    return {name for name in EXAMPLES if f"Breaks *{law}*: " in said(name)}


def examples(name: str) -> tuple[Shaper, ...]:
    example = EXAMPLES[name]
    return example if isinstance(example, tuple) else (example,)


def test_everything_public_that_makes_a_reward_has_an_example():
    assert set(EXAMPLES) == set(makers())


def test_everything_public_that_asks_a_judge_has_an_example():
    assert set(PROBES) == judged_probes()


def test_only_laws_that_there_are_can_be_broken():
    named = [law for name in makers() for law in re.findall(r"Breaks \*([^*]*)\*", said(name))]
    assert set(named) <= set(LAWS)
    claimed = [law for name in makers() for law in re.findall(r"Keeps \*([^*]*)\*", said(name))]
    assert set(claimed) == {"sign consistency"}


# ------------------------------------------------------------------------------------------------------------ the laws


def rows(ledger: Ledger) -> list[tuple[str, str, int, int, float]]:
    """Return component, item, turn, status and amount of each row."""
    names = (ledger.component_names[c] for c in ledger.component)
    items = (ledger.item_names[i] for i in ledger.item)
    columns = (ledger.turn.tolist(), ledger.status.tolist(), ledger.credited.round(9).tolist())
    return list(zip(names, items, *columns, strict=True))


def breaks_bounded(reward: Shaper, group: Group) -> bool:
    """Whether an episode is paid something outside the range declared for it."""
    ranges = [reward.range(len(trajectory.turns)) for trajectory in group.trajectories]
    paid = [(ledger.total(), *range_) for ledger, range_ in zip(reward(group), ranges, strict=True) if ledger.measured]
    return not all(low - 1e-9 <= total <= high + 1e-9 for total, low, high in paid)


def grows(reward: Shaper, _: Group) -> bool:
    """Whether the range declared grows with the turns, or has no end."""
    return reward.range(3) != reward.range(1000) or not all(map(math.isfinite, reward.range(3)))


def outgrows(reward: Shaper, group: Group) -> bool:
    """Whether an episode is paid what none of a single turn is; with no end declared, more than 1 or less than -1."""
    low, high = (one if math.isfinite(one) else math.copysign(1, one) for one in reward.range(1))
    return not all(low <= ledger.total() <= high for ledger in reward(group))


def breaks_prefix_only(reward: Shaper, group: Group) -> bool:
    """Whether the first turns of an episode are paid otherwise where it ends after them, or goes on in another way."""
    first, *others = group.trajectories
    kept = max(1, len(first.turns) - 1)
    ways = [first, *(gone_on_otherwise(first, kept, more) for more in (0, 2))]
    paid = [
        [row for row in rows(reward(replace(group, trajectories=(way, *others)))[0]) if 0 <= row[2] < kept]
        for way in ways
    ]
    return not all(each == paid[0] for each in paid)


def breaks_validity(reward: Shaper, group: Group) -> bool:
    """Whether an episode is paid something else once nothing that the reward reads was measured in it."""
    first, *others = group.trajectories
    blank = tuple(replace(one, value=None) if one.name in reward.signals else one for one in first.signals)
    task = first.task if reward.signals else replace(first.task, data={})
    erased = replace(first, signals=blank, task=task)
    before, after = (reward(replace(group, trajectories=(one, *others)))[0] for one in (first, erased))
    assert not np.isnan(after.credit_CT()).any()
    known = before.mask_CT() & after.mask_CT()
    return not np.allclose(before.credit_CT()[known], after.credit_CT()[known])


def breaks_scale_honesty(reward: Shaper, _: Group) -> bool:
    """Whether something is paid that does not lie within −1 and 1."""
    return not all(-1 - 1e-9 <= part.low <= part.high <= 1 + 1e-9 for part in reward.parts)


CHECKS: Mapping[str, tuple[Callable[[Shaper, Group], bool], ...]] = {
    "bounded": (breaks_bounded,),
    "prefix-only": (breaks_prefix_only,),
    "validity": (breaks_validity,),
    "scale honesty": (),
}
SOURCE_CHECKS = {"bounded": (grows,), "scale honesty": (breaks_scale_honesty,)}
"""Of what makes a reward from no other one: the rest inherits its scale, and how it grows."""


def breaks(law: str, name: str, group: Group) -> bool:
    """Return whether an example of ``name`` breaks ``law`` on ``group``."""
    checks = CHECKS[law] + (SOURCE_CHECKS.get(law, ()) if is_source(name) else ())
    return any(check(reward, group) for check in checks for reward in examples(name))


@pytest.mark.parametrize("law", LAWS)
@hypothesis.settings(max_examples=6)
@given(seed=seeds, turns=lengths)
def test_law_is_kept_by_all_that_do_not_say_they_break_it(law: str, seed: int, turns: list[int]):
    group = group_of(seed, turns)
    assert not [name for name in EXAMPLES if name not in broken(law) and breaks(law, name, group)]


@pytest.mark.parametrize("law", LAWS)
def test_law_is_broken_by_all_that_say_so(law: str):
    """A counterexample for each: among these groups is one on which it breaks the law it says it breaks."""
    worlds = [group_of(seed, (5, 4, 2)) for seed in range(20)]
    assert not [name for name in broken(law) if not any(breaks(law, name, group) for group in worlds)]


def test_what_says_it_is_not_bounded_pays_long_episodes_more():
    worlds = [group_of(seed, (40, 40, 40, 40)) for seed in range(4)]
    kept = [name for name in broken("bounded") if not any(outgrows(r, g) for r in examples(name) for g in worlds)]
    assert not kept


CONSISTENT = [name for name in EXAMPLES if "Keeps *sign consistency*" in said(name)]


def out_ranked(reward: Shaper, group: Group) -> bool:
    """Whether a failed episode of the group is paid more than a solved one."""
    paid = [
        (trajectory.signal("won"), ledger) for trajectory, ledger in zip(group.trajectories, reward(group), strict=True)
    ]
    failed, solved = ([ledger.total() for won, ledger in paid if won.value == v and ledger.measured] for v in (0, 1))
    return max(failed, default=-math.inf) > min(solved, default=math.inf) + 1e-9


@hypothesis.settings(max_examples=25)
@given(seed=seeds, turns=lengths)
def test_law_sign_consistency(seed: int, turns: list[int]):
    group = group_of(seed, turns)
    assert not [name for name in CONSISTENT for reward in examples(name) if out_ranked(reward, group)]


def test_law_sign_consistency_is_no_matter_of_course():
    assert {"mixes.posterior", "mixes.citation", "mixes.renorm"} <= set(CONSISTENT)
    worlds = [group_of(seed, (5, 4, 2)) for seed in range(100)]
    for name in ("gates.direct", "progress.spa", "checklist.checklist"):
        assert any(out_ranked(reward, group) for reward in examples(name) for group in worlds)


@hypothesis.settings(max_examples=6)
@given(seed=seeds, turns=lengths, data=st.data())
def test_law_gate_first(seed: int, turns: list[int], data: st.DataObject):
    """The mean that is taken away is over what the gate lets through, so that nothing leaks past it."""
    group = group_of(seed, turns)
    shut = [data.draw(st.booleans()) for _ in group.trajectories]
    members = [
        replace(trajectory, signals=(*trajectory.signals, Signal("let", float(not closed), "world")))
        for trajectory, closed in zip(group.trajectories, shut, strict=True)
    ]
    group = replace(group, trajectories=tuple(members))
    gate = gates.passed("let")
    for name in EXAMPLES:
        for reward in examples(name):
            (found_GT,) = advantage("dr_grpo", reward.when(gate), group)
            np.testing.assert_allclose(found_GT, centred(reward(group), shut), atol=1e-6, err_msg=name)


def advantage(estimator: str, reward: Shaper, group: Group) -> list[np.ndarray]:
    return advantages(price(reward, [group]), Crediting(estimator), baseline=TurnBaseline(), values=[None])


def centred(ledgers: list[Ledger], shut: list[bool]) -> np.ndarray:
    """Return what each trajectory is paid less the mean, component by component; 0 is paid where it is ``shut``."""
    turns = [len(ledger.trajectory.turns) for ledger in ledgers]
    result_GT = np.zeros((len(ledgers), max(turns)))
    for c in range(len(ledgers[0].component_names)):
        paid = [0.0 if s else ledger.credit_CT()[c].sum() for ledger, s in zip(ledgers, shut, strict=True)]
        known = [s or bool(ledger.mask_CT()[c].all()) for ledger, s in zip(ledgers, shut, strict=True)]
        mean = np.mean([amount for amount, k in zip(paid, known, strict=True) if k] or [0.0])
        for g, (amount, k) in enumerate(zip(paid, known, strict=True)):
            result_GT[g, : turns[g]] += amount - mean if k else 0.0
    return result_GT


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.floats(0, 1))
def test_law_telescoping(p: list[float], start: float):
    blank = episode("e", range(len(p)), 0)
    signals = tuple(Signal("p", value, "world", turn) for turn, value in enumerate(p))
    group = Group((replace(blank, signals=signals),))

    def paid(reward: Shaper) -> np.ndarray:
        (ledger,) = reward(group)
        assert ledger.measured
        return ledger.credit_CT()[0]

    returns = np.cumsum(paid(P.then(progress.delta()))[::-1])[::-1]
    np.testing.assert_allclose(returns, [*p[:-1], 0], atol=1e-9)
    assert paid(P.then(progress.gains(start))).sum() == pytest.approx(p[-1] - start)
    assert paid(P.then(progress.advances(start))).sum() == pytest.approx(max(*p, start) - start)
    assert paid(progress.shaping(P, gamma=1.0, start=start)).sum() == pytest.approx(-start)
    kept = progress.shaping(P, gamma=1.0, start=start, keep="always")
    assert paid(kept).sum() == pytest.approx(p[-1] - start)


@hypothesis.settings(max_examples=6)
@given(seed=seeds, turns=lengths, random=st.randoms())
def test_law_equivariance(seed: int, turns: list[int], random: Random):
    group = group_of(seed, turns)
    shuffled = list(group.trajectories)
    random.shuffle(shuffled)
    for name in EXAMPLES:
        for reward in examples(name):
            one, other = (
                {ledger.trajectory.id: rows(ledger) for ledger in reward(replace(group, trajectories=tuple(order)))}
                for order in (group.trajectories, shuffled)
            )
            assert one == other, name


COMPARING = [name for name, estimator in ESTIMATORS.items() if estimator.compares and not estimator.states]


@hypothesis.settings(max_examples=5)
@given(seed=seeds, turns=lengths)
def test_law_degenerate_groups(seed: int, turns: list[int]):
    group = group_of(seed, turns)
    first = group.trajectories[0]
    equals = replace(group, trajectories=tuple(replace(first, id=f"same {n}") for n in range(3)))
    for name in EXAMPLES:
        for reward in examples(name):
            priced = price(reward, [equals])
            for estimator in COMPARING:
                (found_GT,) = advantages(priced, Crediting(estimator), baseline=TurnBaseline(), values=[None])
                assert (found_GT == 0).all(), (name, estimator)


# ----------------------------------------------------------------------------------------------------- judge hardening


class Pleased:
    """A judge that finds everything as good as can be, and must not be shown ``hidden``."""

    version = "pleased"

    def __init__(self, hidden: str) -> None:
        self.hidden, self.asked = hidden, 0

    async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
        self.asked += 1
        for name, text in question.material.items():
            assert text != self.hidden or name in ("task", "question")
            assert f"[assistant]\n{self.hidden}" not in text.split("\n\n")
        FENCED.write(question)  # refuses what no judge behind an endpoint could be asked
        return Verdict(praise(question, ""))


BRIEF = (principles.Principle("brief", "Be brief."),)
SEARCH = (skills.Skill("search", "find facts", ("asks one thing",)),)
PROBES: Mapping[str, tuple[Callable[[Pleased], Any], Shaper]] = {
    "checklist_judge.ChecklistJudge": (checklist_judge.ChecklistJudge, checklist.checklist()),
    "grading.GradeJudge": (
        lambda judge: grading.GradeJudge(judge, samples=2, low=1, high=9),
        grading.graded(low=1, high=9),
    ),
    "in_group.InGroupReference": (
        lambda judge: in_group.InGroupReference(pairwise.PairwiseJudge(judge)),
        in_group.brpo(win=1, tie=0.5, lose=0),
    ),
    "principles.PrincipleJudge": (
        lambda judge: principles.PrincipleJudge(judge, principles=lambda _: BRIEF),
        principles.principles(),
    ),
    "principles.PrincipleStepJudge": (
        lambda judge: principles.PrincipleStepJudge(judge, principles=lambda _: BRIEF),
        gates.before_last(step.step("principle_step")),
    ),
    "rubric_judge.RubricJudge": (
        lambda judge: rubric_judge.RubricJudge(judge, pages=lambda _: lambda url: "a page"),
        rubric.rubric(),
    ),
    "skills.SkillJudge": (lambda judge: skills.SkillJudge(judge, SEARCH), skills.skilled("mean")),
    "tournament.Tournament": (
        lambda judge: tournament.Tournament(pairwise.PairwiseJudge(judge)),
        tournament.ranked(),
    ),
}
"""Every probe that asks a judge, and what prices it."""

KEYS = ("", " ", ".", ":", "Thought process:", "Let's solve this problem step by step.", "解", "Name the capitals.")


def speaking(id: str, text: str) -> Trajectory:
    """Return an episode of two turns that both say ``text``."""
    blank = episode(id, (0, 1), 0)
    turns = [
        replace(
            turn,
            observation=(Message("user", "Go on."),),
            sample=replace(turn.sample, message=Message("assistant", text)),
        )
        for turn in blank.turns
    ]
    return replace(blank, turns=tuple(turns), final_observation=(), signals=())


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", PROBES)
def test_law_judge_hardening(name: str, key: str):
    make, reward = PROBES[name]
    judge = Pleased(key)
    answers = ("It is Paris [1](http://a).", key, "Paris, I am sure [1](http://a).")
    group = Group(tuple(speaking(f"e{n}", text) for n, text in enumerate(answers)))
    signals = asyncio.run(make(judge)(group))
    members = zip(group.trajectories, signals, strict=True)
    measured = Group(tuple(replace(trajectory, signals=found) for trajectory, found in members))
    ledgers = reward(measured)
    assert (ledgers[1].measured, ledgers[1].total()) == (True, 0)
    assert max(ledgers[0].total(), ledgers[2].total()) > 0
    assert judge.asked
