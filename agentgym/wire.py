"""Messages, tasks and signals as plain JSON values and back; what worlds and run folders are written in.

Fields that hold their default are left out, so that lines stay short; unknown fields are refused by the constructors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from agentgym.types import Message, Observation, Signal, StopReason, Task, ToolCall

Json = dict[str, Any]


def message_to_json(message: Message) -> Json:
    """Return ``message`` as JSON."""
    data: Json = {"role": message.role, "content": message.content}
    if message.tool_calls:
        data["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": dict(call.arguments)} for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        data["tool_call_id"] = message.tool_call_id
    return data


def message_from_json(data: Json) -> Message:
    """Return the message that ``data`` was made of."""
    calls = data.get("tool_calls")
    if not calls:
        return Message(**data)
    return Message(**{**data, "tool_calls": tuple(ToolCall(**call) for call in calls)})


def observation_to_json(observation: Observation) -> list[Json]:
    """Return ``observation`` as JSON."""
    return [message_to_json(message) for message in observation]


def observation_from_json(data: Sequence[Json]) -> Observation:
    """Return the observation that ``data`` was made of."""
    return tuple(message_from_json(message) for message in data)


def task_to_json(task: Task) -> Json:
    """Return ``task`` as JSON."""
    return _without_defaults(task)


def task_from_json(data: Json) -> Task:
    """Return the task that ``data`` was made of."""
    return Task(**data)


def signal_to_json(signal: Signal) -> Json:
    """Return ``signal`` as JSON."""
    return {name: value for name in _SIGNAL_FIELDS if (value := getattr(signal, name)) != _SIGNAL_FIELDS[name]}


def signal_from_json(data: Json) -> Signal:
    """Return the signal that ``data`` was made of."""
    return Signal(**{"value": None, **data})


def info_to_json(info: Mapping[str, Any]) -> Json:
    """Return an environment's `agentgym.env.Info` as JSON."""
    return {
        **info,
        "signals": [signal_to_json(signal) for signal in info["signals"]],
        "stop": info["stop"] and info["stop"].value,
    }


def info_from_json(data: Json) -> Json:
    """Return the info that ``data`` was made of; sequences come back as tuples."""
    data["tools"] = tuple(data["tools"])
    data["signals"] = tuple(signal_from_json(signal) for signal in data["signals"])
    data["stop"] = data["stop"] and StopReason(data["stop"])
    data["privileged"] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data["privileged"].items()
    }
    return data


def _without_defaults(value: Any) -> Json:
    kept = {}
    for field in fields(value):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if getattr(value, field.name) != default:
            kept[field.name] = getattr(value, field.name)
    return kept


_SIGNAL_FIELDS: Json = {
    field.name: None if field.default is MISSING or field.name == "value" else field.default for field in fields(Signal)
}

__all__ = [
    "Json",
    "info_from_json",
    "info_to_json",
    "message_from_json",
    "message_to_json",
    "observation_from_json",
    "observation_to_json",
    "signal_from_json",
    "signal_to_json",
    "task_from_json",
    "task_to_json",
]
