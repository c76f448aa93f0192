"""Fault injection: what becomes of a run when a server, the learner, a world or the disk fails.

    python benchmarks/faults.py            # prints a table, and writes benchmarks/results/faults.json
    python benchmarks/faults.py --vllm     # the same, and at the end a real vLLM server, stopped and killed
    python benchmarks/faults.py --only "server"    # rows whose name holds a word; prints only

Servers are those of `agentgym.train.sync.fake_vllm` (real HTTP, a real small model), in this process or in one of their
own; worlds run in worker processes; the learner is `agentgym train`. Each row injects one kind of fault into sixteen
rollouts or one run, and says

* *dispatched*, *completed*, *lost*: each rollout ends in exactly one outcome, or the row fails;
* *wrong*: rows for training with a token of another version than was served, or whose log-probability is not that of
  the weights of that version by more than 1e-3, recomputed here: what a fault left behind. None is allowed;
* *seconds*, and the *deadline* that the settings imply; and what was said.

Claims: nothing hangs, nothing wrong is trained, no outcome is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from agentgym import registry
from agentgym.errors import AgentgymError
from agentgym.policy import served
from agentgym.policy.endpoint import Endpoint
from agentgym.policy.served import ServedPolicy
from agentgym.policy.server import MODEL_NAME, Server, Serving, find_interpreter
from agentgym.policy.token_protocol import GENERATE
from agentgym.provenance import provenance
from agentgym.remote import WorkerPool
from agentgym.rollout import Deadlines, Request, Rollouts
from agentgym.store import read_metrics
from agentgym.testing import EchoEnvironment
from agentgym.train.batch import rows
from agentgym.train.factory import build_model, build_tokenizer, save
from agentgym.train.sync.canary import Canary, sequence_logprobs
from agentgym.train.sync.fake_vllm import FakeVllm, Fault
from agentgym.train.sync.file import FileSync
from agentgym.types import UNKNOWN_VERSION, Cancelled, Completed, InfraFailure, Outcome, Sampling

ROLLOUTS, RETRIES, CONTEXT = 16, 2, 512
TURN_S, STEP_S, SILENCE_S, SYNC_S = 15.0, 4.0, 4.0, 10.0
"Deadlines of an answer, a step of a world, a server's sign of life, a call of a sync."
ROOM_S = 20.0
"What starting things may take beside: this machine may be busy."
NEAR = 1e-3
WORDS = "open the box . take the key from it . what now ? go north . you are in a kitchen . say something"
RESULTS = Path(__file__).parent / "results" / "faults.json"
RUN = {
    "threads": 1,
    "env": {
        "id": "textworld",
        "workers": 1,
        "concurrency": 16,
        "options": {
            "challenge": "coin_collector",
            "level": 2,
            "games": {"demo": 2, "train": 8, "valid": 2, "test": 2},
            "max_turns": 4,
        },
    },
    "model": {"max_context": CONTEXT},
    "pretrain": {"plays": 0},
    "warmstart": {"episodes": 0},
    "policy": {"engine": "vllm", "max_tokens": 6},
    "reward": {"recipe": "direct"},
    "train": {"steps": 6, "groups": 4, "group_size": 4, "token_budget": 4096},
    "eval": {"games": 0, "every": 0, "final_games": 2},
    "checkpoint": {"every": 1},
}


@dataclass
class Row:
    """What became of a fault."""

    fault: str
    deadline_s: float
    dispatched: int = 0
    completed: int = 0
    lost: int = 0
    wrong: int = 0
    seconds: float = 0.0
    said: list[str] = field(default_factory=list)
    well: bool = True

    def expect(self, holds: bool, what: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.well = False
            self.said.append(f"NOT: {what}")

    def count(self, outcomes: Sequence[Outcome], model: Any, version: int) -> None:
        """Count outcomes, and check everything that could be trained."""
        names = [o.trajectory.id if isinstance(o, Completed) else o.rollout_id for o in outcomes]
        self.expect(sorted(names) == sorted(request.rollout_id for request in requests()), "one outcome a rollout")
        self.expect(not any(isinstance(outcome, Cancelled) for outcome in outcomes), "nothing cancelled")
        self.dispatched += len(outcomes)
        for outcome in outcomes:
            if isinstance(outcome, Completed):
                self.completed += 1
                made = [row for row in rows(outcome.trajectory, version=version) if row.mask_N.any()]
                self.wrong += sum(apart(model, row) > NEAR for row in made)
            elif isinstance(outcome, InfraFailure):
                self.lost += 1
                if outcome.cause not in self.said:
                    self.said.append(outcome.cause)


def apart(model: Any, row: Any) -> float:
    """Return by how much a row's log-probabilities differ at most from those of ``model``."""
    return float(np.abs(sequence_logprobs(model, row.ids_N) - row.logprobs_N)[row.mask_N].max())


