"""What the doctor finds, and what it says where something is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from agentgym.cli import main
from agentgym.cli.doctor import examine


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in found["checks"]}


def test_this_machine_can_run_the_main_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ready"]
    checks = by_name(found)
    assert {"python", "platform", "cores", "memory", "torch", "transformers", "textworld"} <= checks.keys()
    assert {"cuda", "compiler", "docker", "chromium", "vllm"} <= checks.keys()
    assert all(check["ok"] or check["fix"] for check in found["checks"])


def test_the_report_names_each_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "torch" in shown
    assert shown.rstrip().endswith("The main job can run: agentgym train quickstart")


def test_what_is_missing_is_said_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == "textworld" else there(name, *rest))
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "MISSING  textworld" in shown
    assert "pip install 'agentgym-suite[textworld]'" in shown
    assert "cannot run yet" in shown


def test_a_broken_package_is_not_taken_for_a_good_one(tmp_path: Path) -> None:
    """A package that is there but cannot be imported: a fresh interpreter finds a broken one first."""
    (tmp_path / "textworld.py").write_text("raise OSError('libfoo.so: cannot open shared object file')")
    code = "import json; from agentgym.cli.doctor import examine; print(json.dumps(examine()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        check=True,
    )
    found = json.loads(done.stdout)
    assert not found["ready"]
    assert "libfoo.so" in by_name(found)["textworld"]["detail"]


@pytest.mark.parametrize("answer", ["exit 1", "echo 'Cannot connect to the Docker daemon' >&2; exit 1"])
def test_an_engine_that_does_not_answer_is_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\n{answer}\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    check = by_name(examine())["docker"]
    assert not check["ok"]
    assert check["detail"].startswith("no engine answers")
