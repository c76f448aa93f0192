"""Changes of an amount by its episode: decay with what came up before, and with length."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np

from agentgym.claims import Claim, Measured
from agentgym.errors import ConfigError, UsageError
from agentgym.reward import Rewrite, Shaper, finite
from agentgym.types import Trajectory

from .length import Unit, check_unit, lengths_of

Key = Callable[[Trajectory], Sequence[Hashable]]
"""Something to count for each turn of a trajectory: a function of what was recorded of it."""


def count_decay(reward: Shaper, *, beta: float, key: Key) -> Shaper:
    """Return ``reward`` times N^−β, where N counts how often the turn's ``key`` has come up in the episode so far.

    N includes the turn itself, so that the first time pays in full. `led_to` is the key of the source, which counts
    the captions of observations. Source: ONI, `learner.py` of its repository.

    Raises:
        ConfigError: ``beta`` is negative or not finite, or the reward pays something that belongs to no turn.
    """
    finite("beta of a count decay", beta)
    if beta < 0:
        raise ConfigError(f"beta of a count decay is {beta:g}; below 0 it would pay for repetition")
    _check_turns("count_decay", reward)

    def apply(measured: Measured, claim: Claim) -> Claim:
        count = np.ones((len(measured.turns_G), measured.width))
        for g, trajectory in enumerate(measured.group.trajectories):
            count[g, : len(trajectory.turns)] = _counts(trajectory, key)
        return replace(claim, value=claim.value * count[claim.trajectory, claim.turn] ** -beta)

    return reward.then(Rewrite(f"count_decay({{}}, {beta:g})", apply, _bounds_with_zero))


def length_decay(gamma: float, *, unit: Unit = "turns") -> Rewrite:
    """Return the change ``amount · γ^|τ|``: a success counts for more the shorter it was.

    Source: VeRPO, arXiv 2601.03525, which publishes neither γ nor the unit of |τ|; turns are our choice.
    Unmeasured where the length is not known.

    Breaks *prefix-only*: the length is known in the end.

    Raises:
        ConfigError: ``gamma`` is not within (0, 1].
        UnknownNameError: no such unit.
    """
    check_unit(unit)
    if not 0 < gamma <= 1:
        raise ConfigError(f"gamma of a length decay is {gamma}; it must be above 0 and at most 1")

    def apply(measured: Measured, claim: Claim) -> Claim:
        decay_G = gamma ** lengths_of(measured.group, unit)
        return replace(claim, value=claim.value * decay_G[claim.trajectory])

    return Rewrite(f"length_decay({{}}, {gamma:g})", apply, _bounds_with_zero)


def led_to(trajectory: Trajectory) -> list[Hashable]:
    """Return for each turn the text of the observation that answered it."""
    observations = [*(turn.observation for turn in trajectory.turns[1:]), trajectory.final_observation]
    return ["\n".join(message.content for message in o) for o in observations[: len(trajectory.turns)]]


def _counts(trajectory: Trajectory, key: Key) -> list[int]:
    keys = key(trajectory)
    if len(keys) != len(trajectory.turns):
        raise UsageError(
            f"the key of a count decay gave {len(keys)} values for the {len(trajectory.turns)} turns of trajectory "
            f"'{trajectory.id}'; it must give one for each"
        )
    seen: dict[Hashable, int] = {}
    counts = []
    for one in keys:
        seen[one] = seen.get(one, 0) + 1
        counts.append(seen[one])
    return counts


def _bounds_with_zero(low: float, high: float) -> tuple[float, float]:
    return min(low, 0.0), max(high, 0.0)


def _check_turns(what: str, reward: Shaper) -> None:
    whole = [part.component for part in reward.parts if part.scope != "turn"]
    if whole:
        raise ConfigError(f"{what} is about turns, but '{', '.join(whole)}' is paid for the whole trajectory")


__all__ = ["Key", "count_decay", "led_to", "length_decay"]
