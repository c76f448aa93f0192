"""``agentgym reward audit``: attacks a reward before anything is trained on it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from agentgym.attacks import attacks
from agentgym.audit import ORACLE, Audit, Trial, audit, trials
from agentgym.audit_cases import played_trials, stored_cases, world_cases
from agentgym.config import RunConfig, build
from agentgym.errors import UsageError, unknown_name
from agentgym.probe import Probe
from agentgym.probes import resolve_probe, resolve_probes
from agentgym.recipes import resolve
from agentgym.remote import WorkerPool
from agentgym.reward import Shaper
from agentgym.store import read_config

from .options import parsed


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed."""

    run: Path | None = None
    env: str | None = None
    options: Sequence[str] = ()
    reward: str | None = None
    params: Sequence[str] = ()
    probe: str | None = None
    "Measures in place of the run's own."
    probe_params: Sequence[str] = ()
    episodes: int = 32
    step: int | None = None
    above: float | None = None
    play: bool = True
    only: Sequence[str] = ()
    "Families of attacks; empty: all."


def examine(asked: Asked) -> dict[str, Any]:
    """Attack the reward and return what it falls for.

    Raises:
        UsageError: there is nothing to attack with, or the reward or a probe does not exist.
    """
    if (asked.run is None) == (asked.env is None):
        raise UsageError("name either a run folder or a world: agentgym reward audit RUN, or --env textworld")
    config = _configured(asked)
    shaper = resolve(config.reward.recipe, config.reward.params)
    own = resolve_probes(config.reward.probes)
    params = parsed(asked.probe_params, "--probe-params")
    probes = [resolve_probe(asked.probe, params)] if asked.probe else own
    if asked.run is not None:
        judged = frozenset[str]().union(*(probe.signals for probe in own))
        cases = stored_cases(asked.run, config.eval.success, limit=asked.episodes, step=asked.step, judged=judged)
    else:
        cases = world_cases(config, limit=asked.episodes)
    tried = trials(cases, attacks()) + (played_trials(config, cases) if asked.play else [])
    families = dict.fromkeys(trial.attack.partition(":")[0] for trial in tried)
    for name in asked.only:
        if name not in families:
            raise unknown_name("attack", name, families)
    tried = [trial for trial in tried if not asked.only or trial.attack.partition(":")[0] in asked.only]
    return _audited(config, shaper, tried, probes, asked.above).as_dict()


def audited(config: RunConfig) -> Audit:
    """Return the audit of the reward that ``config`` would train on, in the world it would train in."""
    cases = world_cases(config, limit=config.audit.tasks)
    tried = list(chain(trials(cases, attacks()), played_trials(config, cases)))
    shaper, probes = resolve(config.reward.recipe, config.reward.params), resolve_probes(config.reward.probes)
    return _audited(config, shaper, tried, probes)


def _audited(
    config: RunConfig, shaper: Shaper, tried: Sequence[Trial], probes: Sequence[Probe], above: float | None = None
) -> Audit:
    env = config.env
    with WorkerPool(env.id, env.options, workers=env.workers, call_timeout_s=env.call_timeout_s) as pool:
        return asyncio.run(audit(shaper, tried, probes=probes, above=above, make_environment=pool.environment))


def shown(found: Mapping[str, Any]) -> None:
    """Print what a reward falls for, the attack that works best first."""
    print(f"reward  {found['reward']}")
    print(f"probes  {', '.join(found['probes']) or 'none'}")
    limit = "the honest episode it was made from" if found["above"] is None else f"{found['above']:g}"
    print(f"{found['cases']} failing episodes; an attack works where it is paid more than {limit}\n")
    findings = sorted(found["findings"], key=lambda finding: -finding["rate"] if finding["episodes"] else 1)
    width = max(len(finding["attack"]) for finding in findings)
    print(f"{'attack':<{width}}  works  95 % interval  episodes  honest  attacked  unmeasured")
    for finding in (one for one in findings if one["attack"] != ORACLE):
        print(_row(finding, width))
    for finding in (one for one in findings if one["attack"] == ORACLE):
        print(f"\nan expert is not paid more than who failed:\n{_row(finding, width)}")


def _row(finding: Mapping[str, Any], width: int) -> str:
    interval = f"[{finding['low']:.2f}, {finding['high']:.2f}]"
    prices = f"{finding['honest']:6.3f}  {finding['attacked']:8.3f}"
    counts = f"{finding['episodes']:8d}  {prices}  {finding['unmeasured']:10d}"
    return f"{finding['attack']:<{width}}  {finding['rate']:5.2f}  {interval:<13}  {counts}"


def _configured(asked: Asked) -> RunConfig:
    """Return the run's configuration, or the default one, with the world and the reward that were typed."""
    data = (read_config(asked.run) if asked.run else RunConfig()).model_dump(exclude_none=True)
    if asked.env is not None:
        data["env"] |= {"id": asked.env, "options": {}}
    data["env"]["options"] |= parsed(asked.options)
    if asked.reward is not None:
        data["reward"] |= {"recipe": asked.reward, "params": {}}
    data["reward"]["params"] |= parsed(asked.params, "--params")
    return build(data)


__all__ = ["Asked", "audited", "examine", "shown"]
