"""Handing weights to a real vLLM server while it answers: how near both sides are, and for how long it stands still.

    python benchmarks/weight_sync.py            # prints, and writes benchmarks/results/weight_sync.json
    python benchmarks/weight_sync.py --quick    # three syncs a model, prints only

A model of the quickstart's shape (650 words, four heads: vLLM's attention on CPUs takes none narrower than 32), once
with tied embeddings and once with a head of its own, is changed and pushed twenty times, with four answers under way.
One server a model, one after the other.

* *parity*: largest difference, in nats, of the log-probabilities of server and trainer, over the canary's probe and an
  answer, before the first and after every sync.
* *standstill*: from the call that pauses the server to the answer of the call that lets it go on.
* *spans*: answers under way that report tokens of two versions.

Claims: parity within 1e-4 in float32; standstill at most 150 ms in the median, where the cores are free.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agentgym import config
from agentgym.policy.endpoint import Endpoint
from agentgym.policy.served import ServedPolicy
from agentgym.policy.server import MODEL_NAME, Interpreter, Server, Serving, find_interpreter
from agentgym.provenance import provenance
from agentgym.train.factory import build_model, build_tokenizer, save
from agentgym.train.sync.canary import Canary
from agentgym.train.sync.file import SHARED_MEMORY, FileSync
from agentgym.types import Sampling, TokenIds

SYNCS, QUICK_SYNCS, UNDER_WAY = 20, 3, 4
WORDS, HEADS = 650, 4
SHAPE = config.load("quickstart").model
NEAR, STANDSTILL_S = 1e-4, 0.150
RESULTS = Path(__file__).parent / "results" / "weight_sync.json"


def make_model(tied: bool) -> tuple[Any, Any]:
    """Return a model with random weights and its tokenizer."""
    words = " ".join(f"word{number}" for number in range(WORDS))
    tokenizer = build_tokenizer([words], kind="word", vocab_size=WORDS, max_context=SHAPE.max_context)
    model = build_model(
        tokenizer, layers=SHAPE.layers, width=SHAPE.width, heads=HEADS, max_context=SHAPE.max_context, seed=0
    )
    if not tied:
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone() * 1.5)
    return model, tokenizer


def change(model: Any, seed: int) -> None:
    """Change every weight by about a hundredth of its size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1 + 0.01 * torch.randn(weight.shape, generator=generator))


async def measure(server: Server, model: Any, tokenizer: Any, syncs: int) -> dict[str, Any]:
    """Push the model ``syncs`` times."""
    await server.ready(deadline_s=1800)
    policy = ServedPolicy([Endpoint(server.endpoint.url)], tokenizer, model=MODEL_NAME, max_context=SHAPE.max_context)
    canary = Canary(model, max_context=SHAPE.max_context, tolerance=NEAR)
    async with policy:
        canary.expect()
        first = await canary.check(policy, policy.servers[0], version=0, deadline_s=120)
        sync = FileSync(policy, model, folder=SHARED_MEMORY, deadline_s=120, canary=canary)
        rounds, spans = [], 0
        for version in range(1, syncs + 1):
            change(model, version)
            writing = [asyncio.create_task(answer(policy, canary.probe[: 20 + n], n)) for n in range(UNDER_WAY)]
            await asyncio.sleep(0.1)
            rounds.append(await sync.push(version))
            spans += sum(len(np.unique(told)) > 1 for told in await asyncio.gather(*writing))
    frozen = [metrics["sync_frozen_s"] for metrics in rounds]
    return {
        "syncs": syncs,
        "parity_before": max(first.probe, first.answer),
        "parity_after": max(max(m["canary_probe"], m["canary_answer"]) for m in rounds),
        "standstill_s": {"median": statistics.median(frozen), "most": max(frozen)},
        "push_s": statistics.median(metrics["sync_s"] for metrics in rounds),
        "spans": spans,
        "answers": syncs * UNDER_WAY,
    }


async def answer(policy: ServedPolicy, prompt: TokenIds, seed: int) -> TokenIds:
    """Return the versions (N,) of a long answer's tokens."""
    sampling = Sampling(1.0, 300)
    found = await policy.sample(policy.servers[0], prompt, sampling, seed=seed, eos_id=None, deadline_s=600)
    assert found.versions_N is not None
    return found.versions_N


def serve_and_measure(interpreter: Interpreter, tied: bool, syncs: int) -> dict[str, Any]:
    """Launch a server of a model and measure it."""
    model, tokenizer = make_model(tied)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save(model, tokenizer, folder / "model")
        serving = Serving(str(folder / "model"), SHAPE.max_context, concurrency=16, threads=1)
        with closing(Server(interpreter, serving, folder / "server.log")) as server:
            return asyncio.run(measure(server, model, tokenizer, syncs))


def shown(name: str, found: dict[str, Any]) -> str:
    """Return a line for a model."""
    still = found["standstill_s"]
    return (
        f"{name:<7} parity {found['parity_before']:.1e} before, {found['parity_after']:.1e} after "
        f"{found['syncs']} syncs; standstill {1000 * still['median']:.0f} ms (at most {1000 * still['most']:.0f}), "
        f"push with canary {1000 * found['push_s']:.0f} ms; "
        f"two versions in {found['spans']} of {found['answers']} answers"
    )


def main() -> None:
    """Measure both models, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three syncs, prints only")
    quick, load = parser.parse_args().quick, os.getloadavg()[0]
    interpreter = find_interpreter()
    found = {}
    for name, tied in (("tied", True), ("untied", False)):
        found[name] = serve_and_measure(interpreter, tied, QUICK_SYNCS if quick else SYNCS)
        print(shown(name, found[name]), flush=True)
    claims = {
        "parity within 1e-4": all(max(f["parity_before"], f["parity_after"]) < NEAR for f in found.values()),
        "standstill at most 150 ms": all(f["standstill_s"]["median"] <= STANDSTILL_S for f in found.values()),
    }
    made_with = provenance()
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": made_with["machine"] | {"python": made_with["python"], "load": round(load, 2)},
        "packages": {"vllm": interpreter.version}
        | {name: made_with["packages"][name] for name in ("numpy", "torch", "transformers")},
        "model": {"layers": SHAPE.layers, "width": SHAPE.width, "heads": HEADS, "words": WORDS},
        "measured": found,
    }
    if not quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    broken = [claim for claim, holds in claims.items() if not holds]
    print("\n".join(f"FAILED: {claim}" for claim in broken) or "All claims hold.")
    sys.exit(bool(broken) and not quick)


if __name__ == "__main__":
    main()
