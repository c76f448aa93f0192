"""The loop: imitate until that converges, measure, then roll out, price, credit and step; and measure again.

Everything random is drawn from the run's seed and the number of the step, and each step can end with a commit
(episodes, metrics, then the checkpoint that says how long those files were), so that a run that was killed anywhere
goes on from its last commit as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import numpy as np

from agentgym.clock import OTHER
from agentgym.config import RunConfig
from agentgym.measure import Measuring
from agentgym.policy import sample_seed
from agentgym.probes import reward_and_probes
from agentgym.render import Renderer
from agentgym.rollout import Rollouts, completed, group_requests
from agentgym.store import RunFolder, read_metrics
from agentgym.train.advantage import ESTIMATORS, NegativeScaling, TurnBaseline
from agentgym.train.alarms import Alarm, alarms, as_metrics, read_alarms
from agentgym.train.batch import Row, looking_ahead, rows
from agentgym.train.correction import Correction, off_policy
from agentgym.train.credit import (
    Crediting,
    Priced,
    advantages,
    has_signal,
    observed,
    price,
    stood,
    value_targets,
    viable,
)
from agentgym.train.curriculum import Curriculum
from agentgym.train.engine import Engine
from agentgym.train.factory import save
from agentgym.train.learner import Learner, Metrics, Objective
from agentgym.train.observer import Observer, Quiet
from agentgym.train.pacing import Ahead
from agentgym.train.reference import Reference, reference
from agentgym.train.report import asked, reported, time_split
from agentgym.train.session import Interrupted, Session, State, in_thread
from agentgym.train.supervision import pretrain, starting_model, warmstart
from agentgym.types import Group, InfraFailure, Outcome, Sampling, Trajectory

VALUE_WEIGHT = 0.5
"Of the value head's error beside the policy loss, where an estimator needs values."


class Trainer:
    """One run, from configuration to summary.

    Args:
        run: the run's folder, open for writing.
        observer: is told what happens as it happens.

    Raises:
        UsageError: the configuration asks for an environment, a reward, a probe or an option that does not exist.
    """

    def __init__(self, config: RunConfig, run: RunFolder, *, observer: Observer | None = None) -> None:
        self.config = config
        self._session = Session(config, run, observer or Quiet())
        emitted = self._session.environment.metadata.get("signals")
        self._shaper, self._probes = reward_and_probes(config, emitted)
        self._crediting = _crediting(config)
        self._baseline = TurnBaseline(gamma=config.train.gamma)
        self._curriculum = _curriculum(config, self._session)
        self._sampling = Sampling(config.policy.temperature, config.policy.max_tokens)
        self._lag = config.train.max_lag * config.train.epochs * config.train.minibatches
        "The same bound in optimiser steps, by which versions count."
        self._anchor = Reference("start")
        self._before: dict[str, Any] = {}
        self._history: list[tuple[int, Metrics]] = []
        self._alarms: dict[str, Alarm] = {}
        "Every alarm of the run by name, as it stood last."

    def stop(self) -> None:
        """Ask the run to end, committed, after the step it is in."""
        self._session.stop_asked = True

    async def train(self) -> dict[str, Any]:
        """Run, or continue, until the configured steps are taken; return the summary.

        Raises:
            Interrupted: `stop` was called.
            InfrastructureError: worlds or the engine fail again and again.
            StoredRunError: the run cannot be written or continued.
        """
        session = self._session
        try:
            state = session.restore()
            model, tokenizer = await starting_model(session)
            session.check_history(tokenizer)
            phase = state["phase"] if state else "pretrain"
            if phase == "pretrain":
                await pretrain(session, model, tokenizer, state)
                state = None
            if phase != "train":
                self._before = await warmstart(session, model, tokenizer, state)
                state = None
            anchored = reference(self.config, model, tokenizer)
            async with session.measuring(self._probes) as measuring, anchored as anchor:
                await self._reinforce(model, tokenizer, state, measuring, anchor)
            return self._summary(await session.measure(model, tokenizer, "after"))
        finally:
            session.close()

    async def _reinforce(
        self, model: Any, tokenizer: Any, state: State | None, measuring: Measuring, anchor: Reference
    ) -> None:
        """Take the configured steps."""
        config = self.config
        self._anchor = anchor
        updates = config.train.steps * config.train.epochs * config.train.minibatches
        learner = self._session.learner(
            model,
            lr=config.train.lr,
            weight_decay=config.train.weight_decay,
            warmup_steps=config.train.warmup_steps,
            decay_steps=round(config.train.decay * updates),
            total_steps=updates,
            objective=self._objective(),
            reference=anchor.model,
        )
        step = 0
        if state is not None:
            learner.load_state(state.pop("learner"))  # or weights and moments would be held twice to the end
            self._baseline = TurnBaseline.from_state(state["baseline"])
            self._curriculum.load_state(state["curriculum"])
            step, self._before = state["step"], state["before"]
            for line in read_metrics(self._session.run.path).records:
                if line["kind"] == "train":
                    self._history.append((line["step"], line))
                    self._alarms |= read_alarms(line)
        else:
            self._commit_step(0, learner)
        await self._session.tasks(config.train.split, self._session.train_tasks())
        async with self._session.engine(model, tokenizer, version=learner.steps) as engine:
            with self._session.rollouts(engine.policy, engine.limit) as rollouts:
                play = partial(self._play, rollouts)
                async with aclosing(Ahead(play, lag=config.train.max_lag, last=config.train.steps)) as ahead:
                    await self._take_steps(step, ahead, measuring, engine, learner)
        save(model, tokenizer, self._session.run.path / "model")

    async def _take_steps(
        self, step: int, ahead: Ahead[list[Outcome]], measuring: Measuring, engine: Engine, learner: Learner
    ) -> None:
        """Take the steps after ``step``, measured and committed as often as the configuration says."""
        config = self.config
        self._announce(step)
        while step < config.train.steps:
            step += 1
            metrics = await self._step(step, ahead, measuring, engine, learner)
            self._session.record("train", step, metrics | self._watch(step, metrics, say=True))
            if config.eval.every and step % config.eval.every == 0:
                await self._session.evaluate(engine, config.eval.split, config.eval.games, "during", step)
                self._announce(step - 1)
            if step % config.checkpoint.every == 0 or step == config.train.steps or self._session.stop_asked:
                self._commit_step(step, learner)
            self._session.observer.advance(1)

    def _watch(self, step: int, metrics: Metrics, *, say: bool = False) -> Metrics:
        """Take a step in; return, as metrics, the alarms that stand after it and the steps they began at."""
        self._history.append((step, metrics))
        standing = {alarm.name: alarm for alarm in alarms(self._history)}
        for alarm in standing.values():
            if say and self._alarms.get(alarm.name) != alarm:
                self._session.observer.say(str(alarm))
        self._alarms |= standing
        return as_metrics(standing.values())

    def _announce(self, step: int) -> None:
        self._session.observer.phase("reinforcement", self.config.train.steps)
        self._session.observer.advance(step)

    async def _play(self, rollouts: Rollouts, step: int) -> list[Outcome]:
        """Roll out the groups of a step."""
        requests = [
            request
            for position, task in enumerate(self._curriculum.draw(step, self.config.train.groups))
            for request in group_requests(
                task,
                size=self.config.train.group_size,
                step=step,
                position=position,
                seed=self.config.seed,
                sampling=self._sampling,
            )
        ]
        return await rollouts.run(requests)

    async def _step(
        self, step: int, ahead: Ahead[list[Outcome]], measuring: Measuring, engine: Engine, learner: Learner
    ) -> Metrics:
        """Roll out, measure, price, credit, learn; return what was measured."""
        config, policy = self.config.train, engine.policy
        clock = self._session.clock
        before, read = clock.read(), policy.tokens
        outcomes = await ahead.of(step)
        siblings = 2 if ESTIMATORS[config.advantage].compares else 1
        with clock("judge"):
            groups, found = await measuring.groups(_groups(outcomes, step, siblings))
        priced = price(self._shaper, groups)
        drawn = self._curriculum.metrics(step)
        self._curriculum.learn(priced, self.config.eval.success)
        self._session.run.append_episodes(step, [(p.group, p.ledgers) for p in priced])
        batch, kept = self._credit(priced, learner, policy.renderer)
        with clock("learn"):
            batch = await self._anchor.remember(batch)
            learned: Metrics = await in_thread(partial(self._learn, learner, batch, step))
        with clock("sync"):
            synced = await engine.sync.push(learner.steps)
        tokens = [now - then for now, then in zip(policy.tokens, read, strict=True)]
        spent = {name: seconds - before[name] for name, seconds in clock.read().items()}
        for name, used in (("judge", self._probes), ("sync", synced)):
            if not used:
                spent[OTHER] += spent.pop(name)
        took = sum(spent.values())
        return (
            reported(priced, self.config.eval.success)
            | drawn
            | (asked(found) if self._probes else {})
            | learned
            | (synced | engine.metrics() if synced else {})
            | {f"share/{name}": seconds / took for name, seconds in spent.items()}
            | {
                "step_s": took,
                "tokens_per_s": sum(tokens) / took,
                "tokens_sampled": float(tokens[1]),
                "groups": float(len(priced)),
                "groups_without_variance": float(len(priced) - kept),
                "episodes": float(sum(len(p.trajectories) for p in priced)),
                "episodes_lost": float(sum(isinstance(outcome, InfraFailure) for outcome in outcomes)),
            }
        )

    def _credit(self, priced: Sequence[Priced], learner: Learner, renderer: Renderer) -> tuple[list[Row], int]:
        """Return the rows to learn from, and how many groups they come from: those whose rollouts differ."""
        values = [self._values(p, learner, renderer) if self._crediting.name == "gae" else None for p in priced]
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
                batch += rows(trajectory, advantage_GT[g, :turns], target, version=learner.steps, lag=self._lag)
        return batch, kept

    def _values(self, priced: Priced, learner: Learner, renderer: Renderer) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return what the value head says (G, T + 1) before each turn, and after the end of truncated episodes."""
        longest = max(len(trajectory.turns) for trajectory in priced.trajectories)
        values = np.zeros((len(priced.trajectories), longest + 1))
        for g, trajectory in enumerate(priced.trajectories):
            turns, segments = len(trajectory.turns), rows(trajectory)
            if trajectory.stop.truncated:
                after = renderer.bridge(trajectory.turns[-1].sample.finish, trajectory.final_observation)
                segments[-1] = looking_ahead(segments[-1], after)
            estimates = np.concatenate(learner.values(segments))
            values[g, :turns] = estimates[:turns]
            values[g, longest] = estimates[turns] if trajectory.stop.truncated else 0.0
        return values

    def _learn(self, learner: Learner, batch: Sequence[Row], step: int) -> Metrics:
        """Take the optimiser steps of one training step; return their mean metrics, and how old their tokens were."""
        taken: list[Metrics] = []
        batch = learner.remember(batch)
        apart = off_policy(batch, learner.steps)
        for epoch in range(self.config.train.epochs if batch else 0):
            order = np.random.default_rng(sample_seed(self.config.seed, step, epoch)).permutation(len(batch))
            for part in np.array_split(order, min(self.config.train.minibatches, len(batch))):
                taken.append(learner.reinforce([batch[i] for i in part]))
        return apart | {name: float(np.mean([one[name] for one in taken])) for name in (taken[0] if taken else ())}

    def _commit_step(self, step: int, learner: Learner) -> None:
        self._session.commit(
            phase="train",
            step=step,
            learner=learner.state(),
            baseline=self._baseline.state(),
            curriculum=self._curriculum.state(),
            before=self._before,
        )

    def _objective(self) -> Objective:
        config = self.config.train
        return Objective(
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            kl=config.kl,
            entropy=config.entropy,
            value=VALUE_WEIGHT if config.advantage == "gae" else 0.0,
            loss=config.loss,
            correction=Correction(
                config.correction, config.correction_level, config.correction_low, config.correction_high
            ),
        )

    def _summary(self, after: dict[str, Any]) -> dict[str, Any]:
        summary = {
            "success_before": self._before["success"],
            "success_after": after["success"],
            "before": self._before,
            "after": after,
            "episodes": self._session.run.episodes,
            "steps": self.config.train.steps,
            "wall_s": self._session.wall(),
            "time": time_split([metrics for _, metrics in self._history]),
            "seed": self.config.seed,
            "alarms": {name: alarm.since for name, alarm in self._alarms.items()},
        }
        self._session.run.write_summary(summary)
        return summary


def _crediting(config: RunConfig) -> Crediting:
    train = config.train
    return Crediting(
        train.advantage,
        train.gamma,
        train.lam,
        train.omega,
        train.by_component,
        train.scale,
        negative=NegativeScaling(train.negative.lambda0, train.negative.kappa) if train.negative else None,
        success=config.eval.success,
        state=stood if train.states == "world" else observed,
    )


def _curriculum(config: RunConfig, session: Session) -> Curriculum:
    tasks = session.environment.tasks(config.train.split)[: session.train_tasks()]
    return Curriculum(tasks, seed=config.seed, levels=config.train.levels, turns=config.train.turns)


def _groups(outcomes: Sequence[Outcome], step: int, least: int) -> list[Group]:
    """Return the groups of at least so many rollouts that say something about the policy."""
    siblings: dict[str, list[Trajectory]] = {}
    for trajectory in viable(completed(outcomes)):
        siblings.setdefault(trajectory.group_id, []).append(trajectory)
    return [Group(tuple(group), step) for _, group in sorted(siblings.items()) if len(group) >= least]


__all__ = ["Interrupted", "Trainer"]
