"""Asking a language model for a verdict: what is asked, what comes back, and what is known when nothing does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to be judged."""

    instructions: str
    "What to judge and how: ours, and the only text that speaks to the judge."
    material: Mapping[str, str]
    "Name -> text to be judged. It is fenced, so that nothing in it can speak as anything but material."
    schema: Mapping[str, Any]
    "JSON schema of the verdict, an object whose first property is ``reason``."


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said, checked against the question's schema."""

    value: Mapping[str, Any]
    cost: float = 0.0
    "In the price list's currency, calls that came to nothing included; 0 where it came from the cache."
    cached: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    "Tokens paid for, as the endpoint counts them; like the cost, 0 where it came from the cache."

    @property
    def reason(self) -> str:
        """Why, in the judge's words."""
        return str(self.value.get("reason", ""))


class Judge(Protocol):
    """Answers questions."""

    @property
    def version(self) -> str:
        """Model, prompt format and settings in one short word: verdicts of different versions are not comparable."""

    async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
        """Return the verdict number ``sample`` on ``question``; each sample is drawn anew.

        Raises:
            JudgeError: there is none: out of reach, too late, cut off, or not of the schema. What was asked about is
                unmeasured.
        """


__all__ = ["Judge", "Question", "Verdict"]