class Lab:
    """A small model, its folder, and how it is served and played."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.model_folder = folder, folder / "model"
        self.tokenizer = build_tokenizer([WORDS], kind="word", vocab_size=128, max_context=CONTEXT)
        self.model = build_model(self.tokenizer, layers=2, width=64, heads=2, max_context=CONTEXT, seed=0)
        save(self.model, self.tokenizer, self.model_folder)

    @asynccontextmanager
    async def policy(
        self, *urls: str, name: str = "policy", sync_s: float = SYNC_S
    ) -> AsyncIterator[tuple[ServedPolicy, FileSync]]:
        """Give the policy behind ``urls``, whose servers hold version 1."""
        made = ServedPolicy(
            [Endpoint(url) for url in urls], self.tokenizer, model=name, max_context=CONTEXT, silence_s=SILENCE_S
        )
        canary = Canary(self.model, max_context=CONTEXT, tolerance=NEAR)
        async with made:
            sync = FileSync(made, self.model, folder=self.folder, deadline_s=sync_s, canary=canary)
            await sync.push(1)
            yield made, sync

    @contextmanager
    def process(self) -> Iterator[tuple[int, str]]:
        """Serve from a process of its own; give its id and where it listens."""
        command = [sys.executable, "-m", "agentgym.train.sync.fake_vllm", str(self.model_folder), "--step-s", "0.02"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                yield server.pid, server.stdout.readline().split()[-1]
            finally:
                server.kill()


def requests() -> list[Request]:
    """Return the rollouts of a row."""
    task = EchoEnvironment().tasks("train")[0]
    return [Request(f"g/{number}", "g", task, number, Sampling(1.0, 8)) for number in range(ROLLOUTS)]


async def play(policy: ServedPolicy, make: Callable[[], Any] = EchoEnvironment) -> list[Outcome]:
    """Play sixteen rollouts."""
    limits = Deadlines(STEP_S, TURN_S)
    rollouts = Rollouts(make, policy, concurrency=ROLLOUTS, retries=RETRIES, deadlines=limits, give_up_after=99)
    try:
        return await rollouts.run(requests())
    finally:
        rollouts.close()


async def begun(policy: ServedPolicy) -> None:
    """Wait until the first answer is there, so that others are surely under way."""
    while not policy.tokens[1]:
        await asyncio.sleep(0.005)


# ------------------------------------------------------------------------------------------------------------- servers


def answers(fault: Fault, *, always: bool = False) -> Callable[[Lab, Row], Awaitable[None]]:
    """Return the row whose requests for tokens go wrong now and then, or always."""

    async def inject(lab: Lab, row: Row) -> None:
        with FakeVllm(lab.model_folder) as server:
            async with lab.policy(server.url) as (policy, _):
                server.faults[GENERATE] = [fault] * 10_000 if always else [fault, None, None, None] * 4
                row.count(await play(policy), lab.model, 1)
        row.expect(row.lost == (ROLLOUTS if always else 0), "lost: " + ("all" if always else "none"))

    return inject


def server_gone(number: signal.Signals) -> Callable[[Lab, Row], Awaitable[None]]:
    """Return the row whose only server is killed or stopped in the middle."""

    async def inject(lab: Lab, row: Row) -> None:
        with lab.process() as (pid, url):
            async with lab.policy(url) as (policy, sync):
                playing = asyncio.create_task(play(policy))
                await asyncio.sleep(0.5)
                os.kill(pid, number)
                row.count(await playing, lab.model, 1)
                try:
                    await sync.push(2)
                    row.expect(False, "a sync to a server that is gone fails")
                except AgentgymError as error:
                    row.said.append(str(error))
        row.expect(row.lost > 0, "what waited is lost")

    return inject


async def one_of_two(lab: Lab, row: Row) -> None:
    """One server of two is killed: its rollouts are played again on the other."""
    with FakeVllm(lab.model_folder) as stays, lab.process() as (pid, url):
        async with lab.policy(stays.url, url) as (policy, sync):
            playing = asyncio.create_task(play(policy))
            await asyncio.sleep(0.3)
            os.kill(pid, signal.SIGKILL)
            row.count(await playing, lab.model, 1)
            await sync.push(2)
            row.expect(stays.weights == "2", "the one that is left learns on")
    row.expect(row.lost == 0, "none lost")


# --------------------------------------------------------------------------------------------------------------- syncs


def sync_fails(path: str, fault: Fault) -> Callable[[Lab, Row], Awaitable[None]]:
    """Return the row where a call of a sync goes wrong while sixteen rollouts play: it is told, and they go on."""

    async def inject(lab: Lab, row: Row) -> None:
        with FakeVllm(lab.model_folder, step_s=0.02) as server:
            async with lab.policy(server.url) as (policy, sync):
                playing = asyncio.create_task(play(policy))
                await asyncio.sleep(0.3)
                server.faults[path] = [fault]
                try:
                    await sync.push(1)
                    row.expect(False, "the sync fails")
                except AgentgymError as error:
                    row.said.append(str(error))
                row.count(await playing, lab.model, 1)
                await sync.push(2)
                row.expect(server.weights == "2", "the next sync succeeds")
        row.expect(row.lost == 0, "none lost")

    return inject


async def sync_killed(lab: Lab, row: Row) -> None:
    """The server is killed during a sync."""
    with lab.process() as (pid, url):
        async with lab.policy(url) as (policy, sync):
            os.kill(pid, signal.SIGSTOP)  # so that it is surely under way
            pushing = asyncio.create_task(sync.push(2))
            await asyncio.sleep(0.3)
            os.kill(pid, signal.SIGKILL)
            try:
                await pushing
                row.expect(False, "the sync fails")
            except AgentgymError as error:
                row.said.append(str(error))
            row.expect(policy.version == UNKNOWN_VERSION, "the version is not said to be new")


# --------------------------------------------------------------------------------------------------------------- worlds


def worker_gone(number: signal.Signals) -> Callable[[Lab, Row], Awaitable[None]]:
    """Return the row where a process that runs half of the worlds is killed or stopped."""

    async def inject(lab: Lab, row: Row) -> None:
        name = "agentgym.testing:EchoEnvironment"
        pool = WorkerPool(name, {}, workers=2, call_timeout_s=STEP_S)
        with FakeVllm(lab.model_folder, step_s=0.02) as server, closing(pool):
            async with lab.policy(server.url) as (policy, _):
                playing = asyncio.create_task(play(policy, pool.environment))
                while not (workers := children("agentgym.worker")) or policy.tokens[1] < 16:
                    await asyncio.sleep(0.02)
                os.kill(workers[0], number)
                row.count(await playing, lab.model, 1)
        row.expect(row.lost == 0, "none lost: they are played again elsewhere")

    return inject


def children(word: str, parent: int | None = None) -> list[int]:
    """Return the processes below ``parent`` (this one) that have ``word`` in their command line."""
    found = []
    for task in Path(f"/proc/{parent or os.getpid()}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            line = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found += [child] if word in line else []
            found += children(word, child)
    return found


# ----------------------------------------------------------------------------------------------------------------- disk


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``size``; the system then refuses as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def no_room_for_weights(lab: Lab, row: Row) -> None:
    """The folder that weights are handed over in is full."""
    with FakeVllm(lab.model_folder, step_s=0.02) as server:
        async with lab.policy(server.url) as (policy, sync):
            playing = asyncio.create_task(play(policy))
            await asyncio.sleep(0.3)
            try:
                with no_room(10_000):
                    await sync.push(1)
                row.expect(False, "the sync fails")
            except AgentgymError as error:
                row.said.append(str(error))
            row.expect(not list(lab.folder.glob("agentgym-*")), "nothing half written stays")
            row.count(await playing, lab.model, 1)
            await sync.push(2)
    row.expect(row.lost == 0, "none lost")


async def no_room_for_checkpoints(lab: Lab, row: Row) -> None:
    """The disk of the run is full; after room was made it goes on."""
    size = sum(weight.numel() for weight in lab.model.parameters()) * 4
    with FakeVllm(lab.model_folder) as server, run_folder(lab, server.url) as (config, out):
        limit = f"ulimit -f {2 * size // 1024}; "
        said, code = await finished(await start(config, out, before=limit))
        row.expect(code != 0 and "make room and continue with --resume" in said, f"it ends and says why: {said[-200:]}")
        row.said.append(next((line for line in said.splitlines() if "cannot write" in line), "")[:160])
        await resumed(row, config, out)


# -------------------------------------------------------------------------------------------------------------- learner


@contextmanager
def run_folder(lab: Lab, url: str) -> Iterator[tuple[Path, Path]]:
    """Give a run's configuration and folder. Its games are made already, so that the fault meets the run itself."""
    options = RUN["env"]["options"]
    with closing(registry.make(RUN["env"]["id"], **options)) as environment:
        for split in options["games"]:
            environment.prepare(split)
    with tempfile.TemporaryDirectory(dir=lab.folder) as scratch:
        place = Path(scratch)
        vllm = {"urls": [url], "folder": str(place), "sync_deadline_s": SYNC_S, "silence_s": SILENCE_S}
        data = RUN | {
            "model": RUN["model"] | {"path": str(lab.model_folder)},
            "policy": RUN["policy"] | {"vllm": vllm},
        }
        (place / "run.toml").write_text(tomli_w.dumps(data))
        yield place / "run.toml", place / "run"


