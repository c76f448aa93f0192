"""Messages to token ids and back, through the model's own chat template.

What a policy sampled is never re-tokenised: a conversation is one growing token buffer, onto which only the
environment's new messages are rendered. `Renderer.check` proves at start-up, for the tokenizer and template in use,
that the buffer grown this way equals the whole conversation rendered at once. What a world says is text: where it
spells a special token, such as the one that ends a turn, a space breaks it up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from agentgym.errors import ConfigError
from agentgym.tools import parse_assistant, tool_calls_json
from agentgym.types import Finish, Message, TokenIds

History = Literal["auto", "tokens", "turns"]
_PROBE = "zzprobezz"
_TURNS = ((Message("system", "Play."), Message("user", "x")), (Message("user", "y"),), (Message("user", "z"),))
_ANSWERS = (Message("assistant", "go"), Message("assistant", "stay"))
"A conversation that shows whether a template leaves what was said as it was."


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that rendering needs."""

    eos_token: str | None
    eos_token_id: int | None
    added_tokens_decoder: dict[int, Any]

    def apply_chat_template(self, conversation: list[dict[str, Any]], **kwargs: Any) -> Any:
        """Return the conversation as one text."""

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]:
        """Return the token ids of a text."""

    def decode(self, token_ids: Any, *, skip_special_tokens: bool = ...) -> Any:
        """Return the text of token ids."""


