"""Alarms over a run's steps: signs that a reward is being had rather than earned.

Each rule looks at the steps' metrics alone and says of every step whether it is a bad one; an alarm stands while the
latest steps are bad, and names the step that this began at. They ask a person to look: none of them stops a run. The
limits are this project's own, not those of a paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agentgym.ledger import Ledger, Status
from agentgym.types import Trajectory

Reals = NDArray[np.float64]
Bools = NDArray[np.bool_]
Metrics = Mapping[str, float | None]
"""Of one training step, as a run's folder holds them; None or absent: not measured."""


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a step is bad."""

    window: int = 8
    "Steps that trends are averaged over."
    patience: int = 3
    "Bad steps in a row that make an alarm."
    deviations: float = 2.0
    "Standard errors by which reward must rise and success fall."
    gate_open: float = 0.02
    "Share of what is gated that is let through."
    shrink: float = 0.5
    "Of the length an episode had in the first window."
    grow: float = 2.0
    "Of the same length."
    repeated: float = 0.5
    "Share of turns that do what was done before in the episode."
    alike: float = 0.9
    "Share of groups whose episodes are all paid alike."
    unmeasured: float = 0.1
    "Share of what was to be priced that has no value."


_PREFIX = "alarm/"

LIMITS = Limits()
"""Unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """A bad sign that stands."""

    name: str
    since: int
    "Training step it began at."
    meaning: str

    def __str__(self) -> str:
        return f"alarm: {self.meaning}, since step {self.since}"


Rule = Callable[[Mapping[str, Reals], Limits], Bools]
"""From the series of each metric, (S,), NaN where not measured, to whether each step is bad, (S,)."""


def rewarded_for_nothing(series: Mapping[str, Reals], limits: Limits) -> Bools:
    """Reward rises while success falls: between two windows, each by more than its standard error allows."""
    up, down = (_change(series[name], limits.window) for name in ("return", "success"))
    return (up > limits.deviations) & (down < -limits.deviations)


def gates_shut(series: Mapping[str, Reals], limits: Limits) -> Bools:
    """Hardly anything comes through the gates."""
    return series["gate_open"] < limits.gate_open


def length_collapsed(series: Mapping[str, Reals], limits: Limits) -> Bools:
    """Episodes have become much shorter than at first."""
    return _relative_length(series, limits.window) < limits.shrink


def length_grown(series: Mapping[str, Reals], limits: Limits) -> Bools:
    """Episodes have become much longer than at first."""
    return _relative_length(series, limits.window) > limits.grow


def repetitive(series: Mapping[str, Reals], limits: Limits) -> Bools:
    """The same is done again and again within an episode, more than at first."""
    repeated = series["repeated"]
    return (repeated > limits.repeated) & (repeated > _first(repeated, limits.window))


def variance_collapsed(series: Mapping[str, Reals], limits: Limits) -> Bools:
    """Nearly every group is paid alike, so that nothing is left to learn from."""
    groups = np.where(series["groups"] > 0, series["groups"], np.nan)
    return series["groups_without_variance"] / groups >= limits.alike


def judges_fail(series: Mapping[str, Reals], limits: Limits) -> Bools:
    """Much of what was to be priced, or of what the probes were asked, was not measured."""
    return (series["unmeasured"] > limits.unmeasured) | (series["judge/unmeasured"] > limits.unmeasured)


RULES: Mapping[str, tuple[Rule, str]] = {
    "hacking": (rewarded_for_nothing, "reward goes up while success goes down"),
    "gates": (gates_shut, "the gates let hardly anything through"),
    "shorter": (length_collapsed, "episodes have collapsed in length"),
    "longer": (length_grown, "episodes have grown long"),
    "repetition": (repetitive, "episodes repeat themselves"),
    "variance": (variance_collapsed, "nearly all groups are paid alike"),
    "unmeasured": (judges_fail, "much of the reward is not measured"),
}
READS = (
    "return",
    "success",
    "gate_open",
    "turns",
    "tokens",
    "repeated",
    "groups",
    "groups_without_variance",
    "unmeasured",
    "judge/unmeasured",
)
"""Names of the metrics that the rules read."""


