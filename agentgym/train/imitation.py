"""Learning from text, a first reading of the worlds or an expert's episodes, until the held-out loss stops falling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agentgym.policy import sample_seed
from agentgym.render import Renderer
from agentgym.train.batch import Bools, Row
from agentgym.train.learner import Learner
from agentgym.types import UNKNOWN_VERSION, Message, TokenIds, Trajectory


@dataclass(slots=True)
class Progress:
    """Where it stands; saved with every epoch."""

    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = 0
    best_model: dict[str, Any] = field(default_factory=dict)
    "Weights at ``best_epoch``."
    train_loss: float = math.nan
    valid_loss: float = math.nan

    def state(self) -> dict[str, Any]:
        """Return the fields as plain data for a checkpoint."""
        return {name: getattr(self, name) for name in self.__slots__}

    def losses(self) -> dict[str, float]:
        """Return the losses of the last epoch and the best one so far."""
        return {"train_loss": self.train_loss, "valid_loss": self.valid_loss, "best_loss": self.best_loss}

    def converged(self, patience: int, max_epochs: int) -> bool:
        """Return whether the held-out loss has not fallen for ``patience`` epochs, or the epochs are used up."""
        return self.epoch >= max_epochs or self.epoch - self.best_epoch >= patience


def as_rows(renderer: Renderer, trajectory: Trajectory) -> list[Row]:
    """Return an episode that nobody sampled as the rows a rollout of it would be: one, or one a turn."""
    if not renderer.rewrites:
        return [as_row(renderer, trajectory)]
    made = []
    history: list[Message] = []
    for t, act in enumerate(trajectory.turns):
        history += act.observation
        prompt, answer = renderer.start(history), renderer.answer(act.sample.message)
        written = np.append(np.zeros(len(prompt), bool), np.ones(len(answer), bool))
        made.append(_row(np.append(prompt, answer), written, np.full(len(written), t, np.int32), trajectory.id))
        history.append(act.sample.message)
    return made


def as_row(renderer: Renderer, trajectory: Trajectory, *, read: bool = False) -> Row:
    """Return an episode that nobody sampled as one row of tokens, its answers to be imitated.

    Args:
        read: learn to predict what the world said as well.
    """
    ids: list[TokenIds] = []
    written: list[bool] = []
    turn: list[int] = []
    for t, act in enumerate(trajectory.turns):
        prompt = renderer.bridge("stop", act.observation) if t else renderer.start(act.observation)
        answer = renderer.answer(act.sample.message)
        ids += [prompt, answer]
        written += [read] * len(prompt) + [True] * len(answer)
        turn += [t] * (len(prompt) + len(answer))
    written[0] = False  # nothing comes before the first token to predict it from
    return _row(np.concatenate(ids), np.asarray(written), np.asarray(turn, np.int32), trajectory.id)


def _row(ids_N: TokenIds, mask_N: Bools, turn_N: TokenIds, rollout_id: str) -> Row:
    n = len(ids_N)
    unknown = np.full(n, np.nan, np.float32)
    return Row(
        ids_N=ids_N,
        mask_N=mask_N,
        logprobs_N=unknown,
        versions_N=np.full(n, UNKNOWN_VERSION, np.int32),
        advantage_N=np.zeros(n, np.float32),
        turn_N=turn_N,
        return_N=unknown,
        rollout_id=rollout_id,
    )


def check_rendering(renderer: Renderer, trajectory: Trajectory) -> None:
    """Prove on a real episode that the conversation can be extended token by token; see `Renderer.check`."""
    turns = trajectory.turns
    renderer.check([turn.observation for turn in turns], [turn.sample.message for turn in turns[:-1]])


def split(rows: Sequence[Row], valid_fraction: float) -> tuple[list[Row], list[Row]]:
    """Return (training rows, held-out rows): every k-th row is held out, at least one, and one is left to train on."""
    if len(rows) < 2 or valid_fraction == 0:
        return list(rows), list(rows)
    every = max(2, round(min(1 / valid_fraction, len(rows))))
    return [row for i, row in enumerate(rows) if i % every], [row for i, row in enumerate(rows) if i % every == 0]


def epochs(
    learner: Learner, train: Sequence[Row], valid: Sequence[Row], progress: Progress, *, batch_tokens: int, seed: int
) -> Iterator[Progress]:
    """Train for one epoch at a time, for as long as the caller asks, and yield the progress after each.

    The order of rows depends on ``seed`` and the epoch alone, so that a continued run takes the same steps.
    """
    lengths = [len(row.ids_N) for row in train]
    while True:
        shuffle = np.random.default_rng(sample_seed(seed, progress.epoch))
        order = shuffle.permutation(len(train))
        batches = list(_batches([lengths[i] for i in order], batch_tokens))
        losses = [learner.imitate([train[order[i]] for i in batch])["nll"] for batch in batches]
        progress.epoch += 1
        progress.train_loss = float(np.mean(losses))
        progress.valid_loss = learner.likelihood(valid)
        if progress.valid_loss < progress.best_loss:
            progress.best_loss, progress.best_epoch = progress.valid_loss, progress.epoch
            weights = learner.model.state_dict().items()
            progress.best_model = {name: value.detach().to("cpu", copy=True) for name, value in weights}
        yield progress


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield consecutive indices whose lengths sum to at most ``batch_tokens``."""
    current: list[int] = []
    total = 0
    for index, length in enumerate(lengths):
        if current and total + length > batch_tokens:
            yield current
            current, total = [], 0
        current.append(index)
        total += length
    if current:
        yield current


__all__ = ["Progress", "as_row", "as_rows", "check_rendering", "epochs", "split"]
