"""What tests of rewards share: episodes that hold given signals, what they are paid, and judges with a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from agentgym.errors import JudgeError
from agentgym.judge import Question, Verdict
from agentgym.judging.prompt import FENCED
from agentgym.ledger import Ledger
from agentgym.reward import Shaper
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

TURN = Turn((), empty_sample(text_message("assistant", "look")), np.empty(0, np.int32))
Value = float | Sequence[float | None] | None


def episode(turns: int = 2, **values: Value) -> Trajectory:
    """Return an episode with these signals: sequences at its turns, numbers and None for the whole."""
    signals: list[Signal] = []
    for name, value in values.items():
        if isinstance(value, Sequence):
            signals += [Signal(name, v, "world", turn=t) for t, v in enumerate(value)]
        else:
            signals.append(Signal(name, value, "world"))
    return Trajectory("e", "g", Task("t", "", 99), (TURN,) * turns, (), StopReason.DONE, tuple(signals), 0)


def price(reward: Shaper, /, turns: int = 2, **values: Value) -> Ledger:
    """Return what ``reward`` pays the `episode` of these signals, which has no siblings."""
    (ledger,) = reward(Group((episode(turns, **values),)))
    return ledger


def total(reward: Shaper, trajectory: Trajectory, step: int = 0) -> float | None:
    """Return what ``reward`` pays an episode without siblings in all, None where any of it is unmeasured."""
    (ledger,) = reward(Group((trajectory,), step))
    return ledger.total() if ledger.measured else None


class ScriptedJudge:
    """Says what ``script`` says of a question and the sample's number; None: there is no verdict."""

    def __init__(self, script: Callable[[Question, int], Mapping[str, Any] | None], version: str = "v1") -> None:
        self.script, self.version = script, version
        self.asked: list[Question] = []
        self.samples: list[int] = []

    async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
        FENCED.write(question)  # refuses what no judge behind an endpoint could be asked
        self.asked.append(question)
        self.samples.append(sample)
        said = self.script(question, sample)
        if said is None:
            raise JudgeError("stalled")
        value = {"reason": "why", **said}
        assert list(value) == question.schema["required"], "a verdict is of the question's schema, its reason first"
        return Verdict(value, cost=0.5)


class SilentJudge:
    """A judge that nobody asks."""

    version = "v1"

    async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
        raise AssertionError("nobody should ask")
