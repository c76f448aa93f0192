"""The optimisers: AdamW, Muon for hidden matrices where asked for, and AdamW over weights of 16 bits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.95)
AT_ONCE = 2**22
"Numbers that are stepped at the same time in float32: a table of embeddings whole would take gigabytes."


def optimizers(
    model: Any, head: nn.Module, *, lr: float, weight_decay: float, muon: bool
) -> list[torch.optim.Optimizer]:
    """Return AdamW for everything, or Muon for the hidden matrices and AdamW for the rest.

    Muon's updates are scaled to the size of AdamW's, so that one learning rate serves both (Jordan et al. 2024;
    the scaling is that of Moonlight, arXiv 2502.16982, Eq. 4). Torch's rounds to the nearest, which loses small steps
    of 16 bits, so weights of 16 bits get AdamW that rounds at random in its place. Only matrices decay.
    """
    embeddings = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    parameters = list(model.parameters())
    hidden = [p for p in parameters if p.ndim == 2 and id(p) not in embeddings]
    rest = [p for p in parameters if p.ndim != 2 or id(p) in embeddings]
    if parameters[0].dtype is torch.bfloat16:
        rounding = [RoundingAdamW(hidden, lr=lr, weight_decay=weight_decay), RoundingAdamW(rest, lr=lr)]
        return [*rounding, _adamw(head.parameters(), lr, 0.0)]
    made = _adamw([*rest, *head.parameters()], lr, 0.0)
    if muon:
        return [torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"), made]
    return [_adamw(hidden, lr, weight_decay), made]


def _adamw(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=BETAS, fused=True)


class RoundingAdamW(torch.optim.Optimizer):
    """AdamW whose weights and moments are bfloat16: half the memory of float32 and its moments.

    A step of reinforcement is smaller than the distance to the next number of 8 bits, so rounding to the nearest would
    lose nearly all of them. Weights are rounded up or down at random, which is right on average (Zamirai et al.,
    "Revisiting BFloat16 Training", arXiv 2010.06192). What is drawn depends on the number of the step alone.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "eps": 1e-8, "step": 0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step; a parameter without a gradient stays."""
        for group in self.param_groups:
            group["step"] += 1
            draws: dict[torch.device, torch.Generator] = {}
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                draw = draws.setdefault(weight.device, torch.Generator(weight.device))
                if draw.initial_seed() != group["step"]:
                    draw.manual_seed(group["step"])
                self._move(weight, group, draw)

    def _move(self, weight: nn.Parameter, group: dict[str, Any], draw: torch.Generator) -> None:
        """Move ``weight`` and its moments, part by part; see Loshchilov & Hutter, arXiv 1711.05101, Alg. 2."""
        state: dict[str, Tensor] = self.state[weight]
        assert weight.grad is not None
        if not state:
            state["mean"], state["square"] = torch.zeros_like(weight), torch.zeros_like(weight)
        whole = (weight.view(-1), weight.grad.reshape(-1), state["mean"].view(-1), state["square"].view(-1))
        for part, grad, kept_mean, kept_square in zip(*(torch.split(values, AT_ONCE) for values in whole), strict=True):
            slope = grad.float()
            mean = kept_mean.float().lerp_(slope, 1 - BETAS[0])
            square = kept_square.float().lerp_(slope * slope, 1 - BETAS[1])
            kept_mean.copy_(mean)
            kept_square.copy_(square)
            root = (square / (1 - BETAS[1] ** group["step"])).sqrt_().add_(group["eps"])
            moved = part.float() * (1 - group["lr"] * group["weight_decay"])
            moved.addcdiv_(mean, root, value=-group["lr"] / (1 - BETAS[0] ** group["step"]))
            part.copy_(round_at_random(moved, draw))


def round_at_random(values: Tensor, draw: torch.Generator) -> Tensor:
    """Return finite float32 ``values`` as bfloat16: of the two neighbours the nearer one the likelier."""
    bits = values.view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, dtype=torch.int32, device=bits.device, generator=draw)
    return ((bits + noise) & -(1 << 16)).view(torch.float32).bfloat16()


__all__ = ["BETAS", "RoundingAdamW", "optimizers", "round_at_random"]
