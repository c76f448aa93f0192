"""The weights and their optimiser: one update from rows, by reinforcement or by imitation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from agentgym.errors import ConfigError
from agentgym.train.batch import Batch, Row, pack
from agentgym.train.correction import Correction, Level, importance_weights
from agentgym.train.logprobs import logprobs, logprobs_and_entropy
from agentgym.train.loss import (
    clipped_policy_loss,
    kl_penalty,
    sequence_mean,
    sequence_policy_loss,
    truncated_weight_loss,
)
from agentgym.train.memory import LOGITS_AT_ONCE
from agentgym.train.optimizer import optimizers

Metrics = dict[str, float]
NO_CORRECTION = Correction()
PolicyLoss = Literal["clip", "cispo", "gspo_turn", "gspo_trajectory"]
SEQUENCES: Mapping[str, Level] = {"gspo_turn": "turn", "gspo_trajectory": "trajectory"}
"What has one ratio in losses of sequences."


@dataclass(frozen=True, slots=True)
class Objective:
    """What reinforcement maximises."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    kl: float = 0.0
    entropy: float = 0.0
    value: float = 0.0
    "Weight of the value head's squared error; 0: there is no value head."
    loss: PolicyLoss = "clip"
    correction: Correction = NO_CORRECTION


@dataclass(frozen=True, slots=True)
class Economy:
    """What memory is saved by."""

    gradient_checkpointing: bool = False
    "Keep of each layer what goes in, and compute the rest again for the gradient."
    autocast: bool = False
    "Compute in bfloat16 from weights that stay float32."
    logits_at_once: int = LOGITS_AT_ONCE
    "Most logits that are held at the same time."


