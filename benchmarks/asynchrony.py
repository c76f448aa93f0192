"""Rollouts that run ahead of the learner, in a world that takes its time: trained tokens a second, and what is learnt.

    python benchmarks/asynchrony.py            # about an hour; prints, and writes benchmarks/results/asynchrony.json
    python benchmarks/asynchrony.py --quick    # one way a side, twelve steps, no seeds; prints only
    python benchmarks/asynchrony.py --server http://127.0.0.1:8000    # instead of a vLLM server of its own

The quickstart's games, each step 200 ms late, behind one vLLM server of one thread, from one warm start. *Synchronous*
is ``train.max_lag = 0``; *asynchronous* 2 and 4, with truncated correction. With 16 episodes a training step both
sides mostly wait; they are measured for a few steps, with all those episodes in flight and with half of them, the
learner on one core and on two, and the best of each counts. Then both train from the warm start at their best, with
three seeds. With 64 episodes a step two cores have no time to wait, and little is gained; that is measured and told.

* *trained tokens a second*: tokens that were learnt from, over the wall time of all steps. No step is left out: the
  first one of an asynchronous run pays for rollouts of those that follow.
* *final success*: on held-out games.

Claims: asynchronous at least 1.6 times as fast; its final success within the interval of the synchronous one.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

from agentgym import config as configuration
from agentgym.config import RunConfig
from agentgym.env import Environment
from agentgym.policy.server import Server, Serving, find_interpreter
from agentgym.provenance import provenance
from agentgym.remote import WorkerPool
from agentgym.store import RunFolder, read_metrics
from agentgym.train.trainer import Trainer

LATE_S = 0.2
GROUP_SIZE = 8
LAGS = (0, 2, 4)
THREADS = (1, 2)
EPISODES, MANY = 16, 64
"A training step has so many; with the many, both sides compute rather than wait."
STEPS, QUICK_STEPS, LEARNT_STEPS = 20, 12, 80
SEEDS = (0, 1, 2)
FASTER = 1.6
RESULTS = Path(__file__).parent / "results" / "asynchrony.json"
START = {"model.heads": 4, "train.steps": 0, "eval.final_games": 2, "threads": 1, "env.workers": 1}


@dataclass(frozen=True)
class How:
    """A way to train."""

    episodes: int
    lag: int
    threads: int
    concurrency: int

    def __str__(self) -> str:
        flight = f"{self.concurrency} in flight"
        return f"{self.episodes} episodes a step, lag {self.lag}, {flight}, learner on {self.threads}"


class LatePool(WorkerPool):
    """Worlds whose every step takes 200 ms longer, as one behind a network does: waiting, not computing."""

    def environment(self) -> Any:
        """Return an environment that is late; see `WorkerPool.environment`."""
        made = super().environment()
        step = made.step

        def late(action: Any) -> Any:
            time.sleep(LATE_S)
            return step(action)

        made.step = late  # type: ignore[method-assign]
        assert isinstance(made, Environment)
        return made


def run(folder: Path, config: RunConfig) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Train, and return the summary and the lines of the steps."""
    with patch("agentgym.train.session.WorkerPool", LatePool), RunFolder.create(folder, config) as run_folder:
        summary = asyncio.run(Trainer(config, run_folder).train())
    return summary, [line for line in read_metrics(folder).records if line["kind"] == "train"]


def settings(start: Path, url: str, how: How, **more: Any) -> RunConfig:
    """Return the configuration of a run from the warm start."""
    served = {
        "model.path": str(start),
        "warmstart.episodes": 0,
        "pretrain.plays": 0,
        "policy.engine": "vllm",
        "policy.vllm.urls": [url],
        "deterministic": False,
        "threads": how.threads,
        "env.workers": 1,
        "env.concurrency": how.concurrency,
        "train.groups": how.episodes // GROUP_SIZE,
        "train.group_size": GROUP_SIZE,
        "train.max_lag": how.lag,
        "train.correction": "truncate" if how.lag else "none",
        "eval.every": 0,
        "checkpoint.every": 1000,
    }
    return configuration.load("quickstart", served | more)


def speed(lines: Sequence[Mapping[str, Any]]) -> float:
    """Return trained tokens a second."""
    return sum(line.get("trained_tokens", 0.0) for line in lines) / sum(line["step_s"] for line in lines)


def timed(scratch: Path, start: Path, url: str, how: How, steps: int) -> dict[str, Any]:
    """Return how fast a few steps are, and where their time goes."""
    made = settings(start, url, how, **{"train.steps": steps, "eval.final_games": 2})
    summary, lines = run(scratch / f"{how.episodes}-{how.lag}-{how.concurrency}-{how.threads}", made)
    found = {"tokens_per_s": speed(lines), "how": asdict(how), "time": summary["time"]}
    print(f"{how}: {found['tokens_per_s']:.1f} trained tokens/s", flush=True)
    return found


