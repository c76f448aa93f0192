"""Against a real vLLM server, one for tied and one for untied models: what it samples by is what was trained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentgym.errors import PolicyError
from agentgym.policy import Context
from agentgym.policy.checks import check_server
from agentgym.policy.endpoint import Endpoint
from agentgym.policy.pressure import read_pressure
from agentgym.policy.server import MODEL_NAME, Server, Serving, find_interpreter
from agentgym.train.sync import file as file_sync
from agentgym.train.sync.canary import sequence_logprobs
from agentgym.types import Sampling, text_message

pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.timeout(900)]

CONTEXT = 512
NEAR = 1e-4
"Nats, in float32 on a CPU."
SYNCS = 20


@pytest.fixture(scope="module")
def url(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    serving = Serving(str(trained.folder), CONTEXT, concurrency=16, threads=1)
    server = Server(find_interpreter(), serving, tmp_path_factory.mktemp("log") / "server.log")
    try:
        asyncio.run(server.ready(deadline_s=800))
        yield server.endpoint.url
    finally:
        server.close()


def context(policy: Any, seed: int, *, tokens: int = 16) -> Context:
    ids = policy.renderer.start([text_message("user", "open the box . what now ?")])
    return Context(f"rollout {seed}", 0, (), ids, Sampling(1.0, tokens), seed, 120.0)


def test_it_is_what_it_should_be(trained: Any, url: str, run: Callable[..., None]) -> None:
    async def work() -> None:
        async with trained.served(url) as (policy, _):
            named = await check_server(policy.servers[0], policy.renderer, max_context=CONTEXT, deadline_s=60)
            assert named == MODEL_NAME
            assert policy.tells_versions
            pressure = read_pressure(await policy.servers[0].text("/metrics", deadline_s=60) or "")
            assert pressure is not None
            assert 0 <= pressure.usage <= 1

    run(work)


def test_parity_before_and_after_each_of_twenty_syncs(trained: Any, url: str, run: Callable[..., None]) -> None:
    async def work() -> None:
        async with trained.served(url) as (policy, sync):
            ids = policy.renderer.start([text_message("user", "take the key from it . what now ?")])
            ours = sequence_logprobs(trained.model, ids)
            np.testing.assert_allclose(await policy.logprobs(ids), ours, atol=NEAR)
            for version in range(1, SYNCS + 1):
                before = sequence_logprobs(trained.model, ids)
                trained.learn(version)
                assert np.nanmax(np.abs(before - sequence_logprobs(trained.model, ids))) > 10 * NEAR
                metrics = await sync.push(version)
                assert metrics["canary_probe"] < NEAR
                assert metrics["canary_answer"] < NEAR
                sample = await policy.act(context(policy, version))
                assert set(sample.versions_N.tolist()) == {version}
                prompt = context(policy, version).token_ids_N
                whole = sequence_logprobs(trained.model, np.concatenate([prompt, sample.token_ids_N]))
                np.testing.assert_allclose(sample.logprobs_N, whole[len(prompt) :], atol=NEAR)

    run(work)


def test_an_answer_in_flight_goes_on_and_says_so(trained: Any, url: str, run: Callable[..., None]) -> None:
    async def work() -> None:
        async with trained.served(url) as (policy, sync):
            await sync.push(100)
            prompt = context(policy, 0).token_ids_N
            long = Sampling(1.0, 400)
            asked = asyncio.create_task(
                policy.sample(policy.servers[0], prompt, long, seed=1, eos_id=None, deadline_s=300.0)
            )
            await asyncio.sleep(0.3)
            before = trained.model.state_dict()
            old = {name: weight.clone() for name, weight in before.items()}
            trained.learn(7)
            await sync.push(101)
            answer = await asked
            assert set(answer.versions_N.tolist()) == {100, 101}
            assert (np.diff(answer.versions_N) >= 0).all()
            new = int((answer.versions_N == 100).sum())
            ids = np.concatenate([prompt, answer.token_ids_N])
            after = sequence_logprobs(trained.model, ids)[len(prompt) :]
            trained.model.load_state_dict(old)
            first = sequence_logprobs(trained.model, ids)[len(prompt) :]
            np.testing.assert_allclose(answer.logprobs_N[:new], first[:new], atol=NEAR)
            np.testing.assert_allclose(answer.logprobs_N[new:], after[new:], atol=NEAR)

    run(work)


def test_a_stale_head_is_caught(
    trained: Any, url: str, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = file_sync.write

    def without_head(model: Any, folder: Path, version: int) -> Path:
        from safetensors import safe_open
        from safetensors.torch import save_file

        path = write(model, folder, version)
        with safe_open(path, framework="pt") as held:
            kept = {name: held.get_tensor(name) for name in held.keys() if name != "lm_head.weight"}  # noqa: SIM118
        save_file(kept, path, metadata={"version": str(version)})
        return path

    async def work() -> None:
        async with trained.served(url) as (_, sync):
            await sync.push(200)
            trained.learn(8, size=0.2)
            monkeypatch.setattr(file_sync, "write", without_head)
            with pytest.raises(PolicyError, match=r"does not answer by weights 201: .*head"):
                await sync.push(201)
            monkeypatch.undo()
            await sync.push(202)

    run(work)


def test_a_lost_sync_is_caught(
    trained: Any, url: str, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def only_names_it(self: Any, server: Endpoint, path: Path, version: int) -> float:
        await server.call("POST", "/update_weight_version", {"new_version": str(version)}, deadline_s=60)
        return 0.0

    async def work() -> None:
        async with trained.served(url) as (_, sync):
            await sync.push(300)
            trained.learn(9)
            monkeypatch.setattr(file_sync.FileSync, "_update", only_names_it)
            with pytest.raises(PolicyError, match="does not answer by weights 301"):
                await sync.push(301)
            monkeypatch.undo()
            await sync.push(302)

    run(work)


def test_a_stale_prefix_is_caught(
    trained: Any, url: str, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    post = file_sync.FileSync._post

    async def never_pausing(self: Any, server: Endpoint, path: str, body: Any = None) -> None:
        if not path.startswith(("/pause", "/resume")):
            await post(self, server, path, body)

    async def work() -> None:
        async with trained.served(url) as (_, sync):
            await sync.push(400)
            trained.learn(10, size=0.2)
            monkeypatch.setattr(file_sync.FileSync, "_post", never_pausing)
            with pytest.raises(PolicyError, match="prefix cache is stale"):
                await sync.push(401)
            monkeypatch.undo()
            await sync.push(402)

    run(work)
