"""From the rewards of sibling rollouts to one advantage for each turn.

A group is a dense grid: ``reward_GTC`` holds what component ``C`` paid rollout ``G`` at turn ``T``, ``alive_GT`` says
which turns were reached. `estimate` turns a batch of groups into advantages by one of `ESTIMATORS`:

==================  ====================================================================  ==========================
name                advantage of turn t of rollout i                                      source
==================  ====================================================================  ==========================
``turn_rtg_loo``    G_it − mean of G_jt over the *others* j that reached t                this module; see below
``rloo``            R_i − mean of R_j over the others                                     RLOO, arXiv 2402.14740
``dr_grpo``         R_i − mean(R)                                                         Dr. GRPO, arXiv 2503.20783
``grpo``            (R_i − mean(R)) / (std(R) + ε)                                        GRPO, arXiv 2402.03300
``reinforce_pp``    (G_it − mean) / (std + ε), both over every turn of the batch          REINFORCE++, arXiv 2501.03262
``gae``             Σ_u (γλ)^(u−t) δ_iu,  δ_it = r_it + γ V_i,t+1 − V_it                  GAE, arXiv 1506.02438
==================  ====================================================================  ==========================

with R_i = Σ_t γ^t r_it and G_it = Σ_{u≥t} γ^(u−t) r_iu. Discounts are per turn, never per token.

Why "others that reached t": whether *they* reached it, and what they earned, does not depend on what i does at t, so
the baseline leaves the policy gradient unbiased, also where the policy chooses when to stop. A mean taken at each
turn index over all who are there (i included) and summed along the rollout does not: how many such means are
subtracted is i's own choice. ``benchmarks/estimators.py`` measures both against exact gradients.

The module knows neither torch nor trajectories.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from agentgym.errors import UsageError, unknown_name

Reals = NDArray[np.float64]
Bools = NDArray[np.bool_]
Scale = Literal["none", "group", "batch"]
DType = TypeVar("DType", bound=np.generic)

EPSILON = 1e-6
"""Added to a standard deviation where the published formula adds one (grpo, reinforce_pp)."""
ROUNDING = 1e-12
"""A difference below this share of the largest number it came from is rounding, and is set to exactly 0."""
SUM = "sum"
"""Column under which a group is priced once a critic's word about the weighted sum takes part."""


# ---------------------------------------------------------------------------------------------------- what goes in


