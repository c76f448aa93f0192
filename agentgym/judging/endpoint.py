"""A judge as a configuration writes it: one flat table, opened and closed together with its cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agentgym.errors import ConfigError
from agentgym.judge import Question, Verdict
from agentgym.judging.cache import VerdictCache
from agentgym.judging.openai import JudgeSampling, OpenAIJudge, Prices
from agentgym.judging.patience import Patience


class Endpoint:
    """A `Judge` behind an endpoint. Its cache is opened with it, and not before; open it with ``async with``.

    Args:
        make: returns the judge, given its cache.
        cache: file of the cache; None: none is kept.
    """

    def __init__(self, make: Callable[[VerdictCache | None], OpenAIJudge], cache: Path | None) -> None:
        self._make, self._cache = make, cache
        self._judge = make(None)
        self._opened = AsyncExitStack()

    @property
    def version(self) -> str:
        """The model's short name and a digest of everything that shapes its verdicts."""
        return self._judge.version

    async def ask(self, question: Question, *, sample: int = 0) -> Verdict:
        """Return the verdict number ``sample`` on ``question``; see `OpenAIJudge.ask`."""
        return await self._judge.ask(question, sample=sample)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opened:
            cache = opened.enter_context(closing(VerdictCache(self._cache))) if self._cache else None
            self._judge = await opened.enter_async_context(self._make(cache))
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._opened.aclose()


def endpoint(
    url: str,
    model: str,
    *,
    api_key_env: str = "",
    revision: str = "",
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_tokens: int = 2048,
    seed: int = 0,
    fields: Mapping[str, Any] | None = None,
    enforce: bool = True,
    concurrency: int = 16,
    attempts: int = 5,
    call_s: float = 120.0,
    total_s: float = 600.0,
    first_wait_s: float = 0.5,
    prompt_price: float = 0.0,
    completion_price: float = 0.0,
    cache: str = "",
) -> Endpoint:
    """Return the judge ``model`` behind ``url``, which ends in ``/v1``.

    Args:
        api_key_env: name of the environment variable that holds the key; a configuration is stored, a key must not be.
        revision: what else tells this judge from others of its name, such as a checkpoint.
        temperature, top_p, max_tokens, seed, fields: of `JudgeSampling`.
        enforce: whether the endpoint is asked to enforce the schema of verdicts.
        concurrency: calls at once, at most.
        attempts, call_s, total_s, first_wait_s: of `Patience`.
        prompt_price, completion_price: of a million tokens, in any one currency.
        cache: SQLite file that remembers verdicts; empty: none is kept.

    Raises:
        ConfigError: a value that cannot be meant, or the key is not in the environment.
    """
    if api_key_env and not os.environ.get(api_key_env):
        raise ConfigError(f"the key of judge '{model}' is not there: set the environment variable {api_key_env}")
    sampling = JudgeSampling(temperature, top_p, max_tokens, seed, fields or {})
    patience = Patience(attempts, call_s, total_s, first_wait_s)

    def make(remembers: VerdictCache | None) -> OpenAIJudge:
        return OpenAIJudge(
            url,
            model,
            api_key=os.environ.get(api_key_env, "") if api_key_env else "",
            revision=revision,
            sampling=sampling,
            enforce=enforce,
            concurrency=concurrency,
            patience=patience,
            prices=Prices(prompt_price, completion_price),
            cache=remembers,
        )

    return Endpoint(make, Path(cache) if cache else None)


__all__ = ["Endpoint", "endpoint"]
