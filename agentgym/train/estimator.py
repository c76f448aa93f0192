"""Who earned the outcome: a model that reads an episode and gives each turn its share, so that the shares sum to it.

Source: SPA-RL, Wang et al., "Reinforcing LLM Agents via Stepwise Progress Attribution", arXiv 2505.20732. A head on the
last token of each turn says ĉ_t; R̂(τ) = Σ_t ĉ_t is fitted to the outcome by mean (R̂(τ) − R(τ))². Nothing bounds a
single ĉ_t, and only the sum is ever taught. The same decomposition on features that a program computes instead of a
language model is LaRe's; `Attribution` is where such a model fits in.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from agentgym.errors import ConfigError, UsageError, unknown_name
from agentgym.policy import sample_seed
from agentgym.policy.embedded import load as load_model
from agentgym.probe import OpenAt
from agentgym.render import Renderer
from agentgym.train.batch import Row, bins
from agentgym.train.factory import save as save_model
from agentgym.train.imitation import as_row
from agentgym.types import Group, Signal, Trajectory

Reads = Literal["hidden", "logits"]
"""What the head reads at the last token of a turn: the last hidden state, or, as the paper's code does, the logits."""
HEAD = "progress_head"


class Attribution(Protocol):
    """Whatever gives each turn a share that gradients flow through."""

    def credit(self, rows: Sequence[Row]) -> list[Tensor]:
        """Return the shares (T,) of the turns of each row, in order."""