class Renderer:
    """One tokenizer's way of writing conversations.

    Args:
        history: how what was said comes before the next answer. ``"tokens"``: as the token buffer, whatever the
            template would make of it now. ``"turns"``: rendered anew before each turn, as templates that rewrite it
            want. ``"auto"``: the first where both come to the same, else the second.

    Raises:
        ConfigError: the tokenizer has no end-of-sequence token or, for ``"tokens"``, no chat template that ends an
            assistant's turn with it, so that a sampled answer cannot be extended token by token.
    """

    def __init__(self, tokenizer: Tokenizer, *, history: History = "tokens") -> None:
        self.tokenizer = tokenizer
        self.rewrites = ""
        "Why history is rendered anew before each turn; empty where the token buffer grows."
        if tokenizer.eos_token is None or tokenizer.eos_token_id is None:
            raise ConfigError(
                "the tokenizer has no end-of-sequence token; set `eos_token` in its tokenizer_config.json"
            )
        self.eos_token: str = tokenizer.eos_token
        self.eos_id: int = tokenizer.eos_token_id
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special} | {self.eos_token}
        self._special = re.compile("|".join(re.escape(token) for token in sorted(special, key=len, reverse=True)))
        if history == "turns":
            self.rewrites = "policy.history is 'turns'"
            return
        try:
            self._check_end()
            if history == "auto":
                self.check(_TURNS, _ANSWERS)
        except ConfigError as error:
            if history == "tokens":
                raise
            self.rewrites = str(error)

    def start(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> TokenIds:
        """Return the ids (N,) of a conversation's opening, up to where the assistant begins to write."""
        return self._encode(self._template(messages, tools, answer_next=True))

    def bridge(self, finish: Finish, messages: Sequence[Message]) -> TokenIds:
        """Return the ids (N,) between a sampled answer and the next one: the rest of the turn, then ``messages``.

        An answer that ``finish``ed by ``"stop"`` ends with the end-of-sequence token already; a cut-off one gets it
        here, where it is part of the prompt and not of what the policy did.
        """
        text = self._after_answer(messages)
        return self._encode(text[len(self.eos_token) :] if finish == "stop" else text)

    def answer(self, message: Message) -> TokenIds:
        """Return the ids (N,) of an answer nobody sampled (a demonstration), its end-of-sequence token included."""
        return np.append(self._encode(_content(message)), np.int32(self.eos_id))

    def message(self, token_ids_N: TokenIds) -> Message:
        """Return the assistant message that the sampled ids spell, its tool calls parsed."""
        ids = token_ids_N[:-1] if len(token_ids_N) and token_ids_N[-1] == self.eos_id else token_ids_N
        return parse_assistant(str(self.tokenizer.decode(ids, skip_special_tokens=True)))

    def check(self, turns: Sequence[tuple[Message, ...]], answers: Sequence[Message]) -> None:
        """Prove that the buffer grown turn by turn equals the conversation rendered whole.

        ``turns`` are the observations and ``answers`` the assistant's messages between them, one fewer.

        Raises:
            ConfigError: they differ; names the first place.
        """
        grown = [self.start(turns[0])]
        for answer, observation in zip(answers, turns[1:], strict=True):
            grown += [self.answer(answer), self.bridge("stop", observation)]
        history: list[Message] = [*turns[0]]
        for answer, observation in zip(answers, turns[1:], strict=True):
            history += [answer, *observation]
        whole, buffer = self.start(history), np.concatenate(grown)
        if np.array_equal(whole, buffer):
            return
        n = min(len(whole), len(buffer))
        at = int(np.argmax(np.append(whole[:n] != buffer[:n], True)))
        raise ConfigError(
            "the chat template cannot be extended token by token: "
            f"rendered whole, a conversation differs from its token buffer at token {at} "
            f"({self.tokenizer.decode(whole[at : at + 8])!r} against {self.tokenizer.decode(buffer[at : at + 8])!r})"
        )

    def _check_end(self) -> None:
        if not self._after_answer(()).startswith(self.eos_token):
            raise ConfigError(
                "the chat template does not end an assistant's turn with the end-of-sequence token "
                f"{self.eos_token!r}; set `eos_token` to the token that ends a turn"
            )

    def _template(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]], *, answer_next: bool) -> str:
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [self._as_dict(message) for message in messages],
                    tools=list(tools) or None,
                    tokenize=False,
                    add_generation_prompt=answer_next,
                )
            )
        except Exception as error:  # the boundary: a template may raise anything
            raise ConfigError(f"the tokenizer cannot render a conversation: {error}") from error

    def _as_dict(self, message: Message) -> dict[str, Any]:
        content = message.content if message.role == "assistant" else self._special.sub(_apart, message.content)
        entry: dict[str, Any] = {"role": message.role, "content": content}
        if message.tool_calls:
            entry["tool_calls"] = [
                {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}
                for call in message.tool_calls
            ]
        if message.tool_call_id is not None:
            entry["tool_call_id"] = message.tool_call_id
        return entry

    def _after_answer(self, messages: Sequence[Message]) -> str:
        opening = [Message("user", "x"), Message("assistant", _PROBE)]
        text = self._template([*opening, *messages], (), answer_next=bool(messages))
        before, probe, after = text.partition(_PROBE)
        if not probe:
            raise ConfigError(
                "the chat template leaves out what the assistant said before, so a conversation cannot be extended "
                f"token by token; after one answer it writes {before[-80:]!r}"
            )
        return after

    def _encode(self, text: str) -> TokenIds:
        text = text.encode(errors="replace").decode()  # half a surrogate pair, which JSON can spell, is no text
        return np.asarray(self.tokenizer.encode(text, add_special_tokens=False), np.int32)


def set_variables(tokenizer: Any, variables: Mapping[str, Any]) -> None:
    """Fix ``variables`` of the tokenizer's chat template, wherever it is rendered, also by a server.

    Raises:
        ConfigError: the tokenizer has no chat template.
    """
    if not variables:
        return
    if not tokenizer.chat_template:
        raise ConfigError("model.template: the tokenizer has no chat template whose variables could be set")
    fixed = "".join(f"{{%- set {name} = {json.dumps(value)} %}}" for name, value in variables.items())
    tokenizer.chat_template = fixed + tokenizer.chat_template


def _content(message: Message) -> str:
    return message.content + tool_calls_json(message.tool_calls)


def _apart(special: re.Match[str]) -> str:
    """Return a special token's text with a space in it, so that no world can end a turn or begin another's."""
    return f"{special[0][0]} {special[0][1:]}"


__all__ = ["History", "Renderer", "Tokenizer", "set_variables"]
