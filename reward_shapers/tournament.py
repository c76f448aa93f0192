"""Ranks the siblings of a group by matches, and prices the ranks (ArenaRL, arXiv 2601.06487)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from agentgym.errors import unknown_name
from agentgym.judging.contentless import contentless
from agentgym.probe import OpenAt
from agentgym.reward import Shaper, per_group
from agentgym.types import Group, Signal, Trajectory

from .asking import Contentless, answer, source, without_content
from .brackets import BRACKETS, Places, Scores
from .pairwise import PairwiseJudge

PLACE, MATCH = "place", "match"

Draw = Literal["lot", "order"]
Ties = Literal["mean", "min"]


class Tournament:
    """Emits ``place`` for each sibling, 0 the best, and ``match`` for each of its matches: its lead over ``item``.

    The paper's bracket, seeded single elimination, is the default; its repository ships ``anchor``, which leaves most
    pairs of siblings uncompared. ``draw`` says in what order they enter: by ``lot``, which hangs on their ids alone, or
    in the ``order`` of the group, as in the authors' code, where all but a round robin then depend on who stands first.

    An answer without content plays no match and has the very last place, N − 1, however many share it. Who has no
    place has a cause.

    Raises:
        UnknownNameError: another bracket or draw.
    """

    signals = frozenset({PLACE, MATCH})

    def __init__(
        self,
        judge: PairwiseJudge,
        *,
        bracket: str = "single_elimination",
        draw: Draw = "lot",
        contentless: Contentless = contentless,
    ) -> None:
        if bracket not in BRACKETS:
            raise unknown_name("bracket", bracket, BRACKETS)
        if draw not in get_args(Draw):
            raise unknown_name("draw", draw, get_args(Draw))
        self.judge = judge
        self.bracket = bracket
        self.draw = draw
        self.contentless = contentless

    @property
    def name(self) -> str:
        """The ``source`` of its signals."""
        return source(f"tournament-{self.bracket}", self.judge.judge)

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return the place and the matches of each trajectory."""
        empty = [self.contentless(answer(each), each.task.prompt) for each in group.trajectories]
        players = [number for number, why in enumerate(empty) if not why]
        if self.draw == "lot":
            players.sort(key=lambda number: lot(group.trajectories[number].id))
        matches: list[list[Signal]] = [[] for _ in empty]
        places: Places = [None] * len(players)
        if len(empty) > 1 and players:
            entrants = [group.trajectories[number] for number in players]
            notes: list[list[Signal]] = [matches[number] for number in players]
            places = await self._play(entrants, notes)
        by_member = dict(zip(players, places, strict=True))
        last = float(len(empty) - 1)
        return [
            (self._place(last if why else by_member[number], why, matches[number], len(empty)), *matches[number])
            for number, why in enumerate(empty)
        ]

    async def _play(self, entrants: Sequence[Trajectory], notes: Sequence[list[Signal]]) -> Places:
        if len(entrants) == 1:
            return [0.0]

        async def match(first: int, second: int) -> Scores:
            result = await self.judge.compare(entrants[first], entrants[second])
            lead = None if result.scores is None else result.scores[0] - result.scores[1]
            for player, other, own in ((first, second, 1), (second, first, -1)):
                value = None if lead is None else own * lead
                item = entrants[other].id
                notes[player].append(
                    Signal(MATCH, value, self.name, None, item, result.cause, result.cost / 2, result.evidence)
                )
            return result.scores

        async def play(pairs: Sequence[tuple[int, int]]) -> Sequence[Scores]:
            return await asyncio.gather(*(match(first, second) for first, second in pairs))

        return await BRACKETS[self.bracket](len(entrants), play)

    def _place(self, place: float | None, why: str, matches: Sequence[Signal], siblings: int) -> Signal:
        if siblings < 2:
            return Signal(PLACE, None, self.name, cause="there is no sibling to compare with")
        if place is None:
            causes = ", ".join(dict.fromkeys(match.cause for match in matches if match.cause))
            return Signal(PLACE, None, self.name, cause=f"a match was not judged: {causes}")
        if why:
            return without_content(Signal(PLACE, None, self.name), why, place)
        leads = ", ".join(f"{match.value:+g} against {match.item}" for match in matches if match.value is not None)
        return Signal(PLACE, place, self.name, evidence=leads)


