"""The served policy against a server that misbehaves on request, and the start-up checks."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentgym.errors import ConfigError, DeadlineError, PolicyError, UsageError
from agentgym.policy import Context
from agentgym.policy.checks import check_server
from agentgym.policy.endpoint import Endpoint
from agentgym.policy.served import ServedPolicy
from agentgym.policy.token_protocol import COMPLETIONS, GENERATE, read_completion, read_generated, read_scores, versions
from agentgym.render import Renderer
from agentgym.rollout import Request, Rollouts, completed
from agentgym.testing import EchoEnvironment
from agentgym.train.factory import build_model, build_tokenizer, save
from agentgym.train.sync.fake_vllm import FakeVllm, Fault
from agentgym.types import UNKNOWN_VERSION, Sampling, text_message

TEXT = "open the box . take the key from it . what now ? go north . you are in a kitchen ."
CONTEXT = 128
TOKENIZER = build_tokenizer([TEXT], kind="word", vocab_size=128, max_context=CONTEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "model"
    save(build_model(TOKENIZER, layers=1, width=32, heads=2, max_context=CONTEXT, seed=0), TOKENIZER, folder)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[FakeVllm]:
    with FakeVllm(folder) as server:
        server.weights = "0"
        yield server


def context(name: str = "a", *, words: str = "what now ?", seed: int = 0, deadline_s: float = 30.0) -> Context:
    ids = Renderer(TOKENIZER).start([text_message("user", words)])
    return Context(name, 0, (), ids, Sampling(1.0, 6), seed, deadline_s)


def with_policy(work: Callable[[ServedPolicy], Coroutine[Any, Any, None]], *servers: FakeVllm, **settings: Any) -> None:
    async def run() -> None:
        endpoints = [Endpoint(server.url) for server in servers]
        async with ServedPolicy(
            endpoints, TOKENIZER, model="policy", max_context=CONTEXT, **({"version": 0} | settings)
        ) as policy:
            await work(policy)

    asyncio.run(run())


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Fault.ERROR, PolicyError, "was answered by 500: out of order"),
        (Fault.TRUNCATE, PolicyError, "was answered by what is no JSON"),
        (Fault.STALL, DeadlineError, "was not answered within 0.3 s"),
    ],
)
def test_a_fault_is_told_and_the_next_request_is_served(
    server: FakeVllm, fault: Fault, kind: type[Exception], said: str
) -> None:
    async def work(policy: ServedPolicy) -> None:
        server.faults[GENERATE] = [fault]
        with pytest.raises(kind, match=f"POST {re.escape(server.url)}{GENERATE} {said}"):
            await policy.act(context(deadline_s=0.3 if fault is Fault.STALL else 30.0))
        await policy.act(context())

    with_policy(work, server)


def test_a_dropped_connection_is_replaced_once(server: FakeVllm) -> None:
    async def work(policy: ServedPolicy) -> None:
        whole = await policy.act(context())
        server.faults[GENERATE] = [Fault.DROP]
        again = await policy.act(context())
        assert again.token_ids_N.tolist() == whole.token_ids_N.tolist()
        server.faults[GENERATE] = [Fault.DROP, Fault.DROP]
        with pytest.raises(PolicyError, match="was dropped"):
            await policy.act(context())

    with_policy(work, server)


def test_a_server_that_is_gone_is_given_up_with_all_that_wait_for_it(
    server: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentgym.policy.served.HEARTBEAT_S", 0.05)

    async def work(policy: ServedPolicy) -> None:
        server.faults[GENERATE] = [Fault.STALL] * 3
        waiting = [asyncio.create_task(policy.act(context(f"r{i}", deadline_s=600.0))) for i in range(3)]
        await asyncio.sleep(0.1)
        server.faults["/health"] = [Fault.STALL]
        done = await asyncio.gather(*waiting, return_exceptions=True)
        for error in done:
            assert isinstance(error, PolicyError)
            assert "is given up: GET" in str(error)
            assert "/health was not answered within 3 s" in str(error)
        with pytest.raises(PolicyError, match="is given up"):
            await policy.act(context())

    with_policy(work, server, silence_s=3.0)


def test_waits_that_are_over_at_the_same_moment_do_not_keep_the_others(
    server: FakeVllm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with Endpoint(server.url) as endpoint:
            server.faults["/health"] = [Fault.STALL] * 3
            waits = [asyncio.create_task(endpoint.call("GET", "/health", deadline_s=s)) for s in (0.3, 0.3, 60.0)]
            while server.asked["/health"] < 3:
                await asyncio.sleep(0.01)
            time.sleep(0.4)  # a process that was stopped: all deadlines are over when it goes on
            asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, endpoint.give_up, "given up")
            done = await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 30)
            assert all(isinstance(error, PolicyError | DeadlineError) for error in done)
            assert str(done[2]) == "given up"

    asyncio.run(run())


def test_an_engine_that_died_draws_no_rollouts(server: FakeVllm, folder: Path) -> None:
    """vLLM answers 500 at once then: it would have the fewest rollouts, and get every one that is tried again."""
    with FakeVllm(folder) as dead:
        dead.weights = "0"
        dead.faults[GENERATE], dead.faults["/health"] = [None, *[Fault.ERROR] * 99], [Fault.ERROR] * 99

        async def work(policy: ServedPolicy) -> None:
            task = EchoEnvironment().tasks("train")[0]
            asked = [Request(f"g/{i}", "g", task, i, Sampling(1.0, 4)) for i in range(12)]
            rollouts = Rollouts(EchoEnvironment, policy, concurrency=4, retries=1)
            try:
                assert len(completed(await rollouts.run(asked))) == 12
            finally:
                rollouts.close()
            assert policy.alive == [policy.servers[1]]

        with_policy(work, dead, server)


def test_a_connection_that_was_reset_meanwhile_is_replaced_once() -> None:
    """What a server closes while a request is on its way to it is a reset, not an end."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            await reader.readexactly(int(re.findall(r"content-length: (\d+)", head.lower())[0]))
            asked.append(head)
            if len(asked) == 2:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async def run() -> None:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        async with Endpoint(f"http://127.0.0.1:{port}") as endpoint:
            assert [await endpoint.ask("/x", {}, deadline_s=30) for _ in range(2)] == [{}, {}]
        listening.close()
        assert len(asked) == 3

    asyncio.run(run())


