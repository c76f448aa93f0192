"""Ways to rank players by matches: who meets whom, who rests, and what place each gets (ArenaRL, arXiv 2601.06487).

=====================  =========  ==================================================================
bracket                matches    order
=====================  =========  ==================================================================
`anchor`               N − 1      by the score against player 0, who has the mean of its own
`round_robin`          N(N−1)/2   by points, 1 for a win and 1/2 for a tie
`swiss`                ~N/2 log N by points, then by the opponents' points (Buchholz)
`single_elimination`   2N − 2     by the round of the loss, then by mean score; seeded by `anchor`
`double_elimination`   ~2N        by the round of the second loss, then by mean score
=====================  =========  ==================================================================

Players are numbers, in the order in which they were drawn; only `round_robin` does not depend on it. A match that
could not be judged withdraws both players from a bracket that needs its result; they get no place. Brackets of other
sizes than a power of two have empty slots that stay where they are, so that byes go to the top seeds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

Pair = tuple[int, int]
Scores = tuple[float, float] | None
Play = Callable[[Sequence[Pair]], Awaitable[Sequence[Scores]]]
"""Plays the matches of one round at once; None for one that could not be judged."""
Places = list[float | None]
"""The place of each player, 0 the best; equals share the mean of their places; None: unknown."""
Bracket = Callable[[int, Play], Awaitable[Places]]


async def anchor(players: int, play: Play) -> Places:
    """Return the places by the score in one match against player 0."""
    table = _Table(players)
    await table.play([(other, 0) for other in range(1, players)], play)
    return places({player: (mean,) for player in range(players) if (mean := table.mean(player)) is not None}, players)


async def round_robin(players: int, play: Play) -> Places:
    """Return the places by mean points over the matches of all against all that could be judged."""
    pairs = list(itertools.combinations(range(players), 2))
    points: dict[int, list[float]] = {player: [] for player in range(players)}
    for (first, second), scores in zip(pairs, await play(pairs) if pairs else (), strict=True):
        if scores is not None:
            points[first].append(_points(scores))
            points[second].append(1 - points[first][-1])
    return places({player: (math.fsum(got) / len(got),) for player, got in points.items() if got}, players)


async def swiss(players: int, play: Play) -> Places:
    """Return the places after ⌈log₂ N⌉ rounds among equals, nobody meeting or resting twice while that can be helped.

    A rest counts as a win.
    """
    points, rests = [0.0] * players, [0] * players
    met: list[set[int]] = [set() for _ in range(players)]
    playing = set(range(players))
    for _ in range(math.ceil(math.log2(players)) if players > 1 else 0):
        order = sorted(playing, key=lambda player: (-points[player], player))
        if len(order) % 2:
            resting = min(reversed(order), key=lambda player: rests[player])
            order.remove(resting)
            rests[resting] += 1
            points[resting] += 1
        pairs = _among_equals(order, met)
        for (first, second), scores in zip(pairs, await play(pairs) if pairs else (), strict=True):
            if scores is None:
                playing -= {first, second}
                continue
            points[first] += _points(scores)
            points[second] += 1 - _points(scores)
            met[first].add(second)
            met[second].add(first)
    judged = [player for player in playing if met[player]]
    return places({p: (points[p], math.fsum(points[other] for other in met[p])) for p in judged}, players)


async def single_elimination(players: int, play: Play) -> Places:
    """Return the places of a bracket seeded by matches against player 0; a tie goes to the better seed."""
    table = _Table(players)
    await table.play([(other, 0) for other in range(1, players)], play)
    strength = [table.mean(player) for player in range(players)]
    seeds = sorted(range(players), key=lambda p: (strength[p] is None, -(strength[p] or 0.0), p))
    seed = {player: number for number, player in enumerate(seeds)}
    slots = [seeds[number] if number < players else None for number in seeding(players)]
    champion, rounds = await _knock_out(slots, table, play, lambda player: float(-seed[player]))
    return table.places(rounds, champion)


async def double_elimination(players: int, play: Play) -> Places:
    """Return the places of a bracket that nobody leaves before a second loss; a tie goes to the higher mean score.

    The losers of each round of the upper bracket join the lower one, which then plays a round; its winner meets the
    upper one's in a final of one match. In the lower bracket nobody rests twice while others have not.
    """
    table = _Table(players)
    slots = [number if number < players else None for number in seeding(players)]
    champion, drops = await _knock_out(slots, table, play, table.strength)
    pool: list[int] = []
    out: list[list[int]] = []
    rests = [0] * players
    for joining in drops:
        pool = await _lower_round(pool + joining, rests, out, table, play)
    while len(pool) > 1:
        pool = await _lower_round(pool, rests, out, table, play)
    if champion is None or not pool:
        return table.places(out, pool[0] if pool else champion)
    (final,) = await table.decide([(champion, pool[0])], play, table.strength)
    return table.places(out, None) if final is None else table.places([*out, [final[1]]], final[0])


BRACKETS: Mapping[str, Bracket] = {
    bracket.__name__: bracket for bracket in (anchor, round_robin, swiss, single_elimination, double_elimination)
}


def seeding(players: int) -> list[int]:
    """Return the seeds, 0 the best, in the order of a bracket's slots: the best two can meet in the final only.

    There are as many slots as the next power of two; seeds from ``players`` on are byes.
    """
    slots = [0]
    while len(slots) < players:
        slots = [seed for slot in slots for seed in (slot, 2 * len(slots) - 1 - slot)]
    return slots


def places(keys: Mapping[int, tuple[float, ...]], players: int) -> Places:
    """Return the places of the players with a key, the greatest first; equal keys share the mean of their places."""
    order = sorted(keys, key=lambda player: keys[player], reverse=True)
    result: Places = [None] * players
    first = 0
    for _, equals in itertools.groupby(order, key=lambda player: keys[player]):
        tied = list(equals)
        for player in tied:
            result[player] = first + (len(tied) - 1) / 2
        first += len(tied)
    return result


@dataclass(slots=True)
class _Table:
    """The scores of every match, by player."""

    players: int
    scores: dict[int, list[float]] = field(default_factory=dict)

    async def play(self, pairs: Sequence[Pair], play: Play) -> Sequence[Scores]:
        results = await play(pairs) if pairs else ()
        for (first, second), scores in zip(pairs, results, strict=True):
            if scores is not None:
                self.scores.setdefault(first, []).append(scores[0])
                self.scores.setdefault(second, []).append(scores[1])
        return results

    async def decide(self, pairs: Sequence[Pair], play: Play, better: Callable[[int], float]) -> list[Pair | None]:
        """Return winner and loser of each match, a tie going to who is ``better``; None where it was not judged."""
        decided: list[Pair | None] = []
        for (first, second), scores in zip(pairs, await self.play(pairs, play), strict=True):
            if scores is None:
                decided.append(None)
                continue
            margin = scores[0] - scores[1] or better(first) - better(second)
            decided.append((first, second) if margin >= 0 else (second, first))
        return decided

    def mean(self, player: int) -> float | None:
        scores = self.scores.get(player)
        return math.fsum(scores) / len(scores) if scores else None

    def strength(self, player: int) -> float:
        return self.mean(player) or 0.0

    def places(self, rounds: Sequence[Sequence[int]], champion: int | None) -> Places:
        keys = {
            loser: (float(number), self.strength(loser)) for number, losers in enumerate(rounds) for loser in losers
        }
        if champion is not None:
            keys[champion] = (math.inf, 0.0)
        return places(keys, self.players)


async def _knock_out(
    slots: Sequence[int | None], table: _Table, play: Play, better: Callable[[int], float]
) -> tuple[int | None, list[list[int]]]:
    """Return the winner of a bracket and the losers of each of its rounds; an empty slot lets the other one pass."""
    rounds: list[list[int]] = []
    while len(slots) > 1:
        couples = list(zip(slots[::2], slots[1::2], strict=True))
        pairs = [(first, second) for first, second in couples if first is not None and second is not None]
        decided = dict(zip(pairs, await table.decide(pairs, play, better), strict=True))
        rounds.append([result[1] for result in decided.values() if result])
        slots = [_passes(first, second, decided) for first, second in couples]
    return slots[0], rounds


def _passes(first: int | None, second: int | None, decided: Mapping[Pair, Pair | None]) -> int | None:
    if first is None or second is None:
        return second if first is None else first
    result = decided[first, second]
    return result[0] if result else None


async def _lower_round(pool: list[int], rests: list[int], out: list[list[int]], table: _Table, play: Play) -> list[int]:
    """Play a round of the lower bracket, note who is ``out``, and return who is left."""
    resting = [min(reversed(pool), key=lambda player: rests[player])] if len(pool) % 2 else []
    for player in resting:
        rests[player] += 1
    playing = [player for player in pool if player not in resting]
    decided = await table.decide(list(zip(playing[::2], playing[1::2], strict=True)), play, table.strength)
    out.append([result[1] for result in decided if result])
    return [result[0] for result in decided if result] + resting


def _among_equals(order: Sequence[int], met: Sequence[set[int]]) -> list[Pair]:
    """Return pairs of near neighbours in ``order`` who have not met; the nearest, where it cannot be helped."""
    fresh = _fresh_pairs(order, met)
    return list(zip(order[::2], order[1::2], strict=True)) if fresh is None else fresh


def _fresh_pairs(order: Sequence[int], met: Sequence[set[int]]) -> list[Pair] | None:
    if not order:
        return []
    first, *others = order
    for second in others:
        if second not in met[first]:
            rest = _fresh_pairs([player for player in others if player != second], met)
            if rest is not None:
                return [(first, second), *rest]
    return None


def _points(scores: tuple[float, float]) -> float:
    return 0.5 if scores[0] == scores[1] else float(scores[0] > scores[1])


__all__ = [
    "BRACKETS",
    "Bracket",
    "Places",
    "Play",
    "anchor",
    "double_elimination",
    "places",
    "round_robin",
    "seeding",
    "single_elimination",
    "swiss",
]
