"""What the divergence term is measured from: where the run started, another model, or one behind a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from agentgym.config import RunConfig
from agentgym.errors import ConfigError
from agentgym.policy.checks import check_server
from agentgym.policy.embedded import load
from agentgym.policy.endpoint import Endpoint
from agentgym.policy.token_protocol import COMPLETIONS, read_scores, scoring_request
from agentgym.render import Renderer
from agentgym.train.batch import Row

AT_ONCE = 32
"Rows that a server is asked about at the same time."


class Reference:
    """A model that stays as it is.

    Attributes:
        model: for the learner: ``"start"``, ``"rows"``, or a model in this process.
    """

    def __init__(self, model: Any, server: Endpoint | None = None, name: str = "", deadline_s: float = 0.0) -> None:
        self.model = model
        self._server, self._name, self._deadline_s = server, name, deadline_s

    async def remember(self, rows: Sequence[Row]) -> list[Row]:
        """Return ``rows`` with the server's log-probabilities; as they are where there is no server.

        Raises:
            PolicyError: the server fails.
            DeadlineError: it does not answer.
        """
        if self._server is None:
            return list(rows)
        few = asyncio.Semaphore(AT_ONCE)
        return await asyncio.gather(*(self._ask(self._server, row, few) for row in rows))

    async def _ask(self, server: Endpoint, row: Row, few: asyncio.Semaphore) -> Row:
        async with few:
            answer = await server.ask(COMPLETIONS, scoring_request(self._name, row.ids_N), deadline_s=self._deadline_s)
        scored = read_scores(answer, row.ids_N, where=server.url)
        return replace(row, reference_N=np.where(row.mask_N, scored, np.nan).astype(np.float32))


@asynccontextmanager
async def reference(config: RunConfig, model: Any, tokenizer: Any) -> AsyncIterator[Reference]:
    """Give what ``train.reference`` names.

    Raises:
        ConfigError: it holds no model, or one that reads other tokens than the trained one.
        InfrastructureError: there is no server.
    """
    named = config.train.reference
    if named is None or not config.train.kl:
        yield Reference("start")
    elif named.startswith(("http://", "https://")):
        limit_s = config.policy.vllm.silence_s
        async with Endpoint(named) as server:
            context = config.model.max_context + 1  # a server that scores a text writes one token more
            renderer = Renderer(tokenizer, history=config.policy.history)
            name = await check_server(server, renderer, max_context=context, deadline_s=limit_s)
            yield Reference("rows", server, name, limit_s)
    else:
        other, theirs = load(named, dtype=config.model.dtype, device=config.model.device)
        found, wanted = (each.config.get_text_config().vocab_size for each in (other, model))
        if found != wanted:
            raise ConfigError(f"train.reference: '{named}' has a vocabulary of {found}, the trained model of {wanted}")
        if theirs.get_vocab() != tokenizer.get_vocab():
            raise ConfigError(f"train.reference: '{named}' has another tokenizer than the trained model")
        yield Reference(other)


__all__ = ["AT_ONCE", "Reference", "reference"]
