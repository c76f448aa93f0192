"""What goes into an estimate: rewards on a dense grid of rollouts and turns, and how to look ahead on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from agentgym.errors import UsageError

Reals = NDArray[np.float64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.int32]
DType = TypeVar("DType", bound=np.generic)

ROUNDING = 1e-12
"""A difference below this share of the largest number it came from is rounding, and is set to exactly 0."""
SUM = "sum"
"""Column under which a group is priced once a critic's word about the weighted sum takes part."""


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
    states_GT: Codes | None = None
    "Code of the state each turn starts from: equal codes, equal states. Estimators that compare states need it."
    actions_GT: Codes | None = None
    "Code of what each turn did; ``rtmc`` needs it."
    solved_G: Reals | None = None
    "1 where the rollout succeeded, 0 where not, NaN where that is not known; `NegativeScaling` needs it."

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
        self._check_shape("states_GT", self.states_GT, (G, T))
        self._check_shape("actions_GT", self.actions_GT, (G, T))
        self._check_shape("solved_G", self.solved_G, (G,))
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
    omega: float = 1.0
    "Weight of the part that compares states, 1 as published (GiGPO)."
    values_GT: Reals | None = None
    bootstrap_G: Reals | None = None
    "Added after the last turn of a rollout; 0 where the episode terminated."
    prior_T: Reals | None = None
    "What a return-to-go from turn t was on average elsewhere, ``[..., T]``. It must not depend on this group."
    states_GT: Codes | None = None
    actions_GT: Codes | None = None

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


def masked_mean(x: Reals, mask: Bools, *, axis: tuple[int, ...]) -> Reals:
    """Return the mean of ``x`` where ``mask``, 0 where nothing is; reduced axes are kept."""
    total = np.where(mask, x, 0.0).sum(axis, keepdims=True)
    return np.asarray(total / np.maximum(mask.sum(axis, keepdims=True), 1), np.float64)


def sum_of_others(x_GT: Reals, mask_GT: Bools) -> tuple[Reals, NDArray[np.int64]]:
    """Return, for each cell, the sum over the other masked rows of its column, and how many there are."""
    kept_GT = np.where(mask_GT, x_GT, 0.0)
    return kept_GT.sum(-2, keepdims=True) - kept_GT, mask_GT.sum(-2, keepdims=True) - mask_GT


def snapped(advantage_GT: Reals, source_GT: Reals) -> Reals:
    """Set what is only rounding of ``source_GT`` to exactly 0, so that no later division blows it up."""
    limit = ROUNDING * np.abs(source_GT).max(axis=(-2, -1), keepdims=True, initial=0.0)
    return np.where(np.abs(advantage_GT) <= limit, 0.0, advantage_GT)


def padded(array: NDArray[DType], turns: int, fill: float = 0.0) -> NDArray[DType]:
    """Return ``array`` with its last axis filled up to ``turns``."""
    width = [(0, 0)] * (array.ndim - 1) + [(0, turns - array.shape[-1])]
    return np.pad(array, width, constant_values=fill)


def check_unit(name: str, value: float) -> None:
    """Check that ``value`` lies within 0 and 1.

    Raises:
        UsageError: it does not.
    """
    if not (math.isfinite(value) and 0.0 <= value <= 1.0):
        raise UsageError(f"{name} must lie in [0, 1], not {value}")


__all__ = [
    "ROUNDING",
    "SUM",
    "Bools",
    "Cells",
    "Codes",
    "DType",
    "GroupRewards",
    "Reals",
    "check_unit",
    "deltas_known",
    "masked_mean",
    "padded",
    "rest_known",
    "returns_to_go",
    "snapped",
    "sum_of_others",
    "whole_known",
]
