from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agentgym.errors import ConfigError, UsageError
from agentgym.types import Trajectory

torch = pytest.importorskip("torch")

from agentgym.train.batch import Row, rows  # noqa: E402
from agentgym.train.learner import Economy, Learner, Objective  # noqa: E402

Make = Callable[..., Any]
SOME = settings(max_examples=12, deadline=None, phases=(Phase.explicit, Phase.generate))
FULL = Objective(kl=0.1, entropy=0.05, value=0.5)
"""Every term at once."""


def learner(model: Any, *, budget: int = 4096, **settings: Any) -> Learner:
    """Return a learner whose gradients are not clipped; by default its steps change nothing."""
    settings = {"lr": 0.0, "weight_decay": 0.0, "max_grad_norm": 1e9, **settings}
    return Learner(model, token_budget=budget, **settings)


def gradient(learned: Learner) -> Any:
    """Return the gradient of the last step as one vector."""
    parts = [*learned.model.parameters(), *learned.value_head.parameters()]
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parts]).double()


def weights(learned: Learner) -> dict[str, Any]:
    return {name: value.clone() for name, value in learned.model.state_dict().items()}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def episodes(make: Callable[..., Trajectory], count: int = 4, *, seed: int = 0) -> list[Row]:
    """Return rows of episodes of different lengths, with advantages and returns drawn at random."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(count):
        turns = [(int(random.integers(1, 6)), int(random.integers(1, 4))) for _ in range(int(random.integers(1, 4)))]
        played = make(turns, seed=100 * seed + i, name=f"g/{i}")
        made += rows(played, random.normal(size=len(turns)), random.normal(size=len(turns)), version=0)
    return made


def as_sampled(learned: Learner, row: Row, temperature: float = 1.0) -> Row:
    """Return ``row`` with the log-probabilities that the model itself gives its tokens."""
    with torch.no_grad():
        logits = learned.model(input_ids=torch.from_numpy(row.ids_N.astype(np.int64))[None]).logits[0, :-1]
        logprobs = torch.log_softmax(logits.float() / temperature, -1)
    chosen = logprobs.gather(1, torch.from_numpy(row.ids_N[1:, None].astype(np.int64)))[:, 0].numpy()
    whole = np.concatenate([[np.nan], chosen]).astype(np.float32)
    return replace(row, logprobs_N=np.where(row.mask_N, whole, np.nan).astype(np.float32), temperature=temperature)


def with_advantage(row: Row, value: float) -> Row:
    return replace(row, advantage_N=np.where(row.mask_N, value, 0.0).astype(np.float32))


# -------------------------------------------------------------------------------- however it is split, one gradient


@SOME
@given(seed=st.integers(0, 99), order=st.randoms(use_true_random=False), budget=st.integers(24, 150))
def test_grouping_rows_into_batches_does_not_change_the_gradient(
    make_model: Make, trajectory: Make, seed: int, order: Any, budget: int
) -> None:
    given_rows = episodes(trajectory, seed=seed)
    whole = learner(make_model(double=True), objective=FULL)
    measured = whole.reinforce(given_rows)
    shuffled = list(given_rows)
    order.shuffle(shuffled)
    parts = learner(make_model(double=True), objective=FULL, budget=budget)
    assert parts.reinforce(shuffled) == pytest.approx(measured, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(gradient(parts), gradient(whole), rtol=1e-5, atol=1e-6)


@SOME
@given(seed=st.integers(0, 99))
def test_turns_as_rows_of_their_own_give_the_gradient_of_the_whole_rollout(
    make_model: Make, trajectory: Make, seed: int
) -> None:
    given_rows = episodes(trajectory, seed=seed)
    split = []
    for row in given_rows:
        for turn in np.unique(row.turn_N[row.mask_N]):
            mine = row.mask_N & (row.turn_N == turn)
            upto = slice(0, int(np.flatnonzero(mine)[-1]) + 1)
            names = ("ids_N", "logprobs_N", "versions_N", "advantage_N", "turn_N", "return_N")
            split.append(replace(row, mask_N=mine[upto], **{name: getattr(row, name)[upto] for name in names}))
    assert len(split) >= len(given_rows)
    whole, parts = (learner(make_model(double=True), objective=FULL, budget=b) for b in (4096, 60))
    measured = whole.reinforce(given_rows)
    assert parts.reinforce(split) == pytest.approx(measured, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(gradient(parts), gradient(whole), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", ["reinforce", "imitate"])
def test_a_row_of_weight_three_is_three_rows(make_model: Make, trajectory: Make, step: str) -> None:
    first, *rest = episodes(trajectory)
    many, one = (learner(make_model(double=True), objective=FULL) for _ in range(2))
    measured = getattr(many, step)([first, first, first, *rest])
    weighted = getattr(one, step)([replace(first, weight=3.0), *rest])
    torch.testing.assert_close(gradient(one), gradient(many), rtol=1e-5, atol=1e-6)
    assert weighted == pytest.approx(measured, rel=1e-5, abs=1e-6)


def test_a_row_beyond_the_budget_is_refused_and_nothing_is_learned(make_model: Make, trajectory: Make) -> None:
    small = learner(make_model(), budget=8, lr=0.1)
    before = weights(small)
    with pytest.raises(UsageError, match="does not fit"):
        small.reinforce(rows(trajectory([(9, 2)]), np.ones(1)))
    assert same(weights(small), before)


# ----------------------------------------------------------------------------------------------- what a step does


def test_the_gradient_is_that_of_finite_differences(make_model: Make, trajectory: Make) -> None:
    given_rows = episodes(trajectory, 3)
    learned = learner(make_model(layers=1, double=True))
    learned.reinforce(given_rows)
    parameters = list(learned.model.parameters())
    slope = gradient(learned)[: sum(p.numel() for p in parameters)]
    random = torch.Generator().manual_seed(0)
    for direction in (slope, torch.randn(slope.shape, generator=random, dtype=torch.float64)):
        way, losses = direction / direction.norm(), []
        for size in (1e-2, -1e-2):
            start = torch.nn.utils.parameters_to_vector(parameters).detach().clone()
            torch.nn.utils.vector_to_parameters(start + size * way, parameters)
            losses.append(learned.reinforce(given_rows)["policy_loss"])
            torch.nn.utils.vector_to_parameters(start, parameters)
        assert (losses[0] - losses[1]) / 2e-2 == pytest.approx(float(slope @ way), rel=5e-3, abs=1e-4)


def test_no_advantage_no_gradient(make_model: Make, trajectory: Make) -> None:
    learned = learner(make_model(), lr=0.1)
    before = weights(learned)
    measured = learned.reinforce(rows(trajectory(), np.zeros(2), version=0))
    assert measured["grad_norm"] == 0.0
    assert not gradient(learned).any()
    assert same(weights(learned), before)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_what_was_good_becomes_likelier_and_what_was_bad_less_so(
    make_model: Make, trajectory: Make, temperature: float
) -> None:
    (row,) = rows(trajectory())
    for advantage in (1.0, -1.0):
        learned = learner(make_model(), lr=1e-2)
        sampled = with_advantage(as_sampled(learned, row, temperature), advantage)
        before = learned.likelihood([row])
        measured = learned.reinforce([sampled])
        assert measured["kl_sampler"] == pytest.approx(0.0, abs=1e-6)  # scored as it was sampled
        assert measured["clip_fraction"] == 0.0
        assert measured["policy_loss"] == pytest.approx(-advantage, abs=1e-5)
        assert np.sign(before - learned.likelihood([row])) == advantage


@pytest.mark.parametrize(
    ("loss", "bounded"), [("clip", 1.0), ("cispo", 0.5), ("gspo_turn", 0.5), ("gspo_trajectory", 0.0)]
)
def test_what_is_clipped_is_counted_as_the_loss_clips(
    make_model: Make, trajectory: Make, loss: Any, bounded: float
) -> None:
    learned = learner(make_model(), objective=Objective(loss=loss, clip_low=0.2, clip_high=0.2))
    row = as_sampled(learned, rows(trajectory([(5, 2), (3, 2)]), np.ones(2))[0])
    ratios = [2.0, 0.5, 2.0, 0.4]  # of the first turn 1, of the second 0.89, or 0.6: above 0.8, or below
    ratios = ratios if loss != "gspo_turn" else [2.0, 0.5, 0.6, 0.6]
    old = row.logprobs_N.copy()
    old[row.mask_N] -= np.log(ratios, dtype=np.float32)
    measured = learned.reinforce([replace(row, logprobs_N=old)])
    assert measured["clip_fraction"] == bounded


def test_each_token_is_moved_by_its_own_advantage(make_model: Make, trajectory: Make) -> None:
    (row,) = rows(trajectory([(5, 2), (3, 2)], seed=1), np.array([1.0, -1.0]))
    learned = learner(make_model(), lr=1e-2)
    good, bad = (replace(row, mask_N=row.mask_N & (row.turn_N == turn)) for turn in (0, 1))
    before = [learned.likelihood([part]) for part in (good, bad)]
    learned.reinforce([as_sampled(learned, row)])
    after = [learned.likelihood([part]) for part in (good, bad)]
    assert after[0] < before[0]
    assert after[1] > before[1]


def test_the_divergence_term_pulls_back(make_model: Make, trajectory: Make) -> None:
    (row,) = rows(trajectory(), np.zeros(2))
    learned = learner(make_model(), lr=1e-3, objective=Objective(kl=1.0))
    assert learned.reinforce([row])["kl_reference"] == pytest.approx(0.0, abs=1e-6)
    with torch.no_grad():
        for parameter in learned.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    away = [learned.reinforce([row])["kl_reference"] for _ in range(8)]
    assert away[0] > 1e-3
    assert away[-1] < away[0]
    assert not any(parameter.requires_grad for parameter in learned.reference.parameters())


def test_the_entropy_term_spreads(make_model: Make, trajectory: Make) -> None:
    (row,) = rows(trajectory(), np.zeros(2))
    learned = learner(make_model(), lr=1e-2, objective=Objective(entropy=1.0))
    for _ in range(3):
        learned.imitate([row])
    spread = [learned.reinforce([row])["entropy"] for _ in range(5)]
    assert spread[-1] > spread[0]


def test_the_value_head_learns_what_follows_each_turn(make_model: Make, trajectory: Make) -> None:
    made = [
        rows(trajectory([(4, 2), (3, 3)], seed=i, name=f"g/{i}"), np.zeros(2), np.array([1.0, -2.0]))[0]
        for i in range(2)
    ]
    learned = learner(make_model(), lr=2e-2, objective=Objective(value=1.0))
    assert [value.tolist() for value in learned.values(made)] == [[0.0, 0.0], [0.0, 0.0]]
    errors = [learned.reinforce(made)["value_loss"] for _ in range(60)]
    assert errors[0] == pytest.approx((2 * (1 + 4)) / 10)  # once a turn, over the ten tokens written
    assert errors[-1] < errors[0] / 10
    np.testing.assert_allclose(learned.values(made), [[1.0, -2.0]] * 2, atol=0.5)


def test_a_value_head_beside_a_model_in_half_precision(make_model: Make, trajectory: Make) -> None:
    learned = learner(make_model().bfloat16(), lr=1e-2, objective=Objective(value=1.0))
    made = rows(trajectory(), np.zeros(2), np.ones(2))
    assert learned.reinforce(made)["value_loss"] == pytest.approx(0.5)
    assert len(learned.values(made)[0]) == 2


def test_unknown_returns_teach_nothing(make_model: Make, trajectory: Make) -> None:
    learned = learner(make_model(), lr=1e-2, objective=Objective(value=1.0))
    measured = learned.reinforce(rows(trajectory(), np.zeros(2), np.array([np.nan, np.nan])))
    assert measured["value_loss"] == measured["grad_norm"] == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(make_model: Make, trajectory: Make, bad: float) -> None:
    (row,) = rows(trajectory(), np.ones(2))
    learned, calm = (learner(make_model(), lr=1e-2, max_grad_norm=1.0) for _ in range(2))
    learned.reinforce([row])
    calm.reinforce([row])
    broken = learned.reinforce([with_advantage(row, bad)])
    assert not np.isfinite(broken["grad_norm"])
    assert same(weights(learned), weights(calm))
    learned.reinforce([row])
    calm.reinforce([row])
    assert same(weights(learned), weights(calm))  # nor did it leave a trace in the optimiser


def test_gradients_are_clipped_to_the_norm_asked_for(make_model: Make, trajectory: Make) -> None:
    learned = learner(make_model(), max_grad_norm=0.01)
    measured = learned.reinforce(rows(trajectory(), np.ones(2)))
    assert measured["grad_norm"] > 0.01
    assert float(gradient(learned).norm()) == pytest.approx(0.01, rel=1e-3)


def test_the_rate_rises_then_falls_to_a_twentieth(make_model: Make, trajectory: Make) -> None:
    row = rows(trajectory(), np.ones(2))
    learned = learner(make_model(), lr=1.0, weight_decay=0.0, warmup_steps=3, decay_steps=10, total_steps=10)
    rates = []
    for _ in range(12):
        rates.append(learned.imitate(row)["lr"])
    assert rates[:4] == pytest.approx([0.25, 0.5 * 0.9, 0.75 * 0.8, 0.7])
    assert rates[-2:] == [0.05, 0.05]
    assert learned.steps == 12


def test_the_rate_may_stay_and_fall_at_the_end_only(make_model: Make, trajectory: Make) -> None:
    row = rows(trajectory(), np.ones(2))
    learned = learner(make_model(), lr=1.0, weight_decay=0.0, warmup_steps=0, decay_steps=4, total_steps=8)
    rates = [learned.imitate(row)["lr"] for _ in range(9)]
    assert rates == pytest.approx([1.0] * 5 + [0.75, 0.5, 0.25, 0.05])


def test_imitating_lowers_the_likelihood_it_reports(make_model: Make, trajectory: Make) -> None:
    given_rows = episodes(trajectory)
    learned = learner(make_model(), lr=1e-2, budget=40)
    before = learned.likelihood(given_rows)
    assert learned.imitate(given_rows)["nll"] == pytest.approx(before, rel=1e-5)
    assert learned.likelihood(given_rows) < before


# ------------------------------------------------------------------------------------------------- going on later


@pytest.mark.parametrize("objective", [Objective(), FULL], ids=["plain", "full"])
def test_a_continued_learner_takes_the_same_steps_to_the_bit(
    make_model: Make, trajectory: Make, objective: Objective
) -> None:
    def made(seed: int) -> Learner:
        return learner(
            make_model(seed), lr=1e-2, weight_decay=0.1, warmup_steps=5, max_grad_norm=1.0, objective=objective
        )

    first = made(0)
    for seed in range(3):
        first.reinforce(episodes(trajectory, seed=seed))
    kept = io.BytesIO()
    torch.save(first.state(), kept)
    kept.seek(0)
    second = made(7)
    second.load_state(torch.load(kept, weights_only=True))
    assert second.steps == 3
    for seed in range(3, 6):
        one, other = (which.reinforce(episodes(trajectory, seed=seed)) for which in (first, second))
        assert one == other
    assert same(weights(first), weights(second))
    assert same(first.value_head.state_dict(), second.value_head.state_dict())


def test_the_reference_stays_what_it_was_when_the_run_began(make_model: Make, trajectory: Make) -> None:
    learned = learner(make_model(0), lr=1e-2, objective=Objective(kl=0.1))
    began = copy.deepcopy(weights(learned))
    learned.reinforce(episodes(trajectory))
    other = learner(make_model(5), objective=Objective(kl=0.1))
    other.load_state(learned.state())
    assert same(other.reference.state_dict(), began)
    assert not same(weights(other), began)


def test_a_model_that_bends_its_logits_is_refused(make_model: Make) -> None:
    model = make_model()

    class Scaled(type(model)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            out.logits = out.logits / 2
            return out

    model.__class__ = Scaled
    with pytest.raises(ConfigError, match="Scaled changes its logits after the output embeddings: not supported"):
        learner(model)


def test_only_hidden_matrices_are_decayed(make_model: Make) -> None:
    learned = learner(make_model(), weight_decay=0.1)
    groups = [group for optimizer in learned.optimizers for group in optimizer.param_groups]
    named = {id(parameter): name for name, parameter in learned.model.named_parameters()}
    decayed = [p for group in groups if group["weight_decay"] for p in group["params"]]
    assert {group["weight_decay"] for group in groups} == {0.0, 0.1}
    assert all(parameter.ndim == 2 and "embed" not in named[id(parameter)] for parameter in decayed)
    learnt = [id(p) for group in groups for p in group["params"]]
    assert sorted(learnt) == sorted([*named, *map(id, learned.value_head.parameters())])  # each once


# ------------------------------------------------------------------------------------------------ what saves memory


@pytest.mark.parametrize("objective", [Objective(), FULL])
def test_parts_and_recomputed_layers_change_no_number(make_model: Make, trajectory: Make, objective: Objective) -> None:
    given_rows = episodes(trajectory)
    thrifty = Economy(gradient_checkpointing=True, logits_at_once=50)
    plain, saving = (
        learner(make_model(double=True), objective=objective, economy=economy) for economy in (Economy(), thrifty)
    )
    assert saving.reinforce(given_rows) == pytest.approx(plain.reinforce(given_rows), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(gradient(saving), gradient(plain), rtol=1e-5, atol=1e-6)
    assert saving.likelihood(given_rows) == pytest.approx(plain.likelihood(given_rows), rel=1e-6)
    assert not any(module.training for module in saving.model.modules()), "the engine decodes with a cache"


def test_checkpointing_keeps_less(make_model: Make, trajectory: Make) -> None:
    given_rows = rows(trajectory([(40, 8)]), np.ones(1))
    kept = []
    for on in (False, True):
        learned = learner(make_model(layers=8), economy=Economy(gradient_checkpointing=on))
        sizes: dict[int, int] = {}

        def keep(tensor: Any, sizes: dict[int, int] = sizes) -> Any:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            learned.reinforce(given_rows)
        kept.append(sum(sizes.values()))
    assert kept[1] < kept[0]


def test_a_model_without_checkpointing_is_refused(make_model: Make) -> None:
    model = make_model()
    type(model).supports_gradient_checkpointing, before = False, type(model).supports_gradient_checkpointing
    try:
        with pytest.raises(ConfigError, match="train.gradient_checkpointing"):
            learner(model, economy=Economy(gradient_checkpointing=True))
    finally:
        type(model).supports_gradient_checkpointing = before


def test_autocast_learns_in_bfloat16_over_weights_of_float32(make_model: Make, trajectory: Make) -> None:
    given_rows = episodes(trajectory)
    plain, cast = (learner(make_model(), economy=Economy(autocast=on)) for on in (False, True))
    measured, rounded = (learned.reinforce(given_rows) for learned in (plain, cast))
    assert rounded["policy_loss"] == pytest.approx(measured["policy_loss"], abs=0.05)
    assert rounded["policy_loss"] != measured["policy_loss"]
    assert {weight.dtype for weight in cast.model.parameters()} == {torch.float32}
    slopes = [gradient(learned) for learned in (plain, cast)]
    assert float(torch.nn.functional.cosine_similarity(*slopes, dim=0)) > 0.99


def test_weights_of_sixteen_bits_learn_and_go_on(make_model: Make, trajectory: Make) -> None:
    given_rows = episodes(trajectory)
    learned = learner(make_model().bfloat16(), lr=1e-3)
    before = learned.likelihood(given_rows)
    for _ in range(5):
        learned.imitate(given_rows)
    assert learned.likelihood(given_rows) < before
    twin = learner(make_model().bfloat16(), lr=1e-3)
    twin.load_state(copy.deepcopy(learned.state()))
    for each in (learned, twin):
        each.imitate(given_rows)
    assert same(weights(learned), weights(twin))


# ------------------------------------------------------------------------------------- what it is measured from


def test_the_reference_may_be_another_model_or_come_with_the_rows(make_model: Make, trajectory: Make) -> None:
    other = make_model(seed=5)
    given_rows = [as_sampled(learner(make_model(seed=5)), row, 1.0) for row in episodes(trajectory)]
    beside = learner(make_model(), objective=Objective(kl=0.5), reference=other)
    brought = learner(make_model(), objective=Objective(kl=0.5), reference="rows")
    start = learner(make_model(), objective=Objective(kl=0.5))
    measured = beside.reinforce(given_rows)
    with_rows = [replace(row, reference_N=row.logprobs_N) for row in given_rows]
    assert brought.reinforce(with_rows) == pytest.approx(measured, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(gradient(brought), gradient(beside), rtol=1e-4, atol=1e-5)
    assert measured["kl_reference"] > 1e-3
    assert start.reinforce(given_rows)["kl_reference"] == pytest.approx(0.0, abs=1e-6)
    assert beside.state()["reference"] is None, "what has a folder of its own is not saved again"
