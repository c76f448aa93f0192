from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from agentgym.train.batch import Row
from agentgym.train.factory import build_tokenizer
from agentgym.train.spelling import spelled, spellings

TEXTS = ["take thing4 " * 9 + "take thing46 " * 3 + "box7"]


@pytest.fixture(scope="module")
def words() -> Any:
    return build_tokenizer(TEXTS, kind="word", vocab_size=400, max_context=64)


def row(words: Any, text: str) -> Row:
    ids = np.asarray(words(text)["input_ids"], np.int32)
    n = len(ids)
    ordered = np.arange(n)
    return Row(
        ids_N=ids,
        mask_N=ordered > 0,
        logprobs_N=ordered.astype(np.float32),
        versions_N=ordered.astype(np.int32),
        advantage_N=ordered.astype(np.float32),
        turn_N=ordered.astype(np.int32),
        return_N=ordered.astype(np.float32),
        rollout_id="r",
    )


def test_a_word_is_spelled_as_if_it_were_not_known(words: Any) -> None:
    token = words.convert_ids_to_tokens
    found = {token(own): token(ids) for own, ids in spellings(words).items()}
    assert found["thing46"] == ["thing4", "##6"]
    assert found["box7"] == ["b", "##o", "##x", "##7"]
    assert list(found)[-1] == "box7", "the rarest is last"
    assert not {"<|im_end|>", "##6", "b", "\n"} & set(found)
    ignorant = build_tokenizer([TEXTS[0].replace("thing46", "")], kind="word", vocab_size=400, max_context=64)
    assert ignorant.tokenize("thing46") == found["thing46"]


def test_byte_pairs_have_no_words_to_spell() -> None:
    assert not spellings(build_tokenizer(TEXTS, kind="bpe", vocab_size=400, max_context=64))


def test_a_spelled_word_is_spelled_throughout_and_says_the_same(words: Any) -> None:
    plain = row(words, "take thing46 box7 thing46")
    all_of_them = {own: ids for own, ids in spellings(words).items() if own == plain.ids_N[1]}
    changed = spelled(plain, all_of_them, 1.0, np.random.default_rng(0))
    assert words.convert_ids_to_tokens(changed.ids_N) == ["take", "thing4", "##6", "box7", "thing4", "##6"]
    for name in ("logprobs_N", "versions_N", "advantage_N", "turn_N", "return_N"):
        assert getattr(changed, name).tolist() == [0, 1, 1, 2, 3, 3], name
    assert changed.mask_N.tolist() == [False, True, True, True, True, True]
    assert changed.ids_N.dtype == plain.ids_N.dtype


def test_the_rarer_the_likelier(words: Any) -> None:
    found = spellings(words)
    plain, random = row(words, "take box7"), np.random.default_rng(0)
    take, box = plain.ids_N.tolist()
    times = 2000
    seen = [spelled(plain, found, 0.5, random).ids_N for _ in range(times)]
    share = {own: sum(own not in ids for ids in seen) / times for own in (take, box)}
    expected = {own: 0.5 * (list(found).index(own) + 1) / len(found) for own in (take, box)}
    for own in (take, box):
        assert share[own] == pytest.approx(expected[own], abs=0.04)
    assert share[take] < share[box]


def test_where_no_word_is_chosen_the_row_is_left_alone(words: Any) -> None:
    plain = row(words, "take box7")
    assert spelled(plain, spellings(words), 0.0, np.random.default_rng(0)) is plain
    assert spelled(plain, {}, 1.0, np.random.default_rng(0)) is plain
