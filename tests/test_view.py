"""What is shown of a run: the picture, the live board and the plain lines."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agentgym import config
from agentgym.errors import StoredRunError
from agentgym.train.observer import Observer, Quiet
from agentgym.view import curve, live

STEP = {
    "success": 0.5,
    "turns": 8.0,
    "return": 0.62,
    "reward/won": 0.5,
    "reward/progress": 0.12,
    "entropy": 0.4,
    "kl_sampler": 0.0004,
    "tokens_per_s": 9120.4,
    "groups": 12.0,
    "groups_without_variance": 3.0,
    "episodes_lost": 2.0,
    "step_s": 3.14,
    "share/decode": 0.5,
    "share/worlds": 0.2,
    "share/learn": 0.25,
    "share/other": 0.05,
}
HELD_OUT = {"success": 0.4, "low": 0.3, "high": 0.5, "episodes": 100, "lost": 0, "turns": 9.0, "stops": {"done": 100}}


class Clock:
    """Time that passes when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def store(folder: Path, lines: list[dict[str, Any]], seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(config.dump(config.build({"seed": seed})))
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"schema": 1, **line}) + "\n" for line in lines))
    return folder


def lines_of(steps: int, seed: int = 0) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [{"kind": "eval_before", "step": 0, **HELD_OUT}]
    for step in range(1, steps + 1):
        success = 0.9 - 0.5 * math.exp(-step / 8) + 0.01 * seed
        lines.append({"kind": "train", "step": step, **STEP, "success": success, "reward/won": success})
        if step % 5 == 0:
            lines.append({"kind": "eval_during", "step": step, **HELD_OUT, "success": success, "high": 1.0})
    return [*lines, {"kind": "eval_after", "step": 0, **HELD_OUT, "success": 0.85, "low": 0.8, "high": 0.9}]


def size_of(picture: Path) -> tuple[int, int]:
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


# ------------------------------------------------------------------------------------------------------------- picture


def test_a_run_is_drawn_into_its_folder_and_nothing_is_left_beside(tmp_path: Path) -> None:
    folder = store(tmp_path / "run", lines_of(20))
    picture = curve.draw(folder)
    assert picture == folder / "curve.png"
    width, height = size_of(picture)
    assert width > 2 * height
    assert sorted(path.name for path in folder.iterdir()) == ["config.toml", "curve.png", "metrics.jsonl"]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(lines_of(20)[:1], id="only the first evaluation"),
        pytest.param([{"kind": "train", "step": 1, **STEP}], id="one step, no evaluation"),
        pytest.param(
            [{"kind": "train", "step": n, "success": None, "return": 0.1, "reward/won": 0.1} for n in (1, 2)],
            id="success not measured",
        ),
        pytest.param([{"kind": "eval_before", "step": 0, "success": 0.0, "low": None, "high": None}], id="no interval"),
        pytest.param([*lines_of(3), *lines_of(3)], id="steps written twice"),
    ],
)
def test_a_run_can_be_drawn_at_any_time(tmp_path: Path, lines: list[dict[str, Any]]) -> None:
    assert size_of(curve.draw(store(tmp_path / "run", lines)))


def test_a_run_without_figures_cannot_be_drawn(tmp_path: Path) -> None:
    losses = [{"kind": "warmstart", "step": 1, "train_loss": 1.0, "valid_loss": 1.1}]
    with pytest.raises(StoredRunError, match="nothing to draw"):
        curve.draw(store(tmp_path / "run", losses))
    with pytest.raises(StoredRunError, match=r"config\.toml"):
        curve.draw(tmp_path)


def test_several_seeds_and_kinds_are_drawn_into_one_picture(tmp_path: Path) -> None:
    seeds = [store(tmp_path / f"a{seed}", lines_of(10, seed), seed) for seed in range(3)]
    others = [store(tmp_path / "b0", lines_of(6))]
    one = curve.draw_many(seeds, {"random play": 0.05, "expert": 1.0}, tmp_path / "out" / "many.png")
    two = curve.draw_many({"dense": seeds, "outcome": others}, {}, tmp_path / "kinds.png", title="two rewards")
    assert size_of(one) == size_of(two)


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    curve.draw(store(tmp_path / "run", lines_of(5)))
    assert dict(matplotlib.rcParams) == before


# -------------------------------------------------------------------------------------------------------------- phases


def test_the_time_left_counts_from_the_first_advance() -> None:
    clock = Clock()
    phase = live.Phase("reinforcement", 60, clock)
    assert phase.left_s() is None
    phase.advance(40)  # a continued run begins with what it had
    for _ in range(4):
        clock.now += 3
        phase.advance(1)
    assert phase.left_s() == pytest.approx(3 * 16)
    clock.now += 2
    assert phase.left_s() == pytest.approx(3 * 16 - 2)
    assert phase.share == pytest.approx(44 / 60)


