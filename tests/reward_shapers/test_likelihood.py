"""Probes of log-probabilities, with a model that can be worked out by hand."""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from agentgym.reward_shapers.aligned import WITH, WITHOUT, AnswerLogprobs, self_aligned
from agentgym.reward_shapers.likelihood import ReferenceLogprob, in_its_place
from agentgym.reward_shapers.reference import LOGPROB, LOGPROB_MEAN
from hypothesis import given
from hypothesis import strategies as st

from agentgym.errors import ConfigError, PolicyError, UsageError
from agentgym.policy.scripted import ScriptedPolicy
from agentgym.probe import Probe
from agentgym.render import Renderer
from agentgym.types import Floats, Group, Message, Sample, Signal, StopReason, Task, TokenIds, Trajectory, Turn


class Pairs:
    """A tokenizer whose tokens are two characters of text, ``$`` alone ends a turn, and whose template says little."""

    eos_token, eos_token_id = "$", 0
    added_tokens_decoder: Mapping[int, Any] = {}

    def __init__(self) -> None:
        self.known = ["$"]

    def apply_chat_template(self, conversation: list[dict[str, Any]], **kwargs: Any) -> str:
        return "".join(f"{message['role'][0]}:{message['content']}$" for message in conversation) + "a:"

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        pieces = [part[at : at + 2] for part in text.replace("$", "\0$\0").split("\0") for at in range(0, len(part), 2)]
        self.known += [piece for piece in dict.fromkeys(pieces) if piece not in self.known]
        return [self.known.index(piece) for piece in pieces]

    def decode(self, token_ids: Any, *, skip_special_tokens: bool = False) -> str:
        return "".join(self.known[token] for token in token_ids)


class Countable(ScriptedPolicy):
    """Gives token ``n`` the log-probability ``-n / 10``, and half of that where the token ``hint`` is in the text."""

    def __init__(self, renderer: Renderer, hint: int = -1, **kwargs: Any) -> None:
        super().__init__(lambda _: "", renderer=renderer, **kwargs)
        self.hint, self.fault, self.asked = hint, None, []  # type: ignore[var-annotated]

    async def logprobs(self, token_ids_N: TokenIds) -> Floats:
        if self.fault is not None:
            raise self.fault
        self.asked.append(token_ids_N.tolist())
        factor = 0.05 if self.hint in token_ids_N else 0.1
        logprobs = (-factor * token_ids_N).astype(np.float32)
        logprobs[0] = np.nan
        return logprobs


RENDERER = Renderer(Pairs())


def episode(*turns: Turn, data: Mapping[str, Any] | None = None, signals: tuple[Signal, ...] = ()) -> Trajectory:
    return Trajectory("e", "g", Task("t", "", 9, data=data or {}), turns, (), StopReason.DONE, signals, 0)


def turn(prompt: str, said: str, segment: int = 0, *, end: bool = True) -> Turn:
    ids = np.array(RENDERER.tokenizer.encode(said + "$" * end), np.int32)
    zeros = np.zeros(len(ids), np.float32)
    sample = Sample(Message("assistant", said), ids, zeros, ids * 0)
    return Turn((), sample, np.array(RENDERER.tokenizer.encode(prompt), np.int32), segment=segment)


def measure(probe: Probe, *trajectories: Trajectory) -> list[dict[str, Signal]]:
    measured = asyncio.run(probe(Group(trajectories)))
    assert all({signal.name for signal in signals} == probe.signals for signals in measured)
    return [{signal.name: signal for signal in signals} for signals in measured]


def ids(text: str) -> list[int]:
    return RENDERER.tokenizer.encode(text)


def test_the_reference_stands_in_the_place_of_the_last_answer():
    policy = Countable(RENDERER)
    trajectory = episode(turn("old ", "gone", 0), turn("q1", "s1", 1), turn("q2", "s2", 1), data={"answer": "maybe"})
    (found,) = measure(ReferenceLogprob(policy, "w7"), trajectory)
    assert policy.asked == [[*ids("q1s1$q2"), *ids("maybe")]]
    expected = [-0.1 * token for token in ids("maybe")]
    assert found[LOGPROB].value == pytest.approx(sum(expected))
    assert found[LOGPROB_MEAN].value == pytest.approx(sum(expected) / 3)
    assert found[LOGPROB].source == "reference_logprob w7"


def test_thoughts_before_the_tag_are_kept_as_they_were_sampled():
    policy = Countable(RENDERER)
    trajectory = episode(turn("q", "so 5 <a>no</a>"), data={"answer": "yes"})
    measure(ReferenceLogprob(policy, "w", tag="a"), trajectory)
    assert policy.asked == [[*ids("q"), *ids("so 5 <a>"), *ids("yes")]]


