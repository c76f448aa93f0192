"""Records the episodes that published methods are tested on: ``python tests/golden/record_episodes.py``.

Three games of TextWorld are each played by four players that differ in how well they play. In the last group they also
say what they do: every answer is a command, a sentence about it that cites where it happens, and the same as a call.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentgym.env import Environment
from agentgym.policy import Context
from agentgym.policy.scripted import ScriptedPolicy, expert, random_admissible
from agentgym.registry import make
from agentgym.rollout import Request, Rollouts, completed
from agentgym.store import trajectory_to_json
from agentgym.types import Message, Sample, ToolCall, Trajectory, empty_sample

EPISODES = Path(__file__).with_name("episodes.jsonl")
OPTIONS = {"rooms": 2, "objects": 3, "quest_length": 3, "games": {"train": 3}, "max_turns": 8}
"""The world they were recorded in."""
ROOM = re.compile(r"^([A-Z][a-z ]+)\. You", re.MULTILINE)
"""How a room is announced."""


def mixed(context: Context) -> str:
    """Play by chance at first, then as the expert does."""
    return random_admissible(context) if len(context.messages) < 4 else expert(context)


PLAYERS = (expert, mixed, random_admissible, random_admissible)


class Narrator(ScriptedPolicy):
    """Says what its player chose as a command, in a sentence that cites the place, and as a call."""

    async def act(self, context: Context, tools: tuple[dict[str, Any], ...] = ()) -> Sample:
        """Answer at once."""
        command = (await super().act(context, tools)).message.content
        verb, _, rest = command.partition(" ")
        place = [room for message in context.messages for room in ROOM.findall(message.content)][-1]
        call = ToolCall(f"call-{len(context.messages)}", verb, {"what": rest} if rest else {})
        return empty_sample(Message("assistant", f"{command}\nI {command}, as I see here [1]({place}).", (call,)))


def record(world: Environment) -> list[Trajectory]:
    """Return the episodes of all groups, in order."""
    return [episode for number in range(3) for episode in asyncio.run(_group(world, number))]


async def _group(world: Environment, number: int) -> list[Trajectory]:
    episodes = []
    for place, player in enumerate(PLAYERS):
        policy = (Narrator if number == 2 else ScriptedPolicy)(player)
        rollouts = Rollouts(lambda: world, policy, concurrency=1)
        name = f"recorded/{number}"
        request = Request(f"{name}/{place}", name, world.tasks("train")[number], seed=10 * number + place)
        (episode,) = completed(await rollouts.run([request]))
        turns = tuple(replace(turn, seconds=0.0) for turn in episode.turns)
        episodes.append(replace(episode, turns=turns))
    return episodes


def main() -> None:
    """Write the episodes."""
    with tempfile.TemporaryDirectory() as cache:
        world = make("textworld", cache_dir=cache, **OPTIONS)
        lines = [json.dumps(trajectory_to_json(episode)) for episode in record(world)]
        world.close()
    EPISODES.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
