from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentgym import store
from agentgym.config import RunConfig
from agentgym.errors import StoredRunError
from agentgym.files import AppendFile, FolderLock, replace
from agentgym.ledger import Ledger
from agentgym.reward import Shaper
from agentgym.reward import signal as reward_signal
from agentgym.store import RunFolder, read_config, read_episodes, read_metrics, read_summary
from agentgym.types import (
    Group,
    Message,
    Sample,
    Sampling,
    Signal,
    StopReason,
    Task,
    ToolCall,
    Trajectory,
    Turn,
    text_message,
)

REWARD: Shaper = reward_signal("won", scope="trajectory") + 0.5 * reward_signal("progress", scope="turn")


def ids(*numbers: int) -> Any:
    return np.array(numbers, np.int32)


def episode(name: str, turns: int = 2, won: float | None = 1.0) -> Trajectory:
    """Return an episode with every field away from its default somewhere."""
    call = ToolCall("c1", "look", {"where": "north", "depth": 2})
    message = Message("assistant", "naïve \ud800 \u2028 go", tool_calls=(call,))
    made = tuple(
        Turn(
            observation=(text_message("user", f"turn {n}"), Message("tool", "ok", tool_call_id="c1")),
            sample=Sample(
                message,
                ids(n, n + 1),
                np.array([np.nan, -0.25], np.float32),
                ids(-1, n),
                "length",
                Sampling(0.5, 4),
            ),
            prompt_ids_N=ids(7, 8, 9)[: n + 1],
            stage=n,
            segment=n,
            state_ref=f"s{n}",
            seconds=0.5,
        )
        for n in range(turns)
    )
    signals = [Signal("won", won, "world", cause="" if won is not None else "it died")]
    signals += [Signal("progress", 0.25, "world", turn=n, evidence="x", cost=0.1) for n in range(turns)]
    signals.append(Signal("test", 1.0, "world", item="unit"))
    task = Task("t", "win", 9, split="demo", data={"seed": 3, "walk": ["a"]})
    end = (text_message("user", "over"),)
    return Trajectory(name, "g", task, made, end, StopReason.MAX_TURNS, tuple(signals), 5, {"log": "abc"})


def priced(*names: str, **settings: Any) -> list[tuple[Group, Sequence[Ledger]]]:
    group = Group(tuple(episode(name, **settings) for name in names))
    return [(group, REWARD(group))]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.create(tmp_path / "run", RunConfig(seed=4)) as folder:
        yield folder


