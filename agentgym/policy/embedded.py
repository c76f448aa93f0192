"""A transformers model in this process, decoding all active rollouts together.

The key-value cache of every rollout is kept between its turns, so that a turn costs only what is new in it. Rows of
one batch may stand at different lengths. Sampling draws from a stream that belongs to the sample (`Context.seed`),
not to the batch, so that what a rollout does never depends on which others run beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from agentgym.clock import Clock
from agentgym.errors import ConfigError, DeadlineError, PolicyError, UsageError, missing_extra
from agentgym.policy import Context
from agentgym.render import History, Renderer
from agentgym.types import Finish, Floats, Sample, TokenIds

PREFILL_TOKENS = 16384
"Most tokens, padding included, that one forward pass reads."


class SlotCache:
    """Keys and values of all rollouts, one row (slot) each, in one tensor a layer: (slots, heads, positions, width).

    It stands in for a transformers ``Cache``: `aim` says which rows and positions the next forward pass writes, and
    ``update``, called by each attention layer, writes them and returns what that layer may look at.
    """

    def __init__(self, layers: int, heads: int, head_width: int, dtype: torch.dtype, device: torch.device) -> None:
        self._heads, self._head_width = heads, head_width
        self._kv: list[tuple[Tensor, Tensor]] = []
        self._layers, self._dtype, self._device = layers, dtype, device
        self.slots = self.positions = 0
        self._rows: Tensor | slice = slice(0)
        self._write: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self._keep: Tensor | None = None
        self._width = 0

    def reserve(self, slots: int, positions: int) -> None:
        """Make room for at least this many rows and positions, keeping what is there."""
        if slots <= self.slots and positions <= self.positions:
            return
        slots = max(slots, self.slots)
        positions = max(-(-positions // 256) * 256, self.positions)
        grown = []
        for layer in range(self._layers):
            pair = []
            for which in range(2):
                shape = (slots, self._heads, positions, self._head_width)
                new = torch.zeros(shape, dtype=self._dtype, device=self._device)
                if self._kv:
                    new[: self.slots, :, : self.positions] = self._kv[layer][which]
                pair.append(new)
            grown.append((pair[0], pair[1]))
        self._kv, self.slots, self.positions = grown, slots, positions

    def aim(self, rows_R: Sequence[int], lengths_R: Sequence[int], new_R: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Aim the next pass at ``rows_R``, which hold ``lengths_R`` tokens and get ``new_R`` more each.

        Returns the position ids (R, Q) and what is added to the attention scores (R, 1, Q, K), Q being the most new
        tokens of a row and K the longest row afterwards. Padding stands to the right of a row's new tokens and is not
        written.
        """
        rows, lengths, new = (torch.as_tensor(part, device=self._device) for part in (rows_R, lengths_R, new_R))
        most = int(new.max())
        self._width = int((lengths + new).max())
        self.reserve(int(rows.max()) + 1, self._width)
        offsets = torch.arange(most, device=self._device)
        positions = lengths[:, None] + offsets  # (R, Q)
        keep = offsets < new[:, None]
        self._keep = None if bool(keep.all()) else keep
        where = (rows[:, None].expand_as(positions), positions)
        self._write = (where[0][keep], where[1][keep])
        together = list(rows_R) == list(range(rows_R[0], rows_R[0] + len(rows_R)))
        self._rows = slice(rows_R[0], rows_R[0] + len(rows_R)) if together else rows
        hidden = torch.arange(self._width, device=self._device) > positions[:, :, None]
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=self._device).masked_fill_(hidden, -torch.inf)
        return positions, mask[:, None]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write (R, H, Q, W) at the places aimed at; return keys and values (R, H, K, W) of the same rows."""
        out = []
        for store, fresh in zip(self._kv[layer], (keys, values), strict=True):
            by_token = fresh.transpose(1, 2)
            rows, positions = self._write
            store[rows, :, positions] = by_token[self._keep] if self._keep is not None else by_token.flatten(0, 1)
            out.append(store[self._rows, :, : self._width])
        return out[0], out[1]

    def move(self, source: int, target: int) -> None:
        """Copy one row over another."""
        for pair in self._kv:
            for store in pair:
                store[target] = store[source]

    def get_seq_length(self, *_: Any) -> int:
        """Return the longest row's length after the pass."""
        return self._width


@dataclass(slots=True, eq=False)
class _Request:
    """One answer being written."""

    context: Context
    future: asyncio.Future[Sample]
    uniforms: Floats = field(init=False)
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    finish: Finish | None = None

    def __post_init__(self) -> None:
        self.uniforms = np.random.default_rng(self.context.seed).random(self.context.sampling.max_tokens, np.float32)


