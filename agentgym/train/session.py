"""What the stages of a run share: its world and workers, its folder and checkpoints, how it plays and measures."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import Any, TypeVar

import torch

from agentgym import registry
from agentgym.clock import Clock
from agentgym.config import RunConfig
from agentgym.errors import StoredRunError
from agentgym.evaluate import Evaluation, evaluate
from agentgym.measure import Measuring
from agentgym.policy import Policy, sample_seed
from agentgym.probe import Probe
from agentgym.remote import WorkerPool
from agentgym.rollout import Deadlines, Request, Rollouts, completed
from agentgym.store import RunFolder
from agentgym.train import memory
from agentgym.train.checkpoint import Checkpoints
from agentgym.train.engine import Engine, Engines
from agentgym.train.learner import Economy, Learner
from agentgym.train.observer import Observer, advancing
from agentgym.types import Outcome, Sampling, Task, Trajectory

State = dict[str, Any]
"""What a checkpoint holds."""
T = TypeVar("T")


class Interrupted(Exception):
    """Someone asked the run to stop. What is committed is whole and can be continued."""


class Session:
    """One run's means.

    Raises:
        UsageError: the configuration asks for an environment or an option that does not exist.
    """

    def __init__(self, config: RunConfig, run: RunFolder, observer: Observer) -> None:
        self.config, self.run, self.observer = config, run, observer
        self.environment = registry.make(config.env.id, **config.env.options)
        if where := self.environment.metadata.get("where"):
            observer.say(where)
        self._checkpoints = Checkpoints(run.path / "checkpoints", keep=config.checkpoint.keep)
        self._pool = WorkerPool(
            config.env.id, config.env.options, workers=config.env.workers, call_timeout_s=config.env.call_timeout_s
        )
        memory.require(memory.estimate(config)["total"], *_room(config.model.device))
        self.clock = Clock()
        self._engines = Engines(config, run.path, observer.say, self.clock)
        self.stop_asked = False
        self._commits = 0
        self._wall_before, self._started = 0.0, time.monotonic()
        if config.threads is not None:
            torch.set_num_threads(config.threads)

    def close(self) -> None:
        """End the workers and servers. Twice is fine."""
        self._engines.close()
        self._pool.close()
        self.environment.close()

    async def tasks(self, split: str, count: int) -> list[Task]:
        """Return the first ``count`` tasks of a split, ready to be played."""
        tasks = self.environment.tasks(split)[:count]
        self.observer.phase(f"prepare the {split} tasks", len(tasks))
        advance = advancing(self.observer)

        def progress(ready: int, wanted: int) -> None:
            self.leave_if_asked()
            advance(ready, wanted)

        prepare = partial(
            self.environment.prepare, split, count=count, workers=self.config.env.workers, progress=progress
        )
        await asyncio.get_running_loop().run_in_executor(None, prepare)
        return list(tasks)

    def train_tasks(self) -> int:
        """Return how many training tasks the run will meet."""
        available = len(self.environment.tasks(self.config.train.split))
        return min(available, self.config.train.steps * self.config.train.groups)

    async def play(self, name: str, tasks: Sequence[Task], policy: Policy) -> list[Trajectory]:
        """Play each task once with a scripted policy."""
        self.leave_if_asked()
        self.observer.phase(name, len(tasks))
        seed = self.config.seed
        requests = [Request(f"{name}/{i}", name, task, sample_seed(seed, i)) for i, task in enumerate(tasks)]
        with self.rollouts(policy) as rollouts:
            return completed(await rollouts.run(requests, on_outcome=self.tick))

    @contextmanager
    def rollouts(self, policy: Policy, limit: Callable[[], int] | None = None) -> Iterator[Rollouts]:
        """Give the means to play episodes with ``policy``, at most ``limit`` of them at a time."""
        config = self.config
        rollouts = Rollouts(
            self._pool.environment,
            policy,
            concurrency=config.env.concurrency,
            retries=config.env.retries,
            deadlines=Deadlines(config.env.call_timeout_s, config.policy.turn_deadline_s),
            limit=limit,
            clock=self.clock,
        )
        try:
            yield rollouts
        finally:
            rollouts.close()

    def engine(self, model: Any, tokenizer: Any, *, version: int = 0) -> AbstractAsyncContextManager[Engine]:
        """Return the engine that answers by ``model``'s weights, to be opened."""
        return self._engines.open(model, tokenizer, version=version)

    def measuring(self, probes: Sequence[Probe]) -> Measuring:
        """Return the means to measure episodes by ``probes``, which may reopen their worlds."""
        return Measuring(probes, self._pool.environment)

    def check_history(self, tokenizer: Any) -> None:
        """Say whether turns are rows of their own, and refuse what needs them in one; see `Engines.check_history`."""
        self._engines.check_history(tokenizer)

    def learner(self, model: Any, *, lr: float, weight_decay: float, **settings: Any) -> Learner:
        """Return a learner within the run's limits."""
        train = self.config.train
        return Learner(
            model,
            lr=lr,
            weight_decay=weight_decay,
            max_grad_norm=train.max_grad_norm,
            token_budget=train.token_budget,
            economy=Economy(train.gradient_checkpointing, train.autocast),
            **settings,
        )

    async def measure(self, model: Any, tokenizer: Any, kind: str) -> dict[str, Any]:
        """Evaluate on the final split, which nothing was learned on or chosen by, ``before`` or ``after``."""
        self.leave_if_asked()
        config = self.config.eval
        async with self.engine(model, tokenizer) as engine:
            return (await self.evaluate(engine, config.final_split, config.final_games, kind, 0)).as_dict()

    async def evaluate(self, engine: Engine, split: str, games: int, kind: str, step: int) -> Evaluation:
        """Play ``games`` tasks of a split once each and record how that went as ``eval_`` and ``kind``."""
        tasks = await self.tasks(split, games)
        self.observer.phase(f"evaluate on {split}", len(tasks))
        sampling = Sampling(self.config.eval.temperature, self.config.policy.max_tokens)
        with self.rollouts(engine.policy, engine.limit) as rollouts:
            evaluation, _ = await evaluate(
                rollouts,
                tasks,
                success=self.config.eval.success,
                seed=self.config.seed,
                sampling=sampling,
                on_outcome=self.tick,
            )
        self.record(f"eval_{kind}", step, evaluation.as_dict())
        return evaluation

    def restore(self) -> State | None:
        """Return the state of the last commit, the run's files cut back to it; None for a new run."""
        state, left = self._checkpoints.load()
        for line in left:
            self.observer.say(line)
        if left and state is None:
            raise StoredRunError(
                f"no checkpoint of '{self.run.path}' can be read; {left[0]}; put one back, start a new run, or remove "
                f"'{self.run.path / 'checkpoints'}' to begin this one again from nothing"
            )
        for line in self.run.rewind(state["files"] if state else {}):
            self.observer.say(line)
        if state is not None:
            self._commits, self._wall_before = state["step_of_commit"], state["wall_s"]
        return state

    def commit(self, **state: Any) -> None:
        """Make everything so far survive a kill, then stop if that was asked for."""
        self._commits += 1
        files = self.run.commit()
        self._checkpoints.save(
            self._commits, state | {"files": files, "wall_s": self.wall(), "step_of_commit": self._commits}
        )
        self.leave_if_asked()

    def leave_if_asked(self) -> None:
        """Raise `Interrupted` once `stop` was called."""
        if self.stop_asked:
            raise Interrupted

    def record(self, kind: str, step: int, metrics: dict[str, Any]) -> None:
        """Add a line to the run's metrics, and tell the observer."""
        self.run.append_metrics({"kind": kind, "step": step, "wall_s": round(self.wall(), 3)} | metrics)
        self.observer.measured(kind, step, metrics)

    def wall(self) -> float:
        """Return the seconds the run has taken, those before a resume included."""
        return self._wall_before + time.monotonic() - self._started

    def tick(self, outcome: Outcome) -> None:
        """Count a finished episode."""
        self.observer.advance(1)


def _room(device: str) -> tuple[int, str]:
    """Return the bytes of memory where the model learns, and where that is."""
    if device == "cuda" and torch.cuda.is_available():
        return torch.cuda.mem_get_info()[1], torch.cuda.get_device_name()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "this machine"


async def in_thread(call: Callable[[], T]) -> T:
    """Run ``call`` beside the event loop and return its result."""
    return await asyncio.get_running_loop().run_in_executor(None, call)


__all__ = ["Interrupted", "Session", "State", "in_thread"]
