"""Advantages from returns, siblings and critics, before any normalisation."""

from __future__ import annotations

import numpy as np

from agentgym.errors import UsageError
from agentgym.train.advantage.grid import (
    Bools,
    Cells,
    Reals,
    deltas_known,
    masked_mean,
    rest_known,
    returns_to_go,
    snapped,
    sum_of_others,
    whole_known,
)


def group_centred(cells: Cells) -> Reals:
    """Return R_i − mean(R) on every reached turn (Dr. GRPO, arXiv 2503.20783).

    The mean contains R_i, so the gradient is (n−1)/n of the true one for n rollouts: a known factor, no distortion.
    """
    known_GT = whole_known(cells)
    member_G: Bools = np.any(known_GT, axis=-1)
    return_G = returns_to_go(cells.paid_GT, cells.gamma)[..., 0]
    mean = masked_mean(return_G, member_G, axis=(-1,))
    return snapped(np.where(known_GT, (return_G - mean)[..., None], 0.0), return_G[..., None])


def leave_one_out(cells: Cells) -> Reals:
    """Return R_i − mean of the others' R on every reached turn (RLOO, arXiv 2402.14740).

    Unbiased. A rollout without a measured sibling gets 0.
    """
    known_GT = whole_known(cells)
    member_G: Bools = np.any(known_GT, axis=-1)
    return_G = returns_to_go(cells.paid_GT, cells.gamma)[..., 0]
    sum_G, others_G = sum_of_others(return_G[..., None], member_G[..., None])
    advantage_G = np.where(others_G > 0, return_G[..., None] - sum_G / np.maximum(others_G, 1), 0.0)
    return snapped(np.where(known_GT, advantage_G, 0.0), return_G[..., None])


def turn_leave_one_out(cells: Cells) -> Reals:
    """Return G_it − b_it, where b_it is the mean of G_jt over the others j that reached turn t.

    Where fewer others than half the group are there, ``prior_T`` stands in for the missing ones: for m of n rollouts,
    b_it = (Σ_j G_jt + k·prior_t) / (m + k) with k = max(0, ⌊n/2⌋ − m), at least 1 where i is alone. Without a prior
    k is 0, and b_it is 0 where i is alone.

    Unbiased, since b_it does not depend on what i does from t on; giving no advantage to a lone turn would not be.
    Half: the mean of one or two siblings is noisier than no baseline, and while half the group is there the prior
    has no say, so that a group of equals stays at exactly 0.
    """
    known_GT = rest_known(cells)
    return_GT = returns_to_go(cells.ahead_GT, cells.gamma)
    sum_GT, others_GT = sum_of_others(return_GT, known_GT)
    if cells.prior_T is not None:
        missing_GT = np.maximum(max(1, known_GT.shape[-2] // 2) - others_GT, 0)
        sum_GT, others_GT = sum_GT + missing_GT * cells.prior_T[..., None, :], others_GT + missing_GT
    baseline_GT = sum_GT / np.maximum(others_GT, 1)
    return snapped(np.where(known_GT, return_GT - baseline_GT, 0.0), return_GT)


def reward_to_go(cells: Cells) -> Reals:
    """Return G_it (REINFORCE++, arXiv 2501.03262, before its whitening over the batch)."""
    return np.where(rest_known(cells), returns_to_go(cells.ahead_GT, cells.gamma), 0.0)


def as_paid(cells: Cells) -> Reals:
    """Return what each turn is paid, for rewards that are advantages already: centred on the siblings as they price.

    CM2's checklist by stage or by step is one, and ArenaRL's standardised ranks. Whatever is subtracted again, summed
    over the turns or divided would no longer be the published advantage.
    """
    return cells.paid_GT


def turn_gae(cells: Cells) -> Reals:
    """Return Σ_u (γλ)^(u−t) δ_iu with δ_it = r_it + γ V_i,t+1 − V_it over turns (GAE, arXiv 1506.02438).

    V after the last turn is ``bootstrap_G`` for a truncated rollout and 0 for one that terminated.
    """
    if cells.values_GT is None:
        raise UsageError("the advantage estimator 'gae' needs a critic: GroupRewards.values_GT is None")
    value_GT = np.where(cells.alive_GT, cells.values_GT, 0.0)
    next_GT = np.zeros_like(value_GT)
    next_GT[..., :-1] = value_GT[..., 1:]
    delta_GT = np.where(cells.alive_GT, cells.ahead_GT + cells.gamma * next_GT - value_GT, 0.0)
    return np.where(deltas_known(cells), returns_to_go(delta_GT, cells.gamma * cells.lam), 0.0)


__all__ = ["as_paid", "group_centred", "leave_one_out", "reward_to_go", "turn_gae", "turn_leave_one_out"]
