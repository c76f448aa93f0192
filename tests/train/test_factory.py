"""Models from scratch are ordinary model folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentgym.errors import ConfigError
from agentgym.train.factory import SPECIAL, build_model, build_tokenizer, save

TEXTS = ["You are in a kitchen.\nThere is an oak chest here; it's 12 o'clock.", "Open the chest, take the brass-key."]
ROLES = ["system", "user", "assistant", "tool", "\n"]
Kind = Literal["word", "bpe"]


def tokenizer(kind: Kind, vocab_size: int = 400) -> Any:
    return build_tokenizer(TEXTS, kind=kind, vocab_size=vocab_size, max_context=64)


def model(words: Any, **changes: Any) -> Any:
    sizes: dict[str, Any] = {"layers": 2, "width": 32, "heads": 4, "max_context": 64, "seed": 0} | changes
    return build_model(words, **sizes)


# ------------------------------------------------------------------------------------------------------ tokenizers


@pytest.mark.parametrize(("kind", "least"), [("word", 90), ("bpe", 265)])
def test_a_vocabulary_too_small_for_any_conversation_is_refused(kind: Kind, least: int) -> None:
    with pytest.raises(ConfigError, match=f"vocab_size is {least - 1}; a {kind} vocabulary needs at least {least}"):
        tokenizer(kind, least - 1)
    assert len(tokenizer(kind, least)) <= least


def test_frequent_words_do_not_crowd_out_the_roles() -> None:
    texts = [" ".join(f"word{i}" for i in range(12))] * 2000
    vocabulary = build_tokenizer(texts, kind="word", vocab_size=92, max_context=64).get_vocab()
    assert len(vocabulary) == 92
    assert {*SPECIAL, *ROLES} < set(vocabulary)


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_a_conversation_is_written_in_known_tokens(kind: Kind) -> None:
    words = tokenizer(kind)
    text = words.apply_chat_template(
        [{"role": role, "content": "take the chest"} for role in ROLES[:4]], tokenize=False, add_generation_prompt=True
    )
    ids = words.encode(text, add_special_tokens=False)
    assert words.unk_token_id not in ids
    assert ids.count(words.eos_token_id) == 4
    assert text.startswith("<|im_start|>system\ntake the chest<|im_end|>\n<|im_start|>user")
    assert text.endswith("<|im_start|>assistant\n")


def test_words_are_decoded_with_one_space_between_them() -> None:
    words = tokenizer("word")
    ids = words.encode("Open  the CHEST,\ntake it's brass-key.", add_special_tokens=False)
    assert words.decode(ids) == "open the chest , \n take it's brass-key ."


def test_a_word_never_read_is_spelled() -> None:
    words = tokenizer("word")
    ids = words.encode("take the Chest07, xy-2", add_special_tokens=False)
    pieces = ["take", "the", "chest", "##0", "##7", ",", "x", "##y", "##-", "##2"]
    assert words.convert_ids_to_tokens(ids) == pieces
    assert words.decode(ids) == "take the chest07 , xy-2"


def test_letters_nobody_knows_are_one_token() -> None:
    words = tokenizer("word")
    assert words.encode("take the žluť", add_special_tokens=False)[-1] == words.unk_token_id
    assert words.decode(words.encode("žluť"), skip_special_tokens=True) == ""


@pytest.mark.parametrize("text", ["Öffne\tdie Truhe ☃", "  two  spaces \n\n", "you're , not . here ?", "\x00\x1b[2J"])
def test_bytes_lose_nothing(text: str) -> None:
    words = tokenizer("bpe")
    assert words.decode(words.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_the_order_of_the_texts_does_not_matter(kind: Kind) -> None:
    there = build_tokenizer(TEXTS, kind=kind, vocab_size=400, max_context=64)
    back = build_tokenizer(reversed(TEXTS), kind=kind, vocab_size=400, max_context=64)
    assert there.get_vocab() == back.get_vocab()


def test_the_most_frequent_words_are_kept() -> None:
    vocabulary = build_tokenizer(
        ["often often often seldom", "often sometimes sometimes"], kind="word", vocab_size=91, max_context=64
    ).get_vocab()
    assert {word for word in vocabulary if len(word) > 3} == {*SPECIAL, *ROLES[:4], "often", "sometimes"}


# ---------------------------------------------------------------------------------------------------------- models


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    words = tokenizer("word")
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = model(words).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's random numbers are untouched"
    torch.manual_seed(2)
    again, other = model(words).state_dict(), model(words, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_shapes_are_as_asked() -> None:
    made = model(tokenizer("word"), kv_heads=2, ff=48, layers=3)
    layer = made.model.layers[0]
    assert len(made.model.layers) == 3
    assert tuple(layer.self_attn.k_proj.weight.shape) == (16, 32)
    assert tuple(layer.mlp.up_proj.weight.shape) == (48, 32)
    assert tuple(model(tokenizer("word")).model.layers[0].mlp.up_proj.weight.shape) == (96, 32)
    assert made.get_output_embeddings().weight is made.get_input_embeddings().weight
    assert not made.training


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_the_folder_is_an_ordinary_one(tmp_path: Path, kind: Kind) -> None:
    words = tokenizer(kind)
    made = model(words, kv_heads=2)
    save(made, words, tmp_path)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in tmp_path.iterdir()}
    read = AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    again = AutoModelForCausalLM.from_pretrained(str(tmp_path), local_files_only=True)
    assert type(again) is type(made)
    for text in (*TEXTS, "<|im_start|>user\nOpen it<|im_end|>\n"):
        assert read.encode(text) == words.encode(text)
    said = [{"role": "user", "content": "Open it"}]
    assert read.apply_chat_template(said, tokenize=False) == words.apply_chat_template(said, tokenize=False)
    assert read.eos_token == "<|im_end|>"
    assert read.model_max_length == 64
    ids = torch.tensor([words.encode("open the chest", add_special_tokens=False)])
    with torch.inference_mode():
        assert torch.equal(again(input_ids=ids).logits, made(input_ids=ids).logits)
        found = again.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=4)
    assert found.shape[1] <= ids.shape[1] + 4


def test_a_folder_from_which_another_tokenizer_would_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tokenizer("word")
    made = model(words)
    keep = type(words).save_pretrained

    def spoil(self: Any, folder: str) -> None:
        keep(self, folder)
        path = Path(folder) / "tokenizer.json"
        contents = json.loads(path.read_text())
        contents["pre_tokenizer"] = {"type": "Whitespace"}
        path.write_text(json.dumps(contents))

    monkeypatch.setattr(type(words), "save_pretrained", spoil)
    with pytest.raises(ConfigError, match="reads another tokenizer"):
        save(made, words, tmp_path)
