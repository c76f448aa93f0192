"""Commands over stored runs: re-pricing, explaining, comparing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from agentgym.cli import main
from agentgym.config import RunConfig, build
from agentgym.recipes import resolve
from agentgym.store import RunFolder
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message


def episode(
    name: str, group: str, won: float | None, progress: Sequence[float | None], split: str = "train"
) -> Trajectory:
    turns = tuple(
        Turn(
            (text_message("user", f"room {t}"),),
            empty_sample(text_message("assistant", f"go {t}")),
            np.empty(0, np.int32),
        )
        for t in range(len(progress))
    )
    signals = [Signal("progress", value, "world", turn=t) for t, value in enumerate(progress)]
    signals.append(Signal("won", won, "world", cause="" if won is not None else "it died", evidence="the door"))
    return Trajectory(
        f"{group}/{name}",
        group,
        Task(f"t{group}", "Win.", 9, split=split),
        turns,
        (),
        StopReason.DONE,
        tuple(signals),
        0,
    )


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Two groups over two steps, paid by the outcome alone; one outcome is unmeasured."""
    config = build(RunConfig().model_dump(exclude_none=True), {"reward.recipe": "outcome"})
    shaper = resolve("outcome")
    one = Group((episode("0", "a", 1.0, [0.5, 0.5]), episode("1", "a", 0.0, [0.5, -0.25])), 1)
    two = Group((episode("0", "b", 0.0, [0.0, 0.5], "demo"), episode("1", "b", None, [1.0], "demo")), 2)
    with RunFolder.create(tmp_path / "run", config) as run:
        run.append_episodes(1, [(one, shaper(one))])
        run.append_episodes(2, [(two, shaper(two))])
    return tmp_path / "run"


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    assert main([*words, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_score_prices_a_stored_run_again(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "score", str(stored), "--reward", "dense", "--params", "progress=0.4")
    assert found["episodes"] == 4
    assert found["before"] == {
        "reward": "won",
        "total": {"mean": pytest.approx(1 / 3), "unmeasured": 0.25},
        "components": {"won": {"mean": pytest.approx(1 / 3), "unmeasured": 0.25}},
    }
    # progress is 1, 0.25, 0.5 and 1 over the episodes; 0.4 of it. The last total is not known.
    assert found["after"] == {
        "reward": "won + 0.4*progress",
        "total": {"mean": pytest.approx((1.4 + 0.1 + 0.2) / 3), "unmeasured": 0.25},
        "components": {
            "won": {"mean": pytest.approx(1 / 3), "unmeasured": 0.25},
            "progress": {"mean": pytest.approx(0.4 * 2.75 / 4), "unmeasured": 0.0},
        },
    }


@pytest.mark.parametrize(("flag", "value"), [("--step", "2"), ("--split", "demo")])
def test_score_takes_a_part_of_a_run(stored: Path, capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    found = answer(capsys, "score", str(stored), flag, value)
    assert found["episodes"] == 2
    assert found["before"] == found["after"]  # the run's own reward unless another is named


def test_score_is_shown_as_a_table(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(stored), "--reward", "dense", "--params", "progress=0.4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "priced  won + 0.4*progress" in lines
    assert lines[-2].split() == ["progress", "–", "0.2750", "0.0", "%"]  # 0.4 * 2.75 / 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reward", "dens"], "no reward recipe 'dens'; did you mean 'dense'"),
        (["--reward", "gated"], "reads 'grounded', which run '.*' does not measure; it measures: progress, won"),
        (["--params", "signal"], "--params signal: found no value"),
        (["--step", "9"], "holds no such episode"),
    ],
)
def test_score_says_what_is_wrong(
    stored: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["score", str(stored), *words]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_explain_shows_who_paid_and_why(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "reward", "explain", str(stored), "a/1", "--reward", "gated", "--params", "grounded=0.0")
    entries = found["entries"]
    assert isinstance(entries, list)
    assert [(e["turn"], e["component"], e["status"], e["credited"]) for e in entries] == [
        (0, "progress", "closed", 0.0),
        (1, "progress", "closed", 0.0),
        (None, "won", "paid", 0.0),
    ]
    assert entries[0]["gates"] == "won > 0"
    assert entries[2]["evidence"] == "the door"
    assert main(["reward", "explain", str(stored), "b/1"]) == 0
    assert "unmeasured" in capsys.readouterr().out
    assert main(["reward", "explain", str(stored), "b/7"]) == 2
    assert "no episode 'b/7'; did you mean 'b/" in capsys.readouterr().err


def test_diff_compares_two_rewards(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "reward", "diff", str(stored), "--a", "outcome", "--b", "dense")
    assert (found["episodes"], found["left_out"]) == (2, 2)  # group b has one episode that both price
    assert found["distance"] == pytest.approx(0, abs=1e-12)
    assert found["kendall"] == {"value": pytest.approx(1.0), "low": None, "high": None}
    assert main(["reward", "diff", str(stored), "--a", "outcome", "--b", "dense"]) == 0
    assert "Kendall" in capsys.readouterr().out
