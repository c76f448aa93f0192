"""Where an audit's episodes come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agentgym.attacks import Case
from agentgym.audit import ORACLE
from agentgym.audit_cases import nothing, played_trial, same_again, stored_cases, to_and_fro
from agentgym.config import RunConfig
from agentgym.errors import StoredRunError
from agentgym.policy import Context
from agentgym.recipes import resolve
from agentgym.store import RunFolder
from agentgym.types import Group, Sampling, Signal, StopReason, Task, Trajectory, text_message


def played(choose: Callable[[Context], str], turns: int) -> list[str]:
    """Return what a policy says where the commands are first a, b, c, and others later on."""
    messages = [text_message("user", "start")]
    for turn in range(turns):
        commands = ("a", "b", "c") if turn < 2 else ("x", "y")
        context = Context("r", 0, tuple(messages), np.empty(0, np.int32), Sampling(), 0, 1.0, {"admissible": commands})
        messages += [text_message("assistant", choose(context)), text_message("user", "seen")]
    return [message.content for message in messages if message.role == "assistant"]


def test_what_the_policies_do() -> None:
    assert played(nothing, 3) == ["", "", ""]
    assert played(same_again, 4) == ["a", "a", "a", "a"]
    assert played(to_and_fro, 5) == ["a", "c", "a", "c", "a"]


def episode(task: str, number: int, won: float | None) -> Trajectory:
    signals = (Signal("won", won, "world"),)
    return Trajectory(f"{task}/{number}", task, Task(task, "", 9), (), (), StopReason.DONE, signals, 0)


def stored(path: Path, *groups: Group) -> Path:
    shaper = resolve("outcome")
    with RunFolder.create(path, RunConfig()) as run:
        for step, group in enumerate(groups, 1):
            run.append_episodes(step, [(group, shaper(group))])
    return path


def test_one_failing_episode_of_each_group_is_taken(tmp_path: Path) -> None:
    mixed = Group((episode("a", 0, None), episode("a", 1, 1.0), episode("a", 2, 0.0), episode("a", 3, 0.0)))
    won, lost = Group((episode("b", 0, 1.0),)), Group((episode("c", 0, 0.0),))
    run = stored(tmp_path / "run", mixed, won, lost)
    cases = stored_cases(run, "won", limit=9)
    assert [case.honest.id for case in cases] == ["a/2", "c/0"]  # what was not measured did not fail
    assert len(cases[0].group.trajectories) == 4
    assert [donor.id for donor in cases[0].donors] == ["a/1", "b/0", "a/0", "c/0"]  # successful ones first
    assert [case.honest.id for case in stored_cases(run, "won", limit=1)] == ["a/2"]
    assert [case.honest.id for case in stored_cases(run, "won", limit=9, step=3)] == ["c/0"]


def test_a_run_in_which_nothing_failed_is_refused(tmp_path: Path) -> None:
    run = stored(tmp_path / "run", Group((episode("a", 0, 1.0),)))
    with pytest.raises(StoredRunError, match="holds no episode that failed"):
        stored_cases(run, "won", limit=9)


def test_a_script_that_wins_is_no_attack_and_an_expert_that_loses_no_oracle() -> None:
    case = Case(Group((episode("a", 0, 1.0), episode("a", 1, 0.0))), 1)
    won, lost, unknown = (episode("a", 2, value) for value in (1.0, 0.0, None))
    taken = played_trial("played: nothing", case, lost, "won")
    assert taken is not None
    assert taken.attacked.group.trajectories == (case.group.trajectories[0], lost)
    assert played_trial(ORACLE, case, won, "won") is not None
    for name, trajectory in [("played", won), (ORACLE, lost), ("played", unknown), (ORACLE, unknown), ("played", None)]:
        assert played_trial(name, case, trajectory, "won") is None
