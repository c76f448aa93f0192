"""What a world's own check says of each turn, on fakes and on the real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from agentgym.reward_shapers.progress import gains
from agentgym.reward_shapers.step import step
from agentgym.reward_shapers.verifier import VerifierProgress

from agentgym.env import Environment
from agentgym.errors import InfrastructureError, UnknownNameError, UsageError
from agentgym.testing import EchoEnvironment
from agentgym.types import Group, Signal, StopReason, Task, Trajectory, Turn, empty_sample, text_message

TURN = Turn((), empty_sample(text_message("assistant", "look")), np.empty(0, np.int32))


def trajectory(turns: int, *signals: Signal) -> Trajectory:
    return Trajectory("t", "g", Task("t", "", 9), (TURN,) * turns, (), StopReason.DONE, signals, 0)


class Stood:
    """An ``open_at`` whose world says what is listed for each turn; None: it cannot be brought back there."""

    def __init__(self, values: Sequence[float | None]) -> None:
        self.values, self.opened = values, list[int]()

    @contextmanager
    def __call__(self, trajectory: Trajectory, turn: int) -> Iterator[Environment]:
        self.opened.append(turn)
        value = self.values[turn]
        if value is None:
            raise InfrastructureError("the container is gone")
        world = EchoEnvironment()
        world.conclude = lambda: (Signal("passed", value, "tests"),)  # type: ignore[method-assign]
        yield world


def measure(probe: VerifierProgress, episode: Trajectory, open_at: Stood | None) -> list[Signal]:
    (signals,) = asyncio.run(probe(Group((episode,)), open_at))
    return list(signals)


def values(signals: Sequence[Signal], name: str) -> list[float | None]:
    return [signal.value for signal in signals if signal.name == name]


def test_each_turn_is_credited_with_the_difference_it_made():
    found = measure(VerifierProgress("passed"), trajectory(3), Stood([0.25, 0.5, 0.5, 1.0]))
    assert values(found, "verified_start") == [0.25]
    assert values(found, "verified") == [0.5, 0.5, 1.0]
    assert values(found, "verified_gain") == [0.25, 0.0, 0.5]
    assert [signal.turn for signal in found] == [None, 0, 0, 1, 1, 2, 2]
    assert {signal.source for signal in found} == {"verifier/passed"}
    assert {signal.name for signal in found} == VerifierProgress.signals
    assert found[2].evidence == "0.25 before, 0.5 after"


def test_the_end_is_what_the_world_said_of_it_and_is_not_opened():
    stood = Stood([0.0, 0.5, 0.5])
    found = measure(VerifierProgress("passed"), trajectory(2, Signal("passed", 1.0, "world")), stood)
    assert values(found, "verified_gain") == [0.5, 0.5]
    assert stood.opened == [0, 1]


def test_a_check_of_ones_own_measures_the_end_too():
    def twice(world: Environment) -> list[Signal]:
        return [Signal("passed", 2 * (world.conclude()[0].value or 0.0), "mine")]

    probe = VerifierProgress("passed", check=twice, name="verifier/twice")
    found = measure(probe, trajectory(1, Signal("passed", 1.0, "world")), Stood([0.0, 0.25]))
    assert values(found, "verified") == [0.5]
    assert {signal.source for signal in found} == {"verifier/twice"}


def test_what_cannot_be_reopened_is_unmeasured_with_its_cause_and_never_zero():
    found = measure(VerifierProgress("passed"), trajectory(3), Stood([0.0, None, 0.5, 1.0]))
    assert values(found, "verified") == [None, 0.5, 1.0]
    assert values(found, "verified_gain") == [None, None, 0.5]
    assert {signal.cause for signal in found if signal.value is None} == {"the container is gone"}


def test_a_check_that_fails_or_says_nothing_leaves_the_turn_unmeasured():
    def fails(world: Environment) -> list[Signal]:
        raise ZeroDivisionError("no tests")

    found = measure(VerifierProgress("passed", check=fails), trajectory(1), Stood([0.0, 0.0]))
    assert {signal.value for signal in found} == {None}
    assert all("ZeroDivisionError" in signal.cause for signal in found)
    silent = VerifierProgress("passed", check=lambda world: [Signal("passed", None, "tests", cause="timed out")])
    assert {signal.cause for signal in measure(silent, trajectory(1), Stood([0.0, 0.0]))} == {"timed out"}


def test_standings_can_be_priced_over_a_gap():
    found = measure(VerifierProgress("passed"), trajectory(3), Stood([0.0, None, 0.5, 1.0]))
    (ledger,) = step("verified").then(gains())(Group((trajectory(3, *found),)))
    np.testing.assert_allclose(ledger.credit_CT(), [[0.0, 0.5, 0.5]])
    assert ledger.mask_CT().tolist() == [[False, True, True]]


def test_wrong_use_is_refused():
    with pytest.raises(UsageError, match="open_at"):
        measure(VerifierProgress("passed"), trajectory(1), None)
    with pytest.raises(UnknownNameError, match="known: passed"):
        measure(VerifierProgress("pased"), trajectory(1), Stood([0.0, 0.0]))


# ------------------------------------------------------------------------------------------------------ a real engine


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("games")


def test_the_value_of_an_expert_prover_is_textworlds_own_progress(cache: Path):
    pytest.importorskip("textworld")
    from agentgym.policy.scripted import ScriptedPolicy
    from agentgym.registry import make
    from agentgym.reopen import Replay
    from agentgym.rollout import Deadlines, Request, Rollouts, completed

    def world() -> Environment:
        return make("textworld", games={"train": 1}, cache_dir=str(cache), quest_length=3, max_turns=30)

    def commands_left(opened: Environment) -> list[Signal]:
        """Play on by the engine's plan, and count: the more commands it takes, the lower the standing."""
        *_, info = opened.step("look")
        count = 0
        while info["stop"] is None:
            *_, info = opened.step(info["privileged"]["expert"])
            count += 1
        return [Signal("left", -float(count), "expert")]

    def wanders(context: object) -> str:
        privileged = context.privileged  # type: ignore[attr-defined]
        commands = privileged["admissible"]
        turn = len(context.messages) // 2  # type: ignore[attr-defined]
        return str(commands[0] if turn in (1, 2) else privileged["expert"])

    maker = world()
    rollouts = Rollouts(lambda: maker, ScriptedPolicy(wanders), concurrency=1, deadlines=Deadlines(step_s=100.0))
    request = Request("a", "g", maker.tasks("train")[0], seed=5)
    (episode,) = completed(asyncio.run(rollouts.run([request])))
    rollouts.close()
    assert episode.stop is StopReason.DONE
    with Replay(world) as replay:
        proven = VerifierProgress("left", check=commands_left, name="verifier/expert")
        (by_prover,) = asyncio.run(proven(Group((episode,)), _short_of_the_end(replay)))
        (by_outcome,) = asyncio.run(VerifierProgress("won")(Group((episode,)), replay))
    engine = [signal.value for signal in episode.signals if signal.name == "progress"]
    quest = -(values(by_prover, "verified_start")[0] or 0.0)
    found = [gain / quest for gain in values(by_prover, "verified_gain")[:-1] if gain is not None]
    assert len(found) == len(engine) - 1
    np.testing.assert_allclose(found, engine[:-1])  # type: ignore[arg-type]
    assert values(by_outcome, "verified_gain") == [0.0] * (len(engine) - 1) + [1.0]


def _short_of_the_end(replay: object) -> object:
    """An ``open_at`` that cannot open the end: the game is over there, and nobody can play on."""

    def open_at(episode: Trajectory, turn: int) -> object:
        if turn == len(episode.turns):
            raise InfrastructureError("the game is over")
        return replay(episode, turn)  # type: ignore[operator]

    return open_at
