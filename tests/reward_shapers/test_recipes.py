"""Rewards by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from agentgym.errors import ConfigError, UnknownNameError
from agentgym.recipes import resolve
from agentgym.reward import Shaper, signal

OWN = signal("own", scope="turn")


def own(weight: float) -> Shaper:
    return weight * OWN


def listed(parts: Sequence[float], named: Mapping[str, float] | None = None, any: object = None) -> Shaper:
    return sum(parts) * OWN


def not_a_reward() -> int:
    return 1


@pytest.mark.parametrize(
    ("name", "params", "printed"),
    [
        ("outcome", {}, "won"),
        ("outcome", {"signal": "solved"}, "solved"),
        ("dense", {}, "won + 0.3*progress"),
        ("dense", {"progress": 1, "grounded": 0.1}, "won + 1*progress + 0.1*grounded"),
        ("dense", {"progress": 0.0, "ungrounded": 0.1}, "won + 0.1*ungrounded"),
        ("gated", {}, "(0.1*grounded | progress > 0 & won > 0) + (0.3*progress | won > 0) + won"),
        ("gated", {"grounded": 0.0, "threshold": 0.5}, "(0.3*progress | won > 0.5) + won"),
        ("direct", {}, "0.1*grounded + 0.3*progress + won"),
        (f"{__name__}:OWN", {}, "own"),
        (f"{__name__}:own", {"weight": 0.5}, "0.5*own"),
        (f"{__name__}:listed", {"parts": [1, 0.5], "named": {"a": 1}, "any": ["x", {"y": 2}]}, "1.5*own"),
        (f"{__name__}:listed", {"parts": (1.0,), "named": None}, "1*own"),
    ],
)
def test_names_resolve(name: str, params: dict[str, object], printed: str):
    assert str(resolve(name, params)) == printed


def test_components_and_signals_are_known_before_anything_runs():
    gated = resolve("gated")
    assert gated.components == ("grounded", "progress", "won")
    assert gated.signals == {"grounded", "progress", "won"}
    assert not gated.needs_group
    assert resolve("gated", {"progress": 0.0}).range(10) == pytest.approx((0, 2))
    assert gated.range(10) == (-math.inf, math.inf)
    assert resolve("dense", {"progress": 0.0}).signals == {"won"}


@pytest.mark.parametrize("name", ["gatd", "os:nothing", "no.such.module:x", "a b:c"])
def test_an_unknown_name_is_refused(name: str):
    with pytest.raises(UnknownNameError, match=f"no reward.*'{name}'"):
        resolve(name)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("dense", {"progess": 0.1}, "no parameter 'progess'; did you mean 'progress'"),
        ("dense", {"progress": "much"}, "'progress' of reward 'dense' is 'much'; it must be of type float"),
        ("dense", {"progress": True}, "must be of type float"),
        ("dense", {"outcome": 1}, "must be of type str"),
        ("dense", {"progress": math.nan}, "'progress' of reward 'dense' is nan; it must be a finite number"),
        ("gated", {"threshold": math.inf}, "finite"),
        (f"{__name__}:listed", {"parts": 1.0}, "'parts' of reward '.*:listed' is 1.0; it must be a list"),
        (f"{__name__}:listed", {"parts": "ab"}, "'parts' of reward '.*:listed' is 'ab'; it must be a list"),
        (
            f"{__name__}:listed",
            {"parts": [1, "x"]},
            "entry 1 of parameter 'parts' of .* is 'x'; it must be of type float",
        ),
        (
            f"{__name__}:listed",
            {"parts": [0.5, math.nan]},
            "entry 1 of parameter 'parts' of .* is nan; it must be a fin",
        ),
        (f"{__name__}:listed", {"parts": [], "named": [1.0]}, "'named' of .* is \\[1.0\\]; it must be a table"),
        (
            f"{__name__}:listed",
            {"parts": [], "named": {"a": True}},
            "'a' in parameter 'named' of .* is True; it must be of",
        ),
        (
            f"{__name__}:listed",
            {"parts": [], "any": [[{"b": math.inf}]]},
            "'b' in entry 0 of entry 0 of parameter 'any'",
        ),
        (f"{__name__}:own", {}, "needs the parameters: weight"),
        (f"{__name__}:OWN", {"weight": 1.0}, "takes no parameters; got: weight"),
        ("os:", {}, "is a module, not a Shaper"),
        (f"{__name__}:__name__", {}, "is a str, not a Shaper"),
        (f"{__name__}:not_a_reward", {}, "returned a int, not a Shaper"),
    ],
)
def test_a_wrong_parameter_is_refused(name: str, params: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        resolve(name, params)