def test_after_an_evaluation_between_steps_the_training_goes_on() -> None:
    watched = live.Watched()
    loop = watched.begin("reinforcement", 60)
    watched.take("train", 10, STEP)
    watched.begin("evaluate on valid", 100)
    watched.take("eval_during", 10, HELD_OUT)
    assert watched.phase is loop
    assert watched.steps == 60


# --------------------------------------------------------------------------------------------------------------- lines


def told(observer: Observer) -> None:
    """Tell an observer of a short run."""
    observer.phase("learn from the expert", 2)
    observer.measured("warmstart", 1, {"train_loss": 1.5, "valid_loss": math.nan, "best_loss": 1.5})
    observer.advance(1)
    observer.measured("eval_before", 0, HELD_OUT)
    observer.phase("reinforcement", 60)
    observer.advance(0)
    observer.measured("train", 1, STEP)
    observer.advance(1)
    observer.phase("evaluate on valid", 100)
    observer.advance(50, "half")
    observer.measured("eval_during", 1, HELD_OUT | {"lost": 3})
    observer.say("something worth reading")


def test_lines_say_each_thing_once() -> None:
    stream = io.StringIO()
    told(live.Lines(stream, Clock()))
    assert stream.getvalue().splitlines() == [
        "[0:00] learn from the expert: 2",
        "[0:00] epoch 1  loss 1.50  held-out –",
        "[0:00] held-out success before: 0.40 [0.30, 0.50]  (100 episodes)",
        "[0:00] reinforcement: 60",
        "[0:00] step 1/60  success 0.50  reward 0.62  won 0.50  progress 0.12  entropy 0.40  kl 0.0004"
        "  9,120 tokens/s  2 lost  3.1 s",
        "[0:00] evaluate on valid: 100",
        "[0:00] held-out success at step 1: 0.40 [0.30, 0.50]  (100 episodes, 3 lost)",
        "[0:00] something worth reading",
    ]


def test_lines_about_progress_are_few() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = live.Lines(stream, clock)
    lines.phase("play", 1000)
    for _ in range(480):
        clock.now += 0.125
        lines.advance(1)
    said = stream.getvalue().splitlines()
    assert 3 <= len(said) <= 6
    assert said[1].startswith("[0:15] play: 120/1000  1:50 left")


# --------------------------------------------------------------------------------------------------------------- board


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_the_board_shows_what_matters_at_any_width(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    board = live.Board(console, "quickstart", Clock())
    told(board)
    with console.capture() as captured:
        console.print(board.render())
    shown = captured.get()
    for word in (
        "quickstart",
        "reinforcement",
        "1/60",
        "0.40 [0.30, 0.50]",
        "entropy",
        "9,120",
        "3 of 12",
        "decode 50 %",
    ):
        assert word in shown, word
    assert max(map(len, shown.splitlines())) <= width


def test_the_board_can_be_shown_before_there_are_figures() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with live.Board(console, "quickstart") as board:
        board.phase("load torch")
        board.advance(1)
        board.phase("read the worlds", 4)
        board.measured("pretrain", 1, {"train_loss": 2.0, "valid_loss": 2.5})
        board.say("a line above it")
    assert "a line above it" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "held-out loss" in console.file.getvalue()  # type: ignore[attr-defined]


def test_shares_fill_the_bar_exactly() -> None:
    assert live.stacked([0.5, 0.2, 0.25, 0.05], 48) == [24, 10, 12, 2]
    for width in range(1, 50):
        assert sum(live.stacked([1 / 3, 1 / 3, 1 / 3, 1e-9], width)) == width


@pytest.mark.parametrize(
    ("values", "options", "shown"),
    [
        ([], {}, ""),
        ([0.0, 0.5, 1.0], {"low": 0.0, "high": 1.0}, "▁▅█"),
        ([3.0, 3.0], {}, "▅▅"),
        ([-1.0, 2.0], {"low": 0.0, "high": 1.0}, "▁█"),
    ],
)
def test_sparklines(values: list[float], options: Mapping[str, float], shown: str) -> None:
    assert live.sparkline(values, **options) == shown


@pytest.mark.parametrize(
    ("format_of", "value", "shown"),
    [
        (live.number, 0.0, "0.00"),
        (live.number, 12.345, "12.35"),
        (live.number, 0.00042, "0.0004"),
        (live.number, 0.00000042, "4e-07"),
        (live.number, None, "–"),
        (live.number, math.inf, "–"),
        (live.count, 9120.4, "9,120"),
        (live.count, math.nan, "–"),
        (live.duration, 59.6, "1:00"),
        (live.duration, 3661, "1:01:01"),
    ],
)
def test_numbers_in_few_digits(format_of: Callable[[Any], str], value: Any, shown: str) -> None:
    assert format_of(value) == shown


def test_the_display_suits_the_stream() -> None:
    with live.watching(io.StringIO()) as observer:
        assert isinstance(observer, live.Lines)
    with live.watching(io.StringIO(), quiet=True) as observer:
        assert isinstance(observer, Quiet)
