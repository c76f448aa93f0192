"""Run folders: what was asked, what happened, and what came of it.

::

    config.toml      what was asked; its presence says that there is a run
    lock.json        what it was made with: versions, machine, commit
    episodes.jsonl   one finished episode a line: messages, signals, what was paid; only grows
    tokens.bin       the episodes' token arrays, where their lines say; only grows
    metrics.jsonl    one measurement a line; only grows
    summary.json     what came of it; replaced as a whole

Every line carries a schema version. A line that a kill left half-written is passed over by readers and cut off when
the run is continued. `RunFolder` writes, and is alone in doing so; the functions read, also while a run is going on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from agentgym import config as configuration
from agentgym.config import RunConfig
from agentgym.errors import StoredRunError
from agentgym.files import AppendFile, FolderLock, replace
from agentgym.jsonlines import SCHEMA, LineReader, Stored, checked, document, line, parsed, read_lines
from agentgym.ledger import Ledger
from agentgym.provenance import provenance
from agentgym.types import Floats, Group, Sample, Sampling, StopReason, TokenIds, Trajectory, Turn
from agentgym.wire import (
    Json,
    message_from_json,
    message_to_json,
    observation_from_json,
    observation_to_json,
    signal_from_json,
    signal_to_json,
    task_from_json,
    task_to_json,
)

CONFIG, LOCK, SUMMARY = "config.toml", "lock.json", "summary.json"
EPISODES, METRICS, TOKENS = "episodes.jsonl", "metrics.jsonl", "tokens.bin"

_DEFAULT_SAMPLING = Sampling()
_NO_IDS: TokenIds = np.empty(0, np.int32)
_NO_LOGPROBS: Floats = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Episode:
    """A stored episode."""

    step: int
    trajectory: Trajectory
    paid: Mapping[str, Any]
    "What `ledger_to_json` made of its ledger."


class StoredTurns(Sequence[Turn]):
    """The turns of a stored episode without their tokens, made when one is first looked at.

    Pricing counts turns and seldom reads them, and making them would take half of its time.
    """

    def __init__(self, records: Sequence[Json]) -> None:
        self._records = records
        self._turns: tuple[Turn, ...] | None = None

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Turn: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Turn, ...]: ...
    def __getitem__(self, index: int | slice) -> Turn | tuple[Turn, ...]:
        if self._turns is None:
            self._turns = tuple(_turn_from_json(record, None) for record in self._records)
        return self._turns[index]


class RunFolder:
    """A run's folder, open for writing and closed to every other writer.

    Use `create` or `resume`, in a ``with`` statement. Appended lines are in the system's hands at once, and on the
    disk after `commit`, whose answer `rewind` takes.
    """

    def __init__(self, path: Path, config: RunConfig, lock: FolderLock) -> None:
        self.path, self.config = path, config
        self._lock = lock
        self._files = {name: AppendFile(path / name) for name in (EPISODES, METRICS, TOKENS)}
        self.episodes = _lines_in(path / EPISODES)
        "Episodes stored so far."

    @classmethod
    def create(cls, path: Path, config: RunConfig) -> Self:
        """Make the folder of a new run.

        Raises:
            StoredRunError: there is a run already, or the folder cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoredRunError(f"cannot make '{path}': {error.strerror}") from error
        lock = FolderLock(path)
        try:
            if (path / CONFIG).exists():
                raise StoredRunError(f"'{path}' holds a run already; continue it with --resume, or name another folder")
            for name in (EPISODES, METRICS, TOKENS, SUMMARY):
                (path / name).unlink(missing_ok=True)
            replace(path / LOCK, document(provenance()))
            replace(path / CONFIG, configuration.dump(config))
            return cls(path, config, lock)
        except BaseException:
            lock.close()
            raise

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Open the folder of a run to go on with it; call `rewind` before adding to it.

        Raises:
            StoredRunError: there is no run, or another process writes it.
        """
        _check_run(path)
        lock = FolderLock(path)
        try:
            return cls(path, read_config(path), lock)
        except BaseException:
            lock.close()
            raise

    def append_episodes(self, step: int, priced: Iterable[tuple[Group, Sequence[Ledger]]]) -> None:
        """Add the episodes of ``step``, each group with a ledger for each of its trajectories.

        Raises:
            StoredRunError: they cannot be written; what was there is unchanged.
        """
        size, tokens, lines = self._files[TOKENS].size, bytearray(), bytearray()
        count = 0
        for group, ledgers in priced:
            for trajectory, ledger in zip(group.trajectories, ledgers, strict=True):
                record = {"schema": SCHEMA, "step": step, **trajectory_to_json(trajectory)}
                record |= {"tokens_at": size + len(tokens), "paid": ledger_to_json(ledger)}
                tokens += _token_block(trajectory)
                lines += line(record)
                count += 1
        self._files[TOKENS].append(bytes(tokens))
        try:
            self._files[EPISODES].append(bytes(lines))
        except StoredRunError:
            self._files[TOKENS].cut(size)
            raise
        self.episodes += count

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one measurement. A value that is not finite is stored as null: not measured.

        Raises:
            StoredRunError: it cannot be written; what was there is unchanged.
        """
        self._files[METRICS].append(line({"schema": SCHEMA, **record}))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace the summary.

        Raises:
            StoredRunError: it cannot be written; the one before is unchanged.
        """
        replace(self.path / SUMMARY, document({"schema": SCHEMA, **summary}))

    def commit(self) -> dict[str, int]:
        """Return the length of each file, in bytes, once all of it is on the disk.

        Raises:
            StoredRunError: the disk refuses.
        """
        for file in self._files.values():
            file.sync()
        return {name: file.size for name, file in self._files.items()}

    def rewind(self, lengths: Mapping[str, int]) -> list[str]:
        """Cut the files back to a commit, a file it does not name to nothing; return a line about each cut.

        Raises:
            StoredRunError: a file is shorter than it was at that commit.
        """
        said = []
        for name, file in self._files.items():
            tail = file.cut(lengths.get(name, 0))
            if tail and name != TOKENS:
                whole, torn = tail.count(b"\n"), not tail.endswith(b"\n")
                half = " and a half-written one" if torn else ""
                said.append(f"{name}: dropped {whole} line{'s' * (whole != 1)}{half} after the last commit")
        self.episodes = _lines_in(self.path / EPISODES)
        return said

    def close(self) -> None:
        """Let go of the folder; twice is fine."""
        for file in self._files.values():
            file.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# ------------------------------------------------------------------------------------------------------------ reading


def read_config(path: Path) -> RunConfig:
    """Return the configuration of the run in ``path``.

    Raises:
        StoredRunError: there is no run.
        ConfigError: its configuration is not one of this version's.
    """
    _check_run(path)
    return configuration.load(path / CONFIG)


def read_summary(path: Path) -> Json | None:
    """Return the summary of the run in ``path``, or None while there is none.

    Raises:
        StoredRunError: there is no run, or the file is not what it was.
    """
    _check_run(path)
    if not (path / SUMMARY).exists():
        return None
    return checked(parsed((path / SUMMARY).read_bytes()), f"'{path / SUMMARY}'")


def read_metrics(path: Path) -> Stored[Json]:
    """Return the measurements of the run in ``path``, oldest first.

    Raises:
        StoredRunError: there is no run, or a line is damaged.
    """
    _check_run(path)
    return read_lines(path / METRICS)


def read_episodes(path: Path, *, step: int | None = None, tokens: bool = False) -> Stored[Episode]:
    """Return the episodes of the run in ``path``, oldest first.

    Args:
        step: only those of this training step.
        tokens: whether the trajectories get their token arrays; without, those are empty, which is all that pricing
            needs.

    Raises:
        StoredRunError: there is no run, or a line or its tokens are damaged.
    """
    _check_run(path)
    words = np.fromfile(path / TOKENS, np.int32) if tokens and (path / TOKENS).exists() else _NO_IDS
    reader, episodes = LineReader(path / EPISODES), []
    for record in reader:
        if step is None or record["step"] == step:
            arrays = _tokens_at(words, record, path) if tokens else None
            episodes.append(Episode(record["step"], trajectory_from_json(record, arrays), record["paid"]))
    return Stored(tuple(episodes), reader.torn_bytes)


def iter_groups(path: Path) -> Iterator[tuple[Episode, ...]]:
    """Yield the episodes of the run in ``path`` group by group, oldest first, without their tokens.

    Raises:
        StoredRunError: there is no run, or a line is damaged.
    """
    _check_run(path)
    records = LineReader(path / EPISODES)
    for (step, _), siblings in groupby(records, key=lambda record: (record["step"], record["group"])):
        yield tuple(Episode(step, trajectory_from_json(record), record["paid"]) for record in siblings)


def _check_run(path: Path) -> None:
    if not (path / CONFIG).is_file():
        raise StoredRunError(f"no run in '{path}': it has no {CONFIG}")


def _lines_in(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(1 for _ in file)


# ----------------------------------------------------------------------------------------------------- as JSON and back


def trajectory_to_json(trajectory: Trajectory) -> Json:
    """Return ``trajectory`` as JSON, without its token arrays but with their lengths."""
    return {
        "id": trajectory.id,
        "group": trajectory.group_id,
        "seed": trajectory.seed,
        "stop": trajectory.stop.value,
        "task": task_to_json(trajectory.task),
        "turns": [_turn_to_json(turn) for turn in trajectory.turns],
        "final_observation": observation_to_json(trajectory.final_observation),
        "signals": [signal_to_json(signal) for signal in trajectory.signals],
        "artifacts": dict(trajectory.artifacts),
    }


def trajectory_from_json(data: Json, tokens: Iterator[NDArray[Any]] | None = None) -> Trajectory:
    """Return the trajectory that ``data`` was made of; ``tokens`` gives each turn's four arrays in order."""
    turns = data["turns"]
    return Trajectory(
        id=data["id"],
        group_id=data["group"],
        task=task_from_json(data["task"]),
        turns=StoredTurns(turns) if tokens is None else tuple(_turn_from_json(turn, tokens) for turn in turns),
        final_observation=observation_from_json(data["final_observation"]),
        stop=StopReason(data["stop"]),
        signals=tuple(signal_from_json(signal) for signal in data["signals"]),
        seed=data["seed"],
        artifacts=data["artifacts"],
    )


