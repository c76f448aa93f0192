"""Episodes opened again at any turn: played once, put back each time, and never taken for what they are not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agentgym.env import Environment, Info, info
from agentgym.errors import InfrastructureError, TaskError, UsageError
from agentgym.policy.scripted import ScriptedPolicy
from agentgym.reopen import Replay
from agentgym.rollout import Request, Rollouts, completed
from agentgym.testing import EchoEnvironment
from agentgym.types import Action, Observation, Signal, StopReason, Task, Trajectory, as_action, text_message


class Tally(Environment):
    """A world that adds up the numbers it is told, and counts what is done to it."""

    def __init__(self, *, branches: bool = True, drifts: bool = False) -> None:
        self.metadata = {"render_modes": [], "signals": ("sum",)}
        self.branches, self.drifts = branches, drifts
        self.sum = self.turns = self.steps = self.resets = 0
        self.closed = self.over = False
        self._saved: dict[str, tuple[int, int]] = {}

    def tasks(self, split: str) -> Sequence[Task]:
        return (Task("tally", "Count.", 9),)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        super().reset(seed=seed)
        self.sum, self.turns, self.over = (seed or 0) % 7, 0, False
        self.resets += 1
        return (text_message("user", f"at {self.sum}"),), info(self.tasks("train")[0])

    def step(self, action: Action | str) -> tuple[Observation, float, bool, bool, Info]:
        said = as_action(action).content
        if said == "fail":
            raise ZeroDivisionError("the world divided by zero")
        assert not self.over
        self.sum += int(said) + (self.drifts and self.turns == 1)
        self.turns += 1
        self.steps += 1
        stop = StopReason.DONE if self.turns == 4 else None
        self.over = stop is not None
        return (text_message("user", f"at {self.sum}"),), 0.0, self.over, False, info(self.tasks("train")[0], stop=stop)

    def conclude(self) -> tuple[Signal, ...]:
        self.over = True
        return (Signal("sum", float(self.sum), "tally"),)

    def snapshot(self) -> str:
        if not self.branches:
            return super().snapshot()
        self._saved[str(len(self._saved))] = (self.sum, self.turns)
        return str(len(self._saved) - 1)

    def restore(self, state_ref: str) -> None:
        self.sum, self.turns = self._saved[state_ref]
        self.over = False

    def close(self) -> None:
        self.closed = True


def play(world: Environment, said: Sequence[str], seed: int = 2**40 + 3) -> Trajectory:
    """Play ``said`` in ``world`` through the rollouts that everyone else uses."""
    answers = iter(said)
    rollouts = Rollouts(lambda: world, ScriptedPolicy(lambda _: next(answers)), concurrency=1)
    try:
        request = Request("a", "g", world.tasks("train")[0], seed)
        (trajectory,) = completed(asyncio.run(rollouts.run([request])))
    finally:
        rollouts.close()
    return trajectory


@pytest.fixture
def episode() -> Trajectory:
    return play(Tally(), ("1", "2", "3", "4"))


def start_of(episode: Trajectory) -> int:
    return int(episode.turns[0].observation[0].content.removeprefix("at "))


def test_each_turn_is_opened_as_it_stood(episode: Trajectory):
    with Replay(Tally) as replay:
        for turn, added in ((2, 3), (0, 0), (4, 10), (1, 1)):
            with replay(episode, turn) as world:
                assert isinstance(world, Tally)
                assert world.sum == start_of(episode) + added


def test_turns_in_rising_order_are_played_once_and_the_world_is_put_back(episode: Trajectory):
    world = Tally()
    with Replay(lambda: world) as replay:
        for turn in range(5):
            with replay(episode, turn) as opened:
                if turn < 4:
                    opened.conclude()
                    world.sum = -100
    assert (world.resets, world.steps) == (1, 4)
    assert world.closed


def test_a_world_that_cannot_branch_starts_over_each_time(episode: Trajectory):
    world = Tally(branches=False)
    with Replay(lambda: world) as replay:
        for turn in range(3):
            with replay(episode, turn) as opened:
                assert world.sum == start_of(episode) + (0, 1, 3)[turn]
                opened.conclude()
    assert (world.resets, world.steps) == (3, 0 + 1 + 2)


def test_another_episode_starts_over(episode: Trajectory):
    other = play(Tally(), ("5", "5", "5", "5"), seed=1)
    with Replay(Tally) as replay:
        for trajectory, added in ((episode, 1), (other, 5), (episode, 1)):
            with replay(trajectory, 1) as world:
                assert isinstance(world, Tally)
                assert world.sum == start_of(trajectory) + added


def test_the_world_is_put_back_after_an_error_too(episode: Trajectory):
    with Replay(Tally) as replay:
        with pytest.raises(AttributeError), replay(episode, 1) as world:
            world.over = world.conclude().no_such_thing  # type: ignore[attr-defined]
        with replay(episode, 2) as world:
            assert isinstance(world, Tally)
            assert world.sum == start_of(episode) + 3


def test_a_world_that_goes_another_way_is_found_out_and_not_played_again(episode: Trajectory):
    world = Tally(drifts=True)
    with Replay(lambda: world) as replay:
        with replay(episode, 1):
            pass
        for _ in range(2):
            with pytest.raises(InfrastructureError, match="another way after 2 turns"), replay(episode, 3):
                pass
        assert world.steps == 2
        with replay(episode, 1):
            pass


def test_a_world_that_fails_is_given_up_and_a_fresh_one_is_made(episode: Trajectory):
    broken = replace(
        episode.turns[0], sample=replace(episode.turns[0].sample, message=text_message("assistant", "fail"))
    )
    failing = replace(episode, turns=(broken, *episode.turns[1:]))
    made: list[Tally] = []

    def make() -> Tally:
        made.append(Tally())
        return made[-1]

    with Replay(make) as replay:
        with pytest.raises(InfrastructureError, match="divided by zero"), replay(failing, 1):
            pass
        assert made[0].closed
        with replay(episode, 1):
            pass
        assert len(made) == 2


def test_a_task_the_world_does_not_have_is_refused_and_the_next_episode_starts_over(episode: Trajectory):
    class Strict(Tally):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
            self.sum = -100
            if options and options["task"].id != "tally":
                raise TaskError("no such task")
            return super().reset(seed=seed, options=options)

    foreign = replace(episode, task=replace(episode.task, id="other"))
    with Replay(Strict) as replay:
        with replay(episode, 1):
            pass
        with pytest.raises(TaskError), replay(foreign, 0):
            pass
        with replay(episode, 1) as world:
            assert isinstance(world, Tally)
            assert world.sum == start_of(episode) + 1


@pytest.mark.parametrize("turn", [-1, 5])
def test_a_turn_that_is_not_there_is_refused(episode: Trajectory, turn: int):
    with Replay(Tally) as replay, pytest.raises(UsageError, match="has 4 turns"):
        replay(episode, turn)


def test_what_a_rollout_recorded_can_be_opened_with_the_seed_it_had():
    recorded = play(EchoEnvironment(turns=2), ("a", "b"), seed=2**50 + 123)
    with Replay(EchoEnvironment) as replay, replay(recorded, 1) as world:
        assert [signal.name for signal in world.conclude()] == ["turns"]
