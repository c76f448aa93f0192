"""Agreement of two rewards, against pair counts and loops written from the definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from agentgym.compare import canonical, compare, distance, ranks


def names(*sizes: int) -> list[list[str]]:
    return [[f"{g}/{i}" for i in range(size)] for g, size in enumerate(sizes)]


def test_kendall_is_counted_over_pairs_of_siblings() -> None:
    rng = np.random.default_rng(1)
    a = [rng.integers(0, 4, size).astype(float) for size in (5, 3, 6)]
    b = [rng.integers(0, 4, size).astype(float) for size in (5, 3, 6)]
    score = untied_a = untied_b = 0
    for a_G, b_G in zip(a, b, strict=True):
        for i, j in itertools.combinations(range(len(a_G)), 2):
            score += int(np.sign(a_G[i] - a_G[j]) * np.sign(b_G[i] - b_G[j]))
            untied_a += int(a_G[i] != a_G[j])
            untied_b += int(b_G[i] != b_G[j])
    found = compare(names(5, 3, 6), a, b)
    assert found.kendall.value == pytest.approx(score / math.sqrt(untied_a * untied_b))
    assert found.kendall.low <= found.kendall.value <= found.kendall.high


def test_kendall_and_spearman_by_hand() -> None:
    # Ranks 1 2 3 4 and 1.5 1.5 3 4: five of six pairs agree, one is tied in b; Σdadb = 4.5, Σda² = 5, Σdb² = 4.5.
    found = compare(names(4), [np.array([1.0, 2, 3, 4])], [np.array([7.0, 7, 8, 9])])
    assert found.kendall.value == pytest.approx(5 / math.sqrt(6 * 5))
    assert found.spearman.value == pytest.approx(4.5 / math.sqrt(5 * 4.5))
    assert math.isnan(found.kendall.low)  # one group cannot be resampled


def test_ranks_share_ties() -> None:
    assert ranks(np.array([3.0, 1, 3, 2])).tolist() == [3.5, 1, 3.5, 2]


def test_offsets_by_group_and_a_common_scale_make_no_distance() -> None:
    totals = [np.array([0.0, 1, 3]), np.array([2.0, 5])]
    moved = [7 + 2.5 * totals[0], -4 + 2.5 * totals[1]]
    assert distance(canonical(totals), canonical(moved)) == pytest.approx(0, abs=1e-12)
    assert distance(canonical(totals), canonical([-t for t in totals])) == pytest.approx(1)


def test_scaling_one_group_alone_is_a_distance() -> None:
    # Canonical (-1, 1, -1, 1)/2 and (-1, 1, -3, 3)/√20: correlation 8/(2√20), distance √((1 - ρ)/2).
    one, other = [np.array([0.0, 2]), np.array([0.0, 2])], [np.array([0.0, 2]), np.array([0.0, 6])]
    rho = 8 / (2 * math.sqrt(20))
    assert distance(canonical(one), canonical(other)) == pytest.approx(math.sqrt((1 - rho) / 2))


def test_a_reward_that_pays_all_alike_is_half_way_from_any_other() -> None:
    flat = canonical([np.array([0.1, 0.1, 0.1])])
    assert not flat.any()
    assert distance(flat, canonical([np.array([0.0, 1, 2])])) == pytest.approx(0.5)
    assert distance(flat, flat) == 0
    assert math.isnan(compare(names(3), [np.full(3, 0.1)], [np.arange(3.0)]).kendall.value)


def test_unmeasured_episodes_and_single_ones_are_left_out() -> None:
    nan = math.nan
    found = compare(
        names(3, 2), [np.array([0.0, nan, 2]), np.array([1.0, 2])], [np.array([0.0, 1, 2]), np.array([nan, 2])]
    )
    assert (found.episodes, found.left_out) == (2, 3)


def test_the_worst_disagreements_come_first() -> None:
    found = compare(
        names(2, 2), [np.array([0.0, 1]), np.array([0.0, 1])], [np.array([0.0, 1]), np.array([1.0, 0])], worst=2
    )
    assert [one.episode for one in found.most] == ["1/0", "1/1"]
    assert [(one.a, one.b) for one in found.most] == [(0, 1), (1, 0)]
