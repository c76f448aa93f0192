"""A judge behind any endpoint that speaks OpenAI's chat completions: OpenAI, vLLM, SGLang, llama.cpp and others.

Every call that comes to nothing is made again, with growing waits, until the patience ends; then what was asked about
is unmeasured. A verdict is kept in the cache and never paid for twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Self

from agentgym.errors import ConfigError, JudgeError, UsageError, missing_extra
from agentgym.judge import Question, Verdict
from agentgym.judging.cache import VerdictCache
from agentgym.judging.patience import Patience, uniform
from agentgym.judging.prompt import FENCED, Format
from agentgym.judging.reply import CallFailed, Reply, read_reply
from agentgym.judging.verdict import VerdictSchema

try:
    import aiohttp
except ImportError as error:
    raise missing_extra("judge", "aiohttp", "asking a judge over HTTP") from error

_Messages = list[dict[str, str]]
_JSON = {"Content-Type": "application/json"}
_LONGEST_REPLY = 4 * 2**20
"""Bytes of a response that are read; no verdict is that long."""


@dataclass(frozen=True, slots=True)
class JudgeSampling:
    """How a verdict is drawn."""

    temperature: float = 0.0
    "Above 0 where several samples are to differ."
    top_p: float = 1.0
    max_tokens: int = 2048
    "Room for the reason; a verdict that is cut off is none."
    seed: int | None = 0
    "Each sample and each repeated call derives its own from it. None: none is sent."
    fields: Mapping[str, Any] = field(default_factory=dict)
    "Further fields of the request, such as ``reasoning_effort``; they replace ours, and None leaves one out."


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in any one currency."""

    prompt: float = 0.0
    completion: float = 0.0

    def of(self, reply: Reply) -> float:
        """Return what ``reply`` cost."""
        return (self.prompt * reply.prompt_tokens + self.completion * reply.completion_tokens) / 1e6


@dataclass(slots=True)
class Spent:
    """What a judge was used for so far, calls that came to nothing included."""

    calls: int = 0
    verdicts: int = 0
    from_cache: int = 0
    failures: int = 0
    "Questions without a verdict."
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0


