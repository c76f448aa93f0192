"""Brackets against players of known strength, worked by hand."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import pytest
from agentgym.reward_shapers.brackets import BRACKETS, places, seeding


class Field:
    """Players of given strengths; who meets is noted, and some matches cannot be judged."""

    def __init__(self, strengths: Sequence[float], lost: Sequence[tuple[int, int]] = (), spare: int = 0) -> None:
        self.strengths = strengths
        self.lost = {frozenset(pair) for pair in lost}
        self.spare = spare
        self.rounds: list[list[tuple[int, int]]] = []

    async def play(self, pairs):
        """Play; the first ``spare`` rounds (those that seed) are judged whatever ``lost`` says."""
        self.rounds.append(list(pairs))
        judged = len(self.rounds) <= self.spare
        return [
            None if frozenset((a, b)) in self.lost and not judged else (self.strengths[a], self.strengths[b])
            for a, b in pairs
        ]

    @property
    def matches(self) -> int:
        return sum(map(len, self.rounds))


def held(name: str, field: Field) -> list[float | None]:
    return asyncio.run(BRACKETS[name](len(field.strengths), field.play))


def test_seeds_are_set_so_that_the_best_meet_last():
    assert seeding(1) == [0]
    assert seeding(2) == [0, 1]
    assert seeding(4) == [0, 3, 1, 2]
    assert seeding(5) == seeding(8) == [0, 7, 3, 4, 1, 6, 2, 5]


def test_equals_share_the_mean_of_their_places():
    assert places({0: (1.0,), 1: (2.0,), 2: (1.0,), 4: (0.0,)}, 5) == [1.5, 0.0, 1.5, None, 3.0]


@pytest.mark.parametrize("name", ["anchor", "round_robin", "single_elimination"])
@pytest.mark.parametrize("strengths", list(itertools.permutations([4.0, 3.0, 2.0, 1.0])))
def test_four_players_are_ranked_by_strength(name: str, strengths: tuple[float, ...]):
    assert held(name, Field(strengths)) == [4 - strength for strength in strengths]


@pytest.mark.parametrize("name", list(BRACKETS))
@pytest.mark.parametrize("players", range(2, 10))
def test_the_strongest_wins_and_everyone_gets_a_place(name: str, players: int):
    strengths = [float(3 * number % players) if players % 3 else float(number) for number in range(players)]
    strengths = [strength + number / 100 for number, strength in enumerate(strengths)]
    found = held(name, Field(strengths))
    assert sum(place for place in found if place is not None) == players * (players - 1) / 2
    assert found[max(range(players), key=strengths.__getitem__)] == 0


@pytest.mark.parametrize(
    ("name", "players", "matches"),
    [
        ("anchor", 5, 4),
        ("round_robin", 5, 10),
        ("single_elimination", 8, 14),
        ("single_elimination", 5, 8),
        ("swiss", 8, 12),
        ("swiss", 5, 6),
        ("double_elimination", 4, 6),
        ("double_elimination", 8, 14),
    ],
)
def test_numbers_of_matches(name: str, players: int, matches: int):
    field = Field([float(number) for number in range(players)])
    held(name, field)
    assert field.matches == matches


def test_byes_go_to_the_top_seeds_and_move_nobody_else():
    """Six players: seeds 0 and 1 rest, 2 meets 5 and 3 meets 4; then 0 meets the winner of 3-4, 1 that of 2-5."""
    field = Field([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert held("single_elimination", field) == [0, 1, 2, 3, 4, 5]
    assert [sorted(map(sorted, pairs)) for pairs in field.rounds[1:]] == [[[2, 5], [3, 4]], [[0, 3], [1, 2]], [[0, 1]]]


def test_double_elimination_lets_a_second_best_come_back():
    """Both strongest meet first; the second loses there, wins the lower bracket and is second in the end."""
    field = Field([4.0, 1.0, 2.0, 3.0])  # slots 0-3 and 1-2
    assert field.strengths[0] > field.strengths[3]
    assert held("double_elimination", field) == [0, 3, 2, 1]
    assert field.rounds == [[(0, 3), (1, 2)], [(0, 2)], [(3, 1)], [(3, 2)], [(0, 3)]]


def test_in_a_swiss_tournament_nobody_rests_or_meets_twice():
    field = Field([5.0, 4.0, 3.0, 2.0, 1.0])
    held("swiss", field)
    met = [frozenset(pair) for pairs in field.rounds for pair in pairs]
    assert len(set(met)) == len(met)
    resting = [({0, 1, 2, 3, 4} - {p for pair in pairs for p in pair}).pop() for pairs in field.rounds]
    assert len(set(resting)) == 3


def test_swiss_places_by_points_then_by_the_points_of_opponents():
    """0 beats 1, 2 beats 3; 0 beats 2, 1 beats 3: 1 and 2 have a point each and opponents of 2 + 0 points: equals."""
    assert held("swiss", Field([4.0, 2.0, 3.0, 1.0])) == [0, 1.5, 1.5, 3]


def test_ties():
    assert held("anchor", Field([1.0] * 4)) == [1.5] * 4
    assert held("round_robin", Field([1.0] * 4)) == [1.5] * 4
    assert held("round_robin", Field([2.0, 1.0, 1.0])) == [0, 1.5, 1.5]


def test_a_match_without_a_verdict_withdraws_its_players_where_the_result_decides():
    # Seeds are 0 1 2 3, so 0-3 and 1-2 meet; 1-2 is not judged, and 0 has no opponent left in the final.
    field = Field([4.0, 3.0, 2.0, 1.0], lost=[(1, 2)], spare=1)
    assert held("single_elimination", field) == [0, None, None, 1]
    assert held("double_elimination", Field([4.0, 3.0, 2.0, 1.0], lost=[(1, 2)])) == [0, None, None, 1]
    assert held("swiss", Field([4.0, 3.0, 2.0, 1.0], lost=[(2, 3)])) == [0, 1, None, None]


def test_a_match_without_a_verdict_is_left_out_of_the_points_where_others_tell():
    assert held("round_robin", Field([3.0, 2.0, 1.0], lost=[(0, 1)])) == [0.5, 0.5, 2]
    assert held("round_robin", Field([3.0, 2.0], lost=[(0, 1)])) == [None, None]
    assert held("anchor", Field([3.0, 2.0, 1.0], lost=[(0, 1)])) == [0, None, 1]


@pytest.mark.parametrize("name", list(BRACKETS))
def test_when_no_match_is_judged_nobody_but_a_survivor_has_a_place(name: str):
    field = Field([1.0, 2.0, 3.0, 4.0], lost=list(itertools.combinations(range(4), 2)))
    assert held(name, field) == [None] * 4


def test_law_only_a_round_robin_does_not_depend_on_the_order():
    """Nobody beats everybody: 0 beats 1, 1 beats 2, 2 beats 0, and all beat 3."""
    beats = {(0, 1), (1, 2), (2, 0), (0, 3), (1, 3), (2, 3)}

    def run(name: str, order: tuple[int, ...]) -> list[float | None]:
        async def play(pairs):
            return [(1.0, 0.0) if (order[a], order[b]) in beats else (0.0, 1.0) for a, b in pairs]

        found = asyncio.run(BRACKETS[name](4, play))
        return [found[order.index(player)] for player in range(4)]

    orders = list(itertools.permutations(range(4)))
    differ = {name for name in BRACKETS if len({tuple(run(name, order)) for order in orders}) > 1}
    assert differ == set(BRACKETS) - {"round_robin"}
