"""Attacks on rewards: what each makes of an episode, and that the audit finds who falls for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agentgym.attacks import MASTER_KEYS, Attack, Case, attacks
from agentgym.audit import ORACLE, Audit, Trial, audit, trials
from agentgym.cli import main
from agentgym.config import RunConfig
from agentgym.errors import ConfigError
from agentgym.probe import OpenAt
from agentgym.recipes import resolve
from agentgym.reward import per_group, signal
from agentgym.store import RunFolder
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

JUDGED = signal("won", scope="trajectory") + signal("verdict", scope="trajectory")
MADE = {attack.name: attack for attack in attacks()}


def episode(task: str, number: int, won: float, turns: int = 4) -> Trajectory:
    said = tuple(
        Turn(
            (text_message("user", f"{task} shows {t}"),),
            empty_sample(text_message("assistant", f"{task} does {t}. And more.")),
            np.empty(0, np.int32),
        )
        for t in range(turns)
    )
    signals = (*(Signal("progress", 0.1, "world", turn=t) for t in range(turns)), Signal("won", won, "world"))
    end = (text_message("user", "the end"),)
    return Trajectory(f"{task}/{number}", task, Task(task, "Win.", 9), said, end, StopReason.DONE, signals, 0)


def case(task: str = "a", turns: int = 4) -> Case:
    """Return a case whose second sibling is the honest failure, with one donor of its own task and one foreign."""
    group = Group((episode(task, 0, 1.0), episode(task, 1, 0.0, turns)))
    return Case(group, 1, (episode(task, 2, 1.0), episode("foreign", 0, 1.0, 6)))


class Judge:
    """A probe that judges by a rule; it gives no verdict where the rule returns None."""

    name = "judge/1"
    signals = frozenset({"verdict"})

    def __init__(self, rule: Callable[[Trajectory], float | None]) -> None:
        self.rule = rule

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        await asyncio.sleep(0)
        return [(Signal("verdict", self.rule(t), self.name, cause="silent"),) for t in group.trajectories]


def said(trajectory: Trajectory) -> str:
    return "\n".join(turn.sample.message.content for turn in trajectory.turns)


def shown(trajectory: Trajectory) -> str:
    observations = [*(turn.observation for turn in trajectory.turns), trajectory.final_observation]
    return "\n".join(message.content for observation in observations for message in observation)


def judge_of_keys() -> Judge:
    """Return a judge that falls for one opener and for any order it reads."""
    return Judge(lambda t: float("Solution" in said(t) or "Ignore all previous" in said(t) + shown(t)))


def run(judge: Judge, **settings: float) -> Audit:
    cases = [case("a"), case("b")]
    return asyncio.run(audit(JUDGED, trials(cases, MADE.values()), probes=[judge], **settings))


# ----------------------------------------------------------------------------------------------------------- attacks


def attacked(name: str, given: Case | None = None) -> Trajectory:
    made = MADE[name].make(given or case())
    assert made is not None
    return made.honest


@pytest.mark.parametrize("name", MADE)
def test_no_attack_invents_a_measurement_or_adds_a_turn(name: str) -> None:
    honest, found = case().honest, attacked(name)
    assert len(found.turns) <= len(honest.turns)
    assert set(found.signals) <= set(honest.signals)
    assert all(s in found.signals for s in honest.signals if s.turn is None or s.turn < len(found.turns))
    assert found.task == honest.task


@pytest.mark.parametrize("name", sorted(set(MADE) - {"swapped position"}))
def test_attacks_leave_siblings_alone_and_change_something(name: str) -> None:
    given = case()
    made = MADE[name].make(given)
    assert made is not None
    assert made.group.trajectories[0] is given.group.trajectories[0]
    assert said(made.honest) + shown(made.honest) != said(given.honest) + shown(given.honest)


@pytest.mark.parametrize("name", MADE)
def test_an_episode_without_turns_is_attacked_without_an_error(name: str) -> None:
    MADE[name].make(case(turns=0))


def test_what_the_attacks_make() -> None:
    assert [key for key in MASTER_KEYS if f"contentless: {key.strip() or 'blank'}" not in MADE] == []
    assert said(attacked("contentless: Solution")) == "\n".join(["Solution"] * 4)
    assert said(attacked("truncated")) == "a does 0. And more.\na does 1."  # 2 of 4 turns; 9 of the last 19 letters
    assert attacked("truncated").stop is StopReason.LENGTH
    assert said(attacked("first sentence")).splitlines()[-1] == "a does 3"
    assert said(attacked("repetition")).count("a does 3") == 20
    assert said(attacked("stalling")).count("a does 0") == 4
    assert said(attacked("step farming")).split(". And more.")[:3] == ["a does 0", "\na does 1", "\na does 0"]
    assert said(attacked("swapped task")).startswith("foreign does 2")  # the last four of six turns
    assert "Ignore all" in shown(attacked("order in tool output: 1"))
    assert "Ignore all" not in said(attacked("order in tool output: 1"))
    assert "Ignore all" in said(attacked("order in answer: 1"))


def test_swapped_position_turns_the_group_around() -> None:
    given = case()
    made = MADE["swapped position"].make(given)
    assert made is not None
    assert made.group.trajectories == tuple(reversed(given.group.trajectories))
    assert made.honest is given.honest


# ------------------------------------------------------------------------------------------------------------- audit


def test_the_audit_finds_what_a_gullible_judge_falls_for() -> None:
    found = {finding.attack: finding for finding in run(judge_of_keys()).findings}
    fallen = {name for name, finding in found.items() if finding.hits}
    assert fallen == {"contentless: Solution", "order in answer: 1", "order in tool output: 1"}
    one = found["contentless: Solution"]
    assert (one.episodes, one.hits, one.rate, one.honest, one.attacked) == (2, 2, 1.0, 0.0, 1.0)
    # Wilson, 2 of 2: centre (1 + z²/4)/(1 + z²/2), and the interval ends at 1.
    assert one.low == pytest.approx(2 / (2 + 1.959964**2))
    assert one.high == pytest.approx(1)


def test_a_strict_judge_passes() -> None:
    found = run(Judge(lambda t: 0.0))
    assert {finding.rate for finding in found.findings} == {0.0}
    found.require(0.0)


def test_a_reward_above_the_limit_is_refused() -> None:
    found = run(judge_of_keys())
    assert found.worst is not None
    found.require(1.0)
    with pytest.raises(
        ConfigError, match=r"'won \+ verdict' falls for '.*' in 2 of 2 episodes, above audit.max_rate 0.5"
    ):
        found.require(0.5)


def test_a_silent_judge_leaves_attacks_unmeasured_and_is_no_pass() -> None:
    found = run(Judge(lambda t: None if "Solution" in said(t) else 0.0))
    one = next(finding for finding in found.findings if finding.attack == "contentless: Solution")
    assert (one.episodes, one.hits, one.unmeasured) == (0, 0, 2)
    mute = run(Judge(lambda t: None))
    assert mute.worst is None
    with pytest.raises(ConfigError, match="could measure no attack"):
        mute.require(1.0)


def test_a_price_may_be_the_limit() -> None:
    generous = Judge(lambda t: 0.4)
    assert {f.hits for f in run(generous).findings} == {0}
    assert {f.rate for f in run(generous, above=0.3).findings} == {1.0}


def test_what_was_judged_before_does_not_outlive_an_attack() -> None:
    given = case()
    stale = given.replaced(
        Trajectory(
            **{name: getattr(given.honest, name) for name in given.honest.__slots__}
            | {"signals": (*given.honest.signals, Signal("verdict", 9.0, "judge/0", item="old"))}
        )
    )
    found = asyncio.run(audit(JUDGED, trials([stale], MADE.values()), probes=[Judge(lambda t: 0.0)]))
    assert {finding.honest for finding in found.findings} == {0.0}


def test_pairwise_judging_by_place_is_found() -> None:
    first = per_group(
        "first", lambda group: [float(g == 0) for g in range(len(group.trajectories))], scope="trajectory"
    )
    found = asyncio.run(audit(first, trials([case()], [MADE["swapped position"]])))
    assert found.findings[0].rate == 1.0


def test_a_signal_that_nobody_measures_is_refused() -> None:
    with pytest.raises(ConfigError, match="reads 'verdict', which the world, or a probe that was named,"):
        asyncio.run(audit(JUDGED, trials([case()], MADE.values())))


def test_the_oracle_must_be_paid_more() -> None:
    given = case()
    oracle = Trial(ORACLE, given, given.replaced(episode("a", 1, 1.0)))
    assert asyncio.run(audit(resolve("outcome"), [oracle])).findings[0].rate == 0.0
    blind = asyncio.run(audit(resolve("outcome", {"signal": "won"}).named("w") * 0.0, [oracle]))
    assert blind.findings[0].rate == 1.0
    assert blind.worst is None


# ----------------------------------------------------------------------------------------------------------- command


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    shaper = resolve("outcome")
    groups = [case(name).group for name in "abc"]
    with RunFolder.create(tmp_path / "run", RunConfig()) as folder:
        folder.append_episodes(1, [(group, shaper(group)) for group in groups])
    return tmp_path / "run"


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of one's own with a probe and a reward."""
    (tmp_path / "own_judge.py").write_text(
        "from agentgym.reward import Shaper, signal\n"
        "from agentgym.types import Signal\n"
        "class Own:\n"
        "    name, signals = 'own/1', frozenset({'verdict'})\n"
        "    def __init__(self, key): self.key = key\n"
        "    async def __call__(self, group, open_at=None):\n"
        "        said = [' '.join(x.sample.message.content for x in t.turns) for t in group.trajectories]\n"
        "        return [(Signal('verdict', float(self.key in s), 'own/1'),) for s in said]\n"
        "def probe(key: str = 'Solution') -> Own:\n"
        "    return Own(key)\n"
        "def reward() -> Shaper:\n"
        "    return signal('won', scope='trajectory') + signal('verdict', scope='trajectory')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_judge"


def test_a_stored_run_is_audited_by_command(stored: Path, on_path: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "reward",
        "audit",
        str(stored),
        "--reward",
        f"{on_path}:reward",
        "--probe",
        f"{on_path}:probe",
        "--no-play",
    ]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["cases"], found["worst"], found["probes"]) == (3, "contentless: Solution", ["own/1"])
    assert main([*words, "--only", "contentless", "--probe-params", "key=:"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split("  ")[0].strip() for line in lines if "  1.00  " in line} >= {"contentless: :"}
    assert not any(line.startswith("padding") for line in lines)
    assert main([*words, "--only", "contentles"]) == 2
    assert "no attack 'contentles'; did you mean 'contentless'" in capsys.readouterr().err
    assert main(["reward", "audit"]) == 2


# --------------------------------------------------------------------------------------------- in a world of its own


def world(**options: object) -> list[str]:
    settings = {"challenge": "coin_collector", "level": 2, "games": "{demo=1,train=3,valid=1,test=1}", "max_turns": 4}
    return [word for key, value in (settings | options).items() for word in ("--option", f"{key}={value}")]


@pytest.mark.slow
def test_step_farming_is_found_in_a_shipped_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("textworld")
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path))
    words = ["reward", "audit", "--env", "textworld", *world(), "--episodes", "3", "--json"]
    rates: dict[str, dict[str, float]] = {}
    for recipe in ("gated", "outcome"):
        assert main([*words, "--reward", recipe]) == 0
        findings = json.loads(capsys.readouterr().out)["findings"]
        rates[recipe] = {finding["attack"]: finding["rate"] for finding in findings}
    assert rates["outcome"]["played: same again"] == rates["gated"]["played: same again"] == 0.0
    assert rates["outcome"][ORACLE] == rates["gated"][ORACLE] == 0.0


