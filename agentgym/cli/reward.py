"""What the commands over stored runs do: `score`, and `reward explain` and `reward diff`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agentgym import rescore
from agentgym.compare import compare
from agentgym.errors import ConfigError
from agentgym.recipes import resolve
from agentgym.reward import Shaper
from agentgym.store import read_config

from .options import parsed

Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A reward as it was typed; without a name it is the run's own."""

    name: str | None = None
    params: Sequence[str] = ()
    flag: str = "--params"

    def of(self, run: Path) -> Shaper:
        """Return the reward, for the run in ``run``.

        Raises:
            UsageError: there is no such reward or run, or a parameter is wrong.
        """
        params = parsed(self.params, self.flag)
        if self.name is not None:
            return resolve(self.name, params)
        config = read_config(run).reward
        return resolve(config.recipe, config.params | params)


def score(run: Path, asked: Asked, *, step: int | None, split: str | None) -> dict[str, Any]:
    """Return what the run's episodes were paid, and what they would be paid."""
    return rescore.score(run, asked.of(run), rescore.Selection(step, split))


def explain(run: Path, episode: str, asked: Asked) -> dict[str, Any]:
    """Return the ledger of one episode, entry by entry."""
    shaper = asked.of(run)
    group, place = rescore.find(run, episode)
    ledger = shaper(group)[place]
    entries = [
        {
            "turn": entry.turn,
            "component": entry.component,
            "item": entry.item,
            "raw": entry.raw,
            "value": entry.value,
            "weight": entry.weight,
            "openness": entry.openness,
            "gates": entry.gates,
            "status": entry.status.name.lower(),
            "credited": entry.credited,
            "source": entry.signal and entry.signal.source,
            "cause": entry.signal and entry.signal.cause,
            "evidence": entry.signal and entry.signal.evidence,
        }
        for entry in ledger.entries()
    ]
    head = {"episode": episode, "reward": ledger.reward, "total": ledger.total(), "measured": ledger.measured}
    return head | {"entries": entries, "table": ledger.explain()}


def diff(run: Path, a: Asked, b: Asked, *, step: int | None, split: str | None, worst: int) -> dict[str, Any]:
    """Return how far two rewards agree on the run's episodes.

    Raises:
        ConfigError: one of them reads a signal that was measured in no episode.
    """
    shapers = a.of(run), b.of(run)
    names: list[list[str]] = []
    totals: tuple[list[Any], list[Any]] = ([], [])
    seen: set[str] = set()
    with rescore.without_collector():
        for group, _ in rescore.groups(run, rescore.Selection(step, split)):
            names.append([trajectory.id for trajectory in group.trajectories])
            seen.update(signal.name for trajectory in group.trajectories for signal in trajectory.signals)
            for shaper, side in zip(shapers, totals, strict=True):
                side.append(np.array([x.total() if x.measured else math.nan for x in shaper(group)]))
    for shaper in shapers:
        shaper.require(seen, f"run '{run}'")
    found = compare(names, *totals, worst=worst)
    if not found.episodes:
        raise ConfigError(f"'{run}' holds no two siblings that both rewards price in full; there is nothing to compare")
    return {"run": str(run), "a": shapers[0].name, "b": shapers[1].name} | found.as_dict()


# ------------------------------------------------------------------------------------------------------------- shown


def shown_score(found: Data) -> None:
    """Print what `score` found: each component as it was paid and as it would be."""
    before, after = found["before"], found["after"]
    print(f"run     {found['run']}, {found['episodes']:,} episodes")
    print(f"paid    {before['reward']}")
    print(f"priced  {after['reward']}\n")
    names = list(dict.fromkeys([*before["components"], *after["components"]]))
    rows = [("", "paid", "unmeasured", "priced", "unmeasured")]
    for name in names:
        rows.append((name, *_mean(before["components"].get(name)), *_mean(after["components"].get(name))))
    rows.append(("total", *_mean(before["total"]), *_mean(after["total"])))
    _columns(rows)


def shown_explanation(found: Data) -> None:
    """Print the ledger that `explain` found."""
    print(found["table"])


def shown_difference(found: Data) -> None:
    """Print what `diff` found."""
    print(f"run  {found['run']}, {found['episodes']:,} episodes compared, {found['left_out']:,} left out")
    print(f"a    {found['a']}\nb    {found['b']}\n")
    _columns(
        [
            ("", "among siblings", "95 % interval"),
            *(
                (f"{label}", *_interval(found[key]))
                for label, key in (("Kendall τ-b", "kendall"), ("Spearman", "spearman"))
            ),
            ("distance", _number(found["distance"]), "0: as one, 1: opposite; centred by group, scaled to 1"),
        ]
    )
    if found["most"]:
        print("\nwhere they disagree most")
        rows = [("  episode", "a pays", "b pays", "canonical a - b")]
        for one in found["most"]:
            rows.append((f"  {one['episode']}", _number(one["a"]), _number(one["b"]), f"{one['difference']:+.4f}"))
        _columns(rows)


def _mean(tally: Data | None) -> tuple[str, str]:
    return ("–", "") if tally is None else (_number(tally["mean"]), f"{100 * tally['unmeasured']:.1f} %")


def _interval(estimate: Data) -> tuple[str, str]:
    return _number(estimate["value"]), f"[{_number(estimate['low'])}, {_number(estimate['high'])}]"


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"


def _columns(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


__all__ = ["Asked", "diff", "explain", "score", "shown_difference", "shown_explanation", "shown_score"]