class Learner:
    """A causal language model, its optimiser, and where asked for a value head and a frozen reference.

    Args:
        token_budget: most tokens of one forward and backward pass, padding included.
        warmup_steps: steps over which the learning rate rises to ``lr``.
        decay_steps: the last so many of ``total_steps``, over which it falls, linearly, to a twentieth of ``lr``.
        muon: step the hidden matrices by Muon instead of AdamW. It learns from text in fewer steps, and amplifies the
            noise of a policy gradient.
        objective: the weights of the terms of `reinforce`.
        economy: what memory is saved by.
        reference: what the divergence is measured from: ``"start"``, a frozen copy of ``model`` as it is now;
            ``"rows"``, which bring its log-probabilities; or a model.
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
        economy: Economy = Economy(),
        reference: Any = "start",
    ) -> None:
        self.model, self.objective, self._economy = model, objective, economy
        self.device = next(model.parameters()).device
        self.value_head = nn.Linear(model.config.get_text_config().hidden_size, 1).to(self.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self._token_budget, self._max_grad_norm = token_budget, max_grad_norm
        self._lr, self._warmup_steps, self._decay_steps, self._total_steps = lr, warmup_steps, decay_steps, total_steps
        self.steps = 0
        "Optimiser steps taken, which is also the version of the weights."
        self.optimizers = optimizers(model, self.value_head, lr=lr, weight_decay=weight_decay, muon=muon)
        self._copies = reference == "start" and objective.kl > 0
        if self._copies:
            reference = copy.deepcopy(model)
        self.reference: Any = None if isinstance(reference, str) else reference.requires_grad_(False).eval()
        self._recomputed = _checkpointing(model) if economy.gradient_checkpointing else []
        self._check()

    def reinforce(self, rows: Sequence[Row]) -> Metrics:
        """Take one step along the clipped policy gradient; return what it measured, averaged over trained tokens."""
        weights = self.objective

        def loss(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            hidden, where = self._hidden(self.model, batch)
            chosen, spread = self._scores(hidden, batch, where)
            old, advantage = (self._at(part, where) for part in (batch.old_BL, batch.advantage_BL))
            share = torch.from_numpy(batch.weight_B).to(self.device)[where[0]]
            per_token = self._policy_loss(chosen, old, advantage, batch, where)
            measured = {
                "policy_loss": per_token.detach(),
                "entropy": spread.detach(),
                "kl_sampler": kl_penalty(chosen.detach(), old),
                "clip_fraction": self._out_of_bounds(chosen.detach(), old, batch, where),
            }
            if weights.correction.mode != "none":
                sampled_by = self._at(batch.logprobs_BL, where)
                counts, bounded = importance_weights(
                    old, sampled_by, self._sequence(batch, where, weights.correction.level), weights.correction
                )
                per_token = per_token * counts
                measured["corrected"] = bounded.float()
            per_token = per_token - weights.entropy * spread if weights.entropy else per_token
            if weights.kl:
                away = kl_penalty(chosen, self._anchor(batch, where))
                per_token = per_token + weights.kl * away
                measured["kl_reference"] = away.detach()
            if weights.value:
                error = self._value_error(hidden, batch, where)
                per_token = per_token + weights.value * error
                measured["value_loss"] = error.detach()
            return (per_token * share).sum(), {name: (value * share).sum() for name, value in measured.items()}

        return self._step(rows, loss)

    @torch.no_grad()
    def remember(self, rows: Sequence[Row]) -> list[Row]:
        """Return ``rows`` with the log-probabilities that the weights give their tokens now, before a step is taken.

        Where nothing is corrected the sampler's own are as good, and ``rows`` come back as they are.
        """
        if self.objective.correction.mode == "none":
            return list(rows)
        return [replace(row, old_N=self._now(row)) for row in rows]

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
            "reference": self.reference.state_dict() if self._copies else None,
            "steps": self.steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        self.model.load_state_dict(state["model"])
        self.value_head.load_state_dict(state["value_head"])
        for optimizer, stored in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(stored)
        if state["reference"] is not None and self._copies:
            self.reference.load_state_dict(state["reference"])
        self.steps = state["steps"]

    def _step(self, rows: Sequence[Row], loss: Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]) -> Metrics:
        written = sum(row.weight * int(row.mask_N.sum()) for row in rows) or 1.0
        totals: dict[str, float] = {}
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        for batch in pack(rows, token_budget=self._token_budget):
            with self._recomputing():
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
        summed = -(self._logprobs(self.model, hidden, batch, where, temperature=1.0) * share).sum()
        return summed, {"nll": summed.detach()}

    def _hidden(self, model: Any, batch: Batch) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the hidden states (M, width) from which each written token was predicted, and where those tokens are.

        Right padding needs no mask under causal attention: what is real never looks at what comes after it.
        """
        ids = torch.from_numpy(batch.ids_BL).to(self.device)
        with self._autocast():
            states = model.base_model(input_ids=ids, use_cache=False)[0]
        b, column = np.nonzero(batch.mask_BL)
        where = (torch.from_numpy(b).to(self.device), torch.from_numpy(column).to(self.device))
        return states[where[0], where[1] - 1], where

    def _scores(self, hidden_MD: Tensor, batch: Batch, where: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the log-probability (M,) of each written token, and the entropy (M,) of what it was drawn from."""
        with self._autocast():
            return logprobs_and_entropy(
                self.model.get_output_embeddings(),
                hidden_MD,
                self._at(batch.ids_BL, where),
                temperature=batch.temperature,
                at_once=self._economy.logits_at_once,
                spread=bool(self.objective.entropy),
            )

    def _logprobs(
        self, model: Any, hidden_MD: Tensor, batch: Batch, where: tuple[Tensor, Tensor], *, temperature: float
    ) -> Tensor:
        """Return the log-probability (M,) of each written token by ``model``."""
        token, at_once = self._at(batch.ids_BL, where), self._economy.logits_at_once
        with self._autocast():
            return logprobs(model.get_output_embeddings(), hidden_MD, token, temperature=temperature, at_once=at_once)

    @torch.no_grad()
    def _anchor(self, batch: Batch, where: tuple[Tensor, Tensor]) -> Tensor:
        """Return the reference's log-probability (M,) of each written token."""
        if self.reference is None:
            return self._at(batch.reference_BL, where)
        hidden, _ = self._hidden(self.reference, batch)
        return self._logprobs(self.reference, hidden, batch, where, temperature=batch.temperature)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._economy.autocast)

    @contextmanager
    def _recomputing(self) -> Iterator[None]:
        """Let layers compute again what they did not keep. They look at whether they are training to know."""
        for layer in self._recomputed:
            layer.training = True
        try:
            yield
        finally:
            for layer in self._recomputed:
                layer.training = False

    def _now(self, row: Row) -> np.ndarray[Any, np.dtype[np.float32]]:
        (batch,) = pack([row], token_budget=self._token_budget)
        hidden, where = self._hidden(self.model, batch)
        old = np.full(len(row.ids_N), np.nan, np.float32)
        now = self._logprobs(self.model, hidden, batch, where, temperature=batch.temperature)
        old[row.mask_N] = now.cpu().numpy()
        return old

    def _policy_loss(
        self, chosen: Tensor, old: Tensor, advantage: Tensor, batch: Batch, where: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Return the loss (M,) that the objective names."""
        weights = self.objective
        if weights.loss == "cispo":
            return truncated_weight_loss(chosen, old, advantage, clip_high=weights.clip_high)
        if weights.loss == "clip":
            return clipped_policy_loss(chosen, old, advantage, clip_low=weights.clip_low, clip_high=weights.clip_high)
        sequence = self._sequence(batch, where, SEQUENCES[weights.loss])
        return sequence_policy_loss(
            chosen, old, advantage, sequence, clip_low=weights.clip_low, clip_high=weights.clip_high
        )

    def _out_of_bounds(self, chosen: Tensor, old: Tensor, batch: Batch, where: tuple[Tensor, Tensor]) -> Tensor:
        """Return 1 for each token (M,) whose ratio, or its sequence's, the loss bounds, else 0."""
        weights, difference = self.objective, chosen - old
        if weights.loss in SEQUENCES:
            difference = sequence_mean(difference, self._sequence(batch, where, SEQUENCES[weights.loss]))
        ratio = difference.exp()
        low = 0.0 if weights.loss == "cispo" else 1 - weights.clip_low
        return ((ratio < low) | (ratio > 1 + weights.clip_high)).float()

    def _sequence(self, batch: Batch, where: tuple[Tensor, Tensor], level: Level) -> Tensor:
        """Return which turn or row (M,), counted from 0, each written token belongs to."""
        if level == "turn":
            return self._at(batch.first_BL, where).long().cumsum(0) - 1
        return where[0]

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
        parts = self.model.get_output_embeddings()(self.model.base_model(input_ids=ids)[0]).float()
        if not torch.allclose(whole, parts, atol=1e-4):
            raise ConfigError(
                f"{type(self.model).__name__} changes its logits after the output embeddings: not supported"
            )


def _checkpointing(model: Any) -> list[Any]:
    """Turn gradient checkpointing on and return the layers that do it.

    Raises:
        ConfigError: this model has none.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ConfigError(f"train.gradient_checkpointing: {type(model).__name__} has none; turn it off")
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return [layer for layer in model.modules() if getattr(layer, "gradient_checkpointing", False) is True]


__all__ = ["Economy", "Learner", "Metrics", "Objective", "PolicyLoss"]
