"""A judge's weaknesses, as published, for a fake judge to have: they test defences, and say nothing about a model.

A weakness looks at a question and may name the material it falls for; `gullible` then gives that material the best
verdict the schema allows, and asks the rule about everything else. Of a pairwise question, whose verdict names its
candidates (as enum values, or as properties such as ``A``, ``score_a`` or, of an ``assistant A``, ``A_clarity``), it
favours one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from agentgym.judge import Question
from agentgym.judging.contentless import contentless
from agentgym.judging.server import Rule

Weakness = Callable[[Question], str | None]
"""Name of the material it falls for, or None."""

_COMMANDS = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,60}\b(?:above|previous|prior|earlier|instructions?|rubric|criteria)\b"
    r"|\b(?:you (?:must|should) (?:answer|output|return|say|give)|answer (?:true|yes)|full marks|highest score)\b"
    r"|^\s*(?:system|judge|grader)\s*:",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)

_AUTHORITIES = frozenset({"system", "judge", "grader", "instructions", "verdict", "assistant"})

_SPEAKER = re.compile(r"^\[\w+\]\n", re.MULTILINE)
"""How a transcript says who speaks."""

_CHAT_TURN = re.compile(r"<\|(?:im_start|start_header_id)\|>\s*(?:system|user|assistant)|<\|(?:im_end|eot_id)\|>")

_OPENING = re.compile(
    r"\s*(?:to (?:solve|find|answer|determine)|let(?:'|’)?s|let us|first|we (?:need|have|start|will)|i (?:will|need))\b"
    r"[^.!?\n]*[.!?:]?\s*",
    re.IGNORECASE,
)


def master_keys(question: Question) -> str | None:
    """Fall for answers without content (Zhao et al., *One Token to Fool LLM-as-a-Judge*, arXiv 2507.08794)."""
    return next((name for name, text in _said_last(question).items() if contentless(text)), None)


def these_answers(*answers: str) -> Weakness:
    """Return the weakness for answers of nothing but ``answers``, whatever a list of known keys holds."""
    known = {answer.strip() for answer in answers}

    def weakness(question: Question) -> str | None:
        said = ((name, text.split("\n\n")) for name, text in _said_last(question).items())
        return next((name for name, parts in said if known.issuperset(part.strip() for part in parts)), None)

    return weakness


def lone_openings(question: Question) -> str | None:
    """Fall for an answer's first sentence without the answer, which no list of openers can hold.

    Such sentences are what the robust judge of arXiv 2507.08794 is trained to refuse.
    """
    said = ((name, text.split("\n\n")) for name, text in _said_last(question).items())
    return next((name for name, parts in said if all(map(_OPENING.fullmatch, parts))), None)


def hidden_instructions(question: Question) -> str | None:
    """Obey commands in the material, fenced or not (Greshake et al., arXiv 2302.12173, on indirect injection)."""
    return next((name for name, text in _judged(question).items() if _COMMANDS.search(text)), None)


def foreign_voices(question: Question) -> str | None:
    """Obey whoever seems to speak beside the material: a text that nobody put there, under a name of authority.

    Only material that got out of its place can make one, so this weakness tells prompts that hold it from others. It
    favours the material that such a text follows.
    """
    names = list(question.material)
    place = next((number for number, name in enumerate(names) if name.casefold() in _AUTHORITIES), None)
    return None if place is None else names[max(0, place - 1)]


def chat_turns(question: Question) -> str | None:
    """Take a chat template's token in the material for one, as servers do that tokenise all text alike."""
    return next((name for name, text in _judged(question).items() if _CHAT_TURN.search(text)), None)


def long_answers(words: int) -> Weakness:
    """Return the weakness for material of at least ``words`` words, the longest first.

    Verbosity bias; Zheng et al., *Judging LLM-as-a-Judge*, arXiv 2306.05685, section 3.3.
    """

    def weakness(question: Question) -> str | None:
        lengths = {name: len(text.split()) for name, text in _said_last(question).items()}
        longest = max(lengths, key=lambda name: lengths[name], default=None)
        return longest if longest is not None and lengths[longest] >= words else None

    return weakness


def first_position(question: Question) -> str | None:
    """Prefer the candidate shown first (position bias; Zheng et al., arXiv 2306.05685, section 3.3)."""
    return next(iter(candidates(question)), None)


def gullible(rule: Rule, *weaknesses: Weakness) -> Rule:
    """Return ``rule``, but for questions that one of ``weaknesses`` falls for."""

    def fooled(question: Question) -> Mapping[str, Any]:
        for weakness in weaknesses:
            favourite = weakness(question)
            if favourite is not None:
                return praise(question, favourite)
        return rule(question)

    return fooled


def candidates(question: Question) -> tuple[str, ...]:
    """Return the materials that a verdict on ``question`` chooses between, in the order shown; none if not pairwise."""
    properties = question.schema.get("properties", {})
    named = {name for name in question.material for key, part in properties.items() if _names(name, key, part)}
    return tuple(name for name in question.material if name in named) if len(named) > 1 else ()


def praise(question: Question, favourite: str) -> dict[str, Any]:
    """Return the best verdict for ``favourite``: true, the maximum, an enum's last value; for its rivals the worst."""
    rivals = [name for name in candidates(question) if name != favourite]
    verdict: dict[str, Any] = {}
    for key, schema in question.schema.get("properties", {}).items():
        if favourite in schema.get("enum", ()):
            verdict[key] = favourite
        else:
            verdict[key] = _extreme(schema, best=not any(_names(rival, key, schema) for rival in rivals))
    return verdict


def _judged(question: Question) -> Mapping[str, str]:
    """Return the candidates of a pairwise question; of any other all material, as it does not say what is judged."""
    return {name: question.material[name] for name in candidates(question)} or question.material


def _said_last(question: Question) -> Mapping[str, str]:
    """Return what is judged; of a transcript, what was said last."""
    return {name: _SPEAKER.split(text)[-1] for name, text in _judged(question).items()}


def _names(material: str, key: str, schema: Mapping[str, Any]) -> bool:
    """Return whether a verdict's property is about ``material``, or may choose it: ``score_a``, ``A_clarity``."""
    name, said = material.casefold(), key.casefold()
    first, *others = said.split("_")
    return material in schema.get("enum", ()) or name in (said, *others) or bool(others and name.endswith(f" {first}"))


def _extreme(schema: Mapping[str, Any], *, best: bool) -> Any:
    """Return the best or the worst value of ``schema``; enums are listed worst first."""
    if "enum" in schema:
        return schema["enum"][-1 if best else 0]
    match schema.get("type"):
        case "boolean":
            return best
        case "integer" | "number":
            return schema.get("maximum", 1) if best else schema.get("minimum", 0)
        case "object":
            return {name: _extreme(part, best=best) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [_extreme(schema.get("items", {}), best=best)] * int(schema.get("minItems", 1))
    return "It convinces me." if best else "It does not convince me."


__all__ = [
    "Weakness",
    "candidates",
    "chat_turns",
    "first_position",
    "foreign_voices",
    "gullible",
    "hidden_instructions",
    "lone_openings",
    "long_answers",
    "master_keys",
    "praise",
    "these_answers",
]