@dataclass(frozen=True, slots=True, eq=False)
class GroupRewards:
    """What one group of rollouts earned, turn by turn and component by component.

    Raises `UsageError` for shapes that do not fit, an ``alive_GT`` with gaps, a reward that is not finite though it
    is measured, or one on a turn that was never reached.
    """

    reward_GTC: Reals
    alive_GT: Bools
    "Turn t of the rollout was reached: a run of True from turn 0. All False: the rollout takes no part."
    components: tuple[str, ...]
    weights: tuple[float, ...] = ()
    "One for each component; empty: all 1."
    measured_GTC: Bools | None = None
    "False: the reward there is unknown, whatever number stands there. None: all are known."
    truncated_G: Bools | None = None
    "The episode was cut while the world could have gone on. None: none was."
    values_GT: Reals | None = None
    "A critic's value of the weighted sum before each turn; ``gae`` needs it."
    bootstrap_G: Reals | None = None
    "Value of the weighted sum where a truncated rollout was cut; read for truncated rollouts only. None: 0."
    family: str = ""
    "Kind of task, for `TurnBaseline`."

    def __post_init__(self) -> None:
        if self.reward_GTC.ndim != 3 or self.reward_GTC.shape[2] != len(self.components) or not self.components:
            raise UsageError(
                f"reward_GTC has shape {self.reward_GTC.shape}; expected (rollouts, turns, {len(self.components)}),"
                f" one column for each of the components {', '.join(self.components) or '(none given)'}"
            )
        G, T, C = self.reward_GTC.shape
        if G == 0 or T == 0:
            raise UsageError(f"reward_GTC has shape {self.reward_GTC.shape}: a group needs a rollout and a turn")
        self._check_shape("alive_GT", self.alive_GT, (G, T))
        self._check_shape("measured_GTC", self.measured_GTC, (G, T, C))
        self._check_shape("truncated_G", self.truncated_G, (G,))
        self._check_shape("values_GT", self.values_GT, (G, T))
        self._check_shape("bootstrap_G", self.bootstrap_G, (G,))
        if self.weights and len(self.weights) != C:
            raise UsageError(f"{len(self.weights)} weights for {C} components ({', '.join(self.components)})")
        if np.any(self.alive_GT[:, 1:] & ~self.alive_GT[:, :-1]):
            raise UsageError("alive_GT has a gap: a turn is marked as reached after one that is not")
        self._check_rewards()

    def _check_shape(self, name: str, array: NDArray[Any] | None, shape: tuple[int, ...]) -> None:
        if array is not None and array.shape != shape:
            raise UsageError(f"{name} has shape {array.shape}; expected {shape}")

    def _check_rewards(self) -> None:
        known_GTC = np.ones(self.reward_GTC.shape, np.bool_) if self.measured_GTC is None else self.measured_GTC
        for fault_GTC, what in (
            (~np.isfinite(self.reward_GTC), "is not finite though it counts as measured"),
            ((self.reward_GTC != 0) & ~self.alive_GT[:, :, None], "stands on a turn that was not reached"),
        ):
            found = np.argwhere(fault_GTC & known_GTC)
            if len(found):
                g, t, c = found[0]
                value = self.reward_GTC[g, t, c]
                raise UsageError(f"reward {value} of '{self.components[c]}' (rollout {g}, turn {t}) {what}")

    @property
    def has_critic(self) -> bool:
        """Whether something is known about the weighted sum beyond what was paid."""
        return self.values_GT is not None or self.bootstrap_G is not None


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """One reward on a group's grid of turns, and how to look ahead on it.

    The group and turn axes are the last two; any axes before them are independent groups, done at once.
    """

    reward_GT: Reals
    alive_GT: Bools
    measured_GT: Bools | None = None
    gamma: float = 1.0
    lam: float = 1.0
    values_GT: Reals | None = None
    bootstrap_G: Reals | None = None
    "Added after the last turn of a rollout; 0 where the episode terminated."
    prior_T: Reals | None = None
    "What a return-to-go from turn t was on average elsewhere, ``[..., T]``. It must not depend on this group."

    @property
    def known_GT(self) -> Bools:
        """Turns reached with their reward measured."""
        return self.alive_GT if self.measured_GT is None else self.alive_GT & self.measured_GT

    @property
    def paid_GT(self) -> Reals:
        """Rewards, 0 where the turn was not reached or is not measured."""
        return np.where(self.known_GT, self.reward_GT, 0.0)

    @property
    def ahead_GT(self) -> Reals:
        """`paid_GT` with the discounted bootstrap folded into each rollout's last turn."""
        if self.bootstrap_G is None:
            return self.paid_GT
        last_GT = self.alive_GT.copy()
        last_GT[..., :-1] &= ~self.alive_GT[..., 1:]
        return self.paid_GT + np.where(last_GT, self.gamma * self.bootstrap_G[..., None], 0.0)


def returns_to_go(reward_GT: Reals, gamma: float = 1.0) -> Reals:
    """Return G_t = Σ_{u≥t} γ^(u−t) r_u along the last axis."""
    if gamma == 1.0:
        return np.flip(np.cumsum(np.flip(reward_GT, -1), -1), -1)
    return_GT = np.array(reward_GT, np.float64)
    for t in range(return_GT.shape[-1] - 2, -1, -1):
        return_GT[..., t] += gamma * return_GT[..., t + 1]
    return return_GT


def whole_known(cells: Cells) -> Bools:
    """Return the reached turns of the rollouts whose every reward is measured."""
    if cells.measured_GT is None:
        return cells.alive_GT
    known_G: Bools = np.all(cells.measured_GT | ~cells.alive_GT, axis=-1, keepdims=True)
    return cells.alive_GT & known_G


def rest_known(cells: Cells) -> Bools:
    """Return the reached turns from which on every reward that counts is measured."""
    if cells.measured_GT is None or cells.gamma == 0.0:
        return cells.known_GT
    settled_GT = np.flip(cells.measured_GT | ~cells.alive_GT, -1)
    return cells.alive_GT & np.flip(np.logical_and.accumulate(settled_GT, axis=-1), -1)


