"""A vLLM server to test against: real HTTP, real weights, and whatever can go wrong, when it is told to.

It speaks as much of vLLM's protocol as agentgym uses, around a small model in this process. Like vLLM on a CPU it keeps
a head of its own also where the model ties it to the embeddings, and keys and values of prompts between requests::

    with FakeVllm(folder) as server:
        server.faults["/inference/v1/generate"] = [Fault.ERROR]  # of the next request, and of no other
        ...

or by hand: ``python -m agentgym.train.sync.fake_vllm MODEL``.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import threading
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agentgym.errors import missing_extra
from agentgym.loopback import LoopbackServer
from agentgym.policy.embedded import load
from agentgym.policy.token_protocol import COMPLETIONS, GENERATE
from agentgym.train.sync.vllm_plugin import differences, read

try:
    from aiohttp import web
except ImportError as error:
    raise missing_extra("train", "aiohttp", "a server to test against") from error

_Reply = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
_KEPT_PROMPTS = 64


class Fault(StrEnum):
    """What can be wrong with an answer."""

    ERROR = "500"
    "HTTP 500."
    TRUNCATE = "truncate"
    "The body breaks off."
    STALL = "stall"
    "No answer, ever."
    DROP = "drop"
    "The connection is closed without an answer."


class FakeVllm(LoopbackServer):
    """Serves a model folder on this machine from a thread of its own, while in its ``with`` statement.

    Args:
        max_model_len: what it says its context is.
        version: what it says its version of vLLM is.
        tells_versions: whether it has ``/inference/v1/generate``, as a server started for it has.
        step_s: time one token takes.
        cache_tokens: of answers under way that it has room for; it says how many there are, and no more.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        max_model_len: int = 4096,
        version: str = "0.32.0",
        tells_versions: bool = True,
        step_s: float = 0.0,
        cache_tokens: int = 2**20,
    ) -> None:
        super().__init__("fake-vllm")
        self.model, self.tokenizer = load(folder)
        self._head = self.model.get_output_embeddings().weight.detach().clone()
        self._max_model_len, self._vllm_version, self._step_s = max_model_len, version, step_s
        self._tells_versions = tells_versions
        self.weights = "default"
        "What it says the version of its weights is."
        self.faults: dict[str, list[Fault | None]] = defaultdict(list)
        "Path -> what goes wrong with the next requests for it, in order; None: nothing."
        self.stale_head = self.lost_sync = self.stale_prefix = False
        "Whether a sync leaves the head, all weights, or what was kept of prompts, as they were."
        self.raw_logprobs = False
        "Whether log-probabilities are told as they are before the temperature, as vLLM does unless told otherwise."
        self.replies = self._replies()
        "Path -> what answers there."
        self.asked: Counter[str] = Counter()
        "Requests so far, by path."
        self._prompts: dict[tuple[int, ...], Any] = {}
        self._updates = 0
        self._cache_tokens, self._held = cache_tokens, 0
        self._session = False
        self._root = Path()
        self._running = asyncio.Event()
        self._running.set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def application(self) -> web.Application:
        """Return what is served."""
        application = web.Application(client_max_size=2**26)
        for path in self.replies:
            application.router.add_route("*", path, self._serve(path))
        application.router.add_get("/metrics", self._metrics)
        return application

    def _replies(self) -> dict[str, _Reply]:
        replies: dict[str, _Reply] = {
            "/health": self._nothing,
            "/version": self._version,
            "/v1/models": self._models,
            "/tokenize": self._tokenize,
            COMPLETIONS: self._complete,
            "/init_weight_transfer_engine": self._initialise,
            "/pause": self._pause,
            "/start_weight_update": self._start_update,
            "/update_weights": self._update,
            "/finish_weight_update": self._finish,
            "/weight_info": self._weight_info,
            "/resume": self._resume,
        }
        return replies | ({GENERATE: self._generate} if self._tells_versions else {})

    def _serve(self, path: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.asked[path] += 1
            fault = self.faults[path].pop(0) if self.faults[path] else None
            match fault:
                case Fault.ERROR:
                    return web.Response(status=500, text="out of order, as asked for")
                case Fault.STALL:
                    await asyncio.Event().wait()
                case Fault.DROP if request.transport is not None:
                    request.transport.close()
            try:
                response = web.json_response(await self.replies[path](await _body(request)))
            except (KeyError, ValueError, RuntimeError, OSError) as error:
                return web.json_response({"error": {"message": str(error)}}, status=500)
            if fault is Fault.TRUNCATE and isinstance(response.body, bytes):
                return web.Response(body=response.body[: len(response.body) // 2], content_type="application/json")
            return response

        return handle

    # ------------------------------------------------------------------------------------------------- what it is

    async def _nothing(self, body: dict[str, Any]) -> dict[str, Any]:
        return {}

    async def _metrics(self, request: web.Request) -> web.Response:
        usage = min(1.0, self._held / self._cache_tokens)
        return web.Response(text=f'vllm:kv_cache_usage_perc{{engine="0"}} {usage}\n')

    async def _version(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"version": self._vllm_version}

    async def _models(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"data": [{"id": "policy", "max_model_len": self._max_model_len}]}

    async def _tokenize(self, body: dict[str, Any]) -> dict[str, Any]:
        tokens = self.tokenizer.encode(body["prompt"], add_special_tokens=body["add_special_tokens"])
        return {"tokens": tokens, "count": len(tokens)}

    # ---------------------------------------------------------------------------------------------------- its weights

    async def _initialise(self, body: dict[str, Any]) -> dict[str, Any]:
        info = body["init_info"]
        if found := differences(info["shape"], self.model.config):
            raise ValueError("; ".join(found))
        self._root = Path(info["root"])
        return {}

    async def _pause(self, body: dict[str, Any]) -> dict[str, Any]:
        self._running.clear()
        if not self.stale_prefix:
            self._prompts.clear()
        return {}

    async def _start_update(self, body: dict[str, Any]) -> dict[str, Any]:
        if self._session:
            raise RuntimeError("a weight update is active already")
        self._session = True
        return {}

    async def _update(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self._session:
            raise RuntimeError("no weight update is active")
        info = body["update_info"]
        self._session = False  # as vLLM does where one fails
        weights = read(self._root / info["name"], info["version"])
        if not self.lost_sync:
            with torch.no_grad():
                self.model.load_state_dict({n: w for n, w in weights.items() if n != "lm_head.weight"}, strict=False)
                if "lm_head.weight" in weights and not self.stale_head:
                    self._head.copy_(weights["lm_head.weight"])
        self._session = True
        return {}

    async def _finish(self, body: dict[str, Any]) -> dict[str, Any]:
        if not self._session:
            raise RuntimeError("no weight update is active")
        self._session = False
        self.weights = body.get("weight_version", self.weights)
        self._updates += 1
        return {}

    async def _weight_info(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"weight_version": self.weights}

    async def _resume(self, body: dict[str, Any]) -> dict[str, Any]:
        self._running.set()
        return {}

    # ------------------------------------------------------------------------------------------------------- its tokens

    async def _generate(self, body: dict[str, Any]) -> dict[str, Any]:
        ids, logprobs, versions, finish = await self._sample(body["token_ids"], body["sampling_params"])
        changes = [k for k in range(len(ids)) if k == 0 or versions[k] != versions[k - 1]]
        spans = [
            {"version": versions[start], "start": start, "end": end}
            for start, end in zip(changes, [*changes[1:], len(ids)], strict=True)
        ]
        content = [{"token_id": token, "logprob": value} for token, value in zip(ids, logprobs, strict=True)]
        choice = {"token_ids": ids, "logprobs": {"content": content}, "finish_reason": finish}
        return {"choices": [choice | {"weight_versions": spans}]}

    async def _complete(self, body: dict[str, Any]) -> dict[str, Any]:
        ids, logprobs, _, finish = await self._sample(body["prompt"], body)
        choice = {"token_ids": ids, "logprobs": {"token_logprobs": logprobs}, "finish_reason": finish}
        if body.get("prompt_logprobs") is not None:
            scored = self._forward(torch.tensor([body["prompt"]]), None)[0][:-1].log_softmax(-1)
            listed = [{str(t): {"logprob": float(s[t])}} for t, s in zip(body["prompt"][1:], scored, strict=True)]
            choice["prompt_logprobs"] = [None, *listed]
        return {"choices": [choice]}

    async def _sample(self, prompt: list[int], params: dict[str, Any]) -> tuple[list[int], list[float], list[str], str]:
        """Return ids, log-probabilities and versions of an answer, and how it ended."""
        longest = len(prompt) + params["max_tokens"]
        self._held += longest
        try:
            return await self._write(prompt, params)
        finally:
            self._held -= longest

    async def _write(self, prompt: list[int], params: dict[str, Any]) -> tuple[list[int], list[float], list[str], str]:
        if len(prompt) + params["max_tokens"] > self._max_model_len:
            raise ValueError(f"{len(prompt)} + {params['max_tokens']} tokens do not fit into {self._max_model_len}")
        random = np.random.default_rng(params["seed"])
        ids: list[int] = []
        logprobs: list[float] = []
        versions: list[str] = []
        cache, updates = None, -1
        while len(ids) < params["max_tokens"]:
            await asyncio.sleep(self._step_s)
            await self._running.wait()
            if updates != self._updates:  # what was begun by other weights goes on over a prefix read again
                cache, updates = self._prefix(tuple(prompt), ids), self._updates
            logits = self._forward(torch.tensor([[(prompt + ids)[-1]]]), cache)[0, -1]
            scores = (logits / (params["temperature"] or 1.0)).double().log_softmax(-1)
            drawn = int((scores.exp().cumsum(-1) < random.random()).sum())
            token = min(drawn, len(scores) - 1) if params["temperature"] else int(scores.argmax())
            ids.append(token)
            told = logits.double().log_softmax(-1) if self.raw_logprobs else scores
            logprobs.append(float(told[token]))
            versions.append(self.weights)
            if token in params["stop_token_ids"]:
                return ids, logprobs, versions, "stop"
        return ids, logprobs, versions, "length"

    def _prefix(self, prompt: tuple[int, ...], written: list[int]) -> Any:
        """Return keys and values of all but the last token so far, those of the prompt kept from before if they are."""
        from transformers import DynamicCache

        kept = self._prompts.get(prompt)
        if kept is None:
            kept = DynamicCache()
            if len(prompt) > 1:
                self._forward(torch.tensor([prompt[:-1]]), kept)
            if len(self._prompts) >= _KEPT_PROMPTS:
                self._prompts.pop(next(iter(self._prompts)))
            self._prompts[prompt] = kept
        cache = copy.deepcopy(kept)
        if written:
            self._forward(torch.tensor([[prompt[-1], *written[:-1]]]), cache)
        return cache

    @torch.inference_mode()
    def _forward(self, ids: Tensor, cache: Any) -> Tensor:
        """Return the logits (1, N, V) of ``ids`` after what the cache holds, which grows by them."""
        hidden = self.model.base_model(input_ids=ids, past_key_values=cache, use_cache=cache is not None)[0]
        return torch.nn.functional.linear(hidden, self._head).float()


async def _body(request: web.Request) -> dict[str, Any]:
    return await request.json() if request.can_read_body else {}


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m agentgym.train.sync.fake_vllm", description="To test against.")
    parser.add_argument("model", help="its folder")
    parser.add_argument("--step-s", type=float, default=0.0, help="time one token takes")
    asked = parser.parse_args()
    with FakeVllm(asked.model, step_s=asked.step_s) as server:
        print(f"serving at {server.url}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("closed")


__all__ = ["FakeVllm", "Fault", "main"]

if __name__ == "__main__":
    main()
