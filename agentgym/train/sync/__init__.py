"""How new weights reach the engine that samples: one small interface, one module a way.

`push` is called between optimiser steps, with the version the weights have reached. After it every new token is sampled
by them, and says so.
"""

from __future__ import annotations

from typing import Protocol

Metrics = dict[str, float]


class WeightSync(Protocol):
    """Brings the learner's weights to where answers are sampled."""

    async def push(self, version: int) -> Metrics:
        """Hand the weights over as ``version``; return how long that took and how near the engine is to them.

        Raises:
            InfrastructureError: a server did not take them, or answers by other weights. It is running again, or gone.
        """


class Updatable(Protocol):
    """A policy that is told of new weights."""

    def update(self, version: int) -> None:
        """Say that the weights changed."""


class InProcessSync:
    """The policy samples from the very tensors that are learnt, so it only has to be told."""

    def __init__(self, policy: Updatable) -> None:
        self._policy = policy

    async def push(self, version: int) -> Metrics:
        """Tell the policy; see `WeightSync.push`."""
        self._policy.update(version)
        return {}


__all__ = ["InProcessSync", "Metrics", "Updatable", "WeightSync"]
