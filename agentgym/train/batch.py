"""Trajectories to rows, and rows to batches under a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agentgym.errors import UsageError
from agentgym.types import UNKNOWN_VERSION, Floats, TokenIds, Trajectory

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One segment of a trajectory as the learner sees it. Several rows may share a ``rollout_id``."""

    ids_N: TokenIds
    mask_N: Bools
    "True where the policy wrote the token: the only tokens that are trained."
    logprobs_N: Floats
    "Of the weights that sampled the token; NaN where nothing did."
    versions_N: TokenIds
    advantage_N: Floats
    "0 outside the mask."
    turn_N: TokenIds
    "Turn of the trajectory a token belongs to, what the turn read included."
    return_N: Floats
    "What a value head should have said before the turn; NaN where unknown."
    rollout_id: str
    temperature: float = 1.0
    weight: float = 1.0
    "It counts as this many rows."
    old_N: Floats | None = None
    "Of the learner's weights when the step began; None: taken to be those that sampled."
    reference_N: Floats | None = None
    "Of the reference's weights, where it is asked beforehand."


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows side by side, padded on the right: every array is (B, L), and 0, False or NaN in the padding."""

    ids_BL: NDArray[np.int64]
    mask_BL: Bools
    logprobs_BL: Floats
    old_BL: Floats
    reference_BL: Floats
    advantage_BL: Floats
    return_BL: Floats
    first_BL: Bools
    "True on the first token the policy wrote in each turn."
    weight_B: Floats
    temperature: float

    @property
    def tokens(self) -> int:
        """Tokens read, padding included."""
        return int(self.ids_BL.size)


def rows(
    trajectory: Trajectory,
    advantage_T: NDArray[np.float64] | None = None,
    return_T: NDArray[np.float64] | None = None,
    *,
    version: int | None = None,
    lag: int = 0,
) -> list[Row]:
    """Return one row for each segment of ``trajectory``, each turn's advantage on all the tokens it wrote.

    Raises:
        UsageError: a token was not sampled by the weights of ``version`` or at most ``lag`` versions before; such
            tokens are never trained.
    """
    turns = trajectory.turns
    advantages = np.zeros(len(turns)) if advantage_T is None else advantage_T
    returns = np.full(len(turns), np.nan) if return_T is None else return_T
    result = []
    for segment in sorted({turn.segment for turn in turns}):
        parts: dict[str, list[NDArray[np.generic]]] = {name: [] for name in Row.__slots__[:7]}
        for t, turn in enumerate(turns):
            if turn.segment != segment:
                continue
            sample = turn.sample
            used = np.unique(sample.versions_N)
            if version is not None and not (version - lag <= used.min() and used.max() <= version):
                found = ", ".join(str(v) for v in used)
                wanted = f"{version - lag} to {version}" if lag else f"{version}"
                raise UsageError(
                    f"turn {t} of {trajectory.id} was sampled by weights of version {found}, not {wanted}: not trained"
                )
            before, wrote = len(turn.prompt_ids_N), len(sample.token_ids_N)
            for name, given, written in (
                ("ids_N", turn.prompt_ids_N, sample.token_ids_N),
                ("mask_N", np.zeros(before, bool), np.ones(wrote, bool)),
                ("logprobs_N", np.full(before, np.nan, np.float32), sample.logprobs_N),
                ("versions_N", np.full(before, UNKNOWN_VERSION, np.int32), sample.versions_N),
                ("advantage_N", np.zeros(before, np.float32), np.full(wrote, advantages[t], np.float32)),
                ("turn_N", np.full(before, t, np.int32), np.full(wrote, t, np.int32)),
                ("return_N", np.full(before, np.nan, np.float32), np.full(wrote, returns[t], np.float32)),
            ):
                parts[name] += [given, written]
        columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        temperature = turns[0].sample.sampling.temperature or 1.0
        result.append(Row(**columns, rollout_id=trajectory.id, temperature=temperature))  # type: ignore[arg-type]
    return result


def looking_ahead(row: Row, after_N: TokenIds) -> Row:
    """Return ``row`` with one more turn that was never taken: it has read ``after_N`` and is about to answer.

    A value head asked about it says what it expects after the end of a truncated episode.
    """
    n, turn = len(after_N), int(row.turn_N[-1]) + 1
    unknown = np.full(n + 1, np.nan, np.float32)
    ends = {
        "ids_N": np.append(after_N, after_N[-1:]),
        "mask_N": np.append(np.zeros(n, bool), True),
        "logprobs_N": unknown,
        "versions_N": np.full(n + 1, UNKNOWN_VERSION, np.int32),
        "advantage_N": np.zeros(n + 1, np.float32),
        "turn_N": np.full(n + 1, turn, np.int32),
        "return_N": unknown,
    }
    longer = {name: np.concatenate([getattr(row, name), end]) for name, end in ends.items()}
    return replace(row, old_N=None, reference_N=None, **longer)  # type: ignore[arg-type]


def pack(all_rows: Sequence[Row], *, token_budget: int) -> list[Batch]:
    """Return ``all_rows`` in batches of at most ``token_budget`` tokens, padding counted.

    Rows of like length share a batch, so that little of the budget is padding; rows of two temperatures never do.

    Raises:
        UsageError: a row alone is longer than the budget.
    """
    batches = []
    for temperature in sorted({row.temperature for row in all_rows}):
        alike = [row for row in all_rows if row.temperature == temperature]
        batches += [_batch([alike[i] for i in bin_]) for bin_ in bins([len(row.ids_N) for row in alike], token_budget)]
    return batches


def bins(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Yield the indices of ``lengths`` in bins whose count times longest length keeps within the budget."""
    current: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if lengths[index] > token_budget:
            raise UsageError(f"a row of {lengths[index]} tokens does not fit train.token_budget = {token_budget}")
        if current and lengths[current[0]] * (len(current) + 1) > token_budget:
            yield current
            current = []
        current.append(index)
    if current:
        yield current


def _batch(chosen: Sequence[Row]) -> Batch:
    size, longest = len(chosen), max(len(row.ids_N) for row in chosen)
    ids = np.zeros((size, longest), np.int64)
    old, reference = (np.full((size, longest), np.nan, np.float32) for _ in range(2))
    mask, first = np.zeros((size, longest), bool), np.zeros((size, longest), bool)
    logprobs, returns = (np.full((size, longest), np.nan, np.float32) for _ in range(2))
    advantage = np.zeros((size, longest), np.float32)
    for b, row in enumerate(chosen):
        n = len(row.ids_N)
        ids[b, :n], mask[b, :n], logprobs[b, :n] = row.ids_N, row.mask_N, row.logprobs_N
        old[b, :n] = row.logprobs_N if row.old_N is None else row.old_N
        reference[b, :n] = np.nan if row.reference_N is None else row.reference_N
        advantage[b, :n], returns[b, :n] = row.advantage_N, row.return_N
        first[b, 1:n] = row.mask_N[1:] & ~(row.mask_N[:-1] & (row.turn_N[1:] == row.turn_N[:-1]))
    weights = np.asarray([row.weight for row in chosen], np.float32)
    return Batch(ids, mask, logprobs, old, reference, advantage, returns, first, weights, chosen[0].temperature)


__all__ = ["Batch", "Row", "bins", "looking_ahead", "pack", "rows"]
