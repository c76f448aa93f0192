"""The engine that a run is configured for: what it refuses, and servers of its own that died."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentgym import config as configuration
from agentgym.clock import Clock
from agentgym.config import RunConfig
from agentgym.errors import ConfigError
from agentgym.policy.endpoint import Endpoint
from agentgym.train.engine import Engines
from agentgym.train.sync.fake_vllm import FakeVllm

from .conftest import CONTEXT, Trained


def configured(folder: Path, *urls: str, **overrides: Any) -> RunConfig:
    served = {
        "model.path": str(folder / "model"),
        "model.max_context": CONTEXT,
        "train.token_budget": CONTEXT,
        "policy.engine": "vllm",
        "policy.vllm.urls": list(urls),
        "policy.vllm.folder": str(folder),
        "warmstart.episodes": 0,
        "pretrain.plays": 0,
        "deterministic": False,
    }
    return configuration.load("quickstart", served | {key.replace("__", "."): v for key, v in overrides.items()})


def opened(config: RunConfig, trained: Trained, *, times: int = 1) -> None:
    async def work() -> None:
        engines = Engines(config, trained.files / "run", lambda line: None, Clock())
        try:
            for version in range(times):
                async with engines.open(trained.model, trained.tokenizer, version=version):
                    pass
        finally:
            engines.close()

    asyncio.run(work())


def test_running_ahead_takes_servers_that_tell_versions(tied: Any) -> None:
    with FakeVllm(tied.folder, tells_versions=False) as server:
        opened(configured(tied.files, server.url), tied)
        with pytest.raises(ConfigError, match=f"train.max_lag: found 2; allowed: 0 with .*{server.url} .*scale-out"):
            opened(configured(tied.files, server.url, train__max_lag=2), tied)


def test_all_servers_call_the_model_alike(tied: Any, fake: FakeVllm) -> None:
    async def otherwise(body: dict[str, Any]) -> dict[str, Any]:
        return {"data": [{"id": "other", "max_model_len": CONTEXT}]}

    with FakeVllm(tied.folder) as second:
        second.replies["/v1/models"] = otherwise
        with pytest.raises(ConfigError, match=f"'policy' at {fake.url}, 'other' at {second.url}"):
            opened(configured(tied.files, fake.url, second.url), tied)


class Launched:
    """A server that is launched and dies after it was used once, if it is the first of all."""

    made: list[Launched]

    def __init__(self, interpreter: Any, serving: Any, log: Path) -> None:
        self.fake = FakeVllm(serving.model)
        self.fake.__enter__()
        self.endpoint, self.log, self.closed = Endpoint(self.fake.url), log, False
        self.made.append(self)

    @property
    def alive(self) -> bool:
        return not (self is self.made[0] and self.fake.weights != "default")

    async def ready(self, *, deadline_s: float) -> None:
        pass

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.fake.__exit__()


def test_a_server_of_the_run_that_died_is_launched_again(tied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interpreter:
        version = path = "here"

    Launched.made = []
    monkeypatch.setattr("agentgym.train.engine.Server", Launched)
    monkeypatch.setattr("agentgym.train.engine.find_interpreter", lambda asked: Interpreter)
    opened(configured(tied.files, policy__vllm__servers=2), tied, times=2)
    first, second, third = Launched.made
    assert (second.fake.weights, third.fake.weights) == ("1", "1")
    assert first.log == third.log
    assert all(server.closed for server in Launched.made)
