"""Time to price a stored run again: 10,000 episodes of 50 turns, on one core.

    python benchmarks/rescoring.py            # prints, and writes benchmarks/results/rescoring.json

Claim: ``agentgym score`` on 10,000 stored episodes of 50 turns in at most 10 s. Peak memory is reported, too: one group
is held at a time. Processor time is reported beside wall time, so that a busy machine can be told from slow code.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import resource
import tempfile
import time

import numpy as np

from agentgym.config import RunConfig
from agentgym.provenance import provenance
from agentgym.recipes import resolve
from agentgym.rescore import score
from agentgym.store import EPISODES, RunFolder
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

EPISODES_WANTED, TURNS, GROUP_SIZE = 10_000, 50, 8
RESULT = pathlib.Path(__file__).parent / "results" / "rescoring.json"
SHOWN = "You are in the kitchen. You see a box and a red door. Commands: " + " | ".join(["open the red door"] * 8)


def group(number: int, rng: np.random.Generator) -> Group:
    task = Task(f"task {number}", "Do it.", TURNS)
    name = f"{number // 12:05d}/{number % 12:03d}"
    return Group(tuple(trajectory(f"{name}/{place:02d}", name, task, rng) for place in range(GROUP_SIZE)))


def trajectory(name: str, siblings: str, task: Task, rng: np.random.Generator) -> Trajectory:
    turns = tuple(
        Turn(
            (text_message("user", f"{t}: {SHOWN}"),),
            empty_sample(text_message("assistant", "go")),
            np.empty(0, np.int32),
        )
        for t in range(TURNS)
    )
    signals = [
        Signal(signal, round(float(value), 4), "world", turn=t)
        for t, values in enumerate(rng.random((TURNS, 3)))
        for signal, value in zip(("grounded", "score", "progress"), values, strict=True)
    ]
    won = Signal("won", float(rng.random() < 0.5), "world")
    return Trajectory(name, siblings, task, turns, (), StopReason.DONE, (*signals, won), 0)


def store(path: pathlib.Path) -> None:
    rng, shaper = np.random.default_rng(0), resolve("outcome")
    with RunFolder.create(path, RunConfig()) as run:
        for number in range(EPISODES_WANTED // GROUP_SIZE):
            made = group(number, rng)
            run.append_episodes(1 + number // 12, [(made, shaper(made))])


def main() -> None:
    made_with = provenance()
    shaper = resolve("gated", {"score": 0.2})
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "run"
        store(path)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        wall, processor = time.perf_counter(), time.process_time()
        found = score(path, shaper)
        spent = {"wall, s": time.perf_counter() - wall, "processor, s": time.process_time() - processor}
        megabytes = (path / EPISODES).stat().st_size / 1e6
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": made_with["machine"] | {"python": made_with["python"], "load": round(os.getloadavg()[0], 1)},
        "reward": shaper.name,
        "episodes": found["episodes"],
        "turns": TURNS,
        "megabytes": round(megabytes),
        **{name: round(value, 2) for name, value in spent.items()},
        "memory beyond making the run, MB": round((after - before) / 1024),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
