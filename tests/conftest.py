"""What every test shares: needs a machine may lack, and a list of what was not run and why.

A test that needs something special says so by a marker (`gpu`, `docker`, `bubblewrap`, `vllm`) or calls `pytest.skip`
with the reason. With ``AGENTGYM_REQUIRE=all`` in the environment whatever would be skipped fails instead, but for the
want of a GPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, max_examples=50, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")

SKIPPED = pytest.StashKey[dict[str, list[str]]]()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("AGENTGYM_REQUIRE", "") not in ("", "all"):
        raise pytest.UsageError("AGENTGYM_REQUIRE takes 'all' or nothing")
    config.stash[SKIPPED] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    lacks = {"gpu": lacks_gpu, "docker": lacks_docker, "bubblewrap": lacks_bubblewrap, "vllm": lacks_vllm}
    for marker, lacking in lacks.items():
        if item.get_closest_marker(marker) and (reason := lacking()):
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        note_skip(item.config, report, excused=item.get_closest_marker("gpu") is not None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        note_skip(collector.config, report, excused=False)
    return report


def note_skip(config: pytest.Config, report: Any, *, excused: bool) -> None:
    """Remember why something was not run, and fail it where everything is required."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if reason.startswith("got empty parameter set"):  # there is nothing to run, here or elsewhere
        return
    if os.environ.get("AGENTGYM_REQUIRE") == "all" and not excused:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: would be skipped, but everything is required: {reason}"
    else:
        config.stash[SKIPPED].setdefault(reason, []).append(report.nodeid)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if skipped := config.stash[SKIPPED]:
        terminalreporter.section("not run on this machine")
        for reason, tests in sorted(skipped.items()):
            terminalreporter.line(f"{reason}: {', '.join(tests)}")


@cache
def lacks_gpu() -> str:
    """Return why tests on a GPU cannot run here, or nothing."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return "" if torch.cuda.is_available() else "no NVIDIA GPU"


@cache
def lacks_bubblewrap() -> str:
    """Return why tests with boxes that are processes cannot run here, or nothing."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    asked = subprocess.run(["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"], capture_output=True, check=False)
    return "" if asked.returncode == 0 else f"bubblewrap may not run here: {asked.stderr.decode().strip()}"


@cache
def lacks_docker() -> str:
    """Return why tests with a container engine cannot run here, or nothing."""
    if shutil.which("docker") is None:
        return "no docker command"
    asked = subprocess.run(["docker", "info"], capture_output=True, check=False, timeout=20)
    return "" if asked.returncode == 0 else "no docker engine answers"


@cache
def lacks_vllm() -> str:
    """Return why tests with a vLLM server cannot run here, or nothing."""
    try:
        from agentgym.errors import UsageError
        from agentgym.policy.server import find_interpreter
    except ImportError as error:
        return str(error)
    try:
        find_interpreter()
    except UsageError as error:
        return str(error)
    return ""
