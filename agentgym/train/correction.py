"""Where the weights that sampled are not those that learn: what a sample still counts, and how far they are apart.

Three distributions are told apart: μ, which sampled; π_old, the learner's own when a step begins; π, which moves in it.
The clipped ratio is π/π_old, and w = π_old/μ, a constant, weighs it (the decoupled objective of AReaL, arXiv
2505.24298). Between two programs of one version w is 1 but for rounding; between versions it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agentgym.train.batch import Row
from agentgym.train.loss import sequence_mean

Mode = Literal["none", "truncate", "mask"]
Level = Literal["token", "turn", "trajectory"]


@dataclass(frozen=True, slots=True)
class Correction:
    """How w is bounded."""

    mode: Mode = "none"
    "none: w is 1, and π_old is μ. truncate: at most ``high``. mask: 0 outside ``low`` and ``high``."
    level: Level = "token"
    "Of a turn or trajectory w is the geometric mean over its tokens."
    low: float = 0.5
    high: float = 2.0


def importance_weights(
    old_M: Tensor, behaviour_M: Tensor, sequence_M: Tensor, correction: Correction
) -> tuple[Tensor, Tensor]:
    """Return w (M,), bounded, and of which tokens it was (M,).

    Sources: truncated, Yao et al., "Your efficient RL framework secretly brings you off-policy RL training" (2025);
    masked, IcePop, "Every step evolves", arXiv 2510.18855.

    Args:
        sequence_M: the sequence of each token, from 0; not read at the level of tokens.
    """
    difference = old_M - behaviour_M
    if correction.level != "token":
        difference = sequence_mean(difference, sequence_M)
    weight = torch.exp(difference)
    if correction.mode == "truncate":
        bounded = weight.clamp(max=correction.high)
    elif correction.mode == "mask":
        bounded = torch.where((weight >= correction.low) & (weight <= correction.high), weight, 0.0)
    else:
        weight = bounded = torch.ones_like(weight)
    return bounded, bounded != weight


def off_policy(rows: Sequence[Row], version: int) -> dict[str, float]:
    """Return how far the weights that sampled the trained tokens are from those of ``version``, which learn from them.

    ``lag`` and ``lag_most`` count versions. Where π_old is known (`Learner.remember`), ``mismatch_kl`` estimates
    KL(μ ‖ π_old) in nats a token, ``mismatch_ess`` is the effective share of the sample, mean(w)² / mean(w²) over its
    tokens before any bound, and ``lag_2/…`` are the same of the tokens two versions old, with their share of all.
    """
    if not rows:
        return {}
    lag_M = np.concatenate([version - row.versions_N[row.mask_N] for row in rows])
    told = {"lag": float(lag_M.mean()), "lag_most": float(lag_M.max())}
    old = [row.old_N[row.mask_N] for row in rows if row.old_N is not None]
    if len(old) < len(rows):
        return told
    log_w_M = np.concatenate(old).astype(np.float64) - np.concatenate([row.logprobs_N[row.mask_N] for row in rows])
    told |= _mismatch(log_w_M)
    for lag in np.unique(lag_M):
        those = lag_M == lag
        told[f"lag_{lag}/share"] = float(those.mean())
        told |= {f"lag_{lag}/{name}": value for name, value in _mismatch(log_w_M[those]).items()}
    return told


def _mismatch(log_w_M: NDArray[np.float64]) -> dict[str, float]:
    """Return k3 of KL(μ ‖ π_old), from log w, and the effective share of the sample."""
    w_M = np.exp(log_w_M)
    return {
        "mismatch_kl": float((w_M - 1 - log_w_M).mean()),
        "mismatch_ess": float(w_M.mean() ** 2 / (w_M**2).mean()),
    }


__all__ = ["Correction", "Level", "Mode", "importance_weights", "off_policy"]