def deltas_known(cells: Cells) -> Bools:
    """Return what `rest_known` returns, or with λ = 0 every measured turn."""
    return cells.known_GT if cells.lam == 0.0 else rest_known(cells)


# -------------------------------------------------------------------------------------------------- the estimators


def group_centred(cells: Cells) -> Reals:
    """Return R_i − mean(R) on every reached turn (Dr. GRPO, arXiv 2503.20783).

    The mean contains R_i, so the gradient is (n−1)/n of the true one for n rollouts: a known factor, no distortion.
    """
    known_GT = whole_known(cells)
    member_G: Bools = np.any(known_GT, axis=-1)
    return_G = returns_to_go(cells.paid_GT, cells.gamma)[..., 0]
    mean = _masked_mean(return_G, member_G, axis=(-1,))
    return _snapped(np.where(known_GT, (return_G - mean)[..., None], 0.0), return_G[..., None])


def leave_one_out(cells: Cells) -> Reals:
    """Return R_i − mean of the others' R on every reached turn (RLOO, arXiv 2402.14740).

    Unbiased. A rollout without a measured sibling gets 0.
    """
    known_GT = whole_known(cells)
    member_G: Bools = np.any(known_GT, axis=-1)
    return_G = returns_to_go(cells.paid_GT, cells.gamma)[..., 0]
    sum_G, others_G = _sum_of_others(return_G[..., None], member_G[..., None])
    advantage_G = np.where(others_G > 0, return_G[..., None] - sum_G / np.maximum(others_G, 1), 0.0)
    return _snapped(np.where(known_GT, advantage_G, 0.0), return_G[..., None])