class OpenAIJudge:
    """Asks a model behind ``base_url``. Open it with ``async with``, once for each event loop it is used in.

    Args:
        base_url: up to and with ``/v1``.
        model: as the endpoint calls it. The endpoint is no part of a verdict's identity, the model is.
        api_key: sent as a bearer token.
        revision: what else tells this judge from others of its name, such as a checkpoint.
        sampling: how verdicts are drawn.
        enforce: whether the endpoint is asked to enforce the schema; for those that cannot, say False.
        concurrency: calls at once, at most.
        patience: deadlines and repeated calls.
        prices: of tokens.
        cache: what was asked before.
        form: how questions are written; another than the fenced one is for measuring what the fences are worth.

    Raises:
        ConfigError: an argument that cannot be meant.
        MissingExtraError: the extra ``judge`` is not installed.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = "",
        revision: str = "",
        sampling: JudgeSampling = JudgeSampling(),
        enforce: bool = True,
        concurrency: int = 16,
        patience: Patience = Patience(),
        prices: Prices = Prices(),
        cache: VerdictCache | None = None,
        form: Format = FENCED,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"a judge's base_url starts with http:// or https://; got {base_url!r}")
        if not model or concurrency < 1:
            raise ConfigError(f"a judge needs a model and at least 1 call at once; got {model!r} and {concurrency}")
        self._url, self._headers = base_url.rstrip("/") + "/chat/completions", {}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._model, self._sampling, self._enforce = model, sampling, enforce
        self._concurrency, self._patience, self._prices, self._cache = concurrency, patience, prices, cache
        self._identity = _digest([form.version, model, revision, asdict(sampling), enforce])
        self._form = form
        self._schemas: dict[str, VerdictSchema] = {}
        self._session: aiohttp.ClientSession | None = None
        self._slots = asyncio.Semaphore(concurrency)
        self.spent = Spent()

    @property
    def version(self) -> str:
        """The model's short name and a digest of everything that shapes its verdicts: format, revision, sampling."""
        return f"{'_'.join(self._model.rpartition('/')[2].split())}-{self._identity[:8]}"

    async def __aenter__(self) -> Self:
        if self._session is not None:
            raise UsageError(f"judge '{self.version}' is open already")
        self._slots = asyncio.Semaphore(self._concurrency)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None),  # ours counts the whole call, body included
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
        """Return the verdict number ``sample`` on ``question``, from the cache where it is known.

        Raises:
            JudgeError: there is none; says what came instead, call by call.
            UsageError: the question cannot be put, or the judge is not open.
            StoredRunError: the cache cannot be read or written.
        """
        schema = self._schema(question.schema)
        messages = self._form.write(question)
        key = _digest([self._identity, question.instructions, messages, sample])
        known = self._cache.get(key) if self._cache else None
        if known is not None:
            self.spent.from_cache += 1
            return Verdict(schema.parse(known), cached=True)
        replies: list[Reply] = []
        said = await self._insist(messages, schema, key, sample, replies)
        self.spent.verdicts += 1
        if self._cache:
            said = self._cache.put(key, said)
        return Verdict(
            schema.parse(said),
            cost=sum(map(self._prices.of, replies)),
            prompt_tokens=sum(reply.prompt_tokens for reply in replies),
            completion_tokens=sum(reply.completion_tokens for reply in replies),
        )

    async def _insist(
        self, messages: _Messages, schema: VerdictSchema, key: str, sample: int, replies: list[Reply]
    ) -> str:
        """Return a verdict that is of the schema, from as many calls as patience allows; note every reply."""
        patience, left_s = self._patience, self._patience.total_s
        causes: list[str] = []
        clock = asyncio.get_running_loop().time
        for attempt in range(patience.attempts):
            body = self._body(messages, schema, sample, attempt)
            try:
                async with self._slots:
                    began = clock()
                    try:
                        return await self._call(body, schema, min(patience.call_s, left_s), replies)
                    finally:
                        left_s -= clock() - began
            except CallFailed as failed:
                causes.append(str(failed))
                wait_s = max(patience.wait_s(key, attempt), failed.after_s)
                if not failed.again or attempt + 1 == patience.attempts:
                    break
            if wait_s >= left_s:
                causes[-1] += f" (and a wait of {wait_s:.3g} s does not fit into the {max(left_s, 0):.3g} s left)"
                break
            await asyncio.sleep(wait_s)
            left_s -= wait_s
        self.spent.failures += 1
        earlier = "; ".join(cause for cause in dict.fromkeys(causes) if cause != causes[-1])
        raise JudgeError(
            f"judge '{self.version}' gave no verdict in {len(causes)} call{'s'[: len(causes) > 1]}: {causes[-1]}"
            + (f"; before that: {earlier}" if earlier else "")
        )

    async def _call(self, body: bytes, schema: VerdictSchema, limit_s: float, replies: list[Reply]) -> str:
        """Return the verdict that one call brings.

        Raises:
            CallFailed: it brings none.
        """
        if self._session is None:
            raise UsageError(f"judge '{self.version}' is not open; ask it inside `async with judge:`")
        self.spent.calls += 1
        try:
            async with asyncio.timeout(limit_s):
                async with self._session.post(self._url, data=body, headers=_JSON, allow_redirects=False) as response:
                    received = await _received(response)
        except TimeoutError as error:
            raise CallFailed(f"no answer within {limit_s:.3g} s") from error
        except aiohttp.ClientError as error:
            raise CallFailed(f"out of reach: {type(error).__name__}: {error}") from error
        reply = read_reply(response.status, received, response.headers.get("Retry-After"))
        self._note(reply)
        replies.append(reply)
        text = reply.text()
        try:
            schema.parse(text)
        except JudgeError as error:
            raise CallFailed(str(error)) from error
        return text

    def _note(self, reply: Reply) -> None:
        self.spent.prompt_tokens += reply.prompt_tokens
        self.spent.completion_tokens += reply.completion_tokens
        self.spent.cost += self._prices.of(reply)

    def _body(self, messages: _Messages, schema: VerdictSchema, sample: int, attempt: int) -> bytes:
        """Return the request. A repeated call is seeded anew: the same seed would bring the same useless answer."""
        sampling = self._sampling
        fields: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.seed is not None:
            fields["seed"] = int(uniform(sampling.seed, sample, attempt) * 2**31)
        if self._enforce:
            fields["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "schema": schema.schema, "strict": schema.closed},
            }
        fields |= sampling.fields
        return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()

    def _schema(self, schema: Mapping[str, Any]) -> VerdictSchema:
        """Return the schema, compiled when it is first met."""
        text = json.dumps(schema)
        if text not in self._schemas:
            self._schemas[text] = VerdictSchema(schema)
        return self._schemas[text]


async def _received(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of ``response``, as far as a verdict could go."""
    received = bytearray()
    async for part in response.content.iter_any():
        received += part
        if len(received) > _LONGEST_REPLY:
            raise CallFailed(f"the answer is longer than {_LONGEST_REPLY} bytes")
    return bytes(received)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


__all__ = ["JudgeSampling", "OpenAIJudge", "Prices", "Spent"]