def test_nobody_listens() -> None:
    async def run() -> None:
        async with Endpoint("http://127.0.0.1:9") as endpoint:
            with pytest.raises(PolicyError, match="GET http://127.0.0.1:9/health failed"):
                await endpoint.call("GET", "/health", deadline_s=5)

    asyncio.run(run())


def test_an_endpoint_is_opened_first() -> None:
    with pytest.raises(UsageError, match="is not open"):
        asyncio.run(Endpoint("http://127.0.0.1:9").call("GET", "/health", deadline_s=1))


# ----------------------------------------------------------------------------------------------- where, and by what


def test_rollouts_are_spread_and_stay_where_they_are(server: FakeVllm, folder: Path) -> None:
    with FakeVllm(folder) as second:

        async def work(policy: ServedPolicy) -> None:
            for name in "abcd":
                policy.begin(name)
            for name in "abcd":
                await policy.act(context(name))
            assert (server.asked[GENERATE], second.asked[GENERATE]) == (3, 3)  # each was asked once whether it knows it
            for _ in range(4):
                await policy.act(context("a"))
            assert sorted((server.asked[GENERATE], second.asked[GENERATE])) == [3, 7]
            policy.end("a")
            policy.begin("e")
            await policy.act(context("e"))
            assert sorted((server.asked[GENERATE], second.asked[GENERATE])) == [3, 8]

        with_policy(work, server, second)


