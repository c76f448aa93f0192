"""Log-probabilities of the tokens that were written, without the logits of all of them at once.

With a vocabulary of 150,000 the logits of 16,000 tokens are ten gigabytes, several times over: with their normalised
form and both gradients. So tokens are gone through in parts, each of which computes its logits again for its gradient
(activation checkpointing, Chen et al., arXiv 1604.06174, on the output layer alone; the idea of Cut Cross-Entropy,
arXiv 2411.09009, without its kernels). What fits into one part is computed once, as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from agentgym.train.loss import entropy
from agentgym.train.memory import LOGITS_AT_ONCE


def logprobs(
    head: Any, hidden_MD: Tensor, token_M: Tensor, *, temperature: float = 1.0, at_once: int = LOGITS_AT_ONCE
) -> Tensor:
    """Return the log-probability (M,) of each token, in nats, after the hidden state that predicts it.

    Args:
        head: the output embeddings, a linear layer of the vocabulary's size.
        at_once: most logits that are held at the same time; at least those of one token are.
    """

    def part(hidden: Tensor, token: Tensor) -> tuple[Tensor, ...]:
        return (_chosen(head(hidden).float() / temperature, token),)

    return _by_parts(part, hidden_MD, token_M, at_once // head.weight.shape[0])[0]


def logprobs_and_entropy(
    head: Any,
    hidden_MD: Tensor,
    token_M: Tensor,
    *,
    temperature: float = 1.0,
    at_once: int = LOGITS_AT_ONCE,
    spread: bool,
) -> tuple[Tensor, Tensor]:
    """Return `logprobs` and the entropy (M,) of the distributions they come from, in nats.

    Args:
        spread: whether the entropy has a gradient, too.
    """

    def part(hidden: Tensor, token: Tensor) -> tuple[Tensor, ...]:
        logits = head(hidden).float() / temperature
        return _chosen(logits, token), entropy(logits if spread else logits.detach())

    chosen, entropies = _by_parts(part, hidden_MD, token_M, at_once // head.weight.shape[0])
    return chosen, entropies


def _chosen(logits_MV: Tensor, token_M: Tensor) -> Tensor:
    return torch.log_softmax(logits_MV, dim=-1).gather(1, token_M[:, None])[:, 0]


def _by_parts(
    part: Callable[[Tensor, Tensor], tuple[Tensor, ...]], hidden_MD: Tensor, token_M: Tensor, rows: int
) -> tuple[Tensor, ...]:
    """Return what ``part`` makes of all tokens, computed ``rows`` at a time, once more where a gradient asks for it."""
    if len(token_M) <= max(1, rows):
        return part(hidden_MD, token_M)
    slices = zip(torch.split(hidden_MD, max(1, rows)), torch.split(token_M, max(1, rows)), strict=True)
    made = [checkpoint(part, *both, use_reentrant=False, preserve_rng_state=False) for both in slices]
    return tuple(torch.cat(column) for column in zip(*made, strict=True))


__all__ = ["logprobs", "logprobs_and_entropy"]
