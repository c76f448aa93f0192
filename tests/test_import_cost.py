"""``import agentgym`` costs little more than Gymnasium alone, and brings nothing heavy along."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import pytest

TIMED = "import time; began = time.process_time(); import {}; print(time.process_time() - began)"
HEAVY = ("torch", "transformers", "textworld", "docker", "pydantic", "typer", "rich", "matplotlib", "http.server")


def run(code: str, folder: Path) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_import_costs_at_most_half_of_gymnasium_more(tmp_path: Path) -> None:
    pairs = [[float(run(TIMED.format(name), tmp_path)) for name in ("gymnasium", "agentgym")] for _ in range(7)]
    peer, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    assert ours <= 1.5 * peer, f"agentgym {ours:.3f} s of processor, gymnasium {peer:.3f} s"


def test_import_brings_nothing_heavy(tmp_path: Path) -> None:
    loaded = run(f"import sys, agentgym; print([n for n in {HEAVY!r} if n in sys.modules])", tmp_path)
    assert loaded.strip() == "[]"


def test_import_registers_without_loading_worlds(tmp_path: Path) -> None:
    code = """
import sys, gymnasium, agentgym
assert "agentgym/TextWorld-v0" in gymnasium.registry
assert not [name for name in sys.modules if name.startswith("agentgym.environments")]
"""
    run(code, tmp_path)


@pytest.mark.parametrize("module", ["config", "store", "cli", "view", "train", "reward_shapers.recipes"])
def test_light_parts_need_no_torch(module: str, tmp_path: Path) -> None:
    run(
        f"import sys, agentgym.{module}; assert not {{'torch', 'transformers', 'textworld'}} & {{*sys.modules}}",
        tmp_path,
    )
