"""Advantages from the order of the rollouts alone, as a tournament leaves it."""

from __future__ import annotations

import numpy as np

from agentgym.train.advantage.grid import ROUNDING, Bools, Cells, Reals, returns_to_go, whole_known


def ranked(cells: Cells) -> Reals:
    """Return 1 − rank_i/(N−1) less its mean, on every reached turn, the best of N rollouts having rank 0.

    Equals share the mean of their ranks, so that the order of the rollouts does not matter; in the source the first of
    them wins. Divided by the deviation it is the advantage of ArenaRL, arXiv 2601.06487. A lone rollout gets 0.
    """
    known_GT, better_G, equal_G = _standing(cells)
    members = known_GT.any(-1).sum(-1, keepdims=True)
    rank_G = better_G + (equal_G - 1) / 2
    centred_G = np.where(members > 1, 0.5 - rank_G / np.maximum(members - 1, 1), 0.0)
    return np.where(known_GT, centred_G[..., None], 0.0)


def ranked_least(cells: Cells) -> Reals:
    """Return (rank_max − rank_i)/(rank_max − 1) less its mean, equals having the least of their ranks, the best 1.

    As ArenaRL's repository does in the mode it ships, ``anchor``. Where all are equal everyone gets 0.
    """
    known_GT, better_G, _ = _standing(cells)
    member_G: Bools = np.any(known_GT, axis=-1)
    last = np.where(member_G, better_G, 0).max(-1, keepdims=True, initial=0)
    reward_G = np.where(member_G & (last > 0), (last - better_G) / np.maximum(last, 1), 0.0)
    mean = reward_G.sum(-1, keepdims=True) / np.maximum(member_G.sum(-1, keepdims=True), 1)
    return np.where(known_GT, (reward_G - mean)[..., None], 0.0)


def _standing(cells: Cells) -> tuple[Bools, Reals, Reals]:
    """Return the known turns (G, T), and how many rollouts are better than and as good as each, it included.

    Returns that differ by rounding are as good as each other.
    """
    known_GT = whole_known(cells)
    member_G: Bools = np.any(known_GT, axis=-1)
    return_G = np.where(member_G, returns_to_go(cells.paid_GT, cells.gamma)[..., 0], 0.0)
    limit = ROUNDING * np.abs(return_G).max(-1, keepdims=True, initial=0.0)[..., None]
    ahead_GG = return_G[..., None, :] - return_G[..., :, None]
    other_GG = member_G[..., None, :]
    better_G = ((ahead_GG > limit) & other_GG).sum(-1).astype(np.float64)
    equal_G = ((np.abs(ahead_GG) <= limit) & other_GG).sum(-1).astype(np.float64)
    return known_GT, better_G, equal_G


__all__ = ["ranked", "ranked_least"]
