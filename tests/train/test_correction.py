from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from agentgym.train.batch import Row
from agentgym.train.correction import Correction, importance_weights, off_policy

# Ratios of π_old to μ: 2, 1/2 | 4, 1, 1/4 in two sequences.
BEHAVIOUR = torch.tensor([-1.0, -1.0, -2.0, -2.0, -2.0], dtype=torch.float64)
RATIO = torch.tensor([2.0, 0.5, 4.0, 1.0, 0.25], dtype=torch.float64)
OLD = BEHAVIOUR + RATIO.log()
SEQUENCE = torch.tensor([0, 0, 1, 1, 1])


def weights(correction: Correction, ratio: torch.Tensor = RATIO) -> list[float]:
    found, bounded = importance_weights(BEHAVIOUR + ratio.log(), BEHAVIOUR, SEQUENCE, correction)
    loose, _ = importance_weights(
        BEHAVIOUR + ratio.log(), BEHAVIOUR, SEQUENCE, replace(correction, high=math.inf, low=0)
    )
    assert bounded.tolist() == (found != loose).tolist()
    return [round(w, 9) for w in found.tolist()]


def test_uncorrected_every_token_counts_one() -> None:
    assert weights(Correction()) == [1.0] * 5


def test_truncated_weights_have_a_top_and_no_bottom() -> None:
    assert weights(Correction("truncate", high=1.5)) == [1.5, 0.5, 1.5, 1.0, 0.25]


def test_masked_weights_are_kept_inside_the_bounds_only() -> None:
    assert weights(Correction("mask", low=0.4, high=2.5)) == [2.0, 0.5, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("level", ["turn", "trajectory"])
def test_a_sequence_has_one_weight(level: str) -> None:
    ratio = torch.tensor([8.0, 2.0, 1.0, 1.0, 27.0], dtype=torch.float64)  # means 4 and 3
    correction = Correction("truncate", level, high=3.5)  # type: ignore[arg-type]
    assert weights(correction, ratio) == [3.5, 3.5, 3.0, 3.0, 3.0]
    assert importance_weights(ratio.log(), 0 * ratio, SEQUENCE, correction)[1].tolist() == [True] * 2 + [False] * 3


def row(versions: list[int], *, old: torch.Tensor | None = OLD) -> Row:
    """Return a row of one token that was read and as many that were written as there are versions."""
    count = len(versions)
    read = np.full(1, np.nan)
    return Row(
        ids_N=np.arange(1 + count, dtype=np.int32),
        mask_N=np.array([False] + [True] * count),
        logprobs_N=np.concatenate([read, BEHAVIOUR[:count].numpy()]),
        versions_N=np.array([-1, *versions], np.int32),
        advantage_N=np.ones(1 + count),
        turn_N=np.zeros(1 + count, np.int32),
        return_N=np.full(1 + count, np.nan),
        rollout_id="r",
        old_N=None if old is None else np.concatenate([read, old[:count].numpy()]),
    )


def test_old_weights_are_told_by_their_age() -> None:
    found = off_policy([row([7, 7, 6, 6, 6])], 8)
    # k3 of KL(μ ‖ π_old): r − 1 − log r with r = π_old/μ, of 2, 1/2 one version old and 4, 1, 1/4 two versions
    young, aged = [2.0, 0.5], [4.0, 1.0, 0.25]

    def k3(ratios: list[float]) -> float:
        return sum(r - 1 - math.log(r) for r in ratios) / len(ratios)

    expected = {
        "lag": 1.6,
        "lag_most": 2.0,
        "mismatch_kl": k3(young + aged),
        "mismatch_ess": (7.75 / 5) ** 2 / ((4 + 0.25 + 16 + 1 + 0.0625) / 5),
        "lag_1/share": 0.4,
        "lag_1/mismatch_kl": k3(young),
        "lag_1/mismatch_ess": 1.25**2 / 2.125,
        "lag_2/share": 0.6,
        "lag_2/mismatch_kl": k3(aged),
        "lag_2/mismatch_ess": 1.75**2 / (17.0625 / 3),
    }
    assert found == pytest.approx(expected)


def test_without_the_learners_own_probabilities_only_the_age_is_told() -> None:
    assert off_policy([row([3, 3], old=None), row([2], old=None)], 3) == pytest.approx({"lag": 1 / 3, "lag_most": 1.0})
    assert off_policy([], 3) == {}
