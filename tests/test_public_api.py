"""``__all__`` says what a module offers: all of it is there, documented, and nothing public is left out."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import agentgym

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"agentgym": "agentgym", "environments": "agentgym.environments", "reward_shapers": "agentgym.reward_shapers"}


def module_names() -> Iterator[str]:
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *(part for part in parts if part != "__init__")))
            if not name.endswith("__main__"):
                yield name


def defined(module: ModuleType) -> set[str]:
    """Return the public functions and classes that ``module`` defines itself."""
    nodes = ast.parse(inspect.getsource(module)).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in nodes if isinstance(node, kinds) and not node.name.startswith("_")}


def part_of_a_world(name: str) -> bool:
    """Return whether ``name`` is a module inside a world's folder; the folder's own ``__all__`` speaks for it."""
    return name.startswith("agentgym.environments.") and name.count(".") > 2


MODULES = list(module_names())


@pytest.mark.parametrize("name", MODULES)
def test_module_says_what_it_is_for(name: str) -> None:
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", MODULES)
def test_all_is_what_the_module_offers(name: str) -> None:
    module = importlib.import_module(name)
    offered = getattr(module, "__all__", None)
    if offered is None:
        program = "__main__" in inspect.getsource(module)
        assert program or part_of_a_world(name) or not defined(module), "it defines something, so it needs __all__"
        return
    assert [entry for entry in offered if not hasattr(module, entry)] == []
    assert len(set(offered)) == len(offered)
    assert defined(module) - set(offered) == set(), "public, but not in __all__"


@pytest.mark.parametrize("name", MODULES)
def test_what_is_offered_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    for entry in getattr(module, "__all__", ()):
        value = getattr(module, entry)
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith("agentgym"):
            assert own_docstring(value), f"{name}.{entry}"


def own_docstring(value: Any) -> str:
    """Return the docstring someone wrote, not the signature a dataclass is given."""
    text = inspect.cleandoc(value.__doc__ or "")
    return "" if text.startswith(f"{value.__name__}(") else text


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_package_offers_its_names_and_no_others() -> None:
    namespace: dict[str, Any] = {}
    exec("from agentgym import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(agentgym.__all__)
    assert set(agentgym.__all__) <= set(dir(agentgym))
    assert sorted(agentgym.__all__) == agentgym.__all__


def test_package_names_are_those_of_their_modules() -> None:
    for name, home in agentgym._HOMES.items():
        assert getattr(agentgym, name) is getattr(importlib.import_module(home), name)
    assert {*agentgym._HOMES, "__version__"} == set(agentgym.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'agentgym' has no attribute 'nothing'"):
        agentgym.nothing  # noqa: B018


def test_names_can_be_imported_in_a_fresh_process() -> None:
    code = "from agentgym import Environment, Task, Shaper; import agentgym; print(agentgym.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == agentgym.__version__
