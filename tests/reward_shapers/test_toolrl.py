"""ToolRL's whole reward and its variants."""

from __future__ import annotations

import numpy as np
import pytest
from agentgym.reward_shapers.toolrl import VARIANTS, toolrl

from agentgym.errors import UnknownNameError
from agentgym.types import Group, Message, StopReason, Task, ToolCall, Trajectory, Turn, empty_sample

DATA = {
    "sections": ["think", "tool_call"],
    "tool_calls": [{"name": "search", "arguments": {"query": "mars", "limit": 3}}],
}
RIGHT = ToolCall("c", "search", {"query": "mars", "limit": 3})
HALF = ToolCall("c", "search", {"query": "mars", "limit": 4})
THOUGHT = "<think>" + "why " * 256 + "</think>"


def paid(variant: str, content: str, *calls: ToolCall, step: int = 0) -> float:
    turn = Turn((), empty_sample(Message("assistant", content, calls)), np.empty(0, np.int32))
    trajectory = Trajectory("e", "g", Task("t", "", 9, data=DATA), (turn,), (), StopReason.DONE, (), 0)
    (ledger,) = toolrl(variant)(Group((trajectory,), step))
    assert ledger.measured
    return ledger.total()


@pytest.mark.parametrize(
    ("variant", "step", "right", "half", "nothing"),
    [
        ("published", 0, 4, 2.5, -3),
        ("published", 999, 4, 2.5, -3),
        ("equal_maximum", 0, 2, 1.5, -1),
        ("coarse", 0, 4, 1 - 3, -3),
        ("intermediate", 0, 4, 1 + 6 * 1 / 2 - 3, -3),
        ("refined", 0, 4, 2.5, -3),
        ("two_stage", 29, 2, 1 + 0.5, -1),
        ("two_stage", 30, 3.5, 0.5 + 1.5, -3),
        ("scheduled", 0, 2 + 2, 2 + 1, -2 - 2),
        ("scheduled", 75, 1.5 + 2.5, 1.5 + 1.25, -1 - 2.5),
        ("scheduled", 150, 1 + 3, 1 + 1.5, -1 - 3),
        ("scheduled", 999, 1 + 3, 1 + 1.5, -1 - 3),
        ("length", 0, 4.5, 3.0, -3),
        ("scheduled_length", 0, 4.67, 3.17, -3),
        ("scheduled_length", 105, 4.4, 2.9, -3),
    ],
)
def test_variants_by_hand(variant: str, step: int, right: float, half: float, nothing: float):
    """The half-right call has S of 3 in 4, or 1 in 2 where whole calls count; 256 words of thought in 512."""
    assert paid(variant, THOUGHT, RIGHT, step=step) == pytest.approx(right)
    assert paid(variant, THOUGHT, HALF, step=step) == pytest.approx(half)
    assert paid(variant, "", step=step) == pytest.approx(nothing)
    low, high = toolrl(variant).range(1)
    assert low <= nothing <= half <= right <= high


def test_every_variant_is_tested_and_no_other_exists():
    marks = test_variants_by_hand.pytestmark  # type: ignore[attr-defined]
    assert {row[0] for row in marks[0].args[1]} == set(VARIANTS)
    with pytest.raises(UnknownNameError, match="no variant of ToolRL 'corse'; did you mean 'coarse'"):
        toolrl("corse")


def test_it_prints_what_it_is():
    assert str(toolrl()) == "well_formed + tool_match"
    assert toolrl().range(1) == (-3, 4)
    assert str(toolrl("length")) == "well_formed + tool_match + thought_length"
