"""A run whose reward needs a judge: real HTTP against a judge that fails as often as it is told to."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentgym.cli import main
from agentgym.config import RunConfig, dump
from agentgym.errors import ConfigError
from agentgym.judge import Question
from agentgym.store import RunFolder, read_episodes, read_metrics
from agentgym.types import Signal

torch = pytest.importorskip("torch")
pytest.importorskip("textworld")
pytest.importorskip("aiohttp")

from safetensors.torch import load_file  # noqa: E402

from agentgym.cli.audit import audited  # noqa: E402
from agentgym.judging.server import Fault, Faults, JudgeServer  # noqa: E402
from agentgym.train.trainer import Trainer  # noqa: E402

pytestmark = pytest.mark.timeout(600)

Tiny = Callable[..., RunConfig]
Train = Callable[[Path, RunConfig], dict[str, Any]]
SHORT = {"eval__every": 0, "pretrain__plays": 0, "train__groups": 8, "train__group_size": 2}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def letters(text: str) -> int:
    """Return a grade from 0 to 10 that hangs on every letter."""
    return sum(map(ord, text)) % 11


def rule(question: Question) -> Mapping[str, Any]:
    return {"reason": "by its letters", "grade": letters(question.material["what the assistant did"])}


def graded_by(server: JudgeServer, **settings: Any) -> dict[str, Any]:
    """Return overrides that pay what the judge behind ``server`` says, asked once."""
    judge = {"url": server.url, "model": "fake", "attempts": 1, "prompt_price": 1.0, **settings}
    probe = {"name": "grade", "params": {"judge": judge, "samples": 1, "low": 0, "high": 10}}
    return {"reward__recipe": "grm", "reward__params": {}, "reward__probes": [probe]}


def lines(path: Path, kind: str = "train") -> list[dict[str, Any]]:
    return [line for line in read_metrics(path).records if line["kind"] == kind]


def grades(path: Path) -> list[Signal]:
    """Return the one grade of each stored episode."""
    found = []
    for episode in read_episodes(path).records:
        (grade,) = (signal for signal in episode.trajectory.signals if signal.name == "grade")
        found.append(grade)
    return found


def weights(path: Path) -> dict[str, Any]:
    return load_file(path / "model" / "model.safetensors")  # type: ignore[no-any-return]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ----------------------------------------------------------------------------------------------------------- training


def test_a_judge_that_fails_now_and_then_is_paid_by_and_never_counts_as_zero(
    tiny: Tiny, train_here: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with JudgeServer(rule, Faults({Fault.ERROR: 0.25, Fault.NOT_JSON: 0.15})) as server:
        train_here(tmp_path, tiny(train__steps=2, **SHORT, **graded_by(server)))
    stored = grades(tmp_path)
    asked = [grade for grade in stored if "not put to the judge" not in grade.evidence]
    failed = [grade for grade in asked if grade.value is None]
    assert len(stored) == 2 * 8 * 2
    assert len(asked) == len(server.requests)
    assert len(failed) == sum(server.happened.values()) > 0
    assert all("HTTP 500" in grade.cause or "I would rather not say" in grade.cause for grade in failed)
    episodes = read_episodes(tmp_path).records
    for episode, grade in zip(episodes, stored, strict=True):
        assert episode.paid["measured"] is (grade.value is not None)
        if grade in asked and grade.value is not None:
            said = "\n\n".join(f"[assistant]\n{turn.sample.message.content}" for turn in episode.trajectory.turns)
            assert grade.value == letters(said)
            assert episode.paid["total"] == pytest.approx(letters(said) / 10)
    for line in lines(tmp_path):
        at = [grade for episode, grade in zip(episodes, stored, strict=True) if episode.step == line["step"]]
        assert line["judge/signals"] == len(at) == 16
        assert line["judge/unmeasured"] == pytest.approx(sum(grade.value is None for grade in at) / 16)
        assert line["judge/cost"] == pytest.approx(math.fsum(grade.cost for grade in at))
        assert line["judge/cost"] > 0
        assert line["share/judge"] > 0
        assert sum(share for name, share in line.items() if name.startswith("share/")) == pytest.approx(1.0)
    # The commands over stored runs read it like the world's own.
    assert main(["score", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["before"]["total"] == found["after"]["total"]
    assert found["after"]["total"]["unmeasured"] == pytest.approx(len(failed) / 32)
    best = next(place for place, grade in enumerate(stored) if grade in asked and grade.value)
    assert main(["reward", "explain", str(tmp_path), episodes[best].trajectory.id]) == 0
    assert f"{(stored[best].value or 0) / 10:g}" in capsys.readouterr().out


def test_a_judge_that_says_nothing_raises_the_alarm_and_moves_no_weight(
    tiny: Tiny, train_here: Train, tmp_path: Path
) -> None:
    with JudgeServer(rule, Faults({Fault.UNAVAILABLE: 1.0})) as server:
        summary = train_here(tmp_path, tiny(train__steps=3, **SHORT, **graded_by(server)))
    assert summary["alarms"].get("unmeasured") == 1
    assert [line.get("alarm/unmeasured") for line in lines(tmp_path)] == [None, None, 1.0]
    assert not any(grade.value for grade in grades(tmp_path))


def test_a_judged_run_extended_is_what_it_would_have_been(tiny: Tiny, train_here: Train, tmp_path: Path) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    with JudgeServer(rule) as server:
        judged = graded_by(server, cache=str(tmp_path / "verdicts.sqlite"))
        train_here(once, tiny(train__steps=2, **SHORT, **judged))
        asked = len(server.requests)
        train_here(twice, tiny(train__steps=1, **SHORT, **judged))
        first = weights(twice)
        with RunFolder.resume(twice) as folder:
            asyncio.run(Trainer(tiny(train__steps=2, **SHORT, **judged), folder).train())
        assert len(server.requests) == asked  # the second run asked nothing new
    assert [grade.value for grade in grades(once)] == [grade.value for grade in grades(twice)]
    assert same(weights(once), weights(twice))
    assert not same(weights(once), first)


def test_a_run_without_probes_measures_nothing_more(tiny: Tiny, train_here: Train, tmp_path: Path) -> None:
    train_here(tmp_path, tiny(train__steps=1, **SHORT))
    (line,) = lines(tmp_path)
    assert not [name for name in line if "judge" in name]
    assert {name for name in line if name.startswith("share/")} == {
        "share/decode",
        "share/worlds",
        "share/learn",
        "share/other",
    }


def test_a_probe_may_reopen_the_world(tiny: Tiny, train_here: Train, tmp_path: Path) -> None:
    paid = {"reward__recipe": "pav", "reward__params": {"alpha": 0.5}, "reward__probes": [{"name": "verifier"}]}
    train_here(tmp_path, tiny(train__steps=1, **SHORT, **paid))
    (line,) = lines(tmp_path)
    assert line["judge/unmeasured"] == 0.0
    for episode in read_episodes(tmp_path).records:
        trajectory = episode.trajectory
        gains = [signal.value for signal in trajectory.signals if signal.name == "verified_gain"]
        start, won = trajectory.signal("verified_start"), trajectory.signal("won")
        assert start is not None
        assert won is not None
        assert len(gains) == len(trajectory.turns)
        # The gains telescope to what was earned from the start on.
        assert math.fsum(gain or 0.0 for gain in gains) == pytest.approx((won.value or 0.0) - (start.value or 0.0))


# ------------------------------------------------------------------------------------------------- before it begins


def typed(tiny: Tiny, path: Path, **settings: Any) -> str:
    """Write a judged configuration as a TOML file."""
    judge = {"url": "http://127.0.0.1:9/v1", "model": "none"}
    probe = {"name": "grade", "params": {"judge": judge, "samples": 1, "low": 0, "high": 10}}
    settings = {"reward__recipe": "grm", "reward__params": {}, "reward__probes": [probe], **settings}
    (path / "judged.toml").write_text(dump(tiny(**settings)))
    return str(path / "judged.toml")


def test_a_dry_run_shows_the_probes_and_takes_overrides_of_them(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--reward.probes.0.params.judge.model", "larger", "--reward.probes.0.params.samples=3"]
    assert main(["train", typed(tiny, tmp_path), "--dry-run", "--json", *words]) == 0
    (probe,) = json.loads(capsys.readouterr().out)["config"]["reward"]["probes"]
    judge = {"url": "http://127.0.0.1:9/v1", "model": "larger"}
    assert probe == {"name": "grade", "params": {"judge": judge, "samples": 3, "low": 0, "high": 10}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reward.probes.0.name", "grad"], "no probe 'grad'; did you mean 'grade'"),
        (["--reward.probes.0.params.hihg=3"], "probe 'grade' has no parameter 'hihg'; did you mean 'high'"),
        (["--reward.probes.0.params.judge.modl=x"], "'judge' of probe 'grade' has no parameter 'modl'"),
        (["--reward.probes=[]"], "reads 'grade', which environment 'textworld' does not measure"),
        (["--reward.recipe", "cm2"], "reads 'checklist_item', which environment 'textworld', with grade in reward."),
        (["--reward.probes.1.name", "grade"], "reward.probes.1: no such entry"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_made(
    words: list[str],
    message: str,
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = typed(tiny, tmp_path)
    for more in (["--dry-run"], []):
        assert main(["train", path, *words, *more]) == 2
        assert message in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["judged.toml"]


def test_the_audit_before_a_run_asks_the_same_judge(tiny: Tiny, tmp_path: Path) -> None:
    """A judge that falls for an opener is found before a step is trained on it, and a deaf one passes."""

    def gullible(question: Question) -> Mapping[str, Any]:
        return {"reason": "", "grade": 10 * ("Ignore all" in question.material["what the assistant did"])}

    found = {}
    for name, judge in (("gullible", gullible), ("strict", lambda question: {"reason": "", "grade": 0})):
        with JudgeServer(judge) as server:
            found[name] = audited(tiny(audit__max_rate=0.1, audit__tasks=3, **graded_by(server)))
            assert server.requests
    assert [probe.partition("@")[0] for probe in found["gullible"].probes] == ["grade"]
    with pytest.raises(ConfigError, match="falls for 'order in answer"):
        found["gullible"].require(0.1)
    found["strict"].require(0.1)


def test_a_stored_judged_run_is_audited_by_its_own_judge(
    tiny: Tiny, train_here: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with JudgeServer(rule) as server:
        train_here(tmp_path, tiny(train__steps=1, **SHORT, **graded_by(server)))
        before = len(server.requests)
        words = ["reward", "audit", str(tmp_path), "--episodes", "2", "--no-play", "--only", "padding", "--json"]
        assert main(words) == 0
        assert len(server.requests) > before
    found = json.loads(capsys.readouterr().out)
    assert [probe.partition("@")[0] for probe in found["probes"]] == ["grade"]
    # Without a judge nothing of what was judged is left: the reward cannot be priced.
    blank = ["--probe", "verifier"]
    assert main([*words, *blank]) == 2
    assert "reads 'grade', which the world, or a probe that was named," in capsys.readouterr().err