def ledger_to_json(ledger: Ledger) -> Json:
    """Return what a ledger comes to, as JSON: the sum, and by component the credit of each turn and what is unknown."""
    credit_CT, mask_CT = ledger.credit_CT(), ledger.mask_CT()
    return {
        "reward": ledger.reward,
        "total": ledger.total(),
        "measured": ledger.measured,
        "credit": {name: credit_CT[c].tolist() for c, name in enumerate(ledger.component_names)},
        "unmeasured_turns": {
            name: np.flatnonzero(~mask_CT[c]).tolist()
            for c, name in enumerate(ledger.component_names)
            if not mask_CT[c].all()
        },
    }


def _turn_to_json(turn: Turn) -> Json:
    sample = turn.sample
    data: Json = {
        "observation": observation_to_json(turn.observation),
        "message": message_to_json(sample.message),
        "finish": sample.finish,
        "seconds": round(turn.seconds, 6),
        "tokens": [len(turn.prompt_ids_N), len(sample.token_ids_N)],
    }
    if sample.sampling != _DEFAULT_SAMPLING:
        data["sampling"] = {
            "temperature": sample.sampling.temperature,
            "max_tokens": sample.sampling.max_tokens,
        }
    placed = {"stage": turn.stage, "segment": turn.segment, "state_ref": turn.state_ref}
    return data | {name: value for name, value in placed.items() if value}


