"""The judge client over real HTTP: every way a call can fail, the cache, the bounds, and what is paid."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import ConfigError, JudgeError, UsageError
from agentgym.judge import Question
from agentgym.judging.cache import VerdictCache
from agentgym.judging.openai import JudgeSampling, OpenAIJudge, Prices
from agentgym.judging.patience import Patience
from agentgym.judging.prompt import FENCED
from agentgym.judging.server import Fault, Faults, JudgeServer

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "satisfied": {"type": "boolean"}},
    "required": ["reason", "satisfied"],
    "additionalProperties": False,
}
AT_ONCE = Patience(attempts=3, call_s=30.0, total_s=90.0, first_wait_s=0.0)
CAUSES = {
    Fault.STALL: "no answer within 0.5 s",
    Fault.TRUNCATE: 'cut off at 4 tokens; it says \'{"reason": "it was checked\'',
    Fault.BUSY: "HTTP 429",
    Fault.ERROR: "HTTP 500",
    Fault.UNAVAILABLE: "HTTP 503",
    Fault.DROP: "out of reach: ServerDisconnectedError",
    Fault.WRONG_SCHEMA: "not of the schema",
    Fault.PROSE: "not one JSON object and nothing else",
    Fault.NOT_JSON: "I would rather not say.",
}
"What the error says of each fault; a lie is none that anybody could tell."


def about(answer: str) -> Question:
    return Question("Is the answer right?", {"task": "What is six times seven?", "answer": answer}, SCHEMA)


def right(question: Question) -> Mapping[str, Any]:
    return {"reason": "it was checked twice", "satisfied": "42" in question.material["answer"]}


def ask(judge: OpenAIJudge, *questions: Question, sample: int = 0) -> list[Any]:
    """Return verdicts and errors, in order."""

    async def asked() -> list[Any]:
        async with judge:
            return await asyncio.gather(*(judge.ask(q, sample=sample) for q in questions), return_exceptions=True)

    return asyncio.run(asked())


def patience_for(fault: Fault, attempts: int) -> Patience:
    call_s = 0.5 if fault is Fault.STALL else 30.0
    return Patience(attempts=attempts, call_s=call_s, total_s=90.0, first_wait_s=0.0)


def test_a_verdict_comes_with_its_reason_and_its_price():
    with JudgeServer(right) as server:
        judge = OpenAIJudge(server.url, "org/fake judge", prices=Prices(prompt=2.0, completion=1e6), patience=AT_ONCE)
        yes, no = ask(judge, about("42"), about("41"))
    assert (yes.value["satisfied"], no.value["satisfied"], yes.reason) == (True, False, "it was checked twice")
    words = sum(len(m["content"].split()) for m in server.requests[0]["messages"])
    # {"reason": "it was checked twice", "satisfied": true} is 7 words
    assert (yes.prompt_tokens, yes.completion_tokens) == (words, 7)
    assert yes.cost == pytest.approx(2.0 * words / 1e6 + 7.0)
    assert judge.spent.cost == pytest.approx(yes.cost + no.cost)
    assert (judge.spent.calls, judge.spent.verdicts, judge.spent.failures) == (2, 2, 0)
    assert judge.version.startswith("fake_judge-")


def test_the_request_is_a_chat_completion_that_asks_for_the_schema():
    with JudgeServer(right) as server:
        sampling = JudgeSampling(temperature=0.6, top_p=0.8, max_tokens=99, fields={"top_p": None, "top_k": 20})
        ask(OpenAIJudge(server.url, "fake", sampling=sampling, patience=AT_ONCE), about("42"))
        ask(OpenAIJudge(server.url, "fake", enforce=False, sampling=JudgeSampling(seed=None)), about("42"))
    first, second = server.requests
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert first["response_format"]["json_schema"] == {"name": "verdict", "schema": SCHEMA, "strict": True}
    assert (first["model"], first["temperature"], first["max_tokens"], first["top_k"]) == ("fake", 0.6, 99, 20)
    assert "top_p" not in first
    assert not {"seed", "response_format"} & set(second)


@pytest.mark.parametrize("fault", CAUSES)
def test_a_failure_is_asked_about_again(fault: Fault):
    """Half of the calls fail; with twenty attempts at each, no question is lost and every verdict is right."""
    with JudgeServer(right, Faults({fault: 0.5})) as server:
        questions = [about(f"{n}") for n in range(38, 46)]
        verdicts = ask(OpenAIJudge(server.url, "fake", patience=patience_for(fault, 20)), *questions)
    assert [verdict.value["satisfied"] for verdict in verdicts] == [n == 42 for n in range(38, 46)]
    assert server.happened[fault] > 2
    if fault is not Fault.STALL:  # a slow machine makes more calls late than were told to be
        assert len(server.requests) == 8 + server.happened[fault]


@pytest.mark.parametrize("fault", CAUSES)
def test_a_failure_that_lasts_is_an_error_that_says_what_happened(fault: Fault):
    with JudgeServer(right, Faults({fault: 1.0})) as server:
        judge = OpenAIJudge(server.url, "fake", patience=patience_for(fault, 3))
        (error,) = ask(judge, about("42"))
    assert type(error) is JudgeError
    assert CAUSES[fault] in str(error)
    assert f"judge '{judge.version}' gave no verdict in 3 calls" in str(error)
    assert (judge.spent.calls, judge.spent.failures, judge.spent.verdicts) == (3, 1, 0)


def test_a_lie_is_a_verdict():
    with JudgeServer(right, Faults({Fault.LIE: 1.0})) as server:
        (verdict,) = ask(OpenAIJudge(server.url, "fake"), about("42"))
    assert verdict.value["satisfied"] is False


def test_calls_that_came_to_nothing_are_paid_for():
    with JudgeServer(right, Faults({Fault.NOT_JSON: 1.0})) as server:
        judge = OpenAIJudge(server.url, "fake", prices=Prices(completion=1e6), patience=AT_ONCE)
        ask(judge, about("42"))
    assert judge.spent.cost == 3 * len(["I", "would", "rather", "not", "say."])


def test_a_repeated_call_is_seeded_anew_and_each_sample_by_itself():
    with JudgeServer(right, Faults({Fault.PROSE: 1.0})) as server:
        ask(OpenAIJudge(server.url, "fake", patience=AT_ONCE), about("42"))
        ask(OpenAIJudge(server.url, "fake", patience=AT_ONCE), about("42"), sample=1)
        ask(OpenAIJudge(server.url, "fake", patience=AT_ONCE), about("42"))
    seeds = [request["seed"] for request in server.requests]
    assert len(set(seeds[:6])) == 6
    assert seeds[:3] == seeds[6:]


def test_nobody_there_is_an_error_that_says_so():
    with JudgeServer(right) as server:
        url = server.url
    (error,) = ask(OpenAIJudge(url, "fake", patience=AT_ONCE), about("42"))
    assert isinstance(error, JudgeError)
    assert "in 3 calls: out of reach: ClientConnectorError" in str(error)


@pytest.mark.parametrize(
    ("status", "payload", "calls", "cause"),
    [
        (401, b"wrong key", 1, "HTTP 401: 'wrong key'"),
        (302, b"", 1, "HTTP 302"),
        (400, b"maximum context length is 4096", 1, "maximum context length"),
        (504, b"gateway", 2, "HTTP 504"),
        (200, b"<html>", 2, "no chat completion: '<html>'"),
        (200, b'{"choices": []}', 2, "no chat completion"),
        (200, b'{"choices": [{"message": null}]}', 2, "no chat completion"),
        (200, b"[" * 100_000, 2, "no chat completion"),
        (200, b'{"choices": [{"message": {"content": "{}"}, "finish_reason": "content_filter"}]}', 1, "content filter"),
        (200, b'{"choices": [{"message": {"refusal": "no"}, "finish_reason": "stop"}]}', 2, "it says ''"),
        (200, b" " * (5 * 2**20), 2, "longer than 4194304 bytes"),
    ],
)  # fmt: skip
def test_what_other_endpoints_say(status: int, payload: bytes, calls: int, cause: str):
    seen = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            try:
                self.wfile.write(payload)
            except OSError:
                assert len(payload) > 2**20  # hung up on

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Endpoint) as endpoint:
        thread = threading.Thread(target=endpoint.serve_forever, args=(0.01,))
        thread.start()
        patience = Patience(attempts=2, first_wait_s=0.0, call_s=30.0)
        (error,) = ask(
            OpenAIJudge(f"http://127.0.0.1:{endpoint.server_port}/v1", "fake", patience=patience), about("x")
        )
        endpoint.shutdown()
        thread.join()
    assert isinstance(error, JudgeError)
    assert cause in str(error)
    assert len(seen) == calls


def test_retry_after_is_waited_for_in_full():
    """The second call comes no sooner than the endpoint asked, though our own wait would have been none."""
    times = []

    def rule(question: Question) -> Mapping[str, Any]:
        return right(question)

    class Timed(JudgeServer):
        async def _serve(self, request: Any) -> Any:
            times.append(asyncio.get_running_loop().time())
            return await super()._serve(request)

    seed = next(s for s in range(100) if _first_fails(s))
    with Timed(rule, Faults({Fault.BUSY: 0.5}, seed=seed, retry_after="1")) as server:
        (verdict,) = ask(OpenAIJudge(server.url, "fake", patience=AT_ONCE), about("42"))
    assert verdict.value["satisfied"] is True
    assert len(times) == 2
    assert times[1] - times[0] >= 1.0


def _first_fails(seed: int) -> bool:
    """Return whether the first call about 42 fails and the second does not, at a rate of one half."""
    asked, faults = json.dumps(FENCED.write(about("42"))), Faults({Fault.BUSY: 0.5}, seed=seed)
    return faults.draw(asked, 0) is Fault.BUSY and faults.draw(asked, 1) is None


def test_a_retry_after_beyond_the_deadline_is_not_waited_for():
    with JudgeServer(right, Faults({Fault.UNAVAILABLE: 1.0}, retry_after="3600")) as server:
        (error,) = ask(OpenAIJudge(server.url, "fake", patience=AT_ONCE), about("42"))
    assert "in 1 call: HTTP 503" in str(error)
    assert "a wait of 3.6e+03 s does not fit" in str(error)


def test_the_deadline_is_of_all_calls_together():
    with JudgeServer(right, Faults({Fault.STALL: 1.0})) as server:
        patience = Patience(attempts=100, call_s=0.2, total_s=0.5, first_wait_s=0.0)
        judge = OpenAIJudge(server.url, "fake", patience=patience)
        (error,) = ask(judge, about("42"))
    assert isinstance(error, JudgeError)
    assert judge.spent.calls <= 3


def test_queueing_counts_against_no_deadline():
    """Twenty questions one after the other take longer than each may."""
    with JudgeServer(right, Faults({Fault.STALL: 1.0}, stall_s=0.1)) as server:
        patience = Patience(attempts=1, call_s=1.5, total_s=1.5)
        judge = OpenAIJudge(server.url, "fake", concurrency=1, patience=patience)
        verdicts = ask(judge, *(about(str(n)) for n in range(20)))
    assert not [verdict for verdict in verdicts if isinstance(verdict, Exception)]


@pytest.mark.parametrize("bound", [1, 3])
def test_no_more_calls_at_once_than_allowed(bound: int):
    with JudgeServer(right, Faults({Fault.STALL: 1.0}, stall_s=0.1)) as server:
        judge = OpenAIJudge(server.url, "fake", concurrency=bound, patience=AT_ONCE)
        ask(judge, *(about(str(n)) for n in range(12)))
    assert server.most_at_once == bound


def test_what_is_cached_costs_nothing_and_survives_a_restart(tmp_path: Path):
    with JudgeServer(right) as server:
        for expected_calls in (1, 1):
            cache = VerdictCache(tmp_path / "verdicts.sqlite")
            judge = OpenAIJudge(server.url, "fake", cache=cache, prices=Prices(1, 1), patience=AT_ONCE)
            (verdict,) = ask(judge, about("42"))
            cache.close()
            assert len(server.requests) == expected_calls
            assert verdict.value == {"reason": "it was checked twice", "satisfied": True}
    assert verdict.cached
    assert (verdict.cost, verdict.prompt_tokens, verdict.completion_tokens) == (0, 0, 0)
    assert (judge.spent.calls, judge.spent.cost, judge.spent.from_cache) == (0, 0, 1)


def test_a_failure_is_not_cached(tmp_path: Path):
    cache = VerdictCache(tmp_path / "verdicts.sqlite")
    with JudgeServer(right, Faults({Fault.NOT_JSON: 1.0})) as server:
        assert isinstance(
            ask(OpenAIJudge(server.url, "fake", cache=cache, patience=AT_ONCE), about("42"))[0], JudgeError
        )
    with JudgeServer(right) as server:
        (verdict,) = ask(OpenAIJudge(server.url, "fake", cache=cache, patience=AT_ONCE), about("42"))
    cache.close()
    assert not verdict.cached


CHANGED: dict[str, Any] = {
    "instructions": {"question": Question("Is it wrong?", about("42").material, SCHEMA)},
    "material": {"question": about("42 ")},
    "name": {"question": Question("Is the answer right?", {"task": "What is six times seven?", "reply": "42"}, SCHEMA)},
    "order": {"question": Question("Is the answer right?", dict(reversed(about("42").material.items())), SCHEMA)},
    "schema": {"question": Question("Is the answer right?", about("42").material, {**SCHEMA, "title": "verdict"})},
    "sample": {"sample": 1},
    "model": {"model": "other"},
    "revision": {"revision": "b"},
    "temperature": {"sampling": JudgeSampling(temperature=0.5)},
    "seed": {"sampling": JudgeSampling(seed=1)},
    "fields": {"sampling": JudgeSampling(fields={"reasoning_effort": "low"})},
    "enforce": {"enforce": False},
}


@pytest.mark.parametrize("what", CHANGED)
def test_whatever_matters_is_asked_anew(what: str, tmp_path: Path):
    def once(question: Question = about("42"), sample: int = 0, model: str = "fake", **settings: Any) -> str:  # noqa: B008
        judge = OpenAIJudge(server.url, model, cache=cache, patience=AT_ONCE, **settings)
        (verdict,) = ask(judge, question, sample=sample)
        assert not isinstance(verdict, BaseException), verdict
        return judge.version

    cache = VerdictCache(tmp_path / "verdicts.sqlite")
    with JudgeServer(lambda _: {"reason": "", "satisfied": True}) as server:
        before, after = once(), once(**CHANGED[what])
        assert len(server.requests) == 2
        once(**CHANGED[what])
        assert len(server.requests) == 2
    cache.close()
    assert (before == after) == (what in ("instructions", "material", "name", "order", "schema", "sample"))


def test_the_prompt_format_is_part_of_the_version():
    newer = replace(FENCED, version="fenced-999")
    assert OpenAIJudge("http://x/v1", "fake", form=newer).version != OpenAIJudge("http://x/v1", "fake").version


def test_a_cancelled_call_is_hung_up_at_once_and_leaks_nothing():
    """The slot is free again, the server sees the connection go, and closing warns of nothing (warnings are errors)."""

    async def asked() -> Any:
        async with judge:
            stalled = asyncio.create_task(judge.ask(about("slow")))
            while not server.requests:
                await asyncio.sleep(0.005)
            stalled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stalled
            answer = await judge.ask(about("42"))
            while server.open_calls:
                await asyncio.sleep(0.005)
            return answer

    class SlowOnSlow(Faults):
        def draw(self, asked: str, nth: int) -> Fault | None:
            return Fault.STALL if "slow" in asked else None

    with JudgeServer(right, SlowOnSlow()) as server:
        judge = OpenAIJudge(server.url, "fake", concurrency=1, patience=AT_ONCE)
        assert asyncio.run(asked()).value["satisfied"] is True
    assert judge.spent.failures == 0


def test_a_judge_is_opened_before_it_is_asked_and_once_in_each_loop():
    judge = OpenAIJudge("http://127.0.0.1:9/v1", "fake")
    with pytest.raises(UsageError, match="not open"):
        asyncio.run(judge.ask(about("42")))

    async def twice() -> None:
        async with judge, judge:
            pass

    with pytest.raises(UsageError, match="open already"):
        asyncio.run(twice())
    with JudgeServer(right) as server:
        again = OpenAIJudge(server.url, "fake", concurrency=1)
        assert [ask(again, about("42"), about("41"))[0].value["satisfied"] for _ in range(2)] == [True, True]


def test_a_key_is_sent_and_shown_nowhere():
    headers = []

    class Listening(JudgeServer):
        async def _serve(self, request: Any) -> Any:
            headers.append(request.headers["Authorization"])
            return await super()._serve(request)

    with Listening(right, Faults({Fault.ERROR: 1.0})) as server:
        judge = OpenAIJudge(server.url, "fake", api_key="s3cret", patience=AT_ONCE)
        (error,) = ask(judge, about("42"))
    assert set(headers) == {"Bearer s3cret"}
    assert "s3cret" not in f"{error} {judge!r} {judge.version}"


def test_arguments_that_cannot_be_meant():
    for arguments, said in (
        ({"base_url": "localhost"}, "http://"),
        ({"model": ""}, "model"),
        ({"concurrency": 0}, "1 call"),
    ):
        with pytest.raises(ConfigError, match=said):
            OpenAIJudge(**{"base_url": "http://x/v1", "model": "m", **arguments})
