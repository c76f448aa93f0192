"""Published compositions by name: what they pay, what they print, what they read, and what they refuse."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from agentgym.reward_shapers import published, recipes
from episodes import episode

from agentgym.errors import AgentgymError, ConfigError, UnknownNameError
from agentgym.recipes import resolve
from agentgym.types import Group, Signal, Task, Trajectory

EXAMPLES: dict[str, tuple[dict[str, Any], str]] = {
    "all_good": ({"references": {"a": 0.5, "b": 0.5}, "floor": -5.0}, "all_good(a, b)"),
    "arena": ({}, "rank"),
    "brpo": ({"win": 1.0, "tie": 0.0, "lose": -1.0}, "brpo"),
    "carr": ({}, "0.7*won + 0.3*over_best(rubric) | won >= 1"),
    "clip_delta": ({"eta": 0.5}, "won + delta(clip_negative(before_last(principle_step), 0.5))"),
    "cm2": ({"assignment": "step"}, "checklist"),
    "ensemble": ({"members": 2}, "median(grade_0, grade_1)"),
    "grm": ({}, "graded"),
    "grpo_lambda": (
        {"alpha": 0.2, "pass_rate": 0.5},
        "won - 0.2*(relative_length | won > 0 & solved(won) >= 0.5)",
    ),
    "likely": ({"floor": -5.0}, "affine(clip(reference_logprob, -5, 0), 0.2, 1)"),
    "par": ({"reference": 5.0}, "preference(affine(graded, 10, 0), k=1)"),
    "pav": ({"alpha": 0.5}, "won + 0.5*verified_gain"),
    "posterior": ({}, "won + (graded | won)"),
    "ppr": ({}, "(before_last(principle_step) + won - 1) + won"),
    "principled": ({}, "principles"),
    "rlvrr": ({"content": 0.6, "style": 0.4}, "0.6*ordered_key_content + 0.4*style"),
    "robust": ({"share": 0.6, "members": 2}, "nominal_and_worst(mean(grade_0, grade_1), grade_0, grade_1; 0.6)"),
    "sar": ({}, "won + 0.2*self_aligned"),
    "scribe": ({"weight": 0.5, "adds": "mean"}, "won + 0.5*skilled"),
    "sophiavl": ({}, "won + (0.3*annealing(over=500)*graded | trust(graded))"),
    "spa": ({"alpha": 1.0, "beta": 0.5}, "1*progress_estimate + 0.5*grounded"),
    "ssl": ({"alpha": 0.5, "edges": [0.5], "values": [0.0, 1.0]}, "won + 0.5*tiered(progress, 0.5)"),
    "toolrl": ({}, "well_formed + tool_match"),
    "verpo": (
        {"sigma": 0.1, "delta": 0.5, "beta": 1.0, "gamma": 0.9},
        "length_decay(won, 0.9) + 1*weighted_tests",
    ),
}
"""Parameters of each recipe, and how it prints then."""


DATA = {
    "key_content": ["look", "up"],
    "rubric": {"statements": ["<E0> is.", "<E0> in <E1>."], "entities": ["E0", "E1"]},
    "sections": [],
    "tool_calls": [{"name": "look", "arguments": {}}],
    "checklist": [
        [
            {"id": "C0", "question": "?", "weight": 0.4, "focus_on": "tool.content"},
            {"id": "C1", "question": "?", "weight": 0.6, "focus_on": "tool.content", "dependence": ["C0"]},
        ]
    ],
}
Values = float | Sequence[float | None] | Mapping[str, Any] | None


def of_items(turns: int = 2, **values: Values) -> Trajectory:
    """Return an episode with these signals; a mapping holds them by item, each as `episode` takes them."""
    signals = [
        Signal(name, one, "judge", turn if isinstance(found, Sequence) else None, item)
        for name, value in values.items()
        for item, found in (value if isinstance(value, Mapping) else {"": value}).items()
        for turn, one in enumerate(found if isinstance(found, Sequence) else [found])
    ]
    blank = episode(turns)
    return replace(blank, task=Task("t", "", 99, data=DATA), signals=tuple(signals))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


GRADES = {"won": 1, "grade": {"0": 2, "1": 8, "2": 3}, "grade_trust": {"0": 0.1, "1": 0.9, "2": 0.2}}
KEPT = {"principle": {"a": 1, "b": 0}}
SUPPORTED = {"rubric_identified": {"S1": 1, "S2": 1}, "rubric_supported": {"S1": 1, "S2": 0}}
SEEN = {"0/C0": [0, 1], "0/C1": [1, 1]}
EASY, HARD = math.exp(-2), math.exp(-1)  # one test passes at both turns, the other at one of them

PAID: list[tuple[str, dict[str, Any], list[Trajectory], list[float]]] = [
    # log σ(1 − ½) + log σ(0 − ¼)
    ("all_good", {"references": {"a": 0.5, "b": 0.25}, "floor": -9.0}, [of_items(**KEPT)],
     [math.log(sigmoid(0.5)) + math.log(sigmoid(-0.25))]),
    ("arena", {}, [of_items(place=place) for place in (2, 0, 3, 1)], [1 / 3, 1, 0, 2 / 3]),
    ("brpo", {"win": 2.0, "tie": 0.5, "lose": -1.0},
     [of_items(is_reference=1), *(of_items(is_reference=0, against_reference=a) for a in (1, 0.5, 0))],
     [0, 2, 0.5, -1]),
    # The failed one's half is the best rubric of the group.
    ("carr", {}, [of_items(won=won, **SUPPORTED) for won in (1, 0)], [0.7 + 0.3 * 0.5 / 0.5, 0]),
    ("carr", {"shipped": True}, [of_items(won=won, **SUPPORTED) for won in (1, 0)], [0.7 + 0.3 * 0.5, 0]),
    # Less ½ and clipped: −.3, 0, −.1; then each less the next, and the last but one itself.
    ("clip_delta", {"eta": 0.5}, [of_items(4, won=1, principle_step=[0.2, 0.5, 0.4, None])], [1 - 0.3 + 0.1 - 0.1]),
    # C1 came before C0, on which it depends: the equations pay it nothing, the authors' code does.
    ("cm2", {}, [of_items(checklist_item=SEEN)], [0.4]),
    ("cm2", {"shipped": True}, [of_items(checklist_item=SEEN)], [1.0]),
    ("ensemble", {"members": 3}, [of_items(**GRADES)], [0.3]),
    ("ensemble", {"members": 3, "reduce": "mean"}, [of_items(**GRADES)], [1.3 / 3]),
    ("ensemble", {"members": 3, "reduce": "worst"}, [of_items(**GRADES)], [0.2]),
    ("ensemble", {"members": 2, "reduce": "cautious", "k": 0.5}, [of_items(**GRADES)], [0.5 - 0.5 * 0.3]),
    ("grm", {}, [of_items(**GRADES)], [1.3 / 3]),
    ("grm", {"keep": 1}, [of_items(**GRADES)], [0.8]),
    # Both solved, in 2 and 4 turns: one deviation below and above the mean.
    ("grpo_lambda", {"alpha": 0.5, "pass_rate": 0.5, "unit": "turns"}, [of_items(2, won=1), of_items(4, won=1)],
     [1 - 0.5 * sigmoid(-1), 1 - 0.5 * sigmoid(1)]),
    ("likely", {"floor": -4.0}, [of_items(reference_logprob_mean=-1)], [0.75]),
    ("par", {"reference": 3.0, "k": 2.0}, [of_items(grade={"0": 4})], [sigmoid(2)]),
    ("pav", {"alpha": 0.5}, [of_items(won=1, verified_gain=[-0.2, 0.6])], [1 + 0.5 * 0.4]),
    ("posterior", {}, [of_items(won=won, grade={"0": 7}) for won in (1, 0)], [1.7, 0]),
    ("ppr", {}, [of_items(3, won=won, principle_step=[0.25, 0.5, None]) for won in (1, 0)], [1.75, -0.75 - 0.5]),
    ("principled", {"weights": {"a": 3, "b": 1}}, [of_items(**KEPT)], [0.75]),
    ("rlvrr", {"content": 0.6, "style": 0.4}, [of_items(principle={"a": 1, "b": 1, "c": 0, "d": 0})],
     [0.6 * 0.5 + 0.4 * 0.5]),
    ("robust", {"share": 0.25, "members": 2}, [of_items(**GRADES)], [0.25 * 0.5 + 0.75 * 0.2]),
    # Perplexities e and e²: (e² − e) / e².
    ("sar", {}, [of_items(won=1, answer_logprob=-1, answer_logprob_alone=-2)], [1 + 0.2 * (1 - math.exp(-1))]),
    ("scribe", {"weight": 0.5, "adds": "mean"},
     [of_items(won=1, skill_routed=[1, 0], skill_criterion={"s/1": [1], "s/2": [0]})], [1 + 0.5 * 0.5]),
    # The right one is thought of worse than the wrong one: γ = e^(.3 − .5).
    ("sophiavl", {}, [of_items(won=1, grade={"0": 3}), of_items(won=0, grade={"0": 5})],
     [1 + 0.3 * math.exp(-0.2) * 0.3, 0.3 * math.exp(-0.2) * 0.5]),
    ("spa", {"alpha": 2.0, "beta": 0.5}, [of_items(progress_estimate=[0.25, -0.5], grounded=[1, 0])], [-0.5 + 0.5]),
    ("ssl", {"alpha": 0.5, "edges": [0.25, 0.5, 0.75], "values": [0.0, 0.2, 0.5, 1.0]},
     [of_items(won=1, progress=[0.25, 0.3])], [1 + 0.5 * 0.5]),
    ("toolrl", {}, [of_items()], [-3]),
    ("verpo", {"sigma": 0.01, "delta": 0.0, "beta": 0.5, "gamma": 0.9},
     [of_items(won=1, tests={"t0": [1, 1], "t1": [0, 1]})], [0.9**2 + 0.5 * (EASY / (EASY + HARD) + 1)]),
]  # fmt: skip
"""What each recipe pays the episodes of a group, worked by hand."""


@pytest.mark.parametrize(("name", "params", "group", "paid"), PAID)
def test_what_a_published_reward_pays(name: str, params: dict[str, Any], group: list[Trajectory], paid: list[float]):
    ledgers = resolve(name, params)(Group(tuple(group)))
    assert all(ledger.measured for ledger in ledgers)
    assert [ledger.total() for ledger in ledgers] == pytest.approx(paid)


def test_what_every_published_reward_pays_is_worked_by_hand():
    assert {name for name, *_ in PAID} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_published_reward_prints_as_an_expression(name: str):
    params, printed = EXAMPLES[name]
    assert str(resolve(name, params)) == printed


def test_every_published_reward_is_a_recipe():
    assert set(published.__all__) == set(EXAMPLES)
    assert set(published.__all__) < set(recipes.__all__)
    assert all(getattr(recipes, name) is getattr(published, name) for name in published.__all__)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_module_lists_what_a_recipe_reads(name: str):
    (row,) = [line for line in (published.__doc__ or "").splitlines() if line.startswith(f"`{name}`")]
    read = resolve(name, EXAMPLES[name][0]).signals - {"won"}
    assert {signal for signal in read if f"``{signal}``" not in row} == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_number_that_no_paper_gives_has_no_default(name: str):
    found = inspect.signature(getattr(published, name)).parameters.items()
    needed = [key for key, parameter in found if parameter.default is parameter.empty]
    assert set(needed) <= set(EXAMPLES[name][0])
    if needed:
        with pytest.raises(ConfigError, match=f"needs the parameters: {', '.join(needed)}"):
            resolve(name)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("ensemble", {"members": 0}),
        ("ensemble", {"members": 2, "reduce": "most"}),
        ("robust", {"members": 2, "share": 1.5}),
        ("par", {"reference": 5.0, "k": 0.0}),
        ("posterior", {"worst": 3.0, "best": 3.0}),
        ("cm2", {"assignment": "item"}),
        ("carr", {"alpha": 1.5}),
        ("carr", {"shipped": 1}),
        ("clip_delta", {"eta": "much"}),
        ("verpo", {"sigma": 0.0, "delta": 0.5, "beta": 1.0, "gamma": 0.9}),
        ("ssl", {"alpha": 0.5, "edges": [0.5, 0.25], "values": [0.0, 0.5, 1.0]}),
        ("grpo_lambda", {"alpha": 0.2, "pass_rate": 0.5, "unit": "miles"}),
        ("toolrl", {"variant": "finest"}),
        ("arena", {"ties": "max"}),
        ("scribe", {"weight": float("nan"), "adds": "mean"}),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, params: dict[str, Any]):
    with pytest.raises((ConfigError, UnknownNameError)) as refused:
        resolve(name, params)
    assert isinstance(refused.value, AgentgymError)


def test_ranges_are_known_where_they_can_be():
    assert resolve("robust", EXAMPLES["robust"][0]).range(50) == (0, 1)
    assert resolve("clip_delta", EXAMPLES["clip_delta"][0]).range(50) == (-0.5, 1)
    assert resolve("posterior").range(50) == (0, 2)
    assert resolve("carr").range(50) == pytest.approx((0, 1))