class ProgressEstimator(nn.Module):
    """A causal language model with a head that gives each turn its share of the outcome.

    Args:
        model: a transformers causal language model; SPA starts from the one that learned from demonstrations.
        tokenizer: its tokenizer, in whose words every episode is read, whoever wrote it.
        reads: `Reads`. The default is the hidden state: a head on the logits has as many weights as there are words.
        token_budget: most tokens of one pass, padding included.

    The head starts at zero, so that an untrained estimator gives every turn the same: nothing.
    """

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerFast, *, reads: Reads = "hidden", token_budget: int = 8192
    ) -> None:
        super().__init__()
        if reads not in get_args(Reads):
            raise unknown_name("input of a progress head", reads, get_args(Reads))
        text = model.config.get_text_config()
        self.model, self.tokenizer, self.reads, self._token_budget = model, tokenizer, reads, token_budget
        self.renderer = Renderer(tokenizer)
        self.max_context: int = min(text.max_position_embeddings, token_budget)
        self.head = nn.Linear(text.hidden_size if reads == "hidden" else text.vocab_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def credit(self, rows: Sequence[Row]) -> list[Tensor]:
        """Return ĉ (T,) of each row, a share for each of its turns, in order.

        A share depends on what came up to the end of its turn, and on nothing after it.

        Raises:
            UsageError: a row does not fit the token budget.
        """
        credits: list[Tensor] = [torch.empty(0)] * len(rows)
        for chosen in bins([len(row.ids_N) for row in rows], self._token_budget):
            ends = [last_tokens(rows[i]) for i in chosen]
            said_BL = self._said([rows[i] for i in chosen])
            for b, i in enumerate(chosen):
                credits[i] = said_BL[b, torch.from_numpy(ends[b]).to(said_BL.device)]
        return credits

    def read(self, trajectory: Trajectory) -> Row:
        """Return ``trajectory`` as this model reads it: one row, whatever segments and tokens the policy had."""
        return as_row(self.renderer, trajectory)

    def digest(self) -> str:
        """Return a short hash of all weights: estimates of different digests are not comparable."""
        found = hashlib.sha256(self.reads.encode())
        for name, weight in sorted(self.state_dict().items()):
            found.update(name.encode())
            found.update(weight.detach().float().cpu().numpy().tobytes())
        return found.hexdigest()[:12]

    def save(self, folder: Path) -> None:
        """Write an ordinary model folder with the head beside the weights; `load` reads it."""
        save_model(self.model, self.tokenizer, folder)
        (folder / f"{HEAD}.json").write_text(json.dumps({"reads": self.reads}) + "\n")
        save_file(self.head.state_dict(), str(folder / f"{HEAD}.safetensors"))

    def _said(self, rows: Sequence[Row]) -> Tensor:
        """Return what the head says at each token, (B, L). Causal attention never looks at the padding on the right."""
        device = self.head.weight.device
        ids_BL = np.zeros((len(rows), max(len(row.ids_N) for row in rows)), np.int64)
        for b, row in enumerate(rows):
            ids_BL[b, : len(row.ids_N)] = row.ids_N
        seen = self.model.base_model(input_ids=torch.from_numpy(ids_BL).to(device), use_cache=False)[0]
        if self.reads == "logits":
            seen = self.model.get_output_embeddings()(seen)
        said: Tensor = self.head(seen.float()).squeeze(-1)
        return said


def load(folder: str | Path, *, token_budget: int = 8192) -> ProgressEstimator:
    """Return the estimator that was saved in ``folder``.

    Raises:
        ConfigError: the folder holds a model without a progress head, or no model.
    """
    head = Path(folder) / f"{HEAD}.json"
    if not head.is_file():
        raise ConfigError(
            f"'{folder}' holds no progress estimator: it has no {head.name}; train one, and save it there"
        )
    model, tokenizer = load_model(folder)
    estimator = ProgressEstimator(model, tokenizer, **json.loads(head.read_text()), token_budget=token_budget)
    estimator.head.load_state_dict(load_file(str(head.with_suffix(".safetensors"))))
    return estimator


def last_tokens(row: Row) -> NDArray[np.int64]:
    """Return the place (T,) of the last token that was written in each turn of ``row``.

    Raises:
        UsageError: a turn wrote no token, so there is no place to say its share.
    """
    written = np.flatnonzero(row.mask_N)
    turn = row.turn_N[written]
    last = written[np.append(turn[1:] != turn[:-1], True)] if len(written) else written
    if len(last) != row.turn_N[-1] - row.turn_N[0] + 1:
        raise UsageError(f"a turn of '{row.rollout_id}' wrote nothing; a share is read off its last token")
    return last


class EstimatorProbe:
    """A probe that writes an estimator's share for each turn as the signal ``progress_estimate``.

    An episode longer than the estimator can read is unmeasured, with the cause. The weights are taken as they are when
    the probe is made: its name holds their digest.
    """

    signals = frozenset({"progress_estimate"})

    def __init__(self, estimator: ProgressEstimator, *, name: str = "spa") -> None:
        self.name = f"{name}/{estimator.reads}@{estimator.digest()}"
        self._estimator = estimator

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return the signals of each trajectory, in order. No world is opened."""
        return await asyncio.to_thread(self._measure, group)

    @torch.no_grad()
    def _measure(self, group: Group) -> list[tuple[Signal, ...]]:
        estimator = self._estimator
        rows = [estimator.read(trajectory) if trajectory.turns else None for trajectory in group.trajectories]
        readable = [row for row in rows if row is not None and len(row.ids_N) <= estimator.max_context]
        shares = {id(row): share_T.tolist() for row, share_T in zip(readable, estimator.credit(readable), strict=True)}
        return [self._signals(row, shares.get(id(row))) for row in rows]

    def _signals(self, row: Row | None, share_T: list[float] | None) -> tuple[Signal, ...]:
        if row is None:
            return ()
        cause = ""
        if share_T is None:
            share_T = [math.nan] * (int(row.turn_N[-1]) + 1)
            cause = f"the episode has {len(row.ids_N)} tokens, the estimator reads {self._estimator.max_context}"
        return tuple(
            Signal("progress_estimate", None if cause else share, self.name, turn, cause=cause)
            for turn, share in enumerate(share_T)
        )


def probe(folder: str, token_budget: int = 8192) -> EstimatorProbe:
    """Return the probe of the estimator that was saved in ``folder``, as a configuration names it.

    Raises:
        ConfigError: the folder holds no estimator.
    """
    return EstimatorProbe(load(folder, token_budget=token_budget))


@dataclass(frozen=True, slots=True)
class Fit:
    """How long an estimator is trained, and in what steps."""

    epochs: int
    episodes: int = 16
    "Episodes of one step."
    warmup_steps: int = 20
    max_grad_norm: float = 1.0


def fit(
    attribution: Attribution,
    optimizers: Sequence[torch.optim.Optimizer],
    rows: Sequence[Row],
    outcomes: Sequence[float],
    how: Fit,
    *,
    seed: int,
) -> Iterator[float]:
    """Train for ``how.epochs``, and yield after each the mean squared error (R̂ − R)² that its steps met.

    ``optimizers`` hold the parameters to be trained, such as `agentgym.train.optimizer.optimizers` of the model and its
    head. Their learning rates rise over ``how.warmup_steps`` and fall linearly to nothing at the end. The order of the
    episodes depends on ``seed`` and the epoch alone.

    Raises:
        UsageError: there are not as many outcomes as rows, one is not finite, or a count is below 1.
    """
    target = torch.tensor(outcomes, dtype=torch.float32)
    if len(rows) != len(outcomes) or not rows or not target.isfinite().all():
        raise UsageError(f"{len(rows)} episodes and {len(outcomes)} outcomes: each needs one, and a finite one")
    if how.epochs < 1 or how.episodes < 1:
        raise UsageError(f"{how.epochs} epochs in steps of {how.episodes} episodes; both are counts from 1 up")
    total = how.epochs * -(-len(rows) // how.episodes)

    def rate(step: int) -> float:
        return min((step + 1) / (how.warmup_steps + 1), 1 - step / total)

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]
    trained = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    for epoch in range(how.epochs):
        order = np.random.default_rng(sample_seed(seed, epoch)).permutation(len(rows))
        errors = []
        for start in range(0, len(rows), how.episodes):
            chosen = order[start : start + how.episodes]
            sums = torch.stack([share_T.sum() for share_T in attribution.credit([rows[i] for i in chosen])])
            error = (sums - target[chosen].to(sums.device)) ** 2
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            error.mean().backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(trained, how.max_grad_norm)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
            errors += error.tolist()
        yield float(np.mean(errors))


__all__ = [
    "Attribution",
    "EstimatorProbe",
    "Fit",
    "ProgressEstimator",
    "Reads",
    "fit",
    "last_tokens",
    "load",
    "probe",
]
