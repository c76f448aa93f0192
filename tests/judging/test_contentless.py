"""Answers without content, and answers that only look so."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.judging.contentless import contentless

PROMPT = "Say which of these two rivers is the longer one, the Nile or the Amazon, and by how much."
MASTER_KEYS = {
    " ": "empty",
    ".": "punctuation only",
    ",": "punctuation only",
    ":": "punctuation only",
    "Thought process:": "opener only",
    "Let's solve this problem step by step.": "opener only",
    "Solution": "opener only",
    "解": "opener only",
    "かいせつ": "opener only",
    "Respuesta": "opener only",
}
"""The ten of arXiv 2507.08794."""


@pytest.mark.parametrize("key", MASTER_KEYS)
def test_the_published_master_keys(key: str):
    assert contentless(key) == MASTER_KEYS[key]


@pytest.mark.parametrize(
    "text", ["", "\n\t ", "\u200b\u2060\ufeff", "\u3000", "\u2800", "\u3164", "\x00\x1b", "\u0301"]
)
def test_empty(text: str):
    assert contentless(text) == "empty"


@pytest.mark.parametrize(
    "text", ["…", "。", "、", "¿?", "؟", "।", "۔", "«»", "---\n***", "```\n```", "───", "$", "+", "👍", "{}"]
)
def test_punctuation_of_any_script(text: str):
    assert contentless(text) == "punctuation only"


@pytest.mark.parametrize(
    "text",
    [
        "thought   PROCESS", "Let’s solve this problem step by step", "**Solution:**", "# Answer\n",
        "<answer></answer>", r"\boxed{}", "Thought process:\nSolution:\nStep 1:", "解。", "解：", "解答", "答案：",
        "让我们一步一步思考。", "解説", "풀이:", "Solución:", "La respuesta es", "Réponse :", "Lösung", "Resposta:",
        "Soluzione:", "Решение:", "الإجابة:", "उत्तर:", "Çözüm:", "Ｓｏｌｕｔｉｏｎ",
        "Solution\u200b:", "The final answer is:",
    ],
)  # fmt: skip
def test_openers_in_many_languages_and_clothes(text: str):
    assert contentless(text) == "opener only"


@pytest.mark.parametrize(
    "text",
    [
        "7", "x", "no", "∞", "∅", "٣", "七", "Ⅷ", "½", "Solution: 7", "Respuesta: no", "Solutions exist.", "答案是七",
        "step 2 is wrong", "The answer is B", "go north", "Let's begin with x = 2.", "か", "해설서를 읽는다",
    ],
)  # fmt: skip
def test_whatever_might_be_an_answer_goes_to_the_judge(text: str):
    assert contentless(text, PROMPT) == ""


@pytest.mark.parametrize(
    "text",
    [
        PROMPT,
        f"  {PROMPT.replace(' ', chr(10))} ",
        f'"{PROMPT}"',
        f"Solution: {PROMPT}",
        f"{PROMPT} {PROMPT}\n{PROMPT}",
        PROMPT[: int(0.85 * len(PROMPT))],
        PROMPT[10:],
    ],
)
def test_copied_prompt(text: str):
    assert contentless(text, PROMPT) == "copied prompt"
    assert contentless(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "the Amazon",
        "the Nile or the Amazon",
        f"{PROMPT} The Nile.",
        PROMPT.replace("Nile or the ", ""),  # a correction of the prompt, as a task may ask for
        PROMPT.replace(".", "!").replace("two", "2"),
        PROMPT[: int(0.7 * len(PROMPT))],
    ],
)
def test_an_answer_may_use_the_words_of_its_prompt(text: str):
    assert contentless(text, PROMPT) == ""


def test_a_short_prompt_is_copied_only_as_a_whole():
    assert contentless("north or south", "north or south?") == ""
    assert contentless("north or south?", "north or south?") == "copied prompt"


@given(st.text(alphabet=st.characters(categories=["P", "Z", "Cc", "Cf"])))
def test_law_no_punctuation_of_any_script_has_content(text: str):
    assert contentless(text) in ("empty", "punctuation only")


@given(st.text(), st.integers(0, 10**9))
def test_law_a_number_has_content(text: str, number: int):
    assert contentless(f"{text} {number}") == "" or "step" in text.casefold()


def test_long_texts_take_time_that_grows_with_their_length():
    """Texts made of openers are the worst case: 2^n ways to split them, n² to try again from each start."""

    def seconds(n: int) -> float:
        began = time.process_time()
        assert contentless("解答" * n + "x") == ""
        assert contentless("answer the answer is " * n) == "opener only"
        return time.process_time() - began

    assert seconds(4_000) < 12 * min(seconds(1_000) for _ in range(3)) + 0.1
