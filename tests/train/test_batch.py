from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import UsageError
from agentgym.train.batch import Row, bins, pack, rows
from agentgym.types import UNKNOWN_VERSION, Trajectory

Make = Callable[..., Trajectory]


def row(length: int, *, written: int = 2, name: str = "r", weight: float = 1.0) -> Row:
    """Return a row whose last tokens were written, in one turn."""
    mask = np.arange(length) >= length - written
    return Row(
        ids_N=np.arange(1, length + 1, dtype=np.int32),
        mask_N=mask,
        logprobs_N=np.where(mask, -1.0, np.nan).astype(np.float32),
        versions_N=np.where(mask, 0, UNKNOWN_VERSION).astype(np.int32),
        advantage_N=np.where(mask, 0.5, 0.0).astype(np.float32),
        turn_N=np.zeros(length, np.int32),
        return_N=np.where(mask, 2.0, np.nan).astype(np.float32),
        rollout_id=name,
        weight=weight,
    )


def test_one_segment_is_one_row_of_what_was_read_and_written_in_order(trajectory: Make) -> None:
    played = trajectory([(3, 2), (1, 1)])
    (made,) = rows(played, np.array([0.5, -2.0]), np.array([7.0, 8.0]), version=0)
    first, second = played.turns
    parts = [first.prompt_ids_N, first.sample.token_ids_N, second.prompt_ids_N, second.sample.token_ids_N]
    assert made.ids_N.tolist() == np.concatenate(parts).tolist()
    assert made.mask_N.tolist() == [False, False, False, True, True, False, True]
    assert made.advantage_N.tolist() == [0, 0, 0, 0.5, 0.5, 0, -2.0]
    assert made.turn_N.tolist() == [0, 0, 0, 0, 0, 1, 1]
    np.testing.assert_array_equal(made.return_N, [np.nan] * 3 + [7, 7, np.nan, 8])
    np.testing.assert_array_equal(made.logprobs_N[made.mask_N], [*first.sample.logprobs_N, *second.sample.logprobs_N])
    assert np.isnan(made.logprobs_N[~made.mask_N]).all()
    assert made.versions_N.tolist() == [-1, -1, -1, 0, 0, -1, 0]
    assert (made.rollout_id, made.temperature, made.weight) == (played.id, 1.0, 1.0)


def test_each_segment_is_a_row_and_keeps_the_turns_numbers(trajectory: Make) -> None:
    played = trajectory([(3, 1), (2, 2), (4, 1)], segments=[0, 1, 1])
    first, second = rows(played, np.array([1.0, 2.0, 3.0]))
    assert first.rollout_id == second.rollout_id == played.id
    assert first.turn_N.tolist() == [0] * 4
    assert second.turn_N.tolist() == [1] * 4 + [2] * 5
    assert second.advantage_N.tolist() == [0, 0, 2, 2, 0, 0, 0, 0, 3]


def test_without_advantages_rows_say_nothing_and_without_returns_they_know_none(trajectory: Make) -> None:
    (made,) = rows(trajectory())
    assert not made.advantage_N.any()
    assert np.isnan(made.return_N).all()
    assert rows(trajectory([])) == []


@pytest.mark.parametrize("version", [1, UNKNOWN_VERSION])
def test_tokens_of_other_or_unknown_weights_are_refused(trajectory: Make, version: int) -> None:
    with pytest.raises(UsageError, match=rf"turn 0 of g/0 was sampled by weights of version {version}, not 0"):
        rows(trajectory(version=version), version=0)


def test_one_stale_token_in_a_later_segment_is_enough_to_refuse(trajectory: Make) -> None:
    played = trajectory([(3, 2), (3, 2)], segments=[0, 1])
    sample = replace(played.turns[1].sample, versions_N=np.array([0, 5], np.int32))
    mixed = replace(played, turns=(played.turns[0], replace(played.turns[1], sample=sample)))
    with pytest.raises(UsageError, match="turn 1 of g/0 was sampled by weights of version 0, 5, not 0"):
        rows(mixed, version=0)


