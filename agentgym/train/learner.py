"""The weights and their optimiser: one update from rows, by reinforcement or by imitation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from agentgym.errors import ConfigError
from agentgym.train.batch import Batch, Row, pack
from agentgym.train.loss import clipped_policy_loss, entropy, kl_penalty

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class Objective:
    """What reinforcement maximises."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    kl: float = 0.0
    entropy: float = 0.0
    value: float = 0.0
    "Weight of the value head's squared error; 0: there is no value head."


class Learner:
    """A causal language model, its optimiser, and where asked for a value head and a frozen reference.

    Args:
        token_budget: most tokens of one forward and backward pass, padding included.
        warmup_steps: steps over which the learning rate rises to ``lr``.
        decay_steps: the last so many of ``total_steps``, over which it falls, linearly, to a twentieth of ``lr``.
        muon: step the hidden matrices by Muon instead of AdamW. It learns from text in fewer steps, and amplifies the
            noise of a policy gradient.
        objective: the weights of the terms of `reinforce`.
    """

    def __init__(
        self,
        model: Any,
        *,
        lr: float,
        weight_decay: float,
        max_grad_norm: float,
        token_budget: int,
        warmup_steps: int = 0,
        decay_steps: int = 0,
        total_steps: int = 0,
        muon: bool = False,
        objective: Objective = Objective(),
    ) -> None:
        self.model, self.objective = model, objective
        self.device = next(model.parameters()).device
        self.value_head = nn.Linear(model.config.get_text_config().hidden_size, 1).to(self.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self._token_budget, self._max_grad_norm = token_budget, max_grad_norm
        self._lr, self._warmup_steps, self._decay_steps, self._total_steps = lr, warmup_steps, decay_steps, total_steps
        self.steps = 0
        "Optimiser steps taken, which is also the version of the weights."
        self.optimizers = optimizers(model, self.value_head, lr=lr, weight_decay=weight_decay, muon=muon)
        self.reference: Any = None
        if objective.kl > 0:
            self.keep_reference()
        self._check()

    def keep_reference(self) -> None:
        """Freeze a copy of the weights as they are now, for the divergence term to measure from."""
        self.reference = copy.deepcopy(self.model).requires_grad_(False).eval()

    def reinforce(self, rows: Sequence[Row]) -> Metrics:
        """Take one step along the clipped policy gradient; return what it measured, averaged over trained tokens."""
        weights = self.objective

        def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            hidden, where = self._hidden(self.model, batch)
            logits = self._logits(self.model, hidden) / batch.temperature
            chosen = _chosen(logits, batch, where)
            old, advantage = (self._at(part, where) for part in (batch.logprobs_BL, batch.advantage_BL))
            share = torch.from_numpy(batch.weight_B).to(self.device)[where[0]]
            per_token = clipped_policy_loss(
                chosen, old, advantage, clip_low=weights.clip_low, clip_high=weights.clip_high
            )
            spread = entropy(logits if weights.entropy else logits.detach())
            ratio = (chosen.detach() - old).exp()
            measured = {
                "policy_loss": per_token.detach(),
                "entropy": spread.detach(),
                "kl_sampler": kl_penalty(chosen.detach(), old),
                "clip_fraction": ((ratio < 1 - weights.clip_low) | (ratio > 1 + weights.clip_high)).float(),
            }
            per_token = per_token - weights.entropy * spread if weights.entropy else per_token
            if self.reference is not None:
                with torch.no_grad():
                    there, _ = self._hidden(self.reference, batch)
                    anchor = _chosen(self._logits(self.reference, there) / batch.temperature, batch, where)
                away = kl_penalty(chosen, anchor)
                per_token = per_token + weights.kl * away
                measured["kl_reference"] = away.detach()
            if weights.value:
                error = self._value_error(hidden, batch, where)
                per_token = per_token + weights.value * error
                measured["value_loss"] = error.detach()
            return (per_token * share).sum(), {name: (value * share).sum() for name, value in measured.items()}

        return self._step(rows, loss)

    def imitate(self, rows: Sequence[Row]) -> Metrics:
        """Take one step towards what the rows' tokens are; return the negative log-likelihood before it."""
        return self._step(rows, self._likelihood)

    @torch.no_grad()
    def likelihood(self, rows: Sequence[Row]) -> float:
        """Return the mean negative log-likelihood, in nats a token, of what was written in ``rows``."""
        total = sum(float(self._likelihood(batch)[0]) for batch in pack(rows, token_budget=self._token_budget))
        return total / (sum(row.weight * int(row.mask_N.sum()) for row in rows) or 1.0)

    @torch.no_grad()
    def values(self, rows: Sequence[Row]) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
        """Return, for each row, the value head's estimate before each of its turns, in order."""
        out = []
        for row in rows:  # one at a time keeps the order; a critic is the exception, not the default
            (batch,) = pack([row], token_budget=self._token_budget)
            hidden, where = self._hidden(self.model, batch)
            first = torch.from_numpy(batch.first_BL).to(self.device)[where[0], where[1]]
            out.append(self.value_head(hidden[first].float()).squeeze(-1).double().cpu().numpy())
        return out

    def state(self) -> dict[str, Any]:
        """Return everything that a continued run needs beside the configuration."""
        return {
            "model": self.model.state_dict(),
            "value_head": self.value_head.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "reference": self.reference.state_dict() if self.reference is not None else None,
            "steps": self.steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.model.load_state_dict(state["model"])
        self.value_head.load_state_dict(state["value_head"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        if state["reference"] is not None:
            self.keep_reference()
            self.reference.load_state_dict(state["reference"])
        self.steps = state["steps"]

    def _step(self, rows: Sequence[Row], loss: Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]) -> Metrics:
        written = sum(row.weight * int(row.mask_N.sum()) for row in rows) or 1.0
        totals: dict[str, float] = {}
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        for batch in pack(rows, token_budget=self._token_budget):
            summed, measured = loss(batch)
            (summed / written).backward()  # type: ignore[no-untyped-call]
            for name, value in measured.items():
                totals[name] = totals.get(name, 0.0) + float(value)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        norm = nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], self._max_grad_norm)
        rate = self._rate()
        for group in groups:
            group["lr"] = rate
        if torch.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        self.steps += 1
        metrics = {name: total / written for name, total in totals.items()}
        return metrics | {"grad_norm": float(norm), "lr": rate, "trained_tokens": float(written)}

    def _rate(self) -> float:
        """Return the learning rate of the step to be taken."""
        rising = min(1.0, (self.steps + 1) / (self._warmup_steps + 1))
        left = (self._total_steps - self.steps) / self._decay_steps if self._decay_steps else 1.0
        falling = min(1.0, max(0.05, left))
        return self._lr * rising * falling

    def _likelihood(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        hidden, where = self._hidden(self.model, batch)
        share = torch.from_numpy(batch.weight_B).to(self.device)[where[0]]
        summed = -(_chosen(self._logits(self.model, hidden), batch, where) * share).sum()
        return summed, {"nll": summed.detach()}

    def _hidden(self, model: Any, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the hidden states (M, width) from which each written token was predicted, and where those tokens are.

        Right padding needs no mask under causal attention: what is real never looks at what comes after it.
        """
        ids = torch.from_numpy(batch.ids_BL).to(self.device)
        states = model.base_model(input_ids=ids, use_cache=False)[0]
        b, column = np.nonzero(batch.mask_BL)
        where = (torch.from_numpy(b).to(self.device), torch.from_numpy(column).to(self.device))
        return states[where[0], where[1] - 1], where

    def _logits(self, model: Any, hidden_MD: Tensor) -> Tensor:
        return cast(Tensor, model.get_output_embeddings()(hidden_MD)).float()

    def _at(self, values_BL: np.ndarray[Any, Any], where: tuple[Tensor, Tensor]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values_BL)).to(self.device)[where[0], where[1]]

    def _value_error(self, hidden_MD: Tensor, batch: Batch, where: tuple[Tensor, Tensor]) -> Tensor:
        """Return the squared error (M,) of the value head where a turn begins and its return is known, else 0."""
        target = self._at(batch.return_BL, where)
        counts = self._at(batch.first_BL, where) & target.isfinite()
        said = self.value_head(hidden_MD.float()).squeeze(-1)
        return torch.where(counts, (said - target.nan_to_num()) ** 2, 0.0)

    @torch.no_grad()
    def _check(self) -> None:
        """Prove that hidden states and output embeddings together are this model's logits.

        Raises:
            ConfigError: they are not, as with models that cap or scale their logits.
        """
        ids = torch.arange(2, 10, device=self.device)[None]
        whole = self.model(input_ids=ids).logits.float()
        if not torch.allclose(whole, self._logits(self.model, self.model.base_model(input_ids=ids)[0]), atol=1e-4):
            raise ConfigError(
                f"{type(self.model).__name__} changes its logits after the output embeddings: not supported"
            )


def optimizers(
    model: Any, head: nn.Module, *, lr: float, weight_decay: float, muon: bool
) -> list[torch.optim.Optimizer]:
    """Return AdamW for everything, or Muon for the hidden matrices and AdamW for the rest.

    Muon's updates are scaled to the size of AdamW's, so that one learning rate serves both (Jordan et al. 2024;
    the scaling is that of Moonlight, arXiv 2502.16982, Eq. 4). Only matrices decay.
    """
    embeddings = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    parameters = list(model.parameters())
    hidden = [p for p in parameters if p.ndim == 2 and id(p) not in embeddings]
    rest = [p for p in parameters if p.ndim != 2 or id(p) in embeddings] + list(head.parameters())
    betas = (0.9, 0.95)
    return [
        torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        if muon
        else torch.optim.AdamW(hidden, lr=lr, weight_decay=weight_decay, betas=betas, fused=True),
        torch.optim.AdamW(rest, lr=lr, weight_decay=0.0, betas=betas, fused=True),
    ]


def _chosen(logits_MV: Tensor, batch: Batch, where: tuple[Tensor, Tensor]) -> Tensor:
    """Return the log-probability (M,) of each written token."""
    ids = torch.from_numpy(batch.ids_BL).to(logits_MV.device)[where[0], where[1]]
    return torch.log_softmax(logits_MV, dim=-1).gather(1, ids[:, None])[:, 0]


__all__ = ["Learner", "Metrics", "Objective", "optimizers"]
