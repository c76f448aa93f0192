"""A run whose template rewrites history: a row a turn, said once, and refused where a trajectory has to be one row."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentgym.config import RunConfig
from agentgym.errors import ConfigError
from agentgym.store import RunFolder, read_metrics

pytest.importorskip("torch")

from agentgym.train.factory import CHATML
from agentgym.train.observer import Quiet
from agentgym.train.trainer import Trainer

FORGETS = CHATML.replace(
    "{% for message in messages %}",
    "{% for message in messages %}{% if message['role'] != 'assistant' or loop.index >= loop.length - 1 %}",
).replace("{% endfor %}", "{% endif %}{% endfor %}")
"""Keeps only the last thing the assistant said."""


class Ear(Quiet):
    """Hears what a person would be told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, line: str) -> None:
        self.heard.append(line)


@pytest.fixture(scope="module")
def forgetful(
    tiny: Callable[..., RunConfig], train_here: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model folder whose template forgets."""
    run = tmp_path_factory.mktemp("forgetful") / "run"
    train_here(run, tiny(train__steps=0))
    folder = run / "warmstart"
    (folder / "chat_template.jinja").write_text(FORGETS)
    return folder


def train(path: Path, config: RunConfig) -> list[str]:
    ear = Ear()
    with RunFolder.create(path, config) as folder:
        asyncio.run(Trainer(config, folder, observer=ear).train())
    return ear.heard


def test_a_run_learns_turn_by_turn_and_says_so(tiny: Callable[..., RunConfig], forgetful: Path, tmp_path: Path) -> None:
    heard = train(tmp_path / "run", tiny(model__path=str(forgetful), warmstart__max_epochs=1))
    said = [line for line in heard if "each turn is a row of its own" in line]
    assert len(said) == 1
    assert "the chat template" in said[0]
    taken = [line for line in read_metrics(tmp_path / "run").records if line["kind"] == "train"]
    assert len(taken) == 2
    assert all(line["kl_sampler"] < 1e-6 for line in taken if "kl_sampler" in line), "scored as it was sampled"
    assert any(line.get("trained_tokens") for line in taken)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ({"train__advantage": "gae"}, r"train.advantage: 'gae' needs a trajectory in one row, but the chat template"),
        ({"train__loss": "gspo_trajectory"}, r"train.loss: 'gspo_trajectory' needs a trajectory in one row"),
        (
            {"train__correction": "mask", "train__correction_level": "trajectory"},
            r"train.correction_level: 'trajectory' needs a trajectory in one row",
        ),
    ],
)
def test_what_needs_a_trajectory_in_one_row_is_refused(
    tiny: Callable[..., RunConfig], forgetful: Path, tmp_path: Path, override: dict[str, Any], said: str
) -> None:
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    with pytest.raises(ConfigError, match=said):
        train(tmp_path / "run", tiny(model__path=str(forgetful), warmstart__episodes=0, **override))


def test_tokens_can_be_asked_for(tiny: Callable[..., RunConfig], forgetful: Path, tmp_path: Path) -> None:
    settings = {"policy__history": "tokens", "warmstart__episodes": 0, "train__steps": 1}
    assert not any("row of its own" in line for line in train(tmp_path, tiny(model__path=str(forgetful), **settings)))