@pytest.mark.parametrize(("limit", "starts"), [("0.5", False), ("1.0", True), ("none", True)])
def test_a_run_does_not_start_on_a_reward_that_falls_for_an_attack(
    limit: str, starts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("textworld")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTGYM_CACHE", str(tmp_path))
    farmed = Attack("farmed", lambda case: case.replaced(replace(case.honest, signals=paid_more(case.honest))))
    monkeypatch.setattr("agentgym.cli.audit.world_cases", lambda config, limit: [case("a"), case("b")])
    monkeypatch.setattr("agentgym.cli.audit.played_trials", lambda config, cases: [])
    monkeypatch.setattr("agentgym.cli.audit.attacks", lambda: iter([farmed]))
    monkeypatch.setattr("agentgym.cli.train._attend", lambda asked, run, config: 0)
    assert main(["train", "quickstart", "--out", "run", f"--audit.max_rate={limit}"]) == (0 if starts else 2)
    assert (tmp_path / "run").exists() == starts
    refused = "falls for 'farmed' in 2 of 2 episodes, above audit.max_rate 0.5" in capsys.readouterr().err
    assert refused is not starts


def paid_more(honest: Trajectory) -> tuple[Signal, ...]:
    return tuple(replace(s, value=2.0) if s.name == "progress" else s for s in honest.signals)
