"""Probes by name: what a configuration may say, and what becomes of the judges it names."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agentgym.reward_shapers import probes as shipped
from agentgym.reward_shapers.asking import YES_NO

from agentgym.config import RunConfig, build
from agentgym.env import Environment
from agentgym.errors import ConfigError, JudgeError, UnknownNameError, UsageError
from agentgym.judge import Judge, Question
from agentgym.judging.endpoint import endpoint
from agentgym.judging.server import Fault, Faults, JudgeServer
from agentgym.measure import CONCURRENCY, Measuring, each
from agentgym.probe import OpenAt, Probe
from agentgym.probes import resolve_probe, reward_and_probes
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

NOWHERE = {"url": "http://127.0.0.1:9/v1", "model": "none"}
GRADE = {"samples": 1, "low": 0, "high": 10}
SKILL = {"name": "search", "description": "look for it", "criteria": ["it looks"]}
LEAST: dict[str, dict[str, Any]] = {
    "checklist": {"judge": NOWHERE},
    "grade": {"judge": NOWHERE, **GRADE},
    "principle_steps": {"judge": NOWHERE},
    "principles": {"judge": NOWHERE, "principles": {"brief": "It is brief."}},
    "rubric": {"judge": NOWHERE},
    "skills": {"judge": NOWHERE, "library": [SKILL]},
    "tournament": {"judge": NOWHERE},
    "verifier": {},
}
"What each probe needs at least."


def episode(said: str, number: int = 0) -> Trajectory:
    turn = Turn((text_message("user", "a room"),), empty_sample(text_message("assistant", said)), np.empty(0, np.int32))
    signals = (Signal("won", 1.0, "world"),)
    return Trajectory(f"g/{number}", "g", Task("t", "Go.", 9), (turn,), (), StopReason.DONE, signals, 0)


def words(question: Question) -> Mapping[str, Any]:
    """Grade by the number of words said, the line that names the speaker left out."""
    return {"reason": "counted", "grade": len(question.material["what the assistant did"].split()) - 1}


def measured(probe: Probe, group: Group) -> Group:
    async def run() -> Group:
        async with Measuring([probe]) as measuring:
            return (await measuring.group(group))[0]

    return asyncio.run(run())


class Own:
    """A probe of one's own that takes a judge."""

    signals = frozenset({"own"})

    def __init__(self, judge: Judge, factor: float = 1.0, second: Judge | None = None) -> None:
        self.judge, self.factor, self.second = judge, factor, second
        self.name = f"own@{judge.version}"

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        return [() for _ in group.trajectories]


# ------------------------------------------------------------------------------------------------------------ naming


