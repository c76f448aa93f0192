"""Time to price trajectories under a gated reward of four components, on one core.

    python benchmarks/pricing.py            # prints, and writes benchmarks/results/pricing.json

Claim: 1,024 trajectories of 50 turns, each turn with three signals, in at most 100 ms.
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable

import numpy as np

from agentgym.provenance import provenance
from agentgym.recipes import resolve
from agentgym.reward import Shaper
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

TRAJECTORIES, TURNS, GROUP_SIZE, REPEATS = 1024, 50, 8, 15
RESULT = pathlib.Path(__file__).parent / "results" / "pricing.json"


def trajectories() -> list[Trajectory]:
    rng = np.random.default_rng(0)
    turn = Turn((), empty_sample(text_message("assistant", "look")), np.empty(0, np.int32))
    task = Task("task", "Do it.", TURNS)

    def trajectory(number: int) -> Trajectory:
        signals = [
            Signal(name, float(value), "world", turn=t)
            for t, values in enumerate(rng.random((TURNS, 3)))
            for name, value in zip(("grounded", "score", "progress"), values, strict=True)
        ]
        won = Signal("won", float(rng.random() < 0.5), "world")
        return Trajectory(
            f"{number}", f"{number // GROUP_SIZE}", task, (turn,) * TURNS, (), StopReason.DONE, (*signals, won), 0
        )

    return [trajectory(number) for number in range(TRAJECTORIES)]


def milliseconds(work: Callable[[], object]) -> dict[str, float]:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return {"best": round(min(times), 1), "median": round(statistics.median(times), 1)}


def measure(shaper: Shaper) -> dict[str, dict[str, float]]:
    batch = trajectories()
    groups = [Group(tuple(batch[i : i + GROUP_SIZE])) for i in range(0, TRAJECTORIES, GROUP_SIZE)]
    whole = Group(tuple(batch))
    ledgers = shaper(whole)
    return {
        "one group, ms": milliseconds(lambda: shaper(whole)),
        f"groups of {GROUP_SIZE}, ms": milliseconds(lambda: [shaper(group) for group in groups]),
        "credit_CT of all, ms": milliseconds(lambda: [ledger.credit_CT() for ledger in ledgers]),
    }


def main() -> None:
    made_with = provenance()
    shaper = resolve("gated", {"score": 0.2})
    result = {
        "date": datetime.date.today().isoformat(),
        "machine": made_with["machine"] | {"python": made_with["python"], "load": round(os.getloadavg()[0], 1)},
        "reward": shaper.name,
        "trajectories": TRAJECTORIES,
        "turns": TURNS,
        "signals": TRAJECTORIES * (3 * TURNS + 1),
        **measure(shaper),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
