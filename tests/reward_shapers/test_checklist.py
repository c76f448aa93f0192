"""Checklist rewards: the golden vector of CM2, Eqs. 2-10 as plain loops, and what missing verdicts change."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from agentgym.reward_shapers.checklist import SHIPPED, SIGNAL, Terms, checklist, requirement
from agentgym.reward_shapers.checklist_items import Checklist, Item
from agentgym.reward_shapers.outcome import outcome
from agentgym.reward_shapers.step import step
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import ConfigError, TaskError, UnknownNameError
from agentgym.ledger import Status
from agentgym.train.advantage import GroupRewards, TurnBaseline, estimate
from agentgym.train.credit import Crediting, advantages, price
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

TWO = (
    Item("C0", "found?", 0.4, "tool.content"),
    Item("C1", "told?", 0.6, "assistant.content.user_visible_reply", dependence=("C0",)),
)
GOLDEN = Checklist((TWO,))
# Turn (from 0) after which each item is satisfied, in each rollout of the golden vector; None: never.
ROLLOUTS = ((0, 2), (1, None), (None, 0), (0, 1))


def rollout(verdicts: Sequence[Sequence[float | None]], *, stages: Sequence[int] = (), id: str = "e", **more: float):
    """Return an episode from the verdicts of each item ("0/C0", …) at each turn; without ``stages`` all in stage 0."""
    turns = len(verdicts[0]) if verdicts else 0
    stages = stages or (0,) * turns
    ids = [f"C{number}" for number in range(len(verdicts))]
    signals = [
        Signal(SIGNAL, value, "judge", t, f"{stages[t]}/{name}", cause="" if value is not None else "stalled")
        for name, row in zip(ids, verdicts, strict=True)
        for t, value in enumerate(row)
    ]
    signals += [Signal(name, value, "world") for name, value in more.items()]
    acted = tuple(
        Turn((), empty_sample(text_message("assistant", "x")), np.empty(0, np.int32), stage=stage) for stage in stages
    )
    return Trajectory(id, "g", Task("t", "", 9), acted, (), StopReason.DONE, tuple(signals), 0)


def from_moments(moments: Sequence[int | None], turns: int = 3) -> Trajectory:
    return rollout([[float(m is not None and t >= m) for t in range(turns)] for m in moments])


GROUP = Group(tuple(from_moments(moments) for moments in ROLLOUTS))


def credit(shaper, group: Group) -> list[list[float]]:
    return [ledger.credit_CT()[0].tolist() for ledger in shaper(group)]


def test_golden_vector_of_the_trajectory():
    reward = checklist(items=GOLDEN)
    ledgers = reward(GROUP)
    assert [ledger.total() for ledger in ledgers] == pytest.approx([1.0, 0.4, 0.0, 1.0])
    assert reward.range(3) == (0, 1)
    rewards = GroupRewards(np.stack([ledger.credit_CT().T for ledger in ledgers]), np.ones((4, 3), bool), ("c",))
    (advantage_GT,) = estimate([rewards], name="dr_grpo")  # Eq. 5 with F = 1
    np.testing.assert_allclose(advantage_GT, np.repeat([[0.4], [-0.2], [-0.6], [0.4]], 3, axis=1), atol=1e-12)


def test_golden_vector_of_the_stage():
    expected = np.repeat([[0.4], [-0.2], [-0.6], [0.4]], 3, axis=1)
    np.testing.assert_allclose(credit(checklist("stage", items=GOLDEN), GROUP), expected, atol=1e-12)


def test_golden_vector_of_the_steps():
    ledgers = checklist("step", items=GOLDEN)(GROUP)
    expected = [[0.25, 0.5, 0.5], [0.25, 0.25, -0.5], [-0.75, -0.75, -0.75], [0.25, 0.5, 0.0]]
    np.testing.assert_allclose([ledger.credit_CT()[0] for ledger in ledgers], expected, atol=1e-12)
    assert ledgers[3].status.tolist() == [Status.PAID, Status.PAID, Status.INELIGIBLE]
    assert all(ledger.measured for ledger in ledgers)


def test_golden_vector_of_the_steps_as_the_advantage_that_is_trained_on():
    priced = price(checklist("step", items=GOLDEN), [GROUP])
    (advantage_GT,) = advantages(priced, Crediting("as_paid"), baseline=TurnBaseline(), values=[None])
    expected = [[0.25, 0.5, 0.5], [0.25, 0.25, -0.5], [-0.75, -0.75, -0.75], [0.25, 0.5, 0.0]]
    np.testing.assert_allclose(advantage_GT, expected, atol=1e-12)


@pytest.mark.parametrize("assignment", ["trajectory", "stage", "step"])
def test_golden_vector_without_the_measurements_it_does_not_need(assignment: str):
    """A later no rules out the turns before it, a yes settles all after it."""
    holes = (
        [[1.0, None, None], [0.0, 0.0, 1.0]],
        [[0.0, 1.0, None], [None, None, 0.0]],
        [[None, None, 0.0], [1.0, None, 0.0]],
        [[1.0, 0.0, None], [0.0, 1.0, None]],
    )
    group = Group(tuple(rollout(each) for each in holes))
    reward = checklist(assignment, items=GOLDEN)  # type: ignore[arg-type]
    assert all(ledger.measured for ledger in reward(group))
    np.testing.assert_allclose(credit(reward, group), credit(reward, GROUP), atol=1e-12)


def test_an_unmeasured_item_masks_only_what_depends_on_it():
    """C1 came before C0 in any case: it earns nothing, whenever it came. C0 itself is not known at the end."""
    known = rollout([[0, 0, 1], [None, 1, 1]])
    unknown = rollout([[0, 0, None], [1, 1, 1]])
    ledgers = checklist(items=GOLDEN)(Group((known, unknown)))
    assert [ledger.measured for ledger in ledgers] == [True, False]
    assert ledgers[0].total() == pytest.approx(0.4)
    (entry,) = ledgers[1].entries()
    assert entry.signal is not None
    assert (entry.signal.item, entry.signal.turn, entry.signal.cause) == ("0/C0", 2, "stalled")


def test_an_item_without_weight_is_not_missed():
    items = Checklist(((replace(TWO[0], weight=1.0), replace(TWO[1], weight=0.0)),))
    (ledger,) = checklist(items=items)(Group((rollout([[1, 1, 1], [None, None, None]]),)))
    assert (ledger.total(), ledger.measured) == (1.0, True)


def test_missing_items_may_be_left_out_of_the_mean():
    items = Checklist(((replace(TWO[0], weight=0.25), replace(TWO[1], weight=0.75, dependence=())),))
    group = Group((rollout([[1], [None]]), rollout([[0], [1]]), rollout([[None], [None]])))
    ledgers = checklist(items=items, terms=Terms(missing="leave_out"))(group)
    assert [ledger.total() for ledger in ledgers[:2]] == [1.0, 0.75]
    assert [ledger.measured for ledger in ledgers] == [True, True, False]
    stage = checklist("stage", items=items, terms=Terms(missing="leave_out"))(group)
    assert stage[0].total() == pytest.approx(1 - 0.5)  # b of C0 is 1/2; C1, unmeasured here, has b = 1
    assert stage[1].total() == pytest.approx(0.25 * (0 - 0.5) + 0.75 * (1 - 1))
    assert [ledger.measured for ledger in stage] == [True, True, False]
    masked = checklist("stage", items=items)(group)
    assert [ledger.measured for ledger in masked] == [False, True, False]


def test_an_item_nobody_knows_is_unmeasured_not_ignored():
    group = Group((rollout([[1], [None]]), rollout([[0], [None]])))
    items = Checklist(((TWO[0], replace(TWO[1], dependence=())),))
    for assignment in ("trajectory", "stage", "step"):
        ledgers = checklist(assignment, items=items)(group)  # type: ignore[arg-type]
        assert not any(ledger.measured for ledger in ledgers)


TWO_STAGES = Checklist(
    (
        (Item("C0", "?", 1.0, "tool.content", required_for_next_turn=True),),
        (Item("C0", "?", 1.0, "tool.content"),),
    )
)


def staged(first: float | None, second: float | None = None, *, reached: bool = True, **more: float) -> Trajectory:
    stages = (0, 1) if reached else (0,)
    return rollout([[first, second][: len(stages)]], stages=stages, **more)


def test_a_stage_not_reached_is_left_out_or_counts_as_0():
    group = Group((staged(1, 1), staged(1, 0), staged(1, reached=False)))
    assert [ledger.total() for ledger in checklist(items=TWO_STAGES)(group)] == [1, 0.5, 1]
    shipped = Terms(unreached="zero", dependencies=False)
    assert [ledger.total() for ledger in checklist(items=TWO_STAGES, terms=shipped)(group)] == [1, 0.5, 0.5]
    # Baseline of stage 1: 1/2 over those who reached it, 1/3 over all.
    assert credit(checklist("stage", items=TWO_STAGES), group) == [[0, 0.5], [0, -0.5], [0]]
    np.testing.assert_allclose(
        list(itertools.chain(*credit(checklist("stage", items=TWO_STAGES, terms=shipped), group))),
        [0, 2 / 3, 0, -1 / 3, 0],
    )


def test_a_baseline_may_need_a_number_of_rollouts():
    group = Group((staged(1, 1), staged(1, 0), staged(0, reached=False)))
    ledgers = checklist("stage", items=TWO_STAGES, terms=Terms(holders=3))(group)
    assert ledgers[0].credit_CT()[0].tolist() == pytest.approx([1 / 3, 0])
    assert ledgers[0].status.tolist() == [Status.PAID, Status.INELIGIBLE]
    silent = Group((staged(1, 1), staged(1, 0), staged(1, None)))  # three reached stage 1, and two of them tell
    for ledger in checklist("stage", items=TWO_STAGES, terms=Terms(holders=3))(silent):
        assert ledger.status.tolist() == [Status.PAID, Status.UNMEASURED]


def test_dependencies_may_be_ignored_as_in_the_authors_code():
    terms = Terms(dependencies=False)
    totals = [ledger.total() for ledger in checklist(items=GOLDEN, terms=terms)(GROUP)]
    assert totals == pytest.approx([1.0, 0.4, 0.6, 1.0])


def test_steps_need_not_be_divided_by_the_weights_of_what_they_could_earn():
    """Eq. 9 alone: w (r̃ − b) summed over the items that could be earned, with b = .75 and .5, or .75 both."""
    undivided = credit(checklist("step", items=GOLDEN, terms=Terms(normalised=False)), GROUP)
    expected = [[0.1, 0.3, 0.3], [0.1, 0.1, -0.3], [-0.3, -0.3, -0.3], [0.1, 0.3, 0]]
    np.testing.assert_allclose(undivided, expected, atol=1e-12)
    both = credit(checklist("step", items=GOLDEN, terms=Terms(normalised=False, dependencies=False)), GROUP)
    expected = [[0.1 + 0.15, 0.15, 0.15], [0.1 - 0.45, 0.1 - 0.45, -0.45], [-0.3 + 0.15, -0.3, -0.3], [0.25, 0.15, 0]]
    np.testing.assert_allclose(both, expected, atol=1e-12)
    group = Group((rollout([[1], [None]]), rollout([[None], [None]])))
    left_out = checklist("step", items=GOLDEN, terms=Terms(normalised=False, missing="leave_out"))(group)
    assert [ledger.measured for ledger in left_out] == [True, False]


def test_the_authors_code_in_place_of_the_equations():
    """Dependencies are not asked for, stages not reached count as 0 for the whole, and too small groups pay nothing."""
    reward = checklist(items=GOLDEN, terms=SHIPPED["trajectory"])
    assert [ledger.total() for ledger in reward(GROUP)] == pytest.approx([1.0, 0.4, 0.6, 1.0])
    group = Group((staged(1, 1), staged(1, reached=False)))
    assert [ledger.total() for ledger in checklist(items=TWO_STAGES, terms=SHIPPED["trajectory"])(group)] == [1, 0.5]
    stage = checklist("stage", items=GOLDEN, terms=SHIPPED["stage"])
    assert credit(stage, GROUP) == [[0] * 3] * 4
    five = Group((*GROUP.trajectories, from_moments((None, 0))))  # R = 1, .4, .6, 1, .6 of mean .72
    expected = [[0.28] * 3, [-0.32] * 3, [-0.12] * 3, [0.28] * 3, [-0.12] * 3]
    np.testing.assert_allclose(credit(stage, five), expected, atol=1e-12)
    steps = checklist("step", items=GOLDEN, terms=SHIPPED["step"])
    np.testing.assert_allclose(credit(steps, GROUP)[0], [0.1, 0.3, 0.3], atol=1e-12)
    assert credit(steps, Group(GROUP.trajectories[:3])) == [[0] * 3] * 3


def test_an_episode_without_turns_earned_nothing():
    (ledger,) = checklist(items=GOLDEN)(Group((rollout([]),)))
    assert (ledger.total(), ledger.measured) == (0, True)
    assert checklist("step", items=GOLDEN)(Group((rollout([]),)))[0].credit_CT().shape == (1, 0)


def test_requirements_gate_what_comes_after_them():
    reward = step("progress") | requirement(items=TWO_STAGES)
    assert str(reward) == "progress | requirement"
    for first, expected in ((1.0, Status.PAID), (0.0, Status.CLOSED), (None, Status.UNMEASURED)):
        episode = staged(first, 1)
        progress = tuple(Signal("progress", 1.0, "world", t) for t in range(2))
        (ledger,) = reward(Group((replace(episode, signals=episode.signals + progress),)))
        assert ledger.status.tolist() == [Status.PAID, expected]
    whole = outcome().when(requirement(items=TWO_STAGES))
    assert [whole(Group((staged(first, 1, won=1.0),)))[0].total() for first in (1, 0)] == [1, 0]
    assert whole(Group((staged(0, reached=False, won=1.0),)))[0].total() == 1


def eq_2_to_4(moments: Sequence[int | None], items: Sequence[Item], turns: int) -> list[float]:
    """Return Σ_s r_c of each item by the plain loop over steps (Eq. 2)."""
    at = {item.id: (math.inf if m is None else m) for item, m in zip(items, moments, strict=True)}
    earned = []
    for item in items:
        total = 0.0
        for s in range(turns):
            before = all(at[d] < s for d in item.dependence)
            total += before and not at[item.id] < s and at[item.id] < s + 1
        earned.append(float(total))
    return earned


MOMENTS = st.lists(st.tuples(*[st.one_of(st.none(), st.integers(0, 3))] * 3), min_size=1, max_size=4)
THREE = (*TWO, Item("C2", "?", 0.5, "user.content", dependence=("C0", "C1")))
THREE = tuple(replace(item, weight=weight) for item, weight in zip(THREE, (0.2, 0.3, 0.5), strict=True))


@given(MOMENTS)
def test_every_assignment_is_its_equations(moments):
    turns, weights = 4, [item.weight for item in THREE]
    group = Group(tuple(from_moments(each, turns) for each in moments))
    earned = [eq_2_to_4(each, THREE, turns) for each in moments]
    R = [sum(w * r for w, r in zip(weights, row, strict=True)) for row in earned]
    b = [sum(row[c] for row in earned) / len(earned) for c in range(3)]  # Eq. 8
    totals = [ledger.total() for ledger in checklist(items=Checklist((THREE,)))(group)]
    assert totals == pytest.approx(R)  # Eq. 4
    stages = credit(checklist("stage", items=Checklist((THREE,))), group)
    np.testing.assert_allclose(stages, [[r - sum(R) / len(R)] * turns for r in R], atol=1e-9)  # Eq. 7
    for i, row in enumerate(credit(checklist("step", items=Checklist((THREE,))), group)):
        at = {item.id: (math.inf if m is None else m) for item, m in zip(THREE, moments[i], strict=True)}
        for s, paid in enumerate(row):
            E = [c for c, item in enumerate(THREE) if all(at[d] < s for d in item.dependence) and at[item.id] >= s]
            expected = sum(weights[c] * (float(at[THREE[c].id] < turns) - b[c]) for c in E)  # Eqs. 3, 9, 10
            assert paid == pytest.approx(expected / sum(weights[c] for c in E) if E else 0.0, abs=1e-9)


@given(MOMENTS.filter(lambda each: len(each) == 1), st.integers(0, 10**6))
def test_what_is_paid_with_holes_is_what_every_filling_pays(moments, seed):
    """Three-valued logic is exact: measured if and only if all ways to fill the holes pay the same."""
    turns, rng = 4, random.Random(seed)
    truth = [[float(m is not None and t >= m) for t in range(turns)] for m in moments[0]]
    holed = [[None if rng.random() < 0.4 else v for v in row] for row in truth]
    possible = set()
    for filling in itertools.product([None, *range(turns)], repeat=3):
        rows = [[float(m is not None and t >= m) for t in range(turns)] for m in filling]
        if all(h is None or h == v for hs, vs in zip(holed, rows, strict=True) for h, v in zip(hs, vs, strict=True)):
            possible.add(tuple(eq_2_to_4(filling, THREE, turns)))
    each_known = all(len({fill[c] for fill in possible}) == 1 for c in range(3))
    (ledger,) = checklist(items=Checklist((THREE,)))(Group((rollout(holed),)))
    assert ledger.measured == each_known
    if each_known:
        weights = [item.weight for item in THREE]
        assert ledger.total() == pytest.approx(sum(w * r for w, r in zip(weights, next(iter(possible)), strict=True)))


def test_law_permutation_equivariance():
    for assignment in ("trajectory", "stage", "step"):
        reward = checklist(assignment, items=GOLDEN)  # type: ignore[arg-type]
        turned = credit(reward, Group(GROUP.trajectories[::-1]))
        np.testing.assert_allclose(turned[::-1], credit(reward, GROUP), atol=1e-12)


def test_the_task_carries_the_checklist():
    data = [[{"id": "C0", "question": "?", "weight": 1, "focus_on": "tool.content"}]]
    task = Task("t", "", 9, data={"checklist": data})
    episode = replace(rollout([[1.0]]), task=task)
    assert checklist()(Group((episode,)))[0].total() == 1
    with pytest.raises(TaskError, match="task 't' has no checklist"):
        checklist()(GROUP)
    other = replace(episode, task=replace(task, data={"checklist": [*data, *data]}))
    with pytest.raises(ConfigError, match="share one checklist"):
        checklist()(Group((episode, other)))


def test_unknown_words_are_refused():
    with pytest.raises(UnknownNameError, match="no checklist assignment 'turn'"):
        checklist("turn")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="zero"):
        Terms(missing="zero")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="mask"):
        Terms(unreached="mask")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        Terms(holders=0)