def _turn_from_json(data: Json, tokens: Iterator[NDArray[Any]] | None) -> Turn:
    prompt, ids, logprobs, versions = (
        (_NO_IDS, _NO_IDS, _NO_LOGPROBS, _NO_IDS) if tokens is None else (next(tokens) for _ in range(4))
    )
    message = message_from_json(data["message"])
    sampling = Sampling(**data["sampling"]) if "sampling" in data else _DEFAULT_SAMPLING
    return Turn(
        observation=observation_from_json(data["observation"]),
        sample=Sample(message, ids, logprobs.view(np.float32), versions, data["finish"], sampling),
        prompt_ids_N=prompt,
        stage=data.get("stage", 0),
        segment=data.get("segment", 0),
        state_ref=data.get("state_ref"),
        seconds=data["seconds"],
    )


def _token_block(trajectory: Trajectory) -> bytes:
    """Return the token arrays turn by turn: prompt ids, sampled ids, log-probabilities, versions; 4 bytes a number."""
    return b"".join(
        part
        for turn in trajectory.turns
        for part in (
            turn.prompt_ids_N.astype("<i4").tobytes(),
            turn.sample.token_ids_N.astype("<i4").tobytes(),
            turn.sample.logprobs_N.astype("<f4").tobytes(),
            turn.sample.versions_N.astype("<i4").tobytes(),
        )
    )


def _tokens_at(words: NDArray[np.int32], line: Json, path: Path) -> Iterator[NDArray[Any]]:
    """Return the arrays of an episode's turns in the order of `_token_block`, as whole numbers."""
    lengths = [n for prompt, sampled in (turn["tokens"] for turn in line["turns"]) for n in (prompt, *[sampled] * 3)]
    start = line["tokens_at"] // 4
    ends = np.cumsum([start, *lengths])
    if ends[-1] > len(words):
        raise StoredRunError(f"'{path / TOKENS}' is cut short: the tokens of episode {line['id']} are not there")
    return iter([words[a:b] for a, b in pairwise(ends)])


__all__ = [
    "SCHEMA",
    "Episode",
    "RunFolder",
    "Stored",
    "StoredTurns",
    "iter_groups",
    "ledger_to_json",
    "read_config",
    "read_episodes",
    "read_metrics",
    "read_summary",
    "trajectory_from_json",
    "trajectory_to_json",
]