def alarms(history: Sequence[tuple[int, Metrics]], limits: Limits = LIMITS) -> list[Alarm]:
    """Return the alarms that stand after the last of ``history``, the steps and their metrics, oldest first."""
    if not history:
        return []
    series = {name: _series([metrics.get(name) for _, metrics in history]) for name in READS}
    standing = []
    for name, (rule, meaning) in RULES.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            bad_S = rule(series, limits)
        run = len(bad_S) if bad_S.all() else int(np.argmin(bad_S[::-1]))
        if run >= limits.patience:
            standing.append(Alarm(name, history[-run][0], meaning))
    return standing


def as_metrics(standing: Iterable[Alarm]) -> dict[str, float]:
    """Return alarms as metrics of their step: ``alarm/NAME`` is the step it began at."""
    return {f"{_PREFIX}{alarm.name}": float(alarm.since) for alarm in standing}


def read_alarms(metrics: Metrics) -> dict[str, Alarm]:
    """Return by name the alarms that `as_metrics` wrote."""
    told = {name.removeprefix(_PREFIX): since for name, since in metrics.items() if name.startswith(_PREFIX)}
    return {name: Alarm(name, int(since), RULES[name][1]) for name, since in told.items() if since and name in RULES}


def vital_signs(trajectories: Sequence[Trajectory], ledgers: Sequence[Ledger]) -> dict[str, float]:
    """Return of one step's episodes what the rules read beside the usual metrics; NaN where there is nothing to tell.

    ``gate_open`` is the mean openness of gated entries, ``unmeasured`` the share of all entries that are, ``repeated``
    the share of turns that say what was said before in the episode, ``tokens`` the mean of tokens sampled an episode.
    """
    openness = [ledger.openness[_gated(ledger)] for ledger in ledgers]
    statuses = [ledger.status for ledger in ledgers]
    said = [[turn.sample.message for turn in trajectory.turns] for trajectory in trajectories]
    acts = [[(m.content.strip(), str(m.tool_calls)) for m in messages] for messages in said]
    tokens = [sum(len(turn.sample.token_ids_N) for turn in trajectory.turns) for trajectory in trajectories]
    turns = sum(map(len, acts))
    known = np.concatenate([np.empty(0), *openness])
    known = known[~np.isnan(known)]
    entries = np.concatenate([np.empty(0), *statuses])
    return {
        "gate_open": float(known.mean()) if len(known) else math.nan,
        "unmeasured": float((entries == Status.UNMEASURED).mean()) if len(entries) else math.nan,
        "repeated": 1 - sum(len(set(one)) for one in acts) / turns if turns else math.nan,
        "tokens": float(np.mean(tokens)) if tokens else math.nan,
    }


def _gated(ledger: Ledger) -> Bools:
    named = np.array([bool(name) for name in ledger.gate_names], np.bool_)
    return named[ledger.gates]


def _series(values: Sequence[float | None]) -> Reals:
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _change(values_S: Reals, window: int) -> Reals:
    """Return how far the mean of each window is from that of the one before it, in standard errors; NaN at first.

    Without any spread a change counts as infinitely many.
    """
    change_S = np.full(len(values_S), np.nan)
    if len(values_S) >= 2 * window:
        windows = np.lib.stride_tricks.sliding_window_view(values_S, window)
        mean, error = windows.mean(1), windows.var(1) / window
        difference = mean[window:] - mean[:-window]
        spread = np.sqrt(error[window:] + error[:-window])
        change_S[2 * window - 1 :] = np.where(difference == 0, 0.0, difference / spread)
    return change_S


def _relative_length(series: Mapping[str, Reals], window: int) -> Reals:
    """Return the length of episodes by that of the first window: in tokens, or in turns where none were sampled."""
    tokens = series["tokens"]
    length = tokens if np.nan_to_num(tokens).any() else series["turns"]
    relative = length / _first(length, window)
    relative[:window] = np.nan
    return relative


def _first(values_S: Reals, window: int) -> float:
    """Return the mean of the first window; NaN while it is not full."""
    return float(values_S[:window].mean()) if len(values_S) > window else math.nan


__all__ = [
    "LIMITS",
    "READS",
    "RULES",
    "Alarm",
    "Limits",
    "Metrics",
    "Rule",
    "alarms",
    "as_metrics",
    "gates_shut",
    "judges_fail",
    "length_collapsed",
    "length_grown",
    "read_alarms",
    "repetitive",
    "rewarded_for_nothing",
    "variance_collapsed",
    "vital_signs",
]
