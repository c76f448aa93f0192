"""What the episode answered against a reference answer.

The answer is the last message of the episode, or what stands last in it between ``<tag>`` and ``</tag>``: an answer
that does not use the tag asked for is wrong. ``task.data["answer"]`` holds the reference, a text or a list of texts of
which any will do, and ``task.data["key_content"]`` the key phrases of a good answer in their order. A task without
them is unmeasured.
"""

from __future__ import annotations

import math
import re
import string
from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np

from agentgym.errors import ConfigError, TaskError
from agentgym.reward import Amount, Shaper, per_trajectory, signal
from agentgym.types import Task, Trajectory

from .transforms import clip, monotone, scale

ANSWER = "answer"
KEY_CONTENT = "key_content"
LOGPROB = "reference_logprob"
LOGPROB_MEAN = "reference_logprob_mean"
"""Log-probability of the reference answer, its sum over the tokens and their mean: see `likelihood`."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact(*, tag: str = "") -> Shaper:
    """Return 1 where the answer is a reference to the letter, white space around it aside, else 0."""
    return _equal("exact", str.strip, tag)


def normalised_exact(*, tag: str = "") -> Shaper:
    """Return 1 where the answer is a reference once case, punctuation, articles and white space are set aside, else 0.

    Source: the exact match of SQuAD, arXiv 1606.05250 and its evaluation script.
    """
    return _equal("normalised_exact", normalise, tag)


def ordered_key_content(*, tag: str = "") -> Shaper:
    """Return the share of key phrases that the answer has in their order, in [0, 1].

    It is the longest chain of phrases found one after another, over the number of phrases, so that neither the same
    phrase again nor all of them in the wrong order pays. Phrases are looked for as whole words without regard to
    case. Source: the content reward of RLVRR; its weighting of phrases is not known to us, so each counts the same.

    Raises:
        TaskError: when it prices a task whose ``key_content`` is no list of phrases.
    """

    def share(trajectory: Trajectory) -> Amount:
        phrases = _texts(trajectory.task, KEY_CONTENT)
        if phrases is None:
            return None
        return _longest_chain(phrases, answer_of(trajectory, tag) or "") / len(phrases)

    needs = f"task.data['{KEY_CONTENT}']"
    return per_trajectory("ordered_key_content", share, scope="trajectory", needs=needs, low=0.0, high=1.0)


def reference_logprob(floor: float) -> Shaper:
    """Return how likely the policy finds the reference, in [0, 1]: the mean log-probability of its tokens.

    ``floor`` (in nats, below 0) and less is worth 0, certainty 1, and in between it is a straight line. Log-probability
    is what works with short references and long ones. Source: "Likelihood-Based Reward Designs for General LLM
    Reasoning"; the mean over tokens and the floor, which bound it, are ours. The signal is `likelihood`'s.

    Raises:
        ConfigError: ``floor`` is not below 0.
    """
    if not -math.inf < floor < 0:
        raise ConfigError(f"floor of a log-probability is {floor:g}; it must be finite and below 0")
    mean = signal(LOGPROB_MEAN, scope="trajectory", component=LOGPROB, high=0.0)
    return mean.then(clip(floor, 0.0)).then(scale((floor, 0.0)))


def reference_probability() -> Shaper:
    """Return the probability of the whole reference, in [0, 1] (VeriFree): it vanishes where references are long."""
    total = signal(LOGPROB, scope="trajectory", component="reference_probability", high=0.0)
    return total.then(monotone("exp({})", np.exp))


def answer_of(trajectory: Trajectory, tag: str = "") -> str | None:
    """Return what the episode answered, or None where it said nothing, or nothing between the tags."""
    content = trajectory.turns[-1].sample.message.content if trajectory.turns else None
    if content is None or not tag:
        return content
    _, opened, after = content.rpartition(f"<{tag}>")
    inside, closed, _ = after.partition(f"</{tag}>")
    return inside if opened and closed else None


def references(task: Task) -> tuple[str, ...] | None:
    """Return the answers that will do, or None where the task does not say.

    Raises:
        TaskError: ``task.data["answer"]`` is neither a text nor a list of texts.
    """
    return _texts(task, ANSWER)


def normalise(text: str) -> str:
    """Return ``text`` without case, punctuation, articles and superfluous white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def _equal(name: str, form: Callable[[str], str], tag: str) -> Shaper:
    def amount(trajectory: Trajectory) -> Amount:
        accepted = references(trajectory.task)
        if accepted is None:
            return None
        answer = answer_of(trajectory, tag)
        return float(answer is not None and form(answer) in {form(reference) for reference in accepted})

    return per_trajectory(name, amount, scope="trajectory", needs=f"task.data['{ANSWER}']", low=0.0, high=1.0)


def _texts(task: Task, key: str) -> tuple[str, ...] | None:
    if key not in task.data:
        return None
    found = task.data[key]
    texts = (found,) if isinstance(found, str) and key == ANSWER else found
    listed = isinstance(texts, Sequence) and not isinstance(texts, str)
    if not listed or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise TaskError(f"task '{task.id}': data['{key}'] must hold texts that are not empty; found {found!r}")
    return tuple(texts)


def _longest_chain(phrases: Sequence[str], text: str) -> int:
    """Return how many of ``phrases`` can be found one after another: the longest rising run of their places."""
    found = [
        (match.start(), -place)  # of phrases at one place the last comes first, so that a chain holds one of them
        for place, phrase in enumerate(phrases)
        for match in re.finditer(rf"(?<!\w){re.escape(phrase.strip())}(?!\w)", text, re.IGNORECASE)
    ]
    ends: list[int] = []  # ends[n]: the first phrase in order that a chain of n + 1 can end with
    for _, minus_place in sorted(found):
        at = bisect_left(ends, -minus_place)
        ends[at : at + 1] = [-minus_place]
    return len(ends)


__all__ = [
    "ANSWER",
    "KEY_CONTENT",
    "LOGPROB",
    "LOGPROB_MEAN",
    "answer_of",
    "exact",
    "normalise",
    "normalised_exact",
    "ordered_key_content",
    "reference_logprob",
    "reference_probability",
    "references",
]
