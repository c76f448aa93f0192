"""The embedded engine against the same model read in one pass, and when something goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from agentgym.errors import ConfigError, DeadlineError, PolicyError, UsageError
from agentgym.policy import Context
from agentgym.policy.embedded import EmbeddedPolicy, load
from agentgym.train.factory import build_model, build_tokenizer, save
from agentgym.types import Sample, Sampling, TokenIds

WORDS = 120
CONTEXT = 512
T = TypeVar("T")
NONE: TokenIds = np.empty(0, np.int32)

TOKENIZER = build_tokenizer(
    [" ".join(f"word{i}" for i in range(WORDS))], kind="word", vocab_size=WORDS, max_context=CONTEXT
)
EOS = int(TOKENIZER.eos_token_id)


def sharpen(model: Any, factor: float = 12.0) -> Any:
    """Scale the matrices, so that what a token sees decides much about the next one."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(factor)
    return model


def make_model(*, kv_heads: int = 2, seed: int = 0) -> Any:
    return sharpen(
        build_model(TOKENIZER, layers=2, width=32, heads=4, kv_heads=kv_heads, max_context=CONTEXT, seed=seed)
    )


@pytest.fixture
def model() -> Any:
    return make_model()


@pytest.fixture
def make_policy() -> Iterator[Callable[..., EmbeddedPolicy]]:
    made: list[EmbeddedPolicy] = []

    def make(model: Any, **settings: Any) -> EmbeddedPolicy:
        made.append(EmbeddedPolicy(model, TOKENIZER, **({"max_context": CONTEXT} | settings)))
        return made[-1]

    yield make
    for policy in made:
        policy.close()


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def words(rng: np.random.Generator, n: int) -> TokenIds:
    return rng.integers(4, WORDS, n).astype(np.int32)


def context(name: str, ids: TokenIds, seed: int = 0, **changes: Any) -> Context:
    sampling = Sampling(changes.pop("temperature", 1.0), changes.pop("max_tokens", 6))
    return Context(name, changes.pop("segment", 0), (), ids, sampling, seed, changes.pop("deadline_s", 60.0))


async def play(
    policy: EmbeddedPolicy, name: str, seed: int, *, turns: int = 3, max_tokens: int = 6, temperature: float = 1.0
) -> list[tuple[TokenIds, Sample]]:
    """Return what the buffer was before each answer, and the answer."""
    rng = np.random.default_rng(seed)
    policy.begin(name)
    buffer, answers = NONE, []
    for turn in range(turns):
        buffer = np.concatenate([buffer, words(rng, int(rng.integers(1, 40)))])
        asked = context(name, buffer, 1000 * seed + turn, max_tokens=max_tokens, temperature=temperature)
        sample = await policy.act(asked)
        answers.append((buffer, sample))
        buffer = np.concatenate([buffer, sample.token_ids_N])
    policy.end(name)
    return answers


async def play_many(policy: EmbeddedPolicy, seeds: range, **settings: Any) -> dict[int, list[tuple[TokenIds, Sample]]]:
    """Play rollouts of one to five turns beside one another, so that they end at different times."""
    episodes = [play(policy, f"rollout {seed}", seed, turns=1 + seed % 5, **settings) for seed in seeds]
    return dict(zip(seeds, await asyncio.gather(*episodes), strict=True))


@torch.inference_mode()
def plain_logits(model: Any, prompt: TokenIds, answer: TokenIds) -> torch.Tensor:
    """Return the logits (N, V) before each token of the answer, by one pass over everything."""
    ids = torch.from_numpy(np.concatenate([prompt, answer]).astype(np.int64))[None]
    logits: torch.Tensor = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    return logits


def plain_logprobs(model: Any, prompt: TokenIds, sample: Sample) -> Any:
    logits = plain_logits(model, prompt, sample.token_ids_N) / (sample.sampling.temperature or 1.0)
    chosen = torch.from_numpy(sample.token_ids_N.astype(np.int64))[:, None]
    return torch.log_softmax(logits, -1).gather(1, chosen)[:, 0].numpy()


def check(model: Any, prompt: TokenIds, sample: Sample, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(sample.logprobs_N, plain_logprobs(model, prompt, sample), atol=atol)


def ids_of(answers: list[tuple[TokenIds, Sample]]) -> list[list[int]]:
    return [sample.token_ids_N.tolist() for _, sample in answers]


# ---------------------------------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("lockstep", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_logprobs_are_those_of_one_pass(
    make_policy: Callable[..., EmbeddedPolicy], lockstep: bool, kv_heads: int
) -> None:
    model = make_model(kv_heads=kv_heads)
    episodes = run(play_many(make_policy(model, lockstep=lockstep), range(24)))
    for answers in episodes.values():
        for prompt, sample in answers:
            check(model, prompt, sample)


