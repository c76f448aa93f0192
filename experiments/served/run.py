"""The quickstart behind vLLM servers, and embedded: the same configuration, the same seeds.

    python experiments/served/run.py                              # some 25 minutes a seed on two cores; resumable
    python experiments/served/run.py --seeds 0 --train.steps 2    # any override of the configuration; prints only
    python experiments/served/run.py --threads 1 --train-only --seeds 3 4    # beside another such command, elsewhere

Each seed is trained twice: by `agentgym train quickstart --model.heads 4`, and from that run's warm start, in which no
engine has a part, with `--policy.engine vllm` (four heads, since vLLM's attention on CPUs takes none narrower than 32).
Each engine samples from a stream of its own. Success is that on the quickstart's held-out ``test`` games, greedily.

Claim: the mean over seeds differs by at most 0.08, and by less than two standard errors of the difference.

Writes ``results.json`` (with machine and date) and ``README.md`` (the table) beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agentgym.provenance import provenance
from agentgym.store import read_metrics, read_summary

HERE = Path(__file__).resolve().parent
ENGINES = "embedded", "vllm"
HEADS = ("--model.heads", "4")
FROM = ("--pretrain.plays", "0", "--warmstart.episodes", "0", "--policy.engine", "vllm", "--model.path")
LARGEST, ERRORS = 0.08, 2.0


def folder_of(runs: Path, engine: str, seed: int) -> Path:
    """Return the folder of a run."""
    return runs / f"{engine}-{seed}"


def train(engine: str, seed: int, runs: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Run, or continue, one training and return what is told of it."""
    folder = folder_of(runs, engine, seed)
    words = ["train", "quickstart", "--seed", str(seed), "--out", str(folder)]
    if (folder / "config.toml").is_file():
        words.append("--resume")
    else:
        begun = HEADS if engine == "embedded" else (*FROM, str(folder_of(runs, "embedded", seed) / "warmstart"))
        words += [*begun, *overrides]
    subprocess.run([str(Path(sys.executable).with_name("agentgym")), *words], check=True)
    summary = read_summary(folder)
    assert summary is not None
    steps = [line for line in read_metrics(folder).records if line["kind"] == "train"]
    told = {name: summary[name] for name in ("before", "after", "wall_s", "time", "steps", "episodes")}
    syncs = [line["sync_frozen_s"] for line in steps if "sync_frozen_s" in line]
    canary = max((line["canary_probe"] for line in steps if "canary_probe" in line), default=None)
    return told | {"standstill_s": statistics.median(syncs) if syncs else None, "canary": canary}


def compared(found: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the difference of the means over seeds, vllm less embedded, and its standard error."""
    scores = {engine: [run["after"]["success"] for run in runs.values()] for engine, runs in found.items()}
    means = {engine: statistics.mean(values) for engine, values in scores.items()}
    variance = sum(statistics.variance(v) / len(v) for v in scores.values()) if len(scores["vllm"]) > 1 else math.nan
    return {**means, "difference": means["vllm"] - means["embedded"], "error": math.sqrt(variance)}


def report(found: Mapping[str, Mapping[str, Any]], result: Mapping[str, float]) -> str:
    """Return the table and what it says, in Markdown."""
    lines = ["| engine | seed | before | after | 95 % interval | minutes |", "|---|---|---|---|---|---|"]
    for engine, runs in found.items():
        for seed, run in runs.items():
            after = run["after"]
            success = f"{run['before']['success']:.2f} | {after['success']:.2f}"
            interval = f"[{after['low']:.2f}, {after['high']:.2f}]"
            lines.append(f"| {engine} | {seed} | {success} | {interval} | {run['wall_s'] / 60:.0f} |")
    lines += ["", "Minutes of the embedded runs include the warm start that both begin from."]
    means = f"{result['vllm']:.3f} with vLLM, {result['embedded']:.3f} embedded"
    lines += ["", f"Means: {means}; difference {result['difference']:+.3f} ± {result['error']:.3f} (standard error)."]
    return "\n".join(lines)


def main() -> None:
    """Train what is missing, compare, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments/served"), help="where run folders go")
    parser.add_argument("--threads", type=int, help="CPU threads of each process; left out: all cores")
    parser.add_argument("--train-only", action="store_true", help="leave the comparison to a later call")
    asked, overrides = parser.parse_known_args()
    threads = ["--threads", str(asked.threads)] if asked.threads else []
    found: dict[str, dict[str, Any]] = {engine: {} for engine in ENGINES}
    for seed in asked.seeds:
        for engine in ENGINES:
            found[engine][str(seed)] = train(engine, seed, asked.runs, [*threads, *overrides])
    if asked.train_only:
        return
    result = compared(found)
    text = report(found, result)
    print(text)
    if not overrides:
        made_with = {key: value for key, value in provenance().items() if key in ("machine", "python")}
        when = datetime.now(UTC).strftime("%Y-%m-%d")
        whole = {"date": when, "compared": result, "runs": found, "provenance": made_with}
        (HERE / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
        opening = "# The quickstart behind vLLM, and embedded\n\n" + __doc__.split("\n\n")[2].replace("\n", " ")
        (HERE / "README.md").write_text(f"{opening}\n\n{text}\n\nMeasured {when} by `experiments/served/run.py`.\n")
    apart = abs(result["difference"])
    holds = apart <= LARGEST and apart < ERRORS * result["error"]
    print("The claim holds." if holds else "FAILED: the means differ by too much, or there are too few seeds to tell")
    sys.exit(not holds and not overrides)


if __name__ == "__main__":
    main()