async def start(config: Path, out: Path, *, resume: bool = False, before: str = "") -> asyncio.subprocess.Process:
    """Start, or continue, `agentgym train`."""
    words = [str(Path(sys.executable).with_name("agentgym")), "train", str(config), "--out", str(out), "--quiet"]
    words += ["--resume"] if resume else []
    command = before + "exec " + " ".join(f"'{word}'" for word in words)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec("bash", "-c", command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)


async def finished(process: asyncio.subprocess.Process) -> tuple[str, int]:
    """Return what a run said and its exit code."""
    said, _ = await process.communicate()
    assert process.returncode is not None
    return said.decode(errors="replace"), process.returncode


def steps_of(out: Path) -> list[int]:
    """Return the training steps that a run has recorded."""
    if not (out / "metrics.jsonl").is_file():
        return []
    return [line["step"] for line in read_metrics(out).records if line["kind"] == "train"]


async def resumed(row: Row, config: Path, out: Path) -> None:
    """Continue a run that ended, to its end."""
    said, code = await finished(await start(config, out, resume=True))
    row.expect(code == 0, f"it goes on to its end: {said[-300:]}")
    row.expect(steps_of(out) == list(range(1, RUN["train"]["steps"] + 1)), f"each step once: {steps_of(out)}")


def learner_gone(number: signal.Signals) -> Callable[[Lab, Row], Awaitable[None]]:
    """Return the row where the learner is killed and continued, or stopped for three seconds."""

    async def inject(lab: Lab, row: Row) -> None:
        with FakeVllm(lab.model_folder) as server, run_folder(lab, server.url) as (config, out):
            process = await start(config, out)
            while len(steps_of(out)) < 2 and process.returncode is None:
                await asyncio.sleep(0.05)
            process.send_signal(number)
            if number is signal.SIGSTOP:
                await asyncio.sleep(3.0)
                process.send_signal(signal.SIGCONT)
                said, code = await finished(process)
                row.expect(code == 0, f"it goes on to its end: {said[-300:]}")
            else:
                await finished(process)
                await resumed(row, config, out)
            lines = [line for line in read_metrics(out).records if line["kind"] == "train"]
            row.dispatched += int(sum(line["episodes"] + line["episodes_lost"] for line in lines))
            row.completed += int(sum(line["episodes"] for line in lines))
            row.lost += int(sum(line["episodes_lost"] for line in lines))
            row.expect(all(line.get("kl_sampler", 0) < NEAR for line in lines), "sampled by what is trained")

    return inject


