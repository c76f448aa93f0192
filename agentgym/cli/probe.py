"""``agentgym probe``: measures a stored run again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agentgym.measure import measure
from agentgym.probes import resolve_probe
from agentgym.remote import WorkerPool
from agentgym.store import read_config
from agentgym.store_signals import Asked

from .options import parsed


def probe(run: Path, name: str, words: Sequence[str], *, again: bool) -> dict[str, Any]:
    """Measure the run in ``run`` by the probe ``name`` and return what came of it."""
    params = parsed(words, "--params")
    made = resolve_probe(name, params)
    asked, env = Asked(name, params, made.name), read_config(run).env
    with WorkerPool(env.id, env.options, workers=env.workers, call_timeout_s=env.call_timeout_s) as pool:
        found = asyncio.run(measure(run, made, asked, again=again, make_environment=pool.environment))
    return {"run": str(run), "probe": made.name} | found.as_dict()


def shown(found: Mapping[str, Any]) -> None:
    """Print what came of measuring."""
    before = f", {found['skipped']:,} measured before" if found["skipped"] else ""
    print(f"{found['probe']}: {found['episodes']:,} episodes measured{before}")
    print(f"{found['signals']:,} signals, {found['unmeasured']:,} of them without a value; cost {found['cost']:g}")
    if found["dropped_bytes"]:
        print(f"signals.jsonl: a half-written last line of {found['dropped_bytes']} bytes was cut off")


__all__ = ["probe", "shown"]
