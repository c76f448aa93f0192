"""The loop: imitate until that converges, measure, then roll out, price, credit and step; and measure again.

Everything random is drawn from the run's seed and the number of the step, and each step can end with a commit
(episodes, metrics, then the checkpoint that says how long those files were), so that a run that was killed anywhere
goes on from its last commit as if nothing had happened.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agentgym import registry
from agentgym.config import PretrainConfig, RunConfig, WarmstartConfig
from agentgym.errors import ConfigError, InfrastructureError, StoredRunError
from agentgym.evaluate import Evaluation, evaluate, summarise
from agentgym.policy import Policy, sample_seed
from agentgym.policy.embedded import EmbeddedPolicy, load
from agentgym.policy.scripted import ScriptedPolicy, expert, random_admissible
from agentgym.recipes import resolve
from agentgym.remote import WorkerPool
from agentgym.rollout import Deadlines, Request, Rollouts, completed, group_requests
from agentgym.store import RunFolder
from agentgym.train import imitation
from agentgym.train.advantage import ESTIMATORS, TurnBaseline
from agentgym.train.batch import Row, rows
from agentgym.train.checkpoint import Checkpoints
from agentgym.train.credit import Crediting, Priced, advantages, has_signal, price, value_targets, viable
from agentgym.train.factory import build_model, build_tokenizer, save
from agentgym.train.learner import Learner, Metrics, Objective
from agentgym.train.observer import Observer, Quiet
from agentgym.types import Group, InfraFailure, Outcome, Sampling, Task, Trajectory

State = dict[str, Any]
"""What a checkpoint holds."""
VALUE_WEIGHT = 0.5
"Of the value head's error beside the policy loss, where an estimator needs values."


class Interrupted(Exception):
    """Someone asked the run to stop. What is committed is whole and can be continued."""


class Trainer:
    """One run, from configuration to summary.

    Args:
        run: the run's folder, open for writing.
        observer: is told what happens as it happens.

    Raises:
        UsageError: the configuration asks for an environment, a reward or an option that does not exist.
    """

    def __init__(self, config: RunConfig, run: RunFolder, *, observer: Observer | None = None) -> None:
        self.config, self.run, self.observer = config, run, observer or Quiet()
        self._environment = registry.make(config.env.id, **config.env.options)
        self._shaper = resolve(config.reward.recipe, config.reward.params)
        if "signals" in self._environment.metadata:
            self._shaper.require({"reward", *self._environment.metadata["signals"]}, f"environment '{config.env.id}'")
        self._checkpoints = Checkpoints(run.path / "checkpoints", keep=config.checkpoint.keep)
        self._crediting = Crediting(
            config.train.advantage, config.train.gamma, config.train.lam, config.train.by_component, config.train.scale
        )
        self._baseline = TurnBaseline(gamma=config.train.gamma)
        self._sampling = Sampling(config.policy.temperature, config.policy.max_tokens)
        self._pool = WorkerPool(
            config.env.id, config.env.options, workers=config.env.workers, call_timeout_s=config.env.call_timeout_s
        )
        self._stop_asked = False
        self._commits = 0
        self._wall_before, self._started = 0.0, time.monotonic()
        self._before: dict[str, Any] = {}
        if config.threads is not None:
            torch.set_num_threads(config.threads)

    def stop(self) -> None:
        """Ask the run to end, committed, after the step it is in."""
        self._stop_asked = True

    async def train(self) -> dict[str, Any]:
        """Run, or continue, until the configured steps are taken; return the summary.

        Raises:
            Interrupted: `stop` was called.
            InfrastructureError: worlds or the engine fail again and again.
            StoredRunError: the run cannot be written or continued.
        """
        try:
            state = self._restore()
            model, tokenizer = await self._model()
            phases = {"pretrain": self._pretrain, "warmstart": self._warmstart, "train": self._reinforce}
            names = list(phases)
            for name in names[names.index(state["phase"]) if state else 0 :]:
                await phases[name](model, tokenizer, state)
                state = None
            return self._summary(await self._measure(model, tokenizer, "after"))
        finally:
            self._pool.close()
            self._environment.close()

    # ------------------------------------------------------------------------------------------------- preparing

    async def _model(self) -> tuple[Any, Any]:
        """Return the model and tokenizer the run starts from: the user's own, this run's, or a new one."""
        config = self.config.model
        folder = self.run.path / "init"
        if config.path is not None:
            return load(config.path, dtype=config.dtype)
        if not (folder / "config.json").is_file():
            tokenizer = build_tokenizer(
                await self._corpus(),
                kind=config.tokenizer,
                vocab_size=config.vocab_size,
                max_context=config.max_context,
            )
            model = build_model(
                tokenizer,
                layers=config.layers,
                width=config.width,
                heads=config.heads,
                kv_heads=config.kv_heads,
                ff=config.ff,
                max_context=config.max_context,
                seed=self.config.seed,
            )
            _save_whole(model, tokenizer, folder)
        return load(folder, dtype=config.dtype)

    async def _corpus(self) -> list[str]:
        """Return what there is to read: the demonstrations, and what a random player meets in the training tasks."""
        episodes = await self._random_plays(1)
        if self.config.warmstart.episodes:
            episodes += await self._demonstrations()
        return [
            message.content
            for trajectory in episodes
            for observation in (*(turn.observation for turn in trajectory.turns), trajectory.final_observation)
            for message in observation
        ] + [turn.sample.message.content for trajectory in episodes for turn in trajectory.turns]

    async def _random_plays(self, plays: int) -> list[Trajectory]:
        tasks = await self._tasks(self.config.train.split, self._train_tasks())
        return await self._play("play at random", tasks * plays, ScriptedPolicy(random_admissible))

    async def _demonstrations(self) -> list[Trajectory]:
        tasks = await self._tasks(self.config.warmstart.split, self.config.warmstart.episodes)
        return await self._play("watch the expert", tasks, ScriptedPolicy(expert))

    async def _play(self, name: str, tasks: Sequence[Task], policy: Policy) -> list[Trajectory]:
        """Play each task once with a scripted policy."""
        self._leave_if_asked()
        self.observer.phase(name, len(tasks))
        seed = self.config.seed
        requests = [Request(f"{name}/{i}", name, task, sample_seed(seed, i)) for i, task in enumerate(tasks)]
        with self._rollouts(policy) as rollouts:
            return completed(await rollouts.run(requests, on_outcome=self._tick))

    async def _tasks(self, split: str, count: int) -> list[Task]:
        """Return the first ``count`` tasks of a split, ready to be played."""
        tasks = self._environment.tasks(split)
        self.observer.phase(f"prepare the {split} tasks", len(tasks))
        done = 0

        def progress(ready: int, total: int) -> None:
            nonlocal done
            self._leave_if_asked()
            self.observer.advance(ready - done)
            done = ready

        prepare = partial(self._environment.prepare, split, workers=self.config.env.workers, progress=progress)
        await asyncio.get_running_loop().run_in_executor(None, prepare)
        return list(tasks[:count])

    def _train_tasks(self) -> int:
        available = len(self._environment.tasks(self.config.train.split))
        return min(available, self.config.train.steps * self.config.train.groups)

    # ------------------------------------------------------------------------------------------------- supervision

    async def _pretrain(self, model: Any, tokenizer: Any, state: State | None) -> None:
        """Teach a new model the language of the training worlds, from random play alone."""
        if self.config.model.path is not None or not self.config.pretrain.plays:
            return
        renderer = self._policy(model, tokenizer).renderer
        plays = await self._random_plays(self.config.pretrain.plays)
        shown = [imitation.as_row(renderer, trajectory, read=True) for trajectory in plays]
        await self._supervise("pretrain", "read the worlds", self.config.pretrain, model, shown, state)

    async def _warmstart(self, model: Any, tokenizer: Any, state: State | None) -> None:
        """Learn from the expert, and measure how well that does."""
        if self.config.warmstart.episodes:
            trajectories = await self._demonstrations()
            renderer = self._policy(model, tokenizer).renderer
            imitation.check_rendering(renderer, trajectories[0])
            shown = [imitation.as_row(renderer, trajectory) for trajectory in trajectories]
            await self._supervise("warmstart", "learn from the expert", self.config.warmstart, model, shown, state)
        save(model, tokenizer, self.run.path / "warmstart")
        self._before = await self._measure(model, tokenizer, "before")

    async def _supervise(
        self,
        phase: str,
        title: str,
        config: PretrainConfig | WarmstartConfig,
        model: Any,
        shown: Sequence[Row],
        state: State | None,
    ) -> None:
        """Learn from ``shown`` until the held-out loss stops falling, and leave the model at its best."""
        train, valid = imitation.split(shown, config.valid_fraction)
        steps_an_epoch = sum(len(row.ids_N) for row in train) // config.batch_tokens + 1
        learner = self._learner(
            model,
            lr=config.lr,
            weight_decay=self.config.warmstart.weight_decay,
            warmup_steps=min(20, steps_an_epoch),
            decay_steps=steps_an_epoch * config.max_epochs,
        )
        progress = imitation.Progress()
        if state is not None:
            learner.load_state(state["learner"])
            progress = imitation.Progress(**state["progress"])
        epochs = imitation.epochs(
            learner, train, valid, progress, batch_tokens=config.batch_tokens, seed=self.config.seed
        )
        self.observer.phase(title, config.max_epochs)
        self.observer.advance(progress.epoch)
        while not progress.converged(config.patience, config.max_epochs):
            await _in_thread(partial(next, epochs))
            self._record(phase, progress.epoch, progress.losses())
            self._commit(phase=phase, learner=learner.state(), progress=progress.state())
            self.observer.advance(1)
        if not progress.best_model:
            raise ConfigError(f"{phase}.lr: with {config.lr:g} the held-out loss is not a number; choose a smaller one")
        model.load_state_dict(progress.best_model)

    # --------------------------------------------------------------------------------------------- reinforcement

    async def _reinforce(self, model: Any, tokenizer: Any, state: State | None) -> None:
        """Take the configured steps."""
        config = self.config
        learner = self._learner(
            model,
            lr=config.train.lr,
            weight_decay=config.train.weight_decay,
            warmup_steps=config.train.warmup_steps,
            objective=self._objective(),
        )
        step = 0
        if state is not None:
            learner.load_state(state["learner"])
            self._baseline = TurnBaseline.from_state(state["baseline"])
            step, self._before = state["step"], state["before"]
        else:
            self._commit_step(0, learner)
        tasks = await self._tasks(config.train.split, self._train_tasks())
        policy = self._policy(model, tokenizer, version=learner.steps)
        try:
            with self._rollouts(policy) as rollouts:
                self._announce(step)
                while step < config.train.steps:
                    step += 1
                    self._record("train", step, await self._step(step, tasks, rollouts, policy, learner))
                    if config.eval.every and step % config.eval.every == 0:
                        await self._evaluate(policy, config.eval.split, config.eval.games, "during", step)
                        self._announce(step - 1)
                    if step % config.checkpoint.every == 0 or step == config.train.steps or self._stop_asked:
                        self._commit_step(step, learner)
                    self.observer.advance(1)
        finally:
            policy.close()
        save(model, tokenizer, self.run.path / "model")

    def _announce(self, step: int) -> None:
        self.observer.phase("reinforcement", self.config.train.steps)
        self.observer.advance(step)

    async def _step(
        self, step: int, tasks: Sequence[Task], rollouts: Rollouts, policy: EmbeddedPolicy, learner: Learner
    ) -> Metrics:
        """Roll out, price, credit, learn; return what was measured."""
        config = self.config.train
        started, decoded, read = time.monotonic(), policy.seconds, policy.tokens
        requests = [
            request
            for position, task in enumerate(self._draw(tasks, step))
            for request in group_requests(
                task,
                size=config.group_size,
                step=step,
                position=position,
                seed=self.config.seed,
                sampling=self._sampling,
            )
        ]
        outcomes = await rollouts.run(requests)
        rolled = time.monotonic()
        siblings = 2 if ESTIMATORS[config.advantage].compares else 1
        priced = price(self._shaper, _groups(outcomes, step, siblings))
        self.run.append_episodes(step, [(p.group, p.ledgers) for p in priced])
        batch, kept = self._credit(priced, learner)
        learned: Metrics = await _in_thread(partial(self._learn, learner, batch, step))
        policy.update(learner.steps)
        ended = time.monotonic()
        tokens = [now - before for now, before in zip(policy.tokens, read, strict=True)]
        spent = {
            "decode": policy.seconds - decoded,
            "worlds": rolled - started - (policy.seconds - decoded),
            "learn": learned.pop("seconds", 0.0),
        }
        spent["other"] = ended - started - sum(spent.values())
        return (
            _reported(priced, self.config.eval.success)
            | learned
            | {f"share/{name}": seconds / (ended - started) for name, seconds in spent.items()}
            | {
                "step_s": ended - started,
                "tokens_per_s": sum(tokens) / (ended - started),
                "tokens_sampled": float(tokens[1]),
                "groups": float(len(priced)),
                "groups_without_variance": float(len(priced) - kept),
                "episodes": float(sum(len(p.trajectories) for p in priced)),
                "episodes_lost": float(sum(isinstance(outcome, InfraFailure) for outcome in outcomes)),
            }
        )

    def _draw(self, tasks: Sequence[Task], step: int) -> list[Task]:
        """Return the tasks of a step: the split in an order shuffled anew each time it has been gone through."""
        chosen = []
        for position in range((step - 1) * self.config.train.groups, step * self.config.train.groups):
            epoch, index = divmod(position, len(tasks))
            order = np.random.default_rng(sample_seed(self.config.seed, epoch)).permutation(len(tasks))
            chosen.append(tasks[order[index]])
        return chosen

    def _credit(self, priced: Sequence[Priced], learner: Learner) -> tuple[list[Row], int]:
        """Return the rows to learn from, and how many groups they come from: those whose rollouts differ."""
        values = [self._values(p, learner) if self._crediting.name == "gae" else None for p in priced]
        credit = advantages(priced, self._crediting, baseline=self._baseline, values=values)
        targets = value_targets(priced, self._crediting, values=values)
        batch: list[Row] = []
        kept = 0
        for p, advantage_GT, target_GT in zip(priced, credit, targets, strict=True):
            if not has_signal(advantage_GT):
                continue
            kept += 1
            for g, trajectory in enumerate(p.trajectories):
                turns = len(trajectory.turns)
                target = None if target_GT is None else target_GT[g, :turns]
                batch += rows(trajectory, advantage_GT[g, :turns], target, version=learner.steps)
        return batch, kept

    def _values(self, priced: Priced, learner: Learner) -> np.ndarray[Any, np.dtype[np.float64]]:
        longest = max(len(trajectory.turns) for trajectory in priced.trajectories)
        values = np.zeros((len(priced.trajectories), longest + 1))
        for g, trajectory in enumerate(priced.trajectories):
            estimates = np.concatenate(learner.values(rows(trajectory)))
            values[g, : len(estimates)] = estimates
        return values

    def _learn(self, learner: Learner, batch: Sequence[Row], step: int) -> Metrics:
        """Take the optimiser steps of one training step; return their mean metrics."""
        started = time.monotonic()
        taken: list[Metrics] = []
        for epoch in range(self.config.train.epochs if batch else 0):
            order = np.random.default_rng(sample_seed(self.config.seed, step, epoch)).permutation(len(batch))
            for part in np.array_split(order, min(self.config.train.minibatches, len(batch))):
                taken.append(learner.reinforce([batch[i] for i in part]))
        means = {name: float(np.mean([metrics[name] for metrics in taken])) for name in (taken[0] if taken else ())}
        return means | {"seconds": time.monotonic() - started}

    # -------------------------------------------------------------------------------------------------- measuring

    async def _measure(self, model: Any, tokenizer: Any, kind: str) -> dict[str, Any]:
        """Evaluate on the final split, which nothing was learned on or chosen by."""
        self._leave_if_asked()
        policy = self._policy(model, tokenizer)
        try:
            config = self.config.eval
            return (await self._evaluate(policy, config.final_split, config.final_games, kind, 0)).as_dict()
        finally:
            policy.close()

    async def _evaluate(self, policy: Policy, split: str, games: int, kind: str, step: int) -> Evaluation:
        tasks = await self._tasks(split, games)
        self.observer.phase(f"evaluate on {split}", len(tasks))
        sampling = Sampling(self.config.eval.temperature, self.config.policy.max_tokens)
        with self._rollouts(policy) as rollouts:
            evaluation, _ = await evaluate(
                rollouts,
                tasks,
                success=self.config.eval.success,
                seed=self.config.seed,
                sampling=sampling,
                on_outcome=self._tick,
            )
        self._record(f"eval_{kind}", step, evaluation.as_dict())
        return evaluation

    def _summary(self, after: dict[str, Any]) -> dict[str, Any]:
        summary = {
            "success_before": self._before["success"],
            "success_after": after["success"],
            "before": self._before,
            "after": after,
            "episodes": self.run.episodes,
            "steps": self.config.train.steps,
            "wall_s": self._wall(),
            "seed": self.config.seed,
        }
        self.run.write_summary(summary)
        return summary

    # ---------------------------------------------------------------------------------------------------- storing

    def _restore(self) -> State | None:
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

    def _commit_step(self, step: int, learner: Learner) -> None:
        self._commit(
            phase="train", step=step, learner=learner.state(), baseline=self._baseline.state(), before=self._before
        )

    def _commit(self, **state: Any) -> None:
        """Make everything so far survive a kill, then stop if that was asked for."""
        self._commits += 1
        files = self.run.commit()
        self._checkpoints.save(
            self._commits, state | {"files": files, "wall_s": self._wall(), "step_of_commit": self._commits}
        )
        self._leave_if_asked()

    def _leave_if_asked(self) -> None:
        if self._stop_asked:
            raise Interrupted

    def _record(self, kind: str, step: int, metrics: dict[str, Any]) -> None:
        self.run.append_metrics({"kind": kind, "step": step, "wall_s": round(self._wall(), 3)} | metrics)
        self.observer.measured(kind, step, metrics)

    def _wall(self) -> float:
        return self._wall_before + time.monotonic() - self._started

    # ----------------------------------------------------------------------------------------------------- parts

    def _policy(self, model: Any, tokenizer: Any, *, version: int = 0) -> EmbeddedPolicy:
        return EmbeddedPolicy(
            model,
            tokenizer,
            max_context=self.config.model.max_context,
            version=version,
            lockstep=self.config.deterministic,
        )

    def _learner(self, model: Any, *, lr: float, weight_decay: float, **settings: Any) -> Learner:
        return Learner(
            model,
            lr=lr,
            weight_decay=weight_decay,
            max_grad_norm=self.config.train.max_grad_norm,
            token_budget=self.config.train.token_budget,
            **settings,
        )

    def _objective(self) -> Objective:
        config = self.config.train
        return Objective(
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            kl=config.kl,
            entropy=config.entropy,
            value=VALUE_WEIGHT if config.advantage == "gae" else 0.0,
        )

    @contextmanager
    def _rollouts(self, policy: Policy) -> Iterator[Rollouts]:
        config = self.config
        rollouts = Rollouts(
            self._pool.environment,
            policy,
            concurrency=config.env.concurrency,
            retries=config.env.retries,
            deadlines=Deadlines(config.env.call_timeout_s, config.policy.turn_deadline_s),
        )
        try:
            yield rollouts
        finally:
            rollouts.close()

    def _tick(self, outcome: Outcome) -> None:
        self.observer.advance(1)


def _groups(outcomes: Sequence[Outcome], step: int, least: int) -> list[Group]:
    """Return the groups of at least so many rollouts that say something about the policy."""
    siblings: dict[str, list[Trajectory]] = {}
    for trajectory in viable(completed(outcomes)):
        siblings.setdefault(trajectory.group_id, []).append(trajectory)
    return [Group(tuple(group), step) for _, group in sorted(siblings.items()) if len(group) >= least]


def _reported(priced: Sequence[Priced], success: str) -> Metrics:
    """Return what the episodes earned, by component, and how they went."""
    trajectories = [trajectory for p in priced for trajectory in p.trajectories]
    if not trajectories:
        raise InfrastructureError("every episode of this step was lost; nothing can be learned")
    ledgers = [ledger for p in priced for ledger in p.ledgers]
    report = summarise(trajectories, success=success)
    paid = np.mean([np.where(ledger.mask_CT(), ledger.credit_CT(), 0).sum(1) for ledger in ledgers], axis=0)
    return {
        "success": report.success,
        "turns": report.turns,
        "return": float(paid.sum()),
        **{f"reward/{name}": float(value) for name, value in zip(ledgers[0].component_names, paid, strict=True)},
        "truncated": sum(t.stop.truncated for t in trajectories) / len(trajectories),
    }


def _save_whole(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model folder that a kill leaves complete or absent."""
    beside = folder.with_name(f".{folder.name}.partial")
    for leftover in (beside, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    save(model, tokenizer, beside)
    os.replace(beside, folder)


async def _in_thread(call: Callable[[], Any]) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, call)


__all__ = ["Interrupted", "Trainer"]
