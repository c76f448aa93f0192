"""Asks a judge which entities an answer names, and which statements about them the pages it cites support (CaRR)."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from agentgym.errors import JudgeError
from agentgym.judge import Judge, Question, Verdict
from agentgym.judging.contentless import contentless
from agentgym.probe import OpenAt
from agentgym.types import Group, Signal, Trajectory

from .asking import Contentless, answer, source, verdict, without_content
from .rubric import IDENTIFIED, SUPPORTED, Rubric, rubric_of

CITATION = re.compile(r"\[\d+\]\(([^)\s]+)\)")
"""``[1](url)``, wherever it stands."""
SHIPPED_CITATION = re.compile(r"\[\d+\]\(([^)\s]+)\)(?=[\],])")
"""The authors' form, which must be followed by ``]`` or ``,``: a plain ``[1](url).`` is not seen."""
MOST_CITATIONS = 20
"""Distinct pages that are looked at, as in the authors' code."""

Pages = Callable[[Trajectory], Callable[[str], str]]
"""Returns, for an episode, what its policy saw of a page; empty where it never did."""


class RubricJudge:
    """Emits ``rubric_identified`` and ``rubric_supported`` for each statement of the rubric, 1 or 0.

    Two questions an episode: which entities the last answer names, then which of the statements so filled the cited
    pages support, all at once. An answer without a citation of a page it saw supports nothing; no judge is asked that.
    """

    signals = frozenset({IDENTIFIED, SUPPORTED})

    def __init__(
        self,
        judge: Judge,
        *,
        items: Rubric | None = None,
        citation: re.Pattern[str] = CITATION,
        pages: Pages | None = None,
        contentless: Contentless = contentless,
    ) -> None:
        self.judge = judge
        self.items = items
        self.citation = citation
        self.pages = pages or seen_in_observations
        self.contentless = contentless

    @property
    def name(self) -> str:
        """The ``source`` of its signals."""
        return source("rubric", self.judge)

    async def __call__(self, group: Group, open_at: OpenAt | None = None) -> list[tuple[Signal, ...]]:
        """Return the signals of each trajectory.

        Raises:
            ConfigError, TaskError: there is no rubric, or a wrong one.
        """
        if not group.trajectories:
            return []
        listed = self.items or rubric_of(group)
        return list(await asyncio.gather(*(self._trajectory(each, listed) for each in group.trajectories)))

    async def _trajectory(self, trajectory: Trajectory, listed: Rubric) -> tuple[Signal, ...]:
        text = answer(trajectory)
        why = self.contentless(text, trajectory.task.prompt)
        if why:
            blanks = self._all(listed, IDENTIFIED, None) + self._all(listed, SUPPORTED, None)
            return tuple(without_content(blank, why) for blank in blanks)
        try:
            named = await self.judge.ask(identification(trajectory.task.prompt, text, listed))
        except JudgeError as error:
            cause = f"JudgeError: {error}"
            return self._all(listed, IDENTIFIED, None, cause) + self._all(listed, SUPPORTED, None, cause)
        values = {entity: str(named.value[entity]) for entity in listed.entities if named.value[entity]}
        filled = {
            item: listed.filled(number, values)
            for number, item in enumerate(listed.items())
            if all(entity in values for entity in listed.named(number))
        }
        identified = tuple(
            Signal(IDENTIFIED, float(item in filled), self.name, item=item, evidence=filled.get(item, named.reason))
            for item in listed.items()
        )
        return _priced(identified, named) + await self._supported(trajectory, text, listed, filled)

    async def _supported(
        self, trajectory: Trajectory, text: str, listed: Rubric, filled: Mapping[str, str]
    ) -> tuple[Signal, ...]:
        material = cited(text, self.citation, self.pages(trajectory))
        if not filled or not material:
            why = "its entities are not all named" if not filled else "no page that was seen is cited"
            return self._all(listed, SUPPORTED, 0.0, evidence=why)
        try:
            judged = await self.judge.ask(support(material, filled))
        except JudgeError as error:
            cause = f"JudgeError: {error}"
            return tuple(
                Signal(SUPPORTED, None if item in filled else 0.0, self.name, item=item, cause=cause * (item in filled))
                for item in listed.items()
            )
        supported = tuple(
            Signal(SUPPORTED, float(judged.value.get(item, False)), self.name, item=item, evidence=judged.reason)
            for item in listed.items()
        )
        return _priced(supported, judged)

    def _all(
        self, listed: Rubric, signal: str, value: float | None, cause: str = "", evidence: str = ""
    ) -> tuple[Signal, ...]:
        return tuple(
            Signal(signal, value, self.name, item=item, cause=cause, evidence=evidence) for item in listed.items()
        )


def seen_in_observations(trajectory: Trajectory) -> Callable[[str], str]:
    """Return what the world told of a page: every distinct message of a tool or of the user that names its address."""
    messages = [message for turn in trajectory.turns for message in turn.observation]
    texts = tuple(dict.fromkeys(message.content for message in messages if message.role in ("tool", "user")))
    return lambda url: "\n\n".join(text for text in texts if url in text)


def cited(text: str, citation: re.Pattern[str], seen: Callable[[str], str]) -> dict[str, str]:
    """Return the pages that ``text`` cites and the policy saw, by address, at most `MOST_CITATIONS`."""
    urls = tuple(dict.fromkeys(citation.findall(text)))[:MOST_CITATIONS]
    return {url: page for url in urls if (page := seen(url))}


def identification(prompt: str, text: str, listed: Rubric) -> Question:
    """Return the question which entities an answer names."""
    entity = {"type": ["string", "null"]}
    constraints = "\n".join(f"{number + 1}. {statement}" for number, statement in enumerate(listed.statements))
    return Question(
        "An answer to a question is given. The entities in angle brackets are bound by these constraints:\n"
        f"{constraints}\n{listed.root} is the answer itself. For each entity, give the name by which the answer "
        "explicitly calls it, or null where it does not name it. Do not fill in what you know yourself.",
        {"question": prompt, "answer": text},
        verdict(**dict.fromkeys(listed.entities, entity)),
    )


def support(pages: Mapping[str, str], filled: Mapping[str, str]) -> Question:
    """Return the question which statements the cited pages support.

    Pages are numbered and their addresses stand in the text: the policy wrote those, so that they are material, too.
    """
    shown = {f"page {number}": f"{url}\n{page}" for number, (url, page) in enumerate(pages.items(), 1)}
    return Question(
        "Pages of the web and statements are given. For each statement, answer true only if the pages alone say so "
        "or make it follow directly; what you know yourself does not count.",
        {**shown, **{f"statement {item}": statement for item, statement in filled.items()}},
        verdict(**{item: {"type": "boolean"} for item in filled}),
    )


def _priced(signals: tuple[Signal, ...], judged: Verdict) -> tuple[Signal, ...]:
    """Return the signals of one verdict, the first of which carries what it cost."""
    return (replace(signals[0], cost=judged.cost), *signals[1:])


__all__ = [
    "CITATION",
    "MOST_CITATIONS",
    "SHIPPED_CITATION",
    "Pages",
    "RubricJudge",
    "cited",
    "identification",
    "seen_in_observations",
    "support",
]
