"""Dependencies, connection to the answer and requirements of stages, in three-valued logic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from agentgym.reward_shapers.gates import threshold
from agentgym.reward_shapers.item_gates import connected, dependencies, dependent, required

from agentgym.errors import ConfigError, UnknownNameError
from agentgym.ledger import Ledger, Status
from agentgym.reward import Gate, Shaper, signal
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

C0, C1, C2 = (signal(name, scope="trajectory", low=0, high=1) for name in ("c0", "c1", "c2"))


def satisfied(*names: str) -> dict[str, Gate]:
    return {name: threshold(name, ">", 0, scope="trajectory") for name in names}


def price(shaper: Shaper, values: Mapping[str, float | None], stages: tuple[int, ...] = (0,)) -> Ledger:
    """Price an episode with these signals of the whole, a turn in each of ``stages``."""
    turns = tuple(
        Turn((), empty_sample(text_message("assistant", "x")), np.empty(0, np.int32), stage=stage) for stage in stages
    )
    signals = [Signal(name, value, "judge") for name, value in values.items()]
    signals += [Signal("p", 1.0, "world", turn=t) for t in range(len(stages))]
    task = Task("t", "", 9)
    (ledger,) = shaper(Group((Trajectory("t", "g", task, turns, (), StopReason.DONE, tuple(signals), 0),)))
    return ledger


def test_an_item_is_paid_where_what_it_depends_on_is_satisfied():
    reward = dependent({"c0": 0.4 * C0, "c1": 0.6 * C1}, satisfied("c0", "c1"), {"c1": ["c0"]})
    assert str(reward) == "0.4*c0 + (0.6*c1 | c0 > 0)"
    for (c0, c1), paid in {(1, 1): 1.0, (1, 0): 0.4, (0, 1): 0.0, (0, 0): 0.0}.items():
        assert price(reward, {"c0": c0, "c1": c1}).total() == pytest.approx(paid)


def test_an_unmeasured_dependency_matters_only_where_no_other_one_fails():
    gates = dependencies(satisfied("c0", "c1", "c2"), {"c2": ["c0", "c1"], "c0": []})
    assert list(gates) == ["c2"]
    reward = C2.when(gates["c2"])
    for c0, c1, status in [
        (1, 1, Status.PAID),
        (0, None, Status.CLOSED),
        (None, 0, Status.CLOSED),
        (1, None, Status.UNMEASURED),
    ]:
        assert price(reward, {"c0": c0, "c1": c1, "c2": 1}).status.tolist() == [status]


def test_only_what_is_named_is_asked_for():
    """C2 on C1 and C1 on C0: that C0 fails closes C1's pay, and C2 has C1 alone to ask."""
    reward = dependent({"c1": C1, "c2": C2}, satisfied("c0", "c1", "c2"), {"c1": ["c0"], "c2": ["c1"]})
    assert price(reward, {"c0": 0, "c1": 1, "c2": 1}).credit_CT()[:, -1].tolist() == [0, 1]


# A chain from the answer: e0 - a - e1 - b - e2 - c, with d beside it on an entity of its own.
ENTITIES = {"a": ["E0", "E1"], "b": ["E1", "E2"], "c": ["E2"], "d": ["E9"]}


def by_search(on: Mapping[str, bool]) -> dict[str, bool]:
    """Walk from the root over supported rubrics, one entity at a time."""
    waiting, seen, counted = ["E0"], {"E0"}, set()
    while waiting:
        entity = waiting.pop()
        for rubric, named in ENTITIES.items():
            if on[rubric] and entity in named:
                counted.add(rubric)
                waiting += [other for other in named if other not in seen]
                seen.update(named)
    return {rubric: rubric in counted for rubric in ENTITIES}


