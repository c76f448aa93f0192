"""Decoding for many rollouts at once: transformers' ``generate``, alone and batched, beside the embedded engine.

    python benchmarks/embedded.py            # prints, and writes benchmarks/results/embedded.json
    python benchmarks/embedded.py --quick    # one round, prints only

32 rollouts of 8 turns: a first prompt of about 110 tokens, then about 35 new ones a turn, 5 sampled tokens an answer,
from a model of the quickstart's shape (650 words) with random weights. Every way reads the same:

* *one by one*: ``model.generate`` for each rollout and turn, on the whole conversation.
* *batched*: one ``model.generate`` a turn for all rollouts, padded to the left, on the whole conversations.
* *embedded*: ``EmbeddedPolicy.act`` for all rollouts at once; what was read before stays in its cache.

Sampled tokens a second, in turns, median of the rounds: once on all cores by the clock on the wall, which is what a
user waits for, and once on one thread in seconds of the processor, where what else the machine does matters little.

Claims, on all cores: embedded is at least 8 times as fast as one by one, and twice as fast as batched.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agentgym import config
from agentgym.policy import Context, sample_seed
from agentgym.policy.embedded import EmbeddedPolicy
from agentgym.provenance import provenance
from agentgym.train.factory import build_model, build_tokenizer
from agentgym.types import Sampling, TokenIds

ROLLOUTS, TURNS, SAMPLED = 32, 8, 5
FIRST, LATER = (90, 130), (25, 45)
"""Least and most tokens of the first prompt, and of what each later turn adds."""
WORDS = 650
SHAPE = config.load("quickstart").model
CLAIMS = {"one by one": 8.0, "batched": 2.0}
ALL_CORES, ONE_THREAD = "all cores", "one thread"
RESULTS = Path(__file__).parent / "results" / "embedded.json"

Way = Callable[[Callable[[int, int], TokenIds]], int]
"""From ``new_ids(rollout, turn)`` to the number of tokens it sampled."""


class Stopwatch:
    """Seconds, as ``clock`` counts them, spent in forward passes of a model."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds = 0.0
        self._clock = clock

    @contextmanager
    def on(self, *modules: torch.nn.Module) -> Iterator[None]:
        """Time ``modules``, none of which holds another."""
        started = [0.0]

        def before(*_: Any) -> None:
            started[0] = self._clock()

        def after(*_: Any) -> None:
            self.seconds += self._clock() - started[0]

        hooks = [module.register_forward_pre_hook(before) for module in modules]
        hooks += [module.register_forward_hook(after) for module in modules]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def make_model() -> tuple[Any, Any]:
    """Return a model with random weights and its tokenizer of `WORDS` words."""
    words = " ".join(f"word{number}" for number in range(WORDS))
    tokenizer = build_tokenizer([words], kind="word", vocab_size=WORDS, max_context=SHAPE.max_context)
    model = build_model(
        tokenizer,
        layers=SHAPE.layers,
        width=SHAPE.width,
        heads=SHAPE.heads,
        max_context=SHAPE.max_context,
        seed=0,
    )
    return model, tokenizer


def one_by_one(model: Any) -> Way:
    """Return the way that calls ``generate`` for each rollout and turn."""

    def play(new_ids: Callable[[int, int], TokenIds]) -> int:
        for rollout in range(ROLLOUTS):
            buffer = torch.empty((1, 0), dtype=torch.long)
            for turn in range(TURNS):
                buffer = torch.cat([buffer, torch.from_numpy(new_ids(rollout, turn)[None].astype(np.int64))], 1)
                buffer = generate(model, buffer, torch.ones_like(buffer))
        return ROLLOUTS * TURNS * SAMPLED

    return play


def batched(model: Any) -> Way:
    """Return the way that calls ``generate`` once a turn."""

    def play(new_ids: Callable[[int, int], TokenIds]) -> int:
        buffers = [np.empty(0, np.int32)] * ROLLOUTS
        for turn in range(TURNS):
            buffers = [np.concatenate([buffer, new_ids(i, turn)]) for i, buffer in enumerate(buffers)]
            width = max(map(len, buffers))
            ids, mask = torch.zeros((2, ROLLOUTS, width), dtype=torch.long)
            for row, buffer in enumerate(buffers):
                ids[row, width - len(buffer) :] = torch.from_numpy(buffer)
                mask[row, width - len(buffer) :] = 1
            answers = generate(model, ids, mask)[:, width:].numpy().astype(np.int32)
            buffers = [np.concatenate([buffer, ids]) for buffer, ids in zip(buffers, answers, strict=True)]
        return ROLLOUTS * TURNS * SAMPLED

    return play


