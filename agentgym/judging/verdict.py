"""What counts as a verdict: one JSON object of the question's schema, its reason first, and nothing else.

Nothing is repaired. A verdict that has to be dug out of prose is as likely the candidate's as the judge's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from agentgym.errors import JudgeError, UsageError, missing_extra


class VerdictSchema:
    """A question's schema, checked once.

    Args:
        schema: of an object whose first property is the string ``reason``: a judge that has to give its reasons before
            its verdict judges better than one that defends a verdict already given.

    Raises:
        UsageError: it is no JSON schema, or not of that kind.
        MissingExtraError: ``jsonschema`` is not installed.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        try:
            import jsonschema
        except ImportError as error:
            raise missing_extra("judge", "jsonschema", "checking a judge's verdict") from error
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise UsageError(f"the verdict's schema is no JSON schema: {error.message}") from error
        properties = schema.get("properties") or {}
        if schema.get("type") != "object" or next(iter(properties), None) != "reason":
            raise UsageError(
                f"a verdict's schema is of an object whose first property is 'reason'; "
                f"got type {schema.get('type')!r} with properties {', '.join(properties) or 'none'}"
            )
        self.schema = schema
        self._validator = jsonschema.Draft202012Validator(schema)
        self.closed = schema.get("additionalProperties") is False and set(schema.get("required", ())) == set(properties)
        "Whether exactly its properties are allowed, which endpoints ask for where they enforce a schema."

    def parse(self, text: str) -> Mapping[str, Any]:
        """Return the verdict that ``text`` is.

        Raises:
            JudgeError: it is anything else, in whole or in part.
        """
        try:
            value = json.loads(text, object_pairs_hook=_distinct, parse_constant=_no_number, parse_float=_finite)
            json.dumps(value, ensure_ascii=False).encode()  # JSON can spell half a surrogate pair, which is no text
        except (ValueError, RecursionError) as error:
            raise JudgeError(f"the verdict is not one JSON object and nothing else: {error}; {_shown(text)}") from error
        wrong = next(self._validator.iter_errors(value), None)
        if wrong is not None:
            where = "".join(f"[{part!r}]" for part in wrong.absolute_path)
            raise JudgeError(f"the verdict{where} is not of the schema: {wrong.message[:200]}; {_shown(text)}")
        if next(iter(value), None) != "reason":
            raise JudgeError(f"the verdict was given before its reason; {_shown(text)}")
        return dict(value)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a property is given twice")
    return value


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _no_number(digits[:20])


def _shown(text: str) -> str:
    return f"it says {text[:120]!r}" + (f" and {len(text) - 120} characters more" if len(text) > 120 else "")


__all__ = ["VerdictSchema"]
