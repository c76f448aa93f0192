"""A ledger reads as a table, keeps its evidence at hand, and works for an episode that never took a turn."""

from __future__ import annotations

import dataclasses

import numpy as np

from agentgym.ledger import WHOLE, Ledger, Status
from agentgym.reward import above, per_trajectory, signal
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

TURN = Turn((), empty_sample(text_message("assistant", "look")), np.empty(0, np.int32))
WON = signal("won", scope="trajectory")
PROGRESS = signal("progress", scope="turn")
REWARD = WON + (0.5 * PROGRESS).when(above(WON, 0))


def priced(turns: int, *signals: Signal) -> Ledger:
    trajectory = Trajectory("e7", "g", Task("t", "", 9), (TURN,) * turns, (), StopReason.MAX_TURNS, signals, 0)
    (ledger,) = REWARD(Group((trajectory,)))
    return ledger


def test_equal_ledgers_say_the_same():
    progress, won = Signal("progress", None, "world", turn=0, cause="lost"), Signal("won", 1.0, "world")
    assert priced(2, progress, won) == priced(2, progress, won)
    assert priced(2, progress, won) != priced(1, progress, won)
    assert priced(2, progress, won) != priced(2, dataclasses.replace(progress, cause="late"), won)
    assert priced(2, progress, won) != priced(2, progress)
    assert priced(1) != "a ledger"


def test_it_explains_itself():
    ledger = priced(
        2,
        Signal("progress", 0.5, "world", turn=0, evidence="the door\nis open"),
        Signal("won", 1.0, "world", evidence="*** The End ***"),
    )
    assert ledger.explain() == (
        "won + (0.5*progress | won > 0)\n"
        "trajectory e7: 2 turns, max_turns, paid 1.25 (not all of it measured)\n"
        "turn  component  value  weight  open  credited  status      gates    evidence\n"
        "0     progress   0.5    0.5     1     0.25      paid        won > 0  world: the door is open\n"
        "1     progress   ?      0.5     1     -         unmeasured  won > 0  no signal\n"
        "end   won        1      1       1     1         paid        -        world: *** The End ***"
    )


def test_a_value_that_could_not_be_measured_explains_its_cause():
    ledger = priced(1, Signal("progress", 0.5, "world", turn=0), Signal("won", None, "tests", cause="container died"))
    paid, won = ledger.entries()
    assert (paid.status, paid.gates, paid.credited) == (Status.UNMEASURED, "won > 0", 0)
    assert won.signal is ledger.trajectory.signals[1]
    assert "tests: container died" in ledger.explain()


def test_an_episode_without_turns_has_a_total_but_no_turn_to_credit():
    ledger = priced(0, Signal("won", 1.0, "world"))
    assert ledger.total() == 1
    assert ledger.measured
    assert ledger.credit_CT().shape == ledger.mask_CT().shape == (2, 0)
    assert [entry.turn for entry in ledger.entries()] == [None]
    assert "0 turns" in ledger.explain()
    assert not priced(0).measured


def test_columns_are_arrays_of_one_length():
    ledger = priced(3, Signal("won", 0.0, "world"))
    columns = [field.name for field in dataclasses.fields(Ledger)][6:]
    assert {getattr(ledger, column).shape for column in columns} == {(4,)}
    assert ledger.turn.tolist() == [WHOLE, 0, 1, 2]
    assert ledger.status.tolist() == [Status.PAID, Status.CLOSED, Status.CLOSED, Status.CLOSED]
    assert ledger.signal.tolist() == [0, -1, -1, -1]


def test_a_function_that_cannot_tell_explains_what_it_needs():
    group = Group((priced(1, Signal("won", 1.0, "world")).trajectory,))
    match = per_trajectory("match", lambda _: None, scope="trajectory", needs="task.data['answer']").named("answered")
    (ledger,) = (match + signal("won", scope="trajectory"))(group)
    unknown, won = ledger.entries()
    assert (unknown.needs, won.needs) == ("task.data['answer']", "")
    assert "needs task.data['answer']" in ledger.explain()
