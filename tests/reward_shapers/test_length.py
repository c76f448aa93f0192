"""Terms of length and repetition, by hand from their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from agentgym.reward_shapers.length import (
    cosine,
    length_of,
    length_threshold,
    overlong,
    repetition,
    soft_overlong,
    thought_length,
)
from agentgym.reward_shapers.schedules import linear
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import ConfigError, UnknownNameError
from agentgym.reward import Shaper
from agentgym.types import Group, Message, Sample, Signal, StopReason, Task, ToolCall, Trajectory, Turn


def turn(content: str = "", tokens: int = 1, *calls: ToolCall) -> Turn:
    ids = np.zeros(tokens, np.int32)
    return Turn((), Sample(Message("assistant", content, calls), ids, np.zeros(tokens, np.float32), ids), ids[:0])


def episode(*turns: Turn, won: float | None = None, asked: bool = True) -> Trajectory:
    signals = (Signal("won", won, "world", cause="" if won is not None else "lost"),) if asked else ()
    return Trajectory("e", "g", Task("t", "", 99), turns, (), StopReason.DONE, signals, 0)


def total(reward: Shaper, trajectory: Trajectory, step: int = 0) -> float | None:
    (ledger,) = reward(Group((trajectory,), step))
    return ledger.total() if ledger.measured else None


@pytest.mark.parametrize(
    ("length", "threshold", "soft"),
    [(2, 0, 0), (70, 0, 0), (80, -1 / 3, 0), (85, -0.5, -0.25), (100, -1, -1), (130, -1, -1)],
)
def test_penalties_of_overlong_episodes(length: int, threshold: float, soft: float):
    """The threshold is at 70 of 100: (70 - 85) / 30; the cache is the last 20: (80 - 85) / 20."""
    halves = episode(turn(tokens=length // 2), turn(tokens=length - length // 2))
    assert total(length_threshold(100), halves) == pytest.approx(threshold)
    assert total(soft_overlong(100, 20), halves) == pytest.approx(soft)
    assert length_threshold(100).range(9) == (-1, 0)


def test_units_of_length():
    talk = episode(turn("open the chest", 5), turn("go", 7, ToolCall("c", "look", {})))
    assert length_of(talk, "tokens") == 12
    assert length_of(talk, "turns") == 2
    # 3 words, 1 word, and a call as it is written: <tool_call> {"name": "look", "arguments": {}} </tool_call>
    assert length_of(talk, "words") == 3 + 1 + 6
    scripted = episode(turn("look", 0), turn("look", 3))
    assert length_of(scripted, "tokens") is None
    (ledger,) = overlong(10, 5)(Group((scripted,)))
    assert "needs the tokens of every turn" in ledger.explain()
    assert total(overlong(10, 0, unit="turns"), scripted) == pytest.approx(-0.2)


PAPER = {"correct": (2.0, 1.0), "wrong": (-10.0, 0.0), "exceeded": -10.0}


@pytest.mark.parametrize(
    ("length", "won", "paid"),
    [
        (50, 1, 1.5),
        (50, 0, -5.0),
        (25, 1, 1.5 + 0.5 * math.cos(math.pi / 4)),
        (1, 1, 1.5 + 0.5 * math.cos(math.pi / 100)),
        (100, 1, -10.0),
        (100, None, -10.0),
        (50, None, None),
    ],
)
def test_cosine(length: int, won: float | None, paid: float | None):
    reward = cosine(100, **PAPER)  # type: ignore[arg-type]
    found = total(reward, episode(turn(tokens=length), won=won))
    assert found == (None if paid is None else pytest.approx(paid))
    assert reward.range(3) == (-10, 2)
    assert reward.signals == {"won"}


def test_cosine_asks_for_what_it_needs():
    reward = cosine(100, **PAPER)  # type: ignore[arg-type]
    assert total(reward, episode(turn(tokens=3), asked=False)) is None
    assert total(reward, episode(turn(tokens=0), won=1)) is None


def test_repetition_by_hand():
    """Bigrams: "a b", "b a", "a b" and then "a b", "b c": 3 different of 5, two of them repeated, one at each turn."""
    talk = episode(turn("a b a B"), turn("a b c"), turn("c"))
    assert total(repetition(2), talk) == pytest.approx(3 / 5 - 1)
    (ledger,) = repetition(2, scope="turn")(Group((talk,)))
    assert ledger.credit_CT().tolist() == [pytest.approx([-0.2, -0.2, 0])]
    assert total(repetition(9), talk) == 0
    assert total(repetition(1), episode()) == 0


def test_a_command_given_again_and_again_is_repetition():
    stalling = episode(*[turn("look around")] * 10)
    assert total(repetition(2), stalling) == pytest.approx(-0.9)


def test_thoughts_by_the_word():
    long, short = turn(f"<think>{'why ' * 600}</think>"), turn("<think>why not</think> go")
    assert total(thought_length(), episode(long)) == 1
    assert total(thought_length(), episode(turn(f"<think>{'why ' * 128}</think>"))) == 0.25
    assert total(thought_length(4.0), episode(short, turn("go"))) == pytest.approx((0.5 + 0) / 2)
    scheduled = thought_length(linear(384, 640, over=105))
    words = episode(turn(f"<think>{'why ' * 320}</think>"))
    assert [total(scheduled, words, step) for step in (0, 105, 999)] == [0.83, 0.5, 0.5]
    assert not scheduled.needs_group
    assert total(thought_length(), episode()) is None


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: overlong(10, 10), ConfigError),
        (lambda: overlong(10, -1), ConfigError),
        (lambda: overlong(math.inf, 1), ConfigError),
        (lambda: overlong(10, 1, unit="bytes"), UnknownNameError),  # type: ignore[arg-type]
        (lambda: cosine(0, correct=(1, 1), wrong=(0, 0), exceeded=0), ConfigError),
        (lambda: cosine(9, correct=(1, math.nan), wrong=(0, 0), exceeded=0), ConfigError),
        (lambda: repetition(0), ConfigError),
        (lambda: thought_length(0), ConfigError),
        (lambda: thought_length(linear(10, -10, over=5)), ConfigError),
    ],
)
def test_lengths_without_sense_are_refused(make: object, error: type[Exception]):
    with pytest.raises(error):
        make()  # type: ignore[operator]
    with pytest.raises(UnknownNameError, match="no unit of length 'byte'"):
        length_of(episode(), "byte")  # type: ignore[arg-type]


TALK = st.lists(st.lists(st.sampled_from("ab"), max_size=5).map(" ".join), max_size=6)


@given(TALK, st.integers(1, 3))
def test_law_bounded_and_paid_where_it_is_said(contents: list[str], size: int):
    talk = episode(*map(turn, contents))
    whole = total(repetition(size), talk)
    by_turn = total(repetition(size, scope="turn"), talk)
    assert whole == pytest.approx(by_turn)
    assert whole is not None
    assert -1 <= whole <= 0


@given(st.integers(1, 300), st.integers(1, 300))
def test_law_longer_is_never_better(short: int, more: int):
    for reward in (length_threshold(200), soft_overlong(200, 50)):
        shorter, longer = (total(reward, episode(turn(tokens=n))) for n in (short, short + more))
        assert shorter is not None
        assert longer is not None
        assert -1 <= longer <= shorter <= 0
