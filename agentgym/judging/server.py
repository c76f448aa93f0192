"""A judge to test against: real HTTP, verdicts by a rule, and whatever can go wrong, as often as it is told to.

In a test::

    with JudgeServer(rule, Faults({Fault.STALL: 0.3})) as server:
        async with OpenAIJudge(server.url, "fake") as judge: ...

or by hand: ``python -m agentgym.judging.server package.module:rule --fault stall=0.3``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pkgutil
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agentgym.errors import ConfigError, UsageError, missing_extra
from agentgym.judge import Question
from agentgym.judging.patience import uniform
from agentgym.judging.prompt import FENCED, Format
from agentgym.loopback import LoopbackServer

try:
    from aiohttp import web
except ImportError as error:
    raise missing_extra("judge", "aiohttp", "the judge server") from error

Rule = Callable[[Question], Mapping[str, Any]]
"""The verdict on a question, its material as the judge sees it."""


class Fault(StrEnum):
    """What can be wrong with an answer."""

    LIE = "lie"
    "A verdict of the schema that says the contrary: nobody can tell."
    STALL = "stall"
    "The right answer, too late."
    TRUNCATE = "truncate"
    "Cut off, and the endpoint says so (``finish_reason`` length)."
    BUSY = "429"
    "HTTP 429, with a Retry-After where one is set."
    ERROR = "500"
    "HTTP 500."
    UNAVAILABLE = "503"
    "HTTP 503, with a Retry-After where one is set."
    DROP = "drop"
    "The connection is closed without an answer."
    WRONG_SCHEMA = "wrong_schema"
    "JSON, but not of the schema."
    PROSE = "prose"
    "The right verdict with prose around it."
    NOT_JSON = "not_json"
    "Prose alone."


@dataclass(frozen=True, slots=True)
class Faults:
    """How often each fault happens.

    Whether a call fails is a function of the seed, of what it asks and of how often that was asked before, so that it
    does not depend on the order in which concurrent calls arrive.

    Raises:
        ConfigError: rates below 0, or above 1 together.
    """

    rates: Mapping[Fault, float] = field(default_factory=dict)
    seed: int = 0
    stall_s: float = 3600.0
    retry_after: str | None = None

    def __post_init__(self) -> None:
        if min(self.rates.values(), default=0) < 0 or sum(self.rates.values()) > 1 + 1e-9:
            raise ConfigError(f"rates of faults are at least 0 and at most 1 together; got {dict(self.rates)}")

    def draw(self, asked: str, nth: int) -> Fault | None:
        """Return what goes wrong when ``asked`` is asked for the ``nth`` time, from 0."""
        left = uniform(self.seed, asked, nth)
        for fault, rate in self.rates.items():
            left -= rate
            if left < 0:
                return fault
        return None


class JudgeServer(LoopbackServer):
    """Serves chat completions on this machine from a thread of its own, while in its ``with`` statement.

    Args:
        rule: the verdict on each question; it runs on the server's thread.
        faults: what goes wrong, and how often.
        port: 0 takes a free one.
        form: how questions are read; the client's.
    """

    def __init__(self, rule: Rule, faults: Faults = Faults(), *, port: int = 0, form: Format = FENCED) -> None:
        super().__init__("judge-server", port=port)
        self._rule, self._faults, self._form = rule, faults, form
        self._asked: Counter[str] = Counter()
        self.open_calls = 0
        "Calls that are being answered now."
        self.most_at_once = 0
        "Most calls that were open at the same time."
        self.requests: list[dict[str, Any]] = []
        "Bodies of all calls, in order of arrival."
        self.happened: Counter[Fault] = Counter()
        "Faults so far."

    @property
    def url(self) -> str:
        """What a client takes as its ``base_url``."""
        return f"http://127.0.0.1:{self.port}/v1"

    def application(self) -> web.Application:
        """Return what is served."""
        application = web.Application()
        application.router.add_post("/v1/chat/completions", self._serve)
        return application

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.open_calls += 1
        self.most_at_once = max(self.most_at_once, self.open_calls)
        try:
            body = await request.json()
            self.requests.append(body)
            return await self._answer(request, body)
        except (UsageError, ValueError, LookupError) as error:
            return web.json_response({"error": {"message": str(error)}}, status=400)
        finally:
            self.open_calls -= 1

    async def _answer(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        question = self._form.read(body["messages"])
        asked = json.dumps(body["messages"])
        fault = self._faults.draw(asked, self._asked[asked])
        self._asked[asked] += 1
        if fault is not None:
            self.happened[fault] += 1
        match fault:
            case Fault.BUSY | Fault.ERROR | Fault.UNAVAILABLE:
                headers = {"Retry-After": self._faults.retry_after} if self._faults.retry_after else {}
                return web.Response(status=int(fault), text="out of order, as asked for", headers=headers)
            case Fault.STALL:
                await asyncio.sleep(self._faults.stall_s)
            case Fault.DROP if request.transport is not None:
                request.transport.close()
        said = _spoilt(self._rule(question), question, fault)
        return web.json_response(_completion(body, said, "length" if fault is Fault.TRUNCATE else "stop"))


def contrary(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return the verdict furthest from ``value`` that ``schema`` allows: no for yes, the other end for a number."""
    if "enum" in schema:
        return next((choice for choice in reversed(schema["enum"]) if choice != value), value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        low, high = schema.get("minimum", 0), schema.get("maximum", 1)
        return high if value - low < high - value else low
    if isinstance(value, Mapping):
        parts = schema.get("properties", {})
        return {name: contrary(part, parts.get(name, {})) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [contrary(part, schema.get("items", {})) for part in value]
    return value


def _spoilt(verdict: Mapping[str, Any], question: Question, fault: Fault | None) -> str:
    """Return what the judge says where ``fault`` happens to its verdict."""
    if fault is Fault.LIE:
        verdict = contrary(verdict, question.schema)
    text = json.dumps(verdict)
    match fault:
        case Fault.TRUNCATE:
            return text[: len(text) // 2]
        case Fault.WRONG_SCHEMA:
            return json.dumps({"reason": "because", "verdict": ["perhaps"]})
        case Fault.PROSE:
            return f"Here is my verdict:\n```json\n{text}\n```"
        case Fault.NOT_JSON:
            return "I would rather not say."
    return text


def _completion(body: Mapping[str, Any], said: str, finish: str) -> dict[str, Any]:
    """Return a chat completion; tokens are words."""
    asked = sum(len(message["content"].split()) for message in body["messages"])
    return {
        "object": "chat.completion",
        "model": body.get("model", ""),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": finish}],
        "usage": {"prompt_tokens": asked, "completion_tokens": len(said.split())},
    }


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m agentgym.judging.server", description="A judge to test against.")
    parser.add_argument("rule", help="package.module:callable, from a Question to a verdict")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stall-s", type=float, default=3600.0)
    parser.add_argument("--retry-after")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME=RATE", help=", ".join(Fault))
    asked = parser.parse_args()
    try:
        rates = {Fault(name): float(rate) for name, _, rate in (entry.partition("=") for entry in asked.fault)}
    except ValueError as error:
        parser.error(str(error))
    faults = Faults(rates, asked.seed, asked.stall_s, asked.retry_after)
    with JudgeServer(pkgutil.resolve_name(asked.rule), faults, port=asked.port) as server:
        print(f"judging at {server.url}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("closed")


__all__ = ["Fault", "Faults", "JudgeServer", "Rule", "contrary", "main"]

if __name__ == "__main__":
    main()