def test_every_shipped_probe_can_be_named() -> None:
    assert sorted(LEAST) == sorted(shipped.__all__)
    for name, params in LEAST.items():
        made = resolve_probe(name, params)
        assert made.signals
        assert ("none-" in made.name) == ("judge" in params)  # the judge's version is in the source of what it says


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("chekclist", {}, "no probe 'chekclist'; did you mean 'checklist'?"),
        ("no.module:probe", {}, "no probe 'no.module:probe': No module named"),
        ("grade", {"judge": NOWHERE, "samples": 1, "low": 0}, "probe 'grade' needs the parameters: high"),
        ("grade", {"judge": NOWHERE, **GRADE, "hihg": 1}, "'grade' has no parameter 'hihg'; did you mean 'high'?"),
        (
            "checklist",
            {"judge": {"url": "http://x", "modl": "m"}},
            "'judge' of probe 'checklist' has no parameter 'modl'; did you mean 'model'?",
        ),
        ("checklist", {"judge": {"url": "http://x"}}, "'judge' of probe 'checklist' needs the parameters: model"),
        (
            "checklist",
            {"judge": {**NOWHERE, "temperature": "hot"}},
            "'temperature' of 'judge' of probe 'checklist' is 'hot'; it must be of type float",
        ),
        ("checklist", {"judge": {**NOWHERE, "url": "localhost"}}, "base_url starts with http"),
        ("checklist", {"judge": "http://x"}, "'judge' of probe 'checklist' is 'http://x'; it must be a table"),
        ("checklist", {}, "probe 'checklist' needs the parameters: judge"),
        ("checklist", {"judge": {**NOWHERE, "api_key_env": "NO_SUCH_KEY"}}, "set the environment variable NO_SUCH_KEY"),
        ("principles", {"judge": NOWHERE, "principles": {}}, "'principles' is empty"),
        ("skills", {"judge": NOWHERE, "library": [{"name": "x"}]}, "a skill is a table with name, description"),
        ("verifier", {"judge": NOWHERE}, "probe 'verifier' has no parameter 'judge'"),
    ],
)
def test_what_is_wrong_with_a_probe_is_said(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_probe(name, params)
    assert message in str(caught.value)


def test_a_class_of_ones_own_takes_judges_where_it_says_so() -> None:
    made = resolve_probe(f"{__name__}:Own", {"judge": NOWHERE, "second": {**NOWHERE, "model": "two"}, "factor": 2.0})
    assert made.name.startswith("own@none-")
    with pytest.raises(ConfigError, match="parameter 'factor' of probe '.*:Own' is 'x'; it must be of type float"):
        resolve_probe(f"{__name__}:Own", {"judge": NOWHERE, "factor": "x"})


def test_the_reward_and_its_probes_are_checked_against_each_other() -> None:
    judged = {"reward": {"recipe": "grm", "probes": [{"name": "grade", "params": {"judge": NOWHERE, **GRADE}}]}}
    shaper, probes = reward_and_probes(build(judged), {"won"})
    assert shaper.signals == {"grade"}
    assert [probe.signals for probe in probes] == [{"grade"}]
    with pytest.raises(ConfigError, match="reads 'grade', which environment 'textworld' does not measure"):
        reward_and_probes(build({"reward": {"recipe": "grm"}}), {"won"})
    judged["reward"]["recipe"] = "cm2"
    with pytest.raises(
        ConfigError,
        match=r"reads 'checklist_item', which environment 'textworld', with grade in reward.probes, does not measure; "
        r"it measures: grade, reward, won",
    ):
        reward_and_probes(build(judged), {"won"})
    reward_and_probes(build(judged), None)  # a world that does not say what it measures


# ---------------------------------------------------------------------------------------------------------- measuring


def test_a_judge_is_opened_with_its_probe_and_remembers(tmp_path: Path) -> None:
    cache = tmp_path / "verdicts.sqlite"
    group = Group((episode("go north"), episode("take the big coin", 1)))
    with JudgeServer(words) as server:
        table = {"url": server.url, "model": "fake", "cache": str(cache), "prompt_price": 1e6}
        probe = resolve_probe("grade", {"judge": table, **GRADE})
        assert not cache.exists()  # naming a probe writes nothing
        first = measured(probe, group)
        assert [t.signal("grade").value for t in first.trajectories] == [2, 4]  # type: ignore[union-attr]
        assert all(t.signals[0] == Signal("won", 1.0, "world") for t in first.trajectories)
        asked = len(server.requests)
        again = measured(probe, group)  # opened a second time
        assert len(server.requests) == asked == 2
        costs = [[t.signals[-1].cost for t in found.trajectories] for found in (first, again)]
        assert min(costs[0]) > 0
        assert costs[1] == [0, 0]


def test_a_judge_that_fails_leaves_its_items_unmeasured() -> None:
    with JudgeServer(words, Faults({Fault.ERROR: 1.0})) as server:
        table = {"url": server.url, "model": "fake", "attempts": 2, "first_wait_s": 0.0}
        found = measured(resolve_probe("grade", {"judge": table, **GRADE}), Group((episode("go"),)))
        assert len(server.requests) == 2
    signal = found.trajectories[0].signal("grade")
    assert signal is not None
    assert signal.value is None
    assert "HTTP 500" in signal.cause


def test_a_judge_that_is_not_open_says_so() -> None:
    with pytest.raises(UsageError, match="is not open"):
        asyncio.run(endpoint(**NOWHERE).ask(Question("?", {"a": "b"}, YES_NO)))


def test_an_api_key_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with JudgeServer(words) as server:
        table = {"url": server.url, "model": "fake", "api_key_env": "JUDGE_KEY"}
        assert (
            measured(resolve_probe("grade", {"judge": table, **GRADE}), Group((episode("go"),)))
            .trajectories[0]
            .signals[1]
            .value
            == 1
        )
        assert "secret" not in str(server.requests)


class Doubles:
    """Says twice what ``reads`` says."""

    def __init__(self, name: str, reads: str) -> None:
        self.name, self.reads = name, reads
        self.signals = frozenset({name})
        self.opened: list[Environment] = []

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        values = [trajectory.signal(self.reads) for trajectory in group.trajectories]
        return [(Signal(self.name, 2 * (v.value or 0.0), self.name),) for v in values if v]


def test_a_later_probe_reads_what_an_earlier_one_said_and_all_is_counted() -> None:
    async def run() -> tuple[list[Group], Any]:
        async with Measuring([Doubles("two", "won"), Doubles("four", "two")]) as measuring:
            return await measuring.groups([Group((episode("a"), episode("b", 1))), Group((episode("c"),))])

    groups, counted = asyncio.run(run())
    assert [[t.signal("four").value for t in g.trajectories] for g in groups] == [[4, 4], [4]]  # type: ignore[union-attr]
    assert (counted.episodes, counted.signals, counted.unmeasured, counted.cost) == (3, 6, 0, 0)


def test_so_many_are_done_at_once_and_the_first_failure_ends_all() -> None:
    now = most = ended = 0

    async def work(number: int) -> None:
        nonlocal now, most, ended
        now += 1
        most = max(most, now)
        try:
            await asyncio.sleep(0.001 if number != 5 else 0.0)
            if number == 5:
                raise ValueError("five")
        finally:
            now -= 1
            ended += 1

    asyncio.run(each(range(5), work))
    assert (most, ended) == (5, 5)
    with pytest.raises(ValueError, match="five"):
        asyncio.run(each(range(100), work))
    assert most == CONCURRENCY
    assert now == 0
    assert ended < 5 + 2 * CONCURRENCY


def test_unknown_names_are_their_own_kind_of_error() -> None:
    with pytest.raises(UnknownNameError):
        resolve_probe("none")
    assert issubclass(JudgeError, Exception)
    assert RunConfig().reward.probes == []
    names: Sequence[str] = shipped.__all__
    assert list(names) == sorted(names)
