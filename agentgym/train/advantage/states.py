"""Advantages from comparing turns that start from the same state, whichever rollout and turn they are of."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from agentgym.errors import UsageError
from agentgym.train.advantage.estimators import leave_one_out
from agentgym.train.advantage.grid import (
    Bools,
    Cells,
    Codes,
    Reals,
    masked_mean,
    rest_known,
    returns_to_go,
    snapped,
    whole_known,
)


def coded(signatures: Sequence[Sequence[Hashable]]) -> Codes:
    """Return a code for each turn of each rollout (G, T), equal where the signatures are; −1 where there is no turn.

    Signatures are compared as they are. GiGPO's repository can also join observations that are 95 % alike; write a
    signature that leaves out what should not count.
    """
    codes: dict[Hashable, int] = {}
    code_GT = np.full((len(signatures), max(1, *(len(row) for row in signatures))), -1, np.int32)
    for g, row in enumerate(signatures):
        code_GT[g, : len(row)] = [codes.setdefault(signature, len(codes)) for signature in row]
    return code_GT


def gigpo_leave_one_out(cells: Cells) -> Reals:
    """Return A_E + ω·A_S: the return less the others' mean, and the return-to-go less that of others in the state.

    A_S is 0 where no *other* rollout was in the state: a rollout's own visits are no baseline for it, since what it
    does here decides what they earn. Ours; `gigpo` is as published.
    """
    sum_GT, count_GT = _visits_of_others(cells)
    return_GT = returns_to_go(cells.ahead_GT, cells.gamma)
    step_GT = np.where(count_GT > 0, return_GT - sum_GT / np.maximum(count_GT, 1), 0.0)
    step_GT = snapped(np.where(whole_known(cells), step_GT, 0.0), return_GT)
    return leave_one_out(cells) + cells.omega * step_GT


def gigpo(cells: Cells) -> Reals:
    """Return A_E + ω·A_S: the return less its mean over all *steps*, and the return-to-go less that of the state.

    Both means contain what they are compared with, and long rollouts weigh more in the first, as in GiGPO's repository
    (`gigpo/core_gigpo.py`, ``mean_norm``), which biases the gradient. A turn alone in its state gets A_S = 0.
    """
    known_GT = whole_known(cells)
    return_G = returns_to_go(cells.paid_GT, cells.gamma)[..., :1]
    mean = masked_mean(np.broadcast_to(return_G, known_GT.shape), known_GT, axis=(-2, -1))
    episode_GT = snapped(np.where(known_GT, return_G - mean, 0.0), return_G)
    return_GT = returns_to_go(cells.ahead_GT, cells.gamma)
    step_GT = return_GT - _mean_of(_state_keys(cells), return_GT, rest_known(cells))
    return episode_GT + cells.omega * snapped(np.where(known_GT, step_GT, 0.0), return_GT)


def rtmc(cells: Cells) -> Reals:
    """Return Q̂(s, a) − V̂(s): the mean return-to-go of the visits that did the same in the state, less that of all.

    Source: RTMC, arXiv 2604.11037. Turns that nobody else had take no part: alone in a state, or all alike, they get 0.
    """
    known_GT = rest_known(cells)
    return_GT = returns_to_go(cells.ahead_GT, cells.gamma)
    state_GT = _state_keys(cells)
    if cells.actions_GT is None:
        raise UsageError("the advantage estimator 'rtmc' compares actions: GroupRewards.actions_GT is None")
    action_GT = _paired(state_GT, cells.actions_GT)
    value_GT = _mean_of(action_GT, return_GT, known_GT) - _mean_of(state_GT, return_GT, known_GT)
    return snapped(np.where(known_GT, value_GT, 0.0), return_GT)


def _state_keys(cells: Cells) -> Codes:
    """Return codes that are equal where the state and the group are, the same shape as the cells."""
    if cells.states_GT is None:
        raise UsageError("this advantage estimator compares states: GroupRewards.states_GT is None")
    shape = cells.alive_GT.shape
    groups = np.arange(np.prod(shape[:-2], dtype=np.int64)).reshape((*shape[:-2], 1, 1))
    return _paired(np.broadcast_to(groups, shape), np.broadcast_to(cells.states_GT, shape))


def _paired(first: Codes, second: Codes) -> Codes:
    """Return one code for each pair of codes."""
    wide = first.astype(np.int64) * (int(second.max(initial=0)) + 2) + second + 1
    code = np.unique(wide, return_inverse=True)[1]
    return np.asarray(code, np.int32).reshape(first.shape)


def _sums(key_GT: Codes, value_GT: Reals, known_GT: Bools) -> tuple[Reals, Reals]:
    """Return for each cell the sum of the known values under its key, and how many they are."""
    key, known = key_GT.ravel(), known_GT.ravel()
    total = np.asarray(np.bincount(key, np.where(known, value_GT.ravel(), 0.0)), np.float64)
    count = np.asarray(np.bincount(key, known.astype(np.float64)), np.float64)
    return total[key_GT], count[key_GT]


def _mean_of(key_GT: Codes, value_GT: Reals, known_GT: Bools) -> Reals:
    total_GT, count_GT = _sums(key_GT, value_GT, known_GT)
    return np.asarray(total_GT / np.maximum(count_GT, 1))


def _visits_of_others(cells: Cells) -> tuple[Reals, Reals]:
    """Return for each turn the sum and the number of returns-to-go in its state, but for those of its own rollout."""
    known_GT = rest_known(cells)
    return_GT = returns_to_go(cells.ahead_GT, cells.gamma)
    state_GT = _state_keys(cells)
    rollouts = np.broadcast_to(np.arange(state_GT.shape[-2], dtype=np.int32)[:, None], state_GT.shape)
    all_sum, all_count = _sums(state_GT, return_GT, known_GT)
    own_sum, own_count = _sums(_paired(state_GT, rollouts), return_GT, known_GT)
    return all_sum - own_sum, all_count - own_count


__all__ = ["coded", "gigpo", "gigpo_leave_one_out", "rtmc"]
