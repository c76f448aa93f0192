"""What is asked of a vLLM server and how its answers are read: token ids in, token ids out.

The one place that knows the wire. ``/inference/v1/generate`` says which weights sampled each token;
``/v1/completions``, which older or differently started servers have, does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agentgym.errors import PolicyError
from agentgym.types import UNKNOWN_VERSION, Finish, Floats, Sampling, TokenIds

GENERATE = "/inference/v1/generate"
COMPLETIONS = "/v1/completions"
BACKEND = "agentgym_file"
"What our way of handing weights over is called inside vLLM."
KNOWN_VERSIONS = ("0.32", "0.33")
"Versions of vLLM whose protocol this is."

_PLAIN = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"Said explicitly, because a server may have other defaults from its model's folder."
_FINISHES: Mapping[str, Finish] = {"stop": "stop", "length": "length", "abort": "abort"}


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a server sampled."""

    token_ids_N: TokenIds
    logprobs_N: Floats
    versions_N: TokenIds | None
    "None where the server does not say."
    finish: Finish


def generate_request(ids: TokenIds, sampling: Sampling, *, seed: int, eos_id: int | None) -> dict[str, Any]:
    """Return the body that asks `GENERATE` to go on from ``ids`` until ``eos_id`` (None: until the length)."""
    return {"token_ids": ids.tolist(), "sampling_params": _sampling(sampling, seed, eos_id) | {"logprobs": 0}}


def completion_request(
    model: str, ids: TokenIds, sampling: Sampling, *, seed: int, eos_id: int | None
) -> dict[str, Any]:
    """Return the body that asks `COMPLETIONS` for the same."""
    asked = {"model": model, "prompt": ids.tolist(), "logprobs": 0, "return_token_ids": True}
    return asked | _sampling(sampling, seed, eos_id)


def scoring_request(model: str, ids: TokenIds) -> dict[str, Any]:
    """Return the body that asks `COMPLETIONS` for the log-probabilities of ``ids`` themselves."""
    asked = {"model": model, "prompt": ids.tolist(), "prompt_logprobs": 0, "return_token_ids": True}
    return asked | _sampling(Sampling(1.0, 1), 0, None)


def read_generated(answer: Any, *, where: str) -> Answer:
    """Return what `GENERATE` answered.

    Raises:
        PolicyError: it is not an answer, or not a whole one.
    """
    choice = _choice(answer, where)
    try:
        ids = choice["token_ids"]
        logprobs = [token["logprob"] for token in choice["logprobs"]["content"]]
        told = versions(choice["weight_versions"], len(ids))
    except (KeyError, TypeError, ValueError) as error:
        raise PolicyError(f"{where} answered without {error}") from error
    return _checked(ids, logprobs, told, choice.get("finish_reason"), where)


def read_completion(answer: Any, *, where: str) -> Answer:
    """Return what `COMPLETIONS` answered.

    Raises:
        PolicyError: it is not an answer, or not a whole one.
    """
    choice = _choice(answer, where)
    try:
        ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
    except (KeyError, TypeError) as error:
        raise PolicyError(f"{where} answered without {error}") from error
    return _checked(ids, logprobs, None, choice.get("finish_reason"), where)


def read_scores(answer: Any, ids: TokenIds, *, where: str) -> Floats:
    """Return the log-probabilities (N,) of ``ids``, the first NaN, from the answer to a `scoring_request`.

    Raises:
        PolicyError: they are not all there.
    """
    listed = _choice(answer, where).get("prompt_logprobs") or ()
    if len(listed) != len(ids):
        raise PolicyError(f"{where} scored {len(listed)} tokens of {len(ids)}")
    try:
        scored = [entry[str(token)]["logprob"] for token, entry in zip(ids[1:].tolist(), listed[1:], strict=True)]
    except (KeyError, TypeError) as error:
        raise PolicyError(f"{where} left the score of token {error} out") from error
    return np.asarray([math.nan, *scored], np.float32)


def versions(spans: Sequence[Mapping[str, Any]] | None, length: int) -> TokenIds:
    """Return the version (N,) of each token from the server's spans; `UNKNOWN_VERSION` outside them.

    A version is a whole number as we gave it. What a server was started with has another name, and is unknown.

    >>> versions([{"version": "default", "start": 0, "end": 1}, {"version": "7", "start": 1, "end": 3}], 4).tolist()
    [-1, 7, 7, -1]
    """
    out = np.full(length, UNKNOWN_VERSION, np.int32)
    for span in spans or ():
        if str(span["version"]).isdecimal():
            out[span["start"] : span["end"]] = int(span["version"])
    return out


def _sampling(sampling: Sampling, seed: int, eos_id: int | None) -> dict[str, Any]:
    stop = {"ignore_eos": True, "stop_token_ids": [] if eos_id is None else [eos_id]}
    return {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens, "seed": seed, **stop, **_PLAIN}


def _choice(answer: Any, where: str) -> dict[str, Any]:
    try:
        choice = answer["choices"][0]
    except (KeyError, TypeError, IndexError):
        choice = None
    if not isinstance(choice, dict):
        raise PolicyError(f"{where} answered without a choice: {str(answer)[:200]}")
    return choice


def _checked(ids: list[int], logprobs: list[float], served: TokenIds | None, finish: Any, where: str) -> Answer:
    if finish not in _FINISHES:
        raise PolicyError(f"{where} does not say how the answer ended: {finish!r}")
    if not ids or len(ids) != len(logprobs):
        raise PolicyError(f"{where} answered {len(ids)} tokens with {len(logprobs)} log-probabilities")
    values = np.asarray(logprobs, np.float32)
    if not np.isfinite(values).all():
        raise PolicyError(f"{where} answered a log-probability that is no finite number")
    return Answer(np.asarray(ids, np.int32), values, served, _FINISHES[finish])


__all__ = [
    "BACKEND",
    "COMPLETIONS",
    "GENERATE",
    "KNOWN_VERSIONS",
    "Answer",
    "completion_request",
    "generate_request",
    "read_completion",
    "read_generated",
    "read_scores",
    "scoring_request",
    "versions",
]
