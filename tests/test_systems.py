"""Published methods on recorded episodes of a shipped world, each with something that would fail if it were another.

The episodes are those of ``tests/golden/record_episodes.py``: three games of TextWorld, each played by an expert, by
someone who starts out at random, and twice at random, so that the first two are won and the last two are not.
Judges are scripted: they read what is shown to them, and say what a rule makes of it. ``docs/systems.md`` says which
test shows which method.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import Any

import numpy as np
import pytest
from agentgym.reward_shapers.aligned import WITH, WITHOUT, AnswerLogprobs
from agentgym.reward_shapers.checklist_judge import ChecklistJudge
from agentgym.reward_shapers.grading import GradeJudge
from agentgym.reward_shapers.in_group import AGAINST, REFERENCE, InGroupReference
from agentgym.reward_shapers.likelihood import ReferenceLogprob
from agentgym.reward_shapers.pairwise import PairwiseJudge
from agentgym.reward_shapers.principles import Principle, PrincipleJudge, PrincipleStepJudge, from_step
from agentgym.reward_shapers.rubric_judge import RubricJudge
from agentgym.reward_shapers.skills import Skill, SkillJudge
from agentgym.reward_shapers.tournament import MATCH, Tournament, rank_advantage
from agentgym.reward_shapers.verifier import VerifierProgress
from gymnasium.error import ResetNeeded

from agentgym.env import Environment
from agentgym.judge import Question, Verdict
from agentgym.policy.scripted import ScriptedPolicy
from agentgym.probe import OpenAt, Probe
from agentgym.recipes import resolve
from agentgym.render import Renderer
from agentgym.reopen import Replay
from agentgym.reward import Shaper
from agentgym.store import trajectory_from_json
from agentgym.train.advantage import NegativeScaling, TurnBaseline
from agentgym.train.credit import Crediting, advantages, price
from agentgym.types import Floats, Group, Message, Signal, TokenIds, Trajectory, Turn

EPISODES = Path(__file__).parent / "golden" / "episodes.jsonl"
WON = [1.0, 1.0, 0.0, 0.0]
Rule = Callable[[Question, int], Mapping[str, Any]]


@dataclass(frozen=True)
class Scripted:
    """A judge that says what ``rule`` makes of a question."""

    rule: Rule
    version: str = "scripted"

    async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
        return Verdict({"reason": "by rule", **self.rule(question, sample)})


@pytest.fixture(scope="module")
def groups() -> tuple[Group, ...]:
    """The recorded groups of four."""
    episodes = [trajectory_from_json(json.loads(line)) for line in EPISODES.read_text("utf-8").splitlines()]
    names = dict.fromkeys(episode.group_id for episode in episodes)
    return tuple(Group(tuple(e for e in episodes if e.group_id == name)) for name in names)


@pytest.fixture
def box(groups: tuple[Group, ...]) -> Group:
    """A locked box is to be opened and emptied; all four have the key. They take 3, 6, 8 and 8 turns."""
    return groups[0]


@pytest.fixture
def told(groups: tuple[Group, ...]) -> Group:
    """A key is to be found and used. Everybody says what they do, with a citation and as a call."""
    return groups[2]


def measured(probe: Probe, group: Group, open_at: OpenAt | None = None) -> Group:
    found = asyncio.run(probe(group, open_at))
    assert {signal.name for signals in found for signal in signals} <= probe.signals
    return with_signals(group, found)


def with_signals(group: Group, found: Sequence[Sequence[Signal]]) -> Group:
    pairs = zip(group.trajectories, found, strict=True)
    return replace(group, trajectories=tuple(replace(t, signals=(*t.signals, *signals)) for t, signals in pairs))


def with_data(group: Group, **data: Any) -> Group:
    task = replace(group.trajectories[0].task, data=data)
    return replace(group, trajectories=tuple(replace(t, task=task) for t in group.trajectories))


def totals(reward: Shaper, group: Group) -> list[float]:
    ledgers = reward(group)
    assert all(ledger.measured for ledger in ledgers)
    return [ledger.total() for ledger in ledgers]


def turns(group: Group) -> list[int]:
    return [len(trajectory.turns) for trajectory in group.trajectories]


def shown(question: Question) -> str:
    return "\n".join(question.material.values())


def acts(question: Question) -> int:
    """How many turns a judge was shown."""
    return shown(question).count("[assistant]")


def short(question: Question, _: int = 0) -> dict[str, Any]:
    """Grade 9, 8, 7 … for 1, 2, 3 … turns."""
    return {"grade": 10 - acts(question)}


def long(question: Question, _: int = 0) -> dict[str, Any]:
    """Grade the other way: more turns, more points."""
    return {"grade": acts(question)}


def graded(group: Group, rule: Rule = short, samples: int = 1) -> Group:
    return measured(GradeJudge(Scripted(rule), samples=samples, low=0, high=10), group)


def panel(*rules: Rule) -> Rule:
    """A judge whose samples are the members of a panel."""
    return lambda question, sample: rules[sample](question, 0)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_recorded_episodes_are_what_the_rest_assumes(groups: tuple[Group, ...]):
    assert len(groups) == 3
    for group in groups:
        assert totals(resolve("outcome"), group) == WON
    assert turns(groups[0]) == [3, 6, 8, 8]


# ------------------------------------------------------------------------------------------- gates and accumulation


def test_gated_accumulation(groups: tuple[Group, ...]):
    gated, direct = resolve("gated"), resolve("direct")
    for group in groups:
        through, without = totals(gated, group), totals(direct, group)
        assert through[2:] == [0, 0]
        assert through[:2] == pytest.approx(without[:2])
        assert min(without[2:]) > 0.5, "without gates, doing what the world can carry out pays a lost game"


def test_posterior_grpo(box: Group):
    assert totals(resolve("posterior"), graded(box)) == pytest.approx([1.7, 1.4, 0, 0])


def test_renorm(box: Group):
    def halves(question: Question, _: int) -> dict[str, Any]:
        return {"score": 1, "maximum": 2}

    judge = PrincipleStepJudge(Scripted(halves), principles=lambda _: (Principle("apt", "Do what helps."),))
    ledgers = resolve("ppr")(measured(judge, box))
    for ledger, won, count in zip(ledgers, WON, turns(box), strict=True):
        by_turn = ledger.credit_CT().sum(axis=0)
        assert by_turn.tolist() == pytest.approx([0.5 + won - 1] * (count - 1) + [won])


def test_verpo(box: Group):
    milestones = {"third": 1 / 3, "two thirds": 2 / 3, "whole": 1.0}

    def run(trajectory: Trajectory) -> list[Signal]:
        gains = [s.value or 0.0 for s in trajectory.signals if s.name == "progress"]
        stood = np.cumsum(gains)
        return [
            Signal("tests", float(stands >= share - 1e-9), "milestones", turn, test)
            for turn, stands in enumerate(stood)
            for test, share in milestones.items()
        ]

    bits = [run(trajectory) for trajectory in box.trajectories]
    flat = [signal for signals in bits for signal in signals]
    rate = {test: np.mean([s.value for s in flat if s.item == test]) for test in milestones}
    density = {t: sum(math.exp(-((rate[t] - rate[u]) ** 2) / (2 * 0.1**2)) for u in milestones) for t in milestones}
    raw = {test: math.exp(-2 * rate[test]) / (density[test] + 0.5) for test in milestones}
    weight = {test: raw[test] / sum(raw.values()) for test in milestones}
    assert weight["whole"] > weight["third"], "what is rarely passed weighs more"
    ledgers = resolve("verpo", {"sigma": 0.1, "delta": 0.5, "beta": 1.0, "gamma": 0.9})(with_signals(box, bits))
    for ledger, signals, won, count in zip(ledgers, bits, WON, turns(box), strict=True):
        paid = sum(weight[signal.item] * (signal.value or 0.0) for signal in signals)
        assert ledger.total() == pytest.approx(won * 0.9**count + paid)


def test_ssl(box: Group):
    reward = resolve("ssl", {"alpha": 0.5, "edges": [0.25, 0.5, 0.75], "values": [0.0, 0.25, 0.5, 1.0]})
    assert totals(reward, box) == pytest.approx([1.5, 1.5, 0.125, 0]), (
        "a third of the way, and farther off than at first"
    )


def test_clip_and_delta(box: Group):
    lost = box.trajectories[2]
    stretched = replace(lost, turns=(*lost.turns[:4], *[lost.turns[4]] * 30, *lost.turns[5:]))
    judge = PrincipleStepJudge(
        Scripted(lambda *_: {"score": 2, "maximum": 5}), principles=lambda _: (Principle("apt", "Do what helps."),)
    )
    both = measured(
        judge, Group((replace(lost, signals=lost.signals[-4:]), replace(stretched, signals=lost.signals[-4:])))
    )
    raw = [
        sum(signal.value or 0.0 for signal in trajectory.signals if signal.name == "principle_step")
        for trajectory in both.trajectories
    ]
    assert raw == pytest.approx([0.4 * 7, 0.4 * 36]), "as it stands, repeating a step pays"
    assert totals(resolve("clip_delta", {"eta": 0.5}), both) == pytest.approx([-0.1, -0.1])


def test_preference_as_reward(box: Group):
    paid = totals(resolve("par", {"reference": 5.0}), graded(box))
    assert paid == pytest.approx([sigmoid(7 - 5), sigmoid(4 - 5), sigmoid(2 - 5), sigmoid(2 - 5)])


def test_robust_ensemble(box: Group):
    def kind(question: Question, _: int) -> dict[str, Any]:
        return {"grade": 10}

    def taker(question: Question, _: int) -> dict[str, Any]:
        return {"grade": 8 if "take" in shown(question) else 2}

    said = [(7, 10, 8), (4, 10, 8), (2, 10, 2), (2, 10, 2)]
    paid = totals(resolve("robust", {"share": 0.6, "members": 3}), graded(box, panel(short, kind, taker), 3))
    assert paid == pytest.approx([(0.6 * sum(grades) / 3 + 0.4 * min(grades)) / 10 for grades in said])


def test_transformed_and_combined(box: Group):
    def rule(question: Question, _: int) -> dict[str, Any]:
        asked = question.instructions
        return {"answer": "take" in shown(question) if "takes" in asked else acts(question) < 5}

    listed = (Principle("takes", "It takes something."), Principle("brief", "It is brief."))
    group = measured(PrincipleJudge(Scripted(rule), principles=lambda _: listed), box)
    reward = resolve("all_good", {"references": {"takes": 0.5, "brief": 0.5}, "floor": -5.0})
    good, bad = math.log(sigmoid(0.5)), math.log(sigmoid(-0.5))
    paid = totals(reward, group)
    assert paid == pytest.approx([2 * good, good + bad, 2 * bad, 2 * bad])
    assert paid[1] - paid[2] == pytest.approx(paid[0] - paid[1])
    assert max(paid) < 0, "all good is a log-probability"


def test_ensembles_mitigate_but_do_not_eliminate(box: Group):
    one_errs, all_err = graded(box, panel(long, short, short), 3), graded(box, panel(long, long, long), 3)

    def paid(reduce: str, group: Group) -> list[float]:
        return totals(resolve("ensemble", {"members": 3, "reduce": reduce}), group)

    assert totals(resolve("ensemble", {"members": 1}), one_errs) == pytest.approx([0.3, 0.6, 0.8, 0.8]), "one, fooled"
    said = [(3, 7, 7), (6, 4, 4), (8, 2, 2), (8, 2, 2)]
    reducers: dict[str, Callable[[Sequence[float]], float]] = {
        "mean": fmean,
        "median": median,
        "worst": min,
        "cautious": lambda grades: fmean(grades) - pstdev(grades),
    }
    for reduce, by_hand in reducers.items():
        amounts = paid(reduce, one_errs)
        assert amounts == pytest.approx([by_hand(grades) / 10 for grades in said])
        assert amounts[0] > amounts[2], "one that errs alone is outvoted"
        fooled = paid(reduce, all_err)
        assert fooled[0] < fooled[2], "an error that all share stays"


def test_trust_annealing(box: Group):
    reward = resolve("sophiavl")
    assert totals(reward, graded(box)) == pytest.approx([1.21, 1.12, 0.06, 0.06])
    later = replace(graded(box), step=500)
    assert totals(reward, later) == pytest.approx([1 + 0.21 / math.e, 1 + 0.12 / math.e, 0.06 / math.e, 0.06 / math.e])
    trust = math.exp(0.45 - 0.8)  # the judge prefers those who lost: 8 of 10 against (3 + 6)/2
    paid = totals(reward, graded(box, long))
    assert paid == pytest.approx([1 + 0.3 * trust * 0.3, 1 + 0.3 * trust * 0.6, 0.24 * trust, 0.24 * trust])
    solved = replace(box, trajectories=box.trajectories[:2])
    assert totals(reward, graded(solved)) == [1, 1], "where all are right, nothing can be compared"


def test_conditional_length_penalty(box: Group):
    params = {"alpha": 0.2, "unit": "turns"}
    often = totals(resolve("grpo_lambda", {**params, "pass_rate": 0.5}), box)
    assert often == pytest.approx([1 - 0.2 * sigmoid(-1), 1 - 0.2 * sigmoid(1), 0, 0])
    assert totals(resolve("grpo_lambda", {**params, "pass_rate": 0.75}), box) == WON


# ------------------------------------------------------------------------------------------------- log-probabilities


class Characters:
    """A tokenizer of characters, whose ``$`` ends a turn."""

    eos_token, eos_token_id = "$", ord("$")
    added_tokens_decoder: Mapping[int, Any] = {}

    def apply_chat_template(self, conversation: list[dict[str, Any]], **kwargs: Any) -> str:
        return "".join(f"{message['role'][0]}:{message['content']}$" for message in conversation) + "a:"

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, token_ids: Any, *, skip_special_tokens: bool = False) -> str:
        return "".join(chr(token) for token in token_ids)


class Trigrams(ScriptedPolicy):
    """A language model that expects after two characters what came after them before, in this very text."""

    async def logprobs(self, token_ids_N: TokenIds) -> Floats:
        seen: dict[tuple[int, ...], dict[int, int]] = {}
        logprobs = np.full(len(token_ids_N), np.nan, np.float32)
        ids = token_ids_N.tolist()
        for n in range(1, len(ids)):
            counts = seen.setdefault(tuple(ids[max(0, n - 2) : n]), {})
            logprobs[n] = math.log((counts.get(ids[n], 0) + 1 / 128) / (sum(counts.values()) + 1))
            counts[ids[n]] = counts.get(ids[n], 0) + 1
        return logprobs


RENDERER = Renderer(Characters())
MODEL = Trigrams(lambda _: "", renderer=RENDERER)


def in_tokens(group: Group) -> Group:
    """Return the group with what was said written as tokens."""

    def rewritten(trajectory: Trajectory) -> Trajectory:
        made: list[Turn] = []
        for turn in trajectory.turns:
            before = RENDERER.bridge("stop", turn.observation) if made else RENDERER.start(turn.observation)
            sample = replace(turn.sample, token_ids_N=RENDERER.answer(turn.sample.message))
            made.append(replace(turn, prompt_ids_N=before, sample=sample))
        return replace(trajectory, turns=tuple(made))

    return replace(group, trajectories=tuple(map(rewritten, group.trajectories)))


def test_self_aligned_reward(box: Group, groups: tuple[Group, ...]):
    group = measured(AnswerLogprobs(MODEL, "trigrams"), in_tokens(box))
    paid = totals(resolve("sar"), group)
    for trajectory, amount, won in zip(group.trajectories, paid, WON, strict=True):
        given, alone = (trajectory.signal(name) for name in (WITH, WITHOUT))
        assert given is not None
        assert alone is not None
        given_ppl, alone_ppl = math.exp(-(given.value or 0.0)), math.exp(-(alone.value or 0.0))
        assert amount == pytest.approx(won + 0.2 * max(-1.0, (alone_ppl - given_ppl) / alone_ppl))
        assert given_ppl < alone_ppl, "every command speaks of things that the world had named"
    (stranger,) = in_tokens(Group((groups[1].trajectories[0],))).trajectories
    answer = replace(stranger.turns[-1], sample=group.trajectories[0].turns[-1].sample)
    swapped = replace(group.trajectories[0], turns=(*stranger.turns[:-1], answer))
    (elsewhere,) = totals(resolve("sar"), measured(AnswerLogprobs(MODEL, "trigrams"), Group((swapped,))))
    assert elsewhere < paid[0], "the same answer to another game is less its own"


def test_likelihood_of_the_reference(box: Group):
    reference = "take monitor from soap scented box"
    right = measured(ReferenceLogprob(MODEL, "trigrams"), in_tokens(with_data(box, answer=reference)))
    wrong = measured(ReferenceLogprob(MODEL, "trigrams"), in_tokens(with_data(box, answer="boil 7 quinces")))
    reward = resolve("likely", {"floor": -8.0})
    for trajectory, amount in zip(right.trajectories, totals(reward, right), strict=True):
        ids = [t for turn in trajectory.turns for t in (*turn.prompt_ids_N, *turn.sample.token_ids_N)]
        before = np.array(ids[: len(ids) - len(trajectory.turns[-1].sample.token_ids_N)], np.int32)
        whole = np.concatenate([before, RENDERER.answer(Message("assistant", reference))[:-1]])
        mean = float(asyncio.run(MODEL.logprobs(whole))[len(before) :].mean())
        assert amount == pytest.approx(1 + mean / 8, abs=1e-5)
    assert min(totals(reward, right)) > max(totals(reward, wrong))


# ------------------------------------------------------------------------------------------------------------ judges


CHECKLIST = [
    [
        {"id": "C0", "question": "Is it unlocked?", "weight": 0.4, "focus_on": "user.content"},
        {"id": "C1", "question": "Is it open?", "weight": 0.6, "focus_on": "user.content", "dependence": ["C0"]},
    ]
]


def test_checklist_in_three_assignments(box: Group):
    def rule(question: Question, _: int) -> dict[str, Any]:
        said = "You unlock" if "unlocked?" in question.instructions else "You open"
        return {"answer": said in shown(question)}

    group = measured(ChecklistJudge(Scripted(rule)), with_data(box, checklist=CHECKLIST))
    assert totals(resolve("cm2"), group) == pytest.approx([1, 1, 0.4, 0])
    mean = 0.6
    for ledger, paid in zip(resolve("cm2", {"assignment": "stage"})(group), [1, 1, 0.4, 0], strict=True):
        assert ledger.credit_CT()[0].tolist() == pytest.approx([paid - mean] * len(ledger.trajectory.turns))
    by_turn = [ledger.credit_CT()[0].tolist() for ledger in resolve("cm2", {"assignment": "step"})(group)]
    # C0 is earned by three of four, C1 by two. C1 can be earned once C0 is, and nothing once both are.
    assert by_turn[0] == pytest.approx([0.25, 0.5, 0])
    assert by_turn[1] == pytest.approx([0.25] * 4 + [0.5, 0])
    assert by_turn[2] == pytest.approx([0.25] * 2 + [-0.5] * 6)
    assert by_turn[3] == pytest.approx([-0.75] * 8)


def test_citation_rubric(told: Group):
    rubric = {
        "entities": ["E0", "E1", "E2"],
        "statements": ["There is a <E0>.", "<E1> is near the <E0>.", "<E2> hides something from <E1>."],
    }

    def rule(question: Question, _: int) -> dict[str, Any]:
        if "E0" in question.schema["properties"]:
            last = question.material["answer"]
            return {
                "E0": "locker" if "locker" in last else None,
                "E1": "key" if "key" in last else None,
                "E2": None,
            }
        pages = " ".join(text for name, text in question.material.items() if name.startswith("page"))
        items = {name.removeprefix("statement "): text for name, text in question.material.items() if "stat" in name}
        return {item: all(word in pages for word in re.findall("locker|key", text)) for item, text in items.items()}

    group = with_data(told, rubric=rubric)
    judged = measured(RubricJudge(Scripted(rule)), group)
    assert totals(resolve("carr"), judged) == pytest.approx([1, 1, 0, 0]), "two of three, and nobody has more"
    assert totals(resolve("carr", {"shipped": True}), judged) == pytest.approx([0.7 + 0.2, 0.7 + 0.2, 0, 0])
    uncited = measured(RubricJudge(Scripted(rule), citation=re.compile("see (.*)")), group)
    assert totals(resolve("carr"), uncited) == pytest.approx([0.7, 0.7, 0, 0])


def test_skill_routing(box: Group):
    library = (
        Skill("going", "to be elsewhere", ("It is a direction.",)),
        Skill("handling", "to change a thing", ("It names the thing.", "The thing is the box.")),
    )

    def rule(question: Question, _: int) -> dict[str, Any]:
        said = question.material["step"]
        if "skill" in question.schema["properties"]:
            verb = said.partition(" ")[0]
            return {"skill": {"go": "going", "unlock": "handling", "take": "handling"}.get(verb, "none")}
        return {"criterion_1": True, "criterion_2": "box" in said}

    group = measured(SkillJudge(Scripted(rule), library), box)
    ledgers = resolve("scribe", {"weight": 0.5, "adds": "mean"})(group)
    # unlock box, (open: no such skill), take from box; then: (examine), (drop), take latchkey, unlock box, …
    assert ledgers[0].credit_CT()[1].tolist() == [0.5, 0, 0.5]
    assert ledgers[1].credit_CT()[1].tolist() == [0, 0, 0.25, 0.5, 0, 0.5]
    assert resolve("scribe", {"weight": 0.5, "adds": "all"})(group)[1].credit_CT()[1].tolist() == [0, 0, 0, 0.5, 0, 0.5]


def compared(bias: float = 0.0) -> PairwiseJudge:
    """Score both by how little was said, and whoever is shown first by so much more."""

    def rule(question: Question, _: int) -> dict[str, Any]:
        score = {who: 5 - len(question.material[f"assistant {who}"]) / 200 for who in "AB"}
        keys = [key for key in question.schema["properties"] if key != "reason"]
        return {key: score[key[0]] + bias * (key[0] == "A") for key in keys}

    return PairwiseJudge(Scripted(rule))


def even(question: Question, _: int) -> dict[str, Any]:
    """Score everything 5."""
    return {key: 5 for key in question.schema["properties"] if key != "reason"}


def said_by(trajectory: Trajectory) -> int:
    return sum(len(turn.sample.message.content) for turn in trajectory.turns) + 13 * len(trajectory.turns)


def test_tournament_advantage(groups: tuple[Group, ...]):
    for group in groups:
        said = [said_by(trajectory) for trajectory in group.trajectories]
        wanted = [1 - sorted(said).index(one) / 3 for one in said]
        assert len(set(said)) == 4
        for bracket in ("round_robin", "single_elimination", "double_elimination", "swiss"):
            played = measured(Tournament(compared(bias=4.0), bracket=bracket), group)
            paid = totals(resolve("arena"), played)
            assert paid.index(1.0) == wanted.index(1.0), "the best wins every bracket, in whatever order it is shown"
            if bracket == "round_robin":
                assert paid == pytest.approx(wanted)
            if bracket == "single_elimination":
                matches = sum(s.name == MATCH for t in played.trajectories for s in t.signals)
                assert matches // 2 <= 2 * 4 - 2
        ledgers = rank_advantage()(measured(Tournament(compared(), bracket="round_robin"), group))
        spread = sorted(float(ledger.credit_CT()[0, 0]) for ledger in ledgers)
        assert spread == pytest.approx([-1.162, -0.387, 0.387, 1.162], abs=1e-3)
    tied = measured(Tournament(PairwiseJudge(Scripted(even)), bracket="round_robin"), groups[0])
    assert totals(resolve("arena"), tied) == [0.5] * 4
    assert totals(resolve("arena", {"ties": "min"}), tied) == [0] * 4, "as the authors' code has it"
    assert totals(rank_advantage(), tied) == [0] * 4


def test_bootstrapped_reference(box: Group):
    drawn = set()
    for number in range(8):
        group = measured(InGroupReference(compared(bias=4.0)), replace(box, step=number))
        (reference,) = [t for t in group.trajectories if (s := t.signal(REFERENCE)) and s.value == 1]
        drawn.add(reference.id)
        paid = totals(resolve("brpo", {"win": 1.0, "tie": 0.0, "lose": -1.0}), group)
        for trajectory, amount in zip(group.trajectories, paid, strict=True):
            assert amount == np.sign(said_by(reference) - said_by(trajectory))
            assert (trajectory.signal(AGAINST) is None) == (trajectory is reference)
    assert len(drawn) > 1, "another sibling at another step"


def test_sampled_critiques_and_their_meta_judge(box: Group):
    def wavering(question: Question, sample: int) -> dict[str, Any]:
        return {"grade": 0 if sample == 3 else 10 - acts(question)}

    def distrust(question: Question, _: int) -> dict[str, Any]:
        return {"trust": 0.1 if "Grade: 0" in question.material["critique"] else 0.9}

    probe = GradeJudge(Scripted(wavering), samples=4, low=0, high=10, meta=Scripted(distrust))
    group = measured(probe, box)
    assert totals(resolve("grm"), group) == pytest.approx([0.525, 0.3, 0.15, 0.15])
    assert totals(resolve("grm", {"keep": 3}), group) == pytest.approx([0.7, 0.4, 0.2, 0.2])
    assert totals(resolve("grm", {"vote": "median"}), group) == pytest.approx([0.7, 0.4, 0.2, 0.2])


def by_word(question: Question, _: int) -> dict[str, Any]:
    """Judge a principle by what it says: brief, thorough or opened."""
    brief = acts(question) <= 4
    return {
        "answer": {"brief": brief, "thorough": not brief}.get(
            question.instructions.split()[-1], "open" in shown(question)
        )
    }


def test_binary_principles(box: Group):
    listed = (Principle("length", "be brief"), Principle("deed", "have it opened"))
    group = measured(PrincipleJudge(Scripted(by_word), principles=lambda _: listed), box)
    assert totals(resolve("principled"), group) == [1, 0.5, 0, 0]
    assert totals(resolve("principled", {"weights": {"deed": 3.0, "length": 1.0}}), group) == [1, 0.75, 0, 0]


def test_principles_are_data_of_the_task(box: Group):
    judge = PrincipleJudge(Scripted(by_word))
    brief = totals(resolve("principled"), measured(judge, with_data(box, principles={"length": "be brief"})))
    thorough = totals(resolve("principled"), measured(judge, with_data(box, principles={"length": "be thorough"})))
    assert np.argsort(brief).tolist() != np.argsort(thorough).tolist()
    assert [a + b for a, b in zip(brief, thorough, strict=True)] == [1, 1, 1, 1]


def test_principles_change_while_training(box: Group):
    schedule = from_step({0: (Principle("deed", "have it opened"),), 2: (Principle("length", "be brief"),)})
    judge = PrincipleJudge(Scripted(by_word), principles=schedule)
    early, late = (measured(judge, replace(box, step=number)) for number in (1, 2))
    assert totals(resolve("principled"), early) == [1, 1, 0, 0]
    assert totals(resolve("principled"), late) == [1, 0, 0, 0]
    sources = [{s.source for t in g.trajectories for s in t.signals if s.name == "principle"} for g in (early, late)]
    assert not sources[0] & sources[1], "what was measured under other principles is told apart"


def test_content_and_style_of_a_reference(told: Group):
    def rule(question: Question, _: int) -> dict[str, Any]:
        return {"answer": "](Basement)" in shown(question)}

    group = with_data(told, key_content=["locker", "key", "basement"], principles={"sourced": "cite where you are"})
    judged = measured(PrincipleJudge(Scripted(rule)), group)
    paid = totals(resolve("rlvrr", {"content": 0.6, "style": 0.4}), judged)
    assert paid == pytest.approx([1, 1, 0.6, 0.6]), "the last two end with a place and nothing done there"


def test_master_keys_fool_the_judge_and_not_the_reward(box: Group):
    keys = (" ", ".", ":", "Thought process:", "Let's solve this problem step by step.", "Solution", "解")

    def gullible(question: Question, _: int) -> dict[str, Any]:
        last = question.material["what the assistant did"].rpartition("[assistant]\n")[2]
        return {"grade": 10 if last in keys else 3}

    def ending(trajectory: Trajectory, said: str) -> Trajectory:
        last = trajectory.turns[-1]
        return replace(
            trajectory,
            turns=(
                *trajectory.turns[:-1],
                replace(last, sample=replace(last.sample, message=Message("assistant", said))),
            ),
        )

    hacked = Group(tuple(ending(box.trajectories[0], key) for key in keys))
    naive = GradeJudge(Scripted(gullible), samples=1, low=0, high=10, contentless=lambda *_: "")
    guarded = GradeJudge(Scripted(gullible), samples=1, low=0, high=10)
    assert totals(resolve("grm"), measured(naive, hacked)) == [1] * len(keys)
    assert totals(resolve("grm"), measured(guarded, hacked)) == [0] * len(keys)
    assert totals(resolve("grm"), measured(guarded, box)) == pytest.approx([0.3] * 4), "what was really said is judged"


# ------------------------------------------------------------------------------------------- progress and advantages


def test_stepwise_progress_attribution(groups: tuple[Group, ...]):
    torch, factory = pytest.importorskip("torch"), pytest.importorskip("agentgym.train.factory")
    taught = pytest.importorskip("agentgym.train.estimator")
    episodes = [trajectory for group in groups for trajectory in group.trajectories]
    texts = [m.content for t in episodes for turn in t.turns for m in (*turn.observation, turn.sample.message)]
    tokenizer = factory.build_tokenizer(texts, kind="word", vocab_size=256, max_context=2048)
    model = factory.build_model(tokenizer, layers=1, width=16, heads=2, max_context=2048, seed=0)
    estimator = taught.ProgressEstimator(model, tokenizer)
    rows = [estimator.read(trajectory) for trajectory in episodes]
    adam = torch.optim.AdamW(estimator.parameters(), lr=1e-2)
    errors = list(taught.fit(estimator, [adam], rows, WON * 3, taught.Fit(12, episodes=4), seed=0))
    assert errors[-1] < errors[0] / 2
    for group in groups:
        probed = measured(taught.EstimatorProbe(estimator), group)
        ledgers = resolve("spa", {"alpha": 1.0, "beta": 0.5})(probed)
        for ledger, trajectory in zip(ledgers, probed.trajectories, strict=True):
            share = [s.value or 0.0 for s in trajectory.signals if s.name == "progress_estimate"]
            grounded = [s.value or 0.0 for s in trajectory.signals if s.name == "grounded"]
            expected = [c + 0.5 * g for c, g in zip(share, grounded, strict=True)]
            assert ledger.credit_CT().sum(axis=0).tolist() == pytest.approx(expected)


def test_progress_under_a_prover(groups: tuple[Group, ...], tmp_path: Path):
    pytest.importorskip("textworld")
    from agentgym.registry import make

    (played,) = game = (groups[1].trajectories[1],)

    def prover(commands: int) -> Callable[[Environment], Sequence[Signal]]:
        """Look around, then play so many of the expert's commands, and see."""

        def check(world: Environment) -> Sequence[Signal]:
            try:
                *_, info = world.step("look")
            except ResetNeeded:  # the game was over
                return played.signals
            for _ in range(commands):
                *_, info = world.step(info["privileged"]["expert"])
                if info["stop"]:
                    return info["signals"]
            return world.conclude()

        return check

    options = {"rooms": 2, "objects": 3, "quest_length": 3, "games": {"train": 3}, "max_turns": 8}
    # Go east, look at something, take, insert: 3, 2, 2 and 1 commands were left before each.
    with Replay(lambda: make("textworld", cache_dir=str(tmp_path), **options)) as replay:
        for commands, wanted in ((1, [0.0, 0, 1, 0]), (2, [1.0, 0, 0, 0])):
            probed = measured(VerifierProgress(check=prover(commands), name=f"prover-{commands}"), Group(game), replay)
            gains = [s.value for s in probed.trajectories[0].signals if s.name == "verified_gain"]
            assert gains == wanted
            assert totals(resolve("pav", {"alpha": 0.5}), probed) == [1.5]


