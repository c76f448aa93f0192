"""Both engines keep the policy's contract: the embedded one, and the served one against the fake server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentgym.policy.contract import PolicyContract
from agentgym.policy.embedded import EmbeddedPolicy
from agentgym.policy.endpoint import Endpoint
from agentgym.policy.served import ServedPolicy
from agentgym.train.factory import build_model, build_tokenizer, save
from agentgym.train.sync.canary import Canary
from agentgym.train.sync.fake_vllm import FakeVllm
from agentgym.train.sync.file import FileSync

TEXT = "open the box . take the key from it . what now ? go north . you are in a kitchen ."
CONTEXT = 256


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any, FakeVllm, Path]]:
    tokenizer = build_tokenizer([TEXT], kind="word", vocab_size=128, max_context=CONTEXT)
    model = build_model(tokenizer, layers=2, width=32, heads=2, max_context=CONTEXT, seed=0)
    folder = tmp_path_factory.mktemp("model")
    save(model, tokenizer, folder / "model")
    with FakeVllm(folder / "model") as server:
        yield model, tokenizer, server, folder


class TestEmbedded(PolicyContract):
    @pytest.fixture(autouse=True)
    def _model(self, served: tuple[Any, Any, FakeVllm, Path]) -> None:
        self.model, self.tokenizer, *_ = served

    @asynccontextmanager
    async def policy(self) -> AsyncIterator[Any]:
        policy = EmbeddedPolicy(self.model, self.tokenizer, max_context=CONTEXT, lockstep=False)
        try:
            yield policy
        finally:
            policy.close()


class TestServed(PolicyContract):
    version = 4

    @pytest.fixture(autouse=True)
    def _server(self, served: tuple[Any, Any, FakeVllm, Path]) -> None:
        self.model, self.tokenizer, self.server, self.folder = served

    @asynccontextmanager
    async def policy(self) -> AsyncIterator[Any]:
        policy = ServedPolicy([Endpoint(self.server.url)], self.tokenizer, model="policy", max_context=CONTEXT)
        async with policy:
            canary = Canary(self.model, max_context=CONTEXT)
            await FileSync(policy, self.model, folder=self.folder, canary=canary).push(self.version)
            yield policy
