"""What the commands found, on standard output: for people, or as JSON for programs."""

from __future__ import annotations

import json
import math
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentgym.train.memory import table

Data = Mapping[str, Any]
WORDS = {"other": "the loop itself"}
"What a share of a step's time is called."


def emit(data: Data) -> None:
    """Print ``data`` as JSON; a number that is not finite becomes null: not measured."""
    print(json.dumps(_finite(data), indent=2, allow_nan=False, default=str))


def hush_transformers() -> None:
    """Turn off the bars that transformers draws when it reads or writes a model: ours are on the screen."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def summary_of(summary: Data, run: Path, split: str, picture: Path | None = None) -> None:
    """Print what came of a run."""
    before, after = summary.get("before") or {}, summary.get("after") or {}
    rows = [("run", str(run))]
    if before.get("episodes") or after.get("episodes"):
        rows.append((f"success on {split}", f"{rate(before)} → {rate(after)}   (95 % intervals)"))
    rows.append(("time", f"{duration(summary['wall_s'])}, {summary['steps']} steps, {summary['episodes']:,} episodes"))
    if spent := summary.get("time"):
        shares = sorted(spent.items(), key=lambda part: (part[0] == "other", -part[1]))
        rows.append(("steps", ", ".join(f"{WORDS.get(name, name)} {100 * share:.0f} %" for name, share in shares)))
    rows += [("curve", str(picture))] if picture is not None else []
    _table(rows)


def evaluation(found: Data) -> None:
    """Print an evaluation."""
    stops = ", ".join(f"{name} {number}" for name, number in sorted(found["stops"].items()))
    lost = f", {found['lost']} lost to the infrastructure" if found["lost"] else ""
    _table(
        [
            ("policy", f"{found['policy']} on {found['env']}, {found['split']}"),
            ("success", f"{rate(found)}   (95 % interval)"),
            ("episodes", f"{found['episodes']}{lost}"),
            ("turns", f"{found['turns']:.1f} on average"),
            ("ended by", stops or "–"),
        ]
    )


def plan(planned: Data) -> None:
    """Print a dry run as a TOML file that can be trained from: what it would do stands in its comments."""
    size, path = planned["parameters_at_most"], planned["model_path"]
    tasks = ", ".join(f"{split} {number}" for split, number in planned["tasks"].items())
    print(f"# model: at most {size:,} parameters" + (f", from '{path}'" if path else ", with a full vocabulary"))
    print(f"# memory of the learner: {table(planned['memory'])}")
    print(f"# tasks: {tasks}")
    tokens = f"at most {planned['tokens_per_step_at_most']:,} tokens"
    print(f"# {planned['steps']} steps of {planned['episodes_per_step']} episodes, {tokens}")
    print(f"# writes: {planned['run']}/ (config, episodes, metrics, checkpoints, models, summary, curve)")
    print(f"\n{planned['toml']}", end="")


def catalogue(found: Data) -> None:
    """Print what there is."""
    for heading, entries in found.items():
        print(heading)
        own = [entry for entry in entries if not entry.get("published")]
        _table([(entry["name"], entry["summary"] + _unless_installed(entry)) for entry in own], indent="  ")
        if published := [entry["name"] for entry in entries if entry.get("published")]:
            print(_wrapped("of papers: " + ", ".join(published), "  "))
        print()
    print("more about an environment: agentgym info ENV; about all else, with parameters: agentgym list --json")


def environment(found: Data) -> None:
    """Print what an environment takes and measures."""
    print(f"{found['name']}: {found['summary']}\n")
    if found["description"]:
        print(_wrapped(found["description"]) + "\n")
    print("options (--option KEY=VALUE, or --env.options.KEY VALUE while training)")
    _entries((o["name"], f"{o['type']}, default {_default(o['default'])}", o["doc"]) for o in found["options"])
    print("\ntasks")
    _table([(split, f"{size}, such as {found['examples'][split]}") for split, size in found["splits"].items()], "  ")
    print("\nsignals")
    _entries((s["name"], f"{s['of']}, measured by {s['source']}", s["doc"]) for s in found["signals"])


def diagnosis(found: Data) -> None:
    """Print what the doctor found."""
    marks = {True: "ok", False: "–"}
    width = max(len(check["name"]) for check in found["checks"])
    for check in found["checks"]:
        mark = "MISSING" if check["needed"] and not check["ok"] else marks[check["ok"]]
        print(f"{mark:<7}  {check['name']:<{width}}  {check['detail']}")
        if not check["ok"] and check["fix"]:
            print(f"{'':<7}  {'':<{width}}  {check['fix']}")
    print("\nThe main job can run: agentgym train quickstart" if found["ready"] else "\nThe main job cannot run yet.")


def rate(found: Data) -> str:
    """Return a success rate with its interval, or a dash where nothing was measured."""
    parts = [found.get(name) for name in ("success", "low", "high")]
    measured = [part for part in parts if part is not None and math.isfinite(part)]
    return "{:.2f} [{:.2f}, {:.2f}]".format(*measured) if len(measured) == 3 else "not measured"


def duration(seconds: float) -> str:
    """Return a length of time in words: ``3 min 20 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value)[:20] or "0 s"


def _table(rows: Iterable[Sequence[str]], indent: str = "") -> None:
    rows = list(rows)
    width = max((len(row[0]) for row in rows), default=0)
    for name, text in rows:
        print(f"{indent}{name:<{width}}  {text}")


def _entries(rows: Iterable[tuple[str, str, str]]) -> None:
    """Print (name, kind, meaning) rows, the meaning on lines of its own."""
    rows = list(rows)
    width = max((len(name) for name, _, _ in rows), default=0)
    for name, kind, meaning in rows:
        print(f"  {name:<{width}}  {kind}")
        if meaning:
            print(_wrapped(meaning, " " * (width + 4)))


def _default(value: Any) -> str:
    return "none" if value is None else json.dumps(value, default=str)


def _wrapped(text: str, indent: str = "") -> str:
    columns = min(110, shutil.get_terminal_size((110, 24)).columns)
    return textwrap.fill(text, columns, initial_indent=indent, subsequent_indent=indent, break_long_words=False)


def _unless_installed(entry: Data) -> str:
    return "" if entry.get("installed", True) else f"  (not installed: {entry['fix']})"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


__all__ = [
    "catalogue",
    "diagnosis",
    "duration",
    "emit",
    "environment",
    "evaluation",
    "hush_transformers",
    "plan",
    "rate",
    "summary_of",
]
