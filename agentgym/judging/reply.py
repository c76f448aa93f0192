"""What an endpoint sent back, as far as a judge needs it, and what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from agentgym.judging.patience import retry_after_s

_AGAIN = frozenset({408, 409, 425, 429})
"""Statuses that may be other ones in a moment (RFC 9110, 6585, 8470), besides those of 500 and more."""


class CallFailed(Exception):
    """One call came to nothing.

    Args:
        cause: what happened.
        again: whether asking again may help.
        after_s: how long the endpoint asks to be left alone.
    """

    def __init__(self, cause: str, *, again: bool = True, after_s: float = 0.0) -> None:
        super().__init__(cause)
        self.again, self.after_s = again, after_s


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat completion."""

    content: str
    finish: str
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def text(self) -> str:
        """Return what was said.

        Raises:
            CallFailed: it was cut off or withheld.
        """
        if self.finish == "length":
            raise CallFailed(f"cut off at {self.completion_tokens} tokens; it says {self.content[:120]!r}")
        if self.finish == "content_filter":
            raise CallFailed("withheld by the endpoint's content filter", again=False)
        return self.content


def read_reply(status: int, body: bytes, retry_after: str | None) -> Reply:
    """Return the completion in an HTTP response.

    Raises:
        CallFailed: there is none.
    """
    if status != 200:
        said = body[:200].decode(errors="replace")
        raise CallFailed(
            f"HTTP {status}: {said!r}", again=status in _AGAIN or status >= 500, after_s=retry_after_s(retry_after)
        )
    try:
        payload = json.loads(body)
        choice = payload["choices"][0]
        usage = payload.get("usage") or {}
        return Reply(
            content=(choice["message"].get("content") or "").encode(errors="replace").decode(),
            finish=choice.get("finish_reason") or "",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CallFailed(f"no chat completion: {body[:200].decode(errors='replace')!r}") from error


__all__ = ["CallFailed", "Reply", "read_reply"]