def test_the_numbers_depend_on_what_stands_before(model: Any) -> None:
    """Otherwise the tests here could not fail."""
    prompt = words(np.random.default_rng(0), 20)
    changed = prompt.copy()
    changed[1] = changed[1] % (WORDS - 5) + 5
    answer = words(np.random.default_rng(1), 3)
    assert float((plain_logits(model, prompt, answer) - plain_logits(model, changed, answer)).abs().max()) > 0.05


def test_only_what_is_new_is_read(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    policy = make_policy(model)
    answers = run(play(policy, "a", 3, turns=4))
    prompt, sample = answers[-1]
    read, sampled = policy.tokens
    assert sampled == sum(len(sample.token_ids_N) for _, sample in answers)
    firsts = len(answers)  # the first token of an answer comes with reading what is before it
    assert read + sampled - firsts == len(prompt) + len(sample.token_ids_N) - 1, "each token is read once"


def test_a_large_prefill_is_split(
    model: Any, make_policy: Callable[..., EmbeddedPolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentgym.policy.embedded.PREFILL_TOKENS", 64)
    for answers in run(play_many(make_policy(model), range(10))).values():
        for prompt, sample in answers:
            check(model, prompt, sample)


def test_company_changes_nothing(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    together = run(play_many(make_policy(model), range(31)))
    for seed in (0, 7, 13, 29):
        alone = run(play(make_policy(model), "another name", seed, turns=1 + seed % 5))
        assert ids_of(alone) == ids_of(together[seed])


def test_lockstep_changes_when_and_not_what(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    apart = run(play_many(make_policy(model, lockstep=False), range(12)))
    together = run(play_many(make_policy(model, lockstep=True), range(12)))
    for seed in apart:
        assert ids_of(apart[seed]) == ids_of(together[seed])


def test_seeds_differ(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    policy, prompt = make_policy(model), words(np.random.default_rng(0), 9)

    async def ask(seed: int) -> list[int]:
        return (await policy.act(context(f"seed {seed}", prompt, seed))).token_ids_N.tolist()

    async def all_of_them() -> list[list[int]]:
        return [await ask(seed) for seed in (1, 1, 2)]

    first, again, other = run(all_of_them())
    assert first == again != other


def test_lockstep_waits_for_all_who_began(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    policy = make_policy(model, lockstep=True)
    prompt = words(np.random.default_rng(0), 9)

    async def scene() -> None:
        policy.begin("a")
        policy.begin("b")
        first = asyncio.create_task(policy.act(context("a", prompt)))
        await asyncio.sleep(0.1)
        assert not first.done(), "b has begun and has not asked yet"
        assert policy.tokens == (0, 0)
        policy.end("b")
        await first

    run(scene())


def test_without_lockstep_nobody_waits(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    policy = make_policy(model, lockstep=False)

    async def scene() -> None:
        policy.begin("a")
        policy.begin("b")
        await policy.act(context("a", words(np.random.default_rng(0), 9)))

    run(scene())


# --------------------------------------------------------------------------------------------- prefixes that change


def test_a_new_segment_is_read_from_its_beginning(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    policy, rng = make_policy(model), np.random.default_rng(4)

    async def scene() -> None:
        policy.begin("a")
        for segment, length in enumerate((30, 12, 50)):
            prompt = words(rng, length)
            sample = await policy.act(context("a", prompt, segment=segment))
            check(model, prompt, sample)

    run(scene())


@pytest.mark.parametrize("length", [10, 30, 45])
def test_a_rewritten_history_is_never_taken_for_the_old_one(
    model: Any, make_policy: Callable[..., EmbeddedPolicy], length: int
) -> None:
    policy, rng = make_policy(model), np.random.default_rng(4)

    async def scene() -> None:
        first = words(rng, 30)
        await policy.act(context("a", first))
        other = np.concatenate([first[:8], words(rng, length - 8)])
        check(model, other, await policy.act(context("a", other)))

    run(scene())


def test_an_abandoned_answer_leaves_nothing_behind(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    policy, rng = make_policy(model, lockstep=False), np.random.default_rng(5)
    prompt = words(rng, 20)

    async def ask_until_it_is_late() -> None:
        while True:  # some answers end early
            await policy.act(context("a", prompt, int(rng.integers(2**31)), max_tokens=450, deadline_s=0.05))

    async def scene() -> None:
        with pytest.raises(DeadlineError, match=r"0\.05 s"):
            await ask_until_it_is_late()
        longer = np.concatenate([prompt, words(rng, 15)])
        check(model, longer, await policy.act(context("a", longer)))

    run(scene())


def test_new_weights_are_used_and_named(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    policy, rng = make_policy(model, version=3), np.random.default_rng(6)

    async def scene() -> None:
        buffer = words(rng, 25)
        for version in (3, 4, 9):
            sample = await policy.act(context("a", buffer, version))
            assert set(sample.versions_N.tolist()) == {version}
            check(model, buffer, sample)
            buffer = np.concatenate([buffer, sample.token_ids_N, words(rng, 10)])
            with torch.no_grad():
                for weight in model.parameters():
                    weight.mul_(1.1)
            policy.update({3: 4, 4: 9, 9: 10}[version])

    run(scene())


def test_an_answer_may_span_two_versions(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    policy = make_policy(model)
    prompts = [words(np.random.default_rng(seed), 20 + seed) for seed in range(4)]

    async def scene() -> list[Sample]:
        answers = [
            asyncio.create_task(policy.act(context(str(i), prompt, i, max_tokens=300)))
            for i, prompt in enumerate(prompts)
        ]
        while policy.tokens[1] < 12:
            await asyncio.sleep(0)
        policy.update(1)  # the same weights under another name: what was drawn must be as if nothing had happened
        return await asyncio.gather(*answers)

    samples = run(scene())
    assert {0, 1} <= {version for sample in samples for version in sample.versions_N.tolist()}
    for prompt, sample in zip(prompts, samples, strict=True):
        assert sample.versions_N.tolist() == sorted(sample.versions_N.tolist())
        assert len(sample.versions_N) == len(sample.token_ids_N)
        check(model, prompt, sample, atol=1e-3)


# ----------------------------------------------------------------------------------------------------- sampling


def test_greedy_is_argmax_and_what_generate_gives(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    episodes = run(play_many(make_policy(model), range(8), temperature=0.0, max_tokens=12))
    for answers in episodes.values():
        for prompt, sample in answers:
            logits = plain_logits(model, prompt, sample.token_ids_N)
            assert logits.argmax(-1).tolist() == sample.token_ids_N.tolist()
            check(model, prompt, sample)
            ids = torch.from_numpy(prompt.astype(np.int64))[None]
            theirs = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
            assert theirs[0, len(prompt) :].tolist() == sample.token_ids_N.tolist()


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_logprobs_are_of_the_tempered_distribution(
    model: Any, make_policy: Callable[..., EmbeddedPolicy], temperature: float
) -> None:
    for answers in run(play_many(make_policy(model), range(6), temperature=temperature)).values():
        for prompt, sample in answers:
            check(model, prompt, sample, atol=3e-4)
            assert sample.sampling.temperature == temperature


def test_finish_says_how_the_answer_ended(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    seen = set()
    for answers in run(play_many(make_policy(model), range(40), max_tokens=8, temperature=30.0)).values():
        for _, sample in answers:
            ids = sample.token_ids_N.tolist()
            seen.add(sample.finish)
            assert EOS not in ids[:-1]
            assert (ids[-1] == EOS) == (sample.finish == "stop")
            assert sample.finish == "stop" or len(ids) == 8
            assert len(sample.logprobs_N) == len(sample.versions_N) == len(ids)
            assert "<|im_end|>" not in sample.message.content
    assert seen == {"stop", "length"}


@pytest.mark.parametrize("temperature", [3.0, 8.0])
def test_frequencies_follow_the_distribution(
    model: Any, make_policy: Callable[..., EmbeddedPolicy], temperature: float
) -> None:
    policy, prompt, n = make_policy(model, lockstep=False), words(np.random.default_rng(0), 12), 3000

    async def draw() -> list[int]:
        found = []
        for start in range(0, n, 500):
            asked = [
                policy.act(context(str(i), prompt, start + i, max_tokens=1, temperature=temperature))
                for i in range(500)
            ]
            found += [int(sample.token_ids_N[0]) for sample in await asyncio.gather(*asked)]
        return found

    counts = np.bincount(run(draw()), minlength=len(TOKENIZER))
    logits = plain_logits(model, prompt, np.zeros(1, np.int32))[0] / temperature
    expected = n * torch.softmax(logits.double(), -1).numpy()
    common = expected >= 5
    observed = np.append(counts[common], counts[~common].sum())
    hoped = np.append(expected[common], max(expected[~common].sum(), 1e-9))
    freedom = len(hoped) - 1
    assert freedom >= 5
    assert float(((observed - hoped) ** 2 / hoped).sum()) < freedom + 4 * (2 * freedom) ** 0.5


def test_logprobs_of_a_text(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    policy, ids = make_policy(model), words(np.random.default_rng(0), 30)
    found = run(policy.logprobs(ids))
    logits = plain_logits(model, ids[:1], ids[1:])
    chosen = torch.from_numpy(ids[1:].astype(np.int64))[:, None]
    assert np.isnan(found[0])
    np.testing.assert_allclose(found[1:], torch.log_softmax(logits, -1).gather(1, chosen)[:, 0].numpy(), atol=1e-4)


# ----------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("lockstep", [True, False])
def test_who_is_too_late_does_not_hold_up_the_others(
    model: Any, make_policy: Callable[..., EmbeddedPolicy], lockstep: bool
) -> None:
    policy, rng = make_policy(model, lockstep=lockstep), np.random.default_rng(7)
    slow, quick = words(rng, 20), words(rng, 9)

    async def late() -> None:
        policy.begin("slow")
        try:
            with pytest.raises(DeadlineError):
                await policy.act(context("slow", slow, deadline_s=1e-4))
        finally:
            policy.end("slow")

    async def scene() -> None:
        policy.begin("quick")
        _, sample = await asyncio.gather(late(), policy.act(context("quick", quick)))
        check(model, quick, sample)
        longer = np.concatenate([quick, sample.token_ids_N, quick])
        check(model, longer, await policy.act(context("quick", longer, 1)))

    run(scene())


@pytest.mark.parametrize("lockstep", [True, False])
def test_a_turn_has_one_answer(model: Any, make_policy: Callable[..., EmbeddedPolicy], lockstep: bool) -> None:
    policy, prompt = make_policy(model, lockstep=lockstep), words(np.random.default_rng(0), 9)

    async def scene() -> None:
        policy.begin("a")
        first = asyncio.create_task(policy.act(context("a", prompt)))
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="rollout 'a' waits for an answer already"):
            await policy.act(context("a", prompt))
        sample = await first
        check(model, prompt, sample)
        await policy.act(context("a", np.concatenate([prompt, sample.token_ids_N, prompt])))

    run(scene())


def test_asking_again_after_a_deadline_is_one_question(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    """In lockstep the first question waits for the other rollout; it must not be answered beside the second."""
    policy, prompt = make_policy(model, lockstep=True), words(np.random.default_rng(0), 9)

    async def scene() -> None:
        policy.begin("a")
        policy.begin("b")
        with pytest.raises(DeadlineError):
            await policy.act(context("a", prompt, deadline_s=0.01))
        again = asyncio.create_task(policy.act(context("a", prompt, deadline_s=5.0)))
        await asyncio.sleep(0.05)
        assert not again.done(), "b has not asked yet"
        samples = await asyncio.gather(again, policy.act(context("b", prompt, deadline_s=5.0)))
        assert samples[0].token_ids_N.tolist() == samples[1].token_ids_N.tolist()

    run(scene())


@pytest.mark.parametrize("lockstep", [True, False])
def test_a_failing_model_fails_the_rollouts_it_served(
    model: Any, make_policy: Callable[..., EmbeddedPolicy], lockstep: bool
) -> None:
    policy, rng = make_policy(model, lockstep=lockstep), np.random.default_rng(8)
    prompts = [words(rng, 15) for _ in range(5)]

    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory, say")

    async def scene() -> None:
        names = [str(i) for i in range(len(prompts))]
        for name in names:
            policy.begin(name)
        await asyncio.gather(*(policy.act(context(*asked)) for asked in zip(names, prompts, strict=True)))
        hook = model.base_model.register_forward_pre_hook(fail)
        hit = range(5 if lockstep else 3)
        lost = await asyncio.gather(*(policy.act(context(names[i], prompts[i])) for i in hit), return_exceptions=True)
        hook.remove()
        assert len(lost) == len(hit)
        assert all(isinstance(error, PolicyError) and "out of memory, say" in str(error) for error in lost)
        longer = [np.concatenate([prompt, words(rng, 4)]) for prompt in prompts]
        samples = await asyncio.gather(*(policy.act(context(*asked)) for asked in zip(names, longer, strict=True)))
        for prompt, sample in zip(longer, samples, strict=True):
            check(model, prompt, sample)

    run(scene())


def test_a_failing_tokenizer_is_an_answer_too(
    model: Any, make_policy: Callable[..., EmbeddedPolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, prompt = make_policy(model), words(np.random.default_rng(0), 9)

    def fail(_: TokenIds) -> None:
        raise KeyError("no such token")

    async def scene() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(policy.renderer, "message", fail)
            with pytest.raises(PolicyError, match="no such token"):
                await policy.act(context("a", prompt, deadline_s=5.0))
        check(model, prompt, await policy.act(context("a", prompt, deadline_s=5.0)))

    run(scene())


def test_an_engine_serves_one_loop_after_another(model: Any, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    policy = make_policy(model)
    assert ids_of(run(play(policy, "a", 3))) == ids_of(run(play(policy, "a", 3)))


def test_closing_twice_is_fine(model: Any) -> None:
    policy = EmbeddedPolicy(model, TOKENIZER, max_context=CONTEXT)
    run(play(policy, "a", 1))
    policy.close()
    policy.close()


def test_closing_an_engine_that_never_served_is_fine(model: Any) -> None:
    policy = EmbeddedPolicy(model, TOKENIZER, max_context=CONTEXT)
    policy.close()


def test_asking_a_closed_engine_is_refused(model: Any) -> None:
    policy = EmbeddedPolicy(model, TOKENIZER, max_context=CONTEXT)
    policy.close()

    async def scene() -> None:
        with pytest.raises(PolicyError, match="shutdown"):
            await policy.act(context("a", words(np.random.default_rng(0), 9), deadline_s=5.0))
        policy.close()

    run(scene())


# ------------------------------------------------------------------------------------------- models of other makes


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_saved_by_transformers(tmp_path: Path, make_policy: Callable[..., EmbeddedPolicy], tied: bool) -> None:
    config = LlamaConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=tied,
        eos_token_id=EOS,
        bos_token_id=None,
        pad_token_id=0,
    )
    sharpen(LlamaForCausalLM(config)).save_pretrained(str(tmp_path))
    TOKENIZER.save_pretrained(str(tmp_path))
    model, tokenizer = load(tmp_path)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    assert tokenizer.get_vocab() == TOKENIZER.get_vocab()
    for answers in run(play_many(make_policy(model), range(6))).values():
        for prompt, sample in answers:
            check(model, prompt, sample)


def test_half_the_precision(tmp_path: Path, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    save(build_model(TOKENIZER, layers=2, width=32, heads=4, max_context=CONTEXT, seed=0), TOKENIZER, tmp_path)
    model, _ = load(tmp_path, dtype="bfloat16")
    assert next(model.parameters()).dtype == torch.bfloat16
    for answers in run(play_many(make_policy(model), range(6))).values():
        for prompt, sample in answers:
            check(model, prompt, sample, atol=0.05)


def test_attention_without_a_fused_kernel(tmp_path: Path, make_policy: Callable[..., EmbeddedPolicy]) -> None:
    model = make_model()
    model.set_attn_implementation("eager")
    for answers in run(play_many(make_policy(model), range(6))).values():
        for prompt, sample in answers:
            check(model, prompt, sample)


def test_a_window_shorter_than_the_context_is_refused() -> None:
    config = MistralConfig(
        vocab_size=len(TOKENIZER),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=128,
    )
    model = MistralForCausalLM(config).eval()
    with pytest.raises(ConfigError, match="set it to 128"):
        EmbeddedPolicy(model, TOKENIZER, max_context=129)
    EmbeddedPolicy(model, TOKENIZER, max_context=128).close()


def test_another_architecture_is_decoded_or_refused(make_policy: Callable[..., EmbeddedPolicy]) -> None:
    config = GPT2Config(
        vocab_size=len(TOKENIZER), n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT, eos_token_id=EOS
    )
    model = sharpen(GPT2LMHeadModel(config)).eval()
    for answers in run(play_many(make_policy(model), range(4))).values():
        for prompt, sample in answers:
            check(model, prompt, sample, atol=1e-3)


def test_logits_that_are_made_otherwise_are_refused(model: Any) -> None:
    """Some architectures scale or cap their logits after the last matrix."""
    forward = type(model).forward

    def capped(*args: Any, **kwargs: Any) -> Any:
        out = forward(model, *args, **kwargs)
        out.logits = 2 * torch.tanh(out.logits / 2)
        return out

    model.forward = capped
    with pytest.raises(ConfigError, match="logits differ"):
        EmbeddedPolicy(model, TOKENIZER, max_context=CONTEXT)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ConfigError, match="no causal language model"):
        load(tmp_path)
