"""The engine that answers while the learner learns: in this process, or behind servers that are handed the weights."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agentgym.clock import Clock
from agentgym.config import RunConfig
from agentgym.errors import ConfigError, InfrastructureError
from agentgym.policy import Policy
from agentgym.policy.checks import check_server
from agentgym.policy.embedded import EmbeddedPolicy
from agentgym.policy.endpoint import Endpoint
from agentgym.policy.pressure import Concurrency
from agentgym.policy.served import ServedPolicy
from agentgym.policy.server import Server, Serving, close_all, find_interpreter
from agentgym.policy.token_protocol import GENERATE
from agentgym.render import Renderer
from agentgym.train.factory import save
from agentgym.train.sync import InProcessSync, Metrics, WeightSync
from agentgym.train.sync.canary import TOLERANCE, Canary
from agentgym.train.sync.file import FileSync


class LearningPolicy(Policy, Protocol):
    """A policy whose weights are learnt."""

    @property
    def renderer(self) -> Renderer:
        """How messages become tokens."""

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens read and tokens sampled so far."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Who answers, and how new weights get there."""

    policy: LearningPolicy
    sync: WeightSync
    concurrency: Concurrency | None = None
    "How many episodes the servers bear; None: as many as are configured."

    def limit(self) -> int:
        """Return how many episodes may be in flight, as far as the engine is concerned."""
        return self.concurrency.limit if self.concurrency else sys.maxsize

    def metrics(self) -> Metrics:
        """Return how full the servers' caches are, and how many episodes they are thought to bear."""
        if self.concurrency is None:
            return {}
        return {"kv_cache": self.concurrency.fullest(), "concurrency": float(self.concurrency.limit)}


