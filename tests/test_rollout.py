"""Exactly one outcome for each rollout, whatever worlds and policies do."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch

from agentgym.env import Environment, Info
from agentgym.errors import InfrastructureError, PolicyError, TaskError, UnknownNameError
from agentgym.policy import Context
from agentgym.policy.embedded import EmbeddedPolicy
from agentgym.policy.scripted import ScriptedPolicy
from agentgym.remote import WorkerPool
from agentgym.render import Renderer
from agentgym.rollout import Deadlines, Request, Rollouts, completed, group_requests
from agentgym.testing import EchoEnvironment
from agentgym.train.factory import build_model, build_tokenizer
from agentgym.types import (
    Action,
    Cancelled,
    Completed,
    InfraFailure,
    Message,
    Observation,
    Outcome,
    Sample,
    Sampling,
    StopReason,
    Task,
)

ECHO = "agentgym.testing:EchoEnvironment"
TASK = Task("echo/0", "Say something.", 3)
Choose = Callable[[Context], str]

TOKENIZER = build_tokenizer(
    ["This is echo/0, seed 12345. Say something. hello, hello"], kind="word", vocab_size=120, max_context=512
)


class Witness(ScriptedPolicy):
    """A script that counts who plays."""

    def __init__(self, choose: Choose, **settings: Any) -> None:
        super().__init__(choose, **settings)
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.most = 0

    def begin(self, rollout_id: str) -> None:
        self.begun.append(rollout_id)
        self.most = max(self.most, len(self.begun) - len(self.ended))

    def end(self, rollout_id: str) -> None:
        self.ended.append(rollout_id)


def requests(n: int, task: Task = TASK) -> list[Request]:
    return [Request(f"r{i}", "g", task, 1000 + i) for i in range(n)]


def turn_of(context: Context) -> int:
    return sum(message.role == "assistant" for message in context.messages)


def play(
    make: Callable[[], Environment],
    policy: Any,
    asked: Sequence[Request],
    *,
    concurrency: int = 4,
    **settings: Any,
) -> list[Outcome]:
    """Run ``asked`` and check what holds of every run that comes to its end."""
    seen: list[Outcome] = []
    with closing(Rollouts(make, policy, concurrency=concurrency, **settings)) as rollouts:
        outcomes = asyncio.run(rollouts.run(asked, on_outcome=seen.append))
    assert [name_of(outcome) for outcome in outcomes] == [request.rollout_id for request in asked]
    assert Counter(map(id, seen)) == Counter(map(id, outcomes)), "each outcome is told once"
    if isinstance(policy, Witness):
        assert sorted(policy.begun) == sorted(policy.ended), "who begins, ends"
        assert policy.most <= concurrency
    return outcomes


def name_of(outcome: Outcome) -> str:
    return outcome.trajectory.id if isinstance(outcome, Completed) else outcome.rollout_id


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    with WorkerPool(ECHO, workers=1, call_timeout_s=1.0) as made:
        yield made


# ----------------------------------------------------------------------------------------------- episodes as they go


def test_an_episode_is_recorded_as_it_happened() -> None:
    policy = ScriptedPolicy(lambda context: f"hello {turn_of(context)}")
    (outcome,) = play(EchoEnvironment, policy, requests(1))
    assert isinstance(outcome, Completed)
    trajectory = outcome.trajectory
    assert (trajectory.id, trajectory.group_id, trajectory.task, trajectory.seed) == ("r0", "g", TASK, 1000)
    assert trajectory.stop is StopReason.MAX_TURNS
    assert [turn.sample.message.content for turn in trajectory.turns] == ["hello 0", "hello 1", "hello 2"]
    said = [turn.observation[0].content for turn in trajectory.turns]
    assert said == ["This is echo/0, seed 1000. Say something.", "hello 0", "hello 1"]
    assert trajectory.final_observation == (Message("user", "hello 2"),)
    assert [(signal.name, signal.turn, signal.value) for signal in trajectory.signals] == [
        *((name, turn, value) for turn in range(3) for name, value in (("reward", 0.5), ("heard", 7.0))),
        ("turns", None, 3.0),
    ]
    assert all(len(turn.prompt_ids_N) == 0 for turn in trajectory.turns), "nobody asked for tokens"
    assert all(turn.seconds > 0 for turn in trajectory.turns)


def test_each_answer_has_a_seed_of_its_own_and_the_same_again() -> None:
    def seeds() -> list[int]:
        found: list[int] = []
        play(EchoEnvironment, ScriptedPolicy(lambda context: found.append(context.seed) or "x"), requests(3))
        return sorted(found)

    found = seeds()
    assert len(set(found)) == 9
    assert seeds() == found


def test_tokens_of_a_script_are_the_whole_conversation() -> None:
    renderer = Renderer(TOKENIZER)
    policy = ScriptedPolicy(lambda _: "hello", renderer=renderer)
    (trajectory,) = completed(play(EchoEnvironment, policy, requests(1)))
    parts = [part for turn in trajectory.turns for part in (turn.prompt_ids_N, turn.sample.token_ids_N)]
    history = [message for turn in trajectory.turns for message in (*turn.observation, turn.sample.message)]
    whole = renderer.start([*history, *trajectory.final_observation])
    grown = np.concatenate([*parts, renderer.bridge("stop", trajectory.final_observation)])
    assert grown.tolist() == whole.tolist()


def test_outcomes_are_in_order_and_worlds_are_reused() -> None:
    made: list[EchoEnvironment] = []

    def make() -> EchoEnvironment:
        made.append(EchoEnvironment())
        return made[-1]

    policy = Witness(lambda context: "hello " * (1 + int(context.rollout_id[1:]) % 3))
    outcomes = play(make, policy, requests(20), concurrency=3)
    assert all(isinstance(outcome, Completed) for outcome in outcomes)
    assert len(made) <= 3
    assert policy.most == 3


def test_no_requests_no_outcomes() -> None:
    assert play(EchoEnvironment, Witness(lambda _: "x"), []) == []


def test_worlds_are_called_side_by_side_up_to_the_bound() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    class Slow(EchoEnvironment):
        def step(self, action: Action | str) -> tuple[Observation, float, bool, bool, Info]:
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.01)
            with lock:
                now[0] -= 1
            return super().step(action)

    play(Slow, Witness(lambda _: "x"), requests(9), concurrency=3)
    assert most[0] == 3


def test_the_context_is_never_overrun() -> None:
    renderer = Renderer(TOKENIZER)
    policy = ScriptedPolicy(lambda _: "hello " * 10, renderer=renderer, max_context=60)
    (trajectory,) = completed(play(EchoEnvironment, policy, requests(1, Task("echo/0", "Say something.", 50))))
    assert trajectory.stop is StopReason.CONTEXT_FULL
    assert trajectory.stop.truncated
    concluded = trajectory.signal("turns")
    assert concluded is not None
    assert concluded.value == len(trajectory.turns), "the world is asked for its last word"
    assert 1 <= len(trajectory.turns) < 50
    before = sum(len(turn.prompt_ids_N) for turn in trajectory.turns)
    assert before + sum(len(turn.sample.token_ids_N) for turn in trajectory.turns[:-1]) < 60


def test_a_prompt_that_does_not_fit_is_an_episode_without_turns() -> None:
    policy = ScriptedPolicy(lambda _: "x", renderer=Renderer(TOKENIZER), max_context=5)
    (trajectory,) = completed(play(EchoEnvironment, policy, requests(1)))
    assert trajectory.stop is StopReason.CONTEXT_FULL
    assert trajectory.turns == ()
    assert trajectory.final_observation[0].content.startswith("This is echo/0")


def test_history_that_is_rendered_anew_is_a_segment_a_turn() -> None:
    renderer = Renderer(TOKENIZER, history="turns")
    seen: list[tuple[int, list[int]]] = []

    def say(context: Context) -> str:
        seen.append((context.segment, context.token_ids_N.tolist()))
        return "hello"

    (trajectory,) = completed(play(EchoEnvironment, ScriptedPolicy(say, renderer=renderer), requests(1)))
    said: list[Message] = []
    for t, turn in enumerate(trajectory.turns):
        said += turn.observation
        assert turn.segment == t
        assert turn.prompt_ids_N.tolist() == renderer.start(said).tolist()
        assert seen[t] == (t, turn.prompt_ids_N.tolist())
        said.append(turn.sample.message)


@pytest.mark.parametrize("lockstep", [True, False])
def test_a_model_plays(lockstep: bool) -> None:
    model = build_model(TOKENIZER, layers=1, width=32, heads=2, max_context=512, seed=0)
    with closing(EmbeddedPolicy(model, TOKENIZER, max_context=100, lockstep=lockstep)) as policy:
        asked = group_requests(TASK, size=6, step=1, position=0, seed=3, sampling=Sampling(1.0, 9))
        asked += group_requests(
            Task("echo/1", "Say something.", 40), size=6, step=1, position=1, seed=3, sampling=Sampling(1.0, 9)
        )
        trajectories = completed(play(EchoEnvironment, policy, asked, concurrency=5))
    assert {trajectory.stop for trajectory in trajectories} == {StopReason.MAX_TURNS, StopReason.CONTEXT_FULL}
    for trajectory in trajectories:
        buffer = np.empty(0, np.int32)
        for turn in trajectory.turns:
            buffer = np.concatenate([buffer, turn.prompt_ids_N])
            n = len(turn.sample.token_ids_N)
            assert 1 <= n <= 9
            buffer = np.concatenate([buffer, turn.sample.token_ids_N])
            ids = torch.from_numpy(buffer.astype(np.int64))[None]
            with torch.inference_mode():
                logprobs = torch.log_softmax(model(input_ids=ids).logits[0, -n - 1 : -1], -1)
            expected = logprobs.gather(1, ids[0, -n:, None])[:, 0].numpy()
            np.testing.assert_allclose(turn.sample.logprobs_N, expected, atol=1e-4)
        assert len(buffer) <= 100


def test_group_requests_differ_in_their_seeds_only() -> None:
    asked = group_requests(TASK, size=8, step=12, position=3, seed=5, sampling=Sampling(0.5, 4))
    assert [request.rollout_id for request in asked] == [f"00012/003/{i:02d}" for i in range(8)]
    assert {(request.group_id, request.task.id, request.sampling) for request in asked} == {
        ("00012/003", "echo/0", Sampling(0.5, 4))
    }
    others = [
        request.seed
        for step, position, seed in [(12, 4, 5), (13, 3, 5), (12, 3, 6)]
        for request in group_requests(TASK, size=8, step=step, position=position, seed=seed, sampling=Sampling())
    ]
    assert len({*others, *(request.seed for request in asked)}) == 32


# ------------------------------------------------------------------------------------------------------------ faults


def misbehave_once(deed: str) -> Choose:
    """Return a script that does ``deed`` in its second turn, but not when the rollout is tried again."""
    return lambda context: deed if turn_of(context) == 1 and "~" not in context.rollout_id else "hello"


@pytest.mark.parametrize("deed", ["die", "fail", "hang"])
def test_what_the_world_lost_is_tried_again(pool: WorkerPool, deed: str) -> None:
    policy = Witness(misbehave_once(deed))
    outcomes = play(pool.environment, policy, requests(2), concurrency=1)
    for trajectory in completed(outcomes):
        assert [turn.sample.message.content for turn in trajectory.turns] == ["hello"] * 3
        assert trajectory.turns[0].observation[0].content.endswith(f"seed {trajectory.seed}. Say something.")
    assert policy.begun == ["r0", "r0~1", "r1", "r1~1"]


@pytest.mark.parametrize(
    ("deed", "cause"),
    [
        ("die", "WorkerDiedError: .*last words of a world"),
        ("fail", "InfrastructureError: .*the world divided by zero"),
    ],
)
def test_what_is_lost_again_and_again_is_a_failure_and_no_episode(pool: WorkerPool, deed: str, cause: str) -> None:
    policy = Witness(lambda context: deed if context.rollout_id.startswith("r1") else "hello")
    outcomes = play(pool.environment, policy, requests(3), concurrency=1, retries=2)
    assert [type(outcome) for outcome in outcomes] == [Completed, InfraFailure, Completed]
    lost = outcomes[1]
    assert isinstance(lost, InfraFailure)
    assert lost.retryable
    assert re.search(cause, lost.cause, re.DOTALL)
    assert policy.begun == ["r0", "r1", "r1~1", "r1~2", "r2"]
    assert [trajectory.id for trajectory in completed(outcomes)] == ["r0", "r2"]


def test_a_worker_that_dies_takes_its_other_worlds_along_and_they_come_back(pool: WorkerPool) -> None:
    policy = Witness(lambda context: "die" if context.rollout_id == "r0" and turn_of(context) == 2 else "hello")
    outcomes = play(pool.environment, policy, requests(6), concurrency=3)
    assert all(isinstance(outcome, Completed) for outcome in outcomes)


class Sleeper(EchoEnvironment):
    """A world in this process whose first one hangs until it is released."""

    made = 0
    closed: tuple[str, ...] = ()
    release = threading.Event()

    def __init__(self) -> None:
        super().__init__()
        self.number = Sleeper.made
        Sleeper.made += 1

    def step(self, action: Action | str) -> tuple[Observation, float, bool, bool, Info]:
        if self.number == 0:
            Sleeper.release.wait(20)
            Sleeper.closed += ("step ended",)
        return super().step(action)

    def close(self) -> None:
        Sleeper.closed += (f"closed {self.number}",)


def test_a_world_that_is_made_too_late_is_closed() -> None:
    closed, release = threading.Event(), threading.Event()

    class Late(EchoEnvironment):
        def close(self) -> None:
            closed.set()

    def make() -> Environment:
        release.wait(20)
        return Late()

    with closing(
        Rollouts(make, Witness(lambda _: "hello"), concurrency=1, retries=0, deadlines=Deadlines(step_s=0.2))
    ) as rollouts:
        (outcome,) = asyncio.run(rollouts.run(requests(1)))
        assert isinstance(outcome, InfraFailure)
        assert not closed.is_set()
        release.set()
        assert closed.wait(10)


def test_a_world_that_hangs_blocks_nobody_and_is_closed_when_it_wakes() -> None:
    Sleeper.made, Sleeper.closed, Sleeper.release = 0, (), threading.Event()
    policy = Witness(lambda _: "hello")
    try:
        with closing(
            Rollouts(Sleeper, policy, concurrency=1, retries=1, deadlines=Deadlines(step_s=0.3, turn_s=5.0))
        ) as rollouts:
            started = time.monotonic()
            outcomes = asyncio.run(rollouts.run(requests(3)))
            assert time.monotonic() - started < 10
            assert all(isinstance(outcome, Completed) for outcome in outcomes)
            assert policy.begun == ["r0", "r0~1", "r1", "r2"]
            assert Sleeper.closed == (), "nobody closes a world in the middle of its step"
            Sleeper.release.set()
            deadline = time.monotonic() + 10
            while "closed 0" not in Sleeper.closed and time.monotonic() < deadline:
                time.sleep(0.01)
            assert Sleeper.closed == ("step ended", "closed 0")
    finally:
        Sleeper.release.set()


def test_a_deadline_is_named() -> None:
    Sleeper.made, Sleeper.closed, Sleeper.release = 0, (), threading.Event()
    try:
        (lost,) = play(
            Sleeper, Witness(lambda _: "x"), requests(1), retries=0, deadlines=Deadlines(step_s=0.1, turn_s=1.0)
        )
        assert lost == InfraFailure("r0", "DeadlineError: the world did not answer within 0.1 s", retryable=True)
    finally:
        Sleeper.release.set()


def test_a_world_that_times_out_by_itself_is_quoted() -> None:
    class Impatient(EchoEnvironment):
        def step(self, action: Action | str) -> tuple[Observation, float, bool, bool, Info]:
            raise TimeoutError("the page did not load")

    (lost,) = play(Impatient, Witness(lambda _: "x"), requests(1), retries=0)
    assert isinstance(lost, InfraFailure)
    assert "the page did not load" in lost.cause


def test_a_world_that_cannot_be_made_is_a_fault_and_not_a_crash() -> None:
    tried = []

    def make() -> Environment:
        tried.append(1)
        raise OSError("no more processes")

    outcomes = play(make, Witness(lambda _: "x"), requests(2), concurrency=1, retries=1)
    assert len(tried) == 4
    for outcome in outcomes:
        assert isinstance(outcome, InfraFailure)
        assert "no more processes" in outcome.cause


def test_a_policy_that_fails_is_a_fault() -> None:
    class Broken(Witness):
        async def act(self, context: Context, tools: tuple[dict[str, Any], ...] = ()) -> Sample:
            if context.rollout_id == "r1":
                raise PolicyError("the engine is on fire")
            return await super().act(context, tools)

    policy = Broken(lambda _: "x")
    assert all(isinstance(outcome, Completed) for outcome in play(EchoEnvironment, policy, requests(3)))
    (lost,) = play(EchoEnvironment, Broken(lambda _: "x"), requests(2)[1:], retries=0)
    assert lost == InfraFailure("r1", "PolicyError: the engine is on fire", retryable=True)


def test_a_run_that_loses_everything_is_given_up() -> None:
    policy = Witness(lambda _: "fail")
    with closing(Rollouts(EchoEnvironment, policy, concurrency=1, retries=1, give_up_after=3)) as rollouts:
        with pytest.raises(InfrastructureError, match=r"3 rollouts in a row were lost.*divided by zero"):
            asyncio.run(rollouts.run(requests(50)))
        assert len(policy.begun) == len(policy.ended) == 6


def test_losses_between_successes_are_lived_with() -> None:
    policy = Witness(lambda context: "fail" if int(context.rollout_id[1:].split("~")[0]) % 3 else "x")
    outcomes = play(EchoEnvironment, policy, requests(12), concurrency=1, retries=0, give_up_after=3)
    assert [type(outcome) for outcome in outcomes] == [Completed, InfraFailure, InfraFailure] * 4


# -------------------------------------------------------------------------------------------------------- being stopped


def test_an_environment_is_told_what_it_will_probably_be_asked_for_next() -> None:
    told: list[dict[str, Any]] = []

    class Told(EchoEnvironment):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
            told.append({name: task.id for name, task in (options or {}).items()})
            return super().reset(seed=seed, options=options)

    tasks = [Task(name, "", 1) for name in "aabbc"]
    asked = [Request(f"r{number}", "g", task, number) for number, task in enumerate(tasks)]
    play(Told, Witness(lambda _: "x"), asked, concurrency=2)
    assert sorted(told, key=str) == sorted(
        [{"task": "a", "next": "b"}] * 2 + [{"task": "b", "next": "c"}, {"task": "b"}, {"task": "c"}], key=str
    )


def test_a_run_that_begins_beside_another_leaves_it_its_guesses() -> None:
    told: list[dict[str, Any]] = []

    class Told(EchoEnvironment):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
            told.append({name: task.id for name, task in (options or {}).items()})
            return super().reset(seed=seed, options=options)

    def asked(name: str) -> list[Request]:
        return [Request(f"{name}{number}", name, Task(f"{name}{number}", "", 1), number) for number in range(3)]

    async def both(rollouts: Rollouts) -> None:
        await asyncio.gather(rollouts.run(asked("a")), rollouts.run(asked("b")))

    with closing(Rollouts(Told, Witness(lambda _: "x"), concurrency=1)) as rollouts:
        asyncio.run(both(rollouts))
        assert rollouts._next == {}
    guesses = {(seen["task"], seen["next"]) for seen in told if "next" in seen}
    assert guesses == {("a0", "a1"), ("a1", "a2"), ("b0", "b1"), ("b1", "b2")}


def test_an_unknown_task_stops_the_run() -> None:
    class Known(EchoEnvironment):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
            task = (options or {})["task"]
            return super().reset(seed=seed, options={"task": task.id})

    policy = Witness(lambda _: "x")
    asked = [*requests(3), Request("odd", "g", Task("echo/9", "", 3), 0), *requests(30)]
    with closing(Rollouts(Known, policy, concurrency=2)) as rollouts:
        with pytest.raises(UnknownNameError, match="echo/9"):
            asyncio.run(rollouts.run(asked))
        assert len(policy.begun) < 10, "nothing is gained by going on"
        assert sorted(policy.begun) == sorted(policy.ended)


@pytest.mark.parametrize("remote", [False, True])
def test_a_task_that_is_not_what_it_claims_stops_the_run(pool: WorkerPool, remote: bool) -> None:
    policy = Witness(lambda context: "refuse" if context.rollout_id == "r2" else "x")
    with closing(Rollouts(pool.environment if remote else EchoEnvironment, policy, concurrency=2)) as rollouts:
        with pytest.raises(TaskError, match="not what it claims"):
            asyncio.run(rollouts.run(requests(30)))
        assert not any("~" in name for name in policy.begun), "a wrong task is not tried again"


@pytest.mark.parametrize("concurrency", [1, 3])
def test_cancelling_ends_every_episode_at_its_next_turn(concurrency: int) -> None:
    seen: list[Outcome] = []

    def choose(context: Context) -> str:
        if len(seen) >= 4:
            rollouts.cancel()
        return "x"

    policy = Witness(choose)
    with closing(Rollouts(EchoEnvironment, policy, concurrency=concurrency)) as rollouts:
        asked = requests(15)
        outcomes = asyncio.run(rollouts.run(asked, on_outcome=seen.append))
        assert [name_of(outcome) for outcome in outcomes] == [request.rollout_id for request in asked]
        kinds = Counter(type(outcome) for outcome in outcomes)
        assert set(kinds) == {Completed, Cancelled}
        assert 4 <= kinds[Completed] <= 4 + concurrency
        assert len(seen) == 15
        assert sorted(policy.begun) == sorted(policy.ended)
        seen.clear()
        again = asyncio.run(rollouts.run(requests(2)))
        assert all(isinstance(outcome, Completed) for outcome in again), "the next run is another matter"


@pytest.mark.parametrize("moment", range(8))
def test_a_run_cancelled_from_outside_leaves_nobody_playing(moment: int) -> None:
    policy = Witness(lambda _: "x")
    asked = requests(20, Task("echo/0", "Say something.", 100))

    async def scene() -> None:
        task = asyncio.create_task(rollouts.run(asked))
        while not policy.begun:
            await asyncio.sleep(0)
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with closing(Rollouts(EchoEnvironment, policy, concurrency=4)) as rollouts:
        asyncio.run(scene())
    assert sorted(policy.begun) == sorted(policy.ended)
    assert len(policy.begun) <= 4


def test_closing_closes_every_world_and_twice_is_fine() -> None:
    open_now: set[int] = set()

    class Counted(EchoEnvironment):
        def __init__(self) -> None:
            super().__init__()
            open_now.add(id(self))

        def close(self) -> None:
            open_now.discard(id(self))

    policy = Witness(lambda context: "fail" if context.rollout_id in ("r1", "r3") else "x")
    rollouts = Rollouts(Counted, policy, concurrency=2)
    asyncio.run(rollouts.run(requests(6)))
    assert open_now
    rollouts.close()
    rollouts.close()
    deadline = time.monotonic() + 5
    while open_now and time.monotonic() < deadline:  # what failed is closed in a thread
        time.sleep(0.01)
    assert not open_now
