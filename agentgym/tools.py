"""Tools a policy may call: a JSON schema and a callable, and how calls are read from text.

A call that is malformed is the policy's doing: parsing never raises, and validation answers in words the policy can
read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentgym.types import Message, ToolCall

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


@dataclass(frozen=True, slots=True)
class Tool:
    """Something a policy can do by name."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    "JSON schema of an object: ``properties``, ``required``."
    run: Callable[..., str]
    "Called with the arguments by name; returns what the policy reads."

    def schema(self) -> dict[str, Any]:
        """Return the tool as an OpenAI function schema."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}

    def problem(self, arguments: Mapping[str, Any]) -> str | None:
        """Return what is wrong with ``arguments`` in words for the policy, or None."""
        properties: Mapping[str, Any] = self.parameters.get("properties", {})
        for name in self.parameters.get("required", ()):
            if name not in arguments:
                return f"{self.name} needs the argument '{name}'"
        for name, value in arguments.items():
            if name not in properties:
                return f"{self.name} has no argument '{name}'; it takes: {', '.join(properties) or 'none'}"
            kind = properties[name].get("type")
            kinds = [kind] if isinstance(kind, str) else list(kind or ())
            if kinds and not any(_is_a(value, one) for one in kinds):
                return f"{self.name}: '{name}' must be of type {' or '.join(kinds)}, not {type(value).__name__}"
        return None


def parse_assistant(text: str) -> Message:
    """Return the assistant message that ``text`` spells.

    Calls stand between ``<tool_call>`` tags as a JSON object with ``name`` and ``arguments`` (the Hermes convention).
    A block that is no such object stays in the content, where the environment can answer it.
    """
    calls: list[ToolCall] = []

    def take(match: re.Match[str]) -> str:
        try:
            call = json.loads(match.group(1))
        except (ValueError, RecursionError):
            return match.group(0)
        arguments = (call.get("arguments") or {}) if isinstance(call, dict) else None
        if not isinstance(arguments, dict) or not isinstance(call.get("name"), str):
            return match.group(0)
        calls.append(ToolCall(f"call_{len(calls)}", call["name"], arguments))
        return ""

    if "<tool_call>" not in text:
        return Message("assistant", text)
    content = _CALL.sub(take, text).strip()
    return Message("assistant", content, tuple(calls))


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool) and kind in ("integer", "number"):
        return False
    return kind not in _TYPES or isinstance(value, _TYPES[kind])


def tool_calls_json(calls: tuple[ToolCall, ...]) -> str:
    """Return ``calls`` as the text that `parse_assistant` reads back."""
    # JSON may write "/" as "\\/": an argument that holds the closing tag must not close the call.
    blocks = (
        json.dumps({"name": call.name, "arguments": dict(call.arguments)}).replace("</", "<\\/") for call in calls
    )
    return "".join(f"\n<tool_call>\n{block}\n</tool_call>" for block in blocks)


__all__ = ["Tool", "parse_assistant", "tool_calls_json"]
