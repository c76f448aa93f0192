"""What the tests of handing weights over share: a tiny model, its folder, and a fake server around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from agentgym.policy.endpoint import Endpoint
from agentgym.policy.served import ServedPolicy
from agentgym.train.factory import build_model, build_tokenizer, save
from agentgym.train.sync.canary import Canary
from agentgym.train.sync.fake_vllm import FakeVllm
from agentgym.train.sync.file import FileSync

TEXT = "open the box . take the key from it . what now ? go north . you are in a kitchen ."
CONTEXT = 512


@dataclass(frozen=True, slots=True)
class Trained:
    """A model as the trainer holds it, and where it was saved."""

    model: Any
    tokenizer: Any
    folder: Path
    files: Path

    def learn(self, seed: int, size: float = 0.05) -> None:
        """Change all weights, each by so much of its own size."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.mul_(1 + size * torch.randn(weight.shape, generator=generator))

    @asynccontextmanager
    async def served(self, *urls: str, **settings: Any) -> AsyncIterator[tuple[ServedPolicy, FileSync]]:
        """Give the policy behind ``urls`` and the way weights get there."""
        endpoints = [Endpoint(url) for url in urls]
        policy = ServedPolicy(endpoints, self.tokenizer, model="policy", max_context=CONTEXT, **settings)
        canary = Canary(self.model, max_context=CONTEXT, tolerance=1e-4)
        async with policy:
            yield policy, FileSync(policy, self.model, folder=self.files, deadline_s=60.0, canary=canary)


def make_trained(folder: Path, *, tied: bool = True) -> Trained:
    tokenizer = build_tokenizer([TEXT], kind="word", vocab_size=128, max_context=CONTEXT)
    model = build_model(tokenizer, layers=2, width=64, heads=2, max_context=CONTEXT, seed=0)
    if not tied:
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone() * 1.5)
    save(model, tokenizer, folder / "model")
    return Trained(model, tokenizer, folder / "model", folder)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(work())


@pytest.fixture(name="run", scope="session")
def _run() -> Callable[[Callable[[], Coroutine[Any, Any, None]]], None]:
    return run


@pytest.fixture(scope="session", params=[True, False], ids=["tied", "untied"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return make_trained(tmp_path_factory.mktemp("trained"), tied=request.param)


@pytest.fixture
def tied(tmp_path: Path) -> Trained:
    return make_trained(tmp_path)


@pytest.fixture
def fake(tied: Trained) -> Iterator[FakeVllm]:
    with FakeVllm(tied.folder) as server:
        yield server
