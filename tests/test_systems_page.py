"""The page of published systems follows the code, and says nothing that is not so."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script as a module; it is no part of the package."""
    path = Path(__file__).resolve().parent.parent / "scripts" / "systems.py"
    spec = importlib.util.spec_from_file_location("systems_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["systems_page"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["systems_page"]


def test_the_page_is_what_the_script_makes(script: ModuleType, capsys: pytest.CaptureFixture[str]):
    assert script.main(["--check"]) == 0, capsys.readouterr().err


def test_every_system_is_there_once(script: ModuleType):
    _, systems = script.read()
    assert [system.id for system in systems] == [f"S{number:02d}" for number in range(1, 80)]


def test_no_two_systems_are_shown_by_the_same_test(script: ModuleType):
    _, systems = script.read()
    shown = [system.test for system in systems if system.expressed]
    assert len(set(shown)) == len(shown)
    assert {test.partition("::")[0] for test in shown} == {"tests/test_systems.py"}


def test_every_test_of_a_method_shows_a_system(script: ModuleType):
    _, systems = script.read()
    shown = {system.test.partition("::")[2] for system in systems}
    there = script.tests_in(Path(__file__).parent / "test_systems.py")
    assert there - shown == {"test_the_recorded_episodes_are_what_the_rest_assumes"}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"expressed": ["agentgym.reward_shapers.outcome:outcom"], "test": "tests/test_reward.py::test_x"},
            "there is no",
        ),
        ({"expressed": ["agentgym.reward:above"], "test": "tests/test_systems.py::test_nothing"}, "there is no test"),
        ({"expressed": ["agentgym.reward:above"], "test": "tests/nowhere.py::test_nothing"}, "there is no test"),
        ({"expressed": ["agentgym.reward:above"]}, "there is no test"),
        ({}, "one of the two"),
        ({"waits": "luck", "what": "rain"}, "it takes one of world"),
        ({"waits": "world"}, "says `what`"),
    ],
)
def test_what_is_wrong_is_told(script: ModuleType, row: dict[str, object], problem: str):
    (first, *_) = script.System("S00", "a system", **row).problems({"world": "a world"})
    assert problem in first
    assert first.startswith("S00")


def test_a_stale_page_is_refused(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(script, "PAGE", tmp_path / "systems.md")
    assert script.main(["--check"]) == 1
    assert "is stale; run: python scripts/systems.py" in capsys.readouterr().err
    assert script.main([]) == 0
    assert script.main(["--check"]) == 0
    (tmp_path / "systems.md").write_text("Expressed: all of them.\n")
    assert script.main(["--check"]) == 1
