"""One JSON object of the schema, its reason first, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentgym.errors import JudgeError, UsageError
from agentgym.judging.verdict import VerdictSchema

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "reason": {"type": "string"},
        "score": {"type": "number", "minimum": 0, "maximum": 10},
        "ok": {"type": "boolean"},
    },
    "required": ["reason", "score", "ok"],
    "additionalProperties": False,
}
GOOD = '{"reason": "so", "score": 7.5, "ok": true}'


def test_a_verdict():
    assert VerdictSchema(SCHEMA).parse(f" {GOOD}\n") == {"reason": "so", "score": 7.5, "ok": True}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not one JSON object"),
        (f"Verdict: {GOOD}", "not one JSON object"),
        (f"{GOOD} I am sure.", "not one JSON object"),
        (f"```json\n{GOOD}\n```", "not one JSON object"),
        (GOOD + GOOD, "not one JSON object"),
        (GOOD[:-1], "not one JSON object"),
        ("{'reason': 'so'}", "not one JSON object"),
        (GOOD.replace("7.5", "NaN"), "NaN is no number"),
        (GOOD.replace("7.5", "Infinity"), "Infinity is no number"),
        (GOOD.replace("7.5", "1e999"), "1e999 is no number"),
        (GOOD.replace("7.5", "1" * 5000), "not one JSON object"),
        (GOOD.replace('"ok"', '"score": 9, "ok"'), "given twice"),
        (GOOD.replace("so", "\\ud800"), "not one JSON object"),
        ("[" * 100_000, "not one JSON object"),
        ("[]", "not of the schema"),
        ("null", "not of the schema"),
        (GOOD.replace("7.5", '"7.5"'), "['score'] is not of the schema"),
        (GOOD.replace("7.5", "11"), "['score'] is not of the schema"),
        (GOOD.replace("7.5", "true"), "['score'] is not of the schema"),
        (GOOD.replace("true", "1"), "['ok'] is not of the schema"),
        (GOOD.replace("true", "true, \"sure\": 1"), "not of the schema"),
        ('{"reason": "so", "score": 7}', "not of the schema"),
        ('{"score": 7, "ok": true, "reason": "so"}', "before its reason"),
    ],
)  # fmt: skip
def test_anything_else_is_none(text: str, said: str):
    with pytest.raises(JudgeError) as caught:
        VerdictSchema(SCHEMA).parse(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 600


@settings(deadline=None)
@given(st.text())
def test_no_text_makes_it_fail_otherwise(text: str):
    with pytest.raises(JudgeError):
        VerdictSchema(SCHEMA).parse(text)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": "array", "properties": {"reason": {}}},
        {"type": "object", "properties": {"ok": {"type": "boolean"}, "reason": {"type": "string"}}},
        {"type": "objekt", "properties": {"reason": {}}},
    ],
)
def test_a_schema_of_another_kind_is_refused(schema: dict[str, Any]):
    with pytest.raises(UsageError, match="schema"):
        VerdictSchema(schema)


def test_a_schema_is_closed_where_it_allows_exactly_its_properties():
    assert VerdictSchema(SCHEMA).closed
    assert not VerdictSchema({**SCHEMA, "required": ["reason"]}).closed
    assert not VerdictSchema({**SCHEMA, "additionalProperties": True}).closed
