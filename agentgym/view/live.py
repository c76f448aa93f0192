"""What a person sees while a run goes on: a live board on a terminal, plain lines anywhere else.

Both are an `agentgym.train.observer.Observer`. The board is redrawn a few times a second from what was said last; the
lines are throttled, so that the log of a long run stays short enough to be read.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agentgym.train.observer import Observer, Quiet

SHARES = {
    "decode": "cyan",
    "worlds": "green",
    "judge": "yellow",
    "sync": "blue",
    "learn": "magenta",
    "other": "bright_black",
}
"""What a step's time goes to, and the colour of each."""
EPOCHS = ("pretrain", "warmstart")
"""Kinds of measurement that come once an epoch of supervised learning, in the order of a run."""
_LEARNING = {
    "entropy": "entropy",
    "kl_sampler": "KL to the sampler",
    "kl_reference": "KL to the start",
    "turns": "turns",
}
_BESIDE = 92
"Columns a terminal needs for both halves of the board side by side."
_BLOCKS = "▁▂▃▄▅▆▇█"
_KEPT = 40
_EVERY_S = 15.0
"Least time between two plain lines about how far a phase is."
_REFRESH_HZ = 4

Metrics = Mapping[str, Any]
Clock = Callable[[], float]


class Phase:
    """A part of a run, and how far it is.

    Args:
        total: advances it will make, if that is known.
    """

    def __init__(self, name: str, total: int | None, clock: Clock = time.monotonic) -> None:
        self.name, self.total, self.done = name, total, 0
        self._clock, self._began = clock, clock()
        self._points: deque[tuple[float, int]] = deque(maxlen=_KEPT)

    def advance(self, amount: int) -> None:
        """Count ``amount`` more."""
        self.done += amount
        self._points.append((self._clock(), self.done))

    @property
    def seconds(self) -> float:
        """Time since it began."""
        return self._clock() - self._began

    @property
    def share(self) -> float | None:
        """Part of it that is done, in [0, 1], or None where the total is not known."""
        return min(1.0, self.done / self.total) if self.total else None

    def left_s(self) -> float | None:
        """Return the seconds it has left at its latest pace, or None where that cannot be said.

        What was there when it began (the first advance of a continued run) is not counted as pace.
        """
        if self.total is None or len(self._points) < 2:
            return None
        (began, first), (latest, last) = self._points[0], self._points[-1]
        if last <= first:
            return None
        pace = (latest - began) / (last - first)
        return max(0.0, pace * (self.total - last) - (self._clock() - latest))