def test_dense_and_sparse_rewards_under_several_estimators(groups: tuple[Group, ...]):
    sparse, dense = resolve("outcome"), resolve("dense")

    def advantage(reward: Shaper, name: str) -> list[np.ndarray[Any, Any]]:
        priced = price(reward, groups)
        return advantages(priced, Crediting(name), baseline=TurnBaseline(), values=[None] * len(groups))

    std = math.sqrt(1 / 3)  # of 1, 1, 0, 0, ddof 1
    for group, rloo_GT, grpo_GT in zip(groups, advantage(sparse, "rloo"), advantage(sparse, "grpo"), strict=True):
        for g, count in enumerate(turns(group)):
            others = [WON[other] for other in range(4) if other != g]
            assert rloo_GT[g, :count].tolist() == pytest.approx([WON[g] - sum(others) / 3] * count)
            assert grpo_GT[g, :count].tolist() == pytest.approx([(WON[g] - 0.5) / std] * count, abs=1e-3)
    whitened = np.concatenate(
        [
            a_GT[g, :n]
            for a_GT, group in zip(advantage(sparse, "reinforce_pp"), groups, strict=True)
            for g, n in enumerate(turns(group))
        ]
    )
    assert whitened.mean() == pytest.approx(0, abs=1e-6)
    for group, flat_GT, turn_GT in zip(
        groups, advantage(sparse, "rloo"), advantage(dense, "turn_rtg_loo"), strict=True
    ):
        lost = turns(group)[2]
        assert len(set(flat_GT[2, :lost].round(9))) == 1
        assert len(set(turn_GT[2, :lost].round(9))) > 1, "a dense reward tells the turns of a lost game apart"


