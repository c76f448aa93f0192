"""How long an episode is, and how much of it was said before.

Lengths count what the policy produced: ``tokens`` it sampled, ``words`` it wrote (its calls included), or ``turns`` it
took. An episode recorded without tokens has no length in tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from agentgym.errors import ConfigError, unknown_name
from agentgym.reward import Amount, Part, Scope, Shaper, finite, per_group, per_trajectory
from agentgym.tools import tool_calls_json
from agentgym.types import Group, Message, Trajectory

from .scales import End, end_at, extremes_of

Unit = Literal["tokens", "words", "turns"]


def overlong(limit: float, free: float, *, unit: Unit = "tokens") -> Shaper:
    """Return a penalty in [-1, 0]: none up to ``free``, then ``(free - L) / (limit - free)``, and -1 beyond ``limit``.

    Raises:
        ConfigError: not ``0 <= free < limit``.
        UnknownNameError: no such unit.
    """
    finite("limit of a length", limit)
    if not 0 <= free < limit:
        raise ConfigError(f"a length is free up to {free:g} and most at {limit:g}; give 0 <= free < limit")

    def penalty(trajectory: Trajectory) -> Amount:
        length = length_of(trajectory, unit)
        return None if length is None else -min(max((length - free) / (limit - free), 0.0), 1.0)

    return per_trajectory("overlong", penalty, scope="trajectory", needs=_needs(unit), low=-1.0, high=0.0)


def soft_overlong(limit: float, cache: float, *, unit: Unit = "tokens") -> Shaper:
    """Return `overlong` over the last ``cache`` before ``limit``. Source: DAPO, arXiv 2503.14476, eq. 13."""
    return overlong(limit, limit - cache, unit=unit)


def length_threshold(limit: float, share: float = 0.7, *, unit: Unit = "tokens") -> Shaper:
    """Return `overlong` from ``share`` of ``limit`` on: ``(L_th - L) / (L_max - L_th)``, arXiv 2508.03501."""
    return overlong(limit, share * limit, unit=unit)


def cosine(
    limit: float,
    *,
    correct: tuple[float, float],
    wrong: tuple[float, float],
    exceeded: float,
    outcome: str = "won",
    unit: Unit = "tokens",
) -> Shaper:
    """Return the cosine length reward: half a cosine from the first number, at length 0, to the second, at ``limit``.

    ``correct`` where the trajectory's signal ``outcome`` is above 0, ``wrong`` where it is not, and ``exceeded`` from
    ``limit`` on, whatever the outcome. It replaces an outcome reward. Source: "Demystifying Long Chain-of-Thought
    Reasoning in LLMs", arXiv 2502.03373: ``η_end + ½ (η_start - η_end)(1 + cos(π L / L_max))``.

    Raises:
        ConfigError: a number is not finite, or ``limit`` is not above 0.
        UnknownNameError: no such unit.
    """
    ends = (*correct, *wrong, exceeded)
    for end in (limit, *ends):
        finite("number of a cosine length reward", end)
    if limit <= 0:
        raise ConfigError(f"limit of a length is {limit:g}; it must be above 0")

    def amount(trajectory: Trajectory) -> Amount:
        length, measured = length_of(trajectory, unit), trajectory.signal(outcome)
        if length is not None and length >= limit:
            return exceeded
        if length is None or measured is None or measured.value is None:
            return None
        start, end = correct if measured.value > 0 else wrong
        return end + (start - end) * (1 + math.cos(math.pi * length / limit)) / 2

    needs = f"'{outcome}' and {_needs(unit)}"
    return per_trajectory(
        "cosine", amount, scope="trajectory", signals={outcome}, needs=needs, low=min(ends), high=max(ends)
    )


def repetition(size: int, *, scope: Scope = "trajectory") -> Shaper:
    """Return minus the share of ``size``-grams of words that were there before, in [-1, 0]: ``unique / all - 1``.

    N-grams lie within one message and are looked for in all messages up to it, so that a command given again and
    again counts. With ``scope="turn"`` each turn is charged for what it repeats, over all n-grams of the episode.
    Words are separated by white space and compared without case. Source: the repetition penalty of arXiv 2502.03373
    in its usual form, `1 - unique / all`.

    Breaks *prefix-only*: a turn's part is the smaller the more is said later.

    Raises:
        ConfigError: ``size`` is below 1.
    """
    if size < 1:
        raise ConfigError(f"an n-gram of {size} words holds nothing; give at least 1")

    def charged(trajectory: Trajectory) -> Sequence[float]:
        seen: set[tuple[str, ...]] = set()
        repeated_T, total = [], 0
        for turn in trajectory.turns:
            words = _words(turn.sample.message)
            grams = list(zip(*(words[start:] for start in range(size)), strict=False))
            before = len(seen)
            seen.update(grams)
            repeated_T.append(len(grams) - (len(seen) - before))
            total += len(grams)
        return [-repeated / max(total, 1) for repeated in repeated_T]

    def amount(trajectory: Trajectory) -> Amount | Sequence[Amount]:
        return charged(trajectory) if scope == "turn" else sum(charged(trajectory))

    part = Part("repetition", scope, -1.0, 0.0, total=(-1.0, 0.0))
    return replace(per_trajectory("repetition", amount, scope=scope), parts=(part,))


def thought_length(target: End = 512.0) -> Shaper:
    """Return how long thoughts are, in [0, 1]: ``min(1, words / target)`` of a turn's last ``<think>``, over turns.

    Words per target are rounded to hundredths, and a turn without the tags is worth 0, as ToolRL ships it. A length
    reward did not help there; it is here so that this can be seen. ``linear(384, 640, over=105)`` is its schedule.

    Raises:
        ConfigError: ``target`` is not above 0 at some step.
    """
    if not min(extremes_of(target)) > 0:
        raise ConfigError(f"target of a thought's length is {target}; it must be above 0")

    def amounts(group: Group) -> list[Amount]:
        most = end_at(target, group.step)
        return [_mean([_thought(turn.sample.message, most) for turn in t.turns]) for t in group.trajectories]

    lifted = per_group("thought_length", amounts, scope="trajectory", needs="a turn", low=0.0, high=1.0)
    return replace(lifted, needs_group=False)


def length_of(trajectory: Trajectory, unit: Unit) -> int | None:
    """Return how long ``trajectory`` is, or None where its tokens were not recorded."""
    check_unit(unit)
    samples = [turn.sample for turn in trajectory.turns]
    match unit:
        case "turns":
            return len(samples)
        case "words":
            return sum(len(_words(sample.message)) for sample in samples)
        case "tokens":
            lengths = [len(sample.token_ids_N) for sample in samples]
            return sum(lengths) if all(lengths) else None


def lengths_of(group: Group, unit: Unit) -> NDArray[np.float64]:
    """Return how long each trajectory is, (G,), NaN where its tokens were not recorded."""
    return np.array([length_of(trajectory, unit) for trajectory in group.trajectories], np.float64)  # None becomes NaN


def check_unit(unit: str) -> None:
    """Check that ``unit`` is one.

    Raises:
        UnknownNameError: it is not.
    """
    if unit not in get_args(Unit):
        raise unknown_name("unit of length", unit, get_args(Unit))


def _needs(unit: Unit) -> str:
    check_unit(unit)
    return "the tokens of every turn" if unit == "tokens" else f"the {unit}"


def _words(message: Message) -> list[str]:
    return (message.content + tool_calls_json(message.tool_calls)).lower().split()


def _thought(message: Message, target: float) -> float:
    if "<think>" not in message.content or "</think>" not in message.content:
        return 0.0
    words = message.content.split("<think>")[-1].split("</think>")[0].split()
    return min(1.0, round(len(words) / target, 2))


def _mean(numbers: list[float]) -> Amount:
    return sum(numbers) / len(numbers) if numbers else None


__all__ = [
    "Unit",
    "check_unit",
    "cosine",
    "length_of",
    "length_threshold",
    "lengths_of",
    "overlong",
    "repetition",
    "soft_overlong",
    "thought_length",
]
