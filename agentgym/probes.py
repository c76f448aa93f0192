"""Finding a probe by name: what a configuration says, turned into a `Probe` that opens and closes its own judges."""

from __future__ import annotations

import pkgutil
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Self, cast

from agentgym.config import ProbeConfig, RunConfig
from agentgym.errors import ConfigError, UnknownNameError, unknown_name
from agentgym.judge import Judge
from agentgym.probe import OpenAt, Probe
from agentgym.recipes import check_params, parameters, resolve
from agentgym.reward import Shaper
from agentgym.types import Group, Signal

PROBES = "agentgym.reward_shapers.probes"
"""The module whose ``__all__`` are the short names."""


def resolve_probe(name: str, params: Mapping[str, Any] | None = None) -> Probe:
    """Return the probe called ``name``: a short name such as ``grade``, or ``module:callable`` of your own.

    The callable takes ``params`` and returns a probe. Where it annotates a parameter as a `Judge`, the value here is a
    table of the arguments of `agentgym.judging.endpoint.endpoint`; the judge is opened and closed with the probe.

    Raises:
        UnknownNameError: there is nothing of that name.
        ConfigError: it takes other parameters, or what it makes is no probe.
        MissingExtraError: it needs a judge, and the extra ``judge`` is not installed.
    """
    what, params = f"probe '{name}'", params or {}
    found = _found(name)
    check_params(what, found, params)
    judges = {
        key: _judge(f"'{key}' of {what}", params[key])
        for key, asked in parameters(found).items()
        if key in params and (asked is Judge or Judge in typing.get_args(asked))
    }
    made = found(**{**params, **judges})
    if isinstance(made, Shaper) or not (callable(made) and hasattr(made, "name") and hasattr(made, "signals")):
        raise ConfigError(f"'{name}' returned a {type(made).__name__}, which is no agentgym.probe.Probe")
    probe = cast(Probe, made)
    return _WithJudges(probe, tuple(judges.values())) if judges else probe


def resolve_probes(asked: Sequence[ProbeConfig]) -> list[Probe]:
    """Return the probes of a configuration, in order; see `resolve_probe`."""
    return [resolve_probe(one.name, one.params) for one in asked]


def reward_and_probes(config: RunConfig, emitted: Collection[str] | None) -> tuple[Shaper, list[Probe]]:
    """Return the reward of a run and the probes that measure for it.

    ``emitted`` names the signals of the world; None where it does not say.

    Raises:
        UsageError: the reward or a probe does not exist, takes other parameters, or the reward reads a signal that
            neither the world nor a probe measures.
    """
    shaper, probes = resolve(config.reward.recipe, config.reward.params), resolve_probes(config.reward.probes)
    if emitted is not None:
        by = f"environment '{config.env.id}'"
        if probes:
            by += f", with {', '.join(one.name for one in config.reward.probes)} in reward.probes,"
        shaper.require({"reward", *emitted}.union(*(probe.signals for probe in probes)), by)
    return shaper, probes


def _found(name: str) -> Callable[..., Any]:
    if ":" not in name:
        shipped = pkgutil.resolve_name(PROBES)
        if name not in shipped.__all__:
            raise unknown_name("probe", name, [*shipped.__all__, "module:callable"])
        return cast(Callable[..., Any], getattr(shipped, name))
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownNameError(f"no probe '{name}': {error}") from error
    if not callable(found):
        raise ConfigError(f"probe '{name}' is a {type(found).__name__}, not something that returns a probe")
    return cast(Callable[..., Any], found)


def _judge(what: str, table: Any) -> Any:
    from agentgym.judging.endpoint import endpoint

    if not isinstance(table, Mapping):
        raise ConfigError(f'{what} is {table!r}; it must be a table: {{ url = "http://…/v1", model = "…" }}')
    check_params(what, endpoint, table)
    return endpoint(**table)


class _WithJudges:
    """A probe with the judges that were made for it, opened before it and closed after it."""

    def __init__(self, probe: Probe, judges: Sequence[AbstractAsyncContextManager[Any]]) -> None:
        self._probe, self._judges = probe, judges
        self._opened = AsyncExitStack()

    @property
    def name(self) -> str:
        return self._probe.name

    @property
    def signals(self) -> frozenset[str]:
        return self._probe.signals

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        return await self._probe(group, open_at)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            for each in (*self._judges, self._probe):
                if isinstance(each, AbstractAsyncContextManager):
                    await opened.enter_async_context(each)
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.aclose()


__all__ = ["PROBES", "resolve_probe", "resolve_probes", "reward_and_probes"]
