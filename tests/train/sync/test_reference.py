"""A frozen model to measure the divergence from: another folder, or a server's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentgym.config import RunConfig, build
from agentgym.errors import ConfigError, PolicyError
from agentgym.policy.token_protocol import COMPLETIONS
from agentgym.train.batch import rows
from agentgym.train.reference import reference
from agentgym.train.sync.canary import sequence_logprobs
from agentgym.train.sync.fake_vllm import FakeVllm, Fault

from .conftest import make_trained


def config(named: str | None, **overrides: Any) -> RunConfig:
    data = {"train": {"kl": 0.1} | ({"reference": named} if named else {}), "model": {"max_context": 256}}
    return build(data, overrides)


@pytest.fixture
def played(tied: Any) -> list[Any]:
    from tests.train.conftest import trajectory

    vocabulary = len(tied.tokenizer)
    return [row for i in range(3) for row in rows(trajectory(seed=i, name=f"g/{i}", vocabulary=vocabulary))]


def test_a_server_scores_what_was_written(tied: Any, fake: FakeVllm, played: list[Any]) -> None:
    async def work() -> list[Any]:
        async with reference(config(fake.url), tied.model, tied.tokenizer) as found:
            assert found.model == "rows"
            return await found.remember(played)

    for row in asyncio.run(work()):
        wanted = np.where(row.mask_N, sequence_logprobs(tied.model, row.ids_N), np.nan)
        np.testing.assert_allclose(row.reference_N, wanted, atol=1e-5)


def test_a_server_out_of_order_is_named(tied: Any, fake: FakeVllm, played: list[Any]) -> None:
    async def work() -> None:
        async with reference(config(fake.url), tied.model, tied.tokenizer) as found:
            fake.faults[COMPLETIONS] = [Fault.ERROR]
            await found.remember(played)

    with pytest.raises(PolicyError, match=f"POST {fake.url}{COMPLETIONS} was answered by 500"):
        asyncio.run(work())


def test_a_folder_is_read(tied: Any, played: list[Any], tmp_path: Path) -> None:
    async def work(named: str) -> Any:
        async with reference(config(named), tied.model, tied.tokenizer) as found:
            assert await found.remember(played) == played
            return found.model

    assert asyncio.run(work(str(tied.folder))).config.vocab_size == len(tied.tokenizer)
    other = make_trained(tmp_path / "other")
    other.model.resize_token_embeddings(99)
    other.model.save_pretrained(str(other.folder))
    with pytest.raises(ConfigError, match=rf"train.reference: '{other.folder}' has a vocabulary of 99"):
        asyncio.run(work(str(other.folder)))


def test_a_folder_that_reads_other_tokens_is_refused(tied: Any, tmp_path: Path) -> None:
    twin = make_trained(tmp_path / "other")
    words = tied.tokenizer.get_vocab()
    swapped = {"open": words["take"], "take": words["open"]}
    other = json.loads((twin.folder / "tokenizer.json").read_text())
    other["model"]["vocab"] |= swapped
    (twin.folder / "tokenizer.json").write_text(json.dumps(other))

    async def work() -> None:
        async with reference(config(str(twin.folder)), tied.model, tied.tokenizer):
            pass

    with pytest.raises(ConfigError, match=rf"train.reference: '{twin.folder}' has another tokenizer"):
        asyncio.run(work())


def test_a_server_needs_room_for_the_token_that_it_writes_when_it_scores(tied: Any, tmp_path: Path) -> None:
    async def work(url: str) -> None:
        async with reference(config(url), tied.model, tied.tokenizer):
            pass

    said = "has a context of 256 tokens, the trainer one of 257"
    with FakeVllm(tied.folder, max_model_len=256) as server, pytest.raises(ConfigError, match=said):
        asyncio.run(work(server.url))


def test_without_a_name_it_is_where_the_run_starts(tied: Any) -> None:
    async def work() -> Any:
        async with reference(config(None), tied.model, tied.tokenizer) as found:
            return found.model

    assert asyncio.run(work()) == "start"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"train.reference": "x"}, "train.reference: found 'x'; allowed: left out without train.kl"),
        (
            {"train.reference": "http://x", "train.kl": 0.1, "policy.temperature": 0.7},
            "policy.temperature: found 0.7; allowed: 1 with a served reference",
        ),
        ({"train.autocast": True, "model.dtype": "bfloat16"}, "train.autocast: found true; allowed: false"),
        ({"model.device": "cuda", "deterministic": True}, "deterministic: found true; allowed: false"),
    ],
)
def test_what_cannot_be_is_refused(data: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build({}, data)


def test_a_run_measures_from_a_server(
    tiny: Callable[..., RunConfig], train_here: Callable[..., Any], tmp_path: Path
) -> None:
    from agentgym.store import read_metrics

    train_here(tmp_path / "first", tiny(train__steps=0))
    model = tmp_path / "first" / "warmstart"
    settings = {"model__path": str(model), "warmstart__episodes": 0, "train__kl": 0.5}
    away = []
    with FakeVllm(model) as server:
        for named in (None, str(model), server.url):
            run = tmp_path / str(len(away))
            train_here(run, tiny(**settings, **({"train__reference": named} if named else {})))
            lines = [line for line in read_metrics(run).records if "kl_reference" in line]
            away.append([line["kl_reference"] for line in lines])
    assert away[0]
    for found in away[1:]:
        assert found == pytest.approx(away[0], abs=1e-5)