class Engines:
    """Makes the engine a run is configured for. Servers are launched when they are first needed and kept.

    Args:
        folder: of the run; the servers' logs and the model they start from lie in it.
        say: is told what a person has to wait for.
        clock: of the run.
    """

    def __init__(self, config: RunConfig, folder: Path, say: Callable[[str], None], clock: Clock) -> None:
        self._config, self._folder, self._say, self._clock = config, folder / "served", say, clock
        self._servers: dict[int, Server] = {}
        "Those of the run, by number."

    @property
    def _dtype(self) -> str:
        """Number format that is served."""
        computed = "bfloat16" if self._config.train.autocast else self._config.model.dtype
        return self._config.policy.vllm.dtype or computed

    def close(self) -> None:
        """End the servers. Twice is fine."""
        close_all(list(self._servers.values()))
        self._servers = {}

    @asynccontextmanager
    async def open(self, model: Any, tokenizer: Any, *, version: int) -> AsyncIterator[Engine]:
        """Give the engine, holding ``model``'s weights as ``version``.

        Raises:
            ConfigError: there is no vLLM to launch, or a server serves another model, tokenizer or context.
            InfrastructureError: a server does not start, or does not take the weights.
        """
        if self._config.policy.engine == "embedded":
            embedded = EmbeddedPolicy(
                model,
                tokenizer,
                max_context=self._config.model.max_context,
                version=version,
                lockstep=self._config.deterministic,
                history=self._config.policy.history,
                clock=self._clock,
            )
            try:
                yield Engine(embedded, InProcessSync(embedded))
            finally:
                embedded.close()
            return
        config = self._config.policy.vllm
        endpoints = [Endpoint(url) for url in config.urls] or await self._launched(model, tokenizer)
        name = await self._check(endpoints, tokenizer)
        concurrency = Concurrency(self._config.env.concurrency)
        policy = ServedPolicy(
            endpoints,
            tokenizer,
            model=name,
            max_context=self._config.model.max_context,
            silence_s=config.silence_s,
            history=self._config.policy.history,
            concurrency=concurrency,
            clock=self._clock,
        )
        tolerance = TOLERANCE[self._dtype] if config.canary_tolerance is None else config.canary_tolerance
        canary = Canary(
            model,
            max_context=self._config.model.max_context,
            tolerance=tolerance,
            temperature=self._config.policy.temperature,
        )
        async with policy, self._last_words():
            self._check_versions(policy)
            sync = FileSync(policy, model, folder=Path(config.folder), deadline_s=config.sync_deadline_s, canary=canary)
            await sync.push(version)
            yield Engine(policy, sync, concurrency)

    def check_history(self, tokenizer: Any) -> None:
        """Say whether turns are rows of their own.

        Raises:
            ConfigError: they are, and the configuration has something that needs them in one.
        """
        renderer = Renderer(tokenizer, history=self._config.policy.history)
        if not renderer.rewrites:
            return
        train = self._config.train
        whole = {
            "train.advantage": train.advantage == "gae",
            "train.loss": train.loss == "gspo_trajectory",
            "train.correction_level": train.correction != "none" and train.correction_level == "trajectory",
        }
        for key in (key for key, needs in whole.items() if needs):
            found = getattr(train, key.removeprefix("train."))
            raise ConfigError(f"{key}: '{found}' needs a trajectory in one row, but {renderer.rewrites}")
        self._say(f"each turn is a row of its own: {renderer.rewrites}")

    def _check_versions(self, policy: ServedPolicy) -> None:
        """Refuse to run ahead where nobody would know which weights sampled an answer that a sync fell into."""
        if (lag := self._config.train.max_lag) and not policy.tells_versions:
            where = ", ".join(server.url for server in policy.servers)
            raise ConfigError(
                f"train.max_lag: found {lag}; allowed: 0 with servers that do not say which weights sampled a token; "
                f"not all of {where} have {GENERATE}: start them with --enable-scale-out"
            )

    @asynccontextmanager
    async def _last_words(self) -> AsyncIterator[None]:
        """Add to an error what servers of ours that ended meanwhile said last."""
        try:
            yield
        except InfrastructureError as error:
            for server in self._servers.values():
                if not server.alive:
                    error.add_note(f"vLLM ended: {server.last_words()} (all of it in '{server.log}')")
            raise

    async def _launched(self, model: Any, tokenizer: Any) -> list[Endpoint]:
        """Return the run's own servers; those that are not there yet, or not any more, are launched."""
        config = self._config.policy.vllm
        for number in [n for n, server in self._servers.items() if not server.alive or server.endpoint.lost]:
            self._servers.pop(number).close()
        missing = [number for number in range(config.servers) if number not in self._servers]
        if missing:
            interpreter = find_interpreter(config.python)
            save(model, tokenizer, self._folder / "model")
            serving = Serving(
                model=str(self._folder / "model"),
                max_context=self._config.model.max_context,
                dtype=self._dtype,
                concurrency=self._config.env.concurrency,
                threads=self._config.threads,
                options=config.options,
            )
            self._say(f"vLLM {interpreter.version} starts, under {interpreter.path}")
            for number in missing:
                self._servers[number] = Server(interpreter, serving, self._folder / f"server-{number}.log")
            await asyncio.gather(*(self._servers[n].ready(deadline_s=config.start_deadline_s) for n in missing))
        return [server.endpoint for server in self._servers.values()]

    async def _check(self, endpoints: list[Endpoint], tokenizer: Any) -> str:
        """Return what all servers call the model; see `check_server`.

        Raises:
            ConfigError: they call it by different names.
        """
        renderer = Renderer(tokenizer, history=self._config.policy.history)
        limit_s = self._config.policy.vllm.sync_deadline_s
        names = []
        for endpoint in endpoints:
            async with endpoint:
                names.append(
                    await check_server(
                        endpoint, renderer, max_context=self._config.model.max_context, deadline_s=limit_s
                    )
                )
        if len(set(names)) > 1:
            said = ", ".join(f"'{name}' at {endpoint.url}" for name, endpoint in zip(names, endpoints, strict=True))
            raise ConfigError(f"policy.vllm.urls: the servers call the model differently: {said}")
        return names[0]


__all__ = ["Engine", "Engines", "LearningPolicy"]
