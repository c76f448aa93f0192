from __future__ import annotations

import pytest
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from agentgym.spaces import ActionSpace, Messages, UnboundedText
from agentgym.types import Message, text_message


@pytest.mark.parametrize("text", ["", "ünïcödé ☃", "line\nline", "\x00", "a" * 100_000])
def test_any_text_belongs(text: str) -> None:
    assert text in UnboundedText()
    assert text in ActionSpace()
    assert (text_message("user", text),) in Messages()


def test_length_is_kept() -> None:
    assert "abc" in UnboundedText(3)
    assert "abcd" not in UnboundedText(3)
    assert text_message("assistant", "abcd") not in ActionSpace(3)
    assert all(len(UnboundedText(3, seed=seed).sample()) <= 3 for seed in range(50))


@pytest.mark.parametrize("value", [None, 1, b"bytes", ["a"], text_message("user", "not an action")])
def test_what_is_no_action(value: object) -> None:
    assert value not in ActionSpace()


@pytest.mark.parametrize("value", ["text", [text_message("user", "a list")], ("text",), None])
def test_what_is_no_observation(value: object) -> None:
    assert value not in Messages()


def test_empty_observation_belongs() -> None:
    assert () in Messages()


@pytest.mark.parametrize("space", [UnboundedText(), ActionSpace(), Messages()], ids=repr)
def test_samples_belong_and_follow_the_seed(space: UnboundedText | ActionSpace | Messages) -> None:
    space.seed(5)
    first = [space.sample() for _ in range(20)]
    space.seed(5)
    assert first == [space.sample() for _ in range(20)]
    assert all(sample in space for sample in first)
    assert len(set(first)) > 10


def test_spaces_are_equal_by_value() -> None:
    assert UnboundedText() == UnboundedText(seed=3) != UnboundedText(4)
    assert ActionSpace() == ActionSpace() != ActionSpace(4)
    assert Messages() == Messages() != UnboundedText()
    assert repr(ActionSpace(4)) == "ActionSpace(UnboundedText(max_length=4))"


@pytest.mark.parametrize("space", [UnboundedText(), ActionSpace(), Messages()], ids=repr)
def test_vector_environments_can_batch_them(space: UnboundedText | ActionSpace | Messages) -> None:
    batch = batch_space(space, 3)
    samples = tuple(space.sample() for _ in range(3))
    joined = concatenate(space, samples, create_empty_array(space, 3))
    assert tuple(iterate(batch, joined)) == samples


def test_messages_keep_everything() -> None:
    message = Message("tool", "x", tool_call_id="1")
    assert (message, message) in Messages()