def test_padding_is_no_token_of_anyones() -> None:
    (batch,) = pack([row(5, name="a"), row(3, name="b", weight=2.0)], token_budget=10)
    assert batch.ids_BL.tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 0, 0]]
    assert batch.mask_BL.tolist() == [[False] * 3 + [True] * 2, [False, True, True, False, False]]
    assert np.isnan(batch.logprobs_BL[1, 3:]).all()
    assert np.isnan(batch.return_BL[1, 3:]).all()
    assert batch.advantage_BL[1].tolist() == [0, 0.5, 0.5, 0, 0]
    assert batch.weight_B.tolist() == [1.0, 2.0]
    assert batch.tokens == 10


def test_the_first_written_token_of_each_turn_is_marked(trajectory: Make) -> None:
    (batch,) = pack(rows(trajectory([(2, 2), (1, 3), (0, 2)])), token_budget=16)
    assert batch.first_BL[0].tolist() == [False] * 2 + [True, False, False, True, False, False, True, False]


def test_a_row_longer_than_the_budget_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"a row of 9 tokens does not fit train.token_budget = 8"):
        pack([row(3), row(9)], token_budget=8)


def test_rows_sampled_at_different_temperatures_are_never_scored_at_one() -> None:
    cold, warm = replace(row(4, name="cold"), temperature=0.5), row(4, name="warm")
    batches = pack([cold, warm, cold], token_budget=64)
    assert sorted((batch.temperature, len(batch.ids_BL)) for batch in batches) == [(0.5, 2), (1.0, 1)]


lengths = st.lists(st.integers(1, 40), max_size=30)


@given(lengths, st.integers(40, 200))
def test_bins_hold_each_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    found = list(bins(lengths, budget))
    assert sorted(index for part in found for index in part) == list(range(len(lengths)))
    assert all(len(part) * max(lengths[i] for i in part) <= budget for part in found)


@given(lengths, st.integers(40, 200))
def test_no_two_neighbouring_bins_would_fit_into_one(lengths: list[int], budget: int) -> None:
    found = list(bins(lengths, budget))
    for one, next_one in pairwise(found):
        assert (len(one) + 1) * lengths[one[0]] > budget
        assert min(lengths[i] for i in one) >= max(lengths[i] for i in next_one)


@given(st.lists(st.integers(3, 30), min_size=1, max_size=12), st.integers(30, 100))
def test_packing_loses_and_adds_nothing(lengths: list[int], budget: int) -> None:
    given_rows = [row(length, written=1 + length % 3) for length in lengths]
    batches = pack(given_rows, token_budget=budget)
    assert all(batch.tokens <= budget for batch in batches)
    assert sum(int(batch.mask_BL.sum()) for batch in batches) == sum(int(r.mask_N.sum()) for r in given_rows)
    assert sum(batch.advantage_BL.sum() for batch in batches) == sum(r.advantage_N.sum() for r in given_rows)
    assert not any((batch.first_BL & ~batch.mask_BL).any() for batch in batches)


@st.composite
def played(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[int]]:
    turns = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4)), min_size=1, max_size=6))
    segments = np.cumsum([0, *draw(st.lists(st.booleans(), min_size=len(turns) - 1, max_size=len(turns) - 1))])
    return turns, segments.tolist()


@given(played())
def test_every_token_of_a_trajectory_is_in_one_row(
    trajectory: Make, case: tuple[list[tuple[int, int]], list[int]]
) -> None:
    turns, segments = case
    episode = trajectory(turns, segments=segments)
    made = rows(episode, np.arange(1.0, len(turns) + 1))
    assert len(made) == len(set(segments))
    everything = [part for turn in episode.turns for part in (turn.prompt_ids_N, turn.sample.token_ids_N)]
    assert np.concatenate([r.ids_N for r in made]).tolist() == np.concatenate(everything).tolist()
    for t, (_, wrote) in enumerate(turns):
        mine = [r.mask_N & (r.turn_N == t) for r in made]
        assert sum(int(m.sum()) for m in mine) == wrote
        assert {float(a) for r, m in zip(made, mine, strict=True) for a in r.advantage_N[m]} == {t + 1.0}
