"""How likely a model finds an answer: the part that probes of log-probabilities share, and the one of the reference.

Log-probabilities are those of ``policy`` as it stands when the probe runs, at temperature 1; ``version`` names its
weights. What cannot be scored (no tokens recorded, too long, an engine that fails) is unmeasured, with its cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import numpy as np

from agentgym.errors import ConfigError, InfrastructureError, UsageError
from agentgym.policy import Policy
from agentgym.probe import OpenAt
from agentgym.render import Renderer
from agentgym.types import Floats, Group, Message, Signal, TokenIds, Trajectory

from .reference import ANSWER, LOGPROB, LOGPROB_MEAN, references


class Unscored(Exception):
    """An answer has no log-probability; says why."""


@dataclass(frozen=True, slots=True)
class ReferenceLogprob:
    """Measures how likely the policy finds the reference in the place of its own answer: `log p(reference | …)`.

    With ``tag``, the policy's last message is kept up to where ``<tag>`` was last opened, so that its thoughts count;
    where it never was, it is opened after them. Without, the reference stands in place of the whole message. Of
    several references that will do, the likeliest counts.
    """

    policy: Policy
    version: str
    tag: str = ""

    @property
    def name(self) -> str:
        """The ``source`` of its signals."""
        return f"reference_logprob {self.version}"

    @property
    def signals(self) -> frozenset[str]:
        """Names of the signals it emits."""
        return frozenset({LOGPROB, LOGPROB_MEAN})

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return both signals for each trajectory.

        Raises:
            UsageError: the policy has no tokens or no log-probabilities.
        """
        return await score_each(group, self.name, self.signals, self._score)

    async def _score(self, trajectory: Trajectory) -> Mapping[str, float]:
        accepted = references(trajectory.task)
        if accepted is None:
            raise Unscored(f"the task has no data['{ANSWER}']")
        renderer, context_N = renderer_of(self.policy), context_of(trajectory)
        sampled_N = trajectory.turns[-1].sample.token_ids_N
        best: Mapping[str, float] = {}
        for reference in accepted:
            kept_N, reference_N = in_its_place(renderer, sampled_N, self.tag, reference)
            logprobs_N = await logprobs_of(self.policy, np.concatenate([context_N, kept_N]), reference_N)
            mean = float(logprobs_N.mean())
            if not best or mean > best[LOGPROB_MEAN]:
                best = {LOGPROB: float(logprobs_N.sum()), LOGPROB_MEAN: mean}
        return best


async def score_each(
    group: Group,
    source: str,
    names: frozenset[str],
    score: Callable[[Trajectory], Awaitable[Mapping[str, float]]],
) -> list[tuple[Signal, ...]]:
    """Return the signals ``names`` of each trajectory; one that ``score`` raises `Unscored` for has none of them."""

    async def measured(trajectory: Trajectory) -> tuple[Signal, ...]:
        try:
            values = await score(trajectory)
        except Unscored as error:
            return tuple(Signal(name, None, source, cause=str(error)) for name in sorted(names))
        return tuple(Signal(name, values[name], source) for name in sorted(names))

    return list(await asyncio.gather(*map(measured, group.trajectories)))


async def logprobs_of(policy: Policy, before_N: TokenIds, answer_N: TokenIds) -> Floats:
    """Return the log-probability of each token of an answer after ``before_N``, (N,).

    Raises:
        Unscored: there is nothing to score, it does not fit, the engine failed, or a token is impossible.
        UsageError: the policy has no log-probabilities.
    """
    if not len(before_N) or not len(answer_N):
        raise Unscored("the tokens of the answer, or of what came before it, were not recorded")
    ids_N = np.concatenate([before_N, answer_N]).astype(np.int32)
    if policy.max_context is not None and len(ids_N) > policy.max_context:
        raise Unscored(f"its {len(ids_N)} tokens do not fit into the model's {policy.max_context}")
    try:
        logprobs_N = (await policy.logprobs(ids_N))[len(before_N) :]
    except InfrastructureError as error:
        raise Unscored(f"{type(error).__name__}: {error}") from error
    except NotImplementedError as error:
        raise UsageError(f"log-probabilities need a policy that has them: {error}") from error
    if not np.isfinite(logprobs_N).all():
        raise Unscored("a token of it has probability 0, or no finite log-probability")
    return logprobs_N


def renderer_of(policy: Policy) -> Renderer:
    """Return how ``policy`` writes messages as tokens.

    Raises:
        ConfigError: it reads messages only.
    """
    if policy.renderer is None:
        raise ConfigError("log-probabilities need a policy with a renderer; this one reads messages only")
    return policy.renderer


def context_of(trajectory: Trajectory) -> TokenIds:
    """Return the ids (N,) on the token buffer before the last answer: those of its segment.

    Raises:
        Unscored: nothing was answered.
    """
    if not trajectory.turns:
        raise Unscored("the episode has no turn")
    *earlier, last = [turn for turn in trajectory.turns if turn.segment == trajectory.turns[-1].segment]
    parts = [part for turn in earlier for part in (turn.prompt_ids_N, turn.sample.token_ids_N)]
    return np.concatenate([*parts, last.prompt_ids_N])


def in_its_place(renderer: Renderer, sampled_N: TokenIds, tag: str, reference: str) -> tuple[TokenIds, TokenIds]:
    """Return the ids of a sampled message that are kept, and those of the reference that follows them.

    What was sampled is not tokenised again: where the tag opens within a token, the kept ids end before that token.
    """
    if not tag:
        return sampled_N[:0], _text_ids(renderer, reference)
    ended = len(sampled_N) > 0 and sampled_N[-1] == renderer.eos_id
    ids_N = sampled_N[:-1] if ended else sampled_N
    opening, text = f"<{tag}>", _decoded(renderer, ids_N)
    if opening not in text:
        return ids_N, _text_ids(renderer, f"{opening}{reference}")
    head = text[: text.rindex(opening) + len(opening)]
    low, high = 0, len(ids_N)  # the most tokens whose text is a part of the head, by bisection
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(_decoded(renderer, ids_N[:middle])) <= len(head) else (low, middle - 1)
    while not head.startswith(_decoded(renderer, ids_N[:low])):
        low -= 1  # within a character of several tokens
    return ids_N[:low], _text_ids(renderer, head[len(_decoded(renderer, ids_N[:low])) :] + reference)


def _decoded(renderer: Renderer, ids_N: TokenIds) -> str:
    return str(renderer.tokenizer.decode(ids_N, skip_special_tokens=False))


def _text_ids(renderer: Renderer, text: str) -> TokenIds:
    return renderer.answer(Message("assistant", text))[:-1]


__all__ = [
    "ReferenceLogprob",
    "Unscored",
    "context_of",
    "in_its_place",
    "logprobs_of",
    "renderer_of",
    "score_each",
]