def test_weights_without_a_number_are_unknown(server: FakeVllm) -> None:
    server.weights = "default"

    async def work(policy: ServedPolicy) -> None:
        assert set((await policy.act(context())).versions_N.tolist()) == {UNKNOWN_VERSION}

    with_policy(work, server)


def test_without_spans_an_answer_over_a_change_is_of_unknown_weights(folder: Path) -> None:
    with FakeVllm(folder, tells_versions=False, step_s=0.05) as server:

        async def work(policy: ServedPolicy) -> None:
            assert set((await policy.act(context())).versions_N.tolist()) == {0}
            asked = asyncio.create_task(policy.act(context()))
            await asyncio.sleep(0.02)
            policy.update(1)
            assert set((await asked).versions_N.tolist()) == {UNKNOWN_VERSION}
            assert set((await policy.act(context())).versions_N.tolist()) == {1}
            assert server.asked[COMPLETIONS] == 3

        with_policy(work, server)


def test_what_is_read_again_is_not_counted_again(server: FakeVllm) -> None:
    async def work(policy: ServedPolicy) -> None:
        first = context("a")
        sample = await policy.act(first)
        assert policy.tokens == (len(first.token_ids_N), len(sample.token_ids_N))
        more = policy.renderer.bridge(sample.finish, [text_message("user", "go north .")])
        ids = np.concatenate([first.token_ids_N, sample.token_ids_N, more])
        again = await policy.act(Context("a", 0, (), ids, Sampling(1.0, 6), 1, 30.0))
        written = len(sample.token_ids_N) + len(again.token_ids_N)
        assert policy.tokens == (len(first.token_ids_N) + len(more), written)
        assert policy._clock.read()["decode"] > 0

    with_policy(work, server)


# ---------------------------------------------------------------------------------------------------- start-up checks


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"version": "0.27.1"}, r"has vLLM 0.27.1; known here: 0.32.\*, 0.33.\*"),
        ({"max_model_len": 64}, r"has a context of 64 tokens, the trainer one of 128: .*--max-model-len 128"),
    ],
)
def test_another_server_is_refused(folder: Path, settings: dict[str, Any], said: str) -> None:
    async def run(server: FakeVllm) -> None:
        async with Endpoint(server.url) as endpoint:
            with pytest.raises(ConfigError, match=said):
                await check_server(endpoint, Renderer(TOKENIZER), max_context=CONTEXT, deadline_s=30)

    with FakeVllm(folder, **settings) as server:
        asyncio.run(run(server))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.ERROR, r"GET {url}/version was answered by 500"),
        (Fault.TRUNCATE, r"GET {url}/version was answered by what is no JSON"),
        (Fault.STALL, r"GET {url}/version was not answered within 1 s"),
        (None, "is no vLLM server that serves a model"),
    ],
)
def test_a_server_that_has_only_half_started_is_named(server: FakeVllm, fault: Fault | None, said: str) -> None:
    async def nothing_yet(body: dict[str, Any]) -> dict[str, Any]:
        return {"data": []}

    async def run() -> None:
        async with Endpoint(server.url) as endpoint:
            whole = said.format(url=re.escape(server.url)) + ".*is it still starting\\? `agentgym serve-policy MODEL`"
            with pytest.raises(PolicyError, match=whole):
                await check_server(endpoint, Renderer(TOKENIZER), max_context=CONTEXT, deadline_s=1 if fault else 30)

    if fault is None:
        server.replies["/v1/models"] = nothing_yet
    server.faults["/version"] = [fault] if fault else []
    asyncio.run(run())


def test_where_nobody_listens_there_is_no_server() -> None:
    async def run() -> None:
        async with Endpoint("http://127.0.0.1:9") as endpoint:
            with pytest.raises(PolicyError, match="no vLLM server answers at http://127.0.0.1:9: GET .* failed"):
                await check_server(endpoint, Renderer(TOKENIZER), max_context=CONTEXT, deadline_s=30)

    asyncio.run(run())


