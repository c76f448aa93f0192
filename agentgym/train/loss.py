"""Losses, token by token, as pure functions of tensors (M,) over the tokens the policy wrote.

The caller divides their sum by the number of such tokens in the whole update, so that the gradient is the same
however rollouts are split into rows and rows into batches.
"""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_policy_loss(
    logprobs_M: Tensor, old_M: Tensor, advantage_M: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """Return the clipped surrogate (M,): max(−A·ρ, −A·clip(ρ, 1−ε_low, 1+ε_high)) with ρ = exp(log π − log π_old).

    Source: PPO, arXiv 1707.06347, Eq. 7; the asymmetric clip is DAPO's, arXiv 2503.14476, Eq. 10.
    """
    ratio = torch.exp(logprobs_M - old_M)
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.maximum(-advantage_M * ratio, -advantage_M * clipped)


def kl_penalty(logprobs_M: Tensor, reference_M: Tensor) -> Tensor:
    """Return the estimate (M,) of KL(π ‖ π_ref) that is never negative: exp(d) − d − 1 with d = log π_ref − log π.

    Source: k3 in Schulman, "Approximating KL divergence" (2020); GRPO, arXiv 2402.03300, Eq. 4.
    """
    difference = reference_M - logprobs_M
    return torch.exp(difference) - difference - 1


def entropy(logits_MV: Tensor) -> Tensor:
    """Return the entropy (M,) in nats of each next-token distribution."""
    logprobs = torch.log_softmax(logits_MV, dim=-1)
    return -(logprobs.exp() * logprobs).sum(-1)


__all__ = ["clipped_policy_loss", "entropy", "kl_penalty"]
