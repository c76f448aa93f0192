"""Self-aligned reward (SAR): how much likelier an answer is for having heard the question.

An answer that would be as likely without the question says nothing about it: it is padding, or a commonplace. The
probe measures, the shaper prices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from agentgym.policy import Policy
from agentgym.probe import OpenAt
from agentgym.reward import Amount, Shaper, per_trajectory
from agentgym.types import Group, Signal, Trajectory, text_message

from .likelihood import context_of, logprobs_of, renderer_of, score_each

WITH = "answer_logprob"
WITHOUT = "answer_logprob_alone"
"""Mean log-probability of the answer's tokens with what came before it, and with a placeholder in its place."""


@dataclass(frozen=True, slots=True)
class AnswerLogprobs:
    """Measures the mean log-probability of the last answer, with the conversation before it and without.

    Without: after ``placeholder`` as the only thing a user said. ``version`` names the policy's weights. Both are
    asked of the same weights, where the published code reads the first off what was recorded in sampling.
    """

    policy: Policy
    version: str
    placeholder: str = ""

    @property
    def name(self) -> str:
        """The ``source`` of its signals."""
        return f"answer_logprobs {self.version}"

    @property
    def signals(self) -> frozenset[str]:
        """Names of the signals it emits."""
        return frozenset({WITH, WITHOUT})

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return both signals for each trajectory.

        Raises:
            UsageError: the policy has no tokens or no log-probabilities.
        """
        return await score_each(group, self.name, self.signals, self._score)

    async def _score(self, trajectory: Trajectory) -> Mapping[str, float]:
        context_N, alone_N = (
            context_of(trajectory),
            renderer_of(self.policy).start((text_message("user", self.placeholder),)),
        )
        answer_N = trajectory.turns[-1].sample.token_ids_N
        given_N = await logprobs_of(self.policy, context_N, answer_N)
        unasked_N = await logprobs_of(self.policy, alone_N, answer_N)
        return {WITH: float(given_N.mean()), WITHOUT: float(unasked_N.mean())}


def self_aligned() -> Shaper:
    """Return ``clip((ppl(a) - ppl(a|q)) / ppl(a), -1, 1)`` with ``ppl = exp(-mean log-probability)``.

    1 is never reached, 0 is an answer that the question does not change, and below 0 one that it makes less likely.
    The published weight is 0.2, next to an outcome of 1. Source: SAR, its repository; no arXiv number is given there.
    """

    def amount(trajectory: Trajectory) -> Amount:
        given, alone = trajectory.signal(WITH), trajectory.signal(WITHOUT)
        if given is None or alone is None or given.value is None or alone.value is None:
            return None
        return max(-1.0, -float(np.expm1(min(alone.value - given.value, 1.0))))

    return per_trajectory(
        "self_aligned",
        amount,
        scope="trajectory",
        signals={WITH, WITHOUT},
        needs=f"'{WITH}' and '{WITHOUT}'",
        low=-1.0,
        high=1.0,
    )


__all__ = ["WITH", "WITHOUT", "AnswerLogprobs", "self_aligned"]
