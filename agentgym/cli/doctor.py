"""``agentgym doctor``: what this machine has, and how to get what it lacks."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata, util
from typing import Any

from agentgym.errors import AgentgymError

OLDEST, NEWEST = (3, 11), (3, 13)
"""Python versions agentgym runs on."""
MEMORY_MB = 3000
"""What the main job uses at most, with room to spare."""
_EXTRA = "get it with: pip install 'agentgym-suite[{}]'"
_TIMEOUT_S = 15


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    "How to get it."
    needed: bool = False
    "Whether the main job cannot run without it."


def examine() -> dict[str, Any]:
    """Return all checks, and under ``ready`` whether the main job can run."""
    checks = [
        _python(),
        Check("platform", sys.platform == "linux", platform.platform(), "Linux is what agentgym is tested on"),
        _cores(),
        _memory(),
        _torch(),
        _module("transformers", "train", needed=True),
        _module("safetensors", "train", needed=True),
        _module("matplotlib", "train"),
        _module("textworld", "textworld", needed=True),
        _module("fast_downward", "alfworld"),
        _cuda(),
        _compiler(),
        _docker(),
        _boxes(),
        _chromium(),
        _vllm(),
    ]
    ready = all(check.ok for check in checks if check.needed)
    return {"ready": ready, "checks": [asdict(check) for check in checks]}


def _python() -> Check:
    ok = OLDEST <= sys.version_info[:2] <= NEWEST
    wanted = f"use Python {'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"
    return Check("python", ok, f"{platform.python_version()} ({sys.executable})", wanted, needed=True)


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("cores", cores >= 2, str(cores), "with one core the main job takes about twice as long")


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    fix = f"the main job may need up to {MEMORY_MB} MB"
    return Check("memory", total >= MEMORY_MB, f"{total:,} MB", fix)


def _module(name: str, extra: str, *, needed: bool = False, fix: str = "") -> Check:
    """Return whether a package can be imported; one that is there but broken says why."""
    fix = fix or _EXTRA.format(extra)
    if util.find_spec(name) is None:
        return Check(name, False, "not installed", fix, needed)
    try:
        if needed:
            importlib.import_module(name)
        return Check(name, True, metadata.version(name), fix, needed)
    except Exception as error:
        return Check(name, False, f"installed, but cannot be imported: {error!r}", fix, needed)


def _torch() -> Check:
    found = _module("torch", "train", needed=True)
    if not found.ok:
        return found
    import torch

    return Check("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads", found.fix, needed=True)


def _cuda() -> Check:
    fix = "not needed for the main job; it takes an NVIDIA GPU and a CUDA build of torch"
    if util.find_spec("torch") is None:
        return Check("cuda", False, "torch is not installed", fix)
    try:
        import torch

        if torch.cuda.is_available():
            return Check("cuda", True, ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))))
    except Exception as error:
        return Check("cuda", False, repr(error), fix)
    return Check("cuda", False, "no GPU: everything runs on the CPU", fix)


def _compiler() -> Check:
    found = [path for tool in ("gcc", "cc", "clang") if (path := shutil.which(tool))]
    tools = found[:1] + [path for path in [shutil.which("make")] if path]
    fix = "only needed to install: apt-get install build-essential (TextWorld's interpreter is compiled then)"
    return Check("compiler", len(tools) == 2, ", ".join(tools) or "none", fix)


def _docker() -> Check:
    fix = "only needed for worlds in containers: apt-get install docker.io, and start dockerd"
    if shutil.which("docker") is None:
        return Check("docker", False, "no docker command", fix)
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("docker", False, f"the engine does not answer: {error}", fix)
    if asked.returncode:
        return Check("docker", False, f"no engine answers: {(asked.stderr.strip().splitlines() or [''])[-1]}", fix)
    return Check("docker", True, f"engine {asked.stdout.strip()}")


def _boxes() -> Check:
    """Return which kind of box this machine has; it is the one that every run then uses."""
    from agentgym.sandbox.choose import choice
    from agentgym.sandbox.supervisor import is_available

    fix = "only needed for worlds in boxes: apt-get install gcc docker.io (and start dockerd), or bubblewrap"
    try:
        chosen = choice()
    except AgentgymError as error:
        return Check("boxes", False, str(error), fix)
    ways = {"mount": "mounted anew (milliseconds)", "copy": "copied (slower the more files there are)"}
    ok = chosen.kind == "docker" or shutil.which("bwrap") is not None
    how = "a compiled supervisor" if is_available() else "a shell (slower; no compiler)"
    detail = f"{chosen.kind}, {chosen.why}; run by {how}; files are reset by being {ways[chosen.way_back]}"
    return Check("boxes", ok, detail, fix)


def _chromium() -> Check:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in names if (path := shutil.which(name))), None)
    return Check("chromium", found is not None, found or "none", "only needed for web worlds: apt-get install chromium")


def _vllm() -> Check:
    from agentgym.errors import UsageError

    try:
        from agentgym.policy.server import find_interpreter

        found = find_interpreter()
    except UsageError as error:
        return Check("vllm", False, str(error), "only needed for --policy.engine vllm")
    return Check("vllm", True, f"{found.version}{' for CPUs' if found.cpu else ''} ({found.path})")


__all__ = ["Check", "examine"]
