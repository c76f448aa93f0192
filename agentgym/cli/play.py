"""``agentgym play``: a person in the policy's place."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence

from agentgym import registry
from agentgym.types import Observation, Signal, StopReason, Task

from .options import parsed

QUIT = frozenset({"quit", "exit"})
"""Words that end a game."""


def play(env: str, task_id: str | None, split: str | None, seed: int, options: Sequence[str]) -> None:
    """Play one episode on standard input and output. The end of the input ends it, as `QUIT` does.

    Raises:
        UnknownNameError: there is no such environment, split or task.
    """
    given = parsed(options) | ({"split": split} if split is not None and task_id is None else {})
    environment = registry.make(env, **given)
    try:
        asked: dict[str, str | Task] = {} if task_id is None else {"task": task_id}
        observation, info = environment.reset(seed=seed, options=dict(asked))
        signals = list(info["signals"])
        print(f"{info['task_id']}   ('quit' ends it)\n")
        _show(observation)
        stop, turns = info["stop"], 0
        while stop is None:
            command = _answer()
            if command is None:
                break
            if not command.strip():
                continue
            observation, _, _, _, info = environment.step(command)
            _show(observation)
            signals += info["signals"]
            stop, turns = info["stop"], turns + 1
        _verdict(signals, stop, turns)
    finally:
        environment.close()


def _answer() -> str | None:
    """Return what the person typed, or None at the end. Input that is no terminal is shown as if it had been typed."""
    terminal = sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - makes the arrow keys work in input()
    try:
        command = input("> ")
    except (EOFError, KeyboardInterrupt):
        print()
        return None
    if not terminal:
        print(command)
    return None if command.strip().lower() in QUIT else command


def _show(observation: Observation) -> None:
    for message in observation:
        print(f"{message.content}\n")


def _verdict(signals: Sequence[Signal], stop: StopReason | None, turns: int) -> None:
    """Print how it ended and what was measured: of the episode, and of its turns summed up."""
    print(f"{'left' if stop is None else f'ended: {stop}'} after {turns} turn{'s' * (turns != 1)}")
    whole = [signal for signal in signals if signal.turn is None]
    by_turn: dict[str, list[float | None]] = {}
    for signal in signals:
        if signal.turn is not None:
            by_turn.setdefault(signal.name, []).append(signal.value)
    for signal in whole:
        print(f"  {signal.name:<14} {_value(signal)}")
    for name, values in by_turn.items():
        measured = [value for value in values if value is not None]
        total = f"{sum(measured):.2f} over {len(measured)} turns" if measured else "not measured"
        print(f"  {name:<14} {total}")


def _value(signal: Signal) -> str:
    return f"{signal.value:.2f}" if signal.value is not None else f"not measured: {signal.cause}"


__all__ = ["play"]
