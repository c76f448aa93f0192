"""Gymnasium spaces of text and messages. They are unbounded: any text belongs to them, sampled or not."""

from __future__ import annotations

import string
from typing import Any

import gymnasium
import numpy as np

from agentgym.types import Action, Message, Observation

_SAMPLED = np.array(list(string.ascii_lowercase + "     "))
_SAMPLE_LENGTH = 24


class UnboundedText(gymnasium.Space[str]):
    """Any Unicode string of at most ``max_length`` characters, or of any length."""

    def __init__(self, max_length: int | None = None, seed: int | np.random.Generator | None = None) -> None:
        self.max_length = max_length
        super().__init__(None, None, seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Whether it flattens to an array of fixed size: never."""
        return False

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Return a short random string of letters and spaces; masks have no meaning here."""
        longest = _SAMPLE_LENGTH if self.max_length is None else min(_SAMPLE_LENGTH, self.max_length)
        return "".join(self.np_random.choice(_SAMPLED, int(self.np_random.integers(longest + 1))))

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is a string that is not too long."""
        return isinstance(x, str) and (self.max_length is None or len(x) <= self.max_length)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnboundedText) and other.max_length == self.max_length

    def __repr__(self) -> str:
        return "UnboundedText()" if self.max_length is None else f"UnboundedText(max_length={self.max_length})"


class Messages(gymnasium.Space[Observation]):
    """Any tuple of `Message`: an observation."""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(None, None, seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Whether it flattens to an array of fixed size: never."""
        return False

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> Observation:
        """Return one random user message; masks have no meaning here."""
        return (Message("user", "".join(self.np_random.choice(_SAMPLED, _SAMPLE_LENGTH))),)

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is a tuple of messages."""
        return isinstance(x, tuple) and all(isinstance(message, Message) for message in x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Messages)

    def __repr__(self) -> str:
        return "Messages()"


class ActionSpace(gymnasium.Space[Action | str]):
    """An assistant message, or a plain string that stands for one."""

    def __init__(self, max_length: int | None = None, seed: int | np.random.Generator | None = None) -> None:
        self.text = UnboundedText(max_length)
        super().__init__(None, None, seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Whether it flattens to an array of fixed size: never."""
        return False

    def seed(self, seed: Any = None) -> Any:
        """Seed the sampling."""
        self.text.seed(seed)
        return super().seed(seed)

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Return a short random string; masks have no meaning here."""
        return self.text.sample()

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is a string or an assistant message whose text is not too long."""
        if isinstance(x, Message):
            return x.role == "assistant" and self.text.contains(x.content)
        return self.text.contains(x)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActionSpace) and other.text == self.text

    def __repr__(self) -> str:
        return f"ActionSpace({self.text!r})"


__all__ = ["ActionSpace", "Messages", "UnboundedText"]
