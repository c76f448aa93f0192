"""The words everything else is written in: messages, turns, trajectories, signals and outcomes.

All of them are frozen dataclasses with slots, and depend on numpy alone. Axis suffixes name shapes: ``_G``
trajectories of one group, ``_T`` turns of one trajectory, ``_C`` reward components, ``_N`` tokens, ``_B`` batch rows.
A *turn* is one act of the policy and what came before it; a *stage* is one exchange with a user and may hold
several turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]
Floats = NDArray[np.float32]

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "length", "abort"]
Verifiability = Literal["full", "partial", "none"]

UNKNOWN_VERSION = -1
"""Weight version of a token that no known weights sampled: a demonstration, or a foreign model."""


class StopReason(StrEnum):
    """Why an episode ended. Its properties say what may be done with it."""

    DONE = "done"
    "The world ended it: won, lost or submitted."
    MAX_TURNS = "max_turns"
    "The task's own limit of turns."
    TIME_LIMIT = "time_limit"
    "The task's own limit of time."
    CONTEXT_FULL = "context_full"
    "The next message does not fit into the policy's context."
    LENGTH = "length"
    "A sample was cut off at its length limit and the world cannot go on from it."
    INFRASTRUCTURE = "infrastructure"
    "Something of ours failed: never scored."
    CANCELLED = "cancelled"
    "Someone asked for it to stop: never scored."

    @property
    def terminated(self) -> bool:
        """Whether the world reached an end of its own, after which nothing can be earned."""
        return self is StopReason.DONE

    @property
    def truncated(self) -> bool:
        """Whether the episode was cut while the world could have gone on; its value is bootstrapped."""
        return self in _TRUNCATED

    @property
    def scored(self) -> bool:
        """Whether the episode says something about the policy."""
        return self.terminated or self.truncated


_TRUNCATED = frozenset({StopReason.MAX_TURNS, StopReason.TIME_LIMIT, StopReason.CONTEXT_FULL, StopReason.LENGTH})


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool, as the assistant asked for it."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    "For role ``tool``: the call this answers."


Observation = tuple[Message, ...]
"""What the environment appends to the conversation."""
Action = Message
"""The assistant message that answers an observation."""


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to do in a world."""

    id: str
    prompt: str
    max_turns: int
    image: str | None = None
    split: str = "train"
    verifiability: Verifiability = "full"
    data: Mapping[str, Any] = field(default_factory=dict)
    "What the environment needs to set the task up. Never shown to the policy."


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a sample is drawn. ``temperature`` 0 is greedy; log-probabilities are of the tempered distribution."""

    temperature: float = 1.0
    max_tokens: int = 16


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """What a policy answered. A policy without tokens leaves the arrays empty."""

    message: Message
    token_ids_N: TokenIds
    logprobs_N: Floats
    "Log-probability of each token under the weights that sampled it; NaN where nothing sampled it."
    versions_N: TokenIds
    "Version of those weights, or `UNKNOWN_VERSION`."
    finish: Finish = "stop"
    sampling: Sampling = Sampling()


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One act of the policy and what came before it."""

    observation: Observation
    sample: Sample
    prompt_ids_N: TokenIds
    """Ids put on the token buffer before this sample: the whole rendered prompt where a segment starts, afterwards
    only what the environment added. A segment's buffer is its turns' ``prompt_ids_N`` and ``token_ids_N`` in order."""
    stage: int = 0
    segment: int = 0
    state_ref: str | None = None
    seconds: float = 0.0
    "Wall time of the act and the environment's step together."


@dataclass(frozen=True, slots=True)
class Signal:
    """One measurement. ``value`` None: asked for, but not measurable; ``cause`` says why."""

    name: str
    value: float | None
    source: str
    "Who measured it, with its version where that matters."
    turn: int | None = None
    "Turn it belongs to, counted from 0; None: the trajectory as a whole."
    item: str = ""
    "Which of several, such as a checklist item or a test."
    cause: str = ""
    cost: float = 0.0
    evidence: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """One episode as it happened, complete enough to be priced and trained on without its world."""

    id: str
    group_id: str
    task: Task
    turns: Sequence[Turn]
    final_observation: Observation
    stop: StopReason
    signals: tuple[Signal, ...]
    seed: int
    artifacts: Mapping[str, str] = field(default_factory=dict)
    "Name -> content hash of what the episode left behind."

    def signal(self, name: str, *, turn: int | None = None) -> Signal | None:
        """Return the last signal called ``name`` at ``turn`` (None: the trajectory's own), or None."""
        for signal in reversed(self.signals):
            if signal.name == name and signal.turn == turn:
                return signal
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Sibling trajectories of one task, the unit of reward."""

    trajectories: tuple[Trajectory, ...]
    step: int = 0
    "Training step they were asked for at; schedules read it."


@dataclass(frozen=True, slots=True, eq=False)
class Completed:
    """The rollout ended and may be scored."""

    trajectory: Trajectory


@dataclass(frozen=True, slots=True)
class InfraFailure:
    """The rollout was lost to a fault that is not the policy's."""

    rollout_id: str
    cause: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The rollout was stopped on request."""

    rollout_id: str


Outcome = Completed | InfraFailure | Cancelled
"""Exactly one for each rollout started."""


def text_message(role: Role, content: str) -> Message:
    """Return a plain message without tool calls."""
    return Message(role=role, content=content)


def as_action(action: Action | str) -> Action:
    """Return ``action`` as an assistant message; a plain string becomes its content."""
    return Message(role="assistant", content=action) if isinstance(action, str) else action


def empty_sample(message: Message) -> Sample:
    """Return ``message`` as a sample without tokens, as a scripted policy or a person gives it."""
    return Sample(message, np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.int32))


__all__: Sequence[str] = (
    "UNKNOWN_VERSION",
    "Action",
    "Cancelled",
    "Completed",
    "Finish",
    "Floats",
    "Group",
    "InfraFailure",
    "Message",
    "Observation",
    "Outcome",
    "Role",
    "Sample",
    "Sampling",
    "Signal",
    "StopReason",
    "Task",
    "TokenIds",
    "ToolCall",
    "Trajectory",
    "Turn",
    "Verifiability",
    "as_action",
    "empty_sample",
    "text_message",
)
