"""A run as a picture: how success rose, and what was paid for it.

Only the files of the run folder are read (``config.toml``, ``metrics.jsonl``), so that a run can be drawn while it goes
on. `draw` shows one run, `draw_many` several seeds of one or more kinds of run.
"""

from __future__ import annotations

import io
import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentgym.errors import StoredRunError, missing_extra
from agentgym.files import replace
from agentgym.store import CONFIG, read_metrics

PICTURE = "curve.png"
"""Name of the picture in a run folder."""

Reals = NDArray[np.float64]

_TRAIN, _HELD_OUT, _FINAL, _INK, _FAINT = "#4c78a8", "#e4572e", "#2a9d63", "#333333", "#9a9a9a"
_COMPONENTS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d", "#72b7b2", "#d67195", "#eeca3b")
_STYLE = {
    "axes.edgecolor": _FAINT,
    "axes.grid": True,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.size": 10,
    "grid.color": "#e8e8e8",
    "grid.linewidth": 0.8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


@dataclass(frozen=True, slots=True)
class _Held:
    """One evaluation on held-out tasks."""

    step: int
    success: float
    low: float
    high: float

    @property
    def errors(self) -> Reals:
        """Distances to the ends of the interval, as an error bar takes them: (2, 1)."""
        return np.array([[max(0.0, self.success - self.low)], [max(0.0, self.high - self.success)]])


@dataclass(frozen=True, slots=True)
class _Curves:
    """What is drawn of one run."""

    config: Mapping[str, Any]
    train: Mapping[int, Mapping[str, Any]]
    "Measurements of each training step."
    before: _Held | None
    during: tuple[_Held, ...]
    after: _Held | None

    def series(self, name: str) -> tuple[Reals, Reals]:
        """Return the steps at which ``name`` was measured, and its values."""
        points = [(step, line[name]) for step, line in sorted(self.train.items()) if line.get(name) is not None]
        return np.array([p[0] for p in points], float), np.array([p[1] for p in points], float)

    @property
    def components(self) -> list[str]:
        """Names of the reward's components, in the order they were first seen."""
        names = [name for line in self.train.values() for name in line if name.startswith("reward/")]
        return [name.removeprefix("reward/") for name in dict.fromkeys(names)]

    @property
    def last_step(self) -> int:
        """The last step anything was measured at."""
        return max([0, *self.train, *(held.step for held in self.during)])

    @property
    def manner(self) -> str:
        """How evaluations are sampled."""
        temperature = self.config.get("eval", {}).get("temperature", 0.0)
        return f"temperature {temperature:g}" if temperature else "greedy"

    def split(self, which: str) -> str:
        """Return the name of a split that the run evaluates on."""
        return str(self.config.get("eval", {}).get(which, "held-out"))


def draw(run_folder: Path) -> Path:
    """Draw the run as ``curve.png`` into its folder and return the picture's path.

    Raises:
        StoredRunError: there is no run, or nothing of it has been measured yet.
        MissingExtraError: matplotlib is not installed.
    """
    curves = _read(run_folder)
    config = curves.config
    words = [config["env"]["id"], f"reward: {config['reward']['recipe']}", f"seed {config['seed']}"]
    with _styled():
        figure, (left, right) = _figure(" · ".join(words), ratios=(1.15, 1.0))
        _draw_success(left, curves)
        _draw_rewards(right, curves)
        return _save(figure, run_folder / PICTURE)


def draw_many(
    runs: Mapping[str, Sequence[Path]] | Sequence[Path],
    baselines: Mapping[str, float],
    path: Path,
    *,
    title: str = "",
) -> Path:
    """Draw several runs into one picture at ``path`` and return that.

    Left: success on the training tasks by step, the mean over the seeds and a band from the lowest to the highest,
    with the held-out evaluations on top. Right: success on the final held-out tasks before and after, each seed.

    Args:
        runs: folders of the seeds of one kind of run, or of several kinds by their names.
        baselines: name -> success on the final held-out tasks, drawn as level lines.

    Raises:
        StoredRunError: a folder is no run, or nothing of it has been measured yet.
        MissingExtraError: matplotlib is not installed.
    """
    kinds = runs if isinstance(runs, Mapping) else {"": runs}
    read = {name: [_read(Path(folder)) for folder in folders] for name, folders in kinds.items()}
    counts = sorted({len(seeds) for seeds in read.values()})
    first = next(iter(read.values()))[0]
    plural = "s" if counts[-1] != 1 else ""
    heading = title or f"{first.config['env']['id']} · {'-'.join(map(str, dict.fromkeys(counts)))} seed{plural}"
    with _styled():
        figure, (left, right) = _figure(heading, ratios=(1.9, 1.0))
        for (name, seeds), colour in zip(read.items(), itertools.cycle(_COMPONENTS)):
            _draw_band(left, seeds, colour, name)
            _draw_before_after(right, seeds, colour, name)
        _draw_baselines(right, baselines)
        left.set(title="Success while training", xlabel="training step", ylabel="share of episodes that succeed")
        left.set(ylim=(0, 1.02))
        left.set_xlim(left=0)
        if left.get_legend_handles_labels()[0]:
            left.legend(loc="lower right")
        right.set(title=f"Held-out tasks ({first.split('final_split')})", xlim=(-0.4, 1.6), ylim=(0, 1.02))
        right.set_xticks([0, 1], ["before", "after"])
        right.grid(axis="x", visible=False)
        return _save(figure, path)


# ------------------------------------------------------------------------------------------------------------ reading


def _read(folder: Path) -> _Curves:
    lines = read_metrics(folder).records
    config = tomllib.loads((folder / CONFIG).read_text("utf-8"))
    held: dict[str, dict[int, _Held]] = {"eval_before": {}, "eval_during": {}, "eval_after": {}}
    train: dict[int, Mapping[str, Any]] = {}
    for line in lines:
        if line["kind"] == "train":
            train[line["step"]] = line
        elif line["kind"] in held and line.get("success") is not None:
            success = float(line["success"])
            low, high = (success if line.get(end) is None else float(line[end]) for end in ("low", "high"))
            held[line["kind"]][line["step"]] = _Held(line["step"], success, low, high)
    if not train and not any(held.values()):
        raise StoredRunError(f"'{folder}' has no training step and no evaluation yet; there is nothing to draw")
    return _Curves(
        config=config,
        train=train,
        before=next(reversed(held["eval_before"].values()), None),
        during=tuple(held["eval_during"][step] for step in sorted(held["eval_during"])),
        after=next(reversed(held["eval_after"].values()), None),
    )


def _smoothed(values: Reals, width: int) -> Reals:
    """Return the mean of the ``width`` values around each; at the ends, of those there are."""
    half = width // 2
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def _window(count: int) -> int:
    """Return over how many of ``count`` steps a curve is smoothed: about a tenth, an odd number."""
    return max(3, count // 10 | 1)


# ------------------------------------------------------------------------------------------------------------- panels


def _draw_success(axes: Any, curves: _Curves) -> None:
    steps, values = curves.series("success")
    if len(steps):
        width = _window(len(steps))
        axes.plot(steps, values, color=_TRAIN, alpha=0.3, linewidth=1)
        axes.plot(
            steps, _smoothed(values, width), color=_TRAIN, linewidth=2.2, label=f"training (mean of {width} steps)"
        )
    if curves.before is not None:
        level = curves.before.success
        axes.axhline(level, color=_FAINT, linestyle=(0, (4, 3)), linewidth=1.3, zorder=1)
        _point(axes, curves.before, 0, "o", _FAINT, f"{curves.split('final_split')}, before: {level:.2f}")
    if curves.during:
        at = [held.step for held in curves.during]
        errors = np.concatenate([held.errors for held in curves.during], axis=1)
        axes.errorbar(
            at,
            [held.success for held in curves.during],
            errors,
            color=_HELD_OUT,
            linewidth=1.4,
            elinewidth=1.1,
            capsize=2.5,
            marker="o",
            markersize=4.5,
            label=f"{curves.split('split')}, {curves.manner}",
            zorder=3,
        )
    if curves.after is not None:
        name = f"{curves.split('final_split')}, after: {curves.after.success:.2f}"
        _point(axes, curves.after, 1.035 * curves.last_step, "D", _FINAL, name)
    axes.set(
        title="Success, with 95 % intervals",
        xlabel="training step",
        ylabel="share of episodes that succeed",
        ylim=(0, 1.02),
    )
    _span(axes, curves)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _point(axes: Any, held: _Held, x: float, marker: str, colour: str, label: str) -> None:
    axes.errorbar(
        [x],
        [held.success],
        held.errors,
        color=colour,
        marker=marker,
        markersize=7.5,
        markeredgecolor="white",
        linestyle="none",
        elinewidth=1.6,
        capsize=3.5,
        label=label,
        zorder=4,
        clip_on=False,
    )


def _draw_rewards(axes: Any, curves: _Curves) -> None:
    """Draw what each component paid, their sum where there are several, and the entropy against its own axis."""
    lines = [(f"reward/{name}", name, colour) for name, colour in zip(curves.components, itertools.cycle(_COMPONENTS))]
    if len(lines) > 1:
        lines.append(("return", "sum", _INK))
    for key, label, colour in lines:
        steps, values = curves.series(key)
        axes.plot(steps, values, color=colour, alpha=0.22, linewidth=1)
        axes.plot(steps, _smoothed(values, _window(len(values))), color=colour, linewidth=2, label=label)
    if axes.get_ylim()[0] > 0:
        axes.set_ylim(bottom=0)
    axes.set(title="Reward by component, and entropy", xlabel="training step", ylabel="mean reward of an episode")
    handles, labels = axes.get_legend_handles_labels()
    steps, values = curves.series("entropy")
    if len(steps):
        other = axes.twinx()
        other.plot(steps, values, color=_FAINT, linewidth=1.3, linestyle=(0, (2, 1.5)), label="entropy (right)")
        other.set_ylabel("entropy of a token, nats", color="#777777")
        other.set_ylim(0, 1.15 * max(float(values.max()), 1e-6))
        other.grid(visible=False)
        other.tick_params(colors="#777777", length=0)
        more, names = other.get_legend_handles_labels()
        handles, labels = [*handles, *more], [*labels, *names]
    _span(axes, curves)
    if handles:
        axes.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=min(4, len(handles)))


def _span(axes: Any, curves: _Curves) -> None:
    margin = 0.025 * max(1, curves.last_step)
    axes.set_xlim(-margin, curves.last_step + 2 * margin)


def _draw_band(axes: Any, seeds: Sequence[_Curves], colour: str, name: str) -> None:
    by_step: dict[int, list[float]] = {}
    for curves in seeds:
        steps, values = curves.series("success")
        for step, value in zip(steps, _smoothed(values, _window(len(values))), strict=True):
            by_step.setdefault(int(step), []).append(float(value))
    steps = np.array(sorted(by_step), float)
    if len(steps):
        low, mean, high = (np.array([part(by_step[int(s)]) for s in steps]) for part in (min, np.mean, max))
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(steps, mean, color=colour, linewidth=2.2, label=f"{name}, training" if name else "training tasks")
    held: dict[int, list[float]] = {}
    for curves in seeds:
        for point in curves.during:
            held.setdefault(point.step, []).append(point.success)
    if held:
        at = sorted(held)
        means = np.array([np.mean(held[s]) for s in at])
        low, high = (np.array([part(held[step]) for step in at]) for part in (min, max))
        ends = np.abs([means - low, high - means])
        shown = colour if name else _HELD_OUT
        split = seeds[0].split("split")
        label = f"{name}, {split}" if name else f"held-out tasks ({split}), {seeds[0].manner}"
        axes.errorbar(at, means, ends, color=shown, marker="o", markersize=4.5, linewidth=1.2, capsize=2.5, label=label)


def _draw_before_after(axes: Any, seeds: Sequence[_Curves], colour: str, name: str) -> None:
    pairs = [(c.before.success, c.after.success) for c in seeds if c.before is not None and c.after is not None]
    for pair in pairs:
        axes.plot([0, 1], pair, color=colour, alpha=0.4, linewidth=1.1, marker="o", markersize=4)
    if pairs:
        means = np.mean(pairs, axis=0)
        shown = colour if name else _FINAL
        axes.plot(
            [0, 1], means, color=shown, linewidth=2.4, marker="D", markersize=7, markeredgecolor="white", zorder=4
        )
        axes.annotate(f"{means[0]:.2f}", (0, means[0]), (-8, 0), textcoords="offset points", ha="right", va="center")
        words = f"{means[1]:.2f}" + (f" {name}" if name else "")
        axes.annotate(words, (1, means[1]), (9, 0), textcoords="offset points", va="center", color=shown)


def _draw_baselines(axes: Any, baselines: Mapping[str, float]) -> None:
    for name, level in baselines.items():
        axes.axhline(level, color=_FAINT, linestyle=(0, (4, 3)), linewidth=1.1, zorder=1)
        above = level < 0.93
        axes.annotate(
            f"{name} {level:.2f}",
            (1.58, level),
            (0, 2.5 if above else -2.5),
            textcoords="offset points",
            ha="right",
            va="bottom" if above else "top",
            fontsize=8.5,
            color="#777777",
        )


# ------------------------------------------------------------------------------------------------------------ picture


@contextmanager
def _styled() -> Iterator[None]:
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise missing_extra("train", "matplotlib", "drawing a run") from error
    with rc_context(_STYLE):
        yield


def _figure(title: str, *, ratios: Sequence[float]) -> tuple[Any, Any]:
    """Return a figure of its own (nothing global is touched) and its axes, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.4), dpi=150, layout="constrained", facecolor="white")
    figure.suptitle(title, x=0.012, ha="left", fontsize=12.5, fontweight="bold", color=_INK)
    return figure, figure.subplots(1, len(ratios), width_ratios=ratios)


def _save(figure: Any, path: Path) -> Path:
    """Write the picture beside its place and rename it into it."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path, picture.getvalue())
    return path


__all__ = ["PICTURE", "draw", "draw_many"]
