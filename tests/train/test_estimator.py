"""The estimator that shares the outcome out: where it reads, what it may not see, and that it finds who earned it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentgym.errors import ConfigError, UnknownNameError, UsageError
from agentgym.types import Group, Message, StopReason, Task, Trajectory, Turn, empty_sample, text_message

torch = pytest.importorskip("torch")

from agentgym.train.estimator import EstimatorProbe, Fit, ProgressEstimator, fit, last_tokens, load  # noqa: E402
from agentgym.train.optimizer import optimizers  # noqa: E402

Make = Callable[..., ProgressEstimator]
TAKE, GO = "take the key", "go north"


@pytest.fixture
def make(make_model: Callable[..., Any], tokenizer: Any) -> Make:
    """Make an estimator whose head says something."""

    def make(reads: Any = "hidden", *, seed: int = 0, token_budget: int = 4096) -> ProgressEstimator:
        estimator = ProgressEstimator(make_model(seed), tokenizer, reads=reads, token_budget=token_budget)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            torch.nn.init.normal_(estimator.head.weight)
        return estimator

    return make


def episode(*said: str, name: str = "t") -> Trajectory:
    turns = tuple(
        Turn((text_message("user", "what now ?"),), empty_sample(Message("assistant", one)), np.empty(0, np.int32))
        for one in said
    )
    return Trajectory(name, "g", Task("t", "", 9), turns, (), StopReason.DONE, (), 0)


def adam(estimator: ProgressEstimator, lr: float) -> list[Any]:
    return optimizers(estimator.model, estimator.head, lr=lr, weight_decay=0.0, muon=False)


def shares(estimator: ProgressEstimator, *episodes: Trajectory) -> list[list[float]]:
    with torch.no_grad():
        return [share.tolist() for share in estimator.credit([estimator.read(one) for one in episodes])]


def test_a_turn_ends_where_the_policy_wrote_its_last_token(make: Make):
    row = make().read(episode(GO, TAKE))
    ends = last_tokens(row)
    eos = make().renderer.eos_id
    assert row.ids_N[ends].tolist() == [eos, eos]
    hand = replace(
        row,
        mask_N=np.array([0, 1, 1, 0, 0, 1, 1, 1], bool),
        turn_N=np.array([0, 0, 0, 1, 1, 1, 2, 2], np.int32),  # a third turn that read nothing new
    )
    assert last_tokens(hand).tolist() == [2, 5, 7]


def test_a_turn_without_a_token_has_no_place_for_its_share(make: Make):
    row = make().read(episode(GO, TAKE))
    with pytest.raises(UsageError, match="wrote nothing"):
        last_tokens(replace(row, mask_N=row.mask_N & (row.turn_N == 0)))


def test_before_training_nobody_earned_anything(make_model: Callable[..., Any], tokenizer: Any):
    assert shares(ProgressEstimator(make_model(), tokenizer), episode(GO, TAKE, GO)) == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("reads", ["hidden", "logits"])
def test_the_head_reads_the_last_token_of_each_turn(make: Make, reads: str):
    estimator = make(reads)
    row = estimator.read(episode(GO, TAKE))
    with torch.no_grad():
        whole = estimator.model(input_ids=torch.from_numpy(row.ids_N[None].astype(np.int64)), output_hidden_states=True)
    seen = (whole.hidden_states[-1] if reads == "hidden" else whole.logits)[0]
    weight, bias = estimator.head.weight[0].tolist(), estimator.head.bias.item()
    ends = [place for place, token in enumerate(row.ids_N) if token == estimator.renderer.eos_id and row.mask_N[place]]
    expected = [sum(w * x for w, x in zip(weight, seen[end].tolist(), strict=True)) + bias for end in ends]
    np.testing.assert_allclose(shares(estimator, episode(GO, TAKE))[0], expected, rtol=1e-4, atol=1e-4)


def test_a_share_does_not_change_with_what_comes_later(make: Make):
    estimator = make()
    short, long, other = shares(estimator, episode(GO, TAKE), episode(GO, TAKE, GO), episode(GO, TAKE, TAKE, TAKE))
    np.testing.assert_allclose(short, long[:2], atol=1e-5)
    np.testing.assert_allclose(short, other[:2], atol=1e-5)
    assert abs(shares(estimator, episode(TAKE, TAKE))[0][1] - short[1]) > 1e-4  # what came before does count


def test_shares_do_not_depend_on_who_is_in_the_batch(make: Make):
    episodes = [episode(*([GO] * n)) for n in (1, 4, 2, 3)]
    together = shares(make(), *episodes)
    assert [len(share) for share in together] == [1, 4, 2, 3]
    for one, alone in zip(together, [shares(make(token_budget=70), each)[0] for each in episodes], strict=True):
        np.testing.assert_allclose(one, alone, atol=1e-5)
    for one, packed in zip(together, shares(make(token_budget=70), *episodes), strict=True):
        np.testing.assert_allclose(one, packed, atol=1e-5)


def random_episodes(count: int, seed: int) -> list[list[str]]:
    random = np.random.default_rng(seed)
    return [[str(s) for s in random.choice([TAKE, GO], int(random.integers(1, 4)))] for _ in range(count)]


@pytest.mark.parametrize("reads", ["hidden", "logits"])
def test_taught_sums_alone_it_finds_the_turns_that_earned_them(
    make_model: Callable[..., Any], tokenizer: Any, reads: Any
):
    estimator = ProgressEstimator(make_model(), tokenizer, reads=reads)
    said = random_episodes(64, seed=0)
    outcomes = [0.5 * sum(one == TAKE for one in each) for each in said]
    rows = [estimator.read(episode(*each)) for each in said]
    errors = list(fit(estimator, adam(estimator, 3e-3), rows, outcomes, Fit(8, episodes=8), seed=0))
    assert errors[-1] < 0.02 < np.var(outcomes)
    for each in (TAKE, GO, TAKE), (GO, GO, TAKE):
        found = shares(estimator, episode(*each))[0]
        np.testing.assert_allclose(found, [0.5 * (one == TAKE) for one in each], atol=0.25)


def test_training_is_the_same_whenever_it_is_done(make: Make):
    def trained() -> str:
        estimator = make()
        rows = [estimator.read(episode(*each)) for each in random_episodes(6, seed=1)]
        list(fit(estimator, adam(estimator, 1e-3), rows, [1.0, 0.0] * 3, Fit(1, episodes=4), seed=3))
        return estimator.digest()

    assert trained() == trained() != make().digest()


def test_only_what_is_given_to_be_trained_changes(make: Make):
    estimator = make()
    before = {name: weight.clone() for name, weight in estimator.state_dict().items()}
    rows = [estimator.read(episode(TAKE)), estimator.read(episode(GO))]
    head_alone = [torch.optim.AdamW(estimator.head.parameters(), lr=1e-2)]
    list(fit(estimator, head_alone, rows, [1.0, 0.0], Fit(2), seed=0))
    changed = {name for name, weight in estimator.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {"head.weight", "head.bias"}


@pytest.mark.parametrize("outcomes", [[1.0], [1.0, math.nan], []])
def test_each_episode_needs_a_finite_outcome(make: Make, outcomes: Sequence[float]):
    estimator = make()
    rows = [estimator.read(episode(TAKE)), estimator.read(episode(GO))]
    with pytest.raises(UsageError, match="needs one"):
        next(fit(estimator, adam(estimator, 1e-3), rows, outcomes, Fit(1), seed=0))


@pytest.mark.parametrize("reads", ["hidden", "logits"])
def test_saved_and_loaded_it_says_the_same(make: Make, reads: str, tmp_path: Path):
    estimator = make(reads)
    estimator.save(tmp_path / "estimator")
    again = load(tmp_path / "estimator")
    assert again.digest() == estimator.digest()
    assert shares(again, episode(GO, TAKE)) == shares(estimator, episode(GO, TAKE))


def test_a_folder_without_a_head_is_refused(make: Make, tmp_path: Path):
    with pytest.raises(ConfigError, match="no progress estimator"):
        load(tmp_path)
    with pytest.raises(UnknownNameError, match="hidden"):
        make("embeddings")


def test_the_probe_measures_each_turn_and_names_model_and_weights(make: Make):
    estimator = make()
    probe = EstimatorProbe(estimator, name="small")
    group = Group((episode(GO, TAKE), episode(TAKE)))
    first, second = asyncio.run(probe(group))
    assert [(signal.name, signal.turn) for signal in first] == [("progress_estimate", 0), ("progress_estimate", 1)]
    assert {signal.name for signal in first} == probe.signals
    expected = shares(estimator, *group.trajectories)
    np.testing.assert_allclose([signal.value for signal in first], expected[0], atol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_allclose([signal.value for signal in second], expected[1], atol=1e-6)  # type: ignore[arg-type]
    assert {signal.source for signal in first} == {f"small/hidden@{estimator.digest()}"}


def test_an_episode_too_long_to_read_is_unmeasured_and_never_zero(make: Make):
    long = episode(*[TAKE] * 12)
    (signals, kept, none) = asyncio.run(EstimatorProbe(make())(Group((long, episode(GO), episode()))))
    assert [signal.value for signal in signals] == [None] * 12
    assert "the estimator reads 64" in signals[0].cause
    assert kept[0].value is not None
    assert none == ()
