"""What was measured of a stored run after it: ``signals.jsonl`` in its folder, one episode and probe a line.

Lines are only added. For each episode the last line of a probe counts, and its signals come after the recorded ones and
take their place where both measured the same. A line says which episode it was measured on by more than its name: an
episode that was dropped and played again under the same name is another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from agentgym.files import AppendFile, FolderLock
from agentgym.jsonlines import SCHEMA, LineReader, line
from agentgym.probe import supplemented
from agentgym.types import Signal, Trajectory
from agentgym.wire import signal_from_json, signal_to_json

SIGNALS = "signals.jsonl"


@dataclass(frozen=True, slots=True)
class Asked:
    """Which measurement was asked for."""

    probe: str
    "As it was named: ``module:callable``."
    params: Mapping[str, Any]
    source: str
    "The probe's own name, which says its version."

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {"probe": self.probe, "params": dict(self.params), "source": self.source}


class Measurements:
    """All that ``signals.jsonl`` of the run in ``path`` holds; nothing where there is no such file.

    Raises:
        StoredRunError: a line is damaged, or of another schema.
    """

    def __init__(self, path: Path) -> None:
        self._of: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        for record in LineReader(path / SIGNALS):
            lines = self._of.setdefault(record["episode"], {})
            key = (record["probe"], record["source"])
            lines.pop(key, None)  # the last to be measured comes last
            lines[key] = record

    def merged(self, trajectory: Trajectory) -> Trajectory:
        """Return ``trajectory`` with what was measured of it since."""
        for record in self._current(trajectory):
            trajectory = supplemented(trajectory, [signal_from_json(data) for data in record["signals"]])
        return trajectory

    def holds(self, trajectory: Trajectory, asked: Asked) -> bool:
        """Return whether ``asked`` has been measured of ``trajectory``, all of it with a value."""
        for record in self._current(trajectory):
            if {name: record[name] for name in ("probe", "params", "source")} == asked.as_dict():
                return all(signal.get("value") is not None for signal in record["signals"])
        return False

    def _current(self, trajectory: Trajectory) -> list[dict[str, Any]]:
        lines = self._of.get(trajectory.id)
        if not lines:
            return []
        mark = fingerprint(trajectory)
        return [record for record in lines.values() if record["fingerprint"] == mark]


class SignalsFile:
    """``signals.jsonl``, open for adding; the run's folder has no other writer meanwhile.

    Raises:
        StoredRunError: another process writes the run.
    """

    def __init__(self, path: Path) -> None:
        self._lock = FolderLock(path)
        try:
            reader = LineReader(path / SIGNALS)
            for _ in reader:
                pass
            self._file = AppendFile(path / SIGNALS)
            self.dropped_bytes = reader.torn_bytes
            "Of a half-written last line, which was cut off."
            if reader.torn_bytes:
                self._file.cut(self._file.size - reader.torn_bytes)
        except BaseException:
            self._lock.close()
            raise

    def append(self, asked: Asked, trajectory: Trajectory, signals: Sequence[Signal]) -> None:
        """Add what ``asked`` measured of ``trajectory``.

        Raises:
            StoredRunError: it cannot be written; what was there is unchanged.
        """
        record = {"schema": SCHEMA, "episode": trajectory.id, "fingerprint": fingerprint(trajectory)}
        self._file.append(line(record | asked.as_dict() | {"signals": [signal_to_json(signal) for signal in signals]}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.sync()
        self._file.close()
        self._lock.close()


def fingerprint(trajectory: Trajectory) -> str:
    """Return 16 hexadecimal digits of what was said in the episode (SHA-256)."""
    digest = hashlib.sha256()
    observations = [*(turn.observation for turn in trajectory.turns), trajectory.final_observation]
    answers = [turn.sample.message for turn in trajectory.turns]
    for message in (*answers, *(message for observation in observations for message in observation)):
        digest.update(message.content.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


__all__ = ["SIGNALS", "Asked", "Measurements", "SignalsFile", "fingerprint"]
