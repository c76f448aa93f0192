"""Advantages by comparing states, by rank, and with negative ones toned down: by hand, by plain loops, and laws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.errors import UsageError
from agentgym.reward import signal
from agentgym.train.advantage import ESTIMATORS, GroupRewards, NegativeScaling, TurnBaseline, coded, estimate
from agentgym.train.credit import Crediting, advantages, answered, observed, price
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

law = settings(deadline=None, max_examples=50)
STATES = sorted(name for name, made in ESTIMATORS.items() if made.states)
RANKS = ["rank", "rank_least"]

# Rollouts of three, two and one turns. The first comes back to state 0; state 2 is seen by nobody else.
REWARD_GT = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0], [5.0, 0.0, 0.0]])
ALIVE_GT = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], bool)
STATES_GT = np.array([[0, 1, 0], [0, 2, -1], [1, -1, -1]], np.int32)
ACTIONS_GT = np.array([[0, 1, 0], [2, 1, -1], [1, -1, -1]], np.int32)


def group(reward_GT=REWARD_GT, alive_GT=ALIVE_GT, **more) -> GroupRewards:
    more = {"states_GT": STATES_GT, "actions_GT": ACTIONS_GT, **more}
    return GroupRewards(np.asarray(reward_GT, float)[:, :, None], np.asarray(alive_GT, bool), ("reward",), **more)


def returns(*values: float | None, **more) -> GroupRewards:
    """A group of one turn each, None being unmeasured."""
    reward_GT = np.array([[0.0 if value is None else value] for value in values])
    known_GTC = np.array([[[value is not None]] for value in values])
    return group(reward_GT, np.ones(reward_GT.shape), measured_GTC=known_GTC, states_GT=None, actions_GT=None, **more)


def advantage(case: GroupRewards, **how) -> np.ndarray:
    (found_GT,) = estimate([case], **how)
    return found_GT


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------ states


def test_gigpo_leave_one_out_by_hand():
    # Returns 6, 1, 5; to go [6 5 3], [1 1], [5]. A_E: 6−3, 1−5.5, 5−3.5.
    # State 0: rollout 0 against {1}; rollout 1 against {6, 3}. State 1: 5 against 5 and back. State 2: alone.
    close(
        advantage(group(), name="gigpo_loo"),
        [[3 + 5, 3 + 0, 3 + 2], [-4.5 + 1 - 4.5, -4.5, 0], [1.5 + 0, 0, 0]],
    )


def test_gigpo_as_published_by_hand():
    # A_E: the mean over the six steps is (3·6 + 2·1 + 5)/6. State 0: mean of 6, 3, 1; state 1: of 5, 5.
    mean, state = 25 / 6, 10 / 3
    close(
        advantage(group(), name="gigpo"),
        [[6 - mean + 6 - state, 6 - mean, 6 - mean + 3 - state], [1 - mean + 1 - state, 1 - mean, 0], [5 - mean, 0, 0]],
    )


def test_rtmc_by_hand():
    # In state 0 action 0 returned 6 and 3, action 2 returned 1: Q 4.5 and 1, V 10/3. In state 1 all did the same.
    close(
        advantage(group(), name="rtmc"),
        [[4.5 - 10 / 3, 0, 4.5 - 10 / 3], [1 - 10 / 3, 0, 0], [0, 0, 0]],
    )


def by_loops(case: GroupRewards, name: str, gamma: float) -> np.ndarray:
    """Return the advantages from the equations, turn by turn."""
    reward, alive = case.reward_GTC[:, :, 0], case.alive_GT
    G, T = alive.shape
    turns = [(g, t) for g in range(G) for t in range(T) if alive[g, t]]
    to_go = {(g, t): sum(gamma ** (u - t) * reward[g, u] for u in range(t, T)) for g, t in turns}
    found = np.zeros((G, T))
    for g, t in turns:
        here = [(h, u) for h, u in turns if case.states_GT[h, u] == case.states_GT[g, t]]
        same = [(h, u) for h, u in here if case.actions_GT[h, u] == case.actions_GT[g, t]]
        others = [to_go[turn] for turn in here if turn[0] != g]
        if name == "gigpo_loo":
            episode = to_go[g, 0] - np.mean([to_go[h, 0] for h in range(G) if h != g])
            found[g, t] = episode + (to_go[g, t] - np.mean(others) if others else 0.0)
        elif name == "gigpo":
            found[g, t] = to_go[g, 0] - np.mean([to_go[h, 0] for h, _ in turns])
            found[g, t] += to_go[g, t] - np.mean([to_go[turn] for turn in here])
        else:
            found[g, t] = np.mean([to_go[turn] for turn in same]) - np.mean([to_go[turn] for turn in here])
    return found


@st.composite
def walks(draw):
    """Groups of 2 to 5 rollouts of 1 to 5 turns among three states with two actions."""
    lengths_G = np.array(draw(st.lists(st.integers(1, 5), min_size=2, max_size=5)))
    alive_GT = np.arange(int(lengths_G.max())) < lengths_G[:, None]
    count = alive_GT.size
    reward = draw(st.lists(st.integers(-8, 8).map(lambda x: x / 4), min_size=count, max_size=count))
    state = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    action = draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))
    codes = [np.where(alive_GT, np.reshape(c, alive_GT.shape), -1).astype(np.int32) for c in (state, action)]
    return group(np.reshape(reward, alive_GT.shape) * alive_GT, alive_GT, states_GT=codes[0], actions_GT=codes[1])


@pytest.mark.parametrize("name", STATES)
@law
@given(case=walks(), gamma=st.sampled_from([1.0, 0.5]))
def test_states_agree_with_plain_loops(name: str, case: GroupRewards, gamma: float):
    close(advantage(case, name=name, gamma=gamma), by_loops(case, name, gamma))


@pytest.mark.parametrize("name", STATES)
@law
@given(case=walks(), data=st.data())
def test_law_permutation_equivariance_of_states(name: str, case: GroupRewards, data: st.DataObject):
    order = data.draw(st.permutations(range(len(case.alive_GT))))
    shuffled = group(
        case.reward_GTC[order, :, 0],
        case.alive_GT[order],
        states_GT=case.states_GT[order],
        actions_GT=case.actions_GT[order],
    )
    close(advantage(shuffled, name=name), advantage(case, name=name)[order])


@pytest.mark.parametrize("name", STATES)
@law
@given(row=st.lists(st.floats(-3, 3), min_size=1, max_size=4), size=st.integers(2, 5))
def test_law_group_of_equals_gets_exactly_nothing_from_states(name: str, row: list[float], size: int):
    states_GT = np.tile(np.arange(len(row), dtype=np.int32), (size, 1))
    case = group(np.tile(row, (size, 1)), np.ones((size, len(row))), states_GT=states_GT, actions_GT=states_GT)
    for scale in ("none", "group", "batch"):
        assert not advantage(case, name=name, scale=scale).any()


def test_a_lone_state_adds_nothing():
    lone_GT = np.arange(9, dtype=np.int32).reshape(3, 3)
    case = group(states_GT=lone_GT, actions_GT=lone_GT)
    close(advantage(case, name="gigpo_loo"), advantage(case, name="rloo"))
    assert not advantage(case, name="rtmc").any()


@pytest.mark.parametrize("name", STATES)
def test_what_is_unmeasured_is_no_visit(name: str):
    """The second rollout's reward is not known: whatever stands there, it is out of every mean and gets 0."""
    known_GTC = np.ones((3, 3, 1), bool)
    known_GTC[1, 1] = False
    actions_GT = np.where(ACTIONS_GT == 2, 0, ACTIONS_GT)
    actions_GT[0, 2] = 2  # two ways to act in state 0 remain
    found = []
    for value in (1.0, 100.0):
        reward_GT = REWARD_GT.copy()
        reward_GT[1, 1] = value
        found.append(advantage(group(reward_GT, measured_GTC=known_GTC, actions_GT=actions_GT), name=name))
    close(found[0], found[1])
    assert not found[0][1].any()
    assert found[0][0].any()