@pytest.mark.parametrize(
    ("said", "kept", "rest"),
    [
        ("so <a>no</a>", "so <a", ">yes"),  # a token reaches over the end of the tag: "so", " <", "a>" do not
        ("so, <a>no</a>", "so, <a>", "yes"),
        ("<a>b</a> <a>c</a>", "<a>b</a> <a>", "yes"),
        ("so", "so", "<a>yes"),
        ("", "", "<a>yes"),
    ],
)
def test_the_tag_may_end_within_a_token(said: str, kept: str, rest: str):
    sampled = np.array(ids(said + "$"), np.int32)
    before, after = in_its_place(RENDERER, sampled, "a", "yes")
    text = RENDERER.tokenizer.decode(before) + RENDERER.tokenizer.decode(after)
    assert text == kept + rest
    assert before.tolist() == sampled[: len(before)].tolist()
    assert len(RENDERER.tokenizer.decode(before)) >= len(kept) - 1


def test_of_several_references_the_likeliest_counts():
    likely, unlikely = ids("aa")[0], ids("zz")[0]
    assert likely < unlikely
    (found,) = measure(
        ReferenceLogprob(Countable(RENDERER), "w"), episode(turn("q", "s"), data={"answer": ["zz", "aa"]})
    )
    assert found[LOGPROB_MEAN].value == pytest.approx(-0.1 * likely)


def test_an_answer_with_its_question_and_without():
    hint = ids("mars")[0]
    policy = Countable(RENDERER, hint)
    (found,) = measure(AnswerLogprobs(policy, "w", placeholder="hm"), episode(turn("mars", "red")))
    assert policy.asked == [[*ids("mars"), *ids("red$")], [*ids("u:hm$a:"), *ids("red$")]]
    mean = sum(ids("red$")) / 3
    assert found[WITH].value == pytest.approx(-0.05 * mean)
    assert found[WITHOUT].value == pytest.approx(-0.1 * mean)


def test_what_cannot_be_scored_is_unmeasured_with_its_cause():
    data = {"answer": "yes"}
    whole = turn("q", "s")
    bare = dataclasses.replace(whole, prompt_ids_N=whole.prompt_ids_N[:0])
    for make in (ReferenceLogprob, AnswerLogprobs):
        short = make(Countable(RENDERER, max_context=2), "w")
        nothing, untold, late = measure(short, episode(data=data), episode(bare, data=data), episode(whole, data=data))
        for found, cause in ((nothing, "no turn"), (untold, "not recorded"), (late, "do not fit into the model's 2")):
            assert all(signal.value is None and cause in signal.cause for signal in found.values())
        policy = Countable(RENDERER)
        policy.fault = PolicyError("out of memory")
        (failed,) = measure(make(policy, "w"), episode(whole, data=data))
        assert {signal.cause for signal in failed.values()} == {"PolicyError: out of memory"}
    (unasked,) = measure(ReferenceLogprob(Countable(RENDERER), "w"), episode(whole))
    assert {signal.cause for signal in unasked.values()} == {"the task has no data['answer']"}


def test_a_policy_without_probabilities_is_refused():
    for make in (ReferenceLogprob, AnswerLogprobs):
        trajectory = episode(turn("q", "s"), data={"answer": "yes"})
        with pytest.raises(UsageError, match="log-probabilities need a policy that has them"):
            measure(make(ScriptedPolicy(lambda _: "", renderer=RENDERER), "w"), trajectory)
        with pytest.raises(ConfigError, match="with a renderer"):
            measure(make(ScriptedPolicy(lambda _: ""), "w"), trajectory)


def paid(given: float | None, alone: float | None) -> float | None:
    signals = (Signal(WITH, given, "model"), Signal(WITHOUT, alone, "model"))
    (ledger,) = self_aligned()(Group((episode(turn("q", "s"), signals=signals),)))
    return ledger.total() if ledger.measured else None


@pytest.mark.parametrize(
    ("given", "alone", "reward"),
    [
        # ppl(a|q) = e and ppl(a) = e^2: (e^2 - e) / e^2
        (-1.0, -2.0, 1 - 1 / math.e),
        (-2.0, -2.0, 0.0),
        # ppl(a|q) = 1.5 ppl(a)
        (-2.0 - math.log(1.5), -2.0, -0.5),
        (-9.0, -2.0, -1.0),
        (-900.0, 0.0, -1.0),
        (None, -2.0, None),
        (-1.0, None, None),
    ],
)
def test_relative_difference_of_perplexity(given: float | None, alone: float | None, reward: float | None):
    assert paid(given, alone) == (None if reward is None else pytest.approx(reward, abs=1e-12))


@given(st.floats(-50, 0), st.floats(-50, 0))
def test_it_is_the_published_formula_and_bounded(given: float, alone: float):
    with_q, without = math.exp(-given), math.exp(-alone)
    assert paid(given, alone) == pytest.approx(min(max((without - with_q) / without, -1), 1))
    assert self_aligned().range(9) == (-1, 1)
