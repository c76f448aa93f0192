"""How much of what the learner reads is padding: rows of like length share a batch, so little is.

    python benchmarks/padding.py runs/quickstart-0-001 [--token-budget 4096]

Packs the rows of every step of a stored run as the learner does (all of a step's episodes, also those without signal)
and prints the share of padding among the tokens that a forward pass reads: of the whole run, and of the worst step.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from agentgym.store import read_config, read_episodes
from agentgym.train.batch import bins, rows


def share(lengths: list[int], token_budget: int) -> tuple[int, int]:
    """Return the tokens of rows of these ``lengths``, and those that a forward pass reads of them."""
    return sum(lengths), sum(lengths[chosen[0]] * len(chosen) for chosen in bins(lengths, token_budget))


def main() -> None:
    """Measure a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--token-budget", type=int, help="another than the run's")
    asked = parser.parse_args()
    budget = asked.token_budget or read_config(asked.run).train.token_budget
    steps: dict[int, list[int]] = {}
    for episode in read_episodes(asked.run, tokens=True).records:
        steps.setdefault(episode.step, []).extend(len(row.ids_N) for row in rows(episode.trajectory))
    found = [share(lengths, budget) for lengths in steps.values()]
    useful, read = (sum(part) for part in zip(*found, strict=True))
    worst = max(1 - real / padded for real, padded in found)
    print(f"{asked.run}: of {read:,} tokens read {1 - useful / read:.1%} are padding, {worst:.1%} in the worst step")


if __name__ == "__main__":
    main()
