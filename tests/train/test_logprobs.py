"""Chunked and dense: the same numbers and gradients, and a fraction of the memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from agentgym.train.logprobs import logprobs, logprobs_and_entropy  # noqa: E402

M, D, V = 37, 16, 50


def case(seed: int = 0, *, m: int = M, v: int = V, dtype: Any = None) -> tuple[Any, Any, Any]:
    random = torch.Generator().manual_seed(seed)
    head = torch.nn.Linear(D, v, bias=False, dtype=dtype or torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.randn(v, D, generator=random))
    hidden = torch.randn(m, D, generator=random).to(head.weight.dtype).requires_grad_()
    return head, hidden, torch.randint(0, v, (m,), generator=random)


def dense(head: Any, hidden: Any, token: Any, temperature: float) -> tuple[Any, Any]:
    """Written from the definitions: log p(token), and −Σ p log p."""
    scaled = hidden @ head.weight.T / temperature
    logs = scaled - scaled.exp().sum(-1, keepdim=True).log()
    return logs[torch.arange(len(token)), token], -(logs.exp() * logs).sum(-1)


@pytest.mark.parametrize("at_once", [1, 7 * V, M * V - 1, M * V])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_value_and_gradient_are_those_of_the_dense_form(at_once: int, temperature: float) -> None:
    weigh = torch.randn(2, M, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    head, hidden, token = case()
    wanted = dense(head, hidden, token, temperature)
    slopes = torch.autograd.grad(weigh[0] @ wanted[0] + weigh[1] @ wanted[1], [hidden, head.weight])
    found = logprobs_and_entropy(head, hidden, token, temperature=temperature, at_once=at_once, spread=True)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
    mine = torch.autograd.grad(weigh[0] @ found[0].double() + weigh[1] @ found[1].double(), [hidden, head.weight])
    for one, other in zip(mine, slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logprobs(head, hidden, token, temperature=temperature, at_once=at_once), found[0])


def test_the_entropy_has_a_gradient_only_where_asked_for() -> None:
    head, hidden, token = case()
    assert not logprobs_and_entropy(head, hidden, token, spread=False)[1].requires_grad
    assert logprobs_and_entropy(head, hidden, token, spread=True)[1].requires_grad


def test_memory_is_that_of_a_part_not_of_all_logits(allocated: Callable[[Callable[[], Any]], int]) -> None:
    head, hidden, token = case(m=2048, v=2048, dtype=torch.float32)
    whole = 2048 * 2048 * 4

    def learn(at_once: int) -> int:
        def work() -> None:
            chosen, spread = logprobs_and_entropy(head, hidden, token, at_once=at_once, spread=False)
            (chosen + spread).sum().backward()

        return allocated(work)

    assert learn(2048 * 2048) > 2 * whole
    assert learn(64 * 2048) < whole / 2


@pytest.mark.gpu
def test_memory_on_a_gpu() -> None:
    head, hidden, token = case(m=8192, v=32768, dtype=torch.bfloat16)
    head, token = head.cuda(), token.cuda()
    hidden = hidden.detach().cuda().requires_grad_()
    peaks = []
    for at_once in (8192 * 32768, 2**24):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        chosen, spread = logprobs_and_entropy(head, hidden, token, at_once=at_once, spread=False)
        (chosen + spread).sum().backward()
        peaks.append(torch.cuda.max_memory_allocated() - before)
    assert peaks[1] < peaks[0] / 8