def lot(id: str) -> str:
    """Return the lot that a trajectory draws, by its id alone."""
    return hashlib.sha256(id.encode()).hexdigest()


def ranked(ties: Ties = "mean", *, name: str = "rank") -> Shaper:
    """Return the reward of places, from 1 for the best of N siblings down to 0.

    ``mean`` pays ``1 − place/(N − 1)``, equals sharing the mean of their places; ``min`` pays ``(max − r)/(max − 1)``
    of ranks r that give equals the best of theirs, and 0 to all where all are equal, as the authors' code does after
    a round robin and in anchor mode. N counts those with a place; with fewer than two it is unmeasured. The very last
    place among all siblings pays 0 however many have it: only answers without content share it.

    Raises:
        UnknownNameError: another way with ties.
    """
    _check_ties(ties)
    return per_group(
        name,
        lambda group: _amounts(_rewards(_places(group), ties)),
        scope="trajectory",
        signals={PLACE},
        low=0.0,
        high=1.0,
    )


def rank_advantage(ties: Ties = "mean", *, name: str = "rank_advantage") -> Shaper:
    """Return ``(r − mean) / (std + 1e-6)`` of `ranked`, at every turn, with the sample deviation: ArenaRL's advantage.

    It is centred and scaled already, and wants no further baseline: train on it ``as_paid``. Equals of everybody get
    exactly 0.

    Breaks *bounded*: how far it goes depends on the number of siblings, and every turn is paid. Breaks *scale
    honesty*: it is measured in deviations. Breaks *prefix-only*: a place is known in the end and paid at every turn.
    """
    _check_ties(ties)

    def standardised(group: Group) -> list[list[float | None]]:
        reward_G = _rewards(_places(group), ties)
        known = reward_G[~np.isnan(reward_G)]
        paid_G = (reward_G - known.mean()) / (known.std(ddof=1) + 1e-6) if len(known) > 1 else reward_G
        members = zip(_amounts(paid_G), group.trajectories, strict=True)
        return [[amount] * len(trajectory.turns) for amount, trajectory in members]

    return per_group(name, standardised, scope="turn", signals={PLACE})


def _places(group: Group) -> NDArray[np.float64]:
    found = [trajectory.signal(PLACE) for trajectory in group.trajectories]
    return np.array([np.nan if place is None else place.value for place in found], np.float64)


def _rewards(place_G: NDArray[np.float64], ties: Ties) -> NDArray[np.float64]:
    known = np.sort(place_G[~np.isnan(place_G)])
    if len(known) < 2:
        return np.full(len(place_G), np.nan)
    # Places are counted anew among those that have one; equals keep the mean of theirs.
    below_G, upto_G = (np.searchsorted(known, place_G, side).astype(np.float64) for side in ("left", "right"))
    if ties == "mean":
        reward_G = 1 - (below_G + upto_G - 1) / 2 / (len(known) - 1)
    else:
        worst = np.searchsorted(known, known[-1])
        reward_G = (worst - below_G) / worst if worst else np.zeros(len(place_G))
    reward_G = np.where(place_G >= len(place_G) - 1, 0.0, reward_G)  # no tie of real answers reaches so far down
    return np.where(np.isnan(place_G), np.nan, reward_G)


def _amounts(value_G: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else value for value in value_G.tolist()]


def _check_ties(ties: str) -> None:
    if ties not in get_args(Ties):
        raise unknown_name("way with ties", ties, get_args(Ties))


__all__ = ["MATCH", "PLACE", "Draw", "Ties", "Tournament", "lot", "rank_advantage", "ranked"]
