"""Episodes: the only place where synchronous worlds and asynchronous policies meet.

Every rollout that is asked for ends in exactly one `Outcome`. A fault of the infrastructure (a dead worker, a deadline,
a failing engine) is tried again in a fresh environment, then reported, and never scored. Every wait has a deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from agentgym.admission import Gate
from agentgym.clock import Clock
from agentgym.env import Environment
from agentgym.errors import AgentgymError, DeadlineError, InfrastructureError, UsageError
from agentgym.policy import Context, Policy, sample_seed
from agentgym.types import (
    Cancelled,
    Completed,
    InfraFailure,
    Message,
    Outcome,
    Sampling,
    Signal,
    StopReason,
    Task,
    TokenIds,
    Trajectory,
    Turn,
)

T = TypeVar("T")
_NO_IDS: TokenIds = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class Request:
    """One rollout to be made."""

    rollout_id: str
    group_id: str
    task: Task
    seed: int
    "Of the world and of every sample of the episode."
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Longest waits, in seconds."""

    step_s: float = 60.0
    "One reset or step of a world."
    turn_s: float = 300.0
    "One answer of the policy."


class Rollouts:
    """Runs episodes, many at once.

    Args:
        make_environment: gives a fresh environment; called from a thread, again whenever one was lost.
        concurrency: episodes in flight, of all that run at the same time.
        retries: fresh attempts at a rollout that the infrastructure lost.
        give_up_after: rollouts lost in a row after which the run is stopped rather than continued on nothing.
        limit: says how many episodes may be in flight now, where that is fewer; asked whenever one begins or ends.
        clock: is told when worlds are waited for.
    """

    def __init__(
        self,
        make_environment: Callable[[], Environment],
        policy: Policy,
        *,
        concurrency: int,
        retries: int = 2,
        deadlines: Deadlines = Deadlines(),
        give_up_after: int = 16,
        limit: Callable[[], int] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._make_environment, self._policy, self._deadlines = make_environment, policy, deadlines
        self._retries, self._give_up_after = retries, give_up_after
        self._concurrency = concurrency
        self._gate = Gate(lambda: concurrency if limit is None else min(concurrency, limit()))
        self._idle: list[Environment] = []
        self._busy: dict[Environment, Future[Any]] = {}
        self._threads = self._new_threads()
        self._lost_in_a_row = 0
        self._cancelled = False
        self._next: dict[str, Task] = {}
        "Rollout -> the task that its environment will probably be asked for afterwards."
        self._clock = clock or Clock()

    async def run(
        self, requests: Sequence[Request], *, on_outcome: Callable[[Outcome], None] | None = None
    ) -> list[Outcome]:
        """Run all ``requests`` and return their outcomes in the same order.

        Raises:
            UsageError: a task or setting is wrong; nothing would be gained by going on.
            InfrastructureError: ``give_up_after`` rollouts were lost in a row.
        """
        self._cancelled = False
        outcomes: list[Outcome | None] = [None] * len(requests)
        later = requests[self._concurrency :]
        self._next |= {request.rollout_id: after.task for request, after in zip(requests, later, strict=False)}
        queue = iter(enumerate(requests))

        async def work() -> None:
            for index, request in queue:
                async with self._gate():
                    outcome = await self._attempt(request)
                self._next.pop(request.rollout_id, None)
                outcomes[index] = outcome
                if on_outcome is not None:
                    on_outcome(outcome)

        workers = [asyncio.create_task(work()) for _ in range(min(self._concurrency, len(requests)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [
            outcome if outcome is not None else Cancelled(requests[i].rollout_id) for i, outcome in enumerate(outcomes)
        ]

    def cancel(self) -> None:
        """End every episode at its next turn, with the outcome `Cancelled`."""
        self._cancelled = True

    def close(self) -> None:
        """Close every environment. Twice is fine."""
        while self._idle:
            self._idle.pop().close()
        self._threads.shutdown(wait=False)

    async def _attempt(self, request: Request) -> Outcome:
        cause = ""
        for attempt in range(self._retries + 1):
            if self._cancelled:
                return Cancelled(request.rollout_id)
            try:
                # Tried again, it is another rollout to the policy: the old one's cache must not be taken for its own.
                name = request.rollout_id if attempt == 0 else f"{request.rollout_id}~{attempt}"
                outcome = await self._episode(request, name)
            except UsageError:
                raise
            except InfrastructureError as error:
                cause = f"{type(error).__name__}: {error}"
                continue
            self._lost_in_a_row = 0
            return outcome
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= self._give_up_after:
            raise InfrastructureError(f"{self._lost_in_a_row} rollouts in a row were lost; the last one to: {cause}")
        return InfraFailure(request.rollout_id, cause, retryable=True)

    async def _episode(self, request: Request, name: str) -> Outcome:
        self._policy.begin(name)  # before the first wait, so that a policy in lockstep counts this rollout
        environment: Environment | None = None
        try:
            environment = self._idle.pop() if self._idle else await self._world(self._make_environment)
            outcome = await self._play(environment, request, name)
            del self._busy[environment]
            self._idle.append(environment)
            return outcome
        except BaseException:
            if environment is not None:  # whatever state it is in, nobody plays in it again
                self._discard(environment)
            raise
        finally:
            self._policy.end(name)

    async def _play(self, environment: Environment, request: Request, name: str) -> Outcome:
        policy, task, renderer = self._policy, request.task, self._policy.renderer
        after = self._next.get(request.rollout_id, task)
        options = {"task": task, "next": after} if after.id != task.id else {"task": task}
        observation, info = await self._world(
            partial(environment.reset, seed=world_seed(request.seed), options=options), environment
        )
        messages: list[Message] = list(observation)
        signals: list[Signal] = list(info["signals"])
        turns: list[Turn] = []
        prompt = renderer.start(messages, info["tools"]) if renderer else _NO_IDS
        buffer = prompt
        segment = 0
        stop: StopReason | None = info["stop"]
        while stop is None:
            if self._cancelled:
                return Cancelled(request.rollout_id)
            room = policy.max_context - len(buffer) if policy.max_context else request.sampling.max_tokens
            if room < 1:
                stop = StopReason.CONTEXT_FULL
                signals.extend(await self._world(environment.conclude, environment))
                break
            started = time.monotonic()
            context = Context(
                rollout_id=name,
                segment=segment,
                messages=tuple(messages),
                token_ids_N=buffer,
                sampling=replace(request.sampling, max_tokens=min(room, request.sampling.max_tokens)),
                seed=sample_seed(request.seed, len(turns)),
                deadline_s=self._deadlines.turn_s,
                privileged=info["privileged"],
            )
            sample = await policy.act(context, info["tools"])
            action = sample.message
            heard, reward, _, _, info = await self._world(partial(environment.step, action), environment)
            t = len(turns)
            turns.append(Turn(observation, sample, prompt, segment=segment, seconds=time.monotonic() - started))
            signals.append(Signal("reward", float(reward), "environment", turn=t))
            signals.extend(info["signals"])
            stop = info["stop"]
            observation = heard
            messages += [action, *heard]
            if renderer is None or stop is not None:
                continue
            if renderer.rewrites:
                prompt = buffer = renderer.start(messages, info["tools"])
                segment += 1
            else:
                prompt = renderer.bridge(sample.finish, heard)
                buffer = np.concatenate([buffer, sample.token_ids_N, prompt])
        return Completed(
            Trajectory(
                id=request.rollout_id,
                group_id=request.group_id,
                task=task,
                turns=tuple(turns),
                final_observation=observation,
                stop=stop,
                signals=tuple(signals),
                seed=request.seed,
            )
        )

    async def _world(self, call: Callable[[], T], environment: Environment | None = None) -> T:
        """Run one call of a world in a thread, under its deadline; whatever escapes it is the world's failure."""
        future = self._threads.submit(call)
        if environment is not None:
            self._busy[environment] = future
        limit = asyncio.timeout(self._deadlines.step_s)  # wait_for may swallow a cancellation, before Python 3.12
        try:
            with self._clock("worlds"):
                async with limit:
                    return await asyncio.wrap_future(future)
        except AgentgymError:
            raise
        except asyncio.CancelledError:
            if environment is None:
                future.add_done_callback(_close_made)
            raise
        except Exception as error:  # the boundary: an environment may raise anything
            if limit.expired():
                if environment is None:
                    future.add_done_callback(_close_made)
                # Its thread may never come back: those who come after get new ones.
                self._threads.shutdown(wait=False)
                self._threads = self._new_threads()
                raise DeadlineError(f"the world did not answer within {self._deadlines.step_s:g} s") from None
            raise InfrastructureError(f"the world failed: {error!r}") from error

    def _discard(self, environment: Environment) -> None:
        """Close ``environment``, but never beside a call that still runs in it."""
        call = self._busy.pop(environment, None)
        if call is None or call.done():
            self._threads.submit(_close_quietly, environment)
        else:
            call.add_done_callback(lambda _: _close_quietly(environment))

    def _new_threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._concurrency, thread_name_prefix="world")


def _close_quietly(environment: Environment) -> None:
    try:
        environment.close()
    except Exception:  # it is being thrown away because it failed
        return


def _close_made(call: Future[Any]) -> None:
    """Close the environment that ``call`` made when nobody waited for it any more."""
    if not call.cancelled() and call.exception() is None:
        _close_quietly(call.result())


def world_seed(seed: int) -> int:
    """Return what a world is seeded by in the rollout of ``seed``: 31 bits, which every engine takes."""
    return seed & 0x7FFFFFFF


def group_requests(task: Task, *, size: int, step: int, position: int, seed: int, sampling: Sampling) -> list[Request]:
    """Return the requests of one group: ``size`` rollouts of ``task`` that differ only in their seeds.

    ``step`` and ``position`` (of the group within the step) make ids and seeds unique and repeatable.
    """
    group_id = f"{step:05d}/{position:03d}"
    return [
        Request(f"{group_id}/{i:02d}", group_id, task, sample_seed(seed, step, position, i), sampling)
        for i in range(size)
    ]


def completed(outcomes: Sequence[Outcome]) -> list[Trajectory]:
    """Return the trajectories of those outcomes that have one."""
    return [outcome.trajectory for outcome in outcomes if isinstance(outcome, Completed)]


__all__ = ["Deadlines", "Request", "Rollouts", "completed", "group_requests", "world_seed"]
