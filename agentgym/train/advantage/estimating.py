"""The one call: from a batch of groups to an advantage for each turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from agentgym.errors import UsageError, unknown_name
from agentgym.train.advantage.baseline import TurnBaseline, columns
from agentgym.train.advantage.estimators import (
    as_paid,
    group_centred,
    leave_one_out,
    reward_to_go,
    turn_gae,
    turn_leave_one_out,
)
from agentgym.train.advantage.grid import (
    SUM,
    Bools,
    Cells,
    GroupRewards,
    Reals,
    check_unit,
    deltas_known,
    padded,
    rest_known,
    snapped,
    whole_known,
)
from agentgym.train.advantage.normalise import NegativeScaling, Scale, over_return_std, scaled, whitened
from agentgym.train.advantage.ranks import ranked, ranked_least
from agentgym.train.advantage.states import gigpo, gigpo_leave_one_out, rtmc


@dataclass(frozen=True, slots=True)
class Estimator:
    """A way to get advantages: a linear part, and for some a normalisation that belongs to the definition."""

    advantage: Callable[[Cells], Reals]
    known: Callable[[Cells], Bools]
    "The turns whose advantage is determined by what was measured; elsewhere it is 0."
    own_scale: Scale = "none"
    "Over what `normalise` runs."
    normalise: Callable[[Reals, Bools], Reals] = scaled
    compares: bool = True
    "Needs siblings: a group of one is refused."
    states: bool = False
    "Needs to know which turns start from the same state."


ESTIMATORS: Mapping[str, Estimator] = {
    "turn_rtg_loo": Estimator(turn_leave_one_out, rest_known),
    "rloo": Estimator(leave_one_out, whole_known),
    "dr_grpo": Estimator(group_centred, whole_known),
    "grpo": Estimator(group_centred, whole_known, "group", over_return_std),
    "reinforce_pp": Estimator(reward_to_go, rest_known, "batch", whitened, compares=False),
    "rank": Estimator(ranked, whole_known, "group", over_return_std),
    "rank_least": Estimator(ranked_least, whole_known, "group", over_return_std),
    "gigpo_loo": Estimator(gigpo_leave_one_out, whole_known, states=True),
    "gigpo": Estimator(gigpo, whole_known, states=True),
    "rtmc": Estimator(rtmc, rest_known, states=True),
    "gae": Estimator(turn_gae, deltas_known, compares=False),
    "as_paid": Estimator(as_paid, lambda cells: cells.known_GT, compares=False),
}


def estimate(
    groups: Sequence[GroupRewards],
    *,
    name: str = "turn_rtg_loo",
    gamma: float = 1.0,
    lam: float = 1.0,
    omega: float = 1.0,
    by_component: bool = False,
    scale: Scale = "none",
    baseline: TurnBaseline | None = None,
    negative: NegativeScaling | None = None,
) -> list[Reals]:
    """Return the advantage ``A_GT`` of each group, 0 on turns that were not reached.

    Components add up with their weights. ``scale`` divides by the spread of A (`scaled`) over the turns of the group
    or of the batch, never of one turn index; with ``by_component`` each component is normalised on its own before
    the sum, so that none drowns another (GDPO, arXiv 2601.05242). A normalisation that belongs to an estimator
    (``grpo``, ``reinforce_pp``) is done per component in the same way, and ``scale`` then applies to the sum:
    ``grpo`` by component with ``scale="batch"`` is GDPO, but for its final mean.

    An unmeasured reward makes the component's advantage 0 wherever it would have mattered, and stays out of the
    siblings' baselines and of every spread; the other components are not touched. What a critic says (``values_GT``,
    ``bootstrap_G``) is about the weighted sum: with it the components are summed first, a sum with an unmeasured part
    is unmeasured, and ``by_component`` is refused. Trajectory estimators do not read the bootstrap.

    ``baseline`` is read by ``turn_rtg_loo`` and not changed; call its ``update`` afterwards.

    ``omega`` is the weight of the part that compares states, read by ``gigpo`` and ``gigpo_loo``.

    ``negative`` tones down what is negative in the end, group by group.

    Raises:
        UnknownNameError: no such estimator.
        UsageError: a value out of range, states or successes that are needed and missing, a single rollout where
            siblings are compared, ``gae`` without values, or a baseline kept under another discount.
    """
    if name not in ESTIMATORS:
        raise unknown_name("advantage estimator", name, ESTIMATORS)
    check_unit("gamma", gamma)
    check_unit("lam", lam)
    if scale not in get_args(Scale):
        raise unknown_name("advantage scale", scale, get_args(Scale))
    if baseline is not None and baseline.gamma != gamma:
        raise UsageError(f"the baseline was kept with gamma={baseline.gamma}; the estimate asks for gamma={gamma}")
    estimator = ESTIMATORS[name]
    for group in groups:
        _check_group(group, name, by_component, baseline)

    grids = [columns(group, gamma=gamma, lam=lam, omega=omega, baseline=baseline) for group in groups]
    parts = [{c: _part(estimator, cells, weight) for c, (weight, cells) in grid.items()} for grid in grids]
    if not by_component:
        parts = [{SUM: _total(part)} for part in parts]
    own = estimator.own_scale != "none"
    if own:
        parts = _normalised(parts, estimator.own_scale, estimator.normalise)
    elif scale != "none":
        parts = _normalised(parts, scale, scaled)
    totals = [{SUM: _total(part)} for part in parts]
    if own and scale != "none":
        totals = _normalised(totals, scale, scaled)
    found = [part[SUM].advantage_GT for part in totals]
    if negative is None:
        return found
    return [negative.apply(one_GT, _solved(group)) for one_GT, group in zip(found, groups, strict=True)]


def has_signal(advantage_GT: Reals) -> bool:
    """Return whether a group moves the policy at all; one that does not may be dropped without changing a gradient."""
    return bool(np.any(advantage_GT != 0.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Advantage of one component of one group, before its weight."""

    advantage_GT: Reals
    known_GT: Bools
    weight: float


