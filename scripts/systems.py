"""Writes ``docs/systems.md``: which published systems are expressed here, by what, and which test shows it.

``python scripts/systems.py`` checks ``docs/systems.toml`` against the code and writes the page; ``… --check`` writes
nothing, and fails where the page is stale. A system that is expressed names what can be imported, and a test that
exists; every other says what it waits for.
"""

from __future__ import annotations

import argparse
import ast
import pkgutil
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE, PAGE = ROOT / "docs" / "systems.toml", ROOT / "docs" / "systems.md"

HEAD = """<!-- made by scripts/systems.py from systems.toml and the code; edit that, not this -->

# Published systems

What others have published about rewarding agents, and where it is found here. A system counts as expressed when a test
runs its mechanism on recorded episodes of a world that ships with agentgym; the judges in those tests are scripted, so
that they show the mechanism and say nothing about a model. What such a system has besides, and we have not, is
said beside it. Recipes are chosen by name, with `reward.recipe`.
"""


@dataclass(frozen=True)
class System:
    """One published system."""

    id: str
    name: str
    arxiv: str = ""
    expressed: Sequence[str] = ()
    "Where it is found, as ``module:name``, the first the one to start from."
    test: str = ""
    "Node id of the test that runs it on recorded episodes."
    lacks: str = ""
    waits: str = ""
    "What it waits for: one of the reasons."
    what: str = ""

    def problems(self, reasons: Mapping[str, str]) -> Iterator[str]:
        """Yield what is wrong with it."""
        if bool(self.expressed) == bool(self.waits):
            yield f"{self.id} has to be expressed or to wait, one of the two"
        if self.waits and (self.waits not in reasons or not self.what or self.test):
            yield f"{self.id} waits for '{self.waits}'; it takes one of {', '.join(reasons)}, says `what`, has no test"
        for path in self.expressed:
            try:
                pkgutil.resolve_name(path)
            except (ImportError, AttributeError, ValueError) as error:
                yield f"{self.id}: there is no '{path}': {error}"
        file, _, function = self.test.partition("::")
        if self.expressed and function not in tests_in(ROOT / file):
            yield f"{self.id}: there is no test '{self.test}'"


def read(path: Path = SOURCE) -> tuple[dict[str, str], list[System]]:
    """Return the reasons for which systems wait, and the systems."""
    data: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    return data["reasons"], [System(**row) for row in data["system"]]


@cache
def tests_in(path: Path) -> frozenset[str]:
    """Return the names of the tests that ``path`` holds; none if there is no such file."""
    if not path.is_file():
        return frozenset()
    nodes = ast.parse(path.read_text("utf-8")).body
    return frozenset(n.name for n in nodes if isinstance(n, ast.FunctionDef) and n.name.startswith("test_"))


def page(reasons: Mapping[str, str], systems: Sequence[System]) -> str:
    """Return the page."""
    found = [system for system in systems if system.expressed]
    waiting = [system for system in systems if system.waits]
    parts = [HEAD, "## Expressed\n", _table(("", "system", "arXiv", "by", "shown by", "lacks"), map(_expressed, found))]
    parts.append("## Waiting\n")
    for key, reason in reasons.items():
        rows = [(s.id, s.name, _arxiv(s), s.what) for s in waiting if s.waits == key]
        parts.append(f"For {reason}:\n\n" + _table(("", "system", "arXiv", "what"), rows))
    counts = Counter(system.waits for system in waiting)
    told = [f"Expressed: {len(found)} of {len(systems)}.", f"Waiting: {len(waiting)}."]
    parts.append("## Counts\n\n" + " ".join(told) + "\n")
    parts.append(_table(("waits for", "systems"), [(reason, str(counts[key])) for key, reason in reasons.items()]))
    return "\n".join(parts)


def main(words: Sequence[str] | None = None) -> int:
    """Check the systems, and write the page or compare it; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is stale")
    asked = parser.parse_args(words)
    reasons, systems = read()
    wrong = [problem for system in systems for problem in system.problems(reasons)]
    text = page(reasons, systems)
    if asked.check and (not PAGE.is_file() or PAGE.read_text("utf-8") != text):
        wrong.append("docs/systems.md is stale; run: python scripts/systems.py")
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        return 1
    if not asked.check:
        PAGE.write_text(text, "utf-8")
    return 0


def _expressed(system: System) -> Sequence[str]:
    first, *others = (_short(path) for path in system.expressed)
    return (
        system.id,
        system.name,
        _arxiv(system),
        ", ".join([f"**`{first}`**", *(f"`{other}`" for other in others)]),
        f"`{system.test.partition('::')[2]}`",
        system.lacks,
    )


def _short(path: str) -> str:
    """Return where something is found; of a recipe its name alone, if configurations know it by that."""
    module, _, name = path.partition(":")
    recipes = pkgutil.resolve_name("agentgym.reward_shapers.recipes")
    is_recipe = name in recipes.__all__ and getattr(recipes, name) is pkgutil.resolve_name(path)
    return f"recipe {name}" if is_recipe else f"{module.removeprefix('agentgym.')}:{name}"


def _arxiv(system: System) -> str:
    return f"[{system.arxiv}](https://arxiv.org/abs/{system.arxiv})" if system.arxiv else "–"


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
