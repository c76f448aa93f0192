"""Files of JSON lines, one record a line: what run folders are written in.

Every record carries a schema version. A last line that a kill left half-written is passed over by readers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from agentgym.errors import StoredRunError

Json = dict[str, Any]
SCHEMA = 1
"""Of every record; a reader refuses another one."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stored(Generic[T]):
    """What a file of lines holds."""

    records: tuple[T, ...]
    torn_bytes: int
    "Bytes of a half-written last line that were left out; 0 where the file is whole."


class LineReader:
    """The records of a file of lines, one at a time, so that a file may be larger than the memory.

    Iterating raises `StoredRunError` where a line other than the last is damaged, or is of another schema.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.torn_bytes = 0
        "Bytes of a half-written last line that were left out; known once all was read."

    def __iter__(self) -> Iterator[Json]:
        self.torn_bytes = 0
        if not self._path.exists():
            return
        with open(self._path, "rb") as file:
            for number, line in enumerate(file, 1):
                if self.torn_bytes:
                    checked(None, f"'{self._path}' line {number - 1}")
                record = parsed(line) if line.endswith(b"\n") else None
                if record is None:
                    self.torn_bytes = len(line)
                else:
                    yield checked(record, f"'{self._path}' line {number}")


def read_lines(path: Path) -> Stored[Json]:
    """Return all records of a file of lines, none where there is no such file.

    Raises:
        StoredRunError: a line other than the last is damaged, or is of another schema.
    """
    reader = LineReader(path)
    return Stored(tuple(reader), reader.torn_bytes)


def parsed(text: bytes) -> Json | None:
    """Return the object that ``text`` holds as JSON, or None where it holds none."""
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def checked(record: Json | None, where: str) -> Json:
    """Return ``record``, which was found at ``where``.

    Raises:
        StoredRunError: it is no object, or of another schema.
    """
    if record is None:
        raise StoredRunError(f"{where} is damaged: it is no JSON object")
    if record.get("schema") != SCHEMA:
        raise StoredRunError(f"{where} has schema {record.get('schema')}; this version reads {SCHEMA}")
    return record


def line(record: Mapping[str, Any]) -> bytes:
    """Return ``record`` as a line; a number that is not finite becomes null: not measured."""
    return json.dumps(_plain(record), allow_nan=False, separators=(",", ":")).encode() + b"\n"


def document(record: Mapping[str, Any]) -> str:
    """Return ``record`` as a text of its own, indented; a number that is not finite becomes null."""
    return json.dumps(_plain(record), allow_nan=False, indent=2) + "\n"


def _plain(value: Any) -> Any:
    """Return ``value`` in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


__all__ = ["SCHEMA", "LineReader", "Stored", "checked", "document", "line", "parsed", "read_lines"]
