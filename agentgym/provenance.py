"""What a run was made with: versions, machine, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import agentgym

SCHEMA = 1


def provenance() -> dict[str, Any]:
    """Return the versions of everything installed, the machine, and agentgym's commit where it is a checkout."""
    packages = {dist.name.lower(): dist.version for dist in metadata.distributions()}
    return {
        "schema": SCHEMA,
        "agentgym": agentgym.__version__,
        "commit": _commit(Path(__file__).resolve().parent.parent),
        "command": sys.argv,
        "python": platform.python_version(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cpus": len(os.sched_getaffinity(0)),
            "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        },
        "packages": dict(sorted(packages.items())),
    }


def _processor() -> str:
    """Return the model of the processor where the system tells it, else its architecture."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _commit(folder: Path) -> str | None:
    """Return the commit checked out in ``folder``, with ``+changes`` where files differ; None outside a checkout."""
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return asked.stdout.strip() or None


__all__ = ["provenance"]
