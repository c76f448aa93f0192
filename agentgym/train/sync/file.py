"""Weights in a file that the trainer writes and every server reads: any topology, with or without a GPU.

Pause, update, finish with a version, resume always; then the canary. The file lies in shared memory where the servers
run on this machine, on a shared disk elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from agentgym.errors import AgentgymError, ConfigError, InfrastructureError, PolicyError
from agentgym.policy.endpoint import Endpoint, UnreachableError
from agentgym.policy.served import ServedPolicy
from agentgym.train.sync import Metrics
from agentgym.train.sync.canary import Canary, Reading
from agentgym.types import UNKNOWN_VERSION

SHARED_MEMORY = Path("/dev/shm")
RESUME_S = 10.0
"A server that failed is waited for no longer than this."
_SHAPE = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


class FileSync:
    """Pushes ``model``'s weights to all servers of ``policy``.

    Args:
        folder: read by the servers under the same name; files in it are the sync's own.
        deadline_s: of one call to a server.
        canary: compares afterwards; it looks at ``model`` too.
    """

    def __init__(
        self, policy: ServedPolicy, model: Any, *, folder: Path, deadline_s: float = 60.0, canary: Canary
    ) -> None:
        self._policy, self._model, self._canary = policy, model, canary
        self._folder, self._deadline_s = folder, deadline_s
        self._introduced: set[str] = set()
        clear(folder)

    async def push(self, version: int) -> Metrics:
        """Hand the weights over to every server that is not given up; see `WeightSync.push`."""
        began = time.monotonic()
        await asyncio.to_thread(self._canary.expect)  # rollouts go on while it reads, and while it writes
        path = await asyncio.to_thread(write, self._model, self._folder, version)
        self._policy.update(UNKNOWN_VERSION)  # until all servers hold the new weights nobody can say which it was
        try:
            frozen = await _all([self._update(server, path, version) for server in self._policy.alive])
        finally:
            path.unlink(missing_ok=True)
        self._policy.update(version)
        readings = await self.check(version)
        return {
            "sync_s": time.monotonic() - began,
            "sync_frozen_s": max(frozen),
            "canary_probe": max(reading.probe for reading in readings),
            "canary_answer": max(reading.answer for reading in readings),
        }

    async def check(self, version: int) -> Sequence[Reading]:
        """Return how near each server is to the weights as they were pushed last.

        Raises:
            PolicyError: one answers by others.
        """
        return await _all(
            [
                self._canary.check(self._policy, server, version=version, deadline_s=self._deadline_s)
                for server in self._policy.alive
            ]
        )

    async def _update(self, server: Endpoint, path: Path, version: int) -> float:
        """Update one server; return the seconds in which it sampled nothing."""
        await self._introduce(server)
        began = time.monotonic()
        try:
            await self._post(server, "/pause?mode=keep")
            await self._start(server)
            await self._post(server, "/update_weights", {"update_info": {"name": path.name, "version": str(version)}})
            await self._post(server, "/finish_weight_update", {"weight_version": str(version)})
            await self._post(server, "/resume")
        except BaseException:
            with suppress(AgentgymError):  # what went wrong first is what is told
                await server.call("POST", "/resume", {}, deadline_s=min(self._deadline_s, RESUME_S))
            raise
        frozen = time.monotonic() - began
        held = (await server.call("GET", "/weight_info", deadline_s=self._deadline_s))["weight_version"]
        if held != str(version):
            raise PolicyError(f"the server at {server.url} was given weights {version} and says it has {held!r}")
        return frozen

    async def _start(self, server: Endpoint) -> None:
        """Begin an update; one that was left open, such as by a trainer that was killed in it, is ended first."""
        try:
            await self._post(server, "/start_weight_update")
        except UnreachableError:
            raise
        except PolicyError as error:
            try:
                await self._post(server, "/finish_weight_update")
            except PolicyError:
                raise error from None
            await self._post(server, "/start_weight_update")

    async def _introduce(self, server: Endpoint) -> None:
        """Say once where files will lie, and what the model is."""
        if server.url in self._introduced:
            return
        info = {"root": str(self._folder), "shape": shape(self._model)}
        try:
            await self._post(server, "/init_weight_transfer_engine", {"init_info": info})
        except PolicyError as error:
            if isinstance(error, UnreachableError) or server.lost:
                raise
            raise ConfigError(
                f"the server at {server.url} cannot be given weights: {error}. It has to serve the trainer's model "
                f"({info['shape']}), and to be started like `agentgym serve-policy` does"
            ) from error
        self._introduced.add(server.url)

    async def _post(self, server: Endpoint, path: str, body: dict[str, Any] | None = None) -> None:
        await server.call("POST", path, body or {}, deadline_s=self._deadline_s)


def shape(model: Any) -> dict[str, Any]:
    """Return the numbers that a model's weights have to agree with."""
    config = model.config.get_text_config()
    return {name: getattr(config, name) for name in _SHAPE if hasattr(config, name)}


def write(model: Any, folder: Path, version: int) -> Path:
    """Write all weights into a new file and return it.

    A tensor that has two names, such as embeddings that are also the head, is written under both: vLLM keeps a copy of
    the head on some machines, and would go on with the old one.

    Raises:
        InfrastructureError: the folder is full or cannot be written.
    """
    path = folder / f"agentgym-{socket.gethostname()}-{os.getpid()}-{version}.safetensors"
    seen: set[int] = set()
    weights: dict[str, torch.Tensor] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        tensor = weight.detach().contiguous()
        weights[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    try:
        save_file(weights, path, metadata={"version": str(version)})
    except Exception as error:  # the boundary: safetensors has its own error for what the system says
        path.unlink(missing_ok=True)
        raise InfrastructureError(f"weights {version} could not be written to '{folder}': {error}") from error
    return path


def clear(folder: Path) -> None:
    """Remove what trainers on this machine that were killed in a sync left in ``folder``."""
    for path in folder.glob(f"agentgym-{socket.gethostname()}-*-*.safetensors"):
        try:
            os.kill(int(path.stem.split("-")[-2]), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except (PermissionError, ValueError):  # another person's, or no file of ours
            continue


async def _all(calls: Sequence[Any]) -> list[Any]:
    """Return what all ``calls`` return, each of which is waited for; raise the first error of ours."""
    done = await asyncio.gather(*calls, return_exceptions=True)
    errors = [result for result in done if isinstance(result, BaseException)]
    for error in sorted(errors, key=lambda error: not isinstance(error, AgentgymError)):
        raise error
    return done


__all__ = ["SHARED_MEMORY", "FileSync", "clear", "shape", "write"]