def test_connection_agrees_with_a_search_for_every_completion_of_the_unknown():
    """What is decided is what every way to fill in the unmeasured agrees on, and nothing else is."""
    gates = connected(satisfied(*ENTITIES), ENTITIES)
    one = signal("one", scope="trajectory")
    for values in itertools.product((0.0, 1.0, None), repeat=4):
        given = dict(zip(ENTITIES, values, strict=True))
        fillings = itertools.product(*((bool(v),) if v is not None else (False, True) for v in values))
        answers = [by_search(dict(zip(ENTITIES, filling, strict=True))) for filling in fillings]
        for rubric, gate in gates.items():
            found = {answer[rubric] for answer in answers}
            expected = Status.UNMEASURED if len(found) == 2 else Status.PAID if found == {True} else Status.CLOSED
            assert price(one.when(gate), {**given, "one": 1}).status.tolist() == [expected], (given, rubric)


def test_a_rubric_counts_only_where_it_is_reached():
    gates = connected(satisfied(*ENTITIES), ENTITIES)
    assert str(gates["b"]) == "connected(b)"
    assert gates["b"].signals == set(ENTITIES)
    reward = sum((0.25 * signal(r, scope="trajectory").when(gates[r]) for r in "bcd"), 0.25 * C0)
    assert price(reward, {"a": 1, "b": 1, "c": 1, "d": 1, "c0": 0}).total() == 0.5
    assert price(reward, {"a": 0, "b": 1, "c": 1, "d": 1, "c0": 0}).total() == 0


def test_a_stage_is_paid_where_the_ones_before_met_their_requirement():
    gates = satisfied("c0", "c1")
    step = signal("p", scope="turn")
    reward = step.when(required({0: gates["c0"], 1: gates["c1"]}))
    stages = (0, 0, 1, 2)

    def paid(c0: float | None, c1: float | None) -> list[Status]:
        return [Status(int(s)) for s in price(reward, {"c0": c0, "c1": c1}, stages).status]

    yes, no, open_ = Status.PAID, Status.CLOSED, Status.UNMEASURED
    assert paid(1, 1) == [yes] * 4
    assert paid(1, 0) == [yes, yes, yes, no]
    assert paid(0, None) == [yes, yes, no, no]
    assert paid(None, 1) == [yes, yes, open_, open_]
    assert paid(None, 0) == [yes, yes, open_, no]
    assert price(reward, {"c0": 0, "c1": 0}, (0,)).total() == 1  # the other stages were never reached


def test_a_requirement_is_read_at_the_last_turn_of_its_stage():
    at_turn = Gate("late", lambda measured: np.array([[0.0, 1.0, 0.0]]))
    reward = signal("p", scope="turn").when(required({0: at_turn}))
    assert price(reward, {}, (0, 0, 1)).credit_CT().tolist() == [[1, 1, 1]]
    assert price(reward, {}, (0, 1, 1)).credit_CT().tolist() == [[1, 0, 0]]


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: dependencies(satisfied("a"), {"a": ["b"]}), UnknownNameError, "no item 'b'"),
        (lambda: dependencies(satisfied("a"), {"b": ["a"]}), UnknownNameError, "no item 'b'"),
        (
            lambda: dependencies(satisfied("a", "b"), {"a": ["b"], "b": ["a"]}),
            ConfigError,
            "form a circle: (a -> b -> a|b -> a -> b)",
        ),
        (lambda: dependent({}, {}, {}), ConfigError, "at least one item"),
        (lambda: connected(satisfied("a"), {"b": ["E0"]}), ConfigError, "must be the same"),
        (lambda: connected(satisfied("a"), {"a": ["E1"]}), UnknownNameError, "no entity 'E0'"),
        (lambda: required({}), ConfigError, "at least one stage"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], error: type[Exception], says: str):
    with pytest.raises(error, match=says):
        make()


def test_partly_open_items_multiply():
    half = Gate("half", lambda measured: np.full((1, 1), 0.5))
    gates = dependencies({"a": half, "b": half, "c": half}, {"c": ["a", "b"]})
    assert price(signal("one", scope="trajectory").when(gates["c"]), {"one": 1}).total() == 0.25
    assert not math.isnan(price(C0.when(gates["c"]), {"c0": 1}).openness[0])
