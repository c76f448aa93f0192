"""What the documents say can be done, can be done.

Python blocks run, each in a fresh process and an empty folder (one with ``...`` in place of code is only parsed); TOML
blocks could be trained from;
commands name targets and subcommands that exist; links point at files that are there.
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
SHELLS = {"bash", "sh", "shell", "console"}


class Block(NamedTuple):
    """One fenced block of a document."""

    place: str
    language: str
    text: str


def blocks() -> Iterator[Block]:
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        for found in re.finditer(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", text, flags=re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(f"{name}:{line}", found[2], found[3])


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield the words of each command line in the shell blocks, and where it stands."""
    for block in blocks():
        if block.language in SHELLS:
            lines = block.text.replace("\\\n", " ").splitlines()
            for line in lines:
                words = shlex.split(line.strip().removeprefix("$ "), comments=True)
                while words and re.fullmatch(r"\w+=.*", words[0]):
                    words = words[1:]
                if words:
                    yield block.place, words


TOML = [block for block in blocks() if block.language == "toml"]
PYTHON = [block for block in blocks() if block.language == "python"]
MAKE = sorted({(place, word) for place, words in commands() if words[0] == "make" for word in words[1:]})
AGENTGYM = sorted({(place, words[1]) for place, words in commands() if Path(words[0]).name == "agentgym"})
LINKS = sorted(
    {
        (name, target)
        for name in DOCUMENTS
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / name).read_text(encoding="utf-8"))
        if "://" not in target
    }
)


def test_two_commands_are_in_the_readme() -> None:
    told = {word for place, word in MAKE if place.startswith("README")}
    assert {"train", "test"} <= told


@pytest.mark.parametrize(("place", "word"), MAKE)
def test_make_target_exists(place: str, word: str) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    name, is_variable, _ = word.partition("=")
    wanted = rf"^{name} *\??=|^{name} *:=" if is_variable else rf"^{name}:"
    assert word.startswith("-") or re.search(wanted, makefile, flags=re.MULTILINE), place


@pytest.mark.parametrize(("place", "subcommand"), AGENTGYM)
def test_subcommand_exists(place: str, subcommand: str) -> None:
    words = [subcommand] if subcommand.startswith("-") else [subcommand, "--help"]
    done = subprocess.run(
        [Path(sys.executable).parent / "agentgym", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{place}: {done.stderr}"


@pytest.mark.parametrize("block", PYTHON, ids=[block.place for block in PYTHON])
def test_python_block_runs(block: Block, tmp_path: Path) -> None:
    tree = ast.parse(block.text)
    elided = any(isinstance(node, ast.Constant) and node.value is ... for node in ast.walk(tree))
    if not elided:
        command = [sys.executable, "-c", block.text]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block.place}:\n{done.stderr}"


@pytest.mark.parametrize("block", TOML, ids=[block.place for block in TOML])
def test_toml_block_is_a_run_that_could_begin(block: Block, tmp_path: Path) -> None:
    pytest.importorskip("textworld")
    pytest.importorskip("aiohttp")
    (tmp_path / "run.toml").write_text(block.text, encoding="utf-8")
    command = [Path(sys.executable).parent / "agentgym", "train", "run.toml", "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{block.place}:\n{done.stderr}"


@pytest.mark.parametrize(("name", "target"), LINKS)
def test_link_points_at_something(name: str, target: str) -> None:
    assert (ROOT / name).parent.joinpath(target).exists()


def test_changelog_says_one_thing_in_one_sentence() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text
    entries = re.findall(r"^- (.*(?:\n  .*)*)", text, flags=re.MULTILINE)
    assert entries
    for entry in entries:
        assert len(entry.split()) <= 25, entry
        assert entry.endswith("."), entry
