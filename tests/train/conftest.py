"""What the tests of training share: a tiny model, rows by hand, and a whole run that takes a second or two."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentgym.config import RunConfig, build
from agentgym.store import RunFolder
from agentgym.types import Message, Sample, Signal, StopReason, Task, Trajectory, Turn, text_message

TEXTS = (
    "you are in a kitchen . you see a box and a red door .",
    "open the box . take the key from the box . unlock the red door with the key .",
    "go north . go south . go east . go west . there is nothing here . what now ?",
)

TINY: dict[str, Any] = {
    "seed": 10,
    "deterministic": True,
    "threads": 1,
    "env": {
        "id": "textworld",
        "workers": 1,
        "concurrency": 16,
        "options": {
            "challenge": "coin_collector",
            "level": 2,
            "games": {"demo": 6, "train": 8, "valid": 4, "test": 4},
            "max_turns": 4,
        },
    },
    "model": {"layers": 1, "width": 32, "heads": 2, "max_context": 512},
    "policy": {"max_tokens": 6},
    "reward": {"recipe": "direct"},
    "pretrain": {"plays": 1, "lr": 0.002, "batch_tokens": 512, "max_epochs": 2, "patience": 2},
    "warmstart": {
        "episodes": 6,
        "lr": 0.03,
        "batch_tokens": 512,
        "max_epochs": 8,
        "patience": 8,
        "valid_fraction": 0.0,
    },
    "train": {"steps": 2, "groups": 4, "group_size": 4, "lr": 0.003, "token_budget": 2048},
    "eval": {"games": 2, "every": 2, "final_games": 2},
    "checkpoint": {"every": 1},
}
"""A run on real games whose every phase takes a fraction of a second. It wins now and then."""


@pytest.fixture(scope="session")
def tiny() -> Callable[..., RunConfig]:
    """Return the tiny run's configuration, with dotted overrides."""
    pytest.importorskip("textworld")
    return lambda **overrides: build(TINY, {key.replace("__", "."): value for key, value in overrides.items()})


@pytest.fixture(scope="session")
def train_here() -> Callable[[Path, RunConfig], dict[str, Any]]:
    """Run a configuration in this process, or continue what is in the folder, and return the summary."""

    def run(path: Path, config: RunConfig) -> dict[str, Any]:
        from agentgym.train.trainer import Trainer

        new = not (path / "config.toml").exists()
        with RunFolder.create(path, config) if new else RunFolder.resume(path) as folder:
            return asyncio.run(Trainer(config, folder).train())

    return run


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A word tokenizer of some forty words."""
    factory = pytest.importorskip("agentgym.train.factory")
    return factory.build_tokenizer(TEXTS, kind="word", vocab_size=128, max_context=64)


@pytest.fixture(scope="session")
def make_model(tokenizer: Any) -> Callable[..., Any]:
    """Make a two-layer model; the same seed makes the same one."""
    from agentgym.train.factory import build_model

    def make(seed: int = 0, *, layers: int = 2, width: int = 32, double: bool = False) -> Any:
        model = build_model(tokenizer, layers=layers, width=width, heads=2, max_context=64, seed=seed)
        return model.double() if double else model

    return make


def trajectory(
    turns: Sequence[tuple[int, int]] = ((5, 2), (3, 2)),
    *,
    seed: int = 0,
    segments: Sequence[int] | None = None,
    version: int = 0,
    stop: StopReason = StopReason.DONE,
    signals: Sequence[Signal] = (),
    name: str = "g/0",
    vocabulary: int = 39,
) -> Trajectory:
    """Return an episode with random tokens: for each turn, how many were read and how many written."""
    random = np.random.default_rng(seed)
    made = []
    for t, (before, wrote) in enumerate(turns):
        sample = Sample(
            Message("assistant", "go north"),
            random.integers(4, vocabulary, wrote).astype(np.int32),
            random.normal(-3.5, 0.3, wrote).astype(np.float32),
            np.full(wrote, version, np.int32),
        )
        prompt = random.integers(4, vocabulary, before).astype(np.int32)
        segment = segments[t] if segments else 0
        made.append(Turn((text_message("user", f"turn {t}"),), sample, prompt, segment=segment))
    task = Task("world/train/0", "win", 9)
    return Trajectory(name, name.split("/")[0], task, tuple(made), (), stop, tuple(signals), seed)


@pytest.fixture(name="trajectory", scope="session")
def _trajectory() -> Callable[..., Trajectory]:
    return trajectory


def allocated(work: Callable[[], Any]) -> int:
    """Return by how many bytes memory grew at most while ``work`` was done, as torch's allocator saw it."""
    from torch.profiler import ProfilerActivity, profile

    gc.collect()  # or what others left behind would be freed meanwhile
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        work()
    steps = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    level = most = 0
    for event in sorted(steps, key=lambda event: event.start_ns()):
        level += event.nbytes()
        most = max(most, level)
    return most


@pytest.fixture(name="allocated", scope="session")
def _allocated() -> Callable[[Callable[[], Any]], int]:
    return allocated
