"""Whatever a server does, each rollout ends in exactly one outcome, in time, and nothing of the fault is trained."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from agentgym.errors import InfrastructureError
from agentgym.policy.served import ServedPolicy
from agentgym.policy.token_protocol import GENERATE
from agentgym.rollout import Deadlines, Request, Rollouts
from agentgym.testing import EchoEnvironment
from agentgym.train.batch import rows
from agentgym.train.sync.fake_vllm import FakeVllm, Fault
from agentgym.types import Completed, InfraFailure, Outcome, Sampling

TURN_S, STALLED_TURN_S = 60.0, 6.0
"Deadline of an answer, and where one is to be missed."
RETRIES = 2


def requests(count: int) -> list[Request]:
    task = EchoEnvironment().tasks("train")[0]
    return [Request(f"g/{i}", "g", task, i, Sampling(1.0, 8)) for i in range(count)]


async def play(policy: ServedPolicy, count: int, *, turn_s: float = TURN_S) -> Sequence[Outcome]:
    rollouts = Rollouts(
        EchoEnvironment, policy, concurrency=count, retries=RETRIES, deadlines=Deadlines(60.0, turn_s), give_up_after=99
    )
    try:
        return await rollouts.run(requests(count))
    finally:
        rollouts.close()


def check(outcomes: Sequence[Outcome], version: int) -> dict[str, int]:
    """Count the outcomes; everything that can be trained is of known weights."""
    for outcome in outcomes:
        if isinstance(outcome, Completed):
            rows(outcome.trajectory, version=version)
        else:
            assert isinstance(outcome, InfraFailure)
            assert outcome.cause
    done = sum(isinstance(outcome, Completed) for outcome in outcomes)
    return {"completed": done, "lost": len(outcomes) - done}


@pytest.mark.parametrize("fault", list(Fault))
def test_faults_now_and_then_cost_nothing_but_time(tied: Any, fake: FakeVllm, fault: Fault) -> None:
    async def work() -> dict[str, int]:
        async with tied.served(fake.url) as (policy, sync):
            await sync.push(1)
            fake.faults[GENERATE] = [fault, None, None] * 3
            turn_s = STALLED_TURN_S if fault is Fault.STALL else TURN_S
            return check(await play(policy, 8, turn_s=turn_s), 1)

    assert asyncio.run(work()) == {"completed": 8, "lost": 0}


def test_a_server_out_of_order_loses_every_rollout_in_time(tied: Any, fake: FakeVllm) -> None:
    async def work() -> dict[str, int]:
        async with tied.served(fake.url) as (policy, sync):
            await sync.push(1)
            fake.faults[GENERATE] = [Fault.STALL] * 1000
            return check(await play(policy, 4, turn_s=STALLED_TURN_S), 1)

    began = time.monotonic()
    assert asyncio.run(work()) == {"completed": 0, "lost": 4}
    assert time.monotonic() - began < (RETRIES + 1) * STALLED_TURN_S + 60


@contextmanager
def process(model: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve from another process, which can be killed and stopped."""
    command = [sys.executable, "-m", "agentgym.train.sync.fake_vllm", str(model), "--step-s", "0.02"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server, server.stdout.readline().split()[-1]
        finally:
            server.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_dies_or_stops_takes_what_waited_for_it_along(
    tied: Any, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentgym.policy.served.HEARTBEAT_S", 0.1)

    async def work(server: subprocess.Popen[str], url: str) -> dict[str, int]:
        async with tied.served(url, silence_s=3.0) as (policy, sync):
            await sync.push(1)
            playing = asyncio.create_task(play(policy, 8))
            await asyncio.sleep(0.1)
            os.kill(server.pid, number)
            counts = check(await playing, 1)
            with pytest.raises(InfrastructureError, match=url):
                await sync.push(2)
            return counts

    with process(tied.folder) as (server, url):
        counts = asyncio.run(work(server, url))
    assert counts["lost"] == 8


def test_one_of_two_servers_dies_and_the_run_goes_on_with_the_other(
    tied: Any, fake: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentgym.policy.served.HEARTBEAT_S", 0.1)

    async def work(server: subprocess.Popen[str], url: str) -> dict[str, int]:
        async with tied.served(fake.url, url, silence_s=3.0) as (policy, sync):
            await sync.push(1)
            playing = asyncio.create_task(play(policy, 8))
            await asyncio.sleep(0.1)
            server.kill()
            return check(await playing, 1)

    with process(tied.folder) as (server, url):
        assert asyncio.run(work(server, url)) == {"completed": 8, "lost": 0}
