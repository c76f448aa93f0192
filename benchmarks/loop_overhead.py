"""The loop's own time: what a run spends on neither forward passes, worlds, judging, gradients nor syncs.

    python benchmarks/loop_overhead.py            # prints, and writes benchmarks/results/loop_overhead.json
    python benchmarks/loop_overhead.py --quick    # two steps of the quickstart, prints only

Two runs of the embedded engine, whose summaries say where the time of their steps went (every moment belongs to exactly
one activity, see `agentgym.clock`): the quickstart, after a short first reading and warm start, for twenty steps; and a
model of a hundred million parameters with random weights on the same games, eight episodes a step, for three steps. It
never wins, so every other episode of a group is paid for nothing, and all of them are learned from.

Claims: the loop itself takes at most 15 % of the steps' time of the quickstart, and 5 % with the larger model.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentgym import config as configuration
from agentgym.clock import OTHER
from agentgym.provenance import provenance
from agentgym.reward import per_trajectory
from agentgym.store import RunFolder
from agentgym.train.memory import shape_of
from agentgym.train.trainer import Trainer

EVERY_OTHER = per_trajectory("every other", lambda episode: float(int(episode.id[-1]) % 2), scope="trajectory")

SHORT = {
    "env.options": {
        "theme": "plain",
        "rooms": 3,
        "objects": 3,
        "quest_length": 3,
        "max_turns": 6,
        "remind": True,
        "games": {"demo": 24, "train": 64, "valid": 2, "test": 2},
    },
    "pretrain.tasks": 24,
    "pretrain.plays": 2,
    "eval.every": 0,
    "eval.final_games": 2,
}
LARGE = {
    "model.layers": 14,
    "model.width": 768,
    "model.heads": 12,
    "warmstart.episodes": 0,
    "pretrain.plays": 0,
    "reward.recipe": f"{Path(__file__).stem}:EVERY_OTHER",
    "reward.params": {},
}
RUNS: dict[str, tuple[float, dict[str, Any]]] = {
    "quickstart": (0.15, SHORT | {"train.steps": 20}),
    "100 M parameters": (0.05, SHORT | LARGE | {"train.steps": 3, "train.groups": 2, "train.group_size": 4}),
}
RESULTS = Path(__file__).parent / "results" / "loop_overhead.json"


def measure(folder: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """Train, and return where the time of the steps went."""
    config = configuration.load("quickstart", overrides)
    with RunFolder.create(folder, config) as run:
        summary = asyncio.run(Trainer(config, run).train())
    return {"parameters_at_most": shape_of(config).parameters, "steps": summary["steps"], "time": summary["time"]}


def main() -> None:
    """Measure both runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two steps of the quickstart, prints only")
    quick = parser.parse_args().quick
    found, broken = {}, []
    with tempfile.TemporaryDirectory() as scratch:
        for name, (most, overrides) in RUNS.items():
            if quick and name != "quickstart":
                continue
            found[name] = measure(Path(scratch) / name, overrides | ({"train.steps": 2} if quick else {}))
            shares = sorted(found[name]["time"].items(), key=lambda part: -part[1])
            print(f"{name}: " + ", ".join(f"{what} {100 * share:.1f} %" for what, share in shares), flush=True)
            if found[name]["time"][OTHER] > most:
                broken.append(f"{name}: the loop itself takes at most {100 * most:.0f} %")
    if not quick:
        told = provenance()
        machine = told["machine"] | {"python": told["python"]}
        result = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine, "measured": found}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print("\n".join(f"FAILED: {claim}" for claim in broken) or "All claims hold.")
    sys.exit(bool(broken) and not quick)


if __name__ == "__main__":
    main()