def test_states_and_actions_are_asked_for():
    with pytest.raises(UsageError, match="states_GT is None"):
        advantage(group(states_GT=None), name="gigpo_loo")
    with pytest.raises(UsageError, match="actions_GT is None"):
        advantage(group(actions_GT=None), name="rtmc")
    with pytest.raises(UsageError, match=r"states_GT has shape \(2, 2\)"):
        group(states_GT=np.zeros((2, 2), np.int32))


def test_signatures_become_codes():
    assert coded([["a", "b", "a"], ["b"]]).tolist() == [[0, 1, 0], [1, -1, -1]]


# ------------------------------------------------------------------------------------------------ ranks


@pytest.mark.parametrize("name", RANKS)
def test_golden_vector_of_a_tournament_of_four(name: str):
    close(advantage(returns(9, 2, 5, -1), name=name)[:, 0], np.array([1.5, -0.5, 0.5, -1.5]) * 0.774597 / (1 + 2.3e-6))


def test_equals_share_the_mean_of_their_ranks_or_the_least():
    # Ranks 0, 1.5, 1.5, 3: r = 1, .5, .5, 0, mean .5, sample variance (.25 + .25)/3.
    close(advantage(returns(3, 1, 1, 0), name="rank")[:, 0], np.array([0.5, 0, 0, -0.5]) / (math.sqrt(0.5 / 3) + 1e-6))
    # Least ranks 1, 2, 2, 4: r = 1, 2/3, 2/3, 0, mean 7/12.
    reward = np.array([1, 2 / 3, 2 / 3, 0])
    close(advantage(returns(3, 1, 1, 0), name="rank_least")[:, 0], (reward - 7 / 12) / (reward.std(ddof=1) + 1e-6))


