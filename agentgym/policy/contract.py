"""What every policy with tokens keeps: inherit the contract, say how to make yours, run pytest.

::

    class TestMyPolicy(PolicyContract):
        @asynccontextmanager
        async def policy(self):
            yield MyPolicy(model, tokenizer)
"""

# ruff: noqa: D102  (the name of a test is its contract)

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import numpy as np

from agentgym.errors import DeadlineError
from agentgym.policy import Context
from agentgym.types import Message, Sample, Sampling, TokenIds, text_message

_OBSERVATION = (text_message("user", "open the box . what now ?"),)


class PolicyContract:
    """Set ``tolerance`` to what two correct programs may differ by."""

    tolerance = 1e-4
    "Of a log-probability, in nats."
    version = 0
    "Of the weights the policy has."

    def policy(self) -> AbstractAsyncContextManager[Any]:
        """Return a context manager that gives the policy."""
        raise NotImplementedError("say how your policy is made: def policy(self): …")

    def test_an_answer_is_as_long_as_its_numbers(self) -> None:
        async def check(policy: Any) -> None:
            for seed in range(8):
                sample = await self._answer(policy, seed)
                sizes = {len(sample.token_ids_N), len(sample.logprobs_N), len(sample.versions_N)}
                assert len(sizes) == 1, "ids, log-probabilities and versions must be of one length"
                assert 1 <= len(sample.token_ids_N) <= sample.sampling.max_tokens
                assert np.isfinite(sample.logprobs_N).all()
                assert (sample.logprobs_N <= 0).all()

        self._run(check)

    def test_the_end_is_told_truthfully(self) -> None:
        async def check(policy: Any) -> None:
            eos = policy.renderer.eos_id
            for seed in range(8):
                sample = await self._answer(policy, seed)
                assert eos not in sample.token_ids_N[:-1], "nothing is written after the end of a turn"
                assert (sample.finish == "stop") == (sample.token_ids_N[-1] == eos)
                assert (sample.finish == "length") <= (len(sample.token_ids_N) == sample.sampling.max_tokens)

        self._run(check)

    def test_log_probabilities_are_the_policys_own(self) -> None:
        async def check(policy: Any) -> None:
            for seed in range(4):
                prompt, sample = policy.renderer.start(_OBSERVATION), await self._answer(policy, seed)
                whole = await policy.logprobs(np.concatenate([prompt, sample.token_ids_N]))
                assert np.isnan(whole[0]), "nothing stands before the first token"
                np.testing.assert_allclose(sample.logprobs_N, whole[len(prompt) :], atol=self.tolerance)

        self._run(check)

    def test_every_token_names_its_weights(self) -> None:
        async def check(policy: Any) -> None:
            assert set((await self._answer(policy, 1)).versions_N.tolist()) == {self.version}

        self._run(check)

    def test_the_seed_decides(self) -> None:
        async def check(policy: Any) -> None:
            answers = [(await self._answer(policy, seed)).token_ids_N.tolist() for seed in (*range(6), 0)]
            assert answers[0] == answers[-1], "the same seed must give the same tokens"
            assert len({tuple(answer) for answer in answers}) > 1, "another seed must give others"

        self._run(check)

    def test_company_changes_nothing(self) -> None:
        async def check(policy: Any) -> None:
            alone = (await self._answer(policy, 3)).token_ids_N.tolist()
            together = await asyncio.gather(*(self._answer(policy, seed) for seed in range(8)))
            assert together[3].token_ids_N.tolist() == alone

        self._run(check)

    def test_a_conversation_goes_on(self) -> None:
        async def check(policy: Any) -> None:
            buffer: TokenIds = policy.renderer.start(_OBSERVATION)
            policy.begin("long")
            for turn in range(3):
                sample = await policy.act(self._context("long", buffer, turn), ())
                whole = await policy.logprobs(np.concatenate([buffer, sample.token_ids_N]))
                np.testing.assert_allclose(sample.logprobs_N, whole[len(buffer) :], atol=self.tolerance)
                bridge = policy.renderer.bridge(sample.finish, _OBSERVATION)
                buffer = np.concatenate([buffer, sample.token_ids_N, bridge])
            policy.end("long")

        self._run(check)

    def test_the_message_is_what_the_tokens_spell(self) -> None:
        async def check(policy: Any) -> None:
            sample = await self._answer(policy, 5)
            said = policy.renderer.message(sample.token_ids_N)
            assert isinstance(sample.message, Message)
            assert (sample.message.role, sample.message.content) == ("assistant", said.content)

        self._run(check)

    def test_a_deadline_is_kept(self) -> None:
        async def check(policy: Any) -> None:
            policy.begin("late")
            context = replace(self._context("late", policy.renderer.start(_OBSERVATION), 0), deadline_s=1e-6)
            try:
                await policy.act(context, ())
            except DeadlineError:
                return
            finally:
                policy.end("late")
            raise AssertionError("an answer that is too late must be a DeadlineError")

        self._run(check)

    def test_ending_twice_is_fine(self) -> None:
        async def check(policy: Any) -> None:
            policy.begin("x")
            policy.end("x")
            policy.end("x")
            policy.end("never begun")

        self._run(check)

    async def _answer(self, policy: Any, seed: int) -> Sample:
        name = f"rollout {seed}"
        policy.begin(name)
        try:
            context = self._context(name, policy.renderer.start(_OBSERVATION), seed)
            sample: Sample = await policy.act(context, ())
            return sample
        finally:
            policy.end(name)

    def _context(self, name: str, ids: TokenIds, seed: int) -> Context:
        return Context(name, 0, _OBSERVATION, ids, Sampling(1.0, 12), seed, 60.0)

    def _run(self, check: Callable[[Any], Awaitable[None]]) -> None:
        async def run() -> None:
            async with self.policy() as policy:
                await check(policy)

        asyncio.run(run())


__all__ = ["PolicyContract"]
