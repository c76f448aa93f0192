"""Tool calls: what is read, what is left standing, and what the policy is told."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.tools import Tool, parse_assistant, tool_calls_json
from agentgym.types import Message, ToolCall

SEARCH = Tool(
    "search",
    "Search the web.",
    {
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "limit": {"type": "integer"},
            "minimum": {"type": "number"},
            "exact": {"type": "boolean"},
            "sites": {"type": "array"},
            "filter": {"type": "object"},
            "after": {"type": ["string", "null"]},
            "anything": {},
        },
        "required": ["query"],
    },
    run=lambda **_: "",
)


def block(text: str) -> str:
    return f"<tool_call>\n{text}\n</tool_call>"


# ------------------------------------------------------------------------------------------------------- parsing


def test_text_without_a_call_is_left_alone() -> None:
    assert parse_assistant("  open the door \n") == Message("assistant", "  open the door \n")


def test_calls_are_taken_out_of_the_text() -> None:
    search, done = block('{"name": "search", "arguments": {"query": "oak"}}'), block('{"name": "done"}')
    text = f"Let me see.\n{search}\n{done}"
    message = parse_assistant(text)
    assert message.content == "Let me see."
    assert message.tool_calls == (ToolCall("call_0", "search", {"query": "oak"}), ToolCall("call_1", "done", {}))


@pytest.mark.parametrize("arguments", ["{}", "null"])
def test_no_arguments(arguments: str) -> None:
    message = parse_assistant(block(f'{{"name": "done", "arguments": {arguments}}}'))
    assert message.tool_calls == (ToolCall("call_0", "done", {}),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "search(oak)",
        '"search"',
        "[1, 2]",
        "17",
        "null",
        "{}",
        '{"name": "search", "arguments": "oak"}',
        '{"name": "search", "arguments": ["oak"]}',
        '{"name": "search", "arguments": [["query", "oak"]]}',
        '{"name": "search", "arguments": 3}',
        '{"name": 3, "arguments": {}}',
        '{"name": null}',
        '{"arguments": {"query": "oak"}}',
        '{"name": "search", "arguments": {"query": "oak"}',
        '{"name": "search", "arguments": {"limit": ' + "9" * 5000 + "}}",
        '{"name": "search", "arguments": {"sites": ' + "[" * 100_000 + "]" * 100_000 + "}}",
    ],
    ids=lambda text: text[:40],
)
def test_a_malformed_call_stays_in_the_text(text: str) -> None:
    message = parse_assistant(f"before {block(text)} after")
    assert message == Message("assistant", f"before {block(text)} after")


def test_a_call_that_is_never_closed_stays_in_the_text() -> None:
    text = '<tool_call>\n{"name": "search"}'
    assert parse_assistant(text) == Message("assistant", text)


def test_a_good_call_beside_a_malformed_one() -> None:
    message = parse_assistant(block("oops") + block('{"name": "done"}'))
    assert message.content == block("oops")
    assert message.tool_calls == (ToolCall("call_0", "done", {}),)


@given(st.text(alphabet=string.printable + "<>/{}☃\ud800"))
def test_parsing_never_raises(text: str) -> None:
    for said in (text, block(text), f"<tool_call>{text}"):
        assert parse_assistant(said).role == "assistant"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
calls_made = st.lists(
    st.tuples(st.text(max_size=8), st.dictionaries(st.text(max_size=5), json_values, max_size=3)), max_size=3
)


@given(st.text(max_size=20), calls_made)
def test_calls_are_read_as_they_were_written(content: str, made: list[tuple[str, dict[str, Any]]]) -> None:
    calls = tuple(ToolCall(f"call_{i}", name, arguments) for i, (name, arguments) in enumerate(made))
    message = parse_assistant(content + tool_calls_json(calls))
    assert message.tool_calls == calls
    assert message.content == (content.strip() if calls else content)


@pytest.mark.parametrize("tag", ["</tool_call>", "<tool_call>", "\n</tool_call>\n<tool_call>\n"])
def test_an_argument_may_hold_the_tags(tag: str) -> None:
    calls = (ToolCall("call_0", "say", {"text": tag, tag: "</a>"}),)
    assert parse_assistant(tool_calls_json(calls)) == Message("assistant", "", calls)


# ---------------------------------------------------------------------------------------------------- validation


@pytest.mark.parametrize(
    "arguments",
    [
        {"query": "oak"},
        {"query": "oak", "limit": 3, "minimum": 0.5, "exact": True, "sites": [], "filter": {}},
        {"query": "", "minimum": 2},
        {"query": "oak", "after": None},
        {"query": "oak", "after": "2020", "anything": object()},
    ],
)
def test_good_arguments(arguments: dict[str, Any]) -> None:
    assert SEARCH.problem(arguments) is None


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "search needs the argument 'query'"),
        ({"query": 3}, "search: 'query' must be of type string, not int"),
        ({"query": None}, "search: 'query' must be of type string, not NoneType"),
        ({"query": "a", "limit": "3"}, "search: 'limit' must be of type integer, not str"),
        ({"query": "a", "limit": 3.5}, "search: 'limit' must be of type integer, not float"),
        ({"query": "a", "limit": True}, "search: 'limit' must be of type integer, not bool"),
        ({"query": "a", "minimum": False}, "search: 'minimum' must be of type number, not bool"),
        ({"query": "a", "exact": 1}, "search: 'exact' must be of type boolean, not int"),
        ({"query": "a", "sites": {}}, "search: 'sites' must be of type array, not dict"),
        ({"query": "a", "filter": []}, "search: 'filter' must be of type object, not list"),
        ({"query": "a", "after": 1}, "search: 'after' must be of type string or null, not int"),
    ],
)
def test_the_policy_is_told_what_is_wrong(arguments: dict[str, Any], problem: str) -> None:
    assert SEARCH.problem(arguments) == problem


def test_an_unknown_argument_is_answered_with_the_known() -> None:
    assert SEARCH.problem({"query": "a", "page": 2}) == (
        "search has no argument 'page'; it takes: query, limit, minimum, exact, sites, filter, after, anything"
    )
    nothing = Tool("done", "", {}, run=lambda: "")
    assert nothing.problem({"page": 2}) == "done has no argument 'page'; it takes: none"


def test_a_tool_is_an_openai_function() -> None:
    schema = SEARCH.schema()
    assert schema["type"] == "function"
    assert schema["function"]["name"] == "search"
    assert schema["function"]["parameters"]["required"] == ["query"]
