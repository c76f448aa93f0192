"""Advantages: small arrays worked by hand, laws that hold for every group, and exact gradients."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentgym.errors import UnknownNameError, UsageError
from agentgym.train.advantage import (
    ESTIMATORS,
    Cells,
    GroupRewards,
    TurnBaseline,
    estimate,
    has_signal,
    rest_known,
    returns_to_go,
    scaled,
    turn_leave_one_out,
)

NAN = float("nan")

# Three rollouts of three, two and one turns.
REWARD_GT = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0], [5.0, 0.0, 0.0]])
ALIVE_GT = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]], bool)


def group(reward_GT=REWARD_GT, alive_GT=ALIVE_GT, **more):
    """A group of one component."""
    return GroupRewards(np.asarray(reward_GT, float)[:, :, None], np.asarray(alive_GT, bool), ("reward",), **more)


def advantage(group, **how):
    (advantage_GT,) = estimate([group], **how)
    return advantage_GT


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------ worked by hand


def test_return_to_go_discounts_by_turn():
    close(returns_to_go(REWARD_GT), [[6, 5, 3], [1, 1, 0], [5, 0, 0]])
    close(returns_to_go(REWARD_GT, 0.5), [[2.75, 3.5, 3], [0.5, 1, 0], [5, 0, 0]])
    close(returns_to_go(REWARD_GT, 0.0), REWARD_GT)


def test_dr_grpo_subtracts_the_group_mean():
    close(advantage(group(), name="dr_grpo"), [[2, 2, 2], [-3, -3, 0], [1, 0, 0]])


def test_grpo_divides_by_the_sample_deviation_of_the_returns():
    std = math.sqrt((4 + 9 + 1) / 2) + 1e-6
    close(advantage(group(), name="grpo"), np.array([[2, 2, 2], [-3, -3, 0], [1, 0, 0]]) / std)


def test_rloo_subtracts_the_mean_of_the_others():
    close(advantage(group(), name="rloo"), [[3, 3, 3], [-4.5, -4.5, 0], [1.5, 0, 0]])


def test_discounted_trajectory_return():
    close(advantage(group(), name="dr_grpo", gamma=0.5)[:, 0], np.array([2.75, 0.5, 5]) - 2.75)


def test_turn_rtg_loo_compares_with_the_others_at_the_turn():
    # G = [[6, 5, 3], [1, 1, .], [5, ., .]]; turn 0: others' means 3, 5.5, 3.5; turn 1: 1 and 5; turn 2: nobody.
    close(advantage(group(), name="turn_rtg_loo"), [[3, 4, 3], [-4.5, -4, 0], [1.5, 0, 0]])


def test_moving_average_stands_in_for_missing_siblings():
    prior_T = np.array([100.0, 10.0, 7.0])
    # Of three, half is one: the average speaks only where a rollout is alone.
    close(
        turn_leave_one_out(Cells(REWARD_GT, ALIVE_GT, prior_T=prior_T)),
        [[3, 4, -4], [-4.5, -4, 0], [1.5, 0, 0]],
    )
    # Of four, half is two: with one sibling left the average is the second.
    reward_GT = np.vstack([REWARD_GT, np.zeros(3)])
    alive_GT = np.vstack([ALIVE_GT, [True, False, False]])
    found_GT = turn_leave_one_out(Cells(reward_GT, alive_GT, prior_T=prior_T))
    close(found_GT[:, 0], [6 - 2, 1 - 11 / 3, 5 - 7 / 3, 0 - 4])
    close(found_GT[:2, 1], [5 - (1 + 10) / 2, 1 - (5 + 10) / 2])
    close(found_GT[0, 2], 3 - 7)


def test_reinforce_pp_whitens_over_all_turns_of_the_batch():
    returns = np.array([6, 5, 3, 1, 1, 5, 2], float)  # the last from the second group
    lone = group([[2.0]], [[1]])
    first_GT, second_GT = estimate([group(), lone], name="reinforce_pp")
    white = (returns - returns.mean()) / (returns.std() + 1e-6)
    close(first_GT[ALIVE_GT], white[:6])
    close(second_GT, [[white[6]]])
    assert not first_GT[~ALIVE_GT].any()


def test_gae_by_turns():
    values_GT = np.array([[1.0, 2.0, 0.5], [0.5, 1.0, 9.0], [2.0, 9.0, 9.0]])
    found_GT = advantage(group(values_GT=values_GT), name="gae", gamma=0.5, lam=0.5)
    # deltas: rollout 0: 1+1−1=1, 2+.25−2=.25, 3−.5=2.5; rollout 1: 0+.5−.5=0, 1−1=0; rollout 2: 5−2=3.
    close(found_GT, [[1 + 0.0625 + 2.5 / 16, 0.25 + 0.625, 2.5], [0, 0, 0], [3, 0, 0]])


def test_gae_with_lambda_one_is_return_minus_value():
    values_GT = np.array([[1.0, 2.0, 0.5], [0.5, 1.0, 9.0], [2.0, 9.0, 9.0]])
    found_GT = advantage(group(values_GT=values_GT), name="gae")
    close(found_GT[ALIVE_GT], (returns_to_go(REWARD_GT) - values_GT)[ALIVE_GT])


@pytest.mark.parametrize("name", ["gae", "turn_rtg_loo"])
def test_bootstrap_follows_a_truncation_but_not_a_termination(name):
    zeros_GT = np.zeros((3, 3))
    ends = {"bootstrap_G": np.array([10.0, 10.0, 10.0]), "truncated_G": np.array([False, True, False])}
    found_GT = advantage(group(values_GT=zeros_GT, **ends), name=name, gamma=0.5)
    paid_GT = REWARD_GT.copy()
    paid_GT[1, 1] += 5.0
    close(found_GT, advantage(group(paid_GT, values_GT=zeros_GT), name=name, gamma=0.5))


def test_trajectory_estimators_do_not_read_the_bootstrap():
    ends = {"bootstrap_G": np.full(3, 10.0), "truncated_G": np.ones(3, bool)}
    close(advantage(group(**ends), name="rloo"), advantage(group(), name="rloo"))


def test_scale_divides_by_one_spread_per_group_or_batch():
    other = group([[4.0], [0.0]], [[1], [1]])
    plain = estimate([group(), other], name="rloo")
    cells = [plain[0][ALIVE_GT], plain[1].ravel()]
    by_group = estimate([group(), other], name="rloo", scale="group")
    by_batch = estimate([group(), other], name="rloo", scale="batch")
    rms = math.sqrt(np.mean(np.concatenate(cells) ** 2))
    for i in range(2):
        close(by_group[i], plain[i] / math.sqrt(np.mean(cells[i] ** 2)))
        close(by_batch[i], plain[i] / rms)


def two_components(**more):
    """A large outcome and a small process reward, for two rollouts of two turns."""
    reward_GTC = np.zeros((2, 2, 2))
    reward_GTC[0, 1, 0] = 100.0
    reward_GTC[1, :, 1] = [0.1, 0.2]
    return GroupRewards(reward_GTC, np.ones((2, 2), bool), ("outcome", "process"), **more)


def test_by_component_normalises_each_before_the_sum():
    found_GT = advantage(two_components(weights=(1.0, 0.5)), name="rloo", by_component=True, scale="group")
    close(found_GT, [[1 - 0.5, 1 - 0.5], [-1 + 0.5, -1 + 0.5]])
    summed_GT = advantage(two_components(weights=(1.0, 0.5)), name="rloo", scale="group")
    close(summed_GT, [[1, 1], [-1, -1]])


def test_gdpo_is_grpo_by_component_with_batch_scale():
    # Each part is ±√½ after its own normalisation: 2·√½ from one group, 4·√½ from the other.
    case = [two_components(weights=(3.0, 1.0)), two_components(weights=(5.0, 1.0))]
    found = estimate(case, name="grpo", by_component=True, scale="batch")
    unit = np.sqrt((2**2 + 4**2) / 2)
    close(found[0], np.array([[2, 2], [-2, -2]]) / unit)
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-5)  # but for ε


# ------------------------------------------------------------------------------------------------ what is not known


def measured(unknown):
    known_GTC = np.ones((3, 3, 2), bool)
    known_GTC[unknown] = False
    return known_GTC


def three_of_two(**more):
    reward_GTC = np.stack([REWARD_GT, 10 * REWARD_GT[::-1] * ALIVE_GT], axis=2)
    return GroupRewards(reward_GTC, ALIVE_GT, ("a", "b"), **more)


def test_unmeasured_component_of_a_trajectory_leaves_the_rest_alone():
    known_GTC = measured((1, slice(None), 1))
    found_GT = advantage(three_of_two(measured_GTC=known_GTC), name="rloo")
    a_GT = advantage(group(), name="rloo")
    # b of the other two: returns 50 and 10 (each the other's whole baseline).
    close(found_GT - a_GT, [[40, 40, 40], [0, 0, 0], [-40, 0, 0]])


def test_unmeasured_turn_hides_what_comes_before_it_only():
    known_GTC = measured((0, 1, 0))
    cells = Cells(REWARD_GT, ALIVE_GT, known_GTC[:, :, 0])
    close(rest_known(cells), [[0, 0, 1], [1, 1, 0], [1, 0, 0]])
    found_GT = turn_leave_one_out(cells)
    close(found_GT, [[0, 0, 3], [1 - 5, 1, 0], [5 - 1, 0, 0]])


@pytest.mark.parametrize("name", ["rloo", "grpo", "dr_grpo", "turn_rtg_loo", "reinforce_pp"])
def test_what_stands_in_an_unmeasured_cell_does_not_matter(name):
    known_GTC = measured((0, slice(None), 0))
    with_nan = three_of_two(measured_GTC=known_GTC)
    with_nan.reward_GTC[0, :, 0] = NAN
    for scale in ("none", "group", "batch"):
        for by_component in (False, True):
            how = {"name": name, "scale": scale, "by_component": by_component}
            found_GT = advantage(with_nan, **how)
            assert np.isfinite(found_GT).all()
            close(found_GT, advantage(three_of_two(measured_GTC=known_GTC), **how))


def test_sum_with_a_critic_is_unmeasured_where_a_part_is():
    critic = {"values_GT": np.ones((3, 3))}
    found_GT = advantage(three_of_two(measured_GTC=measured((0, 2, 1)), **critic), name="gae")
    full_GT = advantage(three_of_two(**critic), name="gae")
    assert not found_GT[0].any()
    close(found_GT[1:], full_GT[1:])
    ignored = advantage(three_of_two(measured_GTC=measured((0, 2, 1)), weights=(1.0, 0.0), **critic), name="gae")
    close(ignored, advantage(group(**critic), name="gae"))


def test_rollout_without_turns_takes_no_part():
    reward_GT, alive_GT = np.vstack([REWARD_GT, np.zeros(3)]), np.vstack([ALIVE_GT, np.zeros(3, bool)])
    for name in ("rloo", "grpo", "dr_grpo", "turn_rtg_loo"):
        found_GT = advantage(group(reward_GT, alive_GT), name=name)
        close(found_GT, np.vstack([advantage(group(), name=name), np.zeros(3)]))


# ------------------------------------------------------------------------------------------------ laws

law = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
COMPARING = sorted(name for name, made in ESTIMATORS.items() if made.compares and not made.states)
COMPARING_STATES = sorted(name for name, made in ESTIMATORS.items() if made.states)
WITHOUT_CRITIC = [*COMPARING, "reinforce_pp"]
rewards = st.floats(-10, 10, allow_nan=False).map(lambda x: round(x, 3))


@st.composite
def groups(draw, components=1):
    """Groups of 2 to 5 rollouts of 1 to 5 turns."""
    lengths_G = np.array(draw(st.lists(st.integers(1, 5), min_size=2, max_size=5)))
    turns = int(lengths_G.max())
    alive_GT = np.arange(turns) < lengths_G[:, None]
    count = len(lengths_G) * turns * components
    flat = draw(st.lists(rewards, min_size=count, max_size=count))
    reward_GTC = np.array(flat).reshape(len(lengths_G), turns, components) * alive_GT[:, :, None]
    return GroupRewards(reward_GTC, alive_GT, tuple("abc"[:components]))


@pytest.mark.parametrize("name", WITHOUT_CRITIC)
@law
@given(case=groups(), data=st.data())
def test_order_of_the_rollouts_does_not_matter(name, case, data):
    order = data.draw(st.permutations(range(len(case.alive_GT))))
    shuffled = GroupRewards(case.reward_GTC[order], case.alive_GT[order], case.components)
    np.testing.assert_allclose(advantage(shuffled, name=name), advantage(case, name=name)[order], atol=1e-4)


@pytest.mark.parametrize("name", [*WITHOUT_CRITIC, "gae"])
@law
@given(case=groups())
def test_turns_that_were_not_reached_get_nothing(name, case):
    values_GT = np.ones(case.alive_GT.shape) if name == "gae" else None
    case = GroupRewards(case.reward_GTC, case.alive_GT, case.components, values_GT=values_GT)
    for scale in ("none", "group", "batch"):
        found_GT = advantage(case, name=name, gamma=0.9, lam=0.8, scale=scale)
        assert found_GT.shape == case.alive_GT.shape
        assert not found_GT[~case.alive_GT].any()


@pytest.mark.parametrize("name", COMPARING)
@pytest.mark.parametrize("scale", ["none", "group", "batch"])
@law
@given(row=st.lists(rewards, min_size=1, max_size=5), size=st.integers(2, 6))
def test_group_of_equals_carries_exactly_no_gradient(name, scale, row, size):
    case = group(np.tile(row, (size, 1)), np.ones((size, len(row)), bool))
    baseline = TurnBaseline()
    baseline.update([group(np.full((2, 5), 7.0), np.ones((2, 5), bool))])
    found_GT = advantage(case, name=name, scale=scale, baseline=baseline)
    assert not has_signal(found_GT)


def test_rounding_is_no_signal():
    case = group([[0.1, 0.2], [0.3, 0.0], [0.2, 0.1]], np.ones((3, 2), bool))
    for name in ("rloo", "grpo", "dr_grpo"):
        assert not has_signal(advantage(case, name=name, scale="group"))
    assert has_signal(advantage(case, name="turn_rtg_loo"))
    # Components that cancel: 0.1 + 0.2 against 0.3.
    opposed_GTC = np.array([[[0.1, 0.2, -0.3]], [[0.0, 0.0, 0.0]]])
    opposed = GroupRewards(opposed_GTC, np.ones((2, 1), bool), ("a", "b", "c"))
    assert not has_signal(advantage(opposed, name="rloo", scale="group"))


@pytest.mark.parametrize("name", ["rloo", "dr_grpo", "turn_rtg_loo"])
@law
@given(case=groups(), shift=rewards)
def test_adding_the_same_to_every_return_changes_nothing(name, case, shift):
    # At turn 0, which all reach; what is paid there is in no later return-to-go.
    shifted_GTC = case.reward_GTC.copy()
    shifted_GTC[:, 0] += shift
    shifted = GroupRewards(shifted_GTC, case.alive_GT, case.components)
    np.testing.assert_allclose(advantage(shifted, name=name), advantage(case, name=name), atol=1e-9)


@pytest.mark.parametrize("name", ["rloo", "dr_grpo", "turn_rtg_loo"])
@law
@given(case=groups(components=3), weights=st.tuples(rewards, rewards, rewards))
def test_sum_of_the_components_is_the_component_of_the_sum(name, case, weights):
    several = GroupRewards(case.reward_GTC, case.alive_GT, case.components, weights)
    summed = group(case.reward_GTC @ np.array(weights), case.alive_GT)
    np.testing.assert_allclose(advantage(several, name=name), advantage(summed, name=name), atol=1e-8)


@law
@given(case=groups(components=2), data=st.data())
def test_unmeasured_component_leaves_the_other_components_untouched(case, data):
    known_GTC = np.ones(case.reward_GTC.shape, bool)
    known_GTC[data.draw(st.integers(0, len(case.alive_GT) - 1)), :, 1] = False
    for name in WITHOUT_CRITIC:
        for weights in ((1.0, 0.0), (1.0, 1.0)):
            partly = GroupRewards(case.reward_GTC, case.alive_GT, case.components, weights, known_GTC)
            first = group(case.reward_GTC[:, :, 0], case.alive_GT)
            second = GroupRewards(
                case.reward_GTC[:, :, 1:], case.alive_GT, ("b",), (weights[1],), measured_GTC=known_GTC[:, :, 1:]
            )
            expected_GT = advantage(first, name=name, by_component=True)
            expected_GT = expected_GT + advantage(second, name=name, by_component=True)
            np.testing.assert_allclose(advantage(partly, name=name, by_component=True), expected_GT, atol=1e-9)


@law
@given(case=groups())
def test_leading_axes_are_independent_groups(case):
    reward_GT, alive_GT = case.reward_GTC[:, :, 0], case.alive_GT
    many = Cells(np.stack([reward_GT, 2 * reward_GT]), np.stack([alive_GT, alive_GT]))
    for name in COMPARING:
        found_BGT = ESTIMATORS[name].advantage(many)
        for factor in (1, 2):
            np.testing.assert_array_equal(
                found_BGT[factor - 1], ESTIMATORS[name].advantage(Cells(factor * reward_GT, alive_GT))
            )


def test_groups_of_different_lengths_share_a_batch():
    long = group(np.ones((2, 7)) * [[1], [0]], np.ones((2, 7), bool))
    found = estimate([group(), long], scale="batch")
    assert [a.shape for a in found] == [(3, 3), (2, 7)]
    close(np.mean(np.concatenate([found[0][ALIVE_GT], found[1].ravel()]) ** 2), 1.0)
    assert estimate([]) == []


# ------------------------------------------------------------------------------------------------ moving average


def test_moving_average_weighs_by_rollouts():
    baseline = TurnBaseline(decay=0.5)
    baseline.update([group()])
    close(baseline.values(4, component="reward"), [4, 3, 3, 0])
    baseline.update([group([[1.0], [2.0]], [[1], [1]])])
    # Turn 0: (12·½ + 3) / (3·½ + 2); turns that were not seen keep what they had.
    close(baseline.values(3, component="reward"), [9 / 3.5, 3, 3])
    assert baseline.value(0, component="reward") == pytest.approx(9 / 3.5)
    assert baseline.value(0, component="reward", family="other") == 0.0
    assert baseline.value(9, component="reward") == 0.0


def test_moving_average_counts_a_batch_once_and_keeps_families_apart():
    together, one_by_one = TurnBaseline(decay=0.5), TurnBaseline(decay=1.0)
    batch = [group(), group(2 * REWARD_GT), group([[8.0]], [[1]], family="web")]
    together.update(batch)
    for one in batch:
        one_by_one.update([one])
    close(together.values(3, component="reward"), one_by_one.values(3, component="reward"))
    assert together.value(0, component="reward", family="web") == 8.0


def test_moving_average_leaves_out_what_is_not_known():
    baseline = TurnBaseline()
    baseline.update([three_of_two(measured_GTC=measured((0, 1, 0)))])
    close(baseline.values(3, component="a"), [3, 1, 3])


def test_estimate_does_not_touch_the_average_and_never_sees_its_own_group():
    baseline = TurnBaseline()
    close(advantage(group(), baseline=baseline), advantage(group()))
    assert baseline.state()["tables"] == []
    baseline.update([group()])
    close(advantage(group(), baseline=baseline)[0], [3, 4, 0])


def test_moving_average_survives_a_checkpoint():
    baseline = TurnBaseline(decay=0.5, gamma=0.9)
    baseline.update([three_of_two(), group(family="web")])
    again = TurnBaseline.from_state(json.loads(json.dumps(baseline.state())))
    assert again.state() == baseline.state()
    for one in (baseline, again):
        one.update([group()])
    assert again.state() == baseline.state()


# ------------------------------------------------------------------------------------------------ refusals


def test_unknown_name_names_the_nearest():
    with pytest.raises(UnknownNameError, match="no advantage estimator 'turn_rtg'; did you mean 'turn_rtg_loo'"):
        estimate([group()], name="turn_rtg")
    with pytest.raises(UnknownNameError, match="no advantage scale 'turn'"):
        estimate([group()], scale="turn")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"gamma": 1.1}, {"gamma": -0.1}, {"gamma": NAN}, {"lam": 2.0}])
def test_discounts_lie_between_zero_and_one(wrong):
    with pytest.raises(UsageError, match=r"must lie in \[0, 1\]"):
        estimate([group()], **wrong)


@pytest.mark.parametrize("name", [*COMPARING, *COMPARING_STATES])
def test_group_of_one_is_refused_where_siblings_are_compared(name):
    with pytest.raises(UsageError, match="compares siblings"):
        advantage(group([[1.0]], [[1]]), name=name)


def test_group_of_one_with_a_moving_average():
    baseline = TurnBaseline()
    baseline.update([group()])
    close(advantage(group([[1.0]], [[1]]), baseline=baseline), [[-3]])


@pytest.mark.parametrize(
    ("case", "how", "says"),
    [
        (lambda: group(), {"name": "gae"}, "needs a critic"),
        (lambda: three_of_two(values_GT=np.zeros((3, 3))), {"name": "gae", "by_component": True}, "weighted sum"),
        (lambda: group(), {"gamma": 0.5, "baseline": TurnBaseline()}, "gamma=1.0"),
        (lambda: group(np.where(ALIVE_GT, NAN, 0)), {}, "rollout 0, turn 0. is not finite"),
        (lambda: group(REWARD_GT + 1), {}, "rollout 1, turn 2. stands on a turn that was not reached"),
        (lambda: group(alive_GT=ALIVE_GT[:, ::-1], reward_GT=0 * REWARD_GT), {}, "gap"),
        (lambda: group(values_GT=np.zeros((3, 2))), {}, r"values_GT has shape \(3, 2\)"),
        (lambda: group(weights=(1.0, 2.0)), {}, "2 weights for 1 components"),
        (lambda: GroupRewards(np.zeros((3, 3, 2)), ALIVE_GT, ("a",)), {}, "one column for each"),
        (lambda: group(np.zeros((0, 3)), np.zeros((0, 3), bool)), {}, "needs a rollout"),
    ],
)
def test_impossible_calls_are_refused(case, how, says):
    with pytest.raises(UsageError, match=says):
        advantage(case(), **how)


def test_importing_needs_no_torch():
    code = "import sys, agentgym.train.advantage; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------------------ exact gradients


@pytest.fixture(scope="module")
def benchmark():
    """The benchmark script as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / "estimators.py"
    spec = importlib.util.spec_from_file_location("benchmark_estimators", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


PROCESSES = ["stop_dense", "stop_terminal", "work_submit"]
UNBIASED = ["rloo", "turn_rtg_loo", "turn_rtg_loo, no average", "gae, exact values", "gae, zero values"]
BIASED = ["per-turn-index †", "step-weighted mean †", "lone turn zeroed †"]


@pytest.mark.parametrize("process", PROCESSES)
def test_exact_gradient_agrees_with_finite_differences(benchmark: ModuleType, process):
    process = getattr(benchmark, process)()
    assert sum(p for p, _, _ in benchmark.trajectories(process)) == pytest.approx(1.0)
    np.testing.assert_allclose(benchmark.exact_gradient(process), benchmark.difference_gradient(process), atol=1e-8)


@pytest.mark.parametrize("process", PROCESSES)
def test_estimators_against_the_exact_gradient(benchmark: ModuleType, process):
    """Three standard errors at 20 000 groups; the same test throws out the estimators known to be biased."""
    names = dict.fromkeys([*UNBIASED, "dr_grpo", *BIASED])
    rows = benchmark.measure(
        getattr(benchmark, process)(), groups=20_000, seed=0, rows={name: benchmark.ROWS[name] for name in names}
    )
    found = {row.estimator: row for row in rows}
    for name in UNBIASED:
        assert found[name].z < 3.0, name
    for name in BIASED:
        assert found[name].z > 5.0, name
    dr_grpo = found["dr_grpo"]
    assert abs(dr_grpo.share - 7 / 8) < 3 * dr_grpo.share_se
    assert found["turn_rtg_loo"].variance_ratio < benchmark.CEILINGS.get(process, 1.2)


def test_stored_results_uphold_the_claims(benchmark: ModuleType):
    stored = json.loads(benchmark.RESULTS.read_text(encoding="utf-8"))
    assert stored["failures"] == []
    assert stored["groups"] == 200_000
    tables = {name: [benchmark.Row(**row) for row in rows] for name, rows in stored["tables"].items()}
    assert benchmark.failures(tables) == []
    assert sorted(tables) == sorted(PROCESSES)


def test_quick_benchmark_runs(benchmark: ModuleType, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "SWEEP", benchmark.SWEEP[:1])
    assert benchmark.main(["--quick", "--out", str(tmp_path / "estimators.json")]) == 0
    assert "| turn_rtg_loo |" in capsys.readouterr().out
    assert json.loads((tmp_path / "estimators.json").read_text(encoding="utf-8"))["groups"] == 20_000


def test_scaled_leaves_zeros():
    assert not scaled(np.zeros((2, 2)), np.ones((2, 2), bool)).any()