def test_another_tokenizer_is_refused(server: FakeVllm) -> None:
    other = build_tokenizer(["nothing that was said before"], kind="word", vocab_size=128, max_context=CONTEXT)

    async def run() -> None:
        async with Endpoint(server.url) as endpoint:
            assert await check_server(endpoint, Renderer(TOKENIZER), max_context=CONTEXT, deadline_s=30) == "policy"
            server.tokenizer = other
            with pytest.raises(ConfigError, match="has another tokenizer than the trainer"):
                await check_server(endpoint, Renderer(TOKENIZER), max_context=CONTEXT, deadline_s=30)

    asyncio.run(run())


# ------------------------------------------------------------------------------------------------------ reading answers


def generated(**changes: Any) -> dict[str, Any]:
    content = [{"token_id": 5, "logprob": -0.5}, {"token_id": 6, "logprob": -0.25}]
    spans = [{"version": "3", "start": 0, "end": 2}]
    choice = {"token_ids": [5, 6], "logprobs": {"content": content}, "finish_reason": "stop", "weight_versions": spans}
    return {"choices": [choice | changes]}


def test_an_answer_is_read() -> None:
    answer = read_generated(generated(), where="here")
    assert answer.token_ids_N.tolist() == [5, 6]
    assert answer.logprobs_N.tolist() == [-0.5, -0.25]
    assert answer.versions_N is not None
    assert answer.versions_N.tolist() == [3, 3]
    assert answer.finish == "stop"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({}, "answered without a choice"),
        ({"choices": []}, "answered without a choice"),
        (generated(token_ids=[5]), "answered 1 tokens with 2 log-probabilities"),
        (generated(token_ids=[], logprobs={"content": []}), "answered 0 tokens"),
        (generated(logprobs=None), "answered without"),
        (generated(token_ids=None), "answered without"),
        (generated(weight_versions=[{"version": "3"}]), "answered without"),
        (generated(weight_versions=[{"version": "3", "start": 0, "end": "x"}]), "answered without"),
        (generated(finish_reason=None), "does not say how the answer ended: None"),
        (
            generated(logprobs={"content": [{"logprob": float("nan")}, {"logprob": 0.0}]}),
            "a log-probability that is no finite number",
        ),
    ],
)
def test_half_an_answer_is_none(answer: Any, said: str) -> None:
    with pytest.raises(PolicyError, match=f"here .*{said}|here {said}"):
        read_generated(answer, where="here")


def test_a_completion_has_no_versions() -> None:
    choice = {"token_ids": [5], "logprobs": {"token_logprobs": [-1.0]}, "finish_reason": "length"}
    answer = read_completion({"choices": [choice]}, where="here")
    assert (answer.versions_N, answer.finish) == (None, "length")


def test_scores_are_of_the_tokens_asked_for() -> None:
    ids = np.asarray([7, 8, 9], np.int32)
    listed = [None, {"8": {"logprob": -1.0}, "1": {"logprob": -9.0}}, {"9": {"logprob": -2.0}}]
    scores = read_scores({"choices": [{"prompt_logprobs": listed}]}, ids, where="here")
    assert np.isnan(scores[0])
    assert scores[1:].tolist() == [-1.0, -2.0]
    with pytest.raises(PolicyError, match="scored 2 tokens of 3"):
        read_scores({"choices": [{"prompt_logprobs": listed[:2]}]}, ids, where="here")
    with pytest.raises(PolicyError, match="left the score of token '9' out"):
        read_scores({"choices": [{"prompt_logprobs": [*listed[:2], {"1": {"logprob": 0.0}}]}]}, ids, where="here")


def test_tokens_outside_every_span_are_unknown() -> None:
    spans = [{"version": "4", "start": 1, "end": 2}, {"version": "5", "start": 2, "end": 4}]
    assert versions(spans, 5).tolist() == [UNKNOWN_VERSION, 4, 5, 5, UNKNOWN_VERSION]
    assert versions(None, 1).tolist() == [UNKNOWN_VERSION]
