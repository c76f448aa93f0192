"""One sibling as the reference the others are compared with (BRPO, "Writing-Zero", arXiv 2506.00103)."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np

from agentgym.claims import Claim, Measured
from agentgym.judging.contentless import contentless
from agentgym.probe import OpenAt
from agentgym.reward import Part, Shaper, finite
from agentgym.types import Group, Signal, Trajectory

from .asking import Contentless, answer, source, without_content
from .pairwise import PairwiseJudge
from .tournament import lot

REFERENCE, AGAINST = "is_reference", "against_reference"


class InGroupReference:
    """Emits ``is_reference``, 1 for the sibling drawn as reference, and for the others ``against_reference``.

    That is 1 where they beat it, 1/2 where they tie and 0 where they lose. The draw hangs on the ids and the training
    step alone. An answer without content is not drawn, and loses without a match.
    """

    signals = frozenset({REFERENCE, AGAINST})

    def __init__(self, judge: PairwiseJudge, *, contentless: Contentless = contentless) -> None:
        self.judge = judge
        self.contentless = contentless

    @property
    def name(self) -> str:
        """The ``source`` of its signals."""
        return source("in_group", self.judge.judge)

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return the signals of each trajectory."""
        empty = [self.contentless(answer(each), each.task.prompt) for each in group.trajectories]
        drawn = [trajectory for trajectory, why in zip(group.trajectories, empty, strict=True) if not why]
        reference = min(drawn, key=lambda trajectory: lot(f"{trajectory.id}@{group.step}"), default=None)
        members = zip(group.trajectories, empty, strict=True)
        return list(await asyncio.gather(*(self._member(each, why, reference) for each, why in members)))

    async def _member(self, trajectory: Trajectory, why: str, reference: Trajectory | None) -> tuple[Signal, ...]:
        if trajectory is reference:
            return (Signal(REFERENCE, 1.0, self.name),)
        told = Signal(REFERENCE, 0.0, self.name)
        blank = Signal(AGAINST, None, self.name, evidence="")
        if why or reference is None:
            return told, without_content(blank, why)
        result = await self.judge.compare(trajectory, reference)
        if result.scores is None:
            return told, replace(blank, cause=result.cause, cost=result.cost)
        lead = result.scores[0] - result.scores[1]
        evidence = f"{lead:+g} against {reference.id}: {result.evidence}"
        return told, replace(blank, value=(np.sign(lead).item() + 1) / 2, cost=result.cost, evidence=evidence)


def brpo(*, win: float, tie: float, lose: float, name: str = "brpo") -> Shaper:
    """Return what a win, a tie and a loss against the in-group reference pay; the reference itself gets nothing.

    The three amounts have no default: the method's own could not be verified.
    """
    for what, amount in (("win", win), ("tie", tie), ("lose", lose)):
        finite(f"{what} of brpo", amount)

    def claims(measured: Measured) -> tuple[Claim, ...]:
        against = measured.read(AGAINST, "", "trajectory", name)
        reference = measured.read(REFERENCE, "", "trajectory", name).raw == 1
        known = [against.raw == 1, against.raw == 0.5, against.raw == 0]
        return (replace(against, value=np.select(known, [win, tie, lose], np.nan), eligible=~reference),)

    part = Part(name, "trajectory", min(win, tie, lose, 0.0), max(win, tie, lose, 0.0))
    return Shaper(name, (part,), claims, frozenset({REFERENCE, AGAINST}))


__all__ = ["AGAINST", "REFERENCE", "InGroupReference", "brpo"]
