"""A run that was killed goes on from its last commit and ends as if nothing had happened, to the bit.

The runs are processes of their own that are really killed. Most are forked from a server that has imported everything,
which saves seconds each; the undisturbed run they are all compared with is an ordinary ``agentgym train``.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentgym import config as configuration
from agentgym.config import RunConfig
from agentgym.store import EPISODES, METRICS, read_episodes, read_metrics

pytest.importorskip("torch")
pytest.importorskip("textworld")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_S = 300.0
"""Longest wait for anything; the machine may be busy."""
KILLED = -signal.SIGKILL
STEPS = 3

CHILD = """
import os, re, signal, sys
out = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(out, 1)
os.dup2(out, 2)
sys.stdout.reconfigure(line_buffering=True)

def watch(event, arguments):
    if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.truncate"):
        if re.search({kill_at!r}, event + " " + " ".join(map(str, arguments))):
            os.kill(os.getpid(), signal.SIGKILL)

if {kill_at!r}:
    sys.addaudithook(watch)
from agentgym.cli.app import run
sys.exit(run({words!r}))
"""


class Run:
    """A run folder, and the processes that write it one after the other."""

    def __init__(self, path: Path, config: Path) -> None:
        self.path, self.config = path, config
        self.log = path.with_suffix(".log")

    def start(self, *, kill_at: str = "") -> Any:
        """Start, or continue, and return the process.

        Args:
            kill_at: pattern of what is done to a file ("os.rename …/from …/to"), before which the process kills itself.
        """
        words = ["train", str(self.config), "--out", str(self.path)]
        words += ["--resume"] if (self.path / "config.toml").exists() else []
        server = multiprocessing.get_context("forkserver")
        code = CHILD.format(log=str(self.log), kill_at=kill_at, words=words)
        process = server.Process(target=exec, args=(code, {}))
        process.start()
        return process

    def wait(self, process: Any) -> int:
        """Return the exit code of ``process``."""
        process.join(PATIENCE_S)
        code = process.exitcode
        if code is None:
            process.kill()
            process.join()
        process.close()
        assert code is not None, f"it did not end: {self.said()}"
        return int(code)

    def finish(self, **settings: Any) -> int:
        return self.wait(self.start(**settings))

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def until(self, process: Any, reached: Callable[[], bool]) -> bool:
        """Wait for something while ``process`` runs, and return whether it came about."""
        end = time.monotonic() + PATIENCE_S
        while process.is_alive() and time.monotonic() < end:
            if reached():
                return True
            time.sleep(0.002)
        return reached()

    def has(self, kind: str, step: int) -> bool:
        """Return whether the measurement is there already."""
        with contextlib.suppress(OSError):
            return f'"kind":"{kind}","step":{step},' in (self.path / METRICS).read_text()
        return False


@pytest.fixture(scope="module")
def config_file(tiny: Callable[..., RunConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(configuration.dump(tiny(train__steps=STEPS)))
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["agentgym.train.trainer", "agentgym.cli.train", "agentgym.environments.textworld", "agentgym.view.curve"]
    )
    return path


@pytest.fixture(scope="module")
def reference(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that nothing disturbed, and how many seconds it took without the imports; read it only."""
    path = tmp_path_factory.mktemp("reference") / "run"
    command = [
        sys.executable,
        "-c",
        "import sys; from agentgym.cli import main; sys.exit(main())",
        "train",
        str(config_file),
    ]
    done = subprocess.run(
        [*command, "--out", str(path), "--quiet"], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return path, json.loads((path / "summary.json").read_text())["wall_s"]


@pytest.fixture
def run(config_file: Path, tmp_path: Path) -> Iterator[Run]:
    yield Run(tmp_path / "run", config_file)
    for child in multiprocessing.active_children():
        child.kill()
        child.join()


def lasting(path: Path) -> dict[str, Any]:
    """Return all that must not depend on whether a run was interrupted."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            clock = re.compile(r"seconds|time|wall_s|step_s|tokens_per_s|share/.*")
            return {key: timeless(part) for key, part in value.items() if not clock.fullmatch(key)}
        return [timeless(part) for part in value] if isinstance(value, list) else value

    def lines(name: str) -> list[Any]:
        return [timeless(json.loads(line)) for line in (path / name).read_text().splitlines()]

    weights = {name: (path / name / "model.safetensors").read_bytes() for name in ("init", "warmstart", "model")}
    return weights | {
        "episodes": lines(EPISODES),
        "tokens": (path / "tokens.bin").read_bytes(),
        "metrics": lines(METRICS),
        "summary": timeless(json.loads((path / "summary.json").read_text())),
    }


def assert_as_if_nothing_had_happened(run: Run, reference: Path) -> None:
    expected, found = lasting(reference), lasting(run.path)
    episodes = [episode["id"] for episode in found["episodes"]]
    assert len(set(episodes)) == len(episodes) == found["summary"]["episodes"]
    measured = [(line["kind"], line["step"]) for line in found["metrics"]]
    assert len(set(measured)) == len(measured)
    assert measured == [(line["kind"], line["step"]) for line in expected["metrics"]]
    for name, value in expected.items():
        assert found[name] == value, name


def test_the_undisturbed_run_learns_something_at_every_step(reference: tuple[Path, float]) -> None:
    """Else all the comparisons below would prove little."""
    path, _ = reference
    steps = [line for line in read_metrics(path).records if line["kind"] == "train"]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert all(line["grad_norm"] > 0 for line in steps)
    assert (path / "warmstart" / "model.safetensors").read_bytes() != (path / "model/model.safetensors").read_bytes()


MOMENTS = [
    r"open .*init.*/tokenizer_config.json w",  # the new model is half written
    r"os.rename .*step-000001",  # the first checkpoint is all but there
    r"open .*partial-000002/state.pt",  # within the first reading
    r"open .*partial-000006/sha256",  # within the warm start
    r"open .*warmstart.partial/tokenizer_config.json w",
    r"open .*partial-000011/state.pt",  # before the very first step is committed …
    r"os.rename .*/\.latest",  # … and right after
    r"open .*partial-000013/state.pt",  # a step was taken, with its episodes written, and not committed
    r"os.rename .*step-000014",  # an evaluation and the last step
    r"open .*model.partial/config.json w",
    r"os.rename .*summary.json",
]
"""Each is met by the run that goes on from the one before."""


def test_killed_at_every_kind_of_moment(run: Run, reference: tuple[Path, float]) -> None:
    for moment in MOMENTS:
        assert run.finish(kill_at=moment) == KILLED, f"{moment}: {run.said()}"
        assert not (run.path / "summary.json").exists()
    assert run.finish() == 0, run.said()
    assert_as_if_nothing_had_happened(run, reference[0])


def test_killed_at_random_moments(run: Run, reference: tuple[Path, float]) -> None:
    killed = 0
    for share in (0.03, 0.08, 0.15, 0.25, 0.4):  # of the reference's time; a forked run is faster
        process = run.start()
        time.sleep(share * reference[1])
        process.kill()
        killed += run.wait(process) == KILLED
    assert killed
    assert run.finish() == 0, run.said()
    assert_as_if_nothing_had_happened(run, reference[0])


def test_a_step_that_was_not_committed_is_cut_off_and_redone(run: Run, reference: tuple[Path, float]) -> None:
    process = run.start()
    assert run.until(process, lambda: run.has("train", 2)), run.said()
    process.kill()
    assert run.wait(process) == KILLED
    with open(run.path / EPISODES, "ab") as episodes:
        episodes.write(b'{"schema":1,"step":9,"id":"half of on')
    assert read_episodes(run.path).torn_bytes == 37
    assert run.finish() == 0, run.said()
    assert re.search(rf"{EPISODES}: dropped \d+ lines? and a half-written one after the last commit", run.said())
    assert_as_if_nothing_had_happened(run, reference[0])


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(run: Run, reference: tuple[Path, float]) -> None:
    assert run.finish(kill_at=r"open .*partial-000013/state.pt") == KILLED, run.said()
    newest = run.path / "checkpoints" / "step-000012"
    data = (newest / "state.pt").read_bytes()
    (newest / "state.pt").write_bytes(data[: len(data) // 2])
    assert run.finish() == 0, run.said()
    said = " ".join(run.said().split())
    assert f"passed over the damaged checkpoint '{newest}'" in said
    assert_as_if_nothing_had_happened(run, reference[0])


def interrupted(run: Run, *signals: signal.Signals) -> int:
    """Send ``signals`` in one breath once the warm start has been measured, and return the exit code."""
    process = run.start()
    assert run.until(process, lambda: run.has("eval_before", 0)), run.said()
    for number in signals:
        os.kill(process.pid, number)
    return run.wait(process)


def test_interrupted_once_it_commits_its_step_and_leaves(run: Run, reference: tuple[Path, float]) -> None:
    assert interrupted(run, signal.SIGINT) == 130, run.said()
    assert "stopped; continue with: agentgym train" in run.said()
    before = read_metrics(run.path).records
    assert run.finish() == 0, run.said()
    assert "dropped" not in run.said()
    assert read_metrics(run.path).records[: len(before)] == before
    assert_as_if_nothing_had_happened(run, reference[0])


def test_interrupted_twice_it_leaves_at_once(run: Run, reference: tuple[Path, float]) -> None:
    assert interrupted(run, signal.SIGINT, signal.SIGTERM) == 130, run.said()
    assert "continue with: agentgym train" in run.said()
    assert run.finish() == 0, run.said()
    assert_as_if_nothing_had_happened(run, reference[0])


def test_a_finished_run_is_left_alone(reference: tuple[Path, float], run: Run) -> None:
    path, _ = reference
    before = lasting(path)
    run.path = path
    assert run.finish() == 0, run.said()
    assert "is finished" in run.said()
    assert lasting(path) == before
