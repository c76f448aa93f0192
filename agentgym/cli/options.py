"""Options of an environment as they are typed: ``key=value``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any

from agentgym.errors import UsageError


def parsed(words: Iterable[str], flag: str = "--option") -> dict[str, Any]:
    """Return ``["rooms=3", "challenge=custom"]`` as a dictionary; what is no TOML value is text.

    Raises:
        UsageError: a word, typed after ``flag``, is not of the form ``key=value``.

    >>> parsed(["rooms=3", "challenge=custom", "games={test=5}"])
    {'rooms': 3, 'challenge': 'custom', 'games': {'test': 5}}
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise UsageError(f"{flag} {word}: found no value; write {flag} {key or 'key'}=value")
        try:
            options[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[key] = value
    return options


__all__ = ["parsed"]
