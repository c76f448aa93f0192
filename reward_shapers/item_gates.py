"""Gates between the items of a checklist or rubric: dependencies, connection to the answer, requirements of a stage.

An item is known by its name and by a gate that is open where it is satisfied, such as
``threshold("item", ">", 0, scope="trajectory")``. All logic has three values: an unmeasured item leaves another's gate
undecided only where the decision depends on it.
"""

from __future__ import annotations

import functools
import graphlib
import operator
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from agentgym.claims import Measured, kleene_and
from agentgym.errors import ConfigError, unknown_name
from agentgym.reward import Gate, Openness, Shaper

Bools = NDArray[np.bool_]


def dependencies(satisfied: Mapping[str, Gate], needs: Mapping[str, Collection[str]]) -> dict[str, Gate]:
    """Return for each item that depends on others the gate that is open where all of those are satisfied.

    Those it names, not those they depend on in their turn, as in CM2, Eq. 2.

    Raises:
        UnknownNameError: an item depends on one that is not there, or is not there itself.
        ConfigError: the dependencies form a circle.
    """
    for name in (*needs, *(need for of_item in needs.values() for need in of_item)):
        if name not in satisfied:
            raise unknown_name("item", name, satisfied)
    try:
        graphlib.TopologicalSorter(needs).prepare()
    except graphlib.CycleError as error:
        raise ConfigError(f"dependencies of items form a circle: {' -> '.join(error.args[1])}") from error
    return {
        item: functools.reduce(operator.and_, (satisfied[need] for need in sorted(of_item)))
        for item, of_item in needs.items()
        if of_item
    }


def dependent(
    rewards: Mapping[str, Shaper], satisfied: Mapping[str, Gate], needs: Mapping[str, Collection[str]]
) -> Shaper:
    """Return the sum of the items' rewards, each paid where what it depends on is satisfied.

    Raises:
        UnknownNameError, ConfigError: as `dependencies`; or there is no reward.
    """
    if not rewards:
        raise ConfigError("dependent needs at least one item")
    gates = dependencies(satisfied, needs)
    gated = [reward.when(gates[item]) if item in gates else reward for item, reward in rewards.items()]
    return functools.reduce(operator.add, gated)


def connected(
    supported: Mapping[str, Gate], entities: Mapping[str, Collection[str]], *, root: str = "E0"
) -> dict[str, Gate]:
    """Return for each rubric the gate that is open where it is supported and connected to the entity ``root``.

    Supported rubrics join the entities they name; a rubric counts where such joins lead to it from the root. Source:
    C-GRPO, arXiv 2601.06021, where the root is the answer.

    Raises:
        ConfigError: rubrics and entities are not given for the same names, or no rubric names the root.
    """
    if set(supported) != set(entities) or not supported:
        raise ConfigError(
            f"rubrics {', '.join(sorted(supported)) or '(none)'} and those with entities "
            f"{', '.join(sorted(entities)) or '(none)'} must be the same"
        )
    known = sorted({entity for named in entities.values() for entity in named})
    if root not in known:
        raise unknown_name("entity", root, known)
    names_RE = np.array([[entity in entities[rubric] for entity in known] for rubric in supported])
    gates = list(supported.values())

    def every(measured: Measured) -> Openness:
        openness_RGT = np.stack([measured.openness_GT(gate) for gate in gates])
        least, most = (
            _reached(np.nan_to_num(openness_RGT, nan=unknown) > 0, names_RE, known.index(root)) for unknown in (0, 1)
        )
        return np.where(least == most, least.astype(np.float64), np.nan)

    def one(place: int, rubric: str) -> Gate:
        return Gate(
            f"connected({rubric})",
            lambda measured: every(measured)[place],
            frozenset().union(*(gate.signals for gate in gates)),
            any(gate.needs_group for gate in gates),
        )

    return {rubric: one(place, rubric) for place, rubric in enumerate(supported)}


def required(satisfied: Mapping[int, Gate]) -> Gate:
    """Return the gate that is open at the turns all of whose earlier stages met their requirement.

    ``satisfied`` holds for a stage, counted from 0, the gate of its required items; it is read at the stage's last
    turn. This is the offline counterpart of CM2's rule that the next user turn comes only once the required items are
    satisfied. What is paid for the whole trajectory is let through by the stages before its last one.
    """
    if not satisfied:
        raise ConfigError("required needs the gate of at least one stage")

    def decide(measured: Measured) -> Openness:
        stage_GT = _stages(measured)
        openness_GT = np.ones(stage_GT.shape)
        for stage, gate in satisfied.items():
            met_G = _at_end(measured.openness_GT(gate), stage_GT == stage)
            openness_GT = np.where(stage_GT > stage, kleene_and(openness_GT, met_G[:, None]), openness_GT)
        return openness_GT

    return Gate(
        f"required({', '.join(str(gate) for gate in satisfied.values())})",
        decide,
        frozenset().union(*(gate.signals for gate in satisfied.values())),
        any(gate.needs_group for gate in satisfied.values()),
    )


def _reached(on_RGT: Bools, names_RE: Bools, root: int) -> Bools:
    """Return which rubrics are on and joined to the root entity by rubrics that are on, (R, G, T)."""
    on_RN = on_RGT.reshape(len(on_RGT), -1)
    entity_EN = np.zeros((names_RE.shape[1], on_RN.shape[1]), np.bool_)
    entity_EN[root] = True
    while True:
        live_RN = on_RN & ((names_RE.astype(np.int32) @ entity_EN) > 0)
        wider_EN = entity_EN | ((names_RE.T.astype(np.int32) @ live_RN) > 0)
        if (wider_EN == entity_EN).all():
            return np.asarray(live_RN.reshape(on_RGT.shape))
        entity_EN = wider_EN


def _stages(measured: Measured) -> NDArray[np.int32]:
    """Return the stage of each turn (G, T), -1 where there is none."""
    stage_GT = np.full((len(measured.turns_G), measured.width), -1, np.int32)
    for g, trajectory in enumerate(measured.group.trajectories):
        stage_GT[g, : len(trajectory.turns)] = [turn.stage for turn in trajectory.turns]
    return stage_GT


def _at_end(openness_GT: Openness, here_GT: Bools) -> Openness:
    """Return the openness (G,) at the last turn of each row that is ``here``, 1 where none is."""
    last_G = here_GT.shape[1] - 1 - np.argmax(here_GT[:, ::-1], axis=1)
    return np.where(here_GT.any(1), openness_GT[np.arange(len(last_G)), last_G], 1.0)


__all__ = ["connected", "dependencies", "dependent", "required"]