@pytest.mark.parametrize("name", RANKS)
@law
@given(values=st.lists(st.integers(-4, 4), min_size=2, max_size=6), data=st.data())
def test_laws_of_ranks(name: str, values: list[int], data: st.DataObject):
    """Only the order counts, the order of the rollouts does not, equals get exactly 0, the unmeasured nothing."""
    plain = advantage(returns(*values), name=name)[:, 0]
    close(advantage(returns(*(10.0 * v**3 for v in values)), name=name)[:, 0], plain)
    order = data.draw(st.permutations(range(len(values))))
    close(advantage(returns(*(values[i] for i in order)), name=name)[:, 0], plain[order])
    with_unknown = advantage(returns(None, *values), name=name)[:, 0]
    close(with_unknown, [0, *plain])
    assert not advantage(returns(*[values[0]] * 3), name=name).any()
    assert not advantage(returns(values[0], None), name=name).any()


def test_a_difference_of_rounding_is_no_rank():
    assert not advantage(returns(0.1 + 0.2, 0.3), name="rank").any()


# ------------------------------------------------------------------------------------------------ negative scaling


@pytest.mark.parametrize(
    ("pair", "solved", "factor"),
    [
        ((0.9, 0.5), [0, 0, 0, 0], 0.9),
        ((0.9, 0.5), [1, 0, 0, 0], 1.0),
        ((0.5, 1.5), [1, 0, 0, 0], 0.875),
        ((1.4, -0.5), [1, 1, 1, 0], 1.0),
        ((1.4, -0.5), [1, 1, 1, 1], 0.9),
        ((0.5, 2.0), [math.nan, 0, 0, 0], 0.5),
        ((0.5, 1.0), [math.nan, 1, 0, 0, 0], 0.75),
        ((0.5, 1.0), [math.nan, math.nan], 1.0),
    ],
)
def test_negative_advantages_are_toned_down_by_the_share_solved(pair, solved, factor: float):
    assert NegativeScaling(*pair).factor(np.array(solved, float)) == pytest.approx(factor)