# ------------------------------------------------------------------------------------------------------- a real server


async def real_server(lab: Lab, report: Callable[[Row], None]) -> None:
    """A vLLM server is stopped, let go on, and killed."""
    serving = Serving(str(lab.model_folder), CONTEXT, concurrency=ROLLOUTS, threads=1)
    with closing(Server(find_interpreter(), serving, lab.folder / "vllm.log")) as server:
        await server.ready(deadline_s=1200)
        url, name, cold_s = server.endpoint.url, MODEL_NAME, 120.0
        async with lab.policy(url, name=name, sync_s=cold_s) as (policy, _):  # what is asked first takes long
            await play(policy)

        async def stopped(lab: Lab, row: Row) -> None:
            processes = children("", server.pid)
            async with lab.policy(url, name=name) as (policy, _):
                playing = asyncio.create_task(play(policy))
                await begun(policy)
                for process in processes:
                    os.kill(process, signal.SIGSTOP)
                row.count(await playing, lab.model, 1)
            for process in processes:
                os.kill(process, signal.SIGCONT)
            row.expect(row.lost > 0, "what waited is lost")
            async with lab.policy(url, name=name) as (policy, _):
                again = Row("", 0)
                again.count(await play(policy), lab.model, 1)
                row.expect(again.completed == ROLLOUTS and not again.wrong, "it serves again when it goes on")

        async def killed(lab: Lab, row: Row) -> None:
            engine = children("EngineCore", server.pid) or children("", server.pid)
            async with lab.policy(url, name=name) as (policy, _):
                playing = asyncio.create_task(play(policy))
                await begun(policy)
                os.kill(engine[-1], signal.SIGKILL)
                row.count(await playing, lab.model, 1)
            row.expect(row.lost > 0, "what waited is lost")

        report(await tried("vLLM: SIGSTOP, then SIGCONT", given_up_s(), stopped, lab))
        report(await tried("vLLM: its engine, SIGKILL", given_up_s(), killed, lab))


