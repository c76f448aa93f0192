"""Alarms, on series made by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from agentgym.train.alarms import RULES, Alarm, Limits, alarms, as_metrics, read_alarms, vital_signs
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

LIMITS = Limits(window=4, patience=3)
CALM = {
    "return": 0.5,
    "success": 0.5,
    "turns": 10.0,
    "tokens": 40.0,
    "gate_open": 0.5,
    "repeated": 0.2,
    "groups": 10.0,
    "groups_without_variance": 2.0,
    "unmeasured": 0.0,
}


def history(
    steps: int, first: int = 1, **series: Callable[[int], float | None]
) -> list[tuple[int, dict[str, float | None]]]:
    """Return calm steps numbered from ``first``, with some of the metrics given as functions of the step."""
    numbers = range(first, first + steps)
    return [(step, CALM | {name: value(step) for name, value in series.items()}) for step in numbers]


def standing(found: Sequence[tuple[int, dict[str, float | None]]]) -> dict[str, int]:
    return {alarm.name: alarm.since for alarm in alarms(found, LIMITS)}


def after(step: int, then: float, before: float) -> Callable[[int], float]:
    return lambda now: then if now >= step else before


def test_a_calm_run_raises_none() -> None:
    wobble = np.random.default_rng(0).normal(0, 0.05, 100)
    calm = history(60, **{name: (lambda step, v=value: v * (1 + wobble[step])) for name, value in CALM.items()})
    assert standing(calm) == {}
    assert alarms([]) == []


@pytest.mark.parametrize(
    ("name", "metric", "then"),
    [
        ("gates", "gate_open", 0.01),
        ("shorter", "tokens", 19.0),
        ("longer", "tokens", 81.0),
        ("repetition", "repeated", 0.51),
        ("variance", "groups_without_variance", 9.0),
        ("unmeasured", "unmeasured", 0.11),
    ],
)
def test_an_alarm_names_the_step_it_began_at(name: str, metric: str, then: float) -> None:
    series = {metric: after(12, then, CALM[metric])}
    assert standing(history(13, **series)) == {}  # two bad steps are not enough
    assert standing(history(14, **series)) == {name: 12}
    assert standing(history(20, **series)) == {name: 12}


def test_an_alarm_is_over_when_a_good_step_comes() -> None:
    assert standing(history(12, gate_open=lambda step: 0.3 if step == 12 else 0.0)) == {}


def test_reward_up_with_success_down_is_one() -> None:
    # Level until step 8; from then on each step brings reward up and success down.
    up = {"return": lambda step: 0.5 + 0.1 * max(0, step - 8)}
    down = {"success": lambda step: 0.5 - 0.02 * max(0, step - 8)}
    found = standing(history(16, **up, **down))
    assert list(found) == ["hacking"]
    assert 9 <= found["hacking"] <= 13
    assert standing(history(16, **up)) == {}
    assert standing(history(16, **down)) == {}


def test_turns_stand_in_where_no_tokens_are_counted() -> None:
    assert standing(history(10, tokens=lambda _: None, turns=after(5, 2.0, 10.0))) == {"shorter": 5}


def test_what_was_not_measured_raises_nothing() -> None:
    nothing = {name: (lambda _: None) for name in CALM}
    assert standing(history(30, **nothing)) == {}


def test_every_rule_has_a_test_and_a_meaning() -> None:
    assert set(RULES) == {"hacking", "gates", "shorter", "longer", "repetition", "variance", "unmeasured"}
    raised = alarms(history(10, first=21, gate_open=lambda _: 0.0))
    assert str(raised[0]) == "alarm: the gates let hardly anything through, since step 21"


def test_vital_signs_are_read_off_episodes_and_ledgers() -> None:
    from agentgym.recipes import resolve

    def episode(won: float | None, *acts: str) -> Trajectory:
        turns = tuple(Turn((), empty_sample(text_message("assistant", act)), np.empty(0, np.int32)) for act in acts)
        signals = (*(Signal("progress", 0.1, "w", turn=t) for t in range(len(acts))), Signal("won", won, "w"))
        return Trajectory("e", "g", Task("t", "", 9), turns, (), StopReason.DONE, signals, 0)

    group = Group((episode(1.0, "a", "a", "b"), episode(0.0, "a", "b "), episode(None, "b")))
    signs = vital_signs(group.trajectories, resolve("gated", {"grounded": 0.0})(group))
    assert signs["gate_open"] == pytest.approx(3 / 5)  # three entries let through, two not, one undecided
    assert signs["unmeasured"] == pytest.approx(2 / 9)  # of 6 turns and 3 outcomes
    assert signs["repeated"] == pytest.approx(1 / 6)
    assert signs["tokens"] == 0
    assert all(math.isnan(value) for value in vital_signs([], []).values())


def test_alarms_are_read_back_from_the_metrics_they_were_written_to() -> None:
    standing = [Alarm("gates", 3, RULES["gates"][1]), Alarm("longer", 12, RULES["longer"][1])]
    written = {"return": 1.0, **as_metrics(standing)}
    assert written == {"return": 1.0, "alarm/gates": 3.0, "alarm/longer": 12.0}
    assert list(read_alarms(written).values()) == standing
    assert read_alarms({"return": 1.0}) == {}
