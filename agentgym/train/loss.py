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


def truncated_weight_loss(logprobs_M: Tensor, old_M: Tensor, advantage_M: Tensor, *, clip_high: float) -> Tensor:
    """Return −sg(min(ρ, 1 + ε_high))·A·log π (M,): no token loses its gradient, only its weight is bounded.

    Source: CISPO of MiniMax-M1, arXiv 2506.13585, Eq. 4 and 5, in its canonical form without a lower bound.
    """
    ratio = torch.exp(logprobs_M.detach() - old_M).clamp(max=1 + clip_high)
    return -ratio * advantage_M * logprobs_M


def sequence_policy_loss(
    logprobs_M: Tensor, old_M: Tensor, advantage_M: Tensor, sequence_M: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """Return the clipped surrogate (M,) with one ratio a sequence: the geometric mean of its tokens' ratios.

    ``sequence_M`` numbers, from 0, the sequence each token belongs to: in many turns a choice, since a ratio of a turn
    and one of a trajectory clip differently. The value is the sequence's; the gradient goes through each token's own
    log-probability, so that turns of one trajectory may have advantages of their own.

    Source: GSPO, arXiv 2507.18071, Eq. 5 to 7, in its token form, Eq. 13 and 14. The paper weighs sequences alike; here
    tokens are, as everywhere, so that splitting rows changes nothing.
    """
    difference = logprobs_M - old_M
    mean_M = sequence_mean(difference.detach(), sequence_M)
    return clipped_policy_loss(
        logprobs_M - logprobs_M.detach() + mean_M,
        torch.zeros_like(mean_M),
        advantage_M,
        clip_low=clip_low,
        clip_high=clip_high,
    )


def sequence_mean(values_M: Tensor, sequence_M: Tensor) -> Tensor:
    """Return for each token the mean (M,) of ``values_M`` over its sequence."""
    size = int(sequence_M.max()) + 1 if len(sequence_M) else 0
    total_S = values_M.new_zeros(size).index_add(0, sequence_M, values_M)
    count_S = values_M.new_zeros(size).index_add(0, sequence_M, torch.ones_like(values_M))
    return (total_S / count_S.clamp_min(1))[sequence_M]


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


__all__ = [
    "clipped_policy_loss",
    "entropy",
    "kl_penalty",
    "sequence_mean",
    "sequence_policy_loss",
    "truncated_weight_loss",
]
