"""Boxes beside `docker exec`, SWE-ReX and mini-swe-agent, in one run.

    python benchmarks/sandbox.py [--rounds 300] [--episodes 200] [--peers FOLDER | --no-peers]

Peers come from the package index, into an environment of their own (made when missing). Every way runs in turns with
the others, so that what else the machine does hits all alike. Needs a Docker engine; run it as root.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from agentgym import images
from agentgym.provenance import provenance
from agentgym.sandbox import BoxSpec
from agentgym.sandbox.docker_box import DockerBox, engine
from agentgym.sandbox.home import Owner
from agentgym.sandbox.pool import Pool, is_reset
from agentgym.sandbox.process_box import ProcessBox
from agentgym.sandbox.reaper import boxes, reap

RESULTS = Path(__file__).parent / "results" / "sandbox.json"
HERE = Path(__file__).parent
PEERS = ("swe-rex", "mini-swe-agent")
COMMAND = ["sh", "-c", "true"]
Way = Callable[[], None]
Times = list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300, help="commands of each fast way")
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--peers", type=Path, default=Path(tempfile.gettempdir()) / "agentgym-peers")
    parser.add_argument("--no-peers", action="store_true")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    reap()
    image = images.build("base", "docker", say=lambda line: print(line, file=sys.stderr))
    root = images.build("base", "process", say=lambda line: print(line, file=sys.stderr))
    python = None if arguments.no_peers else peers(arguments.peers)
    result: dict[str, Any] = {
        "benchmark": "sandbox",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": provenance()["machine"]["processor"],
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "load_before": load,
            "nice": os.nice(0),
        },
        "versions": {"agentgym-suite": version("agentgym-suite"), "docker": engine().version()["Version"]},
    }
    parts: dict[str, Callable[[], Any]] = {
        "round_trip_ms": lambda: round_trips(image, root, python, arguments.rounds),
        "episodes": lambda: episodes(image, arguments.episodes),
        "memory_mb": lambda: memory(image),
        "after_kill": lambda: after_kill(image, root),
        "sixteen": lambda: sixteen(image),
        "resets_ms": lambda: resets(image, root),
    }
    for name, measure in parts.items():
        result[name] = measure()
        print(f"{name}: {json.dumps(result[name])}", file=sys.stderr, flush=True)
    show(result)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(page(result))


# one command


def round_trips(image: str, root: str, python: Path | None, rounds: int) -> dict[str, dict[str, float]]:
    with ExitStack() as stack:
        box = stack.enter_context(DockerBox(BoxSpec(image)))
        process = stack.enter_context(ProcessBox(BoxSpec(root)))
        plain = stack.enter_context(container(image))
        ways: dict[str, tuple[Way, int]] = {
            "docker box": (lambda: checked(box.exec(COMMAND).exit_code), 1),
            "process box": (lambda: checked(process.exec(COMMAND).exit_code), 1),
            "docker exec (SDK)": (lambda: checked(plain_exec(plain)), 10),
            "docker exec (command)": (lambda: docker_exec(plain), 10),
        }
        if python is not None:
            for name in ("SWE-ReX execute", "SWE-ReX run_in_session", "mini-swe-agent execute"):
                peer = stack.enter_context(Peer(python, name, image))
                ways[name] = (peer.ask, 1 if name == "SWE-ReX execute" else 10)
        times: dict[str, Times] = {name: [] for name in ways}
        for way, _ in ways.values():
            way()
        dice = random.Random(0)
        order = [name for name, (_, share) in ways.items() for _ in range(max(rounds // share, 20))]
        dice.shuffle(order)
        for name in order:
            way, _ = ways[name]
            times[name].append(peer_time(way) if "SWE" in name or "mini" in name else timed(way))
    return {name: quantiles(those) for name, those in times.items()}


def checked(code: int) -> None:
    if code != 0:
        raise SystemExit(f"a command that cannot fail ended with {code}")


def docker_exec(name: str) -> None:
    done = subprocess.run(["docker", "exec", name, *COMMAND], capture_output=True, check=False)
    checked(done.returncode)


def plain_exec(name: str) -> int:
    api = engine().api
    made = api.exec_create(name, COMMAND)["Id"]
    api.exec_start(made, demux=True)
    return int(api.exec_inspect(made)["ExitCode"])


@contextmanager
def container(image: str) -> Iterator[str]:
    """A plain container that does nothing, as the peers have them."""
    made = engine().api.create_container(image, command=["sleep", "3600"], network_disabled=True)["Id"]
    engine().api.start(made)
    try:
        yield made
    finally:
        engine().api.remove_container(made, force=True)


# peers


def peers(folder: Path) -> Path:
    """Return the Python of an environment with the peers in it."""
    python = folder / "bin" / "python"
    done = folder / ".complete"
    if not done.exists():
        print(f"installing {', '.join(PEERS)} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS], check=True)
        done.touch()
    return python


class Peer:
    """A peer in a process of its own, which times each command itself and answers with one line."""

    def __init__(self, python: Path, name: str, image: str) -> None:
        self.name = name
        command = [python, HERE / "sandbox_peer.py", name, image, python.parent.parent]
        environment = {**os.environ, "MSWEA_SILENT_STARTUP": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
        )
        self._line()  # it is ready

    def ask(self) -> float:
        """Have one command run; return the seconds it took there."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        return float(self._line())

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _line(self) -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if line.startswith("peer "):
                return line.removeprefix("peer ")
        raise SystemExit(f"{self.name} ended")


