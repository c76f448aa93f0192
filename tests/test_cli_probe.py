"""``agentgym probe`` and the signals it adds to a stored run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from agentgym.cli import main
from agentgym.config import RunConfig
from agentgym.errors import StoredRunError
from agentgym.files import FolderLock
from agentgym.recipes import resolve
from agentgym.rescore import groups
from agentgym.store import RunFolder
from agentgym.store_signals import SIGNALS, Asked, Measurements, SignalsFile, fingerprint
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

PROBE = '''
from agentgym.reward import Shaper, signal
from agentgym.types import Signal

def note(word):
    with open("log", "a") as log: log.write(word + "\\n")

class Letters:
    """Counts letters; it has no value for an episode that says nothing."""
    signals = frozenset({"letters", "won"})
    def __init__(self, factor): self.factor, self.name = factor, "letters/1"
    async def __aenter__(self): note("in")
    async def __aexit__(self, *error): note("out")
    async def __call__(self, group, open_at=None):
        note("asked")
        said = ["".join(turn.sample.message.content for turn in t.turns) for t in group.trajectories]
        return [(Signal("letters", self.factor * len(s) if s else None, self.name, cost=0.5),) for s in said]

class Overrules(Letters):
    async def __call__(self, group, open_at=None):
        return [(Signal("won", 0.25, self.name),) for t in group.trajectories]

def letters(factor: float = 1.0): return Letters(factor)
def overrules(): return Overrules(1.0)
def liar():
    probe = Letters(1.0)
    probe.signals = frozenset()
    return probe
def reward() -> Shaper: return signal("letters", scope="trajectory")
'''


def episode(name: str, said: str = "go") -> Trajectory:
    turn = Turn((text_message("user", "a room"),), empty_sample(text_message("assistant", said)), np.empty(0, np.int32))
    signals = (Signal("won", 1.0, "world"),)
    return Trajectory(f"g{name}/0", f"g{name}", Task(name, "", 9), (turn,), (), StopReason.DONE, signals, 0)


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three groups of one episode, the last of which says nothing; a module with probes beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_probe.py").write_text(PROBE)
    shaper = resolve("outcome")
    made = [Group((episode(name, said),)) for name, said in (("a", "go"), ("b", "stop"), ("c", ""))]
    with RunFolder.create(tmp_path / "run", RunConfig()) as run:
        run.append_episodes(1, [(group, shaper(group)) for group in made])
    return tmp_path / "run"


def measured(
    stored: Path, capsys: pytest.CaptureFixture[str], *words: str, probe: str = "letters"
) -> tuple[int, int, int]:
    assert main(["probe", str(stored), "--probe", f"own_probe:{probe}", *words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return found["episodes"], found["skipped"], found["unmeasured"]


def value(stored: Path, episode_id: str, name: str = "letters") -> float | None:
    found = {t.id: t.signal(name) for group, _ in groups(stored) for t in group.trajectories}[episode_id]
    assert found is not None
    return found.value


def test_measured_episodes_are_skipped_unless_told_otherwise(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert measured(stored, capsys) == (3, 0, 1)
    assert measured(stored, capsys) == (1, 2, 1)  # what had no value is asked for again
    assert measured(stored, capsys, "--again") == (3, 0, 1)
    assert measured(stored, capsys, "--params", "factor=2.0") == (3, 0, 1)  # another measurement
    whole = ["in", "asked", "asked", "asked", "out"]
    log = (stored.parent / "log").read_text().split()
    assert log == [*whole, "in", "asked", "out", *whole, *whole]  # the probe is entered and left each time


def test_the_last_measurement_wins(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(stored, capsys)
    assert (value(stored, "ga/0"), value(stored, "gb/0"), value(stored, "gc/0")) == (2, 4, None)
    measured(stored, capsys, "--params", "factor=2.0")
    assert value(stored, "gb/0") == 8
    measured(stored, capsys, probe="overrules")
    assert value(stored, "ga/0", "won") == 0.25  # in the place of the recorded one
    (first, *_), *_ = (group.trajectories for group, _ in groups(stored))
    assert sorted(signal.name for signal in first.signals) == ["letters", "won"]  # each counts once


def test_score_reads_what_was_measured_since(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", str(stored), "--reward", "own_probe:reward", "--json"]
    assert main(words) == 2
    assert "reads 'letters', which run" in capsys.readouterr().err
    measured(stored, capsys)
    assert main(words) == 0
    after = json.loads(capsys.readouterr().out)["after"]
    assert after["total"] == {"mean": pytest.approx(3.0), "unmeasured": pytest.approx(1 / 3)}


def test_a_half_written_last_line_is_passed_over_and_cut_off(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(stored, capsys)
    path = stored / SIGNALS
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:-1]) + whole[-1][:20])
    assert value(stored, "ga/0") == 2
    assert main(["probe", str(stored), "--probe", "own_probe:letters"]) == 0
    assert "a half-written last line of 20 bytes was cut off" in capsys.readouterr().out
    assert path.read_bytes().startswith(b"".join(whole[:-1]))
    assert all(json.loads(line) for line in path.read_bytes().splitlines())


def test_a_damaged_line_or_another_schema_is_refused(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured(stored, capsys)
    path = stored / SIGNALS
    text = path.read_text()
    path.write_text("{\n" + text)
    assert main(["score", str(stored)]) == 2
    assert "signals.jsonl' line 1 is damaged" in capsys.readouterr().err
    path.write_text(text.replace('"schema":1', '"schema":2'))
    assert main(["score", str(stored)]) == 2
    assert "has schema 2; this version reads 1" in capsys.readouterr().err


def test_signals_of_an_episode_played_again_under_its_name_are_not_read(stored: Path) -> None:
    asked = Asked("p", {}, "p/1")
    with SignalsFile(stored) as file:
        file.append(asked, episode("a", "another thing"), [Signal("letters", 1.0, "p/1")])
        file.append(asked, episode("b", "stop"), [Signal("letters", 1.0, "p/1")])
    found = Measurements(stored)
    assert not found.holds(episode("a"), asked)
    assert found.merged(episode("a")).signals == episode("a").signals
    assert found.holds(episode("b", "stop"), asked)
    assert fingerprint(episode("a")) != fingerprint(episode("a", "go "))


def test_a_run_that_is_being_written_is_refused(stored: Path) -> None:
    lock = FolderLock(stored)
    with pytest.raises(StoredRunError, match="is being written by process"):
        SignalsFile(stored)
    lock.close()


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ("letters", "no probe 'letters'; known: checklist, grade, module:callable"),
        ("own_probe:none", "no probe 'own_probe:none'"),
        ("own_probe:reward", "returned a Shaper, which is no agentgym.probe.Probe"),
        ("own_probe:liar", "undeclared signals: letters"),
    ],
)
def test_what_is_no_probe_is_refused(
    stored: Path, capsys: pytest.CaptureFixture[str], probe: str, message: str
) -> None:
    assert main(["probe", str(stored), "--probe", probe]) == 2
    assert message in capsys.readouterr().err


def test_parameters_are_checked(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", str(stored), "--probe", "own_probe:letters", "--params", "facto=1.0"]) == 2
    assert "probe 'own_probe:letters' has no parameter 'facto'; did you mean 'factor'" in capsys.readouterr().err
