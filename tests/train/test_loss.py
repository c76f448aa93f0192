from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from agentgym.train.loss import (  # noqa: E402
    clipped_policy_loss,
    entropy,
    kl_penalty,
    sequence_policy_loss,
    truncated_weight_loss,
)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "slope"),
    [  # clip to [0.8, 1.28]; slope: d loss / d log pi, which is -A·rho or nothing
        (1.0, 2.0, -2.0, -2.0),
        (1.2, 2.0, -2.4, -2.4),
        (1.5, 2.0, -2.56, 0.0),  # too far up: no more to gain
        (0.5, 2.0, -1.0, -1.0),  # fell though it was good: pulled back, however far
        (1.0, -2.0, 2.0, 2.0),
        (0.9, -2.0, 1.8, 1.8),
        (0.5, -2.0, 1.6, 0.0),  # too far down: no more to gain
        (1.5, -2.0, 3.0, 3.0),  # rose though it was bad: pushed back, however far
        (1.5, 0.0, 0.0, 0.0),
    ],
)
def test_asymmetric_clip(ratio: float, advantage: float, expected: float, slope: float) -> None:
    old = torch.tensor([-1.0], dtype=torch.float64)
    new = (old + math.log(ratio)).requires_grad_()
    loss = clipped_policy_loss(new, old, torch.tensor([advantage], dtype=torch.float64), clip_low=0.2, clip_high=0.28)
    loss.sum().backward()
    assert loss.item() == pytest.approx(expected)
    assert new.grad is not None
    assert new.grad.item() == pytest.approx(slope)


def test_a_loss_for_each_token() -> None:
    old = torch.zeros(3)
    loss = clipped_policy_loss(old, old, torch.tensor([1.0, -1.0, 0.0]), clip_low=0.2, clip_high=0.28)
    assert loss.tolist() == [-1.0, 1.0, 0.0]


def test_k3_by_hand() -> None:
    here, there = torch.log(torch.tensor([0.5, 0.5, 0.25])), torch.log(torch.tensor([0.5, 0.25, 0.5]))
    expected = [0.0, 0.5 - math.log(0.5) - 1, 2 - math.log(2) - 1]
    assert kl_penalty(here, there).tolist() == pytest.approx(expected, abs=1e-6)


def test_k3_is_the_divergence_on_average_and_pulls_back() -> None:
    logits = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    there = torch.log_softmax(torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64), -1)
    here = torch.log_softmax(logits, -1)
    mean = (here.exp() * kl_penalty(here, there)).sum()
    assert mean.item() == pytest.approx((here.exp() * (here - there)).sum().item())
    one = torch.tensor([-1.0], requires_grad=True)
    kl_penalty(one, torch.tensor([-2.0])).sum().backward()
    assert one.grad is not None
    assert one.grad.item() > 0  # too likely: going down lowers the penalty


def test_entropy_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]]))
    assert entropy(logits + 7.0).tolist() == pytest.approx([1.5 * math.log(2), math.log(3)], abs=1e-6)
    assert entropy(torch.tensor([[0.0, -200.0]])).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "weight"),
    [(1.0, 2.0, 1.0), (1.5, 2.0, 1.28), (0.1, 2.0, 0.1), (1.5, -2.0, 1.28), (0.1, -2.0, 0.1)],
)
def test_cispo_bounds_the_weight_and_keeps_the_gradient(ratio: float, advantage: float, weight: float) -> None:
    old = torch.tensor([-1.0], dtype=torch.float64)
    new = (old + math.log(ratio)).requires_grad_()
    loss = truncated_weight_loss(new, old, torch.tensor([advantage], dtype=torch.float64), clip_high=0.28)
    loss.sum().backward()
    assert loss.item() == pytest.approx(-weight * advantage * new.item())
    assert new.grad is not None
    assert new.grad.item() == pytest.approx(-weight * advantage)


def test_gspo_has_one_ratio_a_sequence() -> None:
    # Ratios 2 and 1/2 cancel: the first sequence stands at 1. The second's, 1.44 and 1, have the mean 1.2: above 1.1.
    ratio = torch.tensor([2.0, 0.5, 1.44, 1.0], dtype=torch.float64)
    old = torch.full((4,), -1.0, dtype=torch.float64)
    new = (old + ratio.log()).requires_grad_()
    advantage = torch.tensor([3.0, 3.0, 1.0, -1.0], dtype=torch.float64)
    sequence = torch.tensor([0, 0, 1, 1])
    loss = sequence_policy_loss(new, old, advantage, sequence, clip_low=0.1, clip_high=0.1)
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([-3.0, -3.0, -1.1, 1.2])
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([-3.0, -3.0, 0.0, 1.2])


def test_gspo_of_one_token_is_the_clipped_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    new, old, advantage = torch.randn(3, 32, generator=generator, dtype=torch.float64)
    alone = sequence_policy_loss(new, old, advantage, torch.arange(32), clip_low=0.2, clip_high=0.28)
    torch.testing.assert_close(alone, clipped_policy_loss(new, old, advantage, clip_low=0.2, clip_high=0.28))
