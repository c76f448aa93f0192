"""agentgym: worlds, rewards and a trainer for language-model agents.

Importing it registers the environments with Gymnasium by name and loads nothing heavy: no torch, no world.
"""

from __future__ import annotations

__version__ = "0.1.0"