class Watched:
    """All that an observer was told, in the shape both displays need."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self.phase: Phase | None = None
        self.steps: int | None = None
        "Training steps wanted, once that is known."
        self.latest: dict[str, tuple[int, Metrics]] = {}
        "Kind of measurement -> the step and values of the last one."
        self.history: dict[str, deque[float]] = {}
        "``kind/name`` -> values, oldest first; ``held-out`` -> success of every evaluation."
        self._loop: Phase | None = None

    def begin(self, name: str, total: int | None) -> Phase:
        """Enter a phase."""
        self.phase = Phase(name, total, self._clock)
        return self.phase

    def take(self, kind: str, step: int, metrics: Metrics) -> None:
        """Take a measurement in. After an evaluation between two training steps, the training goes on."""
        if kind == "train":
            self._loop = self.phase
            self.steps = self.phase.total if self.phase else None
        elif kind == "eval_during" and self._loop is not None:
            self.phase = self._loop
        self.latest[kind] = (step, metrics)
        for name, value in metrics.items():
            if isinstance(value, int | float) and math.isfinite(value):
                self._keep(f"{kind}/{name}", float(value))
                if kind.startswith("eval_") and name == "success":
                    self._keep("held-out", float(value))

    def _keep(self, key: str, value: float) -> None:
        self.history.setdefault(key, deque(maxlen=_KEPT)).append(value)

    def held_out(self) -> Metrics | None:
        """Return the newest evaluation."""
        for kind in ("eval_after", "eval_during", "eval_before"):
            if kind in self.latest:
                return self.latest[kind][1]
        return None


# --------------------------------------------------------------------------------------------------------- plain lines


class Lines:
    """Plain lines: one when a phase begins, one for each measurement, and now and then how far a phase is."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream, self._clock, self._began = stream, clock, clock()
        self._watched = Watched(clock)
        self._said = clock()
        self._lock = threading.Lock()

    def phase(self, name: str, total: int | None = None) -> None:
        """Say what begins."""
        with self._lock:
            self._watched.begin(name, total)
            self._line(name if total is None else f"{name}: {total}")

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Say how far the phase is, if nothing was said for a while."""
        with self._lock:
            phase = self._watched.phase
            if phase is None:
                return
            phase.advance(amount)
            if self._clock() - self._said >= _EVERY_S:
                left = phase.left_s()
                words = [f"{phase.name}: {phase.done}" + (f"/{phase.total}" if phase.total else "")]
                words += [f"{duration(left)} left"] if left is not None else []
                self._line("  ".join([*words, *([note] if note else [])]))

    def measured(self, kind: str, step: int, metrics: dict[str, Any]) -> None:
        """Say what was measured."""
        with self._lock:
            self._watched.take(kind, step, metrics)
            self._line(measured_line(kind, step, metrics, self._watched.steps))

    def say(self, line: str) -> None:
        """Say it."""
        with self._lock:
            self._line(line)

    def _line(self, text: str) -> None:
        self._said = self._clock()
        print(f"[{duration(self._said - self._began)}] {text}", file=self._stream, flush=True)


def measured_line(kind: str, step: int, metrics: Metrics, steps: int | None = None) -> str:
    """Return a measurement as one line."""
    if kind in EPOCHS:
        return f"epoch {step}  loss {number(metrics.get('train_loss'))}  held-out {number(metrics.get('valid_loss'))}"
    if kind.startswith("eval_"):
        when = {"eval_before": "before", "eval_after": "after"}.get(kind, f"at step {step}")
        lost = f", {metrics['lost']} lost" if metrics.get("lost") else ""
        return f"held-out success {when}: {with_interval(metrics)}  ({metrics.get('episodes', 0)} episodes{lost})"
    parts = [f"step {step}" + (f"/{steps}" if steps else ""), f"success {number(metrics.get('success'))}"]
    parts += [f"{name} {number(value)}" for name, value in rewards(metrics).items()]
    learning = {"entropy": "entropy", "kl_sampler": "kl"}
    parts += [f"{name} {number(metrics[key])}" for key, name in learning.items() if key in metrics]
    if "tokens_per_s" in metrics:
        parts.append(f"{count(metrics['tokens_per_s'])} tokens/s")
    if metrics.get("episodes_lost"):
        parts.append(f"{count(metrics['episodes_lost'])} lost")
    if "step_s" in metrics:
        parts.append(f"{metrics['step_s']:.1f} s")
    return "  ".join(parts)


# ---------------------------------------------------------------------------------------------------------- live board


class Board:
    """A board on a terminal, redrawn in place; what is worth keeping scrolls by above it."""

    def __init__(self, console: Console, title: str = "", clock: Clock = time.monotonic) -> None:
        self._console, self._title, self._clock, self._began = console, title, clock, clock()
        self._watched = Watched(clock)
        self._lock = threading.Lock()
        self._live = Live(get_renderable=self.render, console=console, refresh_per_second=_REFRESH_HZ, transient=False)

    def __enter__(self) -> Board:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def phase(self, name: str, total: int | None = None) -> None:
        """Begin another bar."""
        with self._lock:
            self._watched.begin(name, total)

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Move the bar."""
        with self._lock:
            if self._watched.phase is not None:
                self._watched.phase.advance(amount)

    def measured(self, kind: str, step: int, metrics: dict[str, Any]) -> None:
        """Show new figures; evaluations are kept above the board."""
        with self._lock:
            self._watched.take(kind, step, metrics)
        if kind.startswith("eval_"):
            self.say(measured_line(kind, step, metrics))

    def say(self, line: str) -> None:
        """Print a line above the board."""
        self._console.print(Text(f"[{duration(self._clock() - self._began)}] ", "dim") + Text(line))

    def render(self) -> RenderableType:
        """Return the board as it stands."""
        with self._lock:
            parts: list[RenderableType] = [_header(self._title, self._clock() - self._began)]
            if self._watched.phase is not None:
                parts.append(_progress(self._watched.phase))
            if "train" in self._watched.latest:
                width = self._console.width
                parts += [Text(), _figures(self._watched, width), *_time(self._watched.latest["train"][1], width)]
            elif learnt := [kind for kind in EPOCHS if kind in self._watched.latest]:
                parts += [Text(), _losses(self._watched, learnt[-1])]
            return Group(*parts)


