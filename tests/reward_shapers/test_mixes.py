"""Outcome and process put together as published: values worked by hand, and which laws each keeps or breaks."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from agentgym.reward_shapers.efficiency import conditional_length, solved_often
from agentgym.reward_shapers.gates import before_last, proportional, sign_shift
from agentgym.reward_shapers.mixes import citation, citation_unscaled, over_best, posterior, renorm, trust, trusted
from agentgym.reward_shapers.schedules import annealing, from_step, linear, scheduled, switch
from episodes import episode, price
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import ConfigError, UsageError
from agentgym.ledger import Status
from agentgym.reward import Gate, Shaper, signal
from agentgym.types import Group, Trajectory, Turn, empty_sample, text_message

TURN = Turn((), empty_sample(text_message("assistant", "look")), np.empty(0, np.int32))
WON, FORM, THINK = (signal(name, scope="trajectory", low=0, high=1) for name in ("won", "form", "think"))
JUDGED = signal("judged", scope="turn", low=0, high=1)


def totals(shaper: Shaper, *trajectories: Trajectory, step: int = 0) -> list[float]:
    """Return what each is paid, NaN where that is not known."""
    ledgers = shaper(Group(trajectories, step))
    return [ledger.total() if ledger.measured else math.nan for ledger in ledgers]


def won_and_thought(*pairs: tuple[float | None, float | None]) -> list[Trajectory]:
    return [episode(won=won, think=think) for won, think in pairs]


# ------------------------------------------------------------------------------------------------ gates of degree


def test_what_lies_behind_a_proportional_gate_is_multiplied():
    reward = JUDGED.when(proportional(WON))
    assert str(reward) == "judged | won"
    assert price(reward, won=0.5, judged=[0.5, 1]).credit_CT().tolist() == [[0.25, 0.5]]
    assert price(reward, won=0, judged=[None, 1]).status.tolist() == [Status.CLOSED] * 2
    assert price(reward, won=None, judged=[0.5, 1]).status.tolist() == [Status.UNMEASURED] * 2
    at_turn = WON.when(proportional(JUDGED, scope="turn"))
    assert price(at_turn, won=1, judged=[0.5, 0.25]).total() == 0.25


def test_a_proportional_gate_is_within_zero_and_one():
    with pytest.raises(ConfigError, match="'2\\*won' pays from 0 to 2 and cannot be how far a gate is open"):
        proportional(2 * WON)
    with pytest.raises(UsageError, match="must decide between 0 and 1"):
        price(JUDGED.when(proportional(signal("won", scope="trajectory"))), won=2, judged=[1, 1])
    rounded = proportional(signal("won", scope="trajectory"))  # as a sum of weights may be
    assert price(JUDGED.when(rounded), won=1 + 1e-12, judged=[1, 1]).openness.tolist() == [1, 1]


def test_a_sign_shift_adds_the_outcome_less_one():
    reward = sign_shift(JUDGED, WON)
    assert str(reward) == "(judged + won - 1)"
    assert reward.range(1) == (-1, 1)
    np.testing.assert_allclose(price(reward, won=0, judged=[0.2, 1]).credit_CT(), [[-0.8, 0]])
    np.testing.assert_allclose(price(reward, won=1, judged=[0.2, 1]).credit_CT(), [[0.2, 1]])
    assert price(reward, won=None, judged=[0.2, 1]).status.tolist() == [Status.UNMEASURED] * 2
    assert price(sign_shift(JUDGED, WON, beta=0.5), won=0, judged=[0.25, 1]).total() == 0.25


def test_the_last_turn_may_have_nothing_to_earn():
    ledger = price(before_last(JUDGED), turns=3, judged=[0.5, None])
    assert ledger.status.tolist() == [Status.PAID, Status.UNMEASURED, Status.INELIGIBLE]


# ------------------------------------------------------------------------------------------------ published mixes


@pytest.mark.parametrize(
    ("won", "form", "think", "expected"), [(1, 1, 0.7, 2.7), (1, 0, 0.7, 1.7), (0, 1, 0.7, 1), (0, 0, 0.7, 0)]
)
def test_posterior_grpo(won: float, form: float, think: float, expected: float):
    reward = posterior(WON, THINK, FORM)
    assert str(reward) == "form + won + (think | won)"
    assert price(reward, won=won, form=form, think=think).total() == pytest.approx(expected)
    assert price(posterior(WON, THINK), won=won, think=think).total() == pytest.approx(expected - form)


def test_posterior_grpo_tells_apart_those_that_all_succeed():
    assert totals(posterior(WON, THINK), *won_and_thought((1, 0.2), (1, 0.8))) == [1.2, 1.8]
    assert totals(posterior(WON, THINK), *won_and_thought((0, 0.2), (0, None))) == [0, 0]


def test_c_grpo_takes_the_best_of_the_group_failed_ones_included():
    group = won_and_thought((1, 0.2), (1, 0.4), (0, 0.8), (1, None), (None, 0.2))
    scaled = [0.7 + 0.3 * 0.25, 0.7 + 0.3 * 0.5, 0, math.nan, math.nan]
    assert totals(citation(WON, THINK), *group) == pytest.approx(scaled, nan_ok=True)
    shipped = [0.7 + 0.3 * 0.2, 0.7 + 0.3 * 0.4, 0, math.nan, math.nan]
    assert totals(citation_unscaled(WON, THINK), *group) == pytest.approx(shipped, nan_ok=True)
    assert citation(WON, THINK).needs_group
    assert not citation_unscaled(WON, THINK).needs_group


def test_where_no_rubric_is_met_in_the_group_nothing_is_divided_by_zero():
    assert totals(over_best(THINK), *won_and_thought((1, 0), (1, 0), (1, None))) == pytest.approx(
        [0, 0, math.nan], nan_ok=True
    )
    assert over_best(THINK).range(2) == (0, 1)


def test_ppr_keeps_the_outcome_last_and_shifts_what_comes_before():
    reward = renorm(WON, JUDGED)
    failed, solved = (price(reward, turns=3, won=won, judged=[0.25, 1, None]) for won in (0, 1))
    assert failed.credit_CT().sum(0).tolist() == [-0.75, 0, 0]
    assert solved.credit_CT().sum(0).tolist() == [0.25, 1, 1]
    assert failed.measured
    np.testing.assert_allclose(price(renorm(WON, JUDGED), won=0, judged=[0.8, None]).credit_CT().sum(0), [-0.2, 0])
    np.testing.assert_allclose(price(renorm(WON, JUDGED, beta=0.5), won=1, judged=[0.8, None]).total(), 2.3)


def test_under_ppr_an_unmeasured_step_masks_its_turn_and_an_unmeasured_outcome_all():
    unknown, ineligible, paid = Status.UNMEASURED, Status.INELIGIBLE, Status.PAID
    assert price(renorm(WON, JUDGED), turns=3, won=1, judged=[None, 0.5, None]).status.tolist() == [
        *(unknown, paid, ineligible, paid)
    ]
    assert price(renorm(WON, JUDGED), turns=3, won=None, judged=[0.5, 0.5, None]).status.tolist() == [
        *(unknown, unknown, ineligible, unknown)
    ]


def test_trust_grpo():
    group = won_and_thought((1, 0.5), (1, 0.75), (0, 0.25), (0, None))
    # Right ones think better (.625 against .25): γ is 1.
    assert totals(trusted(WON, THINK), *group, step=0) == pytest.approx([1.15, 1.225, 0.075, math.nan], nan_ok=True)
    weight = 0.3 * math.exp(-2)
    assert totals(trusted(WON, THINK), *group[:3], step=1000) == pytest.approx(
        [1 + weight * 0.5, 1 + weight * 0.75, weight * 0.25]
    )
    doubtful = won_and_thought((1, 0.25), (0, 0.75))
    gamma = math.exp(-0.5)
    assert totals(trusted(WON, THINK), *doubtful) == pytest.approx([1 + 0.3 * gamma * 0.25, 0.3 * gamma * 0.75])


def openness(gate: Gate, *trajectories: Trajectory) -> float:
    ledger = signal("won", scope="trajectory").when(gate)(Group(trajectories))[0]
    return float(ledger.openness[0])


def test_trust_is_shut_where_nothing_can_be_compared_and_undecided_where_it_cannot_be_told():
    gate = trust(WON, THINK)
    assert openness(gate, *won_and_thought((1, 0.5), (1, 0.9))) == 0
    assert openness(gate, *won_and_thought((0, 0.5), (0, 0.9))) == 0
    assert math.isnan(openness(gate, *won_and_thought((1, 0.5), (None, 0.9))))
    assert math.isnan(openness(gate, *won_and_thought((1, 0.5), (0, None))))
    assert openness(gate, *won_and_thought((1, 0.5), (0, 0.25), (None, 0.9))) == 1


def test_length_is_punished_where_the_task_is_solved_often_enough():
    reward = conditional_length(WON, alpha=0.2, pass_rate=0.5, unit="turns")

    def mixed(*rows: tuple[float | None, int]) -> list[Trajectory]:
        return [episode(turns, won=won) for won, turns in rows]

    # Solved in 2 and 4 turns: mean 3, deviation 1, so σ(−1) and σ(1); the failed one pays no penalty.
    low, high = 1 / (1 + math.e), 1 / (1 + math.exp(-1))
    assert totals(reward, *mixed((1, 2), (1, 4), (0, 9))) == pytest.approx([1 - 0.2 * low, 1 - 0.2 * high, 0])
    assert totals(reward, *mixed((1, 2), (0, 4), (0, 9))) == [1, 0, 0]
    assert totals(reward, *mixed((1, 3), (1, 3))) == pytest.approx([0.9, 0.9])
    assert totals(reward, *mixed((1, 3), (None, 3))) == pytest.approx([0.9, math.nan], nan_ok=True)
    assert totals(reward, *mixed((0, 3), (0, 4))) == [0, 0]


@pytest.mark.parametrize(
    ("won", "share", "expected"),
    [
        ([1, 1, 0, 0], 0.5, 1),
        ([1, 0, 0, 0], 0.5, 0),
        ([1, 1, None, None], 0.5, 1),  # whatever became of the others
        ([1, None, 0, 0], 0.5, math.nan),
        ([None, 0, 0, 0], 0.5, 0),  # even if that one was solved
        ([None, None], 0.0, 1),
        ([None, None], 0.5, math.nan),
    ],
)
def test_a_share_of_the_solved_is_undecided_where_it_hangs_on_unknown_outcomes(
    won: list[float | None], share: float, expected: float
):
    reward = FORM.when(solved_often(WON, share))
    ledgers = reward(Group(tuple(episode(won=one, form=1) for one in won)))
    np.testing.assert_equal([float(ledger.openness[0]) for ledger in ledgers], [expected] * len(won))


@pytest.mark.parametrize("make", [posterior, citation, citation_unscaled, renorm, trusted])
def test_an_empty_group_and_an_episode_without_turns_can_be_priced(make: Callable[[Shaper, Shaper], Shaper]):
    reward = make(WON, THINK)
    assert reward(Group(())) == []
    assert not math.isnan(totals(reward, episode(0, won=1, think=0.5), episode(won=0, think=0.5))[0])
    assert price(before_last(WON), turns=0, won=1).total() == 1


# ------------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        (linear(2, 3, over=150), [0, 75, 150, 300], [2, 2.5, 3, 3]),
        (linear(2, 1, over=150), [0, 75, 150, 300], [2, 1.5, 1, 1]),
        (switch(1 / 3, 1, at=30), [0, 29, 30, 99], [1 / 3, 1 / 3, 1, 1]),
        (annealing(over=500), [0, 500, 1000], [1, math.exp(-1), math.exp(-2)]),
    ],
)
def test_schedules(schedule: object, steps: list[int], expected: list[float]):
    reward = WON.then(scheduled(schedule))  # type: ignore[arg-type]
    found = [totals(reward, episode(won=1), step=step)[0] for step in steps]
    assert found == pytest.approx(expected)
    low, high = reward.range(3)
    assert all(low <= value <= high for value in found)


def test_a_scheduled_reward_prints_its_schedule_and_a_gate_may_wait():
    assert str(FORM.then(scheduled(linear(2, 1, over=150))) + WON) == "linear(2, 1, over=150)*form + won"
    late = WON.when(from_step(10))
    assert [totals(late, episode(won=1), step=step)[0] for step in (9, 10)] == [0, 1]


# ------------------------------------------------------------------------------------------------ laws

unit = st.floats(0, 1).map(lambda x: round(x, 3))
MIXES: dict[str, Callable[[], Shaper]] = {
    "posterior": lambda: posterior(WON, THINK, FORM),
    "citation": lambda: citation(WON, THINK),
    "citation_unscaled": lambda: citation_unscaled(WON, THINK),
}


@pytest.mark.parametrize("name", MIXES)
@given(data=st.lists(st.tuples(st.sampled_from([0.0, 1.0]), unit, st.sampled_from([0.0, 1.0])), min_size=2, max_size=5))
def test_law_sign_consistency(name: str, data: list[tuple[float, float, float]]):
    group = [episode(won=won, think=think, form=form) for won, think, form in data]
    paid = totals(MIXES[name](), *group)
    failed = [p for p, (won, *_) in zip(paid, data, strict=True) if not won]
    solved = [p for p, (won, *_) in zip(paid, data, strict=True) if won]
    assert max(failed, default=-math.inf) <= min(solved, default=math.inf)


@given(st.sampled_from([0.0, 1.0]), st.lists(unit, min_size=1, max_size=5))
def test_law_sign_consistency_of_each_turn_under_renorm(won: float, judged: list[float]):
    credit = price(renorm(WON, JUDGED), turns=len(judged), won=won, judged=judged).credit_CT().sum(0)
    assert (credit >= 0).all() if won else (credit <= 0).all()


def test_law_sign_consistency_is_broken_without_the_gate():
    added = WON + 3 * THINK
    assert totals(added, *won_and_thought((0, 1.0), (1, 0.0))) == [3, 1]


@given(data=st.lists(st.tuples(st.sampled_from([0.0, 1.0, None]), unit), min_size=2, max_size=6), seed=st.randoms())
def test_law_permutation_equivariance(data: list[tuple[float | None, float]], seed: object):
    order = list(range(len(data)))
    seed.shuffle(order)  # type: ignore[attr-defined]
    group = won_and_thought(*data)
    for reward in (
        trusted(WON, THINK),
        citation(WON, THINK),
        conditional_length(WON, alpha=0.5, pass_rate=0.5, unit="turns"),
    ):
        straight = totals(reward, *group)
        shuffled = totals(reward, *(group[i] for i in order))
        assert shuffled == pytest.approx([straight[i] for i in order], nan_ok=True)


@pytest.mark.parametrize("make", [posterior, citation, citation_unscaled, renorm, trusted])
def test_law_scale_honesty(make: Callable[[Shaper, Shaper], Shaper]):
    """A mix weighs what is on a unit scale, and says so to what is not."""
    for raw in (signal("think", scope="trajectory"), 1000 * THINK, signal("think", scope="trajectory", low=-3, high=3)):
        with pytest.raises(ConfigError, match="declared within 0 and 1"):
            make(WON, raw)


@pytest.mark.parametrize(
    "make",
    [
        lambda: citation(WON, THINK, alpha=1.5),
        lambda: trusted(WON, THINK, over=0),
        lambda: trusted(WON, THINK, alpha=math.nan),
        lambda: conditional_length(WON, alpha=2, pass_rate=0.5),
        lambda: conditional_length(WON, alpha=0.1, pass_rate=math.nan),
        lambda: sign_shift(JUDGED, WON, beta=math.nan),
        lambda: linear(0, math.nan, over=5),
        lambda: switch(0, 1, at=0),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object]):
    with pytest.raises(ConfigError):
        make()
