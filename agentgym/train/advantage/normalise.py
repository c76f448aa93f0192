"""Bringing advantages to a common spread, and toning down the negative ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from agentgym.errors import UsageError
from agentgym.train.advantage.grid import Bools, Reals, masked_mean, snapped

Scale = Literal["none", "group", "batch"]

EPSILON = 1e-6
"""Added to a standard deviation where the published formula adds one (grpo, reinforce_pp, ArenaRL's ranks)."""


def over_return_std(advantage_GT: Reals, known_GT: Bools) -> Reals:
    """Divide by the sample standard deviation (ddof 1) of the rollouts' advantages, plus ε.

    For advantages that are the same on every turn of a rollout. Fewer than two rollouts give 0.
    """
    member_G: Bools = np.any(known_GT, axis=-1)
    row_G = np.where(member_G, advantage_GT[..., 0], 0.0)
    count = member_G.sum(-1, keepdims=True)
    centred_G = np.where(member_G, row_G - masked_mean(row_G, member_G, axis=(-1,)), 0.0)
    std = np.sqrt((centred_G**2).sum(-1, keepdims=True) / np.maximum(count - 1, 1))
    return np.asarray(advantage_GT / (std[..., None] + EPSILON))


def whitened(advantage_GT: Reals, known_GT: Bools) -> Reals:
    """Subtract the mean over the known turns of the last two axes and divide by their standard deviation plus ε."""
    mean = masked_mean(advantage_GT, known_GT, axis=(-2, -1))
    centred_GT = snapped(np.where(known_GT, advantage_GT - mean, 0.0), advantage_GT)
    std = np.sqrt(masked_mean(centred_GT**2, known_GT, axis=(-2, -1)))
    return np.asarray(centred_GT / (std + EPSILON))


def scaled(advantage_GT: Reals, known_GT: Bools) -> Reals:
    """Divide by the spread around 0, √mean(A²), over the known turns of the last two axes; all zeros stay zeros.

    The baseline has centred A already, so no mean is subtracted: that would move credit between rollouts.
    """
    rms = np.sqrt(masked_mean(advantage_GT**2, known_GT, axis=(-2, -1)))
    return np.divide(advantage_GT, rms, out=np.zeros_like(advantage_GT), where=np.broadcast_to(rms > 0, known_GT.shape))


@dataclass(frozen=True, slots=True)
class NegativeScaling:
    """Tones down the negative advantages of a group by λ = min(λ0 + κ·p̂, 1), p̂ being its share of solved rollouts.

    Where success is judged by agreement with a demonstration, a failure may be a right answer nobody demonstrated.
    Rollouts of which it is not known whether they succeeded are left out of p̂; where none is known λ is 1. The sum
    over the group is no longer 0, by design. Source: SNGS of GUI-Libra, whose pairs (λ0, κ) differ by model: (0.9, 0.5)
    for 3B, (0.5, 1.5) for 4B, (1.4, −0.5) for 7B, (0.5, 2.0) for 8B; hence no default.
    """

    lambda0: float
    kappa: float

    def __post_init__(self) -> None:
        ends = self.lambda0, self.lambda0 + self.kappa
        if not all(math.isfinite(end) and end >= 0 for end in ends):
            raise UsageError(
                f"negative scaling goes from {ends[0]} (nothing solved) to {ends[1]} (all solved); both must be finite "
                "and not negative, or failures would be rewarded"
            )

    def factor(self, solved_G: Reals) -> float:
        """Return λ for a group with these successes, NaN where not known."""
        known_G = solved_G[~np.isnan(solved_G)]
        return min(self.lambda0 + self.kappa * float(known_G.mean()), 1.0) if len(known_G) else 1.0

    def apply(self, advantage_GT: Reals, solved_G: Reals) -> Reals:
        """Return the advantages with the negative ones multiplied by λ."""
        return np.where(advantage_GT < 0, self.factor(solved_G) * advantage_GT, advantage_GT)


__all__ = ["EPSILON", "NegativeScaling", "Scale", "over_return_std", "scaled", "whitened"]