def _header(title: str, seconds: float) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column()
    grid.add_column(justify="right")
    grid.add_row(Text(title, "bold"), Text(duration(seconds), "dim"))
    return grid


def _progress(phase: Phase) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    left = phase.left_s()
    counted = f"{phase.done}/{phase.total}" if phase.total else str(phase.done) if phase.done else ""
    words = f"{counted}  {duration(left)} left" if left is not None else f"{counted}  {duration(phase.seconds)}"
    bar: RenderableType = Text()
    if phase.share is not None:
        bar = Bar(1.0, 0.0, phase.share, color="cyan", bgcolor="grey23")
    grid.add_row(Text(phase.name, "bold cyan"), bar, Text(words.strip(), "dim"))
    return grid


def _losses(watched: Watched, kind: str) -> RenderableType:
    grid = _columns()
    for key, name in (("train_loss", "loss"), ("valid_loss", "held-out loss")):
        values = watched.history.get(f"{kind}/{key}", deque())
        grid.add_row(name, number(values[-1] if values else None), Text(sparkline(values), "cyan"))
    return grid


def _figures(watched: Watched, width: int) -> RenderableType:
    """Return what it is about (success, reward) and how the learning goes, side by side where there is room."""
    beside = width >= _BESIDE
    cells = max(6, min(24, (width - 74) // 2)) if beside else max(6, min(24, width - 40))
    left, right = _outcomes(watched, cells), _learning(watched, cells)
    if not beside:
        return Group(left, right)
    both = Table.grid(padding=(0, 4))
    both.add_row(left, right)
    return both


def _outcomes(watched: Watched, cells: int) -> Table:
    _, metrics = watched.latest["train"]
    grid = _columns()
    grid.add_row("success", Text(number(metrics.get("success")), "bold"), _success(watched, "train/success", cells))
    held = watched.held_out()
    if held is not None:
        grid.add_row("held-out", Text(with_interval(held), "bold green"), _success(watched, "held-out", cells))
    for name, value in rewards(metrics).items():
        key = "train/return" if name == "reward" else f"train/reward/{name}"
        grid.add_row(name, number(value), _spark(watched, key, cells))
    return grid


def _learning(watched: Watched, cells: int) -> Table:
    _, metrics = watched.latest["train"]
    grid = _columns()
    for key, name in _LEARNING.items():
        if key in metrics:
            grid.add_row(name, number(metrics[key]), _spark(watched, f"train/{key}", cells))
    grid.add_row("tokens/s", count(metrics.get("tokens_per_s")), _spark(watched, "train/tokens_per_s", cells))
    lost = metrics.get("episodes_lost") or 0
    grid.add_row("episodes lost", Text(count(lost), "bold red" if lost else ""), "")
    alike = f"{count(metrics.get('groups_without_variance'))} of {count(metrics.get('groups'))}"
    grid.add_row("groups all alike", alike, "")
    return grid


def _columns() -> Table:
    """Return an empty grid of name, value and history."""
    grid = Table.grid(padding=(0, 2))
    for _ in range(3):
        grid.add_column(no_wrap=True)
    return grid


def _time(metrics: Metrics, width: int) -> list[RenderableType]:
    """Return who waited for whom in the last step: one stacked bar, and its legend."""
    parts = [(name, max(0.0, metrics.get(f"share/{name}") or 0.0)) for name in SHARES if f"share/{name}" in metrics]
    if not any(share for _, share in parts):
        return []
    bar, legend = Text("time  ", no_wrap=True), Text("      ", no_wrap=True)
    cells = stacked([share for _, share in parts], max(8, min(48, width - 24)))
    for (name, share), size in zip(parts, cells, strict=True):
        bar.append("█" * size, SHARES[name])
        legend.append("■ ", SHARES[name])
        legend.append(f"{name} {100 * share:.0f} %   ", "dim")
    if "step_s" in metrics:
        bar.append(f"  {metrics['step_s']:.1f} s a step", "dim")
    return [Text(), bar, legend]


def stacked(shares: Sequence[float], width: int) -> list[int]:
    """Return how many of ``width`` cells each of ``shares`` (not negative, not all 0) gets, by largest remainders."""
    exact = [share / sum(shares) * width for share in shares]
    cells = [int(value) for value in exact]
    for index in sorted(range(len(shares)), key=lambda i: cells[i] - exact[i])[: width - sum(cells)]:
        cells[index] += 1
    return cells


def _success(watched: Watched, key: str, cells: int) -> Text:
    return Text(sparkline(list(watched.history.get(key, ()))[-cells:], low=0.0, high=1.0), "cyan")


def _spark(watched: Watched, key: str, cells: int) -> Text:
    return Text(sparkline(list(watched.history.get(key, ()))[-cells:]), "cyan")


# --------------------------------------------------------------------------------------------------------------- words


def sparkline(values: Iterable[float], *, low: float | None = None, high: float | None = None) -> str:
    """Return ``values`` as a row of blocks, scaled from ``low`` to ``high`` or else to their own range."""
    values = list(values)
    if not values:
        return ""
    bottom, top = min(values) if low is None else low, max(values) if high is None else high
    span = top - bottom
    cells = ((value - bottom) / span if span > 0 else 0.5 for value in values)
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, max(0, int(cell * len(_BLOCKS))))] for cell in cells)