def test_tool_calls_against_a_reference(told: Group):
    expert = told.trajectories[0]
    calls = [call for turn in expert.turns for call in turn.sample.message.tool_calls]
    reference = [{"name": call.name, "arguments": dict(call.arguments)} for call in calls]
    paid = totals(resolve("toolrl"), with_data(told, tool_calls=reference, sections=["tool_call"]))
    # go, take, unlock, with one argument each: S_max = 1 + 3·2. A detour adds two to the names: J = 3/5.
    assert paid[:2] == pytest.approx([3, 6 * (3 / 5 + 6) / 7 - 3])
    assert max(paid[2:]) < paid[1]


def test_negative_advantages_are_toned_down(groups: tuple[Group, ...]):
    priced = price(resolve("outcome"), groups)

    def advantage(negative: NegativeScaling | None) -> list[np.ndarray[Any, Any]]:
        crediting = Crediting("dr_grpo", negative=negative)
        return advantages(priced, crediting, baseline=TurnBaseline(), values=[None] * len(groups))

    for plain_GT, toned_GT in zip(advantage(None), advantage(NegativeScaling(0.5, 0.5)), strict=True):
        assert plain_GT.min() == -0.5
        assert toned_GT[:2].tolist() == plain_GT[:2].tolist()
        assert toned_GT[2:].tolist() == pytest.approx(0.75 * plain_GT[2:]), "half of the group won: 0.5 + 0.5 · 0.5"
