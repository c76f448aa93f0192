"""vLLM's server as a process of ours: found, launched, watched, logged and ended.

It runs under an interpreter of its own, whose packages are vLLM's and not ours. `make setup-vllm-cpu` makes one.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentgym.errors import AgentgymError, ConfigError, DeadlineError, PolicyError
from agentgym.policy import guard
from agentgym.policy.endpoint import Endpoint
from agentgym.policy.token_protocol import BACKEND, KNOWN_VERSIONS

MODEL_NAME = "policy"
"What a launched server calls the model."
PYTHON_VARIABLE = "AGENTGYM_VLLM_PYTHON"
BATCHED_TOKENS = 8192
"Most that a server on CPUs reads in one pass, unless one context is longer."
OWN_ENVIRONMENT = Path(".venv-vllm/bin/python")
HOW_TO_GET = "make one with `make setup-vllm-cpu`, or on a GPU machine `pip install 'agentgym-suite[vllm]'` into one"

_LOOK = """
import importlib.metadata as m, json
plugins = {plugin.name for plugin in m.entry_points(group="vllm.general_plugins")}
found = {"version": None, "cpu": False, "plugin": "agentgym" in plugins}
for name in ("vllm", "vllm-cpu"):
    try:
        found |= {"version": m.version(name), "cpu": name == "vllm-cpu" or "cpu" in m.version(name)}
    except m.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that has vLLM."""

    path: str
    version: str
    cpu: bool
    "Whether it is vLLM's build for CPUs."


@dataclass(frozen=True, slots=True)
class Serving:
    """How a model is served."""

    model: str
    "Its folder."
    max_context: int
    dtype: str = "float32"
    concurrency: int = 256
    "Answers written at the same time."
    threads: int | None = None
    "CPU threads of the model; None: as many as the process would take."
    options: Mapping[str, Any] = field(default_factory=dict)
    "Further options of vLLM's command line, ``{'gpu-memory-utilization': 0.5}``; they replace ours."


def find_interpreter(asked: str | None = None) -> Interpreter:
    """Return the interpreter that servers are launched with.

    It is the one ``asked`` for, or that of the environment variable ``AGENTGYM_VLLM_PYTHON``, or this process's own if
    it has vLLM, or the one in ``.venv-vllm`` in the working directory or beside this process's own environment.

    Raises:
        ConfigError: none has a vLLM that is known here, with our plugin.
    """
    named = asked or os.environ.get(PYTHON_VARIABLE)
    beside = Path(sys.prefix).parent / OWN_ENVIRONMENT
    candidates = [named] if named else [sys.executable, str(OWN_ENVIRONMENT), str(beside)]
    said = []
    for python in dict.fromkeys(candidates):
        try:
            return _look(python)
        except ConfigError as error:
            said.append(str(error))
    raise ConfigError("; ".join(said) + f"; {HOW_TO_GET}")


def _look(python: str) -> Interpreter:
    """Return what ``python`` has, or raise ConfigError for what it lacks."""
    try:
        asked = subprocess.run([python, "-c", _LOOK], capture_output=True, text=True, check=False, timeout=60)
        found = json.loads(asked.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"'{python}' is no Python that runs: {error}") from error
    if found["version"] is None:
        raise ConfigError(f"'{python}' has no vLLM")
    check_version(found["version"], f"'{python}'")
    if not found["plugin"]:
        raise ConfigError(f"'{python}' has vLLM {found['version']} but not agentgym, which receives the weights there")
    return Interpreter(python, found["version"], found["cpu"])


def check_version(version: str, whose: str) -> None:
    """Raise ConfigError unless ``version`` is one whose protocol we speak."""
    if not version.startswith(tuple(f"{known}." for known in KNOWN_VERSIONS)):
        known = ", ".join(f"{known}.*" for known in KNOWN_VERSIONS)
        raise ConfigError(f"{whose} has vLLM {version}; known here: {known}")


def command(interpreter: Interpreter, serving: Serving, port: int) -> list[str]:
    """Return the command line of a server on this machine's loopback."""
    options: dict[str, Any] = {
        "model": serving.model,
        "served-model-name": MODEL_NAME,
        "host": "127.0.0.1",
        "port": port,
        "dtype": serving.dtype,
        "max-model-len": serving.max_context,
        "max-num-seqs": serving.concurrency,
        "enable-scale-out": True,
        "weight-transfer-config": json.dumps({"backend": BACKEND}),
        "logprobs-mode": "processed_logprobs",
        "generation-config": "vllm",
        "disable-uvicorn-access-log": True,
    }
    if interpreter.cpu:
        # A seeded answer whose prompt is read in parts ends vLLM there ("CPU Generator does not use offset").
        whole = {"no-enable-chunked-prefill": True, "max-num-batched-tokens": max(BATCHED_TOKENS, serving.max_context)}
        options |= {"enforce-eager": True, "block-size": 32} | whole
    options |= serving.options
    words = [interpreter.path, "-m", "vllm.entrypoints.openai.api_server"]
    for name, value in options.items():
        if value is not False and value is not None:
            said = json.dumps(value) if isinstance(value, Mapping) else str(value)
            words += [f"--{name}"] if value is True else [f"--{name}", said]
    return words


