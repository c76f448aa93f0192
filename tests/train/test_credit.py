from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from agentgym.reward import Shaper, signal
from agentgym.train.advantage import TurnBaseline
from agentgym.train.credit import Crediting, Priced, advantages, group_rewards, price, value_targets, viable
from agentgym.types import Group, Signal, StopReason, Trajectory

Make = Callable[..., Trajectory]
REWARD: Shaper = signal("won", scope="trajectory") + 0.25 * signal("progress", scope="turn")


def episode(
    make: Make, progress: list[float | None], won: float | None, *, stop: StopReason = StopReason.DONE, name: str = "0"
) -> Trajectory:
    signals = [Signal("progress", value, "w", turn=t, cause="?") for t, value in enumerate(progress)]
    signals.append(Signal("won", won, "w", cause="?"))
    return make([(2, 1)] * len(progress), stop=stop, signals=signals, name=f"g/{name}")


@pytest.fixture
def pair(trajectory: Make) -> Group:
    """One of three turns that won, one of two that was cut."""
    won = episode(trajectory, [0.5, 0.0, 0.5], 1.0, name="0")
    cut = episode(trajectory, [-1.0, 0.25], 0.0, stop=StopReason.MAX_TURNS, name="1")
    return Group((won, cut), 4)


def priced(*groups: Group, shaper: Shaper = REWARD) -> list[Priced]:
    return price(shaper, groups)


def test_ledgers_become_a_grid_with_their_weights_taken_out(pair: Group) -> None:
    (p,) = priced(pair)
    grid = group_rewards(p)
    assert grid.components == ("won", "progress")
    assert grid.weights == (1.0, 0.25)
    assert grid.reward_GTC[:, :, 0].tolist() == [[0, 0, 1], [0, 0, 0]]  # on the last turn
    assert grid.reward_GTC[:, :, 1].tolist() == [[0.5, 0, 0.5], [-1, 0.25, 0]]
    assert grid.alive_GT.tolist() == [[True] * 3, [True, True, False]]
    assert grid.truncated_G is not None
    assert grid.truncated_G.tolist() == [False, True]
    assert grid.family == "world/train"
    assert grid.values_GT is None
    assert grid.bootstrap_G is None


def test_weight_times_reward_is_what_the_ledgers_credit(pair: Group) -> None:
    (p,) = priced(pair)
    grid = group_rewards(p)
    for g, ledger in enumerate(p.ledgers):
        turns = len(p.trajectories[g].turns)
        np.testing.assert_allclose(grid.reward_GTC[g, :turns].T * np.array(grid.weights)[:, None], ledger.credit_CT())


def test_the_unmeasured_is_masked_and_not_a_zero(trajectory: Make) -> None:
    group = Group((episode(trajectory, [0.5, None], None), episode(trajectory, [0.5, 0.5], 1.0, name="1")))
    grid = group_rewards(priced(group)[0])
    assert grid.measured_GTC is not None
    assert grid.measured_GTC[0].tolist() == [[True, True], [False, False]]
    assert grid.measured_GTC[1].all()
    assert np.isfinite(grid.reward_GTC).all()


def test_a_critics_values_are_split_into_before_and_after(pair: Group) -> None:
    said = np.arange(8.0).reshape(2, 4)
    grid = group_rewards(priced(pair)[0], said)
    assert grid.values_GT is not None
    assert grid.values_GT.tolist() == said[:, :3].tolist()
    assert grid.bootstrap_G is not None
    assert grid.bootstrap_G.tolist() == [3.0, 7.0]


def test_a_weight_of_zero_or_one_that_differs_leaves_the_amount_as_it_is(pair: Group) -> None:
    shaper = 0.0 * signal("won", scope="trajectory") + signal("progress", scope="turn")
    grid = group_rewards(priced(pair, shaper=shaper)[0])
    assert np.isfinite(grid.reward_GTC).all()
    assert not grid.reward_GTC[:, :, 0].any()


def test_by_component_the_weights_still_say_what_matters(trajectory: Make) -> None:
    """Each component is brought to spread 1 and then weighed, however large its raw values are."""
    group = Group((episode(trajectory, [1000.0], 1.0), episode(trajectory, [-1000.0], 1.0, name="1")))
    other = Group((episode(trajectory, [0.0], 1.0), episode(trajectory, [0.0], 0.0, name="1")))
    crediting = Crediting("rloo", by_component=True, scale="batch")
    first, second = advantages(priced(group, other), crediting, baseline=TurnBaseline(), values=[None, None])
    np.testing.assert_allclose(first[:, 0] / second[:, 0], [0.25, 0.25])


def test_the_baseline_is_read_before_it_takes_the_batch_in(trajectory: Make) -> None:
    alone = episode(trajectory, [0.0, 0.0, 1.0], 1.0)
    short = episode(trajectory, [0.0], 0.0, name="1")
    baseline = TurnBaseline()
    crediting = Crediting("turn_rtg_loo")
    first, again = (
        advantages(priced(Group((alone, short))), crediting, baseline=baseline, values=[None])[0] for _ in range(2)
    )
    assert first[0, 2] == pytest.approx(1.25)  # alone there, and nothing known
    assert again[0, 2] == pytest.approx(0.0)  # what is usual there is known now


def test_targets_of_the_value_head_are_returns_whatever_the_advantages_are_divided_by(pair: Group) -> None:
    said = np.array([[0.1, 0.2, 0.3, 0.0], [0.4, 0.5, 0.0, 0.0]])
    for scale in ("none", "batch", "group"):
        crediting = Crediting("gae", scale=scale)  # type: ignore[arg-type]
        (target,) = value_targets(priced(pair), crediting, values=[said])
        assert target is not None
        np.testing.assert_allclose(target[0], [1.25, 1.125, 1.125])
        np.testing.assert_allclose(target[1, :2], [-0.1875, 0.0625])
    assert value_targets(priced(pair), Crediting("rloo"), values=[None]) == [None]


def test_a_reward_that_is_an_advantage_is_taken_as_it_is_paid(trajectory: Make) -> None:
    """No baseline, no sum over turns, and no say for what was not measured."""
    group = Group((episode(trajectory, [0.5, -0.25, 1.0], 0.0), episode(trajectory, [None, -0.5], 1.0, name="1")))
    paid = price(2.0 * signal("progress", scope="turn"), [group])
    (found,) = advantages(paid, Crediting("as_paid", gamma=0.5), baseline=TurnBaseline(gamma=0.5), values=[None])
    assert found.tolist() == [[1.0, -0.5, 2.0], [0.0, -1.0, 0.0]]
    alone = price(signal("progress", scope="turn"), [Group(group.trajectories[:1])])
    (found,) = advantages(alone, Crediting("as_paid"), baseline=TurnBaseline(), values=[None])
    assert found.tolist() == [[0.5, -0.25, 1.0]]


def test_only_what_says_something_about_the_policy_is_viable(trajectory: Make) -> None:
    kept = [trajectory(stop=stop) for stop in StopReason if stop.scored]
    lost = [trajectory(stop=stop) for stop in StopReason if not stop.scored]
    assert viable([*lost, *kept, trajectory([])]) == kept
