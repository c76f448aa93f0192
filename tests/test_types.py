from __future__ import annotations

import dataclasses
import pickle

import pytest

from agentgym import types
from agentgym.types import Message, Signal, StopReason, Task, Trajectory, as_action, empty_sample, text_message

TABLE = {
    StopReason.DONE: (True, False, True),
    StopReason.MAX_TURNS: (False, True, True),
    StopReason.TIME_LIMIT: (False, True, True),
    StopReason.CONTEXT_FULL: (False, True, True),
    StopReason.LENGTH: (False, True, True),
    StopReason.INFRASTRUCTURE: (False, False, False),
    StopReason.CANCELLED: (False, False, False),
}
"""Stop reason -> terminated, truncated, scored."""


def test_table_of_stop_reasons_is_complete() -> None:
    assert set(TABLE) == set(StopReason)


@pytest.mark.parametrize("stop", StopReason)
def test_stop_reason_means_what_the_table_says(stop: StopReason) -> None:
    assert (stop.terminated, stop.truncated, stop.scored) == TABLE[stop]


@pytest.mark.parametrize("name", [n for n in types.__all__ if dataclasses.is_dataclass(getattr(types, n))])
def test_dataclasses_are_frozen_and_have_slots(name: str) -> None:
    kind = getattr(types, name)
    assert kind.__dataclass_params__.frozen
    assert "__slots__" in vars(kind)


def test_last_signal_of_its_name_and_turn_counts() -> None:
    signals = (Signal("x", 0.0, "a", turn=0), Signal("x", 1.0, "a"), Signal("x", 2.0, "b", turn=0))
    trajectory = Trajectory("t", "g", Task("k", "", 1), (), (), StopReason.DONE, signals, 0)
    assert trajectory.signal("x", turn=0) is signals[2]
    assert trajectory.signal("x") is signals[1]
    assert trajectory.signal("x", turn=1) is None
    assert trajectory.signal("y") is None


def test_text_becomes_an_assistant_message_and_a_message_stays() -> None:
    assert as_action("go") == Message("assistant", "go")
    message = text_message("assistant", "go")
    assert as_action(message) is message


def test_sample_without_tokens_has_empty_arrays_of_the_right_kind() -> None:
    sample = empty_sample(text_message("assistant", "go"))
    kinds = [array.dtype.name for array in (sample.token_ids_N, sample.logprobs_N, sample.versions_N)]
    assert kinds == ["int32", "float32", "int32"]
    assert len(sample.token_ids_N) == len(sample.logprobs_N) == len(sample.versions_N) == 0


def test_words_survive_a_process_boundary() -> None:
    task = Task("k", "win", 3, data={"seed": 1})
    assert pickle.loads(pickle.dumps(task)) == task
    assert pickle.loads(pickle.dumps(StopReason.DONE)) is StopReason.DONE
