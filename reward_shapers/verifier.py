"""Progress from the verifier itself: what a world's own check says before and after each turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from agentgym.env import Environment
from agentgym.errors import InfrastructureError, UsageError, unknown_name
from agentgym.probe import OpenAt
from agentgym.types import Group, Signal, Trajectory

Check = Callable[[Environment], Sequence[Signal]]
"""Measures an open world as it stands. It may act in it: the world is put back afterwards."""


class VerifierProgress:
    """A probe that reopens each episode at every turn, asks a check how things stand, and credits the difference.

    What is measured:

    =============== ====== ==============================================================
    signal          turn   value
    =============== ====== ==============================================================
    verified        each   what the check says of the world as the turn left it
    verified_gain   each   the same, less what it said of the world as the turn found it
    verified_start  None   what it says of the world before the first turn
    =============== ====== ==============================================================

    A turn that cannot be reopened, or on which the check fails or says nothing, is unmeasured with the cause, and so is
    a gain on either side of it.

    Args:
        signal: name of the trajectory signal that is read off the check.
        check: by default the world's own verdict: what `Environment.conclude` would say if the episode were cut there,
            and at the end what it did say. One that plays on with a prover's policy gives that prover's value of the
            state, and its gains are the advantages of PAV (arXiv 2410.08146).
        name: who measures; give another with another check.
    """

    signals = frozenset({"verified", "verified_gain", "verified_start"})

    def __init__(self, signal: str = "won", *, check: Check | None = None, name: str = "") -> None:
        self._signal, self._check = signal, check
        self.name = name or f"verifier/{signal}"

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return the signals of each trajectory, in order.

        Raises:
            UsageError: there is no ``open_at``, or the check measures no such signal.
        """
        if open_at is None:
            raise UsageError(f"probe '{self.name}' reopens worlds; give it open_at, such as agentgym.reopen.Replay")
        return [await asyncio.to_thread(self._measure, trajectory, open_at) for trajectory in group.trajectories]

    def _measure(self, trajectory: Trajectory, open_at: OpenAt) -> tuple[Signal, ...]:
        start, *stood = [self._standing(trajectory, turn, open_at) for turn in range(len(trajectory.turns) + 1)]
        signals = [Signal("verified_start", start.value, self.name, cause=start.cause)]
        for turn, (before, after) in enumerate(zip([start, *stood], stood, strict=False)):
            signals.append(Signal("verified", after.value, self.name, turn, cause=after.cause))
            if before.value is None or after.value is None:
                cause = before.cause or after.cause
                signals.append(Signal("verified_gain", None, self.name, turn, cause=cause))
            else:
                said = f"{before.value:g} before, {after.value:g} after"
                signals.append(Signal("verified_gain", after.value - before.value, self.name, turn, evidence=said))
        return tuple(signals)

    def _standing(self, trajectory: Trajectory, turn: int, open_at: OpenAt) -> Signal:
        """Return what the check says of the world as it stood before ``turn``."""
        if self._check is None and turn == len(trajectory.turns):
            recorded = trajectory.signal(self._signal)
            if recorded is not None:
                return recorded
        try:
            with open_at(trajectory, turn) as world:
                said = world.conclude() if self._check is None else self._check(world)
        except UsageError:
            raise
        except InfrastructureError as error:
            return self._unmeasured(str(error))
        except Exception as error:  # the boundary: a check may raise anything
            return self._unmeasured(f"the check failed: {error!r}")
        found = [one for one in said if one.name == self._signal and one.turn is None]
        if not found:
            raise unknown_name("signal of the check", self._signal, {one.name for one in said})
        if found[-1].value is None:
            return self._unmeasured(found[-1].cause or "the check did not say why")
        return found[-1]

    def _unmeasured(self, cause: str) -> Signal:
        return Signal(self._signal, None, self.name, cause=cause)


__all__ = ["Check", "VerifierProgress"]
