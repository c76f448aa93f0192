"""Checklist rewards: many binary items, assigned to the trajectory, to its stages or to its turns (CM2, Eqs. 2-10).

An item is earned by the turn that satisfies it, if all it depends on was satisfied before; it is earned at most once.
`checklist` prices the signals of `checklist_judge`, or of a world that measures items itself: ``checklist_item`` with
the item's name, at each turn of its stage, 1 where the item is satisfied after that turn.

Source: CM2, "Reinforcement Learning with Checklist Rewards for Multi-Turn and Multi-Step Agentic Tool Use"; the
divisor 1 in place of the standard deviation, as used there, is the trainer's to change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from agentgym.claims import Claim, Measured, kleene_and
from agentgym.errors import ConfigError, unknown_name
from agentgym.ledger import WHOLE
from agentgym.reward import Gate, Openness, Part, Shaper

from .checklist_items import Checklist, checklist_of
from .moments import Moments, Reals, Rows, stage_moments, stage_of_turns

SIGNAL = "checklist_item"
"""1 where the item is satisfied after the turn, else 0."""

Assignment = Literal["trajectory", "stage", "step"]
Missing = Literal["mask", "leave_out"]
Unreached = Literal["leave_out", "zero"]


@dataclass(frozen=True, slots=True)
class Terms:
    """How a checklist is read; the defaults are the paper's.

    Raises:
        UnknownNameError: a value that is none of those named.
        ConfigError: ``holders`` below 1.
    """

    missing: Missing = "mask"
    """An item whose worth depends on what was not measured leaves the trajectory (or turn) unmeasured (``mask``, which
    drops what the authors' code drops), or is left out of its weighted mean (``leave_out``)."""
    unreached: Unreached = "leave_out"
    """A stage the rollout did not reach is left out of the mean over its stages (Eq. 4) and of the baselines, or counts
    as 0, as in the authors' code for the trajectory (division by the reference's number of stages)."""
    dependencies: bool = True
    "Whether an item must wait for those it depends on; the authors' code for trajectory and stage does not ask."
    holders: int = 1
    "How many rollouts a baseline needs; where fewer were there, nothing is paid, where fewer tell, it is unmeasured."
    normalised: bool = True
    "Whether what a step is paid is divided by the weights of the items it could earn (Eq. 10)."

    def __post_init__(self) -> None:
        if self.missing not in get_args(Missing):
            raise unknown_name("way with missing items", self.missing, get_args(Missing))
        if self.unreached not in get_args(Unreached):
            raise unknown_name("way with unreached stages", self.unreached, get_args(Unreached))
        if self.holders < 1:
            raise ConfigError(f"a baseline needs at least 1 rollout, not {self.holders}")


PAPER = Terms()
SHIPPED: Mapping[Assignment, Terms] = {
    "trajectory": Terms(unreached="zero", dependencies=False),
    "stage": Terms(dependencies=False, holders=5),
    "step": Terms(holders=4, normalised=False),
}
"""What the authors' code does in place of the equations, which are the default here."""


def checklist(
    assignment: Assignment = "trajectory",
    *,
    items: Checklist | None = None,
    terms: Terms = PAPER,
    signal: str = SIGNAL,
    name: str = "checklist",
) -> Shaper:
    """Return the reward of a checklist, the task's own unless ``items`` are given.

    ``trajectory`` pays ``R = Σ w r / L`` in [0, 1] once (Eq. 4), the paper's choice. The other two pay an advantage,
    centred on the siblings, that wants no further baseline: train on it ``as_paid``. ``stage`` pays ``Σ w (r − b)`` at
    every turn of the stage (Eq. 7), ``step`` pays at each turn ``Σ w (r̃ − b) / Σ w`` over the items that could still
    be earned there (Eqs. 3, 8-10), and nothing where there is none.

    Breaks *bounded*: an advantage is paid at every turn. Breaks *prefix-only*: what is earned later counts now,
    and siblings are compared by all they earned.

    Raises:
        UnknownNameError: another assignment.
    """
    if assignment not in get_args(Assignment):
        raise unknown_name("checklist assignment", assignment, get_args(Assignment))
    whole = assignment == "trajectory"

    def claims(measured: Measured) -> tuple[Claim, ...]:
        table = _read(measured, items or checklist_of(measured.group), terms, signal)
        return ((_trajectory if whole else _turns)(measured, table, assignment, terms, name),)

    part = Part(name, "trajectory", 0.0, 1.0) if whole else Part(name, "turn", -1.0, 1.0)
    return Shaper(name, (part,), claims, frozenset({signal}), needs_group=not whole)


def requirement(*, items: Checklist | None = None, signal: str = SIGNAL) -> Gate:
    """Return the gate that is open up to the stage in which an item ``required_for_next_turn`` was not satisfied.

    In CM2 the user says no more after such a stage; in an episode that was not cut off there, the gate shuts what
    came later. What is paid for the whole trajectory is paid where its last stage was entered rightly.
    """

    def decide(measured: Measured) -> Openness:
        listed = items or checklist_of(measured.group)
        stage_N = stage_of_turns(measured)
        owner_N = np.repeat(np.arange(len(measured.turns_G)), measured.turns_G)
        open_N = np.ones(len(stage_N))
        for stage, stage_items in enumerate(listed.stages):
            _, moments = stage_moments(measured, listed, stage, stage_N, signal)
            later_N = stage_N > stage
            for item, moment in zip(stage_items, moments, strict=True):
                if item.required_for_next_turn:
                    open_N = np.where(later_N, kleene_and(open_N, moment.satisfied_G()[owner_N]), open_N)
        open_GT = np.ones((len(measured.turns_G), measured.width))
        open_GT[np.arange(measured.width) < measured.turns_G[:, None]] = open_N
        return open_GT

    return Gate("requirement", decide, frozenset({signal}))


@dataclass(frozen=True, slots=True, eq=False)
class _Stage:
    rows: Rows
    weight_C: Reals
    dependencies: tuple[list[Moments], ...]
    moments: list[Moments]
    earned_GC: Reals
    "r of Eq. 2 summed over the steps: 1, 0 or NaN; 0 where the stage was not reached."
    reached_G: NDArray[np.bool_]


def _read(measured: Measured, listed: Checklist, terms: Terms, signal: str) -> list[_Stage]:
    stage_N = stage_of_turns(measured)
    stages = []
    for number, items in enumerate(listed.stages):
        rows, moments = stage_moments(measured, listed, number, stage_N, signal)
        places = listed.dependencies(number) if terms.dependencies else ((),) * len(items)
        dependencies = tuple([moments[place] for place in each] for each in places)
        earned = [moment.earned_G(needed) for moment, needed in zip(moments, dependencies, strict=True)]
        weight_C = np.array([item.weight for item in items])
        reached_G = moments[0].last_G >= 0
        stages.append(_Stage(rows, weight_C, dependencies, moments, np.stack(earned, axis=1), reached_G))
    return stages


def _trajectory(measured: Measured, stages: list[_Stage], _: str, terms: Terms, name: str) -> Claim:
    """Return Eq. 4 as the mean of r weighted by w over the items of the stages that count; their weights sum to L."""
    sum_G, weight_G = np.zeros(len(measured.turns_G)), np.zeros(len(measured.turns_G))
    signal_G = np.full(len(measured.turns_G), WHOLE, np.int32)
    for stage in stages:
        counts_G = stage.reached_G if terms.unreached == "leave_out" else np.ones_like(stage.reached_G)
        for weight, earned_G, moment in zip(stage.weight_C, stage.earned_GC.T, stage.moments, strict=True):
            unknown_G = np.isnan(earned_G) & (weight > 0)
            signal_G = np.where(unknown_G & (signal_G == WHOLE), moment.signal_G, signal_G)
            used_G = counts_G & ~unknown_G if terms.missing == "leave_out" else counts_G
            sum_G += np.where(used_G & (weight > 0), weight * earned_G, 0.0)
            weight_G += np.where(used_G, weight, 0.0)
    nothing_G = np.logical_and.reduce([np.ones(len(sum_G), np.bool_), *(~stage.reached_G for stage in stages)])
    value_G = np.divide(sum_G, weight_G, out=np.where(nothing_G, 0.0, np.nan), where=weight_G > 0)
    claim = measured.lift(name, "trajectory", value_G.tolist())
    return replace(claim, signal=signal_G)


def _turns(measured: Measured, stages: list[_Stage], assignment: str, terms: Terms, name: str) -> Claim:
    claim = measured.lift(name, "turn", [np.zeros(turns) for turns in measured.turns_G])
    value_N, eligible_N = claim.value.copy(), np.zeros(len(claim.value), np.bool_)
    signal_N = claim.signal.copy()
    for stage in stages:
        amount_N, open_N, unknown_N = _stage_turns(stage, assignment, terms)
        value_N[stage.rows.row], eligible_N[stage.rows.row] = amount_N, open_N
        signal_N[stage.rows.row] = unknown_N
    return replace(claim, raw=value_N, value=value_N, eligible=eligible_N, signal=signal_N)


def _stage_turns(stage: _Stage, assignment: str, terms: Terms) -> tuple[Reals, NDArray[np.bool_], NDArray[np.int32]]:
    """Return what each turn of a stage is paid, whether anything could be, and what was not measured."""
    owner_N = stage.rows.trajectory
    sum_N, weight_N = np.zeros(len(owner_N)), np.zeros(len(owner_N))
    any_N = np.zeros(len(owner_N), np.bool_)
    signal_N = np.full(len(owner_N), WHOLE, np.int32)
    for place, (weight, moment) in enumerate(zip(stage.weight_C, stage.moments, strict=True)):
        baseline = _baseline(stage, place, terms)
        if baseline is None or weight == 0:
            continue
        eligible_N = (
            moment.eligible_N(stage.rows, stage.dependencies[place]) if assignment == "step" else np.ones(len(owner_N))
        )
        # Who is eligible earns by satisfying the item at whatever later turn: r̃ of Eq. 3.
        got_G = moment.satisfied_G() if assignment == "step" else stage.earned_GC[:, place]
        amount_N = np.where(eligible_N == 0, 0.0, weight * eligible_N * (got_G[owner_N] - baseline))
        unknown_N = np.isnan(amount_N)
        signal_N = np.where(unknown_N & (signal_N == WHOLE), moment.signal_G[owner_N], signal_N)
        left_out_N = unknown_N if terms.missing == "leave_out" else np.zeros_like(unknown_N)
        sum_N += np.where(left_out_N, 0.0, amount_N)
        weight_N += np.where(left_out_N, 0.0, weight * eligible_N)
        any_N |= eligible_N != 0
    if assignment == "stage" and terms.missing == "mask":
        return sum_N, any_N, signal_N
    if assignment == "step" and not terms.normalised:
        return np.where(weight_N != 0, sum_N, np.nan), any_N, signal_N
    return np.divide(sum_N, weight_N, out=np.full(len(sum_N), np.nan), where=weight_N != 0), any_N, signal_N


def _baseline(stage: _Stage, place: int, terms: Terms) -> float | None:
    """Return b of Eq. 8, the share of rollouts that earned the item: NaN where too few tell, None where too few are."""
    counts_G = stage.reached_G if terms.unreached == "leave_out" else np.ones_like(stage.reached_G)
    earned_G = stage.earned_GC[counts_G, place]
    known_G = earned_G[~np.isnan(earned_G)]
    if len(earned_G) < terms.holders:
        return None
    return float(known_G.mean()) if len(known_G) >= terms.holders else math.nan


__all__ = ["PAPER", "SHIPPED", "SIGNAL", "Assignment", "Missing", "Terms", "Unreached", "checklist", "requirement"]