@contextmanager
def full_disk(path: Path, room: int = 0) -> Iterator[None]:
    """Let no file grow beyond ``path``'s size and ``room`` bytes; the system then refuses as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((path.stat().st_size if path.exists() else 0) + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


def same(a: Trajectory, b: Trajectory, *, tokens: bool) -> None:
    """Assert that two trajectories are equal, with or without their token arrays."""
    assert store.trajectory_to_json(a)["turns"] == store.trajectory_to_json(b)["turns"] or not tokens
    for name in ("id", "group_id", "task", "final_observation", "stop", "signals", "seed", "artifacts"):
        assert getattr(a, name) == getattr(b, name), name
    for x, y in zip(a.turns, b.turns, strict=True):
        for name in ("observation", "stage", "segment", "state_ref", "seconds"):
            assert getattr(x, name) == getattr(y, name), name
        for name in ("message", "finish", "sampling"):
            assert getattr(x.sample, name) == getattr(y.sample, name), name
        if tokens:
            np.testing.assert_array_equal(x.prompt_ids_N, y.prompt_ids_N)
            for name in ("token_ids_N", "logprobs_N", "versions_N"):
                found, wanted = getattr(x.sample, name), getattr(y.sample, name)
                np.testing.assert_array_equal(found, wanted)
                assert found.dtype == wanted.dtype


# ------------------------------------------------------------------------------------------------------ round trips


def test_new_run_holds_its_configuration_and_what_it_was_made_with(run: RunFolder) -> None:
    assert read_config(run.path) == run.config == RunConfig(seed=4)
    made = json.loads((run.path / "lock.json").read_text())
    assert made["packages"]["numpy"] == np.__version__
    assert made["python"].startswith("3.")
    assert read_summary(run.path) is None
    assert read_metrics(run.path).records == ()


@pytest.mark.parametrize("tokens", [False, True])
def test_episodes_come_back_as_they_were(run: RunFolder, tokens: bool) -> None:
    run.append_episodes(1, priced("a", "b", turns=3))
    run.append_episodes(2, priced("c", turns=0))
    assert run.episodes == 3
    stored = read_episodes(run.path, tokens=tokens)
    assert [(e.step, e.trajectory.id) for e in stored.records] == [(1, "a"), (1, "b"), (2, "c")]
    for found in stored.records:
        same(found.trajectory, episode(found.trajectory.id, len(found.trajectory.turns)), tokens=tokens)
    assert stored.torn_bytes == 0


def test_one_step_can_be_read_alone(run: RunFolder) -> None:
    run.append_episodes(1, priced("a"))
    run.append_episodes(2, priced("b"))
    (found,) = read_episodes(run.path, step=2, tokens=True).records
    same(found.trajectory, episode("b"), tokens=True)


def test_stored_episodes_are_priced_as_the_live_ones(run: RunFolder) -> None:
    live = priced("a", "b", turns=3)
    run.append_episodes(1, live)
    again = REWARD(Group(tuple(e.trajectory for e in read_episodes(run.path).records)))
    for ledger, before in zip(again, live[0][1], strict=True):
        np.testing.assert_array_equal(ledger.credit_CT(), before.credit_CT())


def test_what_was_paid_is_beside_the_episode(run: RunFolder) -> None:
    run.append_episodes(1, priced("a", turns=2) + priced("b", turns=2, won=None))
    paid, unknown = (e.paid for e in read_episodes(run.path).records)
    assert paid["total"] == pytest.approx(1.25)
    assert paid["credit"] == {"won": [0.0, 1.0], "progress": [0.125, 0.125]}
    assert (paid["measured"], paid["unmeasured_turns"]) == (True, {})
    assert (unknown["measured"], unknown["unmeasured_turns"]) == (False, {"won": [1]})


def test_metrics_keep_order_and_say_what_was_not_measured(run: RunFolder) -> None:
    run.append_metrics({"kind": "train", "step": 1, "loss": np.float32(0.5), "kl": float("nan"), "n": np.int64(3)})
    run.append_metrics({"kind": "eval", "step": 1})
    first, second = read_metrics(run.path).records
    assert first == {"schema": 1, "kind": "train", "step": 1, "loss": 0.5, "kl": None, "n": 3}
    assert second["kind"] == "eval"


def test_summary_is_replaced(run: RunFolder) -> None:
    run.write_summary({"won": 1})
    run.write_summary({"won": 2, "stop": StopReason.DONE})
    assert read_summary(run.path) == {"schema": 1, "won": 2, "stop": "done"}
    assert not list(run.path.glob(".*.partial"))


# -------------------------------------------------------------------------------------------------- kill and resume


def test_run_goes_on_from_its_commit(run: RunFolder) -> None:
    run.append_episodes(1, priced("a"))
    run.append_metrics({"step": 1})
    committed = run.commit()
    run.append_episodes(2, priced("b", "c"))
    run.append_metrics({"step": 2})
    run.close()
    with RunFolder.resume(run.path) as again:
        assert again.config == run.config
        assert again.rewind(committed) == [
            "episodes.jsonl: dropped 2 lines after the last commit",
            "metrics.jsonl: dropped 1 line after the last commit",
        ]
        assert again.episodes == 1
        again.append_episodes(2, priced("d"))
    episodes = read_episodes(run.path, tokens=True).records
    assert [e.trajectory.id for e in episodes] == ["a", "d"]
    same(episodes[1].trajectory, episode("d"), tokens=True)


def test_without_a_commit_it_starts_over(run: RunFolder) -> None:
    run.append_episodes(1, priced("a"))
    assert run.rewind({}) == ["episodes.jsonl: dropped 1 line after the last commit"]
    assert run.episodes == 0
    assert (run.path / "tokens.bin").stat().st_size == 0


def test_resumed_run_has_the_bytes_of_an_unbroken_one(tmp_path: Path) -> None:
    for name, broken in (("whole", False), ("broken", True)):
        with RunFolder.create(tmp_path / name, RunConfig()) as run:
            run.append_episodes(1, priced("a"))
            committed = run.commit()
            if broken:
                run.append_episodes(2, priced("lost"))
                run.rewind(committed)
            run.append_episodes(2, priced("b"))
    for name in ("episodes.jsonl", "tokens.bin"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()


@pytest.mark.parametrize("tail", [b'{"schema":1,"st', b"\0\0\0\0", b'{"schema":1,"st\n'])
def test_half_written_line_is_left_out_and_then_cut_off(run: RunFolder, tail: bytes) -> None:
    run.append_metrics({"step": 1})
    committed = run.commit()
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(tail)
    stored = read_metrics(run.path)
    assert [record["step"] for record in stored.records] == [1]
    assert stored.torn_bytes == len(tail)
    run.close()
    with RunFolder.resume(run.path) as again:
        (said,) = again.rewind(committed)
        assert "metrics.jsonl: dropped" in said
        again.append_metrics({"step": 2})
    assert [record["step"] for record in read_metrics(run.path).records] == [1, 2]


@pytest.mark.parametrize("line", [b"garbage\n", b"[1]\n"])
def test_damage_in_the_middle_is_an_error_with_its_line(run: RunFolder, line: bytes) -> None:
    run.append_metrics({"step": 1})
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(line + b'{"schema":1}\n')
    with pytest.raises(StoredRunError, match=r"metrics.jsonl' line 2 is damaged"):
        read_metrics(run.path)


def test_foreign_schema_is_refused(run: RunFolder) -> None:
    (run.path / "metrics.jsonl").write_text('{"schema":2}\n')
    with pytest.raises(StoredRunError, match="line 1 has schema 2; this version reads 1"):
        read_metrics(run.path)


def test_file_shorter_than_its_commit_is_refused(run: RunFolder) -> None:
    run.append_metrics({"step": 1})
    committed = run.commit()
    run.close()
    (run.path / "metrics.jsonl").write_bytes(b"")
    with RunFolder.resume(run.path) as again, pytest.raises(StoredRunError, match="has 0 bytes, but 22 were committed"):
        again.rewind(committed)


def test_lost_tokens_are_told(run: RunFolder) -> None:
    run.append_episodes(1, priced("a"))
    os.truncate(run.path / "tokens.bin", 4)
    with pytest.raises(StoredRunError, match="the tokens of episode a are not there"):
        read_episodes(run.path, tokens=True)
    assert len(read_episodes(run.path).records) == 1


def test_killed_writer_leaves_whole_lines_and_no_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys, signal; from pathlib import Path; from agentgym.store import RunFolder\n"
        "from agentgym.config import RunConfig\n"
        "run = RunFolder.create(Path(sys.argv[1]), RunConfig())\n"
        "for step in range(100): run.append_metrics({'step': step})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(read_metrics(tmp_path / "run").records) == 100
    RunFolder.resume(tmp_path / "run").close()


# --------------------------------------------------------------------------------------------------- being refused


def test_folder_has_one_writer(run: RunFolder) -> None:
    with pytest.raises(StoredRunError, match=f"is being written by process {os.getpid()}"):
        RunFolder.resume(run.path)
    run.close()
    run.close()
    RunFolder.resume(run.path).close()


def test_lock_is_let_go_where_opening_fails(run: RunFolder) -> None:
    run.close()
    with pytest.raises(StoredRunError, match="holds a run already; continue it with --resume"):
        RunFolder.create(run.path, RunConfig())
    FolderLock(run.path).close()


@pytest.mark.parametrize("read", [read_config, read_episodes, read_metrics, read_summary, RunFolder.resume])
def test_folder_without_a_run_is_refused(tmp_path: Path, read: Any) -> None:
    with pytest.raises(StoredRunError, match=r"no run in '.*': it has no config.toml"):
        read(tmp_path)


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoredRunError, match="cannot make"):
        RunFolder.create(tmp_path / "file" / "run", RunConfig())


# -------------------------------------------------------------------------------------------------------- full disk


def test_full_disk_leaves_the_summary_before(run: RunFolder) -> None:
    run.write_summary({"n": 1})
    with (
        full_disk(run.path / "summary.json"),
        pytest.raises(StoredRunError, match=r"cannot write '.*summary.json': .* the one before is unchanged"),
    ):
        run.write_summary({"n": 1, "more": "x" * 100})
    assert read_summary(run.path) == {"schema": 1, "n": 1}
    assert not list(run.path.glob(".*.partial"))


def test_full_disk_leaves_no_half_line(run: RunFolder) -> None:
    run.append_metrics({"step": 1})
    with (
        full_disk(run.path / "metrics.jsonl", room=10),
        pytest.raises(StoredRunError, match=r"cannot add to '.*metrics.jsonl'.*what it held is unchanged"),
    ):
        run.append_metrics({"step": 2, "more": "x" * 100})
    assert read_metrics(run.path).torn_bytes == 0
    run.append_metrics({"step": 3})
    assert [record["step"] for record in read_metrics(run.path).records] == [1, 3]


def test_full_disk_keeps_episodes_and_tokens_together(run: RunFolder) -> None:
    run.append_episodes(1, priced("a"))
    committed = run.commit()
    with full_disk(run.path / "episodes.jsonl", room=10), pytest.raises(StoredRunError, match=r"episodes.jsonl"):
        run.append_episodes(2, priced("b"))
    assert run.commit() == committed
    assert run.episodes == 1


def test_replace_takes_bytes_and_text(tmp_path: Path) -> None:
    replace(tmp_path / "x", b"1")
    replace(tmp_path / "x", "ü")
    assert (tmp_path / "x").read_bytes() == "ü".encode()
    with pytest.raises(StoredRunError, match="cannot write"):
        replace(tmp_path / "none" / "x", "1")


def test_append_file_refuses_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StoredRunError, match="cannot open"):
        AppendFile(tmp_path)
