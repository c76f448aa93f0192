"""A policy behind vLLM servers: token in, token out, and every token with the version of the weights that sampled it.

A rollout stays with the server that holds its prefix. What a server says is text to nobody: messages and tool calls are
read here, from the ids, so that the ids stay as they were sampled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import numpy as np

from agentgym.clock import Clock
from agentgym.errors import AgentgymError, PolicyError, UsageError
from agentgym.policy import Context
from agentgym.policy.endpoint import Endpoint
from agentgym.policy.pressure import Concurrency, Pressure, read_pressure
from agentgym.policy.token_protocol import (
    COMPLETIONS,
    GENERATE,
    Answer,
    completion_request,
    generate_request,
    read_completion,
    read_generated,
    read_scores,
    scoring_request,
)
from agentgym.render import History, Renderer, Tokenizer
from agentgym.types import UNKNOWN_VERSION, Floats, Sample, Sampling, TokenIds

HEARTBEAT_S = 5.0
"Between two questions whether a server is alive."
GLANCE_S = 1.0
"Between two looks at how full its cache is."


class ServedPolicy:
    """Asks servers for answers. Open it with ``async with``, once for each event loop it is used in.

    Args:
        servers: all serving the same weights; opened and closed with the policy.
        model: what the servers call it.
        max_context: most tokens of a segment.
        version: of the weights the servers hold now.
        silence_s: a server that does not say for so long that it is alive is given up, and with it all that wait for
            it.
        history: see `Renderer`.
        concurrency: is told how full the servers' caches are, again and again.
        clock: is told when an answer is waited for.
    """

    def __init__(
        self,
        servers: Sequence[Endpoint],
        tokenizer: Tokenizer,
        *,
        model: str,
        max_context: int,
        version: int = UNKNOWN_VERSION,
        silence_s: float = 60.0,
        history: History = "tokens",
        concurrency: Concurrency | None = None,
        clock: Clock | None = None,
    ) -> None:
        if not servers:
            raise UsageError("a served policy needs at least one server")
        self.servers, self.model, self.version = tuple(servers), model, version
        self._renderer = Renderer(tokenizer, history=history)
        self._max_context, self._silence_s, self._concurrency = max_context, silence_s, concurrency
        self._home: dict[str, Endpoint] = {}
        self._read: dict[str, int] = {}
        self._ended = 0
        self._spans = True
        self._opened = AsyncExitStack()
        self._watches: list[asyncio.Task[None]] = []
        self._clock, self._tokens = clock or Clock(), np.zeros(2, np.int64)

    async def __aenter__(self) -> ServedPolicy:
        async with AsyncExitStack() as opened:
            for server in self.servers:
                await opened.enter_async_context(server)
            known = [await server.knows(GENERATE, deadline_s=self._silence_s) for server in self.servers]
            self._opened = opened.pop_all()
        self._spans = all(known)
        self._watches = [asyncio.create_task(self._watch(server)) for server in self.servers]
        if self._concurrency is not None:
            self._watches.append(asyncio.create_task(self._watch_caches(self._concurrency)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for watch in self._watches:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        await self._opened.aclose()

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
        """Tokens read for the first time and tokens sampled so far."""
        return int(self._tokens[0]), int(self._tokens[1])

    @property
    def alive(self) -> list[Endpoint]:
        """The servers that are not given up.

        Raises:
            PolicyError: all are.
        """
        alive = [server for server in self.servers if not server.lost]
        if not alive:
            raise PolicyError("; ".join(server.lost for server in self.servers))
        return alive

    @property
    def tells_versions(self) -> bool:
        """Whether the servers say which weights sampled each token."""
        return self._spans

    def update(self, version: int) -> None:
        """Say that all servers hold the weights of ``version`` now."""
        self.version = version

    def begin(self, rollout_id: str) -> None:
        """A rollout starts: it is given to the server that has the fewest."""
        taken = [sum(home is server for home in self._home.values()) for server in self.servers]
        alive = [(n, i) for i, n in enumerate(taken) if not self.servers[i].lost] or [(0, 0)]
        self._home[rollout_id] = self.servers[min(alive)[1]]

    def end(self, rollout_id: str) -> None:
        """A rollout is over."""
        self._ended += self._home.pop(rollout_id, None) is not None
        self._read.pop(rollout_id, None)

    async def act(self, context: Context, tools: tuple[dict[str, Any], ...] = ()) -> Sample:
        """Sample an answer to ``context.token_ids_N``; see `Policy.act`."""
        if context.rollout_id not in self._home:
            self.begin(context.rollout_id)
        answer = await self._answer(self._home[context.rollout_id], context)
        if answer.finish == "abort":
            raise PolicyError(f"the server at {self._home[context.rollout_id].url} broke the answer off")
        known = self._read.get(context.rollout_id, 0)
        self._read[context.rollout_id] = len(context.token_ids_N) + len(answer.token_ids_N)
        self._tokens += (max(0, len(context.token_ids_N) - known), len(answer.token_ids_N))
        assert answer.versions_N is not None
        return Sample(
            message=self._renderer.message(answer.token_ids_N),
            token_ids_N=answer.token_ids_N,
            logprobs_N=answer.logprobs_N,
            versions_N=answer.versions_N,
            finish=answer.finish,
            sampling=context.sampling,
        )

    async def logprobs(self, token_ids_N: TokenIds) -> Floats:
        """Return log-probabilities (N,) of each token given those before it; the first is NaN."""
        return await self.score(self.servers[0], token_ids_N, deadline_s=self._silence_s)

    async def score(self, server: Endpoint, ids: TokenIds, *, deadline_s: float) -> Floats:
        """Return log-probabilities (N,) of ``ids`` as one of the servers has them; the first is NaN."""
        answer = await server.ask(COMPLETIONS, scoring_request(self.model, ids), deadline_s=deadline_s)
        return read_scores(answer, ids, where=server.url)

    async def sample(
        self, server: Endpoint, ids: TokenIds, sampling: Sampling, *, seed: int, eos_id: int | None, deadline_s: float
    ) -> Answer:
        """Return what one of the servers goes on with after ``ids``.

        Where the server does not tell versions, the answer is of the version that was served before and after it; if
        that changed meanwhile it is of none that is known.
        """
        before = self.version
        if self._spans:
            body = generate_request(ids, sampling, seed=seed, eos_id=eos_id)
            return read_generated(await server.ask(GENERATE, body, deadline_s=deadline_s), where=server.url)
        body = completion_request(self.model, ids, sampling, seed=seed, eos_id=eos_id)
        answer = read_completion(await server.ask(COMPLETIONS, body, deadline_s=deadline_s), where=server.url)
        version = before if before == self.version else UNKNOWN_VERSION
        told = np.full(len(answer.token_ids_N), version, np.int32)
        return Answer(answer.token_ids_N, answer.logprobs_N, told, answer.finish)

    async def _answer(self, server: Endpoint, context: Context) -> Answer:
        try:
            with self._clock("decode"):
                return await self.sample(
                    server,
                    context.token_ids_N,
                    context.sampling,
                    seed=context.seed,
                    eos_id=self._renderer.eos_id,
                    deadline_s=context.deadline_s,
                )
        except PolicyError:
            # A server whose engine died fails at once: with the fewest rollouts it would get all that are tried again.
            await self._feel_pulse(server)
            raise

    async def _watch(self, server: Endpoint) -> None:
        """Ask the server every few seconds whether it is alive; give it up when it is not."""
        while not server.lost:
            await asyncio.sleep(min(HEARTBEAT_S, self._silence_s))
            await self._feel_pulse(server)

    async def _watch_caches(self, concurrency: Concurrency) -> None:
        """Tell ``concurrency`` every second how full the caches are."""
        while True:
            said = await asyncio.gather(*(self._pressure(server) for server in self.servers))
            told = [(url, pressure) for url, pressure in said if pressure is not None]
            concurrency.observe(told, under_way=len(self._home), ended=self._ended)
            await asyncio.sleep(GLANCE_S)

    async def _pressure(self, server: Endpoint) -> tuple[str, Pressure | None]:
        try:
            text = await server.text("/metrics", deadline_s=self._silence_s)
        except AgentgymError:  # whether it is alive is asked elsewhere
            text = None
        return server.url, read_pressure(text or "")

    async def _feel_pulse(self, server: Endpoint) -> None:
        try:
            await server.call("GET", "/health", deadline_s=self._silence_s)
        except AgentgymError as error:
            if not server.lost:
                server.give_up(f"the server at {server.url} is given up: {error}")


__all__ = ["GLANCE_S", "HEARTBEAT_S", "ServedPolicy"]