def turn_leave_one_out(cells: Cells) -> Reals:
    """Return G_it − b_it, where b_it is the mean of G_jt over the others j that reached turn t.

    Where fewer others than half the group are there, ``prior_T`` stands in for the missing ones: for m of n rollouts,
    b_it = (Σ_j G_jt + k·prior_t) / (m + k) with k = max(0, ⌊n/2⌋ − m), at least 1 where i is alone. Without a prior
    k is 0, and b_it is 0 where i is alone.

    Unbiased, since b_it does not depend on what i does from t on; giving no advantage to a lone turn would not be.
    Half: the mean of one or two siblings is noisier than no baseline, and while half the group is there the prior
    has no say, so that a group of equals stays at exactly 0.
    """
    known_GT = rest_known(cells)
    return_GT = returns_to_go(cells.ahead_GT, cells.gamma)
    sum_GT, others_GT = _sum_of_others(return_GT, known_GT)
    if cells.prior_T is not None:
        missing_GT = np.maximum(max(1, known_GT.shape[-2] // 2) - others_GT, 0)
        sum_GT, others_GT = sum_GT + missing_GT * cells.prior_T[..., None, :], others_GT + missing_GT
    baseline_GT = sum_GT / np.maximum(others_GT, 1)
    return _snapped(np.where(known_GT, return_GT - baseline_GT, 0.0), return_GT)


def reward_to_go(cells: Cells) -> Reals:
    """Return G_it (REINFORCE++, arXiv 2501.03262, before its whitening over the batch)."""
    return np.where(rest_known(cells), returns_to_go(cells.ahead_GT, cells.gamma), 0.0)


def turn_gae(cells: Cells) -> Reals:
    """Return Σ_u (γλ)^(u−t) δ_iu with δ_it = r_it + γ V_i,t+1 − V_it over turns (GAE, arXiv 1506.02438).

    V after the last turn is ``bootstrap_G`` for a truncated rollout and 0 for one that terminated.
    """
    if cells.values_GT is None:
        raise UsageError("the advantage estimator 'gae' needs a critic: GroupRewards.values_GT is None")
    value_GT = np.where(cells.alive_GT, cells.values_GT, 0.0)
    next_GT = np.zeros_like(value_GT)
    next_GT[..., :-1] = value_GT[..., 1:]
    delta_GT = np.where(cells.alive_GT, cells.ahead_GT + cells.gamma * next_GT - value_GT, 0.0)
    return np.where(deltas_known(cells), returns_to_go(delta_GT, cells.gamma * cells.lam), 0.0)


def over_return_std(advantage_GT: Reals, known_GT: Bools) -> Reals:
    """Divide by the sample standard deviation (ddof 1) of the rollouts' advantages, plus ε.

    For advantages that are the same on every turn of a rollout. Fewer than two rollouts give 0.
    """
    member_G: Bools = np.any(known_GT, axis=-1)
    row_G = np.where(member_G, advantage_GT[..., 0], 0.0)
    count = member_G.sum(-1, keepdims=True)
    centred_G = np.where(member_G, row_G - _masked_mean(row_G, member_G, axis=(-1,)), 0.0)
    std = np.sqrt((centred_G**2).sum(-1, keepdims=True) / np.maximum(count - 1, 1))
    return np.asarray(advantage_GT / (std[..., None] + EPSILON))


def whitened(advantage_GT: Reals, known_GT: Bools) -> Reals:
    """Subtract the mean over the known turns of the last two axes and divide by their standard deviation plus ε."""
    mean = _masked_mean(advantage_GT, known_GT, axis=(-2, -1))
    centred_GT = _snapped(np.where(known_GT, advantage_GT - mean, 0.0), advantage_GT)
    std = np.sqrt(_masked_mean(centred_GT**2, known_GT, axis=(-2, -1)))
    return np.asarray(centred_GT / (std + EPSILON))


def scaled(advantage_GT: Reals, known_GT: Bools) -> Reals:
    """Divide by the spread around 0, √mean(A²), over the known turns of the last two axes; all zeros stay zeros.

    The baseline has centred A already, so no mean is subtracted: that would move credit between rollouts.
    """
    rms = np.sqrt(_masked_mean(advantage_GT**2, known_GT, axis=(-2, -1)))
    return np.divide(advantage_GT, rms, out=np.zeros_like(advantage_GT), where=np.broadcast_to(rms > 0, known_GT.shape))


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


ESTIMATORS: Mapping[str, Estimator] = {
    "turn_rtg_loo": Estimator(turn_leave_one_out, rest_known),
    "rloo": Estimator(leave_one_out, whole_known),
    "dr_grpo": Estimator(group_centred, whole_known),
    "grpo": Estimator(group_centred, whole_known, "group", over_return_std),
    "reinforce_pp": Estimator(reward_to_go, rest_known, "batch", whitened, compares=False),
    "gae": Estimator(turn_gae, deltas_known, compares=False),
}


# -------------------------------------------------------------------------------------------- baseline across batches


class TurnBaseline:
    """Moving average of the return-to-go at each turn index, by task family and component.

    ``turn_rtg_loo`` lets it stand in for siblings on turns that few of them reached. That stays unbiased as long as a
    group is estimated *before* it is taken in: `estimate` first, then `update`.

    The average weighs by rollouts: with s ← d·s + Σ G_t and c ← d·c + #alive at each update that sees turn t,
    the value is s / c, and 0 for a turn never seen.
    """

    def __init__(self, *, decay: float = 0.9, gamma: float = 1.0) -> None:
        _check_unit("decay", decay)
        _check_unit("gamma", gamma)
        self.decay = decay
        self.gamma = gamma
        self._sums: dict[tuple[str, str], Reals] = {}
        self._counts: dict[tuple[str, str], Reals] = {}

    def value(self, turn: int, *, family: str = "", component: str = SUM) -> float:
        """Return the average at ``turn``, 0 where nothing is known."""
        return float(self.values(turn + 1, family=family, component=component)[turn])

    def values(self, turns: int, *, family: str = "", component: str = SUM) -> Reals:
        """Return the averages ``[T]`` of the first ``turns`` turns."""
        value_T = np.zeros(turns)
        key = (family, component)
        if key in self._sums:
            seen = min(turns, len(self._sums[key]))
            count_T = self._counts[key][:seen]
            np.divide(self._sums[key][:seen], count_T, out=value_T[:seen], where=count_T > 0)
        return value_T

    def update(self, groups: Sequence[GroupRewards]) -> None:
        """Take in a batch whose advantages have been estimated."""
        batches: dict[tuple[str, str], list[Cells]] = {}
        for group in groups:
            for name, (_, cells) in _columns(group, gamma=self.gamma, lam=1.0, baseline=None).items():
                batches.setdefault((group.family, name), []).append(cells)
        for (family, name), cells_of in batches.items():
            tallies = [_tally(cells) for cells in cells_of]
            self._step((family, name), _summed([s for s, _ in tallies]), _summed([c for _, c in tallies]))

    def absorb(self, cells: Cells, *, family: str = "", component: str = SUM) -> None:
        """Take in one column of many groups at once, as `update` does for a batch."""
        self._step((family, component), *_tally(cells))

    def _step(self, key: tuple[str, str], sum_T: Reals, count_T: Reals) -> None:
        decay_T = np.where(count_T > 0, self.decay, 1.0)
        for table, new_T in ((self._sums, sum_T), (self._counts, count_T)):
            turns = max(len(new_T), len(table.get(key, ())))
            old_T = _padded(table.get(key, np.zeros(0)), turns)
            table[key] = old_T * _padded(decay_T, turns, fill=1.0) + _padded(new_T, turns)

    def state(self) -> dict[str, Any]:
        """Return everything as plain lists, numbers and strings."""
        tables = [
            {"family": key[0], "component": key[1], "sum": sum_T.tolist(), "count": self._counts[key].tolist()}
            for key, sum_T in sorted(self._sums.items())
        ]
        return {"decay": self.decay, "gamma": self.gamma, "tables": tables}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> TurnBaseline:
        """Return the baseline that `state` described."""
        baseline = cls(decay=state["decay"], gamma=state["gamma"])
        for table in state["tables"]:
            key = (table["family"], table["component"])
            baseline._sums[key] = np.array(table["sum"], np.float64)
            baseline._counts[key] = np.array(table["count"], np.float64)
        return baseline


# ----------------------------------------------------------------------------------------------------- the one call


def estimate(
    groups: Sequence[GroupRewards],
    *,
    name: str = "turn_rtg_loo",
    gamma: float = 1.0,
    lam: float = 1.0,
    by_component: bool = False,
    scale: Scale = "none",
    baseline: TurnBaseline | None = None,
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

    Raises:
        UnknownNameError: no such estimator.
        UsageError: a value out of range, a single rollout where siblings are compared, ``gae`` without values, or a
            baseline kept under another discount.
    """
    if name not in ESTIMATORS:
        raise unknown_name("advantage estimator", name, ESTIMATORS)
    _check_unit("gamma", gamma)
    _check_unit("lam", lam)
    if scale not in get_args(Scale):
        raise unknown_name("advantage scale", scale, get_args(Scale))
    if baseline is not None and baseline.gamma != gamma:
        raise UsageError(f"the baseline was kept with gamma={baseline.gamma}; the estimate asks for gamma={gamma}")
    estimator = ESTIMATORS[name]
    for group in groups:
        _check_group(group, name, by_component, baseline)

    columns = [_columns(group, gamma=gamma, lam=lam, baseline=baseline) for group in groups]
    parts = [{c: _part(estimator, cells, weight) for c, (weight, cells) in column.items()} for column in columns]
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
    return [part[SUM].advantage_GT for part in totals]


def has_signal(advantage_GT: Reals) -> bool:
    """Return whether a group moves the policy at all; one that does not may be dropped without changing a gradient."""
    return bool(np.any(advantage_GT != 0.0))


# ------------------------------------------------------------------------------------------------------------- inside


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
    return _Part(_snapped(weighted_CGT.sum(0), np.abs(weighted_CGT).max(0)), known_GT, 1.0)


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
        stacked_GT = np.concatenate([_padded(parts[i][c].advantage_GT, turns) for i in owners])
        known_GT = np.concatenate([_padded(parts[i][c].known_GT, turns) for i in owners])
        stacked_GT = normalise(stacked_GT, known_GT)
        start = 0
        for i in owners:
            part = parts[i][c]
            size, own_turns = part.known_GT.shape
            result[i][c] = _Part(stacked_GT[start : start + size, :own_turns], part.known_GT, part.weight)
            start += size
    return [{c: normal[c] for c in part} for part, normal in zip(parts, result, strict=True)]


def _columns(
    group: GroupRewards, *, gamma: float, lam: float, baseline: TurnBaseline | None
) -> dict[str, tuple[float, Cells]]:
    """Return weight and cells of each component, or of their sum where a critic takes part."""
    turns = group.alive_GT.shape[1]
    weights = group.weights or (1.0,) * len(group.components)

    def cells(name: str, reward_GT: Reals, measured_GT: Bools | None) -> Cells:
        prior_T = None if baseline is None else baseline.values(turns, family=group.family, component=name)
        end_G = group.bootstrap_G
        if end_G is not None:
            end_G = np.zeros_like(end_G) if group.truncated_G is None else np.where(group.truncated_G, end_G, 0.0)
        return Cells(reward_GT, group.alive_GT, measured_GT, gamma, lam, group.values_GT, end_G, prior_T)

    measured_GTC = group.measured_GTC
    if group.has_critic:
        counts_C = np.array(weights) != 0
        known_GT = None if measured_GTC is None else np.all(measured_GTC | ~counts_C, axis=2)
        paid_GTC = group.reward_GTC if measured_GTC is None else np.where(measured_GTC, group.reward_GTC, 0.0)
        return {SUM: (1.0, cells(SUM, paid_GTC @ np.array(weights, np.float64), known_GT))}
    return {
        name: (
            weights[c],
            cells(name, group.reward_GTC[:, :, c], None if measured_GTC is None else measured_GTC[:, :, c]),
        )
        for c, name in enumerate(group.components)
    }


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


def _check_unit(name: str, value: float) -> None:
    if not (math.isfinite(value) and 0.0 <= value <= 1.0):
        raise UsageError(f"{name} must lie in [0, 1], not {value}")


def _masked_mean(x: Reals, mask: Bools, *, axis: tuple[int, ...]) -> Reals:
    """Return the mean of ``x`` where ``mask``, 0 where nothing is; reduced axes are kept."""
    total = np.where(mask, x, 0.0).sum(axis, keepdims=True)
    return np.asarray(total / np.maximum(mask.sum(axis, keepdims=True), 1), np.float64)


def _sum_of_others(x_GT: Reals, mask_GT: Bools) -> tuple[Reals, NDArray[np.int64]]:
    """Return, for each cell, the sum over the other masked rows of its column, and how many there are."""
    kept_GT = np.where(mask_GT, x_GT, 0.0)
    return kept_GT.sum(-2, keepdims=True) - kept_GT, mask_GT.sum(-2, keepdims=True) - mask_GT


def _snapped(advantage_GT: Reals, source_GT: Reals) -> Reals:
    """Set what is only rounding of ``source_GT`` to exactly 0, so that no later division blows it up."""
    limit = ROUNDING * np.abs(source_GT).max(axis=(-2, -1), keepdims=True, initial=0.0)
    return np.where(np.abs(advantage_GT) <= limit, 0.0, advantage_GT)


def _tally(cells: Cells) -> tuple[Reals, Reals]:
    """Return the sum of returns-to-go and the number of rollouts at each turn."""
    known_GT = rest_known(cells)
    return_GT = np.where(known_GT, returns_to_go(cells.ahead_GT, cells.gamma), 0.0)
    axes = tuple(range(known_GT.ndim - 1))
    return return_GT.sum(axes), known_GT.sum(axes).astype(np.float64)


def _summed(rows: Sequence[Reals]) -> Reals:
    """Return the sum of arrays ``[T]`` of different lengths."""
    turns = max(len(row) for row in rows)
    return np.asarray(np.sum([_padded(row, turns) for row in rows], axis=0), np.float64)


def _padded(array: NDArray[DType], turns: int, fill: float = 0.0) -> NDArray[DType]:
    """Return ``array`` with its last axis filled up to ``turns``."""
    width = [(0, 0)] * (array.ndim - 1) + [(0, turns - array.shape[-1])]
    return np.pad(array, width, constant_values=fill)


__all__ = [
    "ESTIMATORS",
    "Cells",
    "Estimator",
    "GroupRewards",
    "Scale",
    "TurnBaseline",
    "deltas_known",
    "estimate",
    "group_centred",
    "has_signal",
    "leave_one_out",
    "over_return_std",
    "rest_known",
    "returns_to_go",
    "reward_to_go",
    "scaled",
    "turn_gae",
    "turn_leave_one_out",
    "whitened",
    "whole_known",
]
