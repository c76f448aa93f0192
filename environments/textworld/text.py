"""Turns what a text-game interpreter prints into short plain text, and what a policy says into one safe command."""

from __future__ import annotations

import re

_STATUS_LINE = re.compile(r">?\s*(?:-=[^\n]*=-)?\s*-?\d+/\d+\s*$|\s>\s*$")
_EPILOGUE = re.compile(r"(\*\*\* (?:The End|You lost!) \*\*\*).*", re.DOTALL)
_ROOM_TITLE = re.compile(r"-= (.+?) =-")
_SENTENCE_END = re.compile(r"[.,;:!?]+(?:\s|$)|\s+then\s+")
_OUT_OF_WORLD = re.compile(
    r"(?:tw-\S*|print_state|(?:enable|disable)\s+print\b.*|restrict\b.*|"
    r"q|quit|die|restart|restore|save|undo|oops|o|again|g|verify|version|script|noscript|unscript|transcript|record\w*|"
    r"replay|commands|notify|verbose|brief|superbrief|short|long|normal|pronouns|nouns|help|score|full|fullscore|places|"
    r"objects|y|yes|n?o)(?:\s.*)?",
    re.IGNORECASE,
)
_WELCOME = re.compile(r".*?[.!]\s+(?=(?:First\b|Your first objective\b))", re.DOTALL)
_FAREWELL = re.compile(
    r"\s*(?:Once that's all handled, you can stop!|And once you've done that, you win!|And if you do that, you're the "
    r"winner!|That's it!|Got that\? Good!|Alright, thanks!)\s*$"
)
_MAX_COMMAND = 120

REFUSED = "That's not something you can do in this world."


def clean(raw: str) -> str:
    """Return what the interpreter printed on one line: no status line, no prompt, no epilogue, no runs of spaces."""
    text = _EPILOGUE.sub(r"\1", raw)
    text = _STATUS_LINE.sub("", text)
    return " ".join(_ROOM_TITLE.sub(r"\1.", text).split())


def terse(objective: str) -> str:
    """Return the objective without TextWorld's words of welcome and farewell; every instruction stays."""
    return _FAREWELL.sub("", _WELCOME.sub("", objective, count=1))


def opening(raw: str, objective: str) -> str:
    """Return the first room as the interpreter describes it, without its banner and without the objective."""
    start = raw.find(objective) + len(objective) if objective and objective in raw else _after_banner(raw)
    return clean(raw[start:])


def _after_banner(raw: str) -> int:
    banner_end = raw.rfind("$$$$$")
    return 0 if banner_end < 0 else raw.find("\n", banner_end) + 1


def command(said: str) -> str:
    """Return the one command in what a policy said, safe to hand to a Z-machine; it may be empty.

    The first line's first sentence counts: interpreters take ``open box. take key`` for two turns. Backslashes,
    control and non-ASCII characters are taken out, because interpreters read them as instructions to themselves.
    """
    first_line = said.strip().partition("\n")[0]
    plain = "".join(char for char in first_line if " " <= char <= "~" and char != "\\")
    return " ".join(_SENTENCE_END.split(plain.strip(), maxsplit=1)[0].split())[:_MAX_COMMAND]


def out_of_world(command: str) -> bool:
    """Whether ``command`` speaks to the interpreter (undo, save, quit, tracing) and not to the world."""
    return _OUT_OF_WORLD.fullmatch(command) is not None
