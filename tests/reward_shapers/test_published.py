"""Published compositions by name: what they print, what they read, and what they refuse."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from agentgym.reward_shapers import published, recipes

from agentgym.errors import AgentgymError, ConfigError, UnknownNameError
from agentgym.recipes import resolve

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
