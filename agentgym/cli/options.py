"""Options of an environment as they are typed: ``key=value``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any

from agentgym.errors import UsageError


def parsed(words: Iterable[str], flag: str = "--option") -> dict[str, Any]:
    """Return ``["rooms=3", "challenge=custom"]`` as a dictionary; what is no TOML value is text.

    A dotted key reaches into a table, as in TOML: ``judge.model=small``.

    Raises:
        UsageError: a word, typed after ``flag``, is not of the form ``key=value``.

    >>> parsed(["rooms=3", "challenge=custom", "games={test=5}", "games.valid=2"])
    {'rooms': 3, 'challenge': 'custom', 'games': {'test': 5, 'valid': 2}}
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise UsageError(f"{flag} {word}: found no value; write {flag} {key or 'key'}=value")
        *tables, last = key.split(".")
        place = options
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                raise UsageError(f"{flag} {word}: '{table}' is {place!r}, which holds no '{last}'")
        try:
            place[last] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            place[last] = value
    return options


__all__ = ["parsed"]