def _part(estimator: Estimator, cells: Cells, weight: float) -> _Part:
    return _Part(estimator.advantage(cells), estimator.known(cells), weight)


def _total(part: Mapping[str, _Part]) -> _Part:
    weighted_CGT = np.stack([p.weight * p.advantage_GT for p in part.values()])
    known_GT = np.logical_or.reduce([p.known_GT for p in part.values()])
    return _Part(snapped(weighted_CGT.sum(0), np.abs(weighted_CGT).max(0)), known_GT, 1.0)


def _normalised(
    parts: Sequence[Mapping[str, _Part]], over: Scale, normalise: Callable[[Reals, Bools], Reals]
) -> list[dict[str, _Part]]:
    """Normalise each component over its group, or over all groups of the batch that have it."""
    if over == "group":
        return [
            {c: _Part(normalise(p.advantage_GT, p.known_GT), p.known_GT, p.weight) for c, p in part.items()}
            for part in parts
        ]
    result: list[dict[str, _Part]] = [{} for _ in parts]
    for c in {c for part in parts for c in part}:
        owners = [i for i, part in enumerate(parts) if c in part]
        turns = max(parts[i][c].known_GT.shape[1] for i in owners)
        stacked_GT = np.concatenate([padded(parts[i][c].advantage_GT, turns) for i in owners])
        known_GT = np.concatenate([padded(parts[i][c].known_GT, turns) for i in owners])
        stacked_GT = normalise(stacked_GT, known_GT)
        start = 0
        for i in owners:
            part = parts[i][c]
            size, own_turns = part.known_GT.shape
            result[i][c] = _Part(stacked_GT[start : start + size, :own_turns], part.known_GT, part.weight)
            start += size
    return [{c: normal[c] for c in part} for part, normal in zip(parts, result, strict=True)]


def _check_group(group: GroupRewards, name: str, by_component: bool, baseline: TurnBaseline | None) -> None:
    size = group.alive_GT.shape[0]
    if ESTIMATORS[name].compares and size < 2 and not (name == "turn_rtg_loo" and baseline is not None):
        raise UsageError(
            f"the advantage estimator '{name}' compares siblings, but a group has {size} rollout;"
            " ask for two or more, or choose 'turn_rtg_loo' with a TurnBaseline, 'reinforce_pp' or 'gae'"
        )
    if by_component and group.has_critic and len(group.components) > 1:
        raise UsageError(
            "by_component=True cannot be combined with values_GT or bootstrap_G: they value the weighted sum of the"
            f" components ({', '.join(group.components)}), not each of them"
        )


def _solved(group: GroupRewards) -> Reals:
    if group.solved_G is None:
        raise UsageError("negative scaling asks how many of a group are solved: GroupRewards.solved_G is None")
    return group.solved_G


__all__ = ["ESTIMATORS", "Estimator", "estimate", "has_signal"]
