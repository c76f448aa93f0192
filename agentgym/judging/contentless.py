"""Answers without content, told by rule: they score 0 before any judge is asked.

A full stop, a colon or "Thought process:" is enough to make many a judge say yes ("master keys"; Zhao et al., *One
Token to Fool LLM-as-a-Judge*, arXiv 2507.08794). The rules err on the side of asking: whatever might be an answer, if
only a digit, goes to the judge.
"""

from __future__ import annotations

import re
import unicodedata

_MOST = 0.8
"Share of a prompt that, repeated in one piece and with nothing of one's own, counts as a copy of it."
_SHORT = 40
"Characters of a prompt of which an answer may well be most; of shorter ones only the whole is a copy."
_BLANK = "\u2800\u3164\uffa0\ufffd"  # letters and symbols that leave no mark

_OPENERS = """
    thought process|reasoning process|reasoning|thinking process|analysis|explanation|chain of thought|think|thinking
    solution|solutions|answer|answers|the answer|the answer is|the solution is|final answer|the final answer
    the final answer is|my answer|my answer is|here is the solution|here is the answer|here s the solution
    here s the answer|here is my answer|result|response|conclusion|boxed|output
    let s solve this problem step by step|let s solve this step by step|let s think step by step|let s think
    let s think about this|let s solve this problem|let s solve this|let s begin|let s start|let s break this down
    let us think step by step|let us solve this problem step by step|let us solve this problem|let us begin
    let me think|let me think step by step|let me think about this|let me solve this problem step by step
    let me solve this step by step|let me solve this|step by step|step by step solution|step \\d{1,2}|first step
    to solve this problem|to solve this|sure here is the solution|sure here is the answer|sure let s think step by step
    解|答|解答|答案|解析|分析|解法|思考过程|思考過程|解题过程|解題過程|推理过程|答案是|最终答案|让我们一步一步思考|让我们一步步思考
    让我们一步一步地解决这个问题|让我们一步一步解决这个问题|让我们一步步解决这个问题|让我们逐步思考|讓我們一步一步思考|首先
    かいせつ|解説|かいとう|回答|こたえ|答え|考え方|思考プロセス|ステップバイステップで考えましょう|一歩ずつ考えましょう
    풀이|해설|정답|답|해답|답변|풀이 과정|사고 과정|단계별로 생각해 봅시다|단계별로 풀어 봅시다
    respuesta|la respuesta es|respuesta final|solución|la solución es|explicación|proceso de pensamiento
    resolvamos este problema paso a paso|pensemos paso a paso|vamos a resolver este problema paso a paso|paso a paso
    réponse|la réponse est|réponse finale|explication|processus de réflexion|résolvons ce problème étape par étape
    réfléchissons étape par étape|étape par étape
    antwort|die antwort|die antwort ist|lösung|die lösung|die lösung ist|erklärung|gedankengang|lösungsweg
    lösen wir dieses problem schritt für schritt|denken wir schritt für schritt|schritt für schritt
    resposta|a resposta é|resposta final|solução|a solução é|explicação|vamos resolver este problema passo a passo
    vamos pensar passo a passo|risposta|la risposta è|soluzione|la soluzione è|spiegazione
    risolviamo questo problema passo dopo passo|ответ|решение|объяснение|ход мыслей
    давайте решим эту задачу шаг за шагом
    давайте подумаем шаг за шагом|الجواب|الإجابة|الحل|उत्तर|हल|समाधान|cevap|çözüm|đáp án|lời giải|trả lời|คำตอบ|วิธีทำ
"""
_OPENER = re.compile(
    "(?:{})(?: |$)?".format(
        "|".join(sorted(re.split(r"\||\n *", unicodedata.normalize("NFKC", _OPENERS).strip()), key=len, reverse=True))
    )
)


def contentless(text: str, prompt: str = "") -> str:
    """Return why ``text``, an answer to ``prompt``, says nothing; the empty string where it may say something.

    ==================== =============================================================================================
    empty                nothing that can be seen
    punctuation only     no letter, no digit, and no mathematical symbol outside ASCII (such as ∞), in any script
    opener only          an announcement of an answer, or several, in any of a dozen languages
    copied prompt        the prompt again: whole, four fifths of it in one piece, or several times; announced or not
    ==================== =============================================================================================

    >>> contentless("Let's solve this problem step by step."), contentless("**Respuesta:** 7")
    ('opener only', '')
    """
    return _empty(text) or ("copied prompt" if _copies(" ".join(text.split()), " ".join(prompt.split())) else "")


def _empty(text: str) -> str:
    """Return why ``text`` says nothing, whatever it answers."""
    if not any(map(_seen, text)):
        return "empty"
    if not any(map(_says, text)):
        return "punctuation only"
    return "opener only" if not _after_openers(text) else ""


def _copies(text: str, prompt: str) -> bool:
    """Return whether ``text`` says ``prompt`` and nothing else. Compared letter by letter: a correction is no copy."""
    if not prompt:
        return False
    if prompt in text:
        return bool(_empty(text.replace(prompt, " ")))
    return len(prompt) > _SHORT and len(text) >= _MOST * len(prompt) and text in prompt


def _seen(char: str) -> bool:
    """Return whether ``char`` leaves a mark: no space, control, format or unassigned character, no lone accent."""
    return unicodedata.category(char)[0] not in "ZCM" and char not in _BLANK


def _says(char: str) -> bool:
    """Return whether ``char`` can be part of an answer by itself."""
    category = unicodedata.category(char)
    return _seen(char) and (category[0] in "LN" or (category == "Sm" and ord(char) > 127))


def _after_openers(text: str) -> str:
    """Return the words that follow the openers which ``text`` begins with, in lower case."""
    text = unicodedata.normalize("NFKC", text).casefold()
    kept = (char if _says(char) or unicodedata.category(char)[0] == "M" else " " for char in text)
    words, end = " ".join("".join(kept).split()), 0
    while opener := _OPENER.match(words, end):
        end = opener.end()
    return words[end:]


__all__ = ["contentless"]
