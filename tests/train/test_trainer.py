from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import RunConfig
from agentgym.errors import ConfigError, StoredRunError
from agentgym.store import RunFolder, read_episodes, read_metrics, read_summary

torch = pytest.importorskip("torch")
pytest.importorskip("textworld")

from safetensors.torch import load_file  # noqa: E402

from agentgym.policy.embedded import load  # noqa: E402
from agentgym.train.advantage import ESTIMATORS  # noqa: E402
from agentgym.train.trainer import Trainer  # noqa: E402

pytestmark = pytest.mark.timeout(600)

Tiny = Callable[..., RunConfig]
Train = Callable[[Path, RunConfig], dict[str, Any]]
PROMISED = {"success_before", "success_after", "episodes", "steps", "wall_s", "seed"}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Runs set the number of torch's threads; leave it as it was."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def weights(path: Path, name: str = "model") -> dict[str, Any]:
    return load_file(path / name / "model.safetensors")  # type: ignore[no-any-return]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lines(path: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in read_metrics(path).records if line["kind"] == kind]


@pytest.fixture(scope="module")
def reference(tiny: Tiny, train_here: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny configuration that nothing disturbed; read it only."""
    path = tmp_path_factory.mktemp("reference")
    train_here(path, tiny())
    return path


# ------------------------------------------------------------------------------------------------- what it leaves


def test_a_run_leaves_what_the_readme_promises(reference: Path) -> None:
    summary = read_summary(reference)
    assert summary is not None
    assert summary.keys() >= PROMISED
    assert (summary["steps"], summary["seed"], summary["episodes"]) == (2, 10, 2 * 4 * 4)
    assert 0 <= summary["success_before"] <= 1
    assert 0 <= summary["success_after"] <= 1
    assert summary["wall_s"] > 0
    kinds = [(line["kind"], line["step"]) for line in read_metrics(reference).records]
    assert kinds == [
        *(("pretrain", epoch) for epoch in (1, 2)),
        *(("warmstart", epoch) for epoch in range(1, 9)),
        ("eval_before", 0),
        ("train", 1),
        ("train", 2),
        ("eval_during", 2),
        ("eval_after", 0),
    ]
    for name in ("init", "warmstart", "model"):
        model, tokenizer = load(reference / name)
        assert model.config.vocab_size == len(tokenizer)
    assert not list(reference.glob(".*partial*"))
    assert not same(weights(reference, "init"), weights(reference, "warmstart"))
    assert not same(weights(reference, "warmstart"), weights(reference))


def test_episodes_hold_the_tokens_that_were_trained_on(reference: Path) -> None:
    episodes = read_episodes(reference, tokens=True)
    assert episodes.torn_bytes == 0
    assert [episode.step for episode in episodes.records] == [1] * 16 + [2] * 16
    ids = [episode.trajectory.id for episode in episodes.records]
    assert len(set(ids)) == len(ids)
    for step in (1, 2):
        (metrics,) = (line for line in lines(reference, "train") if line["step"] == step)
        at = [episode for episode in episodes.records if episode.step == step]
        versions = {int(v) for e in at for turn in e.trajectory.turns for v in turn.sample.versions_N}
        assert versions == {step - 1}
        assert metrics["episodes"] == len(at)
        assert metrics["return"] == pytest.approx(sum(e.paid["total"] for e in at) / len(at))


def test_the_rollouts_scored_again_are_what_they_were_sampled_as(reference: Path) -> None:
    for line in lines(reference, "train"):
        assert line["kl_sampler"] == pytest.approx(0.0, abs=1e-5)
        assert line["clip_fraction"] == 0.0


# ----------------------------------------------------------------------------------------------------- estimators


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_every_estimator_trains(tiny: Tiny, train_here: Train, tmp_path: Path, name: str) -> None:
    config = tiny(
        train__advantage=name, train__steps=1, train__kl=0.01, train__entropy=0.01, eval__every=0, pretrain__plays=0,
        train__epochs=2, train__minibatches=2,
    )  # fmt: skip
    summary = train_here(tmp_path, config)
    assert summary.keys() >= PROMISED
    assert read_summary(tmp_path) is not None
    (step,) = lines(tmp_path, "train")
    assert step["episodes"] == summary["episodes"] == 16
    assert step["grad_norm"] > 0
    assert step["kl_reference"] >= 0
    assert ("value_loss" in step) == (name == "gae")
    assert len(read_episodes(tmp_path).records) == 16
    assert not same(weights(tmp_path, "warmstart"), weights(tmp_path))


def test_the_weight_of_states_and_of_failures_reach_the_loss(
    reference: Path, tiny: Tiny, train_here: Train, tmp_path: Path
) -> None:
    """Without its states GiGPO is leave-one-out, and a factor of 1 tones nothing down: to the bit, and not else."""
    start = {"model__path": str(reference / "warmstart"), "warmstart__episodes": 0, "train__steps": 1, "eval__every": 0}
    runs: dict[str, dict[str, Any]] = {
        "rloo": {"train__advantage": "rloo"},
        "states left out": {"train__advantage": "gigpo_loo", "train__omega": 0.0},
        "states": {"train__advantage": "gigpo_loo"},
        "failures as they are": {"train__advantage": "rloo", "train__negative": {"lambda0": 1.0, "kappa": 0.5}},
        "failures left out": {"train__advantage": "rloo", "train__negative": {"lambda0": 0.0, "kappa": 0.0}},
    }
    for name, settings in runs.items():
        train_here(tmp_path / name, tiny(**start, **settings))
    alike = [name for name in runs if same(weights(tmp_path / name), weights(tmp_path / "rloo"))]
    assert alike == ["rloo", "states left out", "failures as they are"]


@pytest.mark.parametrize("name", ["gae", "reinforce_pp"])
def test_estimators_that_compare_nobody_train_on_single_episodes(
    tiny: Tiny, train_here: Train, tmp_path: Path, name: str
) -> None:
    config = tiny(
        train__advantage=name,
        train__steps=1,
        train__groups=4,
        train__group_size=1,
        eval__every=0,
        pretrain__plays=0,
    )
    assert train_here(tmp_path, config)["episodes"] == 4
    (step,) = lines(tmp_path, "train")
    assert step["groups"] == 4.0


def test_groups_that_teach_nothing_are_counted_and_kept_out_of_the_gradient(
    tiny: Tiny, train_here: Train, tmp_path: Path
) -> None:
    # nobody wins without having been shown how, so that every group is one of equals
    config = tiny(
        reward__recipe="outcome", train__steps=1, eval__every=0, warmstart__episodes=0, train__weight_decay=0.1
    )
    summary = train_here(tmp_path, config)
    (step,) = lines(tmp_path, "train")
    assert step["groups"] == step["groups_without_variance"] == 4.0
    assert step["episodes"] == summary["episodes"] == 16
    assert {"success", "return", "turns", "truncated", "reward/won"} <= step.keys()
    assert "policy_loss" not in step
    assert len(read_episodes(tmp_path).records) == 16
    assert same(weights(tmp_path, "warmstart"), weights(tmp_path))


# ---------------------------------------------------------------------------------------------------- determinism


def test_one_seed_one_run_to_the_bit(reference: Path, tiny: Tiny, train_here: Train, tmp_path: Path) -> None:
    train_here(tmp_path, tiny(env__workers=2))  # who plays which episode decides nothing
    for name in ("init", "warmstart", "model"):
        assert same(weights(tmp_path, name), weights(reference, name)), name
    assert (tmp_path / "tokens.bin").read_bytes() == (reference / "tokens.bin").read_bytes()


class Synchronous:
    """The loop without any machinery: a step's rollouts begin when they are asked for, and are waited for."""

    def __init__(self, start: Callable[[int], Awaitable[Any]], *, lag: int, last: int) -> None:
        assert lag == 0
        self._start = start

    async def of(self, step: int) -> Any:
        return await self._start(step)

    async def aclose(self) -> None: ...


def test_without_lag_the_loop_is_the_synchronous_one_to_the_bit(
    reference: Path, tiny: Tiny, train_here: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentgym.train.trainer.Ahead", Synchronous)
    train_here(tmp_path, tiny())
    assert same(weights(tmp_path), weights(reference))
    assert (tmp_path / "tokens.bin").read_bytes() == (reference / "tokens.bin").read_bytes()
    timed = ("wall_s", "step_s", "tokens_per_s")

    def numbers(path: Path) -> list[dict[str, Any]]:
        kept = [{k: v for k, v in line.items() if k not in timed and "/" not in k} for line in lines(path, "train")]
        return [{name: value for name, value in line.items() if value == value} for line in kept]  # NaN is not itself

    assert numbers(tmp_path) == numbers(reference)
    assert numbers(reference)


def test_another_seed_is_another_run(reference: Path, tiny: Tiny, train_here: Train, tmp_path: Path) -> None:
    train_here(tmp_path, tiny(seed=4))
    assert not same(weights(tmp_path, "init"), weights(reference, "init"))
    assert not same(weights(tmp_path), weights(reference))


def test_a_run_extended_is_what_it_would_have_been(tiny: Tiny, train_here: Train, tmp_path: Path) -> None:
    """``train.steps`` may rise; with all training tasks in use from the start the longer run is the same one."""
    settings = {"train__groups": 8, "train__group_size": 2, "eval__every": 0, "pretrain__plays": 0}
    once, twice = tmp_path / "once", tmp_path / "twice"
    train_here(once, tiny(train__steps=2, **settings))
    train_here(twice, tiny(train__steps=1, **settings))
    first = weights(twice)
    with RunFolder.resume(twice) as folder:
        summary = asyncio.run(Trainer(tiny(train__steps=2, **settings), folder).train())
    assert summary["steps"] == 2
    assert summary["episodes"] == 32
    assert not same(weights(twice), first)
    assert same(weights(twice), weights(once))


# ------------------------------------------------------------------------------------------------ other beginnings


def test_a_models_own_folder_trains(reference: Path, tiny: Tiny, train_here: Train, tmp_path: Path) -> None:
    config = tiny(model__path=str(reference / "warmstart"), warmstart__episodes=0, train__steps=1, eval__every=0)
    train_here(tmp_path, config)
    assert not (tmp_path / "init").exists()
    assert not lines(tmp_path, "pretrain")
    assert not lines(tmp_path, "warmstart")
    assert same(weights(tmp_path, "warmstart"), weights(reference, "warmstart"))
    assert not same(weights(tmp_path), weights(reference, "warmstart"))
    assert load(tmp_path / "model")[1].encode("open the box") == load(reference / "init")[1].encode("open the box")


def test_imitation_alone_is_a_run(tiny: Tiny, train_here: Train, tmp_path: Path) -> None:
    summary = train_here(tmp_path, tiny(train__steps=0, warmstart__max_epochs=1))
    assert (summary["steps"], summary["episodes"]) == (0, 0)
    assert summary["success_before"] == summary["success_after"]
    assert same(weights(tmp_path, "warmstart"), weights(tmp_path))


def test_a_rate_that_leads_nowhere_is_named(tiny: Tiny, train_here: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pretrain.lr: with 1e\+15 the held-out loss is not a number"):
        train_here(tmp_path, tiny(pretrain__lr=1e15))


# ------------------------------------------------------------------------------------------------------- damage


def test_half_a_model_folder_is_made_anew(reference: Path, tiny: Tiny, train_here: Train, tmp_path: Path) -> None:
    (tmp_path / ".init.partial").mkdir()
    (tmp_path / ".init.partial" / "config.json").write_text("{}")
    with RunFolder.create(tmp_path, tiny()):
        pass
    train_here(tmp_path, tiny())
    assert same(weights(tmp_path), weights(reference))


def test_a_run_whose_checkpoints_are_all_damaged_is_left_as_it_is(
    tiny: Tiny, train_here: Train, tmp_path: Path
) -> None:
    config = tiny(train__steps=1, eval__every=0, pretrain__plays=0)
    train_here(tmp_path, config)
    for state in (tmp_path / "checkpoints").glob("*/state.pt"):
        state.write_bytes(b"")
    before = (tmp_path / "episodes.jsonl").read_bytes()
    with pytest.raises(StoredRunError, match=r"no checkpoint of .* can be read; .*step-0.*start a new run"):
        train_here(tmp_path, config)
    assert (tmp_path / "episodes.jsonl").read_bytes() == before
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] == 1
