"""Attacks a reward before anything is trained on it: how often is an episode paid more for deserving no more?

An attack turns an honest, failing episode into another that deserves no more than it (`agentgym.attacks`, or a policy
that plays the same task for nothing). It is a false positive where it is paid more. This tests the reward, its probes
and their defences on these attacks; it says nothing of attacks that nobody thought of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from agentgym.attacks import Attack, Case
from agentgym.env import Environment
from agentgym.errors import ConfigError
from agentgym.evaluate import wilson
from agentgym.measure import Measuring, each
from agentgym.probe import Probe
from agentgym.reward import Shaper
from agentgym.types import Trajectory

ORACLE = "oracle"
"""The one that is no attack: an expert's episode, which ought to be paid more than a failing one."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One episode to be priced beside the honest one."""

    attack: str
    case: Case
    attacked: Case


@dataclass(frozen=True, slots=True)
class Finding:
    """What one attack came to. For the oracle a hit is an episode that is *not* paid more than the failing one."""

    attack: str
    episodes: int
    "Attacked episodes whose price, and the honest one's, is known."
    hits: int
    "Those that were paid more than they deserve."
    rate: float
    low: float
    "Lower end of the 95 % Wilson interval."
    high: float
    unmeasured: int
    "Attacked episodes that could not be priced."
    honest: float
    "Mean of what the honest episodes are paid; NaN where there is none."
    attacked: float


@dataclass(frozen=True, slots=True)
class Audit:
    """What a reward falls for."""

    reward: str
    probes: tuple[str, ...]
    cases: int
    "Honest episodes that failed, each of another group."
    above: float | None
    "Price above which an attack has worked; None: what the honest episode is paid."
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Finding | None:
        """The attack with the highest rate, the oracle left aside; None where none could be measured."""
        known = [finding for finding in self.findings if finding.attack != ORACLE and finding.episodes]
        return max(known, key=lambda finding: finding.rate, default=None)

    def require(self, max_rate: float) -> None:
        """Check that no attack works more often than ``max_rate``.

        Raises:
            ConfigError: one does, or none could be measured.
        """
        worst = self.worst
        if worst is None:
            raise ConfigError(f"the audit of '{self.reward}' could measure no attack; it says nothing of this reward")
        if worst.rate > max_rate:
            raise ConfigError(
                f"reward '{self.reward}' falls for '{worst.attack}' in {worst.hits} of {worst.episodes} episodes, "
                f"above audit.max_rate {max_rate:g}; see agentgym reward audit, mend the reward, or raise the limit "
                "(left out: no audit)"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, and the name of the worst attack."""
        return asdict(self) | {"worst": self.worst.attack if self.worst else None}


def trials(cases: Sequence[Case], attacks: Iterable[Attack]) -> list[Trial]:
    """Return each attack on each case that it applies to."""
    made = [(attack.name, case, attack.make(case)) for attack in attacks for case in cases]
    return [Trial(name, case, attacked) for name, case, attacked in made if attacked is not None]


async def audit(
    shaper: Shaper,
    trials: Sequence[Trial],
    *,
    probes: Sequence[Probe] = (),
    above: float | None = None,
    make_environment: Callable[[], Environment] | None = None,
) -> Audit:
    """Price each trial and the honest episode it was made from; return how often each attack pays.

    Args:
        probes: measure what the world does not. Their signals are measured anew for every episode.
        above: price above which an attack has worked; None: what the honest episode is paid.
        make_environment: gives a world like the one the episodes were played in, for probes that reopen it.

    Raises:
        ConfigError: the reward reads a signal that neither the world nor the probes measure.
        UsageError: a probe needs something that recorded episodes do not hold.
    """
    cases = list(dict.fromkeys(trial.case for trial in trials))
    world = {signal.name for case in cases for t in case.group.trajectories for signal in t.signals}
    shaper.require(world.union(*(probe.signals for probe in probes)), "the world, or a probe that was named,")
    async with Measuring(probes, make_environment) as measuring:
        honest = dict(zip(cases, await _prices(shaper, cases, measuring), strict=True))
        paid = await _prices(shaper, [trial.attacked for trial in trials], measuring)
    by_attack: dict[str, list[tuple[float | None, float | None]]] = {}
    for trial, price in zip(trials, paid, strict=True):
        by_attack.setdefault(trial.attack, []).append((honest[trial.case], price))
    findings = tuple(_finding(name, pairs, above) for name, pairs in by_attack.items())
    return Audit(shaper.name, tuple(probe.name for probe in probes), len(cases), above, findings)


async def _prices(shaper: Shaper, cases: Sequence[Case], measuring: Measuring) -> list[float | None]:
    """Return what each case's victim is paid; None where that is not known. What was measured before is forgotten."""
    prices: list[float | None] = [None] * len(cases)
    forgotten = frozenset[str]().union(*(probe.signals for probe in measuring.probes))

    async def work(item: tuple[int, Case]) -> None:
        index, case = item
        trajectories = tuple(without(trajectory, forgotten) for trajectory in case.group.trajectories)
        group, _ = await measuring.group(replace(case.group, trajectories=trajectories))
        ledger = shaper(group)[case.victim]
        prices[index] = ledger.total() if ledger.measured else None

    await each(enumerate(cases), work)
    return prices


def without(trajectory: Trajectory, names: Collection[str]) -> Trajectory:
    """Return ``trajectory`` without its signals of these ``names``."""
    return replace(trajectory, signals=tuple(signal for signal in trajectory.signals if signal.name not in names))


def _finding(attack: str, pairs: Sequence[tuple[float | None, float | None]], above: float | None) -> Finding:
    known = [(honest, paid) for honest, paid in pairs if honest is not None and paid is not None]
    hits = sum(_hit(attack, honest, paid, above) for honest, paid in known)
    low, high = wilson(hits, len(known))
    return Finding(
        attack=attack,
        episodes=len(known),
        hits=hits,
        rate=hits / len(known) if known else math.nan,
        low=low,
        high=high,
        unmeasured=len(pairs) - len(known),
        honest=_mean([honest for honest, _ in known]),
        attacked=_mean([paid for _, paid in known]),
    )


def _hit(attack: str, honest: float, paid: float, above: float | None) -> bool:
    limit = honest if above is None else above
    more = paid > limit + _ROUNDING * max(1.0, abs(limit))
    return not more if attack == ORACLE else more


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


__all__ = ["ORACLE", "Audit", "Finding", "Trial", "audit", "trials", "without"]
