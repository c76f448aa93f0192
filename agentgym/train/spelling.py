"""Subword regularisation: a first reading in which words that are known are now and then spelled all the same.

A word tokenizer (`agentgym.train.factory`) has one token for a word it knows and spells one it does not. Read as they
come, spelled words are so rare that a model hardly learns to copy them, and fails wherever a name is new. So each row
has words of its own that it spells from beginning to end, the rarer the likelier, as in BPE-dropout (Provilkov et al.,
arXiv 1910.13267), which drops merges rather than words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from agentgym.train.batch import Row
from agentgym.types import TokenIds

PIECE = "##"
"""How a token begins that goes on with the word before it."""


def spellings(tokenizer: Any) -> dict[int, TokenIds]:
    """Return, for each whole word of a word tokenizer, the ids it would have were it not known; rarest last.

    Words that cannot be spelled are left out, and so is everything where there are no words (byte-level pairs).
    """
    number: Mapping[str, int] = tokenizer.get_vocab()
    found = {}
    for word, own in sorted(number.items(), key=lambda entry: entry[1]):
        if own in tokenizer.all_special_ids or word.startswith(PIECE):
            continue
        beginnings = (cut for cut in range(len(word) - 1, 0, -1) if word[:cut] in number)
        cut = next(beginnings, len(word))
        pieces = [word[:cut], *(PIECE + letter for letter in word[cut:])]
        if len(pieces) > 1 and all(piece in number for piece in pieces):
            found[own] = np.asarray([number[piece] for piece in pieces], np.int32)
    return found


def spelled(row: Row, spelling: Mapping[int, TokenIds], share: float, random: np.random.Generator) -> Row:
    """Return ``row`` with some of its words spelled wherever they stand.

    Args:
        spelling: what `spellings` returned.
        share: how likely the rarest word is to be spelled; the n-th of N, n/N times as likely.
    """
    likely = dict(zip(spelling, share * np.arange(1, len(spelling) + 1) / max(1, len(spelling)), strict=True))
    present = [int(own) for own in np.unique(row.ids_N) if int(own) in likely]
    chosen = {own for own, dice in zip(present, random.random(len(present)), strict=True) if dice < likely[own]}
    if not chosen:
        return row
    pieces = [spelling[own] if own in chosen else [own] for own in row.ids_N.tolist()]
    times = [len(piece) for piece in pieces]
    return replace(
        row,
        ids_N=np.concatenate(pieces).astype(row.ids_N.dtype),
        mask_N=np.repeat(row.mask_N, times),
        logprobs_N=np.repeat(row.logprobs_N, times),
        versions_N=np.repeat(row.versions_N, times),
        advantage_N=np.repeat(row.advantage_N, times),
        turn_N=np.repeat(row.turn_N, times),
        return_N=np.repeat(row.return_N, times),
    )


__all__ = ["PIECE", "spelled", "spellings"]