def peer_time(way: Callable[[], Any]) -> float:
    return float(way())


# boxes for episodes


def episodes(image: str, count: int) -> dict[str, float]:
    """Episodes one after another through a pool of 8: from asking to the first command answered."""
    spec = BoxSpec(image, memory_mb=256)
    with Pool(size=8, make=DockerBox) as pool:
        pool.expect([spec] * count)
        waits = []
        for _ in range(count):
            began = time.perf_counter()
            box = pool.take(spec)
            checked(box.exec(COMMAND).exit_code)
            waits.append(time.perf_counter() - began)
            box.exec(["sh", "-c", "mkdir d; for i in 1 2 3 4 5 6 7 8; do echo $i > d/$i; done; (sleep 60 &)"])
            pool.give_back(box)
        used = sum(usage(box.container) for box in boxes() if box.container and box.owner == Owner.me())
        tally = pool.tally
    return {
        **quantiles(waits),
        "first_ms": 1000 * waits[0],
        "episodes": count,
        "made": tally.made,
        "reused": tally.reused,
        "pool_memory_mb": used,
    }


def resets(image: str, root: str) -> dict[str, dict[str, float]]:
    """A reset after an episode that changed some of 500 files, on the mounted and the copied way, canary included."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "root"
        subprocess.run(["cp", "-a", root, tree], check=True)
        (tree / "work").mkdir()
        for number in range(500):
            (tree / "work" / f"file{number}").write_text("x" * 2000)
        name = "agentgym-benchmarks/files:1"
        with subprocess.Popen(["tar", "-c", "-C", str(tree), "."], stdout=subprocess.PIPE) as tar:
            engine().api.import_image_from_stream(tar.stdout, repository=name.split(":")[0], tag="1")
        makers: dict[str, Callable[[bool], DockerBox | ProcessBox]] = {
            "docker": lambda mounted: DockerBox(BoxSpec(name), mounted=mounted),
            "process": lambda mounted: ProcessBox(BoxSpec(str(tree)), mounted=mounted),
        }
        try:
            for kind, make in makers.items():
                for way, mounted in (("mount", True), ("copy", False)):
                    with make(mounted) as box:
                        found[f"{kind}, {way}"] = quantiles([reset_after_work(box) for _ in range(40)])
        finally:
            engine().images.remove(name, force=True)
    return found


def reset_after_work(box: DockerBox | ProcessBox) -> float:
    box.exec(["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i > file$i; done; rm file9; echo x > new; (sleep 60 &)"])
    began = time.perf_counter()
    if not is_reset(box):
        raise SystemExit(f"{box.name} is dirty after its reset")
    return time.perf_counter() - began


# many at once


def sixteen(image: str, seconds: float = 4.0) -> dict[str, float]:
    """Commands per second of 16 boxes stepped by 16 threads, and of 16 containers by `docker exec`."""
    with ExitStack() as stack:
        opened = [stack.enter_context(DockerBox(BoxSpec(image, memory_mb=256))) for _ in range(16)]
        ours = rate([lambda box=box: checked(box.exec(COMMAND).exit_code) for box in opened], seconds)
    with ExitStack() as stack:
        plain = [stack.enter_context(container(image)) for _ in range(16)]
        theirs = rate([lambda name=name: docker_exec(name) for name in plain], seconds)
    return {"boxes_per_s": ours, "docker_exec_per_s": theirs, "times": ours / theirs}


def rate(ways: list[Way], seconds: float) -> float:
    counts = [0] * len(ways)
    until = time.perf_counter() + seconds

    def step(number: int) -> None:
        while time.perf_counter() < until:
            ways[number]()
            counts[number] += 1

    began = time.perf_counter()
    threads = [threading.Thread(target=step, args=(number,)) for number in range(len(ways))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - began)


# leftovers and memory

OWNER = """
import sys, time
from agentgym.sandbox import BoxSpec
from agentgym.sandbox.docker_box import DockerBox
from agentgym.sandbox.process_box import ProcessBox
made = [DockerBox(BoxSpec(sys.argv[1])), DockerBox(BoxSpec(sys.argv[1])), ProcessBox(BoxSpec(sys.argv[2]))]
print("up", flush=True)
time.sleep(1000)
"""
NEXT = """
import sys
from agentgym.sandbox import BoxSpec
from agentgym.sandbox.choose import open_box
open_box(BoxSpec(sys.argv[1])).close()
"""


def after_kill(image: str, root: str) -> dict[str, int]:
    """How many boxes are left after their owner was killed: at once, after the next run began, after a prune."""
    left = {}
    for end in ("next_run", "prune"):
        with subprocess.Popen([sys.executable, "-c", OWNER, image, root], stdout=subprocess.PIPE) as owner:
            assert owner.stdout is not None
            owner.stdout.readline()
            owner.send_signal(signal.SIGKILL)
        left["at_once"] = orphans()
        environment = {**os.environ, "AGENTGYM_BOX": "docker"}
        if end == "next_run":
            subprocess.run([sys.executable, "-c", NEXT, image], check=True, env=environment)
        else:
            subprocess.run(
                [Path(sys.executable).with_name("agentgym"), "prune", "--json"], check=True, capture_output=True
            )
        left[f"after_{end}"] = orphans()
    return left


def orphans() -> int:
    return sum(box.orphan for box in boxes())


def memory(image: str) -> dict[str, float]:
    """What an idle box and an idle container are charged for."""
    with DockerBox(BoxSpec(image)) as box, container(image) as plain:
        box.exec(COMMAND)
        docker_exec(plain)
        time.sleep(1)
        ours, theirs = usage(box.container), usage(plain)
    return {"box": ours, "container": theirs, "difference": ours - theirs}


def usage(name: str) -> float:
    """Return the memory a container is charged for, in MB, without the page cache that can be given back."""
    stats = engine().api.stats(name, stream=False)["memory_stats"]
    cache = stats.get("stats", {}).get("total_inactive_file", stats.get("stats", {}).get("inactive_file", 0))
    return float(stats["usage"] - cache) / 2**20


# figures


def timed(way: Way) -> float:
    began = time.perf_counter()
    way()
    return time.perf_counter() - began


def quantiles(times: Times) -> dict[str, float]:
    """Return p50, p99 and the worst, in milliseconds, and how many there are."""
    ordered = sorted(times)
    return {
        "p50": 1000 * statistics.median(ordered),
        "p99": 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        "max": 1000 * ordered[-1],
        "count": len(ordered),
    }


def page(result: dict[str, Any]) -> str:
    """Return the results as a page to read."""
    machine, those, rates, used = (result[key] for key in ("machine", "episodes", "sixteen", "memory_mb"))
    lines = [
        "# Boxes, side by side",
        "",
        f"`python benchmarks/sandbox.py`, {result['date']}, {machine['cores']} cores ({machine['cpu']}), "
        f"Docker {result['versions']['docker']}, load before {machine['load_before']:.1f}. All took turns in one run.",
        "",
        "| `sh -c true`, exit code and both streams back | p50 ms | p99 ms | worst ms | commands |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, trip in sorted(result["round_trip_ms"].items(), key=lambda item: item[1]["p50"]):
        numbers = " | ".join(f"{trip[key]:.2f}" for key in ("p50", "p99", "max"))
        lines.append(f"| {name} | {numbers} | {trip['count']} |")
    lines += [
        "",
        "| | |",
        "|---|---|",
        f"| {those['episodes']} episodes through a pool of 8, from asking to the first command answered | "
        f"p50 {those['p50']:.1f} ms, worst {those['max']:.0f} ms (the first {those['first_ms']:.0f} ms); "
        f"{those['made']} boxes made, {those['reused']} resets; the pool takes {those['pool_memory_mb']:.1f} MB |",
    ]
    for name, reset in result["resets_ms"].items():
        lines.append(f"| reset, canary included ({name}) | p50 {reset['p50']:.1f} ms, p99 {reset['p99']:.1f} ms |")
    lines += [
        f"| 16 at once | {rates['boxes_per_s']:.0f} commands/s in boxes, "
        f"{rates['docker_exec_per_s']:.0f} by `docker exec`: {rates['times']:.0f} times |",
        f"| memory of an idle box, of an idle container | {used['box']:.1f} MB, {used['container']:.1f} MB |",
        f"| boxes left by a killed owner | {result['after_kill']['at_once']} at once, "
        f"{result['after_kill']['after_next_run']} when the next run has begun, "
        f"{result['after_kill']['after_prune']} after `agentgym prune` |",
    ]
    return "\n".join(lines) + "\n"


def show(result: dict[str, Any]) -> None:
    console = Console()
    table = Table(
        "way", "p50 ms", "p99 ms", "worst ms", "commands", title="sh -c true: exit code and both streams back"
    )
    for name, those in sorted(result["round_trip_ms"].items(), key=lambda item: item[1]["p50"]):
        table.add_row(name, *(f"{those[key]:.2f}" for key in ("p50", "p99", "max")), str(those["count"]))
    console.print(table)
    those = result["episodes"]
    console.print(
        f"{those['episodes']} episodes through a pool of 8, asking to first answer: p50 {those['p50']:.1f} ms, "
        f"p99 {those['p99']:.1f} ms, worst {those['max']:.1f} ms (the first {those['first_ms']:.0f} ms); "
        f"{those['made']} boxes made, {those['reused']} resets; memory of the pool {those['pool_memory_mb']:.1f} MB"
    )
    for name, reset in result["resets_ms"].items():
        console.print(f"reset ({name}): p50 {reset['p50']:.1f} ms, p99 {reset['p99']:.1f} ms")
    rates = result["sixteen"]
    console.print(
        f"16 at once: {rates['boxes_per_s']:.0f} commands/s, docker exec {rates['docker_exec_per_s']:.0f}: "
        f"{rates['times']:.1f} times"
    )
    console.print(f"boxes left after the owner was killed: {result['after_kill']}")
    used = result["memory_mb"]
    console.print(f"idle box {used['box']:.1f} MB, idle container {used['container']:.1f} MB")
    if (load := result["machine"]["load_before"]) > 0.5:
        console.print(f"the machine was busy with other things (load {load:.1f}, niceness {result['machine']['nice']})")


if __name__ == "__main__":
    main()
