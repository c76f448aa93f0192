"""What agentgym adds to TextWorld: steps and resets a second, raw and through us, and how fast games are made.

``python benchmarks/textworld_speed.py`` prints the table and writes ``benchmarks/results/textworld_speed.json``. The
ways of playing take turns within each round, on the same games with the same commands, and medians over the rounds are
compared, so that what else the machine does hits all of them alike. Raw is ``textworld.start`` with the information
that our environment needs as well.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from agentgym.env import Environment
from agentgym.provenance import provenance
from agentgym.remote import WorkerPool

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import textworld
    from agentgym.environments.textworld import TextWorldEnvironment
    from agentgym.environments.textworld.cache import GameStore
    from agentgym.environments.textworld.games import GameSettings

RESULTS = Path(__file__).parent / "results" / "textworld_speed.json"
Script = list[tuple[str, list[str]]]
"""Task id and the commands to play in it."""
Timing = tuple[float, float, int, int]
"""Seconds in steps, seconds in resets, steps, resets."""
Column = Callable[[], Timing]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--games", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cache", default=None, help="where games are kept (default: the user's cache)")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    options: dict[str, Any] = {"games": {"train": arguments.games}, "max_turns": 1000, "cache_dir": arguments.cache}
    local = TextWorldEnvironment(**options)
    local.prepare("train")
    script = write_script(local)
    with ExitStack() as stack:
        ways = ways_of_playing(local, script, options, stack)
        rounds = play_in_turns(ways, arguments.rounds)
    result = {
        "benchmark": "textworld_speed",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": provenance()["machine"]["processor"],
            "cores": os.cpu_count(),
            "python": platform.python_version(),
        }
        | {"load_before": load},
        "versions": {name: version(name) for name in ("agentgym-suite", "textworld", "jericho", "gymnasium")},
        "games": arguments.games,
        "rounds": arguments.rounds,
        "ways": rounds,
        "generation": generation(),
    }
    show(result)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


def write_script(environment: Environment) -> Script:
    """Return half-sensible play of every game: winning commands mixed with others, so that episodes go on a while."""
    dice = random.Random(0)
    script: Script = []
    for task in environment.tasks("train"):
        _, info = environment.reset(options={"task": task})
        commands: list[str] = []
        done = False
        while not done and len(commands) < 20:
            hints = info["privileged"]
            commands.append(
                hints["expert"] if hints["expert"] and dice.random() < 0.3 else dice.choice(hints["admissible"])
            )
            _, _, terminated, truncated, info = environment.step(commands[-1])
            done = terminated or truncated
        script.append((task.id, commands))
    return script


def ways_of_playing(
    local: TextWorldEnvironment, script: Script, options: dict[str, Any], stack: ExitStack
) -> dict[str, Column]:
    """Return the ways that are compared, each ready to play the whole script once."""
    ways: dict[str, Column] = {
        "raw textworld": lambda: play_raw(stories, script),
        "in process": lambda: play(local, script),
    }
    stories = {task.id: str(local.story(task)) for task in local.tasks("train")}
    for workers in (1, 2):
        pool = stack.enter_context(WorkerPool("textworld", options, workers=workers))
        environments = [pool.environment() for _ in range(4 * workers)]
        if workers == 1:
            ways["one worker"] = lambda environment=environments[0]: play(environment, script)
        noun = "worker" if workers == 1 else "workers"
        ways[f"{workers} {noun}, {len(environments)} threads"] = lambda those=environments: play_together(those, script)
    return ways


def play_raw(stories: dict[str, str], script: Script) -> Timing:
    infos = textworld.EnvInfos(admissible_commands=True, policy_commands=True, won=True, lost=True, score=True)
    stepping = resetting = 0.0
    steps = 0
    for task, commands in script:
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            game = textworld.start(stories[task], infos)
        game.reset()
        reset = time.perf_counter()
        for command in commands:
            game.step(command)
        stepping += time.perf_counter() - reset
        resetting += reset - started
        steps += len(commands)
        game.close()
    return stepping, resetting, steps, len(script)


def play(environment: Environment, script: Script) -> Timing:
    stepping = resetting = 0.0
    steps = 0
    for task, commands in script:
        started = time.perf_counter()
        environment.reset(options={"task": task})
        reset = time.perf_counter()
        for command in commands:
            environment.step(command)
        stepping += time.perf_counter() - reset
        resetting += reset - started
        steps += len(commands)
    return stepping, resetting, steps, len(script)


def play_together(environments: Sequence[Environment], script: Script) -> Timing:
    """Play the script once for every two environments, shared out evenly; the time is the wall's, resets included."""
    shares = [script[index :: len(environments)] * 2 for index in range(len(environments))]
    threads = [
        threading.Thread(target=play, args=(environment, share))
        for environment, share in zip(environments, shares, strict=True)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started, 0.0, 2 * sum(len(commands) for _, commands in script), 0


def play_in_turns(ways: dict[str, Column], rounds: int) -> dict[str, dict[str, float]]:
    timings: dict[str, list[Timing]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(rounds):
        for name, way in ways.items():
            timings[name].append(way())
    result = {}
    for name, those in timings.items():
        steps_per_s = [steps / stepping for stepping, _, steps, _ in those]
        result[name] = {"steps_per_s": statistics.median(steps_per_s)}
        if those[0][3]:
            result[name]["reset_ms"] = statistics.median(1000 * resetting / resets for _, resetting, _, resets in those)
    return result


def generation() -> dict[str, float]:
    """Games a second with one and two workers, from nothing."""
    rates = {}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            store = GameStore(GameSettings(seed=workers), Path(folder))
            started = time.perf_counter()
            store.prepare("train", 12, workers, None)
            rates[f"games_per_s_{workers}"] = 12 / (time.perf_counter() - started)
    return rates


def show(result: dict[str, Any]) -> None:
    ways = result["ways"]
    raw, one, two = (
        ways[name]["steps_per_s"] for name in ("raw textworld", "1 worker, 4 threads", "2 workers, 8 threads")
    )
    table = Table("way", "steps/s", "of raw", "reset ms", title="TextWorld, custom games of 2 rooms and 3 objects")
    for name, way in ways.items():
        reset = f"{way['reset_ms']:.1f}" if "reset_ms" in way else ""
        share = f"{way['steps_per_s'] / ways['raw textworld']['steps_per_s']:.2f}" if reset else ""
        table.add_row(name, f"{way['steps_per_s']:.0f}", share, reset)
    console = Console()
    console.print(table)
    console.print(f"two workers over one, resets included: {two / one:.2f} (raw alone: {raw:.0f} steps/s)")
    if (load := result["machine"]["load_before"]) > 0.5:
        console.print(f"the machine was busy with other things (load {load:.1f}); scaling to two workers shows less")
    for name, rate in result["generation"].items():
        console.print(f"generation, {name}: {rate:.2f}")


if __name__ == "__main__":
    main()
