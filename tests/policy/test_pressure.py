"""How many episodes a server bears: read from its metrics, followed by steps up and factors down."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from agentgym.policy.pressure import Concurrency, Pressure, read_pressure

METRICS = """
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="policy"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="policy"} 0.5
vllm:num_preemptions_total{engine="0",model_name="policy"} 3.0
vllm:num_preemptions_total{engine="1",model_name="policy"} 4.0
vllm:num_preemptions_created{engine="0",model_name="policy"} 1.7e+09
vllm:num_requests_waiting{engine="0",model_name="policy"} 9.0
"""


def test_the_fullest_engine_and_all_preemptions_are_read() -> None:
    assert read_pressure(METRICS) == Pressure(0.5, 7.0)
    assert read_pressure("process_cpu_seconds_total 3.0\n") is None
    assert read_pressure("") is None


ENDED = [0]


def observed(concurrency: Concurrency, *usages: float, preemptions: float = 0.0) -> list[int]:
    """Return the limits where as many episodes are under way as may be, and all of them end in between."""
    limits = []
    for usage in usages:
        ENDED.append(ENDED[-1] + concurrency.limit)
        concurrency.observe([("a", Pressure(usage, preemptions))], under_way=concurrency.limit, ended=ENDED[-1])
        limits.append(concurrency.limit)
    return limits


def test_it_falls_by_a_fifth_and_rises_by_a_sixteenth() -> None:
    concurrency = Concurrency(100)
    assert concurrency.limit == 100
    assert observed(concurrency, 0.9, 0.95, 0.81) == [80, 64, 51]
    assert observed(concurrency, 0.7, 0.6, 0.8) == [51, 51, 51], "between the bounds it stays"
    assert observed(concurrency, 0.5, 0.1) == [57, 63]
    assert observed(concurrency, *[0.1] * 20)[-1] == 100, "never beyond the most"
    assert observed(concurrency, *[0.99] * 50)[-1] == 1, "never below the least"


def test_an_answer_forgotten_is_pressure_once() -> None:
    concurrency = Concurrency(100)
    assert observed(concurrency, 0.7, preemptions=5.0) == [100], "those of before count for nothing"
    assert observed(concurrency, 0.7, preemptions=6.0) == [80]
    assert observed(concurrency, 0.7, preemptions=6.0) == [80]


def test_the_fullest_server_decides_and_silence_changes_nothing() -> None:
    concurrency = Concurrency(10)
    concurrency.observe([("a", Pressure(0.1, 0)), ("b", Pressure(0.9, 0))], under_way=10, ended=0)
    assert concurrency.limit == 8
    concurrency.observe([], under_way=8, ended=0)
    assert concurrency.limit == 8
    concurrency.observe([("a", Pressure(0.7, 0))], under_way=8, ended=0)
    assert [concurrency.fullest(), concurrency.fullest()] == [0.9, 0.0]


@pytest.mark.parametrize("life", [20, 60, 300])
def test_it_settles_however_long_episodes_are(life: int) -> None:
    """Episodes whose context grows all their life, of which a cache bears a hundred; a glance a second."""
    random, concurrency, ended = np.random.default_rng(0), Concurrency(256), 0
    ages: list[tuple[int, float]] = []
    usages: list[float] = []
    for _ in range(40 * life):
        older = [(age + 1, end) for age, end in ages]
        ages = [(age, end) for age, end in older if age < end]
        ended += len(older) - len(ages)
        while len(ages) < concurrency.limit:
            ages.append((0, life * random.uniform(0.7, 1.3)))
        usages.append(sum(age / end for age, end in ages) / 50)
        said = [("a", Pressure(min(1.0, usages[-1]), 0.0))]
        concurrency.observe(said, under_way=len(ages), ended=ended)
    settled = np.asarray(usages[10 * life :])
    assert (settled > 1).mean() < 0.02, "more than the cache bears"
    assert settled.mean() > 0.5, "a machine half idle"


@pytest.mark.parametrize(("room", "narrow"), [(2**20, False), (200, True)])
def test_episodes_follow_the_cache_of_a_server(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, room: int, narrow: bool
) -> None:
    pytest.importorskip("torch")
    from agentgym.policy.endpoint import Endpoint
    from agentgym.policy.served import ServedPolicy
    from agentgym.rollout import Request, Rollouts, completed
    from agentgym.testing import EchoEnvironment
    from agentgym.train.factory import build_model, build_tokenizer, save
    from agentgym.train.sync.fake_vllm import FakeVllm
    from agentgym.types import Sampling

    monkeypatch.setattr("agentgym.policy.served.GLANCE_S", 0.05)
    tokenizer = build_tokenizer(["say something ."], kind="word", vocab_size=128, max_context=256)
    save(build_model(tokenizer, layers=1, width=32, heads=1, max_context=256, seed=0), tokenizer, tmp_path / "model")
    task = EchoEnvironment().tasks("train")[0]
    asked = [Request(f"g/{n}", "g", task, n, Sampling(1.0, 4)) for n in range(24)]
    concurrency, least = Concurrency(12), 12

    async def work(url: str) -> int:
        nonlocal least
        endpoints = [Endpoint(url)]
        async with ServedPolicy(
            endpoints, tokenizer, model="policy", max_context=256, version=0, concurrency=concurrency
        ) as policy:

            def limit() -> int:
                nonlocal least
                least = min(least, concurrency.limit)
                return concurrency.limit

            rollouts = Rollouts(EchoEnvironment, policy, concurrency=12, limit=limit)
            try:
                return len(completed(await rollouts.run(asked)))
            finally:
                rollouts.close()

    with FakeVllm(tmp_path / "model", step_s=0.01, cache_tokens=room) as server:
        assert asyncio.run(work(server.url)) == 24
    assert (least < 12) == narrow
    assert concurrency.limit >= 1
