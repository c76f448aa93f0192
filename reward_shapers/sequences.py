"""Changes of an amount by where it stands in its episode: differences of turns, decay with counts and with length."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np

from agentgym.claims import Claim, Ints, Measured
from agentgym.errors import ConfigError, UsageError
from agentgym.reward import Rewrite, Shaper, finite
from agentgym.types import Trajectory

Key = Callable[[Trajectory], Sequence[Hashable]]
"""Something to count for each turn of a trajectory: a function of what was recorded of it."""


def delta(reward: Shaper) -> Shaper:
    """Return the step scores of ``reward`` as differences: r_k = p_k − p_{k+1}, r_{K−1} = p_{K−1}, r_K = 0 (Delta).

    The return from step k on is then p_k, however many steps there are: a trivial step repeated earns nothing. The
    last step is the answer and earns nothing here, so its entry is ineligible. Source: arXiv 2410.15115. Breaks the law
    that a turn's reward does not depend on what follows, by design: it is what makes the sum telescope.

    Raises:
        ConfigError: the reward pays something that belongs to no turn.
    """
    _check_turns("delta", reward)

    def apply(_: Measured, claim: Claim) -> Claim:
        following = _next_row(claim)
        last = following < 0
        before_last = ~last & last[following]
        step = claim.value - np.where(before_last, 0.0, claim.value[following])
        return replace(claim, value=np.where(last, 0.0, step), eligible=claim.eligible & ~last)

    return reward.then(Rewrite("delta({})", apply, _bounds_of_difference))


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


def turn_count(trajectory: Trajectory) -> float:
    """Return the length of a trajectory in turns."""
    return len(trajectory.turns)


def sampled_tokens(trajectory: Trajectory) -> float:
    """Return the length of a trajectory in tokens the policy sampled; 0 for a policy without tokens."""
    return sum(len(turn.sample.token_ids_N) for turn in trajectory.turns)


def length_decay(gamma: float, length: Callable[[Trajectory], float] = turn_count) -> Rewrite:
    """Return the change ``amount · γ^|τ|``: a success counts for more the shorter it was.

    Source: VeRPO, arXiv 2601.03525, which publishes neither γ nor the unit of |τ|; turns are our choice. Breaks the law
    that a turn's reward does not depend on what follows, by design: the length is known at the end only.

    Raises:
        ConfigError: ``gamma`` is not within (0, 1].
    """
    if not 0 < gamma <= 1:
        raise ConfigError(f"gamma of a length decay is {gamma}; it must be above 0 and at most 1")

    def apply(measured: Measured, claim: Claim) -> Claim:
        decay = np.array([gamma ** length(trajectory) for trajectory in measured.group.trajectories])
        return replace(claim, value=claim.value * decay[claim.trajectory])

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


def _next_row(claim: Claim) -> Ints:
    """Return for each row the row of the same item one step later, -1 for the last."""
    order = np.lexsort((claim.turn, claim.item, claim.trajectory)).astype(np.int32)
    here, after = order[:-1], order[1:]
    same = (claim.trajectory[here] == claim.trajectory[after]) & (claim.item[here] == claim.item[after])
    following = np.full(len(order), -1, np.int32)
    following[here[same]] = after[same]
    return following


def _bounds_of_difference(low: float, high: float) -> tuple[float, float]:
    if not (math.isfinite(low) and math.isfinite(high)):
        return -math.inf, math.inf
    return min(low - high, low, 0.0), max(high - low, high, 0.0)


def _bounds_with_zero(low: float, high: float) -> tuple[float, float]:
    return min(low, 0.0), max(high, 0.0)


def _check_turns(what: str, reward: Shaper) -> None:
    whole = [part.component for part in reward.parts if part.scope != "turn"]
    if whole:
        raise ConfigError(f"{what} is about turns, but '{', '.join(whole)}' is paid for the whole trajectory")


__all__ = ["Key", "count_decay", "delta", "led_to", "length_decay", "sampled_tokens", "turn_count"]