def generate(model: Any, buffers: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the buffers with `SAMPLED` more tokens each, none of which ends the answer."""
    with torch.inference_mode():
        found: torch.Tensor = model.generate(
            buffers,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=SAMPLED,
            min_new_tokens=SAMPLED,
        )
    return found


def embedded(policy: EmbeddedPolicy) -> Way:
    """Return the way through the embedded engine. An answer that ends early (one in a hundred) counts as it is."""
    rounds = iter(range(1_000_000))

    async def rollout(number: int, round_: int, new_ids: Callable[[int, int], TokenIds]) -> int:
        name, buffer, sampled = f"{round_}/{number}", np.empty(0, np.int32), 0
        policy.begin(name)
        for turn in range(TURNS):
            buffer = np.concatenate([buffer, new_ids(number, turn)])
            seed = sample_seed(round_, number, turn)
            context = Context(name, 0, (), buffer, Sampling(1.0, SAMPLED), seed, deadline_s=600.0)
            ids = (await policy.act(context)).token_ids_N
            sampled += len(ids)
            buffer = np.concatenate([buffer, np.resize(ids, SAMPLED)])
        policy.end(name)
        return sampled

    def play(new_ids: Callable[[int, int], TokenIds]) -> int:
        round_ = next(rounds)

        async def together() -> list[int]:
            return await asyncio.gather(*(rollout(number, round_, new_ids) for number in range(ROLLOUTS)))

        return sum(asyncio.run(together()))

    return play


def measure(rounds: int, threads: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Return tokens a second and the share of time outside the model, way by way, taking turns in each round."""
    torch.set_num_threads(threads)
    model, tokenizer = make_model()
    policy = EmbeddedPolicy(model, tokenizer, max_context=SHAPE.max_context)
    watched = (model.base_model, model.get_output_embeddings())
    ways = {"one by one": one_by_one(model), "batched": batched(model), "embedded": embedded(policy)}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    outside: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(-1, rounds):  # round -1 warms up

        def new_ids(rollout: int, turn: int, round_: int = round_) -> TokenIds:
            rng = np.random.default_rng([round_ + 1, rollout, turn])
            return rng.integers(4, len(tokenizer), rng.integers(*(LATER if turn else FIRST)), np.int32)

        for name, play in ways.items():
            watch = Stopwatch(clock)
            with watch.on(*watched):
                started = clock()
                sampled = play(new_ids)
                took = clock() - started
            assert sampled >= 0.97 * ROLLOUTS * TURNS * SAMPLED, f"{name} sampled only {sampled} tokens"
            if round_ >= 0:
                rates[name].append(sampled / took)
                outside[name].append(1 - watch.seconds / took)
    policy.close()
    return {
        name: {
            "tokens/s": round(statistics.median(rates[name]), 1),
            "by round": [round(rate, 1) for rate in rates[name]],
            "outside the model": round(statistics.median(outside[name]), 3),
            "embedded is faster by": round(statistics.median(rates["embedded"]) / statistics.median(rates[name]), 2),
        }
        for name in ways
    }


def report(measured: dict[str, dict[str, Any]]) -> str:
    """Return the result as a markdown table."""
    lines = [
        "| where | way | sampled tokens/s | embedded is faster by | claimed | time outside the model |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for where, ways in measured.items():
        for name, way in ways.items():
            faster = f"{way['embedded is faster by']:.1f} ×" if name in CLAIMS else ""
            claimed = f"≥ {CLAIMS[name]:g} ×" if name in CLAIMS and where == ALL_CORES else ""
            outside = f"{100 * way['outside the model']:.0f} %"
            lines.append(f"| {where} | {name} | {way['tokens/s']:,.0f} | {faster} | {claimed} | {outside} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the result; leave with an error where a claim does not hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round, and nothing is written")
    arguments = parser.parse_args()
    load, rounds = os.getloadavg()[0], 1 if arguments.quick else arguments.rounds
    threads = torch.get_num_threads()
    measured = {
        ALL_CORES: measure(rounds, threads, time.perf_counter),
        ONE_THREAD: measure(rounds, 1, time.process_time),
    }
    made_with = provenance()
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": made_with["machine"] | {"python": made_with["python"], "load": round(load, 2)},
        "packages": {name: made_with["packages"][name] for name in ("numpy", "torch", "transformers")},
        "threads": threads,
        "model": {"layers": SHAPE.layers, "width": SHAPE.width, "heads": SHAPE.heads, "words": WORDS},
        "lengths": {"rollouts": ROLLOUTS, "turns": TURNS, "first": FIRST, "later": LATER, "sampled": SAMPLED},
        "measured": measured,
    }
    print(report(measured))
    if not arguments.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    factors = {name: measured[ALL_CORES][name]["embedded is faster by"] for name in CLAIMS}
    broken = [f"{name}: {factors[name]} < {claim}" for name, claim in CLAIMS.items() if factors[name] < claim]
    print("\n".join(f"FAILED: {line}" for line in broken) or "All claims hold.")
    sys.exit(bool(broken) and not arguments.quick)


if __name__ == "__main__":
    main()
