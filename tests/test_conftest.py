from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_passes():
    pass

def test_lacks_something():
    pytest.skip("no such thing here")

@pytest.mark.gpu
def test_wants_gpu():
    pytest.skip("no NVIDIA GPU")

@pytest.mark.xfail(strict=True)
def test_known_fault():
    assert False
"""


def run(folder: Path, root: Path, source: str, require: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_x.py").write_text(source)
    (folder / "conftest.py").write_text((root / "tests" / "conftest.py").read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  gpu\n  docker\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_x.py"]
    environment = {"PATH": "/usr/bin:/bin", "AGENTGYM_REQUIRE": require}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_reasons_are_listed_at_the_end(tmp_path: Path, root: Path) -> None:
    done = run(tmp_path, root, TESTS, "")
    assert done.returncode == 0, done.stdout
    assert "no such thing here: test_x.py::test_lacks_something" in done.stdout


def test_required_skip_fails_but_for_the_gpu(tmp_path: Path, root: Path) -> None:
    done = run(tmp_path, root, TESTS, "all")
    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed" in done.stdout
    assert "everything is required: no such thing here" in done.stdout


@pytest.mark.parametrize(
    "line", ["pytest.importorskip('no_such_module')", "pytest.skip('no', allow_module_level=True)"]
)
def test_required_module_skip_fails(tmp_path: Path, root: Path, line: str) -> None:
    done = run(tmp_path, root, f"import pytest\n{line}\n", "all")
    assert done.returncode not in (0, 5), done.stdout


def test_unknown_requirement_is_refused(tmp_path: Path, root: Path) -> None:
    assert run(tmp_path, root, TESTS, "some").returncode == 4
