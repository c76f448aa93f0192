"""The rows of the fault-injection suite that `test_faults` does not cover, as its script runs them."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def suite(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("faults", root / "benchmarks" / "faults.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["faults"] = module  # where its dataclass looks for its own names
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lab(suite: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return suite.Lab(tmp_path_factory.mktemp("lab"))


def holds(suite: ModuleType, lab: Any, name: str) -> None:
    deadline_s, inject = suite.all_rows()[name]
    row = asyncio.run(suite.tried(name, deadline_s, inject, lab))
    assert row.well, row.said


@pytest.mark.parametrize("name", ["world: SIGKILL", "world: SIGSTOP", "disk: full for the weights"])
def test_a_world_or_a_disk_fails(suite: ModuleType, lab: Any, name: str) -> None:
    holds(suite, lab, name)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name", ["disk: full for checkpoints", "learner: SIGKILL, resumed", "learner: SIGSTOP for 3 s"]
)
def test_a_run_goes_on(suite: ModuleType, lab: Any, name: str) -> None:
    pytest.importorskip("textworld")
    holds(suite, lab, name)


def test_a_row_that_is_wrong_fails(suite: ModuleType, lab: Any) -> None:
    """The suite itself is no mock: what it must catch, it catches."""

    async def wrong_weights(lab: Any, row: Any) -> None:
        from agentgym.train.sync.fake_vllm import FakeVllm

        with FakeVllm(lab.model_folder) as server:
            async with lab.policy(server.url) as (policy, _):
                server._head.mul_(1.5)
                row.count(await suite.play(policy), lab.model, 1)

    row = asyncio.run(suite.tried("wrong", 60.0, wrong_weights, lab))
    assert row.wrong == row.completed > 0
    assert not row.well

    async def hangs(lab: Any, row: Any) -> None:
        await asyncio.Event().wait()

    row = asyncio.run(suite.tried("hangs", 0.1, hangs, lab))
    assert not row.well
    assert any("no hang" in line for line in row.said)

    async def forgets(lab: Any, row: Any) -> None:
        row.count([], lab.model, 1)

    row = asyncio.run(suite.tried("forgets", 5.0, forgets, lab))
    assert not row.well
