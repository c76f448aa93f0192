"""Checklists are checked when they are made."""

from __future__ import annotations

from dataclasses import replace

import pytest
from agentgym.reward_shapers.checklist_items import Checklist, Evidence, Item, parse

from agentgym.errors import ConfigError

A = Item("A", "?", 0.5, "tool.content")
B = Item("B", "?", 0.5, "tool.content")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ((), "stage 0 of the checklist needs at least one item"),
        ((A, A), "ids that differ; got: A, A"),
        ((A, replace(B, weight=0.4)), "weights sum to 0.9, not to 1"),
        ((A, replace(B, weight=float("nan"))), "weight of item 'B' is nan"),
        ((replace(A, weight=1.5), replace(B, weight=-0.5)), "weight of item 'B' is -0.5"),
        ((A, replace(B, dependence=("Z",))), r"'B' depends on unknown \['Z'\]; known: A, B"),
        ((A, replace(B, dependence=("B",))), "cycle: B -> B"),
        ((replace(A, dependence=("B",)), replace(B, dependence=("A",))), "cycle: (A -> B -> A|B -> A -> B)"),
        ((A, replace(B, focus_on="the sky")), "item 'B' has an unknown focus 'the sky'; known: user.content"),
    ],
)
def test_wrong_checklists_are_refused(items: tuple[Item, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        Checklist((items,))


def test_the_schema_is_read_in_full():
    data = {
        "id": "C1",
        "evidence": [{"turn": 0, "step": 2, "from": "tool.content", "snippet": "42 EUR"}],
        "focus_on": "assistant.content.user_visible_reply",
        "question": "Is the price named?",
        "pass_condition": "It says 42.",
        "failure_examples": ["It says 24."],
        "required_for_next_turn": True,
        "dependence": ["C0"],
        "weight": 0.75,
    }
    first = {"id": "C0", "focus_on": "tool.content", "question": "Found?", "weight": 0.25}
    listed = parse([[first, data]])
    assert listed.names(0) == ("0/C0", "0/C1")
    assert listed.dependencies(0) == ((), (0,))
    assert listed.stages[0][1] == Item(
        "C1",
        "Is the price named?",
        0.75,
        "assistant.content.user_visible_reply",
        "It says 42.",
        ("It says 24.",),
        True,
        ("C0",),
        (Evidence(0, 2, "tool.content", "42 EUR"),),
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("C0", "a list of stages"),
        ([{"id": "C0"}], "a list of stages"),
        ([["C0"]], "stage 0 of the checklist"),
        ([[{"id": "C0", "question": "?", "weight": 1}]], "item 'C0' lacks the field 'focus_on'"),
        ([[{"id": "C0", "question": "?", "weight": "much", "focus_on": "user.content"}]], "item 'C0'.*much"),
    ],
)
def test_data_of_another_shape_is_refused(data: object, message: str):
    with pytest.raises(ConfigError, match=message):
        parse(data)  # type: ignore[arg-type]
