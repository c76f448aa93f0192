"""Where an audit's episodes come from: a stored run, or a world that scripted policies play."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path

from agentgym import registry
from agentgym.attacks import Case
from agentgym.audit import ORACLE, Trial, without
from agentgym.config import RunConfig
from agentgym.errors import StoredRunError, UsageError
from agentgym.evaluate import succeeded
from agentgym.policy import Context, sample_seed
from agentgym.policy.scripted import ScriptedPolicy, expert, random_admissible
from agentgym.remote import WorkerPool
from agentgym.rollout import Deadlines, Request, Rollouts
from agentgym.store import iter_groups
from agentgym.types import Completed, Group, Task, Trajectory

Choose = Callable[[Context], str]
SIBLINGS = 2
"""Episodes that a random player plays of each task."""
DONORS = 32
"""Most episodes of other tasks that are kept to borrow from."""


def nothing(context: Context) -> str:
    """Say nothing, at every turn."""
    return ""


def same_again(context: Context) -> str:
    """Do at every turn what was done at the first: the first command that makes sense there."""
    return _answers(context)[0] if _answers(context) else _commands(context)[0]


def to_and_fro(context: Context) -> str:
    """Do the first command that makes sense, then the last, and from there on the one before the one before."""
    said = _answers(context)
    return said[-2] if len(said) > 1 else _commands(context)[-1 if said else 0]


PLAYED: Mapping[str, Choose] = {
    "played: nothing": nothing,
    "played: same again": same_again,
    "played: to and fro": to_and_fro,
    ORACLE: expert,
}
"""What is played in the world beside the honest episode."""


def stored_cases(
    path: Path, success: str, *, limit: int, step: int | None = None, judged: Collection[str] = ()
) -> list[Case]:
    """Return a failing episode of each of at most ``limit`` groups of the run in ``path``, as it was recorded.

    What probes measured is left out, so that nothing but the world's own signals outlives an attack: what they added
    to the run later, and the signals ``judged``, which they measured while it trained.

    Raises:
        StoredRunError: there is no run, or no episode in it that failed.
    """
    failing: list[tuple[Group, int]] = []
    won: dict[str, Trajectory] = {}
    others: dict[str, Trajectory] = {}
    for episodes in iter_groups(path):
        if step not in (None, episodes[0].step):
            continue
        group = Group(tuple(without(episode.trajectory, judged) for episode in episodes), episodes[0].step)
        results = [succeeded(trajectory, success) for trajectory in group.trajectories]
        if False in results:
            failing.append((group, results.index(False)))
        for trajectory, result in zip(group.trajectories, results, strict=True):
            kept = won if result else others
            if len(kept) < DONORS:
                kept.setdefault(trajectory.task.id, trajectory)
        if len(failing) >= limit and len(won) >= DONORS:
            break
    if not failing:
        raise StoredRunError(f"'{path}' holds no episode that failed (signal '{success}' below 1) to attack with")
    donors = (*won.values(), *others.values())
    return [Case(group, victim, donors) for group, victim in failing[:limit]]


def world_cases(config: RunConfig, *, limit: int) -> list[Case]:
    """Return a failing episode of a random player at each of at most ``limit`` training tasks of a world.

    Raises:
        UsageError: there is no such world, or the random player fails at none of its tasks.
    """
    environment = registry.make(config.env.id, **config.env.options)
    try:
        tasks = list(islice(environment.tasks(config.train.split), limit))
        environment.prepare(config.train.split, count=len(tasks), workers=config.env.workers)
    finally:
        environment.close()
    names = [f"random/{number}" for number in range(SIBLINGS)]
    played = play(config, tasks, {**dict.fromkeys(names, random_admissible), ORACLE: expert})
    donors = tuple(trajectory for trajectory in played[ORACLE] if trajectory is not None)
    cases = []
    for siblings in zip(*(played[name] for name in names), strict=True):
        group = Group(tuple(trajectory for trajectory in siblings if trajectory is not None))
        results = [succeeded(trajectory, config.eval.success) for trajectory in group.trajectories]
        if False in results:
            cases.append(Case(group, results.index(False), donors))
    if not cases:
        raise UsageError(
            f"a random player fails at none of {len(tasks)} tasks of '{config.env.id}'; audit a stored run"
        )
    return cases


def played_trials(config: RunConfig, cases: Sequence[Case]) -> list[Trial]:
    """Return what each policy of `PLAYED` earns at the tasks of ``cases``, in the world of ``config``."""
    played = play(config, [case.honest.task for case in cases], PLAYED)
    made = [
        played_trial(name, case, trajectory, config.eval.success)
        for name, trajectories in played.items()
        for case, trajectory in zip(cases, trajectories, strict=True)
    ]
    return [trial for trial in made if trial is not None]


def played_trial(name: str, case: Case, trajectory: Trajectory | None, success: str) -> Trial | None:
    """Return ``trajectory`` as a trial beside ``case``, or None where it is none.

    A script that happens to succeed deserves what it gets, and an oracle that does not succeed is none.
    """
    if trajectory is None or succeeded(trajectory, success) is not (name == ORACLE):
        return None
    return Trial(name, case, case.replaced(trajectory))


def play(
    config: RunConfig, tasks: Sequence[Task], policies: Mapping[str, Choose]
) -> dict[str, list[Trajectory | None]]:
    """Play each task once with each policy; None where the infrastructure lost the episode."""
    env = config.env
    with WorkerPool(env.id, env.options, workers=env.workers, call_timeout_s=env.call_timeout_s) as pool:

        async def episodes(name: str, choose: Choose) -> list[Trajectory | None]:
            rollouts = Rollouts(
                pool.environment,
                ScriptedPolicy(choose),
                concurrency=env.concurrency,
                retries=env.retries,
                deadlines=Deadlines(env.call_timeout_s, config.policy.turn_deadline_s),
            )
            requests = [
                Request(f"audit/{name}/{i}", f"audit/{i}", task, sample_seed(config.seed, i, *name.encode()))
                for i, task in enumerate(tasks)
            ]
            try:
                outcomes = await rollouts.run(requests)
            finally:
                rollouts.close()
            return [
                outcome.trajectory if isinstance(outcome, Completed) and outcome.trajectory.stop.scored else None
                for outcome in outcomes
            ]

        return {name: asyncio.run(episodes(name, choose)) for name, choose in policies.items()}


def _answers(context: Context) -> list[str]:
    return [message.content for message in context.messages if message.role == "assistant"]


def _commands(context: Context) -> Sequence[str]:
    return context.privileged.get("admissible") or ("look",)


__all__ = [
    "DONORS",
    "PLAYED",
    "SIBLINGS",
    "Choose",
    "nothing",
    "play",
    "played_trial",
    "played_trials",
    "same_again",
    "stored_cases",
    "to_and_fro",
    "world_cases",
]