class Decoder:
    """The synchronous half: slots, prefill and one-token steps over a causal language model.

    Args:
        model: a transformers causal language model, which the learner may go on updating between answers.
        eos_id: the token that ends an answer.

    Raises:
        ConfigError: the model is built in a way that cannot be decoded piece by piece here.
    """

    def __init__(self, model: Any, eos_id: int) -> None:
        self.model, self.eos_id = model, eos_id
        config = model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        weight = next(model.parameters())
        self._cache = SlotCache(config.num_hidden_layers, heads, width, weight.dtype, weight.device)
        self._device = weight.device
        self._slots: list[str] = []  # slot -> rollout, always without holes
        self._held: dict[str, list[int]] = {}  # rollout -> the tokens whose keys and values are in its row
        self.prefilled = self.decoded = 0
        self._check()

    @torch.inference_mode()
    def forget(self, rollout_ids: Sequence[str]) -> None:
        """Give the slots of ``rollout_ids`` back. The last rows move into the holes, so that batches stay slices."""
        for rollout_id in rollout_ids:
            self._held.pop(rollout_id, None)
            if rollout_id in self._slots:
                slot, last = self._slots.index(rollout_id), len(self._slots) - 1
                if slot != last:
                    self._cache.move(last, slot)
                    self._slots[slot] = self._slots[last]
                self._slots.pop()

    def forget_prefixes(self) -> None:
        """Drop every cached prefix, because the weights that made it are gone."""
        self._held.clear()

    @torch.inference_mode()
    def begin(self, requests: Sequence[_Request]) -> None:
        """Read what is new to each request's rollout and draw the next token of each answer."""
        work = []
        for request in requests:
            name = request.context.rollout_id
            ids = np.append(request.context.token_ids_N, np.asarray(request.ids, np.int32))
            held = np.asarray(self._held.get(name, ()), np.int32)[: len(ids) - 1]
            same = np.append(held == ids[: len(held)], False)
            work.append((self._slot(name), int(same.argmin()), ids, request))
        for chunk in _chunks(sorted(work, key=lambda part: part[0])):
            logits = self._forward([c[0] for c in chunk], [c[1] for c in chunk], [c[2][c[1] :] for c in chunk])
            for _, _, ids, request in chunk:
                self._held[request.context.rollout_id] = ids.tolist()
            self.prefilled += sum(len(ids) - length for _, length, ids, _ in chunk)
            self.decoded += len(chunk)
            self._draw(logits, [c[3] for c in chunk])

    @torch.inference_mode()
    def step(self, requests: Sequence[_Request]) -> None:
        """Draw one more token of each answer.

        Rows that do not take part but stand between those that do are computed along: a slice of the cache costs less
        than a copy of it. What they write lies behind their own end and is overwritten by their next turn.
        """
        by_slot = {self._slots.index(request.context.rollout_id): request for request in requests}
        slots = list(range(min(by_slot), max(by_slot) + 1))
        lengths = [len(self._held.get(self._slots[slot], ())) for slot in slots]
        tokens = [np.asarray(by_slot[slot].ids[-1:] if slot in by_slot else [0], np.int32) for slot in slots]
        logits = self._forward(slots, lengths, tokens)
        ordered = [by_slot[slot] for slot in sorted(by_slot)]
        for request in ordered:
            self._held[request.context.rollout_id].append(request.ids[-1])
        self.decoded += len(ordered)
        self._draw(logits[[slot - slots[0] for slot in sorted(by_slot)]], ordered)

    def _slot(self, rollout_id: str) -> int:
        if rollout_id not in self._slots:
            self._slots.append(rollout_id)
        return self._slots.index(rollout_id)

    def _forward(self, slots: list[int], lengths: list[int], tokens: list[TokenIds]) -> Tensor:
        """Return the logits (R, V) after each row's last new token."""
        new = [len(ids) for ids in tokens]
        padded = np.zeros((len(tokens), max(new)), np.int64)
        for row, ids in enumerate(tokens):
            padded[row, : len(ids)] = ids
        positions, mask = self._cache.aim(slots, lengths, new)
        hidden = self.model.base_model(
            input_ids=torch.from_numpy(padded).to(self._device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )[0]
        last = hidden[torch.arange(len(new), device=self._device), torch.as_tensor(new, device=self._device) - 1]
        return cast(Tensor, self.model.get_output_embeddings()(last)).float()

    @torch.inference_mode()
    def _check(self) -> None:
        """Prove that reading piece by piece gives the model's own logits; not every architecture is built that way."""
        ids = (np.arange(8) % self.model.config.get_text_config().vocab_size).astype(np.int32)
        inputs = torch.from_numpy(ids.astype(np.int64))[None].to(self._device)
        try:
            whole = self.model(input_ids=inputs).logits[0].float()
            pieces = [self._forward([0], [start], [ids[start:end]]) for start, end in ((0, 5), (5, 7), (7, 8))]
        except (AttributeError, NotImplementedError, TypeError) as error:
            raise ConfigError(f"{type(self.model).__name__} cannot be decoded here: {error!r}") from error
        near = 0.1 if next(self.model.parameters()).dtype.itemsize < 4 else 1e-3
        apart = float((torch.cat(pieces) - whole[[4, 6, 7]]).abs().max())
        if not apart <= near * (1 + float(whole.abs().max())):
            raise ConfigError(
                f"{type(self.model).__name__} cannot be decoded here: read piece by piece, its logits differ from "
                f"those of one pass by up to {apart:.2g}"
            )

    def _draw(self, logits: Tensor, requests: Sequence[_Request]) -> None:
        """Draw by inverse transform from each request's own stream; greedy where the temperature is 0."""
        warmth = torch.tensor([r.context.sampling.temperature for r in requests], device=logits.device)
        logprobs = torch.log_softmax(logits / torch.where(warmth > 0, warmth, 1.0)[:, None], dim=-1)
        uniforms = torch.tensor([float(r.uniforms[len(r.ids)]) for r in requests], device=logits.device)
        cumulative = logprobs.double().exp().cumsum(-1)
        drawn = (cumulative < (uniforms.double() * cumulative[:, -1])[:, None]).sum(-1).clamp_max(logits.shape[1] - 1)
        tokens = torch.where(warmth > 0, drawn, logits.argmax(-1))
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        for request, token, logprob in zip(requests, tokens.tolist(), chosen.tolist(), strict=True):
            request.ids.append(token)
            request.logprobs.append(logprob)
            if token == self.eos_id:
                request.finish = "stop"
            elif len(request.ids) == request.context.sampling.max_tokens:
                request.finish = "length"


def _chunks(work: list[tuple[int, int, TokenIds, _Request]]) -> list[list[tuple[int, int, TokenIds, _Request]]]:
    """Split prefill work so that no pass reads more than `PREFILL_TOKENS`, padding included."""
    chunks: list[list[tuple[int, int, TokenIds, _Request]]] = []
    widest = 0
    for part in work:
        new = len(part[2]) - part[1]
        widest = max(widest, new)
        if chunks and widest * (len(chunks[-1]) + 1) <= PREFILL_TOKENS:
            chunks[-1].append(part)
        else:
            chunks.append([part])
            widest = new
    return chunks


class EmbeddedPolicy:
    """The policy around a `Decoder`.

    Args:
        lockstep: decode only when every rollout that has begun waits for an answer. Batches then depend on nothing
            but the episodes, which makes a run repeatable to the bit. Otherwise an answer joins the batch in flight
            as soon as it is asked for.
        history: see `Renderer`.
        clock: is told when the model computes.

    Raises:
        ConfigError: the tokenizer or the model cannot be served this way.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_context: int,
        version: int = 0,
        lockstep: bool = True,
        history: History = "tokens",
        clock: Clock | None = None,
    ) -> None:
        window = getattr(model.config.get_text_config(), "sliding_window", None)
        if window and max_context > window:
            raise ConfigError(
                f"the model looks back {window} tokens only, but max_context is {max_context}; set it to {window}"
            )
        self._renderer = Renderer(tokenizer, history=history)
        self._max_context = max_context
        self.model, self.version, self._lockstep = model, version, lockstep
        self._decoder = Decoder(model, self._renderer.eos_id)
        self._open: set[str] = set()
        self._asked: set[str] = set()
        self._ended: set[str] = set()
        self._pending: list[_Request] = []
        self._stale = False
        self._wake: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._clock = clock or Clock()

    @property
    def renderer(self) -> Renderer:
        """How messages become tokens."""
        return self._renderer

    @property
    def max_context(self) -> int:
        """Most tokens of a segment."""
        return self._max_context

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens read and tokens sampled so far."""
        return self._decoder.prefilled, self._decoder.decoded

    def update(self, version: int) -> None:
        """Say that the model's weights changed: cached prefixes are dropped, new tokens carry ``version``."""
        self.version = version
        self._stale = True

    def begin(self, rollout_id: str) -> None:
        """A rollout starts."""
        self._open.add(rollout_id)

    def end(self, rollout_id: str) -> None:
        """A rollout is over."""
        self._open.discard(rollout_id)
        self._pending = [request for request in self._pending if request.context.rollout_id != rollout_id]
        self._ended.add(rollout_id)
        if self._wake is not None:
            self._wake.set()

    async def act(self, context: Context, tools: tuple[dict[str, Any], ...] = ()) -> Sample:
        """Sample an answer to ``context.token_ids_N``; see `Policy.act`.

        Raises:
            UsageError: the rollout waits for an answer already.
        """
        if context.rollout_id in self._asked:
            raise UsageError(f"rollout '{context.rollout_id}' waits for an answer already; a turn has one")
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._wake = asyncio.Event()
            self._task = loop.create_task(self._serve())
        request = _Request(context, loop.create_future())
        self._pending.append(request)
        self._asked.add(context.rollout_id)
        assert self._wake is not None
        self._wake.set()
        try:
            async with asyncio.timeout(context.deadline_s):  # wait_for may swallow a cancellation, before Python 3.12
                return await request.future
        except TimeoutError:
            raise DeadlineError(f"the embedded policy gave no answer within {context.deadline_s:g} s") from None
        finally:
            self._asked.discard(context.rollout_id)
            if request in self._pending:
                self._pending.remove(request)

    async def logprobs(self, token_ids_N: TokenIds) -> Floats:
        """Return log-probabilities (N,) of each token given those before it; the first is NaN."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._logprobs, token_ids_N)

    def close(self) -> None:
        """Stop serving. Twice is fine."""
        if self._task is not None and not self._task.get_loop().is_closed():
            self._task.cancel()
        self._task = None
        self._thread.shutdown(wait=True)

    @torch.inference_mode()
    def _logprobs(self, token_ids_N: TokenIds) -> Floats:
        ids = torch.from_numpy(token_ids_N.astype(np.int64))[None].to(self.model.device)
        logprobs = torch.log_softmax(self.model(input_ids=ids).logits[0, :-1].float(), -1)
        chosen = logprobs.gather(1, ids[0, 1:, None])[:, 0].cpu().numpy()
        return np.concatenate([[np.nan], chosen]).astype(np.float32)

    def _admit(self, in_flight: list[_Request]) -> list[_Request]:
        if self._lockstep and (in_flight or len(self._pending) < len(self._open)):
            return []
        admitted = sorted(self._pending, key=lambda request: request.context.rollout_id)
        self._pending = []
        return admitted

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        in_flight: list[_Request] = []
        assert self._wake is not None
        while True:
            in_flight = [request for request in in_flight if not request.future.done()]
            admitted = self._admit(in_flight)
            if not admitted and not in_flight:
                await self._wake.wait()
                self._wake.clear()
                continue
            stale, self._stale, version = self._stale, False, self.version
            # An answer that was begun under other weights goes on under the new ones, over a prefix read again.
            begin, step = (in_flight + admitted, []) if stale else (admitted, in_flight)
            batch = in_flight + admitted
            ended: list[str] = []
            if not (self._lockstep and in_flight):  # else which slots are free would depend on how fast worlds step
                ended, self._ended = sorted(self._ended), set()
            try:
                if stale:
                    self._decoder.forget_prefixes()
                if ended:
                    await loop.run_in_executor(self._thread, self._decoder.forget, ended)
                for run, requests in ((self._decoder.step, step), (self._decoder.begin, begin)):
                    if requests:
                        with self._clock("decode"):
                            await loop.run_in_executor(self._thread, run, requests)
                for request in batch:
                    request.versions.append(version)
                    if request.finish is not None and not request.future.done():
                        request.future.set_result(self._sample(request))
            except Exception as error:  # the boundary: whatever the model or tokenizer raises is the engine's failure
                for request in batch:
                    if not request.future.done():
                        request.future.set_exception(PolicyError(f"the embedded model failed: {error!r}"))
                self._decoder.forget_prefixes()
            in_flight = batch

    def _sample(self, request: _Request) -> Sample:
        ids = np.asarray(request.ids, np.int32)
        assert request.finish is not None
        return Sample(
            message=self._renderer.message(ids),
            token_ids_N=ids,
            logprobs_N=np.asarray(request.logprobs, np.float32),
            versions_N=np.asarray(request.versions, np.int32),
            finish=request.finish,
            sampling=request.context.sampling,
        )


def load(folder: str | Path, *, dtype: str = "float32", device: str = "cpu") -> tuple[Any, Any]:
    """Return the causal language model and the tokenizer of a model folder.

    Raises:
        MissingExtraError: transformers is not installed.
        ConfigError: the folder holds no model that transformers can read, or there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("model.device: found 'cuda', and torch finds no NVIDIA GPU here; `agentgym doctor` says more")
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise missing_extra("train", "transformers", "the embedded policy") from error
    if not (Path(folder) / "config.json").is_file():
        raise ConfigError(f"'{folder}' is no model folder: it has no config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"'{folder}' holds no causal language model that can be read: {error}") from error
    return model.to(device).eval(), tokenizer


__all__ = ["Decoder", "EmbeddedPolicy", "SlotCache", "load"]
