"""Step by step the wrapper pays what the same reward prices offline, and holds back what is not decided."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from hypothesis import given
from hypothesis import strategies as st

from agentgym.env import Environment, Info, info
from agentgym.errors import ConfigError, InfrastructureError
from agentgym.recipes import resolve
from agentgym.reward import Shaper, above, per_group, per_trajectory, signal
from agentgym.types import (
    Action,
    Group,
    Observation,
    Signal,
    StopReason,
    Task,
    Trajectory,
    Turn,
    empty_sample,
    text_message,
)
from agentgym.wrappers import ShapedReward

TASK = Task("scripted", "Do it.", 99)
GATED = resolve("gated")


class Script(Environment):
    """Emits a prepared list of signals at each step, and won at the end."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "signals": ("won", "progress", "grounded")}

    def __init__(
        self, progress: Sequence[float | None], grounded: Sequence[float | None], won: float | None, stop: StopReason
    ) -> None:
        self.steps, self.won, self.stop = list(zip(progress, grounded, strict=True)), won, stop

    def tasks(self, split: str) -> Sequence[Task]:
        return [TASK]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        self.turn = 0
        return (text_message("user", "Begin."),), info(TASK)

    def step(self, action: Action | str) -> tuple[Observation, float, bool, bool, Info]:
        t, self.turn = self.turn, self.turn + 1
        values = zip(("progress", "grounded"), self.steps[t], strict=True)
        signals = tuple(Signal(name, value, "script", turn=t) for name, value in values)
        ended = self.turn == len(self.steps)
        if ended:
            signals += (Signal("won", self.won, "script"),)
        stop = self.stop if ended else None
        terminated, truncated = ended and self.stop.terminated, ended and self.stop.truncated
        return (text_message("user", f"{t}"),), 0.5, terminated, truncated, info(TASK, signals=signals, stop=stop)

    def offline(self) -> Trajectory:
        turn = Turn((), empty_sample(text_message("assistant", "go")), np.empty(0, np.int32))
        self.reset()
        signals: list[Signal] = []
        for t in range(len(self.steps)):
            *_, reward, _, _, said = self.step("go")
            signals += [Signal("reward", reward, "environment", turn=t), *said["signals"]]
        return Trajectory("o", "o", TASK, (turn,) * len(self.steps), (), self.stop, tuple(signals), 0)


def play(env: ShapedReward) -> tuple[list[float], list[Info]]:
    env.reset(options={"task": TASK})
    paid, said, over = [], [], False
    while not over:
        _, reward, terminated, truncated, step_info = env.step("go")
        paid.append(reward)
        said.append(step_info)
        over = terminated or truncated
    return paid, said


values = st.sampled_from([0.0, 1.0, None]) | st.floats(-1, 1)
REWARDS = [
    GATED,
    resolve("direct"),
    resolve("dense"),
    signal("progress", scope="turn").when(above(signal("grounded", scope="turn"), 0, scope="turn")),
    signal("progress", scope="turn").when(above(signal("progress", scope="turn"), 0.5)),
    signal("reward", scope="turn") - per_trajectory("short", lambda t: 1 / len(t.turns), scope="trajectory"),
]


@given(
    st.lists(st.tuples(values, values), min_size=1, max_size=6),
    st.sampled_from([0.0, 1.0, None]),
    st.sampled_from(REWARDS),
    st.sampled_from([StopReason.DONE, StopReason.MAX_TURNS]),
)
def test_the_sum_over_an_episode_is_the_offline_price(
    steps: list[tuple[float | None, float | None]], won: float | None, reward: Shaper, stop: StopReason
):
    progress, grounded = zip(*steps, strict=True)
    env = Script(progress, grounded, won, stop)
    (offline,) = reward(Group((env.offline(),)))
    paid, said = play(ShapedReward(env, reward))
    assert sum(paid) == pytest.approx(offline.total(), abs=1e-9)
    online = said[-1]["ledger"]
    for column in ("status", "credited", "turn", "component"):
        np.testing.assert_array_equal(getattr(online, column), getattr(offline, column))


def test_what_a_gate_holds_back_is_released_on_the_step_that_opens_it():
    env = ShapedReward(Script([0.5, 0.0, 0.5], [1, 1, 1], 1.0, StopReason.DONE), "gated", {"grounded": 0.0})
    paid, said = play(env)
    assert paid == pytest.approx([0, 0, 1.3])
    assert not said[0]["ledger"].measured
    assert said[-1]["ledger"].measured
    paid, _ = play(ShapedReward(env.env, "gated", {"grounded": 0.0}))
    assert paid == pytest.approx([0, 0, 1.3]), "a second episode starts from nothing"


def test_what_needs_no_gate_is_paid_at_once():
    paid, _ = play(ShapedReward(Script([0.5, 0.0], [1, 1], 1.0, StopReason.DONE), "dense"))
    assert paid == pytest.approx([0.15, 1.0])


def test_an_episode_cut_from_outside_is_priced_as_far_as_it_went():
    env = ShapedReward(TimeLimit(Script([0.5, 0.25, 1], [1, 1, 1], 1.0, StopReason.DONE), 2), "dense")
    assert play(env)[0] == pytest.approx([0.15, 0.075])


def test_a_reward_on_what_nobody_measures_is_refused_at_once():
    env = Script([1], [1], 1, StopReason.DONE)
    with pytest.raises(ConfigError, match=r"reads 'score', which environment .*Script.* it measures: grounded, prog"):
        ShapedReward(env, "dense", {"score": 0.1})


def test_a_reward_that_compares_siblings_is_refused_at_once():
    rank = per_group("rank", lambda group: [0.0] * len(group.trajectories), scope="trajectory")
    with pytest.raises(ConfigError, match="'rank' compares sibling episodes"):
        ShapedReward(Script([1], [1], 1, StopReason.DONE), rank)


def test_an_environment_that_does_not_say_what_it_measures_is_refused():
    env = Script([1], [1], 1, StopReason.DONE)
    env.metadata = {"render_modes": []}
    with pytest.raises(ConfigError, match="does not say what it measures"):
        ShapedReward(env, "outcome")


def test_it_can_be_made_and_made_again_by_gymnasium():
    def entry(reward: str) -> ShapedReward:
        return ShapedReward(Script([0.5, 0.0], [1, 1], 1.0, StopReason.DONE), reward)

    gymnasium.register("Shaped-v0", entry, order_enforce=False, disable_env_checker=True)
    try:
        env = gymnasium.make("Shaped-v0", reward="dense")
        assert isinstance(env, ShapedReward)
        assert env.spec is not None
        again = gymnasium.make(env.spec)
        assert isinstance(again, ShapedReward)
        assert isinstance(again.unwrapped, Script)
        assert again.env is again.unwrapped
        assert play(env)[0] == play(again)[0] == pytest.approx([0.15, 1.0])
    finally:
        del gymnasium.registry["Shaped-v0"]


def test_a_lost_episode_has_no_price():
    env = ShapedReward(Script([1], [1], None, StopReason.INFRASTRUCTURE), "dense")
    env.reset()
    with pytest.raises(InfrastructureError, match="ended by infrastructure"):
        env.step("go")


def test_long_episodes_stay_affordable():
    turns = 1000
    env = ShapedReward(Script([0.001] * turns, [1.0] * turns, 1.0, StopReason.DONE), GATED)
    start = time.perf_counter()
    paid, _ = play(env)
    assert sum(paid) == pytest.approx(1 + 0.3 + 0.1 * turns)
    assert time.perf_counter() - start < 20
