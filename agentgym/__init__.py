"""agentgym: worlds, rewards and a trainer for language-model agents.

Importing it registers the environments with Gymnasium by name and loads nothing heavy: no torch, no world. The names
below are loaded from their modules when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from agentgym.registry import register_all

if TYPE_CHECKING:
    from agentgym.env import Environment
    from agentgym.errors import AgentgymError
    from agentgym.ledger import Ledger
    from agentgym.reward import Gate, Shaper
    from agentgym.types import Group, Message, Observation, Signal, StopReason, Task, Trajectory, Turn

__version__ = "0.1.0"

_HOMES = {
    "AgentgymError": "agentgym.errors",
    "Environment": "agentgym.env",
    "Gate": "agentgym.reward",
    "Group": "agentgym.types",
    "Ledger": "agentgym.ledger",
    "Message": "agentgym.types",
    "Observation": "agentgym.types",
    "Shaper": "agentgym.reward",
    "Signal": "agentgym.types",
    "StopReason": "agentgym.types",
    "Task": "agentgym.types",
    "Trajectory": "agentgym.types",
    "Turn": "agentgym.types",
}

__all__ = [
    "AgentgymError",
    "Environment",
    "Gate",
    "Group",
    "Ledger",
    "Message",
    "Observation",
    "Shaper",
    "Signal",
    "StopReason",
    "Task",
    "Trajectory",
    "Turn",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentgym' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


register_all()
