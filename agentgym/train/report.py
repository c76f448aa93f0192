"""What a training step tells of itself: what was earned and how, what was asked of judges, where the time went."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from agentgym.errors import InfrastructureError
from agentgym.evaluate import summarise
from agentgym.measure import Measured
from agentgym.train.alarms import vital_signs
from agentgym.train.credit import Priced
from agentgym.train.learner import Metrics


def asked(found: Measured) -> Metrics:
    """Return what the probes brought and cost; ``judge/unmeasured`` is the share of it that has no value."""
    return {
        "judge/signals": float(found.signals),
        "judge/unmeasured": found.unmeasured / found.signals if found.signals else math.nan,
        "judge/cost": found.cost,
    }


def reported(priced: Sequence[Priced], success: str) -> Metrics:
    """Return what the episodes earned, by component, and how they went.

    Raises:
        InfrastructureError: there is none; all were lost.
    """
    trajectories = [trajectory for p in priced for trajectory in p.trajectories]
    if not trajectories:
        raise InfrastructureError("every episode of this step was lost; nothing can be learned")
    ledgers = [ledger for p in priced for ledger in p.ledgers]
    report = summarise(trajectories, success=success)
    paid = np.mean([np.where(ledger.mask_CT(), ledger.credit_CT(), 0).sum(1) for ledger in ledgers], axis=0)
    return {
        "success": report.success,
        "turns": report.turns,
        "return": float(paid.sum()),
        **{f"reward/{name}": float(value) for name, value in zip(ledgers[0].component_names, paid, strict=True)},
        "truncated": sum(t.stop.truncated for t in trajectories) / len(trajectories),
        **vital_signs(trajectories, ledgers),
    }


def time_split(steps: Sequence[Metrics]) -> Metrics:
    """Return the share of the training steps' time that each activity took; ``other`` is the loop itself."""
    whole = sum(metrics["step_s"] for metrics in steps)
    names = {name for metrics in steps for name in metrics if name.startswith("share/")}
    return {
        name.removeprefix("share/"): sum(m.get(name, 0.0) * m["step_s"] for m in steps) / whole
        for name in sorted(names)
    }


__all__ = ["asked", "reported", "time_split"]
