"""Imports point inward, and importing does nothing but define."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"agentgym": "agentgym", "environments": "agentgym.environments", "reward_shapers": "agentgym.reward_shapers"}

LAYERS = (
    {"types"},
    {"errors"},
    {
        "admission",
        "bar",
        "clock",
        "config",
        "files",
        "jsonlines",
        "ledger",
        "loopback",
        "presets",
        "provenance",
        "render",
        "spaces",
        "tools",
        "wire",
    },
    {"claims", "env", "judge", "judging", "policy", "probe", "reward", "sandbox"},
    {"images", "recipes", "registry", "remote", "reopen", "rollout"}
    | {"store", "store_signals", "testing", "worker", "wrappers"},
    {"attacks", "audit", "audit_cases", "compare", "evaluate", "measure", "probes", "rescore"},
    {"train"},
    {"cli", "view", "__main__"},
)
"""Parts of the core, lowest first: one imports from its own layer and those before it."""
RANK = {part: rank for rank, layer in enumerate(LAYERS) for part in layer}
HEAVY = {"torch", "transformers", "safetensors", "tokenizers", "tensorboard", "matplotlib"}
MAY_BE_HEAVY = ("agentgym.train.", "agentgym.policy.embedded.")
MAY_LOAD_HEAVY = (*MAY_BE_HEAVY, "agentgym.cli.", "agentgym.view.")
"May load it where it is used, but not when they are imported."
MAY_CALL = {("agentgym", "register_all")}


@cache
def sources() -> dict[str, Path]:
    """Return every module by its import name."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((package, *parts))] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(sources()[module].read_text(encoding="utf-8"))


def package_of(module: str) -> str:
    """Return the package that a relative import in ``module`` starts from."""
    return module if sources()[module].name == "__init__.py" else module.rpartition(".")[0]


def imports(module: str, *, at_once: bool = False) -> Iterator[str]:
    """Yield what ``module`` imports, relative imports resolved: anywhere in it, or ``at_once`` when it is imported."""
    later: set[ast.AST] = set()
    for node in ast.walk(tree(module)):
        typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if typing or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            later.update(ast.walk(node))
    package = package_of(module)
    for node in ast.walk(tree(module)):
        if at_once and node in later:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            yield from (name if name in sources() else base for name in names)


def part(module: str) -> str:
    """Return the part of the core that ``module`` belongs to."""
    return module.split(".")[1] if "." in module else ""


CORE = sorted(name for name in sources() if not name.startswith(("agentgym.environments", "agentgym.reward_shapers")))
WORLDS = sorted(name for name in sources() if name.startswith("agentgym.environments"))
SHAPERS = sorted(name for name in sources() if name.startswith("agentgym.reward_shapers"))


def test_every_part_of_the_core_has_its_layer() -> None:
    unplaced = sorted({part(name) for name in CORE} - set(RANK) - {""})
    assert not unplaced, f"place them in LAYERS: {unplaced}"


@pytest.mark.parametrize("module", [name for name in CORE if name != "agentgym"])
def test_core_imports_inward(module: str) -> None:
    for imported in imports(module):
        if imported.startswith("agentgym."):
            assert not imported.startswith(("agentgym.environments", "agentgym.reward_shapers")), (
                f"{module} imports {imported}: the core finds worlds and rewards by name"
            )
            assert RANK[part(imported)] <= RANK[part(module)], f"{module} imports {imported}, which is above it"


@pytest.mark.parametrize("module", WORLDS)
def test_world_imports_the_core_and_itself(module: str) -> None:
    own = ".".join(module.split(".")[:3])
    for imported in imports(module):
        if imported.startswith("agentgym."):
            inside = imported.startswith("agentgym.environments") and (imported + ".").startswith(own + ".")
            core = RANK.get(part(imported), 99) <= RANK["store"]
            assert inside or core, f"{module} imports {imported}"


@pytest.mark.parametrize("module", SHAPERS)
def test_shaper_imports_the_core_and_its_siblings(module: str) -> None:
    for imported in imports(module):
        if imported.startswith("agentgym."):
            sibling = imported.startswith("agentgym.reward_shapers")
            assert sibling or RANK.get(part(imported), 99) <= RANK["reward"], f"{module} imports {imported}"


@pytest.mark.parametrize("module", sorted(sources()))
def test_mapped_folders_import_their_own_relatively_and_the_core_absolutely(module: str) -> None:
    mapped = module.startswith(("agentgym.environments", "agentgym.reward_shapers"))
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom):
            name = node.module or ""
            if mapped:
                assert not name.startswith(("agentgym.environments", "agentgym.reward_shapers")), ast.unparse(node)
            elif package_of(module) == "agentgym":
                assert node.level == 0, ast.unparse(node)


@pytest.mark.parametrize("module", sorted(sources()))
def test_heavy_packages_stay_with_the_trainer(module: str) -> None:
    def heavy(*, at_once: bool) -> set[str]:
        return {name.partition(".")[0] for name in imports(module, at_once=at_once)} & HEAVY

    assert f"{module}.".startswith(MAY_BE_HEAVY) or not heavy(at_once=True)
    assert f"{module}.".startswith(MAY_LOAD_HEAVY) or not heavy(at_once=False)


def test_no_module_imports_itself_in_a_circle() -> None:
    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in seen:
            for imported in imports(module, at_once=True):
                if imported in sources() and imported not in ("agentgym", module):
                    visit(imported, (*path, module))
            seen.add(module)

    seen: set[str] = set()
    for module in sources():
        visit(module, ())


DEFINES = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def only_defines(module: str, node: ast.stmt) -> bool:
    """Return whether a statement at the top of a module imports or defines, or guards what does."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Name(id=name))):
            return (module, name) in MAY_CALL
        case ast.If(test=test, body=body):
            guard = ast.unparse(test)
            return guard == "__name__ == '__main__'" or (guard == "TYPE_CHECKING" and all_define(module, body))
        case ast.Try(body=body, handlers=[ast.ExceptHandler(type=ast.Name(id="ImportError"), body=[ast.Raise()])]):
            return all_define(module, body)
    return isinstance(node, DEFINES)


def all_define(module: str, nodes: list[ast.stmt]) -> bool:
    return all(only_defines(module, node) for node in nodes)


@pytest.mark.parametrize("module", sorted(sources()))
def test_importing_only_defines(module: str) -> None:
    for node in tree(module).body:
        assert only_defines(module, node), f"{module}:{node.lineno} does something when imported"


IMPORT_ALL = """
import importlib, json, os, sys, threading
before = dict(os.environ)
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
assert threading.active_count() == 1, threading.enumerate()
changed = {name for name in os.environ if os.environ[name] != before.get(name)}
assert not [name for name in changed if name.startswith(("AGENTGYM", "HF_", "TOKENIZERS"))], changed
"""


def test_importing_everything_says_and_writes_nothing(tmp_path: Path) -> None:
    names = [name for name in sorted(sources()) if not name.endswith("__main__")]
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_ALL, json.dumps(names)]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
