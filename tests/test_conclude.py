"""An episode that someone other than its world ends is measured all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from agentgym.env import Environment, Info, info
from agentgym.errors import InfrastructureError
from agentgym.policy import Context
from agentgym.remote import WorkerPool
from agentgym.rollout import Deadlines, Request, Rollouts
from agentgym.testing import EchoEnvironment, EnvironmentContract
from agentgym.types import (
    Action,
    Completed,
    InfraFailure,
    Observation,
    Outcome,
    Sample,
    StopReason,
    Task,
    TokenIds,
    empty_sample,
    text_message,
)

TASK = Task("echo/0", "Say something.", 9)


class WordForWord:
    """Renders any message as four tokens."""

    rewrites = ""

    def start(self, messages: Sequence[object], tools: Sequence[object]) -> TokenIds:
        return np.zeros(4 * len(messages), np.int32)

    def bridge(self, finish: str, observation: Observation) -> TokenIds:
        return np.zeros(4 * len(observation), np.int32)


class Talker:
    """Says the same until its context is full."""

    def __init__(self, max_context: int) -> None:
        self.renderer: Any = WordForWord()
        self.max_context = max_context

    def begin(self, rollout_id: str) -> None: ...

    def end(self, rollout_id: str) -> None: ...

    async def act(self, context: Context, tools: Sequence[object]) -> Sample:
        return empty_sample(text_message("assistant", "hello"))


class Stubborn(EchoEnvironment):
    """Cannot say how things stand."""

    def conclude(self) -> tuple[Any, ...]:
        raise ZeroDivisionError("no verdict")


def played(environment: Environment, max_context: int) -> Outcome:
    talker: Any = Talker(max_context)
    rollouts = Rollouts(lambda: environment, talker, concurrency=1, retries=0, deadlines=Deadlines(step_s=20))
    try:
        (outcome,) = asyncio.run(rollouts.run([Request("r", "g", TASK, 1)]))
    finally:
        rollouts.close()
    return outcome


def through_a_worker(max_context: int) -> Outcome:
    with WorkerPool("agentgym.testing:EchoEnvironment", workers=1) as pool:
        return played(pool.environment(), max_context)


@pytest.mark.parametrize("play", [lambda room: played(EchoEnvironment(), room), through_a_worker])
@pytest.mark.parametrize(("max_context", "turns"), [(4, 0), (12, 2)])
def test_a_full_context_is_not_the_end_of_measuring(play: Any, max_context: int, turns: int) -> None:
    outcome = play(max_context)
    assert isinstance(outcome, Completed)
    trajectory = outcome.trajectory
    assert trajectory.stop is StopReason.CONTEXT_FULL
    assert len(trajectory.turns) == turns
    verdict = trajectory.signal("turns")
    assert verdict is not None
    assert verdict.value == turns


def test_an_end_of_its_own_is_not_concluded_again() -> None:
    outcome = played(EchoEnvironment(), 1000)
    assert isinstance(outcome, Completed)
    assert outcome.trajectory.stop is StopReason.MAX_TURNS
    assert [signal.value for signal in outcome.trajectory.signals if signal.name == "turns"] == [9.0]


def test_a_world_that_fails_to_conclude_is_lost_and_not_scored() -> None:
    talker: Any = Talker(4)
    rollouts = Rollouts(Stubborn, talker, concurrency=1, retries=0, give_up_after=1)
    with pytest.raises(InfrastructureError, match="no verdict"):
        asyncio.run(rollouts.run([Request("r", "g", TASK, 1)]))
    rollouts.close()
    outcome = played(Stubborn(), 4)
    assert isinstance(outcome, InfraFailure)
    assert "no verdict" in outcome.cause


class Silent(Environment):
    """Measures nothing, and overrides no more than it must."""

    def tasks(self, split: str) -> Sequence[Task]:
        return [TASK]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        super().reset(seed=seed)
        return (text_message("user", str(self.np_random.integers(1 << 30))),), info(TASK)

    def step(self, action: Action | str) -> tuple[Observation, float, bool, bool, Info]:
        return (), 0.0, False, False, info(TASK)


def test_a_world_with_nothing_to_say_need_not_override_it() -> None:
    assert Silent().conclude() == ()


def test_a_default_reset_seeds_the_world() -> None:
    first, second = Silent(), Silent()
    assert first.reset(seed=5) == second.reset(seed=5) != first.reset(seed=6)
    second.reset(seed=6)
    assert first.reset() == second.reset()


def test_a_worker_tells_what_its_world_measures() -> None:
    with WorkerPool("agentgym.testing:EchoEnvironment", workers=1) as pool:
        assert pool.environment().metadata == EchoEnvironment().metadata


class Undeclared(EchoEnvironment):
    def __init__(self) -> None:
        super().__init__()
        self.metadata = {"render_modes": [], "signals": ("heard",)}


class Endless(EchoEnvironment):
    """Goes on after it was concluded."""

    def conclude(self) -> tuple[Any, ...]:
        if self._task is None or self._turns >= self._task.max_turns:
            raise ResetNeeded
        return self._verdict()


class Mute(EchoEnvironment):
    """Forgets its verdict where it is cut."""

    def conclude(self) -> tuple[Any, ...]:
        super().conclude()
        return ()


@pytest.mark.parametrize(
    ("world", "test", "message"),
    [
        (Undeclared, "test_what_is_measured_is_declared", r"\['turns'\] are measured, but not declared"),
        (Endless, "test_a_concluded_episode_is_over", "ResetNeeded was expected"),
        (Mute, "test_an_episode_cut_from_outside_is_measured_as_a_whole", "what its own end would have measured"),
    ],
)
def test_the_contract_catches_it(world: type[Environment], test: str, message: str) -> None:
    class Contract(EnvironmentContract):
        __test__ = False

        def make_environment(self) -> Environment:
            return world()

    with pytest.raises(AssertionError, match=message):
        getattr(Contract(), test)()
