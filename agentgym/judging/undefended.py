"""A question put without any defence: the control that shows what fences are worth. Measure with it, never train.

Each text stands under a heading that the next text can spell as well, which is how prompts are commonly written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from agentgym.judge import Question
from agentgym.judging.prompt import Format

_ANSWER = "\n\nAnswer with one JSON object of this schema:\n"
_HEADING = re.compile(r"^### (.+)\n", re.MULTILINE)


def write(question: Question) -> list[dict[str, str]]:
    """Return the chat messages that put ``question``: system, then user."""
    texts = (f"### {name}\n{text}\n" for name, text in question.material.items())
    return [
        {"role": "system", "content": f"{question.instructions}{_ANSWER}{json.dumps(question.schema)}"},
        {"role": "user", "content": "".join(texts)},
    ]


def read(messages: Sequence[Mapping[str, str]]) -> Question:
    """Return the question as a reader of headings takes it: whatever stands under one is as good as the rest."""
    instructions, _, schema = messages[0]["content"].rpartition(_ANSWER)
    _, *parts = _HEADING.split(messages[1]["content"])
    material = {name: text.removesuffix("\n") for name, text in zip(parts[::2], parts[1::2], strict=True)}
    return Question(instructions, material, json.loads(schema))


UNDEFENDED = Format("undefended-1", write, read)

__all__ = ["UNDEFENDED", "read", "write"]