def environment(interpreter: Interpreter, serving: Serving) -> dict[str, str]:
    """Return the environment of a server: ours, without what would make Python look into our packages."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    own |= {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    if interpreter.cpu:
        own |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        own.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    if serving.threads is not None:
        own["OMP_NUM_THREADS"] = str(serving.threads)
    return own


class Server:
    """A server process. It ends with `close`, or when this process does, however that happens.

    Args:
        log: file that everything the server says goes to.
    """

    def __init__(self, interpreter: Interpreter, serving: Serving, log: Path) -> None:
        self.log = log
        self.endpoint = Endpoint(f"http://127.0.0.1:{_free_port()}")
        port = int(self.endpoint.url.rpartition(":")[2])
        log.parent.mkdir(parents=True, exist_ok=True)
        self._said_before = log.stat().st_size if log.exists() else 0
        "Bytes of the log that servers before this one wrote."
        with open(log, "ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, guard.__file__, *command(interpreter, serving, port)],
                env=environment(interpreter, serving),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who may want to end the step first
            )

    async def ready(self, *, deadline_s: float) -> None:
        """Wait until the server answers.

        Raises:
            PolicyError: it ended instead; says why.
            DeadlineError: it is still not ready after ``deadline_s``.
        """
        until = time.monotonic() + deadline_s
        async with self.endpoint as endpoint:
            while time.monotonic() < until:
                if not self.alive:
                    raise PolicyError(f"vLLM ended before it served: {self.last_words()} (all of it in '{self.log}')")
                try:
                    await endpoint.call("GET", "/health", deadline_s=min(5.0, deadline_s))
                    return
                except AgentgymError:
                    await asyncio.sleep(0.2)
        raise DeadlineError(
            f"vLLM did not serve within {deadline_s:g} s; the last it said: {self.last_words()} ('{self.log}')"
        )

    def last_words(self) -> str:
        """Return the line of the log that most likely says what went wrong: its first error, else its last line."""
        said = self.log.read_bytes()[self._said_before :].decode(errors="replace")
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        errors = [line for line in lines if re.search(r"\b\w*(Error|Exception)\b: ", line)]
        telling = errors[0] if errors else lines[-1] if lines else "nothing"
        return telling[-400:]

    @property
    def alive(self) -> bool:
        """Whether the server has not ended."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the guard that the server runs under."""
        return self._process.pid

    def close(self) -> None:
        """End the server and wait until it is gone. Twice is fine."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(guard.GRACE_S + 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def close_all(servers: Sequence[Server]) -> None:
    """End all ``servers``."""
    for server in servers:
        server.close()


__all__ = [
    "HOW_TO_GET",
    "MODEL_NAME",
    "PYTHON_VARIABLE",
    "Interpreter",
    "Server",
    "Serving",
    "check_version",
    "close_all",
    "command",
    "environment",
    "find_interpreter",
]
