"""Small language models from scratch, written as ordinary model folders.

The folder (config, safetensors weights, tokenizer, chat template) is what any other engine serves, and what
`agentgym.policy.embedded.load` reads back.
"""

from __future__ import annotations

import os
import shutil
import string
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from agentgym.errors import ConfigError

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unk|>")
_ROLES = ("system", "user", "assistant", "tool", "\n")
_LETTERS = (*string.ascii_lowercase, *string.digits, "'", "’", "-", "_")
_SPELLING = (*_LETTERS, *(f"##{letter}" for letter in _LETTERS))


def build_tokenizer(
    texts: Iterable[str], *, kind: Literal["word", "bpe"], vocab_size: int, max_context: int
) -> PreTrainedTokenizerFast:
    """Return a ChatML tokenizer trained on ``texts``.

    ``word``: lower-cased words, punctuation marks and line breaks, one token each, the most frequent that fit into
    ``vocab_size``. A rarer word is spelled: the longest known beginning, then its letters and digits one by one
    (``thing4 ##0``), so that a name nobody has read before can still be read and said. Decoding puts one space between
    words. ``bpe``: byte-level pairs, which lose nothing.

    Raises:
        ConfigError: ``vocab_size`` is too small to hold the tokens every conversation needs.
    """
    always = len({*SPECIAL, *_ROLES, *_SPELLING}) if kind == "word" else len(SPECIAL) + len(_ROLES) + 256
    if vocab_size < always + (kind == "word"):
        least = always + (kind == "word")
        raise ConfigError(f"model.vocab_size is {vocab_size}; a {kind} vocabulary needs at least {least}")
    raw = _words(texts, vocab_size) if kind == "word" else _byte_pairs(texts, vocab_size)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        chat_template=CHATML,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|unk|>" if kind == "word" else None,
        model_max_length=max_context,
        clean_up_tokenization_spaces=False,
    )


def _words(texts: Iterable[str], vocab_size: int) -> FastTokenizer:
    lower = normalizers.Lowercase()
    apart = pre_tokenizers.Split(Regex(r"\n|\w[\w'’-]*|[^\s\w]"), "removed", invert=True)
    count = Counter(word for text in texts for word, _ in apart.pre_tokenize_str(lower.normalize_str(text)))
    known = list(dict.fromkeys([*SPECIAL, *_ROLES, *_SPELLING]))
    frequent = sorted(count.keys() - set(known), key=lambda word: (-count[word], word))
    vocabulary = {token: number for number, token in enumerate([*known, *frequent][:vocab_size])}
    raw = FastTokenizer(models.WordPiece(vocabulary, unk_token="<|unk|>"))
    raw.normalizer, raw.pre_tokenizer = lower, apart
    raw.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    raw.add_special_tokens(list(SPECIAL))
    return raw


def _byte_pairs(texts: Iterable[str], vocab_size: int) -> FastTokenizer:
    raw = FastTokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator([*sorted(texts), *(role for role in _ROLES for _ in range(1000))], trainer)
    return raw


def build_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    layers: int,
    width: int,
    heads: int,
    kv_heads: int | None = None,
    ff: int | None = None,
    max_context: int,
    seed: int,
) -> Qwen3ForCausalLM:
    """Return a Qwen3-shaped model with random weights, tied embeddings, and the tokenizer's vocabulary.

    Weights are normal with variance 1/width, those that write to the residual stream smaller by the root of how many
    do (GPT-2's rule). With the usual fixed 0.02 a narrow model's first layer drowns out which token it reads.

    Args:
        width: hidden size; ``ff`` (default 3 x width) that of the feed-forward layers.
        heads: attention heads; ``kv_heads`` (default as many) those of keys and values.
        seed: of the initial weights.
    """
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=ff or 3 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads or heads,
        head_dim=width // heads,
        max_position_embeddings=max_context,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 2:
                    writers = 2 * layers if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
                    weight.normal_(0.0, (width * writers) ** -0.5)
        return model


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write an ordinary model folder, which a kill leaves as it was before, complete, or absent.

    Raises:
        ConfigError: transformers would read another tokenizer from it than the one written. (It replaces the
            tokenizer of some model types, Qwen2 among them, by the one such models usually have.)
    """
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    model.save_pretrained(str(beside))
    tokenizer.save_pretrained(str(beside))
    read = AutoTokenizer.from_pretrained(str(beside), local_files_only=True)
    probe = "Open the oak chest.\nIt holds 12 o'clock keys|<|im_end|>"
    if read.encode(probe) != tokenizer.encode(probe):
        shutil.rmtree(beside)
        raise ConfigError(f"transformers reads another tokenizer from '{folder}' than was written there")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(beside, folder)


__all__ = ["CHATML", "build_model", "build_tokenizer", "save"]
