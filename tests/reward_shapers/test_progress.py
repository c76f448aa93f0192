"""Credit in the order of the turns: the papers' numbers, plain loops over their equations, and what is unmeasured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from agentgym.reward_shapers.gates import before_last
from agentgym.reward_shapers.outcome import outcome
from agentgym.reward_shapers.progress import (
    advances,
    delta,
    gains,
    shaping,
    spa,
    spa_shipped,
    standings,
    subgoals,
)
from agentgym.reward_shapers.step import step
from agentgym.reward_shapers.transforms import clip_negative

from agentgym.errors import ConfigError, UnknownNameError, UsageError
from agentgym.ledger import Status
from agentgym.reward import Shaper, per_trajectory
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

TURN = Turn((), empty_sample(text_message("assistant", "look")), np.empty(0, np.int32))
P = step("p", low=0.0, high=1.0)


def episode(
    stop: StopReason = StopReason.DONE, won: float | None = None, **values: Sequence[float | None]
) -> Trajectory:
    turns = max(len(column) for column in values.values())
    signals = [Signal(name, v, "world", turn=t) for name, column in values.items() for t, v in enumerate(column)]
    signals.append(Signal("won", won, "world"))
    return Trajectory("t", "g", Task("t", "", 99), (TURN,) * turns, (), stop, tuple(signals), 0)


def paid(reward: Shaper, *episodes: Trajectory) -> list[list[float]]:
    """Return what each turn of each episode is paid in all, NaN where any of it is unmeasured."""
    rows = []
    for ledger in reward(Group(episodes)):
        measured = ledger.mask_CT().all(axis=0)
        rows.append(np.where(measured, ledger.credit_CT().sum(axis=0), np.nan).tolist())
    return rows


def of(reward: Shaper, *p: float | None) -> list[float]:
    return paid(reward, episode(p=p))[0]


def same(found: Sequence[float], expected: Sequence[float]) -> None:
    np.testing.assert_allclose(found, expected, atol=1e-12)


# ------------------------------------------------------------------------------------------------- the papers' numbers


def test_golden_vectors_of_clip_and_delta():
    p = (0.2, 0.5, 0.4, 0.9)
    same(of(P.then(delta()), *p), [-0.3, 0.1, 0.4, 0.0])
    assert sum(of(P.then(delta()), *p)) == pytest.approx(p[0])
    same(of(P.then(clip_negative(0.5)), *p), [-0.3, 0.0, -0.1, 0.0])


def test_clip_and_delta_together_clip_first():
    # Clipped by hand: [−.3, 0, −.1, 0]; then each less the next, the last but one itself, the last nothing.
    both = P.then(clip_negative(0.5)).then(delta())
    same(of(both, 0.2, 0.5, 0.4, 0.9), [-0.3, 0.1, -0.1, 0.0])
    assert str(both) == "delta(clip_negative(p, 0.5))"


def test_a_single_turn_gives_the_answer_and_delta_pays_it_nothing():
    same(of(P.then(delta()), 0.7), [0.0])
    same(of(P.then(delta()), 0.7, 0.9), [0.7, 0.0])


def test_the_answer_need_not_be_scored_under_delta():
    (ledger,) = before_last(P).then(delta())(Group((episode(p=(0.2, 0.5, None)),)))
    same(ledger.credit_CT()[0].tolist(), [-0.3, 0.5, 0])
    assert ledger.status[-1] == Status.INELIGIBLE
    assert ledger.measured


def test_spa_adds_estimated_progress_and_grounding():
    reward = spa(alpha=1.0, beta=0.5)
    assert str(reward) == "1*progress_estimate + 0.5*grounded"
    one = episode(progress_estimate=(0.25, -0.5, 1.0), grounded=(1.0, 0.0, 1.0))
    same(paid(reward, one)[0], [0.75, -0.5, 1.5])


def test_shipped_spa_pays_the_leave_one_out_outcome_at_every_turn_and_grounds_the_last():
    # Outcomes 1, 0, 1: less the others' means 1/2, 1, 1/2.
    group = [
        episode(won=1.0, grounded=(1.0, 0.0)),
        episode(won=0.0, grounded=(0.0, 0.0, 0.0)),
        episode(won=1.0, grounded=(0.0,)),
    ]
    first, second, third = paid(spa_shipped(beta=0.5), *group)
    same(first, [0.5 + 0.5, 0.5 + 0.5])
    same(second, [-1.0, -1.0, -1.0 + 0.5])
    same(third, [0.5 + 0.5])
    assert spa_shipped(beta=0.5).needs_group
    assert not spa(alpha=1, beta=0.5).needs_group


def test_shipped_spa_compares_with_measured_outcomes_only():
    alone = paid(spa_shipped(beta=0.0), episode(won=1.0, grounded=(0.0,)))
    same(alone[0], [0.0])
    group = [episode(won=won, grounded=(0.0,)) for won in (1.0, None, 0.0)]
    found = paid(spa_shipped(beta=0.0), *group)
    same([row[0] for row in found], [1.0, math.nan, -1.0])
    lonely = [episode(won=won, grounded=(0.0,)) for won in (1.0, None)]
    same([row[0] for row in paid(spa_shipped(beta=0.0), *lonely)], [0.0, math.nan])


def test_shipped_spa_names_the_outcome_it_was_priced_from():
    (ledger,) = spa_shipped(beta=0.0)(Group((episode(won=1.0, grounded=(1.0, 1.0)),)))
    signals = [entry.signal.name for entry in ledger.entries() if entry.component == "loo" and entry.signal]
    assert signals == ["won", "won"]


# ----------------------------------------------------------------------------------------------- gains and standings


def test_standings_and_gains_undo_each_other():
    given = (0.25, 0.25, -0.5, 1.0)
    same(of(P.then(standings()), *given), [0.25, 0.5, 0.0, 1.0])
    same(of(P.then(standings()).then(gains()), *given), given)
    same(of(P.then(gains(start=1.0)), 1.0, 0.5), [0.0, -0.5])


def test_subgoals_pay_what_is_reached_for_the_first_time():
    back_and_forth = (0.5, -0.5, 0.5, -0.5, 0.5, 0.5)  # stands at .5 0 .5 0 .5 1
    same(paid(subgoals(), episode(progress=back_and_forth))[0], [0.5, 0, 0, 0, 0, 0.5])
    same(paid(subgoals(), episode(progress=(-0.5, 0.5, 0.25)))[0], [0, 0, 0.25])
    assert str(subgoals()) == "advances(standings(progress))"


def test_farming_a_subgoal_earns_no_more_than_reaching_it():
    farm = (0.5, -0.5) * 500 + (0.5,)
    assert sum(paid(subgoals(), episode(progress=farm))[0]) == pytest.approx(0.5)
    assert sum(of(P.then(delta()), *([1.0] * 500), 0.0)) == pytest.approx(1.0)
    assert sum(of(P.then(clip_negative(0.9)), *([1.0] * 500))) == 0.0


def test_items_and_trajectories_are_sequences_of_their_own():
    one, two = episode(p=(0.5, 1.0, 1.0)), episode(p=(0.25, 0.75))
    same(paid(P.then(gains()), one, two)[0], [0.5, 0.5, 0.0])
    same(paid(P.then(gains()), one, two)[1], [0.25, 0.5])
    same(paid(P.then(standings()), two, one)[1], [0.5, 1.5, 2.5])


# -------------------------------------------------------------------------------------------------------- potentials


def test_shaping_is_the_equation_of_the_potentials():
    stood = (0.5, 0.25, 1.0)  # Φ(s_1), Φ(s_2), Φ(s_3); Φ(s_0) = 0
    same(of(shaping(P, gamma=0.9, keep="always"), *stood), [0.9 * 0.5, 0.9 * 0.25 - 0.5, 0.9 * 1.0 - 0.25])
    same(of(shaping(P, gamma=0.9), *stood), [0.9 * 0.5, 0.9 * 0.25 - 0.5, -0.25])
    same(of(shaping(P, gamma=1.0, start=0.5), *stood), [0.0, -0.25, -0.25])


@pytest.mark.parametrize(
    ("keep", "stop", "end"),
    [
        ("never", StopReason.DONE, 0.0),
        ("never", StopReason.MAX_TURNS, 0.0),
        ("truncated", StopReason.DONE, 0.0),
        ("truncated", StopReason.MAX_TURNS, 0.75),
        ("always", StopReason.DONE, 0.75),
    ],
)
def test_the_discounted_sum_of_shaping_is_that_of_its_ends(keep: str, stop: StopReason, end: float):
    gamma, start = 0.9, 0.2
    reward = shaping(P, gamma=gamma, start=start, keep=keep)  # type: ignore[arg-type]
    found = paid(reward, episode(stop, p=(0.5, 0.1, 0.75)))[0]
    discounted = sum(gamma**t * value for t, value in enumerate(found))
    assert discounted == pytest.approx(gamma**3 * end - start)


def test_shaping_takes_any_standing_as_its_potential():
    reward = shaping(step("progress").then(standings()), gamma=1.0, keep="always")
    same(paid(reward, episode(progress=(0.25, -0.25, 0.5)))[0], [0.25, -0.25, 0.5])
    assert str(reward) == "shaping(standings(progress), 1)"
    same(of(shaping(2.0 * P, gamma=1.0, keep="always"), 0.5, 1.0), [1.0, 1.0])


# ------------------------------------------------------------------------------------------ unmeasured, bounds, laws


def test_unmeasured_turns_are_stepped_over_and_the_sums_stay():
    nan = math.nan
    same(of(P.then(gains()), 0.5, None, 1.0), [0.5, nan, 0.5])
    same(of(P.then(advances()), 0.5, None, 1.0), [0.5, nan, 0.5])
    same(of(P.then(delta()), 0.5, None, 0.25, 0.9), [0.25, nan, 0.25, 0.0])  # the returns are .5, ?, .25, 0
    same(of(P.then(delta()), 0.5, None), [0.5, nan])
    same(of(P.then(standings()), 0.5, None, 0.25), [0.5, nan, nan])


def test_shaping_over_an_unmeasured_turn_keeps_the_discounted_sum():
    gamma = 0.9
    found = of(shaping(P, gamma=gamma, start=0.2, keep="always"), 0.5, None, None, 0.75)
    assert np.isnan(found).tolist() == [False, True, True, False]
    discounted = sum(gamma**t * value for t, value in enumerate(found) if not math.isnan(value))
    assert discounted == pytest.approx(gamma**4 * 0.75 - 0.2)
    # Where the episode ends does not count, so it need not be measured.
    same(of(shaping(P, gamma=gamma), 0.5, None), [0.45, -0.5])


@pytest.mark.parametrize("keep", ["never", "truncated", "always"])
def test_shaping_pays_nothing_back_where_nothing_was_measured(keep: str):
    reward = shaping(P, gamma=0.9, start=0.2, keep=keep)  # type: ignore[arg-type]
    same(of(reward, None, None), [math.nan, math.nan])
    same(of(reward, None), [math.nan])
    (first, second) = paid(reward, episode(p=(None, None)), episode(p=(0.5, 0.0)))
    same(first, [math.nan, math.nan])
    same(second, [0.9 * 0.5 - 0.2, -0.5])  # it ends where the potential is 0, whether that is kept or not


def test_an_unmeasured_value_is_masked_and_never_zero():
    (ledger,) = P.then(gains())(Group((episode(p=(None, 1.0)),)))
    assert [entry.status for entry in ledger.entries()] == [Status.UNMEASURED, Status.PAID]
    assert ledger.credit_CT().tolist() == [[0.0, 1.0]]


SEQUENCES: dict[str, tuple[Shaper, tuple[float, float]]] = {
    "gains": (P.then(gains(0.5)), (-0.5, 0.5)),
    "advances": (P.then(advances()), (0.0, 1.0)),
    "delta": (P.then(delta()), (0.0, 1.0)),
    "clip and delta": (P.then(clip_negative(0.25)).then(delta()), (-0.25, 0.0)),
    "shaping": (shaping(P, gamma=1.0, start=0.5, keep="always"), (-0.5, 0.5)),
    "weighted": (-2.0 * P.then(delta()), (-2.0, 0.0)),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_sums_are_bounded_whatever_the_number_of_turns(name: str):
    reward, expected = SEQUENCES[name]
    assert reward.range(3) == reward.range(1000) == pytest.approx(expected)
    random = np.random.default_rng(0)
    for turns in (1, 2, 5, 40):
        for values in (random.random(turns), random.integers(0, 2, turns).astype(float)):
            assert expected[0] - 1e-9 <= sum(of(reward, *values)) <= expected[1] + 1e-9


@pytest.mark.parametrize(
    "reward", [P.then(gains(0.5)), P.then(delta()), shaping(P, gamma=0.9, start=0.5), P.then(clip_negative(0.3))]
)
def test_each_amount_is_within_its_bounds(reward: Shaper):
    low, high = reward.parts[0].low, reward.parts[0].high
    for values in np.random.default_rng(1).integers(0, 2, (50, 4)).astype(float):
        found = of(reward, *values)
        assert low - 1e-9 <= min(found)
        assert max(found) <= high + 1e-9


def test_subgoals_are_bounded_and_spa_is_not():
    assert subgoals().range(1000) == (0.0, 1.0)
    assert (0.5 * subgoals()).range(7) == (0.0, 0.5)
    longer = [
        sum(paid(spa(alpha=0.0, beta=0.5), episode(progress_estimate=(0.0,) * t, grounded=(1.0,) * t))[0])
        for t in (1, 10, 100)
    ]
    assert longer == [0.5, 5.0, 50.0]  # each executable turn pays: more turns, more reward
    assert spa(alpha=0.5, beta=0.5).range(9)[1] == math.inf


@pytest.mark.parametrize(
    "change", [standings(), gains(), advances(), clip_negative(0.5)], ids=["standings", "gains", "advances", "clip"]
)
def test_what_comes_later_changes_nothing_before(change: object):
    reward = P.then(change)  # type: ignore[arg-type]
    whole = of(reward, 0.5, 0.25, 0.75, 1.0)
    same(of(reward, 0.5, 0.25, 0.75, 0.1, 0.9)[:3], whole[:3])
    same(of(reward, 0.5, 0.25)[:2], whole[:2])


def test_delta_looks_one_turn_ahead():
    assert of(P.then(delta()), 0.5, 0.25, 0.75, 1.0)[0] == of(P.then(delta()), 0.5, 0.25, 0.0, 0.0)[0]
    assert of(P.then(delta()), 0.5, 0.25, 0.75)[0] != of(P.then(delta()), 0.5, 0.5, 0.75)[0]


def test_the_return_of_delta_is_each_turns_own_score():
    p = np.random.default_rng(2).random(30)
    found = np.array(of(P.then(delta()), *p))
    np.testing.assert_allclose(np.cumsum(found[::-1])[::-1][:-1], p[:-1])


def loop_advances(p: Sequence[float | None]) -> list[float]:
    best, out = 0.0, []
    for value in p:
        out.append(math.nan if value is None else max(value - best, 0.0))
        best = best if value is None else max(best, value)
    return out


def test_many_episodes_at_once_agree_with_a_plain_loop():
    random = np.random.default_rng(3)
    columns = [
        [None if random.random() < 0.2 else float(random.normal()) for _ in range(int(random.integers(1, 9)))]
        for _ in range(40)
    ]
    found = paid(step("p").then(advances()), *(episode(p=column) for column in columns))
    for row, column in zip(found, columns, strict=True):
        same(row, loop_advances(column))


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: gains(math.nan), ConfigError, "finite"),
        (lambda: shaping(P, gamma=0.0), ConfigError, "above 0"),
        (lambda: shaping(P, gamma=1.5), ConfigError, "at most 1"),
        (lambda: shaping(P, gamma=1.0, keep="some"), UnknownNameError, "never"),  # type: ignore[arg-type]
        (lambda: shaping(outcome(), gamma=1.0), ConfigError, "'won' is not paid at each turn"),
        (lambda: spa(alpha=math.nan, beta=0.5), ConfigError, "finite"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], error: type[Exception], said: str):
    with pytest.raises(error, match=said):
        make()


def test_amounts_without_a_turn_have_no_order():
    with pytest.raises(UsageError, match="whole trajectories"):
        outcome().then(delta())(Group((episode(won=1.0, p=(0.5,)),)))


def test_an_episode_without_turns_is_paid_nothing():
    empty = Trajectory("t", "g", Task("t", "", 9), (), (), StopReason.CONTEXT_FULL, (), 0)
    for reward in (P.then(delta()), P.then(advances()), shaping(P, gamma=1.0), subgoals()):
        (ledger,) = reward(Group((empty,)))
        assert list(ledger.entries()) == []
    assert per_trajectory("n", lambda t: 0.0, scope="trajectory")(Group((empty,)))
