"""The estimate of memory: known sizes, what layers really keep, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agentgym import config as configuration
from agentgym.errors import ConfigError
from agentgym.train.memory import Shape, estimate, gigabytes, layer_bytes, require, shape_of, table

QWEN3 = {  # layers, width, heads, feed-forward, tied; parameters as its authors count them (arXiv 2505.09388)
    "0.6b": (28, 1024, 16, 3072, True, 596_049_920),
    "1.7b": (28, 2048, 16, 6144, True, 1_720_574_976),
    "4b": (36, 2560, 32, 9728, True, 4_022_468_096),
    "8b": (36, 4096, 32, 12288, False, 8_190_735_360),
}
GPU = {"0.6b": 24, "1.7b": 40, "4b": 80, "8b": 141}


def folder(path: Path, size: str) -> Path:
    """Write what a folder of this model says of itself."""
    layers, width, heads, ff, tied, _ = QWEN3[size]
    said = {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": ff,
        "vocab_size": 151_936,
        "tie_word_embeddings": tied,
    }
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(said))
    return path


@pytest.mark.parametrize("size", QWEN3)
def test_presets_of_qwen3_fit_their_gpu_beside_the_server(size: str, tmp_path: Path) -> None:
    model = folder(tmp_path / size, size)
    asked = configuration.load(f"qwen3-{size}", {"model.path": str(model)})
    assert shape_of(asked).parameters == QWEN3[size][-1]
    server = asked.policy.vllm.options["gpu-memory-utilization"] * GPU[size] * 1e9
    weights = 2 * shape_of(asked).parameters
    assert weights * 1.1 < server, "the server holds the weights and some cache"
    assert estimate(asked)["total"] + server < 0.95 * GPU[size] * 1e9


def test_weights_gradients_and_moments_of_float32_are_sixteen_bytes_a_parameter(tmp_path: Path) -> None:
    model = {"model.path": str(folder(tmp_path / "model", "0.6b"))}
    found = estimate(configuration.load("quickstart", model))
    assert found["weights"] + found["gradients"] + found["optimizer"] == 16 * 596_049_920
    assert found["total"] == sum(size for name, size in found.items() if name != "total")
    bare = estimate(configuration.load("qwen3-0.6b", model))
    assert bare["weights"] + bare["gradients"] + bare["optimizer"] == 8 * 596_049_920
    anchored = estimate(configuration.load("qwen3-0.6b", model | {"train.kl": 0.1}))
    assert anchored["reference"] == 2 * 596_049_920
    served = {"train.kl": 0.1, "train.reference": "http://127.0.0.1:9"}
    assert estimate(configuration.load("qwen3-0.6b", model | served))["reference"] == 0


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "autocast"])
def test_a_layer_keeps_what_is_estimated(kind: str) -> None:
    torch = pytest.importorskip("torch")
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shape = Shape(layers=4, width=64, heads=4, kv_heads=2, head_width=32, ff=192, vocabulary=16, tied=True)
    config = Qwen3Config(
        vocab_size=16,
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config).eval()
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    model = model.bfloat16() if kind == "bfloat16" else model
    kept: dict[int, Any] = {}
    tokens = 512

    def keep(tensor: Any) -> Any:
        if tokens in tensor.shape:  # no weight, nor a copy of one
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, so that no address comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):  # noqa: SIM117
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == "autocast"):
            hidden = model.base_model(input_ids=torch.zeros((1, tokens), dtype=torch.long), use_cache=False)[0]
    assert hidden.requires_grad
    found = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    stored, computed = (2, 2) if kind == "bfloat16" else (4, 2 if kind == "autocast" else 4)
    expected = shape.layers * tokens * layer_bytes(shape, stored, computed)
    assert found == pytest.approx(expected, rel=0.15)


def test_what_does_not_fit_is_refused_with_the_ways_out() -> None:
    require(10, 10, "here")
    with pytest.raises(ConfigError, match=r"about 20 GB and a GPU has 8 GB; .*gradient_checkpointing = true.*bfloat16"):
        require(20 * 10**9, 8 * 10**9, "a GPU")
    assert gigabytes(1_234_567_890) == "1.23"
    assert table({"weights": 10**9, "cache": 0, "total": 10**9}) == "about 1 GB: weights 1"


def test_a_folder_that_does_not_say_its_size_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    with pytest.raises(ConfigError, match=r"config.json' does not say how large the model is: KeyError"):
        shape_of(configuration.load("quickstart", {"model.path": str(tmp_path)}))


def test_a_run_that_does_not_fit_does_not_begin(
    tiny: Callable[..., Any], train_here: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setattr(os, "sysconf", lambda name: 1000)
    with pytest.raises(ConfigError, match="this machine has 0.001 GB"):
        train_here(tmp_path / "run", tiny())


def learning(
    make_model: Callable[..., Any],
    trajectory: Callable[..., Any],
    tokenizer: Any,
    device: str,
    dtype: str,
    saving: bool,
) -> tuple[Callable[[], Any], int]:
    """Return what takes a step of a model of this kind, and the bytes that are estimated for its learner."""
    import torch

    from agentgym.train.batch import rows
    from agentgym.train.learner import Economy, Learner

    sizes, tokens = {"layers": 4, "width": 256}, 2048
    data = {
        "model": sizes | {"heads": 2, "vocab_size": len(tokenizer), "dtype": dtype, "max_context": 64},
        "policy": {"max_tokens": 8},
        "train": {"token_budget": tokens, "gradient_checkpointing": saving},
    }
    played = [rows(trajectory([(60, 4)], seed=n, name=f"g/{n}"), np.ones(1))[0] for n in range(tokens // 64)]
    model = make_model(**sizes).to(device, getattr(torch, dtype))
    economy = Economy(gradient_checkpointing=saving)
    learner = Learner(model, lr=1e-4, weight_decay=0.0, max_grad_norm=1.0, token_budget=tokens, economy=economy)
    learner.reinforce(played)  # makes the moments, and leaves gradients
    parts = estimate(configuration.build(data))
    return lambda: learner.reinforce(played), parts["total"] - parts["cache"]


@pytest.mark.parametrize("saving", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_takes_what_is_estimated(
    make_model: Callable[..., Any],
    trajectory: Callable[..., Any],
    tokenizer: Any,
    allocated: Callable[..., int],
    dtype: str,
    saving: bool,
) -> None:
    step, expected = learning(make_model, trajectory, tokenizer, "cpu", dtype, saving)
    before = 4 * sum(weight.numel() * weight.itemsize for weight in make_model(layers=4, width=256).parameters())
    before = before if dtype == "float32" else before // 2  # weights, gradients and two moments are there already
    assert before + allocated(step) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_of_a_large_vocabulary_takes_what_is_estimated(
    trajectory: Callable[..., Any],
    allocated: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    tied: bool,
) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from agentgym.train.batch import rows
    from agentgym.train.learner import Economy, Learner

    monkeypatch.setattr("agentgym.train.memory.LOGITS_AT_ONCE", 2**20)
    monkeypatch.setattr("agentgym.train.optimizer.AT_ONCE", 2**16)
    said = {
        "model_type": "qwen3",
        "num_hidden_layers": 1,
        "hidden_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "intermediate_size": 256,
        "vocab_size": 32_768,
        "tie_word_embeddings": tied,
    }
    (tmp_path / "config.json").write_text(json.dumps(said))
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path)).eval().to(getattr(torch, dtype))
    data = {
        "model": {"path": str(tmp_path), "dtype": dtype, "max_context": 128},
        "policy": {"max_tokens": 8, "engine": "vllm"},
        "train": {"token_budget": 128},
    }
    learner = Learner(
        model, lr=1e-4, weight_decay=0.0, max_grad_norm=1.0, token_budget=128, economy=Economy(logits_at_once=2**20)
    )
    played = [rows(trajectory([(8, 56)], seed=n, name=f"g/{n}"), np.ones(1))[0] for n in range(4)]
    learner.reinforce(played)  # makes the moments, and leaves gradients
    held = 4 * sum(weight.numel() * weight.itemsize for weight in model.parameters())
    parts = estimate(configuration.build(data))
    assert held == parts["weights"] + parts["gradients"] + parts["optimizer"]
    took = held + allocated(lambda: learner.reinforce(played))
    assert took < 1.15 * parts["total"]
    assert took > 0.7 * parts["total"], "now and then, amid other tests, a step takes a fifth less"


def test_the_cache_of_the_embedded_engine_holds_the_largest_evaluation() -> None:
    few = {"train.groups": 2, "train.group_size": 2, "env.concurrency": 64, "eval.games": 1, "eval.every": 0}
    small, large = (
        estimate(configuration.load("quickstart", few | {"eval.final_games": n}))["cache"] for n in (1, 100)
    )
    assert large == 16 * small, "64 episodes at a time instead of the 4 of a step"


@pytest.mark.gpu
@pytest.mark.parametrize("saving", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_estimate_holds_on_a_gpu(
    make_model: Callable[..., Any], trajectory: Callable[..., Any], tokenizer: Any, dtype: str, saving: bool
) -> None:
    import torch

    step, expected = learning(make_model, trajectory, tokenizer, "cuda", dtype, saving)
    torch.cuda.reset_peak_memory_stats()
    step()
    assert torch.cuda.max_memory_allocated() == pytest.approx(expected, rel=0.25)


@pytest.mark.gpu
def test_a_run_learns_on_a_gpu(tiny: Callable[..., Any], train_here: Callable[..., Any], tmp_path: Path) -> None:
    settings = {"model__device": "cuda", "model__dtype": "bfloat16", "deterministic": False}
    assert train_here(tmp_path, tiny(**settings, train__gradient_checkpointing=True))["steps"] == 2
