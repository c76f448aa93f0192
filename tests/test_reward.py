"""The algebra: what each operator pays, three-valued gates, gated accumulation, and the laws that hold of all of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.claims import Claim, Measured
from agentgym.errors import ConfigError, UsageError
from agentgym.ledger import Ledger, Status
from agentgym.reward import Gate, Shaper, Transform, above, per_group, per_trajectory, signal
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

NO_IDS = np.empty(0, np.int32)
TURN = Turn((), empty_sample(text_message("assistant", "look")), NO_IDS)
WON = signal("won", scope="trajectory", low=0, high=1)
PROGRESS = signal("progress", scope="turn", low=-1, high=1)
GROUNDED = signal("grounded", scope="turn", low=0, high=1)
FALLS = Transform("flip({})", lambda claim: 1 - claim.value, lambda low, high: (1 - high, 1 - low))


def episode(
    turns: int,
    whole: Mapping[str, float | None] | None = None,
    each: Mapping[str, Sequence[float | None]] | None = None,
    *,
    stop: StopReason = StopReason.DONE,
    name: str = "t",
) -> Trajectory:
    signals = [Signal(n, v, "world", turn=t) for n, values in (each or {}).items() for t, v in enumerate(values)]
    signals += [Signal(n, v, "world") for n, v in (whole or {}).items()]
    return Trajectory(name, "g", Task("task", "", 99), (TURN,) * turns, (), stop, tuple(signals), 0)


def fixed(name: str, openness: float) -> Gate:
    return Gate(name, lambda measured: np.full((len(measured.turns_G), measured.width), openness))


def only(shaper: Shaper, trajectory: Trajectory) -> Ledger:
    (ledger,) = shaper(Group((trajectory,)))
    return ledger


def test_a_sum_pays_each_component_at_its_turn_and_the_outcome_on_the_last():
    ledger = only(WON + 0.5 * PROGRESS, episode(3, {"won": 1}, {"progress": [0.2, 0.0, 0.4]}))
    assert ledger.component_names == ("won", "progress")
    np.testing.assert_allclose(ledger.credit_CT(), [[0, 0, 1], [0.1, 0, 0.2]])
    assert ledger.mask_CT().all()
    assert ledger.measured


def test_a_difference_takes_away():
    assert only(WON - 2 * PROGRESS, episode(1, {"won": 1}, {"progress": [0.25]})).total() == 0.5


def test_parts_of_the_same_name_are_one_component():
    reward = WON + 0.5 * WON
    assert reward.components == ("won",)
    assert only(reward, episode(2, {"won": 1})).credit_CT().tolist() == [[0, 1.5]]


def test_a_composed_reward_can_be_one_named_component():
    ledger = only((WON + PROGRESS).named("all"), episode(2, {"won": 1}, {"progress": [0.5, 0.5]}))
    assert ledger.component_names == ("all",)
    assert ledger.credit_CT().tolist() == [[0.5, 1.5]]


def test_a_transform_changes_the_weighted_amount_and_the_raw_one_stays():
    ledger = only((2 * PROGRESS).then(FALLS), episode(2, each={"progress": [0.25, None]}))
    assert ledger.value[0] == ledger.credited[0] == 0.5
    assert ledger.raw[0] == 0.25
    assert math.isnan(ledger.value[1])


def test_a_gate_multiplies_last_so_that_a_closed_amount_is_nothing_under_any_transform():
    ledger = only(WON.when(fixed("shut", 0)).then(FALLS), episode(1, {"won": 0}))
    assert ledger.total() == 0
    assert ledger.status.tolist() == [Status.CLOSED]


def test_of_two_measurements_at_one_place_the_last_counts():
    trajectory = episode(1, {"won": 0})
    again = Signal("won", 1.0, "second look")
    twice = replace(trajectory, signals=(*trajectory.signals, again))
    assert only(WON, twice).total() == 1
    assert only(WON, twice).signal.tolist() == [1]


def test_items_are_told_apart():
    signals = (Signal("tests", 1.0, "pytest", item="a"), Signal("tests", 0.0, "pytest", item="b"))
    trajectory = Trajectory("t", "g", Task("task", "", 9), (TURN,), (), StopReason.DONE, signals, 0)
    a, b = (signal("tests", scope="trajectory", item=item) for item in "ab")
    ledger = only(b + 0.5 * a, trajectory)
    assert ledger.total() == 0.5
    assert [entry.item for entry in ledger.entries()] == ["b", "a"]
    assert not only(signal("tests", scope="trajectory"), trajectory).measured


@pytest.mark.parametrize(
    ("shaper", "printed"),
    [
        (WON + 0.3 * PROGRESS, "won + 0.3*progress"),
        (0.5 * (WON + PROGRESS), "0.5*(won + progress)"),
        (WON - (GROUNDED - PROGRESS), "won - (grounded - progress)"),
        ((WON | fixed("a", 1)) + PROGRESS, "(won | a) + progress"),
        (WON + 0.3 * PROGRESS | fixed("a", 1) & fixed("b", 1), "won + 0.3*progress | a & b"),
        (WON.when(fixed("a", 1) | fixed("b", 1)), "won | (a | b)"),
        (WON.when(~(fixed("a", 1) | fixed("b", 1)) & fixed("c", 1)), "won | ~(a | b) & c"),
        (WON.when((fixed("a", 1) | fixed("b", 1)) & fixed("c", 1)), "won | (a | b) & c"),
        (WON.then(FALLS) + PROGRESS, "flip(won) + progress"),
        (WON.when(above(WON + PROGRESS, 0.5, strict=False)), "won | (won + progress) >= 0.5"),
        (WON.when(above(PROGRESS, 0, scope="turn")), "won | progress@turn > 0"),
        (-1 * WON, "-1*won"),
    ],
)
def test_a_reward_prints_itself(shaper: Shaper, printed: str):
    assert str(shaper) == printed


def test_the_signals_of_gates_are_declared_too():
    reward = WON.when(above(PROGRESS, 0) & ~above(GROUNDED, 0))
    assert reward.signals == {"won", "progress", "grounded"}
    with pytest.raises(ConfigError, match=r"reads 'grounded', 'progress', which environment 'x' does not measure; it"):
        reward.require({"won", "score"}, "environment 'x'")
    reward.require({"won", "progress", "grounded", "score"}, "environment 'x'")


def test_a_missing_signal_and_one_without_value_are_unmeasured_not_zero():
    ledger = only(WON + PROGRESS, episode(2, {}, {"progress": [None, 0.0]}))
    assert ledger.credit_CT().tolist() == [[0, 0], [0, 0]]
    assert ledger.mask_CT().tolist() == [[True, False], [False, True]]
    assert not ledger.measured


@pytest.mark.parametrize("stop", [StopReason.INFRASTRUCTURE, StopReason.CANCELLED])
def test_what_says_nothing_about_the_policy_is_refused(stop: StopReason):
    with pytest.raises(UsageError, match=f"'t' ended by {stop}"):
        WON(Group((episode(1, {"won": 1}, stop=stop),)))


@pytest.mark.parametrize(("value", "turn"), [(1.0, 2), (1.0, -1), (math.inf, None)])
def test_a_malformed_signal_is_refused(value: float, turn: int | None):
    bad = Signal("p", value, "world", turn=turn)
    with pytest.raises(UsageError, match="'t' of 2 turns has signal 'p'"):
        only(WON, replace(episode(2), signals=(bad,)))


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf])
def test_a_weight_or_threshold_that_is_not_finite_is_refused(weight: float):
    with pytest.raises(ConfigError, match="finite"):
        weight * WON
    with pytest.raises(ConfigError, match="finite"):
        above(WON, weight)


def test_an_empty_group_has_no_ledgers():
    assert (WON + PROGRESS | above(WON, 0))(Group(())) == []


def test_where_nothing_could_be_earned_the_entry_is_ineligible_and_known():
    def claims(measured: Measured) -> tuple[Claim, ...]:
        (claim,) = measured.claims(PROGRESS)
        return (replace(claim, eligible=claim.turn > 0),)

    ledger = only(replace(PROGRESS, claims=claims), episode(2, each={"progress": [None, 0.5]}))
    assert ledger.status.tolist() == [Status.INELIGIBLE, Status.PAID]
    assert ledger.credit_CT().tolist() == [[0, 0.5]]
    assert ledger.mask_CT().all()


# Functions as rewards


def test_a_function_of_a_trajectory_is_lifted():
    short = per_trajectory("short", lambda t: 1 / len(t.turns) if t.turns else None, scope="trajectory", low=0, high=1)
    ledgers = short(Group((episode(2), episode(0), episode(4))))
    assert [ledger.total() for ledger in ledgers] == [0.5, 0, 0.25]
    assert [ledger.measured for ledger in ledgers] == [True, False, True]
    assert not short.needs_group


def test_a_function_of_turns_is_lifted():
    order = per_trajectory("order", lambda t: range(len(t.turns)), scope="turn")
    assert only(order, episode(3)).credit_CT().tolist() == [[0, 1, 2]]


def test_a_function_of_a_group_sees_the_siblings():
    def rank(group: Group) -> list[float]:
        lengths = [len(t.turns) for t in group.trajectories]
        return [sorted(lengths).index(length) for length in lengths]

    shaper = per_group("rank", rank, scope="trajectory")
    assert [ledger.total() for ledger in shaper(Group((episode(3), episode(1), episode(2))))] == [2, 0, 1]
    assert (WON + shaper).needs_group
    assert WON.when(above(shaper, 0)).needs_group


@pytest.mark.parametrize("returned", [[1.0, 2.0], "many", math.inf, {}])
def test_a_function_that_returns_something_else_is_refused(returned: object):
    wrong = per_trajectory("wrong", lambda t: returned, scope="trajectory")  # type: ignore[arg-type,return-value]
    with pytest.raises(UsageError, match="'wrong' must return a finite amount, or None, for each trajectory"):
        wrong(Group((episode(2),)))
    short = per_trajectory("short", lambda t: [1.0], scope="turn")
    with pytest.raises(UsageError, match="for each turn of each trajectory"):
        short(Group((episode(1), episode(2))))


# Gates

KLEENE = {0.0: 0, 1.0: 1, math.nan: 2}
AND = [[0, 0, 0], [0, 1, math.nan], [0, math.nan, math.nan]]
OR = [[0, 1, math.nan], [1, 1, 1], [math.nan, 1, math.nan]]


@pytest.mark.parametrize("a", KLEENE)
@pytest.mark.parametrize("b", KLEENE)
def test_gates_follow_kleene(a: float, b: float):
    def decided(gate: Gate) -> float:
        return float(Measured(Group((episode(1),))).openness_GT(gate)[0, 0])

    gate_a, gate_b = fixed("a", a), fixed("b", b)
    np.testing.assert_equal(decided(gate_a & gate_b), AND[KLEENE[a]][KLEENE[b]])
    np.testing.assert_equal(decided(gate_a | gate_b), OR[KLEENE[a]][KLEENE[b]])
    np.testing.assert_equal(decided(~gate_a), 1 - a)


def test_a_gate_opens_in_part():
    ledger = only(WON.when(fixed("half", 0.5)).when(fixed("half", 0.5)), episode(1, {"won": 1}))
    assert ledger.total() == 0.25
    assert ledger.status.tolist() == [Status.PAID]


def test_a_gate_that_decides_nonsense_is_refused():
    with pytest.raises(UsageError, match="'wide' must decide between 0 and 1"):
        WON.when(fixed("wide", 1.5))(Group((episode(1),)))


def test_the_status_says_whether_the_answer_hangs_on_the_unknown():
    def status(openness: float, won: float | None) -> int:
        return int(only(WON.when(fixed("g", openness)), episode(1, {"won": won})).status[0])

    assert status(0, None) == Status.CLOSED, "shut, whatever the value"
    assert status(math.nan, 0) == Status.UNMEASURED, "else only the zeros of an undecided gate would enter a mean"
    assert status(math.nan, 1) == Status.UNMEASURED
    assert status(1, None) == Status.UNMEASURED
    assert status(1, 0) == Status.PAID


def test_a_gate_at_turn_scope_decides_turn_by_turn():
    at_turn = above(GROUNDED, 0, scope="turn")
    trajectory = episode(3, {"won": 1}, {"progress": [0.1, 0.2, 0.4], "grounded": [1, None, 0]})
    ledger = only((WON + PROGRESS).when(at_turn), trajectory)
    assert ledger.credit_CT().tolist() == [[0, 0, 0], [0.1, 0, 0]]
    assert ledger.mask_CT().tolist() == [[True, True, True], [True, False, True]]


def test_what_is_paid_for_the_whole_trajectory_belongs_to_each_of_its_turns():
    ledger = only(PROGRESS.when(above(WON, 0, scope="turn")), episode(2, {"won": 1}, {"progress": [0.1, 0.2]}))
    assert ledger.credit_CT().tolist() == [[0.1, 0.2]]


# Laws

amounts = st.sampled_from([0.0, 1.0, None]) | st.floats(0, 1)
REWARDS = [
    WON + 0.3 * PROGRESS,
    (WON + 0.3 * PROGRESS - 0.1 * GROUNDED).when(above(PROGRESS, 0.2)),
    (0.5 * GROUNDED).then(FALLS).when(above(PROGRESS, 0.5, scope="turn") | ~above(WON, 0)) + WON,
]
REWARDS.append((2 * REWARDS[1]).then(FALLS) - 0.5 * REWARDS[2])
rewards = st.sampled_from(REWARDS)


@st.composite
def episodes(draw: st.DrawFn) -> Trajectory:
    turns = draw(st.integers(0, 4))
    each = {name: draw(st.lists(amounts, min_size=turns, max_size=turns)) for name in ("progress", "grounded")}
    return episode(turns, {"won": draw(amounts)} if draw(st.booleans()) else {}, each, name=str(draw(st.integers())))


groups = st.lists(episodes(), min_size=1, max_size=4)


def columns(ledger: Ledger) -> list[np.ndarray]:
    names = "component", "turn", "value", "openness", "status", "credited", "signal"
    return [getattr(ledger, name) for name in names]


@given(groups, rewards)
def test_law_bounded(group: list[Trajectory], reward: Shaper):
    for trajectory, ledger in zip(group, reward(Group(tuple(group))), strict=True):
        low, high = reward.range(len(trajectory.turns))
        if ledger.measured:
            assert low - 1e-9 <= ledger.total() <= high + 1e-9


@given(groups, rewards, st.randoms())
def test_law_permutation_equivariance(group: list[Trajectory], reward: Shaper, random: Random):
    order = list(range(len(group)))
    random.shuffle(order)
    straight, shuffled = reward(Group(tuple(group))), reward(Group(tuple(group[i] for i in order)))
    for place, i in enumerate(order):
        for one, other in zip(columns(straight[i]), columns(shuffled[place]), strict=True):
            np.testing.assert_array_equal(one, other)


@given(groups, rewards)
def test_law_siblings_do_not_matter_unless_declared(group: list[Trajectory], reward: Shaper):
    for trajectory, ledger in zip(group, reward(Group(tuple(group))), strict=True):
        for one, other in zip(columns(ledger), columns(only(reward, trajectory)), strict=True):
            np.testing.assert_array_equal(one, other)


@given(episodes(), rewards, st.data())
def test_law_what_is_measured_does_not_depend_on_the_unknown(
    trajectory: Trajectory, reward: Shaper, data: st.DataObject
):
    """Whatever the unmeasured values turn out to be, entries that were decided without them stay as they were."""
    known = tuple(
        Signal(s.name, data.draw(st.floats(0, 1)) if s.value is None else s.value, s.source, s.turn)
        for s in trajectory.signals
    )
    before, after = only(reward, trajectory), only(reward, replace(trajectory, signals=known))
    decided = before.status != Status.UNMEASURED
    np.testing.assert_array_equal(before.status[decided], after.status[decided])
    np.testing.assert_array_equal(before.credited[decided], after.credited[decided])
    assert not before.credited[~decided].any()


@given(groups, rewards, rewards, st.floats(-3, 3))
def test_law_linear(group: list[Trajectory], a: Shaper, b: Shaper, weight: float):
    whole = Group(tuple(group))
    for left, right, both in zip(a(whole), b(whole), (a + weight * b)(whole), strict=True):
        assert both.total() == pytest.approx(left.total() + weight * right.total(), abs=1e-9)


@given(groups, rewards)
def test_law_the_credit_sums_to_the_total(group: list[Trajectory], reward: Shaper):
    for trajectory, ledger in zip(group, reward(Group(tuple(group))), strict=True):
        assert ledger.credit_CT().shape == ledger.mask_CT().shape == (len(reward.components), len(trajectory.turns))
        if trajectory.turns:
            assert ledger.credit_CT().sum() == pytest.approx(ledger.total(), abs=1e-9)
            assert ledger.mask_CT().all() == ledger.measured
