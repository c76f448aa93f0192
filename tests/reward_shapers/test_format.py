"""Rules on the assistant's messages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from agentgym.reward_shapers.format import (
    Rule,
    calls,
    calls_readable,
    finished,
    not_empty,
    sections,
    task_sections,
    well_formed,
)
from agentgym.reward_shapers.scales import Scale
from episodes import total
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import ConfigError, TaskError
from agentgym.types import Group, Message, StopReason, Task, ToolCall, Trajectory, Turn, empty_sample

LOOK = ToolCall("c", "look", {})


def turn(content: str = "", *calls: ToolCall) -> Turn:
    return Turn((), empty_sample(Message("assistant", content, calls)), np.empty(0, np.int32))


def episode(*turns: Turn, data: Mapping[str, Any] | None = None) -> Trajectory:
    return Trajectory("e", "g", Task("t", "", 9, data=data or {}), turns, (), StopReason.DONE, (), 0)


@pytest.mark.parametrize(
    ("names", "said", "called", "kept"),
    [
        (("think",), "<think>a\nb</think>", False, True),
        (("think",), "well, <think>a</think>", False, False),
        (("think",), "<think>a</think><think>b</think>", False, False),
        (("think",), "<think>a", False, False),
        (("think",), "<think>a</think>", True, False),
        (("think", "tool_call"), "<think>a</think>", True, True),
        (("think", "tool_call"), "<think>a</think>", False, False),
        (("think", "tool_call"), "<think>a</think>\n<tool_call>{</tool_call>", True, False),
        (("think", "response"), "<think>a</think>\n<response>b</response>", False, True),
        (("think", "response"), "<response>b</response>\n<think>a</think>", False, False),
        (("think", "response"), "<think>a</think> and <response>b</response>", False, False),
        (("think", "tool_call", "response"), "<think>a</think>\n\n<response>b</response>", True, True),
        (("tool_call",), "", True, True),
    ],
)
def test_sections(names: tuple[str, ...], said: str, called: bool, kept: bool):
    one = turn(said, *[LOOK] * called)
    assert sections(*names)(one, Task("t", "", 9)) is kept
    data = {"sections": list(names)}
    assert total(well_formed(task_sections), episode(one, data=data)) == float(kept)
    assert total(well_formed(task_sections, scale=Scale(-1, 1)), episode(one, data=data)) == (1 if kept else -1)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (calls_readable, turn("so", LOOK), turn("<tool_call>{oops</tool_call>")),
        (calls_readable, turn("so"), turn("</tool_call>")),
        (not_empty, turn("", LOOK), turn(" \n")),
        (calls(1, 1), turn("", LOOK), turn("", LOOK, LOOK)),
        (calls(0, 1), turn(""), turn("", LOOK, LOOK)),
        (calls(1, 2), turn("", LOOK, LOOK), turn("look")),
        (
            finished,
            turn("so"),
            dataclasses.replace(turn("so"), sample=dataclasses.replace(turn("so").sample, finish="length")),
        ),
    ],
)
def test_rules(rule: Rule, good: Turn, bad: Turn):
    assert rule(good, Task("t", "", 9)) is True
    assert rule(bad, Task("t", "", 9)) is False
    (ledger,) = well_formed(rule, scope="turn")(Group((episode(good, bad, good, good),)))
    assert ledger.credit_CT().tolist() == [[0.25, 0, 0.25, 0.25]]
    assert total(well_formed(rule), episode(good, bad, good, good)) == 0.75


def test_what_the_task_does_not_say_is_unknown_unless_another_rule_is_broken():
    both = well_formed(calls_readable, task_sections, needs="task.data['sections']")
    good, bad = turn("so"), turn("<tool_call>")
    assert total(both, episode(bad)) == 0
    assert total(both, episode(good)) is None
    assert total(both, episode(bad, good)) is None
    assert total(both, episode()) is None
    (ledger,) = both(Group((episode(good),)))
    assert "needs task.data['sections']" in ledger.explain()
    (ledger,) = well_formed(calls_readable, task_sections, scope="turn")(Group((episode(bad, good),)))
    assert ledger.mask_CT().tolist() == [[True, False]]


def test_formats_without_sense_are_refused():
    with pytest.raises(ConfigError, match="at least one rule"):
        well_formed()
    with pytest.raises(ConfigError, match="no number of calls"):
        calls(2, 1)
    for wrong in ("think", [1], 3):
        with pytest.raises(TaskError, match="task 't': data\\['sections'\\] must list"):
            total(well_formed(task_sections), episode(turn(), data={"sections": wrong}))


@given(st.lists(st.sampled_from(["so", "<tool_call>", ""]), min_size=1, max_size=6))
def test_law_bounded_and_the_turns_sum_to_the_whole(contents: list[str]):
    said = episode(*map(turn, contents))
    for scale in (Scale(), Scale(-2, 1)):
        whole = total(well_formed(calls_readable, not_empty, scale=scale), said)
        by_turn = total(well_formed(calls_readable, not_empty, scale=scale, scope="turn"), said)
        assert whole == pytest.approx(by_turn)
        low, high = scale.bounds
        assert whole is not None
        assert low <= whole <= high