def rewards(metrics: Metrics) -> dict[str, float]:
    """Return the reward and, where there are several, its components by name."""
    parts = {name.removeprefix("reward/"): value for name, value in metrics.items() if name.startswith("reward/")}
    return {"reward": metrics["return"], **(parts if len(parts) > 1 else {})} if "return" in metrics else parts


def with_interval(metrics: Metrics) -> str:
    """Return a success rate with its 95 % interval: ``0.62 [0.52, 0.71]``."""
    return f"{number(metrics.get('success'))} [{number(metrics.get('low'))}, {number(metrics.get('high'))}]"


def number(value: Any) -> str:
    """Return a measurement in few digits; what was not measured is a dash."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    size = abs(value)
    return f"{value:.2f}" if size >= 0.1 or size == 0 else f"{value:.4f}" if size >= 1e-4 else f"{value:.0e}"


def count(value: Any) -> str:
    """Return a number of things; what was not counted is a dash."""
    return "–" if not isinstance(value, int | float) or not math.isfinite(value) else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Return a length of time as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def watching(stream: TextIO | None = None, *, title: str = "", quiet: bool = False) -> Iterator[Observer]:
    """Give the observer that suits ``stream`` (standard output unless told): a board, plain lines, or nothing."""
    stream = stream or sys.stdout
    console = Console(file=stream)
    if quiet:
        yield Quiet()
    elif console.is_terminal and not console.is_dumb_terminal:
        with Board(console, title) as board:
            yield board
    else:
        yield Lines(stream)


__all__ = [
    "Board",
    "Lines",
    "Phase",
    "Watched",
    "count",
    "duration",
    "measured_line",
    "number",
    "rewards",
    "sparkline",
    "stacked",
    "watching",
    "with_interval",
]
