"""After each sync: does the server answer by the weights that the trainer has?

A fixed probe is scored twice: as a prompt, which is read anew and shows every weight, the head included; and by an
answer sampled after it, whose prefix the server may have kept from before, which then shows stale keys and values.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agentgym.errors import PolicyError
from agentgym.policy.endpoint import Endpoint
from agentgym.policy.served import ServedPolicy
from agentgym.types import Floats, Sampling, TokenIds

PROBE_TOKENS = 257
"Two whole blocks of the largest usual size and a token, so that the server keeps some of it."
ANSWER_TOKENS = 8
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1}
"Largest difference of a log-probability, in nats, between two correct programs."


@dataclass(frozen=True, slots=True)
class Reading:
    """Largest difference of a log-probability, in nats."""

    probe: float
    answer: float


class Canary:
    """Compares a server's log-probabilities with the trainer's.

    Args:
        model: the trainer's, whose weights are to be served.
        max_context: of the server; the probe and its answer fit in.
        tolerance: largest difference that is none; by default that of the model's number format.
        temperature: of the answer: that of the rollouts, since a server may tell log-probabilities before or after it.
    """

    def __init__(
        self, model: Any, *, max_context: int, seed: int = 0, tolerance: float | None = None, temperature: float = 1.0
    ) -> None:
        self._model, self._temperature = model, temperature
        length = max(2, min(PROBE_TOKENS, max_context - ANSWER_TOKENS))
        random = np.random.default_rng(seed)
        self.probe: TokenIds = random.integers(0, model.config.get_text_config().vocab_size, length).astype(np.int32)
        kind = str(next(model.parameters()).dtype).removeprefix("torch.")
        self.tolerance = TOLERANCE[kind] if tolerance is None else tolerance
        self._before: Floats | None = None
        self._now: Floats | None = None

    def expect(self) -> None:
        """Take down what the weights say of the probe now, and what they said when this was last called."""
        self._before, self._now = self._now, sequence_logprobs(self._model, self.probe)

    async def check(self, policy: ServedPolicy, server: Endpoint, *, version: int, deadline_s: float) -> Reading:
        """Return how far the server is from what was expected.

        Raises:
            PolicyError: further than the tolerance, or nearer to the weights before; names what is stale.
            DeadlineError: no answer.
        """
        assert self._now is not None
        sampling = Sampling(self._temperature, ANSWER_TOKENS)
        answer = await policy.sample(server, self.probe, sampling, seed=version, eos_id=None, deadline_s=deadline_s)
        scored = await policy.score(server, self.probe, deadline_s=deadline_s)
        whole = np.concatenate([self.probe, answer.token_ids_N])
        ours = await asyncio.to_thread(sequence_logprobs, self._model, whole, self._temperature)
        reading = Reading(_largest((scored - self._now)[1:]), _largest(answer.logprobs_N - ours[len(self.probe) :]))
        if found := self._wrong(reading, scored):
            raise PolicyError(f"the server at {server.url} does not answer by weights {version}: {found}")
        return reading

    def _wrong(self, reading: Reading, scored: Floats) -> str:
        if not reading.probe <= self.tolerance:
            return f"log-probabilities differ by up to {reading.probe:.2g}: weights or head are stale or incomplete"
        if not reading.answer <= self.tolerance:
            raw = " or it has another --logprobs-mode than processed_logprobs" if self._temperature != 1 else ""
            return f"after a prefix it kept they differ by up to {reading.answer:.2g}: its prefix cache is stale{raw}"
        if self._before is not None and self._now is not None:
            moved, left = _mean_square(self._now - self._before), _mean_square(scored - self._before)
            if left < moved / 4 and _mean_square(scored - self._now) > left:
                return "it is nearer to the weights before: the last sync was lost"
        return ""


@torch.inference_mode()
def sequence_logprobs(model: Any, token_ids_N: TokenIds, temperature: float = 1.0) -> Floats:
    """Return log-probabilities (N,) of each token given those before it, in one pass; the first is NaN."""
    ids = torch.from_numpy(token_ids_N.astype(np.int64))[None].to(next(model.parameters()).device)
    logprobs = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float() / temperature, -1)
    chosen = logprobs.gather(1, ids[0, 1:, None])[:, 0].cpu().numpy()
    return np.concatenate([[np.nan], chosen]).astype(np.float32)


def _largest(difference_N: NDArray[np.float32]) -> float:
    return float(np.abs(difference_N).max())  # NaN, which is within no tolerance, if any is


def _mean_square(difference_N: NDArray[np.float32]) -> float:
    return float(np.nanmean(np.square(difference_N, dtype=np.float64)))


__all__ = ["Canary", "Reading", "sequence_logprobs"]