# ---------------------------------------------------------------------------------------------------------- the table


def given_up_s() -> float:
    """Return when rollouts of a silent server are lost at the latest."""
    return served.HEARTBEAT_S + SILENCE_S + ROOM_S


def all_rows() -> dict[str, tuple[float, Callable[[Lab, Row], Awaitable[None]]]]:
    """Return the rows: name, deadline, and what is done."""
    tries = (RETRIES + 1) * TURN_S + ROOM_S
    whole = 120.0
    return {
        "server: 500 now and then": (tries, answers(Fault.ERROR)),
        "server: truncated replies": (tries, answers(Fault.TRUNCATE)),
        "server: dropped connections": (tries, answers(Fault.DROP)),
        "server: stalls now and then": (tries, answers(Fault.STALL)),
        "server: 500 always": (tries, answers(Fault.ERROR, always=True)),
        "server: stalls always": (tries, answers(Fault.STALL, always=True)),
        "server: SIGKILL": (given_up_s() + SYNC_S, server_gone(signal.SIGKILL)),
        "server: SIGSTOP": (given_up_s() + SYNC_S, server_gone(signal.SIGSTOP)),
        "server: one of two, SIGKILL": (given_up_s(), one_of_two),
        "sync: 500": (SYNC_S + ROOM_S, sync_fails("/update_weights", Fault.ERROR)),
        "sync: stalls": (2 * SYNC_S + ROOM_S, sync_fails("/update_weights", Fault.STALL)),
        "sync: finish is dropped": (SYNC_S + ROOM_S, sync_fails("/finish_weight_update", Fault.DROP)),
        "sync: server SIGKILL": (2 * SYNC_S + ROOM_S, sync_killed),
        "world: SIGKILL": (STEP_S + ROOM_S, worker_gone(signal.SIGKILL)),
        "world: SIGSTOP": ((RETRIES + 1) * STEP_S + ROOM_S, worker_gone(signal.SIGSTOP)),
        "disk: full for the weights": (SYNC_S + ROOM_S, no_room_for_weights),
        "disk: full for checkpoints": (whole, no_room_for_checkpoints),
        "learner: SIGKILL, resumed": (whole, learner_gone(signal.SIGKILL)),
        "learner: SIGSTOP for 3 s": (whole, learner_gone(signal.SIGSTOP)),
    }


