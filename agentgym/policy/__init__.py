"""Who acts: the protocol every policy follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from agentgym.types import Floats, Observation, Sample, Sampling, TokenIds

if TYPE_CHECKING:
    from agentgym.render import Renderer


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """All a policy may know when it acts."""

    rollout_id: str
    segment: int
    messages: Observation
    "The whole conversation of this segment."
    token_ids_N: TokenIds
    "The same conversation as the token buffer; empty for policies without a renderer."
    sampling: Sampling
    seed: int
    "Seed of this one sample: the same context, weights and seed give the same tokens."
    deadline_s: float
    privileged: Mapping[str, Any] = field(default_factory=dict)
    "The environment's hints for scripted experts. A model never reads them."


class Policy(Protocol):
    """Something that answers. Asynchronous; one instance serves all rollouts at once."""

    @property
    def renderer(self) -> Renderer | None:
        """How messages become tokens, or None for a policy that reads messages only."""

    @property
    def max_context(self) -> int | None:
        """Most tokens of a segment, prompt and answers together; None: no limit known."""

    def begin(self, rollout_id: str) -> None:
        """A rollout starts: a prefix cache may be set aside for it."""

    async def act(self, context: Context, tools: tuple[dict[str, Any], ...]) -> Sample:
        """Answer.

        Raises:
            DeadlineError: no answer within ``context.deadline_s``.
            PolicyError: the engine failed.
        """

    def end(self, rollout_id: str) -> None:
        """A rollout is over, however it ended; its cache may go."""

    async def logprobs(self, token_ids_N: TokenIds) -> Floats:
        """Return log-probabilities (N,) of each token given those before it; the first is NaN.

        Raises:
            NotImplementedError: this policy has no probabilities.
        """


def sample_seed(*parts: int) -> int:
    """Return one well-mixed 63-bit seed from several numbers, the same on every machine."""
    return int(
        np.random.SeedSequence([len(parts), *(part & (2**63 - 1) for part in parts)]).generate_state(1, np.uint64)[0]
        >> 1
    )


__all__ = ["Context", "Policy", "sample_seed"]
