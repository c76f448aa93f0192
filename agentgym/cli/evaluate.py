"""``agentgym eval``: a run's model, a model folder, the expert or chance, measured on tasks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentgym import registry
from agentgym.config import RunConfig, build
from agentgym.errors import StoredRunError, UsageError, missing_extra, unknown_name
from agentgym.evaluate import check_success, evaluate
from agentgym.policy import Policy
from agentgym.policy.scripted import ScriptedPolicy, expert, random_admissible
from agentgym.remote import WorkerPool
from agentgym.rollout import Deadlines, Rollouts
from agentgym.store import CONFIG, read_config
from agentgym.train.observer import Observer, advancing
from agentgym.types import Sampling, Task

from .options import parsed
from .show import hush_transformers

SCRIPTED = {"expert": expert, "random": random_admissible}
"""Who plays without a model."""
CHECKPOINTS = ("model", "warmstart", "init")
"""The models of a run: after the last step, before the first, and before it saw anything."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed; None: the run's own."""

    folder: Path | None = None
    env: str | None = None
    split: str | None = None
    games: int | None = None
    policy: str = "model"
    checkpoint: str = "model"
    temperature: float = 0.0
    seed: int | None = None
    options: tuple[str, ...] = ()


def measure(asked: Asked, *, quiet: bool = False) -> dict[str, Any]:
    """Return the evaluation that was asked for, by field name, with what was evaluated.

    Without further options a run's model is measured as at the end of its training: same tasks, same seeds.

    Raises:
        UsageError: there is no such folder, environment, split or policy.
        InfrastructureError: worlds or the model fail again and again.
    """
    from agentgym.view.live import watching

    if asked.policy not in ("model", *SCRIPTED):
        raise unknown_name("policy", asked.policy, ["model", *SCRIPTED])
    config = _configured(asked)
    model = _model_folder(asked) if asked.policy == "model" else None
    with watching(sys.stderr, title=f"{asked.policy} on {config.env.id}", quiet=quiet) as observer:
        tasks = _tasks(config, observer)
        with _policy(asked.policy, model, config) as policy:
            found = asyncio.run(_evaluated(policy, tasks, config, asked.temperature, observer))
    which = {"policy": asked.policy, "model": model and str(model), "env": config.env.id}
    what = {"split": config.eval.final_split, "temperature": asked.temperature, "seed": config.seed}
    return which | what | found


def _configured(asked: Asked) -> RunConfig:
    """Return the run's configuration, or the default one, with what was typed on top.

    Of a run's environment nothing is kept where another one was named.
    """
    is_run = asked.folder is not None and (asked.folder / CONFIG).is_file()
    config = read_config(asked.folder) if is_run and asked.folder else RunConfig()
    if asked.env is None and not is_run:
        raise UsageError("name an environment with --env (a run folder would say it): agentgym eval --env textworld …")
    data = config.model_dump(exclude_none=True)
    if asked.env is not None and asked.env != config.env.id:
        data["env"] |= {"id": asked.env, "options": {}}
    data["env"]["options"] |= parsed(asked.options)
    changes = {"eval.final_split": asked.split, "eval.final_games": asked.games, "seed": asked.seed}
    return build(data, {key: value for key, value in changes.items() if value is not None})


def _model_folder(asked: Asked) -> Path:
    folder = asked.folder
    if folder is None:
        raise UsageError("name a run folder or a model folder, or take --policy expert or --policy random")
    if asked.checkpoint not in CHECKPOINTS:
        raise unknown_name("checkpoint", asked.checkpoint, CHECKPOINTS)
    if (folder / CONFIG).is_file():
        model = folder / asked.checkpoint
        if not (model / "config.json").is_file():
            there = [name for name in CHECKPOINTS if (folder / name / "config.json").is_file()]
            known = ", ".join(there) or "no model"
            raise StoredRunError(f"run '{folder}' has no {asked.checkpoint}/ yet; it has: {known} (--checkpoint)")
        return model
    if not (folder / "config.json").is_file():
        raise UsageError(f"'{folder}' is neither a run folder ({CONFIG}) nor a model folder (config.json)")
    return folder


def _tasks(config: RunConfig, observer: Observer) -> list[Task]:
    """Return the tasks to be played, ready."""
    split = config.eval.final_split
    environment = registry.make(config.env.id, **config.env.options)
    try:
        check_success(environment, config.eval.success)
        if where := environment.metadata.get("where"):
            observer.say(where)
        tasks = list(environment.tasks(split)[: config.eval.final_games])
        observer.phase(f"prepare the {split} tasks", len(tasks))
        environment.prepare(split, count=len(tasks), workers=config.env.workers, progress=advancing(observer))
        return tasks
    finally:
        environment.close()


@contextmanager
def _policy(name: str, model: Path | None, config: RunConfig) -> Iterator[Policy]:
    if model is None:
        yield ScriptedPolicy(SCRIPTED[name])
        return
    try:
        from agentgym.policy.embedded import EmbeddedPolicy, load

        hush_transformers()
    except ModuleNotFoundError as error:
        raise missing_extra("train", error.name or "torch", "the embedded policy") from error
    network, tokenizer = load(model, dtype=config.model.dtype)
    context = min(config.model.max_context, network.config.get_text_config().max_position_embeddings)
    policy = EmbeddedPolicy(
        network, tokenizer, max_context=context, lockstep=config.deterministic, history=config.policy.history
    )
    try:
        yield policy
    finally:
        policy.close()


async def _evaluated(
    policy: Policy, tasks: list[Task], config: RunConfig, temperature: float, observer: Observer
) -> dict[str, Any]:
    observer.phase(f"evaluate on {config.eval.final_split}", len(tasks))
    env = config.env
    with WorkerPool(env.id, env.options, workers=env.workers, call_timeout_s=env.call_timeout_s) as pool:
        rollouts = Rollouts(
            pool.environment,
            policy,
            concurrency=env.concurrency,
            retries=env.retries,
            deadlines=Deadlines(env.call_timeout_s, config.policy.turn_deadline_s),
        )
        try:
            evaluation, _ = await evaluate(
                rollouts,
                tasks,
                success=config.eval.success,
                seed=config.seed,
                sampling=Sampling(temperature, config.policy.max_tokens),
                on_outcome=lambda _: observer.advance(1),
            )
        finally:
            rollouts.close()
    return evaluation.as_dict()


__all__ = ["Asked", "measure"]
