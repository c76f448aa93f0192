"""``agentgym serve-policy``: a vLLM server of a model folder, as training launches them, for other uses."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentgym.errors import ConfigError, PolicyError
from agentgym.policy.server import MODEL_NAME, Server, Serving, find_interpreter

from .options import parsed


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed."""

    model: Path
    max_context: int
    dtype: str
    python: str | None
    options: Sequence[str]
    start_deadline_s: float
    log: Path


def serve(asked: Asked) -> None:
    """Serve until interrupted, or until the server ends.

    Raises:
        ConfigError: there is no such model folder, or no vLLM.
        InfrastructureError: the server does not start, or ends.
    """
    if not (asked.model / "config.json").is_file():
        raise ConfigError(f"'{asked.model}' is no model folder: it has no config.json")
    serving = Serving(
        str(asked.model.resolve()),
        asked.max_context,
        dtype=asked.dtype,
        options=parsed(asked.options),
    )
    server = Server(find_interpreter(asked.python), serving, asked.log)
    try:
        print(f"vLLM starts; it says all it has to say in '{asked.log}'", flush=True)
        asyncio.run(server.ready(deadline_s=asked.start_deadline_s))
        print(f"serving '{MODEL_NAME}' at {server.endpoint.url}", flush=True)
        print(f"train by it: --policy.engine vllm --policy.vllm.urls '{json.dumps([server.endpoint.url])}'", flush=True)
        print("Ctrl-C ends it", flush=True)
        while server.alive:
            threading.Event().wait(0.5)
        raise PolicyError(f"vLLM ended: {server.last_words()} (all of it in '{asked.log}')")
    finally:
        server.close()


__all__ = ["Asked", "serve"]
