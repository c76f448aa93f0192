"""Weights of 16 bits move as those of 32 do, on average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from agentgym.train.optimizer import BETAS, RoundingAdamW, optimizers, round_at_random  # noqa: E402


def test_rounding_at_random_is_right_on_average_and_leaves_what_has_eight_bits() -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.tensor([1.0 + 2**-9, -3.0 - 2**-8, 1e-6, 0.0]).repeat(40_000, 1)
    rounded = round_at_random(values, draw).float()
    assert len(rounded[:, 0].unique()) == 2
    torch.testing.assert_close(rounded.mean(0), values[0], rtol=1e-4, atol=0)
    exact = torch.randn(1000, generator=draw).bfloat16()
    assert torch.equal(round_at_random(exact.float(), draw), exact)


def steps(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer, count: int) -> None:
    for number in range(count):
        slope = torch.Generator().manual_seed(number)
        weight.grad = (torch.rand(weight.shape, generator=slope) - 0.3).to(weight.dtype)
        optimizer.step()


def test_small_steps_add_up_to_those_of_float32() -> None:
    start = torch.full((200, 100), 0.5)
    ours, theirs = torch.nn.Parameter(start.bfloat16()), torch.nn.Parameter(start.clone())
    settings = {"lr": 2e-5, "weight_decay": 0.1}  # a step is a fiftieth of the distance of two bfloat16 numbers at 0.5
    steps(ours, RoundingAdamW([ours], **settings), 60)
    steps(theirs, torch.optim.AdamW([theirs], betas=BETAS, **settings), 60)
    moved = float((theirs.detach() - start).mean())
    assert abs(moved) > 3e-4
    assert float((ours.detach().float() - start).mean()) == pytest.approx(moved, rel=0.05)
    nearest = torch.nn.Parameter(start.bfloat16())
    steps(nearest, torch.optim.AdamW([nearest], betas=BETAS, **settings), 60)
    assert torch.equal(nearest.detach().float(), start), "or there would be no need for rounding at random"


def test_a_continued_optimiser_takes_the_same_steps() -> None:
    whole, first = (torch.nn.Parameter(torch.ones(8, 8, dtype=torch.bfloat16)) for _ in range(2))
    settings = {"lr": 1e-3}
    steps(whole, RoundingAdamW([whole], **settings), 4)
    before = RoundingAdamW([first], **settings)
    steps(first, before, 2)
    second = torch.nn.Parameter(first.detach().clone())
    after = RoundingAdamW([second], **settings)
    after.load_state_dict(before.state_dict())
    for number in (2, 3):
        slope = torch.Generator().manual_seed(number)
        second.grad = (torch.rand(second.shape, generator=slope) - 0.3).bfloat16()
        after.step()
    assert torch.equal(second, whole)


@pytest.mark.parametrize("muon", [False, True])
def test_small_steps_reach_every_weight_of_sixteen_bits(make_model: Callable[..., Any], muon: bool) -> None:
    model = make_model(width=64).bfloat16()
    made = optimizers(model, torch.nn.Linear(64, 1), lr=1e-5, weight_decay=0.0, muon=muon)
    before = {name: weight.detach().float() for name, weight in model.named_parameters()}
    for _ in range(50):
        for weight in model.parameters():
            weight.grad = torch.ones_like(weight)
        for optimizer in made:
            optimizer.step()
    for name, weight in model.named_parameters():
        if weight.numel() >= 4096:
            assert float((weight.detach().float() - before[name]).mean()) == pytest.approx(-50 * 1e-5, rel=0.2), name


def test_a_large_matrix_is_stepped_part_by_part(
    monkeypatch: pytest.MonkeyPatch, allocated: Callable[[Callable[[], Any]], int]
) -> None:
    slope, weight = (torch.randn(300, 700, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    moved, grown = [], []
    for part in (2**30, 2_000):
        monkeypatch.setattr("agentgym.train.optimizer.AT_ONCE", part)
        ours = torch.nn.Parameter(weight.bfloat16())
        optimizer = RoundingAdamW([ours], lr=1e-2)
        ours.grad = slope.bfloat16()
        optimizer.step()
        moved.append(ours.detach().float())
        grown.append(allocated(optimizer.step))
    assert float((moved[0] - moved[1]).abs().max()) <= 0.02, "both rounded one number, up or down"
    assert float((moved[0] - moved[1]).mean()) == pytest.approx(0, abs=1e-4)
    assert grown[1] < weight.numel() < grown[0]
