"""Whether a server serves what the trainer trains: asked once, before anything is sampled."""

from __future__ import annotations

from agentgym.errors import ConfigError, InfrastructureError, PolicyError
from agentgym.policy.endpoint import Endpoint
from agentgym.policy.server import check_version
from agentgym.render import Renderer
from agentgym.types import text_message

_HINT = "is it still starting? `agentgym serve-policy MODEL` says when it serves"
_PROBE = "Open the oak chest.\nIt holds 12 o'clock keys – naïve, isn't it?"


async def check_server(server: Endpoint, renderer: Renderer, *, max_context: int, deadline_s: float) -> str:
    """Return what the server calls its model.

    Raises:
        ConfigError: its vLLM is of another time, its tokenizer is another, or its context is too short.
        PolicyError: there is none, it has not started yet, or it is no vLLM server.
    """
    try:
        version = (await server.call("GET", "/version", deadline_s=deadline_s))["version"]
        (model, *_) = (await server.call("GET", "/v1/models", deadline_s=deadline_s))["data"]
        name, context = str(model["id"]), model.get("max_model_len")
    except InfrastructureError as error:
        raise PolicyError(f"no vLLM server answers at {server.url}: {error}; {_HINT}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PolicyError(f"what answers at {server.url} is no vLLM server that serves a model; {_HINT}") from error
    check_version(version, f"the server at {server.url}")
    _check_context(server, context, max_context)
    await _check_tokenizer(server, name, renderer, deadline_s)
    return name


def _check_context(server: Endpoint, served: int | None, wanted: int) -> None:
    if served is not None and served < wanted:
        raise ConfigError(
            f"the server at {server.url} has a context of {served} tokens, the trainer one of {wanted}: start it with "
            f"--max-model-len {wanted}, or set model.max_context to {served}"
        )


async def _check_tokenizer(server: Endpoint, model: str, renderer: Renderer, deadline_s: float) -> None:
    """Compare what both make of a conversation's text, special tokens included."""
    ids = renderer.start([text_message("user", _PROBE)])
    text = renderer.tokenizer.decode(ids, skip_special_tokens=False)
    ours = renderer.tokenizer.encode(str(text), add_special_tokens=False)
    body = {"model": model, "prompt": str(text), "add_special_tokens": False}
    answer = await server.call("POST", "/tokenize", body, deadline_s=deadline_s)
    if answer["tokens"] != ours:
        raise ConfigError(
            f"the server at {server.url} has another tokenizer than the trainer: of {str(text)[:40]!r} it makes "
            f"{answer['tokens'][:8]}, not {ours[:8]}; start it from the trainer's model folder"
        )


__all__ = ["check_server"]
