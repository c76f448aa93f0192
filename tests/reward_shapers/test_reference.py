"""Answers against references."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from agentgym.reward_shapers.reference import (
    LOGPROB,
    LOGPROB_MEAN,
    exact,
    normalised_exact,
    ordered_key_content,
    reference_logprob,
    reference_probability,
)
from episodes import total
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import ConfigError, TaskError
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message


def episode(*said: str, data: Mapping[str, Any] | None = None, signals: tuple[Signal, ...] = ()) -> Trajectory:
    turns = tuple(Turn((), empty_sample(text_message("assistant", content)), np.empty(0, np.int32)) for content in said)
    return Trajectory("e", "g", Task("t", "", 9, data=data or {}), turns, (), StopReason.DONE, signals, 0)


@pytest.mark.parametrize(
    ("answer", "reference", "to_the_letter", "normalised"),
    [
        ("Mars", "Mars", 1, 1),
        (" Mars\n", "Mars", 1, 1),
        ("the mars.", "Mars", 0, 1),
        ("Red  planet, Mars", ["Venus", "the red planet Mars"], 0, 1),
        ("marsh", "Mars", 0, 0),
        ("Mars or Venus", "Mars", 0, 0),
        ("", "Mars", 0, 0),
    ],
)
def test_exact_matches(answer: str, reference: object, to_the_letter: float, normalised: float):
    said = episode("thinking", answer, data={"answer": reference})
    assert total(exact(), said) == to_the_letter
    assert total(normalised_exact(), said) == normalised


def test_the_answer_may_have_to_stand_in_a_tag():
    data = {"answer": "4"}
    assert total(exact(tag="answer"), episode("2 + 2, so <answer> 4 </answer> it is", data=data)) == 1
    assert total(exact(tag="answer"), episode("<answer>4</answer> no: <answer>5</answer>", data=data)) == 0
    assert total(exact(tag="answer"), episode("4", data=data)) == 0
    assert total(exact(tag="answer"), episode("<answer>4", data=data)) == 0
    assert total(exact(), episode(data=data)) == 0


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("First boil water, then add the tea, wait, and pour.", 1),
        ("Pour, wait, add the tea and boil water.", 1 / 4),
        ("Boil water. Wait. Add the tea. Pour.", 3 / 4),
        ("Pour! Boil water, pour, wait, pour.", 3 / 4),
        ("boil water boil water boil water", 1 / 4),
        ("boil waters and add the teas", 0),
        ("", 0),
    ],
)
def test_ordered_key_content(answer: str, share: float):
    data = {"key_content": ["boil water", "add the tea", "wait", "pour"]}
    assert total(ordered_key_content(), episode(answer, data=data)) == pytest.approx(share)


def test_a_task_without_a_reference_is_unmeasured_and_says_so():
    for reward, key in ((exact(), "answer"), (normalised_exact(), "answer"), (ordered_key_content(), "key_content")):
        (ledger,) = reward(Group((episode("Mars"),)))
        assert not ledger.measured
        assert f"needs task.data['{key}']" in ledger.explain()
    for wrong in ("", [], [""], 4, [4]):
        with pytest.raises(TaskError, match="task 't': data\\['answer'\\] must hold texts"):
            total(exact(), episode("Mars", data={"answer": wrong}))
    with pytest.raises(TaskError, match="key_content"):
        total(ordered_key_content(), episode("Mars", data={"key_content": "Mars"}))


@pytest.mark.parametrize(("mean", "paid"), [(0.0, 1), (-1.0, 0.75), (-4.0, 0), (-90.0, 0), (None, None)])
def test_log_probability_on_a_unit_scale(mean: float | None, paid: float | None):
    signals = (Signal(LOGPROB_MEAN, mean, "model", cause="" if mean is not None else "too long"),)
    assert total(reference_logprob(floor=-4), episode("so", signals=signals)) == paid
    assert reference_logprob(floor=-4).range(9) == (0, 1)
    assert reference_logprob(floor=-4).signals == {LOGPROB_MEAN}


def test_probability_of_the_whole_reference():
    signals = (Signal(LOGPROB, -2.0, "model"),)
    assert total(reference_probability(), episode("so", signals=signals)) == pytest.approx(math.exp(-2))
    assert total(reference_probability(), episode("so")) is None
    assert reference_probability().range(9) == (0, 1)


@pytest.mark.parametrize("floor", [0, 1, -math.inf, math.nan])
def test_a_floor_is_below_zero(floor: float):
    with pytest.raises(ConfigError, match="floor of a log-probability"):
        reference_logprob(floor)


@given(st.lists(st.sampled_from("abcd"), max_size=7), st.permutations("abcd"))
def test_law_the_chain_is_the_longest(words: list[str], phrases: list[str]):
    """Against trying every choice of phrases: the longest that is a subsequence of the words."""

    def follows(chain: tuple[str, ...]) -> bool:
        rest = iter(words)
        return all(phrase in rest for phrase in chain)

    longest = max(n for n in range(5) for chain in itertools.combinations(phrases, n) if follows(chain))
    said = episode(" ".join(words), data={"key_content": phrases})
    assert total(ordered_key_content(), said) == pytest.approx(longest / 4)
