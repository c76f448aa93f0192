"""What every probe that asks a judge does: show the episode, put the question, and write down what was said."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from agentgym.errors import JudgeError
from agentgym.judge import Judge, Question
from agentgym.tools import tool_calls_json
from agentgym.types import Message, Signal, Trajectory

Contentless = Callable[[str, str], str]
"""``contentless(text, prompt)`` returns why ``text`` says nothing in answer to ``prompt``, or an empty string.

Probes take `agentgym.judging.contentless.contentless`; to see what it is worth, give them another."""
Read = Callable[[Mapping[str, Any]], float]
"""Returns the value of a verdict, or raises `JudgeError` where the schema could not say what is wrong with it."""

Schema = Mapping[str, Any]


def verdict(**properties: Schema) -> Schema:
    """Return the JSON schema of a verdict that gives its reason first and then each of ``properties``."""
    return {
        "type": "object",
        "properties": {"reason": {"type": "string"}, **properties},
        "required": ["reason", *properties],
        "additionalProperties": False,
    }


YES_NO = verdict(answer={"type": "boolean"})
"""A reason, then ``answer``: true or false."""


def says_yes(value: Mapping[str, Any]) -> float:
    """Return 1 for the answer yes of a `YES_NO` verdict, else 0."""
    return float(value["answer"])


async def measure(judge: Judge, question: Question, blank: Signal, read: Read, *, sample: int = 0) -> Signal:
    """Return ``blank`` with the value that ``read`` finds in the verdict, its reason as evidence, and what it cost.

    Where there is no verdict it stays without a value; the cause says why.
    """
    cost = 0.0
    try:
        answer = await judge.ask(question, sample=sample)
        cost = answer.cost
        return replace(blank, value=read(answer.value), cost=cost, evidence=answer.reason)
    except JudgeError as error:
        return replace(blank, cause=f"{type(error).__name__}: {error}", cost=cost)


def without_content(blank: Signal, why: str, value: float | None = 0.0) -> Signal:
    """Return ``blank`` with the value of an answer that says nothing, for which no judge was asked."""
    return replace(blank, value=value, evidence=f"not put to the judge: {why}")


def source(probe: str, judge: Judge) -> str:
    """Return the ``source`` of what ``probe`` measures by ``judge``: verdicts of different versions never mix."""
    return f"{probe}@{judge.version}"


def said(message: Message) -> str:
    """Return all that a message says: its text and its tool calls."""
    return message.content + tool_calls_json(message.tool_calls)


def transcript(messages: Iterable[Message]) -> str:
    """Return messages as one text, each under the name of who speaks."""
    return "\n\n".join(f"[{message.role}]\n{said(message)}" for message in messages)


def acts(trajectory: Trajectory) -> str:
    """Return what the policy did, turn by turn, and nothing else."""
    return transcript(turn.sample.message for turn in trajectory.turns)


def answer(trajectory: Trajectory) -> str:
    """Return the policy's last word; empty where it never spoke."""
    return said(trajectory.turns[-1].sample.message) if trajectory.turns else ""


def history(trajectory: Trajectory, turn: int) -> tuple[Message, ...]:
    """Return the conversation up to what ``turn`` said, that included."""
    return tuple(
        message for past in trajectory.turns[: turn + 1] for message in (*past.observation, past.sample.message)
    )


__all__ = [
    "YES_NO",
    "Contentless",
    "Read",
    "Schema",
    "acts",
    "answer",
    "history",
    "measure",
    "said",
    "says_yes",
    "source",
    "transcript",
    "verdict",
    "without_content",
]