def test_positive_advantages_stay():
    solved_G = np.array([1.0, 0.0, 0.0, 0.0])
    case = returns(1, 0, 0, 0, solved_G=solved_G)
    found = advantage(case, name="grpo", negative=NegativeScaling(0.5, 1.0))[:, 0]
    plain = advantage(case, name="grpo")[:, 0]
    close(found, [plain[0], *(0.75 * plain[1:])])
    assert plain.sum() == pytest.approx(0)
    assert found.sum() > 0.1  # the sum over the group is no longer 0, by design


@pytest.mark.parametrize("pair", [(-0.1, 1.0), (0.5, -1.0), (math.nan, 0.0), (1.0, math.inf)])
def test_a_scaling_that_would_reward_failure_is_refused(pair):
    with pytest.raises(UsageError, match="negative scaling goes from"):
        NegativeScaling(*pair)


def test_successes_are_asked_for():
    with pytest.raises(UsageError, match="solved_G is None"):
        advantage(returns(1, 0), name="rloo", negative=NegativeScaling(0.5, 1.0))


# ------------------------------------------------------------------------------------------------ from trajectories


def episode(name: str, seen: str, said: str, won: float | None) -> Trajectory:
    """An episode that saw these letters and answered with those."""
    turns = tuple(
        Turn((text_message("tool", o),), empty_sample(text_message("assistant", a)), np.empty(0, np.int32))
        for o, a in zip(seen, said, strict=True)
    )
    signals = (Signal("won", won, "world"),)
    return Trajectory(name, "g", Task("w/train/0", "", 9), turns, (), StopReason.DONE, signals, 0)


def test_states_are_what_a_turn_saw_and_actions_what_it_said():
    trajectory = episode("0", "ab", "xy", 1.0)
    assert (observed(trajectory), answered(trajectory)) == (["a", "b"], ["x", "y"])
    won = price(signal("won", scope="trajectory"), [Group((trajectory, episode("1", "ac", "zy", 0.0)))])
    found = [
        advantages(won, Crediting(name), baseline=TurnBaseline(), values=[None])[0] for name in ("gigpo_loo", "rtmc")
    ]
    close(found[0], [[2, 1], [-2, -1]])  # state a is shared, b and c are not
    close(found[1], [[0.5, 0], [-0.5, 0]])
    blind = replace(Crediting("gigpo_loo"), state=lambda t: [len(t.turns)] * len(t.turns))
    close(advantages(won, blind, baseline=TurnBaseline(), values=[None])[0], [[2, 2], [-2, -2]])


def test_success_is_read_from_its_signal():
    group_ = Group(tuple(episode(str(i), "a", "x", won) for i, won in enumerate([1.0, 0.0, 0.0, None])))
    won = price(signal("won", scope="trajectory"), [group_])
    crediting = Crediting("dr_grpo", negative=NegativeScaling(0.25, 0.75))
    (found,) = advantages(won, crediting, baseline=TurnBaseline(), values=[None])
    close(found[:, 0], [2 / 3, -1 / 6, -1 / 6, 0])  # p̂ = 1/3, λ = ½


# ------------------------------------------------------------------------------------------------ gate, then normalise


@law
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(0, 8).map(lambda x: x / 8)), min_size=3, max_size=6))
def test_law_gate_before_normalise(pairs: list[tuple[float, float]]):
    """What a gate took away is in nobody's mean: those behind a shut gate could have had anything."""
    gated = returns(*(won + won * think for won, think in pairs))
    other = returns(*(won + won * (think if won else 1 - think) for won, think in pairs))
    for name in ("grpo", "rloo", "dr_grpo", "rank"):
        close(advantage(gated, name=name), advantage(other, name=name))


def test_normalising_first_would_leak_what_the_gate_takes_away():
    """The failed one's thinking moves the others' advantages, though it is never paid."""
    won = np.array([1.0, 1.0, 0.0])
    first, second = (
        won * advantage(returns(*thinking), name="dr_grpo")[:, 0] for thinking in ((0.2, 0.4, 0.0), (0.2, 0.4, 0.9))
    )
    assert not np.allclose(first, second)