def fastest(scratch: Path, start: Path, url: str, *, quick: bool) -> dict[str, Any]:
    """Return what each side was measured at, and its best."""
    lags, threads, steps = (LAGS[:2], THREADS[:1], QUICK_STEPS) if quick else (LAGS, THREADS, STEPS)
    sides: dict[str, list[dict[str, Any]]] = {"synchronous": [], "asynchronous": []}
    for lag, cores in itertools.product(lags, threads):
        for share in (1,) if quick else (1, 2):
            how = How(EPISODES, lag, cores, EPISODES * (1 + lag) // share)
            sides["asynchronous" if lag else "synchronous"].append(timed(scratch, start, url, how, steps))
    best = {side: max(found, key=lambda one: one["tokens_per_s"]) for side, found in sides.items()}
    if not best["synchronous"]["tokens_per_s"]:
        sys.exit(f"FAILED: from the warm start '{start}' no group differs in what it earns, so nothing is learnt")
    return {"measured": sides, "best": best}


def many(scratch: Path, start: Path, url: str) -> list[dict[str, Any]]:
    """Return both sides with many episodes a step."""
    hows = [How(MANY, lag, THREADS[-1], MANY * (1 + lag)) for lag in LAGS[:2]]
    return [timed(scratch, start, url, how, STEPS // 2) for how in hows]


def learnt(scratch: Path, start: Path, url: str, best: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the final success of each side, seed by seed."""
    scores: dict[str, list[float]] = {}
    for (side, found), seed in itertools.product(best.items(), SEEDS):
        made = settings(start, url, How(**found["how"]), **{"train.steps": LEARNT_STEPS, "seed": seed})
        summary, _ = run(scratch / f"{side}-{seed}", made)
        scores.setdefault(side, []).append(summary["success_after"])
        print(f"{side}, seed {seed}: {scores[side][-1]:.3f}", flush=True)
    return scores


def within(scores: Mapping[str, Sequence[float]]) -> bool:
    """Return whether the asynchronous mean lies in the 95 % interval (Student's) of the synchronous one."""
    mine = scores["synchronous"]
    half = 4.303 * statistics.stdev(mine) / math.sqrt(len(mine))  # t of two degrees of freedom
    return abs(statistics.mean(scores["asynchronous"]) - statistics.mean(mine)) <= half


def main() -> None:
    """Make the warm start, launch the server, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="twelve steps a side, one way each, prints only")
    parser.add_argument("--server", help="where a server of the quickstart's shape, four heads, listens already")
    parser.add_argument("--start", type=Path, help="model folder to start from, instead of a warm start made here")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        start = asked.start
        if start is None:
            run(scratch / "start", configuration.load("quickstart", START))
            start = scratch / "start" / "warmstart"
        if asked.server:
            result = measured(scratch, start, asked.server, quick=asked.quick)
        else:
            context = configuration.load("quickstart").model.max_context
            serving = Serving(
                str(start), context, concurrency=max(EPISODES * (1 + max(LAGS)), MANY * (1 + LAGS[1])), threads=1
            )
            with closing(Server(find_interpreter(), serving, scratch / "server.log")) as server:
                asyncio.run(server.ready(deadline_s=1200))
                result = measured(scratch, start, server.endpoint.url, quick=asked.quick)
    ratio = result["speedup"]
    print(f"asynchronous over synchronous: {ratio:.2f}")
    claims = {f"at least {FASTER} times as fast": ratio >= FASTER}
    if not asked.quick:
        claims["learns as well"] = within(result["success"])
        told = provenance()
        when = {"date": datetime.now(UTC).isoformat(timespec="seconds")}
        made_with = {"machine": told["machine"] | {"python": told["python"]}}
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(when | made_with | result, indent=2) + "\n")
    broken = [claim for claim, holds in claims.items() if not holds]
    print("\n".join(f"FAILED: {claim}" for claim in broken) or "All claims hold.")
    sys.exit(bool(broken) and not asked.quick)


def measured(scratch: Path, start: Path, url: str, *, quick: bool) -> dict[str, Any]:
    """Return all figures."""
    speeds = fastest(scratch, start, url, quick=quick)
    best = speeds["best"]
    ratio = best["asynchronous"]["tokens_per_s"] / best["synchronous"]["tokens_per_s"]
    rest = {} if quick else {"many": many(scratch, start, url), "success": learnt(scratch, start, url, best)}
    return speeds | {"speedup": ratio} | rest


if __name__ == "__main__":
    main()
