"""The algebra of rewards: what is measured is priced by shapers, let through by gates, and written into ledgers.

::

    won = signal("won", scope="trajectory")
    progress = signal("progress", scope="turn")
    reward = (won + 0.3 * progress).when(above(won, 0))
    ledgers = reward(group)                 # one Ledger for each trajectory
    str(reward)                             # won + 0.3*progress | won > 0

Pricing is a pure function of what was recorded. Logic has three values (Kleene): an unmeasured value or an undecided
gate is NaN, never 0, and spreads only as far as the answer depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agentgym.claims import Claim, Measured, Scope, kleene_and, ledgers
from agentgym.errors import ConfigError
from agentgym.ledger import Ledger
from agentgym.types import Group, Trajectory

Openness = NDArray[np.float64]
"""How far a gate is open at each turn: (G, T) in [0, 1], NaN undecided. T is the longest trajectory's, at least 1."""


Bounds = Callable[[float, float], tuple[float, float]]
"""From the least and the most that goes in to the least and the most that comes out."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is known of a component before anything is priced: an open amount is within ``[low, high]``."""

    component: str
    scope: Scope
    low: float = -math.inf
    high: float = math.inf
    gated: bool = False
    "Whether it may pay 0 instead."
    total: tuple[float, float] | None = None
    "The least and the most that an episode's amounts sum to, where that is known whatever the number of turns."

    def mapped(self, bounds: Bounds, total: Bounds | None = None) -> Part:
        """Return the part with its bounds moved by ``bounds``, and the sums of an episode within those of ``total``."""
        low, high = bounds(self.low, self.high)
        return replace(self, low=low, high=high, total=total(self.low, self.high) if total else None)

    def weighted(self, weight: float) -> Part:
        """Return the part with every amount ``weight`` times what it was."""
        total = _scaled(weight, *self.total) if self.total else None
        return replace(self.mapped(lambda low, high: _scaled(weight, low, high)), total=total)

    def range(self, turns: int) -> tuple[float, float]:
        """Return the least and the most it pays over ``turns`` turns."""
        if self.total and not self.gated:
            return self.total
        count = turns if self.scope == "turn" else 1
        low, high = (min(self.low, 0.0), max(self.high, 0.0)) if self.gated else (self.low, self.high)
        return (count * low, count * high) if count else (0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """A change of an amount that keeps its place, as ``reward.then(transform)``."""

    form: str
    "How it prints; ``{}`` stands for what it changes: ``clip({}, 0, 1)``."
    apply: Callable[[Claim], NDArray[np.float64]]
    "Return the new ``value`` column (N,) of a claim; what is unmeasured stays so."
    bounds: Bounds
    total: Bounds | None = None
    "Bounds of what the new amounts of an episode sum to, where they hold for any number of turns."

    def rewrite(self) -> Rewrite:
        """Return the same change as one that could look further."""

        def apply(_: Measured, claim: Claim) -> Claim:
            return replace(claim, value=np.where(np.isnan(claim.value), np.nan, self.apply(claim)))

        return Rewrite(self.form, apply, self.bounds, total=self.total)


@dataclass(frozen=True, slots=True, eq=False)
class Rewrite:
    """A change of an amount by more than the amount itself: other turns, other rewards, siblings, the training step."""

    form: str
    "How it prints, as of a `Transform`."
    apply: Callable[[Measured, Claim], Claim]
    "Return the claim changed; its weight is in its ``value`` already."
    bounds: Bounds
    signals: frozenset[str] = frozenset()
    "Names of the signals it reads besides those of what it changes."
    needs_group: bool = False
    total: Bounds | None = None
    "As of a `Transform`."


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """Something that lets an amount through, or not: ``a & b``, ``a | b``, ``~a``.

    ``&`` multiplies and ``|`` is its dual, so that both are Kleene's on {0, NaN, 1}: shut & unknown is shut.
    """

    name: str
    decide: Callable[[Measured], Openness]
    signals: frozenset[str] = frozenset()
    needs_group: bool = False

    def __and__(self, other: Gate) -> Gate:
        def decide(measured: Measured) -> Openness:
            return kleene_and(measured.openness_GT(self), measured.openness_GT(other))

        return self._joined(other, f"{_wrap(self.name, '|')} & {_wrap(other.name, '|')}", decide)

    def __or__(self, other: Gate) -> Gate:
        def decide(measured: Measured) -> Openness:
            return 1 - kleene_and(1 - measured.openness_GT(self), 1 - measured.openness_GT(other))

        return self._joined(other, f"{self.name} | {other.name}", decide)

    def __invert__(self) -> Gate:
        name = f"~{_wrap(self.name, '|&<>')}"
        return replace(self, name=name, decide=lambda measured: 1 - measured.openness_GT(self))

    def __str__(self) -> str:
        return self.name

    def _joined(self, other: Gate, name: str, decide: Callable[[Measured], Openness]) -> Gate:
        return Gate(name, decide, self.signals | other.signals, self.needs_group or other.needs_group)


@dataclass(frozen=True, slots=True, eq=False)
class Shaper:
    """A reward: prices the trajectories of a group.

    ``a + b``, ``a - b``, ``0.3 * a``, ``a.when(gate)`` or ``a | gate``, ``a.then(transform)``. The first ones come from
    `signal`, `per_trajectory` or `per_group`. A gate multiplies last: a transform changes what lies behind it.
    """

    name: str
    "The reward as an expression."
    parts: tuple[Part, ...]
    claims: Callable[[Measured], tuple[Claim, ...]]
    signals: frozenset[str] = frozenset()
    "Names of the signals it reads, those of its gates included."
    needs_group: bool = False
    "Whether the price of a trajectory depends on its siblings."

    def __call__(self, group: Group) -> list[Ledger]:
        """Price ``group``: one ledger for each trajectory, in order.

        Raises:
            UsageError: a trajectory must not be scored (its `StopReason` says so), or holds a malformed signal.
        """
        measured = Measured(group)
        return ledgers(self.name, self.components, measured, measured.claims(self))

    @property
    def components(self) -> tuple[str, ...]:
        """The names of the components, the rows of ``Ledger.credit_CT``. Parts with the same name are one."""
        return tuple(dict.fromkeys(part.component for part in self.parts))

    def range(self, turns: int) -> tuple[float, float]:
        """Return the least and the most it can pay for an episode of ``turns`` turns; infinite where not known."""
        ranges = [part.range(turns) for part in self.parts]
        return sum(low for low, _ in ranges), sum(high for _, high in ranges)

    def require(self, emitted: Collection[str], by: str) -> None:
        """Check that ``by``, which emits the signals ``emitted``, measures all that is priced.

        Raises:
            ConfigError: it does not; the message names what is missing and what there is.
        """
        missing = sorted(self.signals - set(emitted))
        if missing:
            raise ConfigError(
                f"reward '{self.name}' reads {', '.join(map(repr, missing))}, which {by} does not measure; "
                f"it measures: {', '.join(sorted(emitted)) or 'nothing'}"
            )

    def named(self, component: str) -> Shaper:
        """Return the same reward as a single component with a name of its own."""

        def claims(measured: Measured) -> tuple[Claim, ...]:
            return tuple(replace(claim, component=component) for claim in measured.claims(self))

        parts = tuple(replace(part, component=component) for part in self.parts)
        return replace(self, name=component, parts=parts, claims=claims)

    def when(self, gate: Gate) -> Shaper:
        """Return the reward as ``gate`` lets it through. Gates that follow each other must all be open."""

        def claims(measured: Measured) -> tuple[Claim, ...]:
            return tuple(claim.gated(gate.name, measured.openness_at(gate, claim)) for claim in measured.claims(self))

        return Shaper(
            f"{self.name} | {_wrap(gate.name, '|')}",
            tuple(replace(part, gated=True) for part in self.parts),
            claims,
            self.signals | gate.signals,
            self.needs_group or gate.needs_group,
        )

    def then(self, change: Transform | Rewrite) -> Shaper:
        """Return the reward with each amount, its weight included, changed by ``change``."""
        rewrite = change.rewrite() if isinstance(change, Transform) else change

        def claims(measured: Measured) -> tuple[Claim, ...]:
            return tuple(rewrite.apply(measured, claim.weighted()) for claim in measured.claims(self))

        return Shaper(
            rewrite.form.format(self.name),
            tuple(part.mapped(rewrite.bounds, rewrite.total) for part in self.parts),
            claims,
            self.signals | rewrite.signals,
            self.needs_group or rewrite.needs_group,
        )

    def __add__(self, other: Shaper) -> Shaper:
        return self._plus(other, f"{_wrap(self.name, '|')} + {_wrap(other.name, '|')}")

    def __sub__(self, other: Shaper) -> Shaper:
        return self._plus(-1.0 * other, f"{_wrap(self.name, '|')} - {_wrap(other.name, '|+-')}")

    def __rmul__(self, weight: float) -> Shaper:
        finite(f"weight of '{self.name}'", weight)
        return replace(
            self,
            name=f"{weight:g}*{_wrap(self.name, '|+-')}",
            parts=tuple(part.weighted(weight) for part in self.parts),
            claims=lambda measured: tuple(
                replace(claim, weight=weight * claim.weight) for claim in measured.claims(self)
            ),
        )

    def __mul__(self, weight: float) -> Shaper:
        return weight * self

    def __or__(self, gate: Gate) -> Shaper:
        return self.when(gate)

    def __str__(self) -> str:
        return self.name

    def __deepcopy__(self, memo: object) -> Shaper:
        return self  # nothing in it changes, and Gymnasium compares the copies it keeps of an environment's arguments

    def _plus(self, other: Shaper, name: str) -> Shaper:
        return Shaper(
            name,
            self.parts + other.parts,
            lambda measured: measured.claims(self) + measured.claims(other),
            self.signals | other.signals,
            self.needs_group or other.needs_group,
        )


def signal(
    name: str, *, scope: Scope, component: str = "", item: str = "", low: float = -math.inf, high: float = math.inf
) -> Shaper:
    """Return the reward that pays signal ``name`` as measured, at each turn or once for the whole trajectory.

    Where the signal is missing or has no value, the amount is unmeasured. Of several at one place the last counts.
    """

    def claims(measured: Measured) -> tuple[Claim, ...]:
        return (measured.read(name, item, scope, component or name),)

    return Shaper(component or name, (Part(component or name, scope, low, high),), claims, frozenset({name}))


Amount = float | None
"""What a function pays for one trajectory or turn; None where it cannot be told."""


def per_trajectory(
    name: str,
    function: Callable[[Trajectory], Amount | Sequence[Amount]],
    *,
    scope: Scope,
    signals: Collection[str] = (),
    needs: str = "",
    low: float = -math.inf,
    high: float = math.inf,
) -> Shaper:
    """Lift a function of one trajectory: it returns one amount or, for ``scope="turn"``, as many as there are turns.

    ``needs`` says in words what the function reads besides signals, for a ledger in which it is missing.
    """

    def each(group: Group) -> list[Amount | Sequence[Amount]]:
        return [function(trajectory) for trajectory in group.trajectories]

    lifted = per_group(name, each, scope=scope, signals=signals, needs=needs, low=low, high=high)
    return replace(lifted, needs_group=False)


def per_group(
    name: str,
    function: Callable[[Group], Sequence[Amount | Sequence[Amount]]],
    *,
    scope: Scope,
    signals: Collection[str] = (),
    needs: str = "",
    low: float = -math.inf,
    high: float = math.inf,
) -> Shaper:
    """Lift a function of a group: for each trajectory it returns what `per_trajectory` asks of its function."""

    def claims(measured: Measured) -> tuple[Claim, ...]:
        return (measured.lift(name, scope, function(measured.group), needs),)

    return Shaper(name, (Part(name, scope, low, high),), claims, frozenset(signals), needs_group=True)


def above(
    reward: Shaper, threshold: float, *, strict: bool = True, scope: Scope = "trajectory", name: str = ""
) -> Gate:
    """Return the gate that is open where ``reward`` pays more than ``threshold`` (``strict=False``: at least as much).

    For ``scope="trajectory"`` the sum over the whole trajectory decides for all of it; for ``"turn"`` each turn's own
    amount does, to which what is paid for the whole trajectory is added. Undecided where the amount is unmeasured.
    """
    finite(f"threshold of '{name or reward.name}'", threshold)

    def decide(measured: Measured) -> Openness:
        amount = measured.amounts_GT(reward, scope)
        passed = amount > threshold if strict else amount >= threshold
        return np.where(np.isnan(amount), np.nan, passed)

    label = (name or _wrap(reward.name, "|+-")) + ("@turn" if scope == "turn" else "")
    return Gate(f"{label} {'>' if strict else '>='} {threshold:g}", decide, reward.signals, reward.needs_group)


def finite(what: str, number: float) -> None:
    """Check that ``number`` is finite.

    Raises:
        ConfigError: it is not.
    """
    if not math.isfinite(number):
        raise ConfigError(f"{what} is {number}; it must be a finite number")


def _scaled(weight: float, low: float, high: float) -> tuple[float, float]:
    ends = sorted(weight * end if weight else 0.0 for end in (low, high))
    return ends[0], ends[1]


def _wrap(name: str, operators: str) -> str:
    """Return ``name``, in parentheses if one of ``operators`` stands outside of any in it."""
    depth = 0
    for before, character in zip("." + name, name, strict=False):
        depth += (character == "(") - (character == ")")
        if depth == 0 and character in operators and before == " ":
            return f"({name})"
    return name


__all__ = [
    "Amount",
    "Bounds",
    "Gate",
    "Openness",
    "Part",
    "Rewrite",
    "Scope",
    "Shaper",
    "Transform",
    "above",
    "finite",
    "per_group",
    "per_trajectory",
    "signal",
]