async def tried(name: str, deadline_s: float, inject: Callable[[Lab, Row], Awaitable[None]], lab: Lab) -> Row:
    """Return what became of a fault."""
    row = Row(name, deadline_s)
    began, limit = time.monotonic(), asyncio.timeout(3 * deadline_s)
    try:
        async with limit:
            await inject(lab, row)
    except (TimeoutError, AgentgymError) as error:
        row.expect(False, f"no hang: broken off after {3 * deadline_s:g} s" if limit.expired() else str(error))
    row.seconds = round(time.monotonic() - began, 1)
    row.expect(row.seconds <= deadline_s, "in time")
    row.expect(row.wrong == 0, "no wrong row")
    row.expect(row.dispatched == row.completed + row.lost, "every outcome counted")
    return row


def shown(row: Row) -> str:
    """Return a line of the table."""
    counts = f"{row.dispatched:>5} {row.completed:>5} {row.lost:>5} {row.wrong:>5}"
    said = " | ".join(row.said)[:150]
    verdict = "ok" if row.well else "FAILED"
    return f"{row.fault:<30} {counts}  {row.seconds:>6.1f} of {row.deadline_s:<5g} {verdict}  {said}"


def main() -> None:
    """Try every fault, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", action="store_true", help="also against a real server")
    parser.add_argument("--only", default="", help="rows whose name holds this word; prints only")
    asked = parser.parse_args()
    made: list[Row] = []

    def report(row: Row) -> None:
        made.append(row)
        print(shown(row), flush=True)

    print(f"{'fault':<30} disp. compl. lost wrong  seconds of deadline")
    with tempfile.TemporaryDirectory() as scratch:
        lab = Lab(Path(scratch))
        for name, (deadline_s, inject) in all_rows().items():
            if asked.only in name:
                report(asyncio.run(tried(name, deadline_s, inject, lab)))
        if asked.vllm:
            asyncio.run(real_server(lab, report))
    if not asked.only:
        told = provenance()
        result = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": told["machine"] | {"python": told["python"]},
            "rows": [asdict(row) for row in made],
        }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    broken = [row.fault for row in made if not row.well]
    print("\n".join(f"FAILED: {name}" for name in broken) or f"All {len(made)} rows hold.")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
