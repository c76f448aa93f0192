"""Handing weights over in files, against the fake server: what goes wrong is told, and nothing stays paused."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agentgym.errors import ConfigError, DeadlineError, InfrastructureError, PolicyError
from agentgym.policy.token_protocol import GENERATE
from agentgym.train.sync.canary import Canary
from agentgym.train.sync.fake_vllm import FakeVllm, Fault
from agentgym.train.sync.file import write
from agentgym.train.sync.vllm_plugin import read
from agentgym.types import UNKNOWN_VERSION, Sampling

from .conftest import CONTEXT

Run = Callable[..., None]


def test_every_weight_is_written_under_every_name(trained: Any, tmp_path: Path) -> None:
    held = read(write(trained.model, tmp_path, 3), "3")
    assert set(held) == {name for name, _ in trained.model.named_parameters(remove_duplicate=False)}
    assert torch.equal(held["lm_head.weight"], trained.model.lm_head.weight)
    with pytest.raises(ValueError, match="holds weights of version 3, not 4"):
        read(next(tmp_path.iterdir()), "4")


def test_a_full_disk_is_infrastructure(tied: Any, tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError, match="weights 1 could not be written to"):
        write(tied.model, tmp_path / "none", 1)


def test_twenty_syncs_leave_no_file_behind(tied: Any, fake: FakeVllm, run: Run) -> None:
    async def work() -> None:
        async with tied.served(fake.url) as (policy, sync):
            for version in range(1, 21):
                tied.learn(version)
                metrics = await sync.push(version)
                assert max(metrics["canary_probe"], metrics["canary_answer"]) < 1e-4
                assert (fake.weights, policy.version) == (str(version), version)
        assert [path for path in tied.files.iterdir() if path.suffix == ".safetensors"] == []

    run(work)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("stale_head", "head are stale"), ("lost_sync", "stale or incomplete"), ("stale_prefix", "prefix cache is stale")],
)
def test_the_canary_sings(tied: Any, fake: FakeVllm, run: Run, fault: str, said: str) -> None:
    async def work() -> None:
        async with tied.served(fake.url) as (_, sync):
            await sync.push(1)
            tied.learn(1, size=0.2)
            setattr(fake, fault, True)
            with pytest.raises(PolicyError, match=f"does not answer by weights 2: .*{said}"):
                await sync.push(2)
            setattr(fake, fault, False)
            await sync.push(3)

    run(work)


def test_a_change_below_the_tolerance_that_is_lost_is_caught_too(tied: Any, fake: FakeVllm, run: Run) -> None:
    async def work() -> None:
        async with tied.served(fake.url) as (_, sync):
            await sync.push(1)
            sync._canary.tolerance = 1.0
            tied.learn(1, size=1e-3)
            fake.lost_sync = True
            with pytest.raises(PolicyError, match="nearer to the weights before: the last sync was lost"):
                await sync.push(2)

    run(work)


CALLS = ("/pause", "/start_weight_update", "/update_weights", "/finish_weight_update", "/resume")


@pytest.mark.parametrize(("path", "fault"), [*((path, fault) for path in CALLS for fault in (Fault.ERROR, Fault.DROP))])
def test_a_failed_call_is_told_and_nothing_stays_paused(
    tied: Any, fake: FakeVllm, run: Run, path: str, fault: Fault
) -> None:
    async def work() -> None:
        async with tied.served(fake.url) as (_, sync):
            await sync.push(1)
            tied.learn(1)
            fake.faults[path] = [fault]
            with pytest.raises(PolicyError, match=f"POST .*{path}"):
                await sync.push(2)
            assert fake._running.is_set()
            await sync.push(3)
            assert fake.weights == "3"

    run(work)


def test_a_server_that_says_nothing_is_waited_for_until_the_deadline(tied: Any, fake: FakeVllm, run: Run) -> None:
    async def work() -> None:
        async with tied.served(fake.url) as (_, sync):
            sync._deadline_s = 5.0
            fake.faults["/update_weights"] = [Fault.STALL]
            with pytest.raises(DeadlineError, match="/update_weights was not answered within 5 s"):
                await sync.push(1)
            assert fake._running.is_set()

    run(work)


def test_another_model_is_refused(tied: Any, fake: FakeVllm, run: Run) -> None:
    async def work() -> None:
        fake.model.config.num_hidden_layers = 7
        async with tied.served(fake.url) as (_, sync):
            with pytest.raises(ConfigError, match="num_hidden_layers is 7, not 2"):
                await sync.push(1)

    run(work)


def test_all_servers_get_the_weights_and_one_that_fails_is_named(tied: Any, fake: FakeVllm, run: Run) -> None:
    async def work(second: FakeVllm) -> None:
        async with tied.served(fake.url, second.url) as (_, sync):
            tied.learn(1)
            await sync.push(1)
            assert (fake.weights, second.weights) == ("1", "1")
            second.faults["/update_weights"] = [Fault.ERROR]
            with pytest.raises(PolicyError, match=second.url):
                await sync.push(2)
            assert fake.weights == "2"

    with FakeVllm(tied.folder) as second:
        run(lambda: work(second))


def test_without_generate_there_are_no_spans(tied: Any, run: Run) -> None:
    async def work(server: FakeVllm) -> None:
        async with tied.served(server.url) as (policy, sync):
            assert not policy.tells_versions
            await sync.push(5)
            assert server.asked[GENERATE] == 0

    with FakeVllm(tied.folder, tells_versions=False) as server:
        run(lambda: work(server))


def test_while_servers_change_nobody_says_which_weights_it_was(tied: Any, run: Run) -> None:
    """Without spans: a server that has the new weights already must not be told to have the old ones."""

    async def work(first: FakeVllm, second: FakeVllm) -> None:
        async with tied.served(first.url, second.url) as (policy, sync):
            await sync.push(1)
            finish, held = second.replies["/finish_weight_update"], asyncio.Event()

            async def late(body: dict[str, Any]) -> dict[str, Any]:
                while not held.is_set():
                    await asyncio.sleep(0.01)
                return await finish(body)

            second.replies["/finish_weight_update"] = late
            pushing = asyncio.create_task(sync.push(2))
            while first.weights != "2" or not first._running.is_set():
                await asyncio.sleep(0.01)
            asked = policy.sample(
                policy.servers[0], np.arange(9), Sampling(1.0, 4), seed=0, eos_id=None, deadline_s=60.0
            )
            told = (await asked).versions_N
            held.set()
            await pushing
            assert set(told.tolist()) == {UNKNOWN_VERSION}
            assert policy.version == 2

    with FakeVllm(tied.folder, tells_versions=False) as first, FakeVllm(tied.folder, tells_versions=False) as second:
        run(lambda: work(first, second))


def test_an_update_that_a_killed_trainer_left_open_is_ended(tied: Any, fake: FakeVllm, run: Run) -> None:
    async def work() -> None:
        fake._session = True
        fake._running.clear()
        async with tied.served(fake.url) as (_, sync):
            await sync.push(1)
            assert (fake.weights, fake._running.is_set()) == ("1", True)

    run(work)


def test_files_that_killed_trainers_left_are_removed(tied: Any, fake: FakeVllm, run: Run) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    here = socket.gethostname()
    dead, mine, elsewhere = (
        tied.files / f"agentgym-{host}-{pid}-3.safetensors"
        for host, pid in ((here, ended.pid), (here, os.getpid()), ("elsewhere", ended.pid))
    )
    for path in (dead, mine, elsewhere):
        path.touch()

    async def work() -> None:
        async with tied.served(fake.url) as (_, sync):
            await sync.push(1)

    run(work)
    assert [path.exists() for path in (dead, mine, elsewhere)] == [False, True, True]


def test_a_server_that_is_gone_is_no_wrong_configuration(tied: Any, fake: FakeVllm, run: Run) -> None:
    async def work() -> None:
        async with tied.served(fake.url) as (_, sync):
            fake.faults["/init_weight_transfer_engine"] = [Fault.DROP]
            with pytest.raises(PolicyError, match="/init_weight_transfer_engine was dropped"):
                await sync.push(1)

    run(work)


def test_what_is_no_number_is_within_no_tolerance(tied: Any, fake: FakeVllm, run: Run) -> None:
    async def work() -> None:
        async with tied.served(fake.url) as (_, sync):
            await sync.push(1)
            with torch.no_grad():
                tied.model.get_output_embeddings().weight[5] = math.nan
            sync._canary.expect()
            with pytest.raises(PolicyError, match="differ by up to nan"):
                await sync.check(1)

    run(work)


@pytest.mark.parametrize("raw", [False, True])
def test_log_probabilities_before_the_temperature_are_noticed(tied: Any, fake: FakeVllm, run: Run, raw: bool) -> None:
    async def work() -> None:
        async with tied.served(fake.url) as (_, sync):
            sync._canary = Canary(tied.model, max_context=CONTEXT, tolerance=1e-4, temperature=0.5)
            fake.raw_logprobs = raw
            if not raw:
                await sync.push(1)
                return
            with pytest.raises(PolicyError, match="another --logprobs-mode than processed_logprobs"):
                await sync.push(1)

    run(work)


def test_rollouts_go_on_while_weights_are_written(
    tied: Any, fake: FakeVllm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = 0

    def slow(*arguments: Any) -> Path:
        time.sleep(0.5)
        assert ticks > 5, "the event loop stood still"
        return write(*arguments)

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    async def work() -> None:
        monkeypatch.setattr("agentgym.train.sync.file.write", slow)
        async with tied.served(fake.url) as (_, sync):
            ticking = asyncio.create_task(tick())
            await sync.push(1)
            ticking.cancel()

    run(work)
