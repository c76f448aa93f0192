"""Places from matches, and what places pay: the golden vector of ArenaRL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from agentgym.reward_shapers.pairwise import Comparison, PairwiseJudge
from agentgym.reward_shapers.tournament import MATCH, PLACE, Tournament, rank_advantage, ranked
from episodes import SilentJudge

from agentgym.errors import UnknownNameError
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message


def episode(id: str, *signals: Signal) -> Trajectory:
    turn = Turn((), empty_sample(text_message("assistant", f"I am {id}")), np.empty(0, np.int32))
    return Trajectory(id, "g", Task("t", "Plan.", 9), (turn,), (), StopReason.DONE, signals, 0)


def placed(places: Sequence[float | None]) -> Group:
    return Group(tuple(episode(str(n), Signal(PLACE, place, "arena")) for n, place in enumerate(places)))


def paid(shaper, places: Sequence[float | None]) -> list[float | None]:
    return [ledger.total() if ledger.measured else None for ledger in shaper(placed(places))]


class ByName(PairwiseJudge):
    """Lets the greater id win; pairs that hold a ``lost`` id are not judged."""

    lost = "-"

    async def compare(self, first: Trajectory, second: Trajectory) -> Comparison:
        if self.lost in (first.id, second.id):
            return Comparison(None, "JudgeError: stalled", 1.0)
        return Comparison((float(ord(first.id)), float(ord(second.id))), cost=1.0, evidence="by name")


def hold(ids: str, *, lost: str = "-", **how: object) -> list[tuple[Signal, ...]]:
    judge = ByName(SilentJudge())
    ByName.lost = lost
    return asyncio.run(Tournament(judge, **how)(Group(tuple(episode(id) for id in ids))))  # type: ignore[arg-type]


def test_golden_vector_of_four_places():
    assert paid(ranked(), [0, 1, 2, 3]) == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert paid(rank_advantage(), [0, 1, 2, 3]) == pytest.approx([1.162, 0.387, -0.387, -1.162], abs=5e-4)
    assert ranked().range(5) == (0, 1)


def test_an_advantage_is_paid_at_every_turn():
    longer = replace(episode("a", Signal(PLACE, 0.0, "arena")), turns=episode("a").turns * 3)
    first, last = rank_advantage()(Group((longer, episode("b", Signal(PLACE, 1.0, "arena")))))
    one = 0.5 / (0.5**0.5 + 1e-6)  # r = 1 and 0, whose sample deviation is √½
    assert first.credit_CT()[0].tolist() == pytest.approx([one] * 3)
    assert last.credit_CT()[0].tolist() == pytest.approx([-one])


def test_equals_share_or_get_the_best_of_their_places():
    assert paid(ranked(), [0, 1.5, 1.5, 3]) == pytest.approx([1, 0.5, 0.5, 0])
    assert paid(ranked("min"), [0, 1.5, 1.5, 3]) == pytest.approx([1, 2 / 3, 2 / 3, 0])
    # Ranks 1, 2, 2: the largest is 2, not 3.
    assert paid(ranked("min"), [0, 1.5, 1.5]) == [1, 0, 0]
    assert paid(ranked("min"), [1, 1, 1]) == [0, 0, 0]
    assert paid(ranked(), [1, 1, 1]) == [0.5, 0.5, 0.5]
    assert paid(rank_advantage(), [1, 1, 1]) == [0, 0, 0]


def test_who_has_no_place_is_left_out_of_the_count():
    assert paid(ranked(), [0, None, 1, 2]) == [1, None, 0.5, 0]
    assert paid(ranked(), [0, None, 3]) == [1, None, 0]
    assert paid(ranked(), [0, None]) == [None, None]
    assert paid(rank_advantage(), [0, None]) == [None, None]
    assert paid(ranked(), [None]) == [None]
    assert ranked()(Group((episode("a"), episode("b"))))[0].measured is False


def test_a_tournament_emits_places_and_matches():
    signals = hold("acb", bracket="round_robin")
    assert [one[0].value for one in signals] == [2, 0, 1]
    assert {signal.source for one in signals for signal in one} == {"tournament-round_robin@v1"}
    matches = {signal.item: (signal.value, signal.cost) for signal in signals[0] if signal.name == MATCH}
    assert matches == {"b": (-1.0, 0.5), "c": (-2.0, 0.5)}
    assert sum(signal.cost for one in signals for signal in one) == 3.0
    assert "-2 against c" in signals[0][0].evidence


def test_what_was_not_judged_is_unmeasured():
    signals = hold("abc", bracket="round_robin", lost="b")
    assert [one[0].value for one in signals] == [1, None, 0]
    assert signals[1][0].cause == "a match was not judged: JudgeError: stalled"
    assert [signal.value for signal in signals[1][1:]] == [None, None]


def test_alone_there_is_no_place():
    ((place,),) = hold("a")
    assert (place.value, place.cause) == (None, "there is no sibling to compare with")
    assert hold("") == []


def empty(text: str, prompt: str) -> str:
    return "opener" if text[-1] in "yz" else ""


def test_answers_without_content_play_no_match_and_come_last():
    signals = hold("zayb", bracket="round_robin", contentless=empty)
    assert [one[0].value for one in signals] == [3, 1, 3, 0]
    assert [len(one) for one in signals] == [1, 2, 1, 2]
    assert [one[0].value for one in hold("zy", contentless=empty)] == [1, 1]
    assert [one[0].value for one in hold("za", contentless=empty)] == [1, 0]


@pytest.mark.parametrize(
    ("ids", "expected"), [("zayb", [0, 2 / 3, 0, 1]), ("zy", [0, 0]), ("zya", [0, 0, 1]), ("zyx", [0, 0, 1])]
)
@pytest.mark.parametrize("ties", ["mean", "min"])
def test_answers_without_content_are_paid_nothing_however_many_there_are(ids: str, expected: list[float], ties: str):
    members = zip(ids, hold(ids, bracket="round_robin", contentless=empty), strict=True)
    ledgers = ranked(ties)(Group(tuple(episode(id, *signals) for id, signals in members)))  # type: ignore[arg-type]
    found = [ledger.total() for ledger in ledgers]
    assert all(ledger.measured for ledger in ledgers)
    if ties == "mean":
        assert found == pytest.approx(expected)
    assert [found[n] for n, id in enumerate(ids) if id in "yz"] == [0] * sum(id in "yz" for id in ids)


def test_a_real_tie_for_the_last_places_still_shares_them():
    assert paid(ranked(), [0, 1.5, 1.5]) == pytest.approx([1, 0.25, 0.25])


@pytest.mark.parametrize("bracket", ["anchor", "round_robin", "swiss", "single_elimination", "double_elimination"])
def test_law_permutation_equivariance_by_lot(bracket: str):
    """Places hang on the ids, not on who stands where; drawn in order, all but the round robin may differ."""
    ids = "abcdefg"
    expected = dict(zip(ids, (one[0].value for one in hold(ids, bracket=bracket)), strict=True))
    for shift in range(1, len(ids)):
        turned = ids[shift:] + ids[:shift]
        assert dict(zip(turned, (one[0].value for one in hold(turned, bracket=bracket)), strict=True)) == expected


def test_law_permutation_equivariance_is_broken_by_the_order_as_in_the_authors_code():
    def beaten_once(ids: str) -> dict[str, float | None]:
        signals = hold(ids, bracket="swiss", draw="order")
        return dict(zip(ids, (one[0].value for one in signals), strict=True))

    assert beaten_once("abcd") != beaten_once("adbc")


def test_unknown_words_are_refused():
    with pytest.raises(UnknownNameError, match="no bracket 'swis'; did you mean 'swiss'"):
        Tournament(ByName(SilentJudge()), bracket="swis")
    with pytest.raises(UnknownNameError, match="no draw"):
        Tournament(ByName(SilentJudge()), draw="seed")  # type: ignore[arg-type]
    for make in (ranked, rank_advantage):
        with pytest.raises(UnknownNameError, match="no way with ties"):
            make("max")  # type: ignore[arg-type]
