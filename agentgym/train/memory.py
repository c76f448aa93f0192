"""How much memory the learner of a run takes, told before anything is loaded.

Weights, gradients and moments are counted as in ZeRO (arXiv 1910.02054, section 3.1). Activations are the tensors
that a layer keeps for its gradient, counted as in Korthikanti et al. (arXiv 2205.05198, section 4) for the layers used
here: two norms, which compute in float32, attention that keeps no scores (arXiv 2205.14135), a gated feed-forward part.
With gradient checkpointing (arXiv 1604.06174) each layer keeps only what goes in, and one layer at a time all of it.

An estimate of the learner alone: vLLM takes what its ``gpu-memory-utilization`` says, and torch some more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentgym.config import RunConfig
from agentgym.errors import ConfigError

LOGITS_AT_ONCE = 2**26
"Most logits that the learner holds at the same time: a quarter of a gigabyte in float32."
BYTES = {"float32": 4, "bfloat16": 2}
_LOGIT_COPIES = 5
"Of the logits in float32: themselves, over the temperature, normalised, and two gradients at a time."
_TABLE_GRADIENTS = 3
"Of a table of embeddings, before they are added up: of the inputs, of the logits so far, of those of one part."


@dataclass(frozen=True, slots=True)
class Shape:
    """What the size of a model depends on."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    ff: int
    vocabulary: int
    tied: bool

    @property
    def parameters(self) -> int:
        """How many parameters a model of Qwen3's kind has."""
        wide, narrow = self.heads * self.head_width, self.kv_heads * self.head_width
        attention = 2 * self.width * (wide + narrow) + 2 * self.head_width  # q, o, k, v; norms of q and k
        layer = attention + 3 * self.width * self.ff + 2 * self.width  # gate, up, down; two norms
        tables = 1 if self.tied else 2
        return tables * self.vocabulary * self.width + self.layers * layer + self.width


def shape_of(config: RunConfig) -> Shape:
    """Return the shape of the run's model; of a fresh one with a full vocabulary.

    Raises:
        ConfigError: the model's folder cannot be read, or does not say how large it is.
    """
    model = config.model
    if model.path is None:
        heads, ff = model.heads, model.ff or 3 * model.width
        width = model.width // heads
        return Shape(model.layers, model.width, heads, model.kv_heads or heads, width, ff, model.vocab_size, True)
    file = Path(model.path) / "config.json"
    try:
        said = json.loads(file.read_text("utf-8"))
        said = said.get("text_config", said)
        heads, width = said["num_attention_heads"], said["hidden_size"]
        return Shape(
            said["num_hidden_layers"],
            width,
            heads,
            said.get("num_key_value_heads") or heads,
            said.get("head_dim") or width // heads,
            said["intermediate_size"],
            said["vocab_size"],
            bool(said.get("tie_word_embeddings", True)),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"model.path: '{file}' does not say how large the model is: {error!r}") from error


def estimate(config: RunConfig) -> dict[str, int]:
    """Return the bytes that the learner takes, by what takes them, and their ``total``."""
    shape, train = shape_of(config), config.train
    stored, tokens = BYTES[config.model.dtype], train.token_budget
    computed = BYTES["bfloat16"] if train.autocast else stored
    held = shape.parameters
    at_once = min(tokens, max(1, LOGITS_AT_ONCE // shape.vocabulary))
    parts = {
        "weights": stored * held + (computed * held if train.autocast else 0),
        "gradients": stored * held,
        "optimizer": 2 * stored * held,
        "reference": stored * held if train.kl and not _elsewhere(train.reference) else 0,
        "activations": tokens * _kept(shape, stored, computed, train.gradient_checkpointing),
        "logits": (_LOGIT_COPIES * 4 * at_once + _TABLE_GRADIENTS * stored * shape.width) * shape.vocabulary,
        "cache": _cache(config, shape, stored) if config.policy.engine == "embedded" else 0,
    }
    return parts | {"total": sum(parts.values())}


def layer_bytes(shape: Shape, stored: int, computed: int) -> int:
    """Return the bytes that one layer keeps of one token for its gradient.

    Args:
        stored: bytes of a number of the residual stream, which is as precise as the weights.
        computed: bytes of a number of a matrix product.
    """
    wide, narrow = shape.heads * shape.head_width, shape.kv_heads * shape.head_width
    mixed = computed if computed != stored else 0
    norm = 4 + 2 * stored + mixed  # what goes in, normalised, what comes out, and that as products read it
    attention = (4 + computed) * (wide + narrow) + computed * (wide + 2 * narrow) + computed * wide
    return 2 * norm * shape.width + attention + 4 * computed * shape.ff


def require(needed: int, available: int, where: str) -> None:
    """Refuse a run that does not fit.

    Raises:
        ConfigError: says what would make it smaller.
    """
    if needed > available:
        raise ConfigError(
            f"the learner would take about {gigabytes(needed)} GB and {where} has {gigabytes(available)} GB; it gets "
            "smaller with train.gradient_checkpointing = true, model.dtype = 'bfloat16', a smaller train.token_budget "
            "or model.max_context, or a smaller model"
        )


def gigabytes(number: int) -> str:
    """Return bytes as gigabytes with two digits after the point at most."""
    return f"{number / 1e9:.3g}"


def _kept(shape: Shape, stored: int, computed: int, checkpointing: bool) -> int:
    one = layer_bytes(shape, stored, computed)
    return shape.layers * stored * shape.width + one if checkpointing else shape.layers * one


def _cache(config: RunConfig, shape: Shape, stored: int) -> int:
    """Return the bytes of keys and values of all rollouts, at their longest, in the embedded engine."""
    played = [config.train.groups * config.train.group_size, config.eval.final_games]
    played += [config.eval.games] if config.eval.every else []
    tokens = min(config.env.concurrency, max(played)) * config.model.max_context
    return tokens * 2 * shape.layers * shape.kv_heads * shape.head_width * stored


def _elsewhere(reference: str | None) -> bool:
    return reference is not None and reference.startswith(("http://", "https://"))


def table(parts: dict[str, Any]) -> str:
    """Return an estimate in one line: the total, then what takes more than nothing."""
    shares = ", ".join(f"{name} {gigabytes(size)}" for name, size in parts.items() if name != "total" and size)
    return f"about {gigabytes(parts['total'])} GB: {shares}"


__all__ = ["BYTES", "LOGITS_AT_ONCE", "Shape", "estimate", "gigabytes", "layer_bytes", "require", "shape_of", "table"]
