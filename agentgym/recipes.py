"""Finding a reward by name: what a configuration says, turned into a `Shaper`."""

from __future__ import annotations

import difflib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any

from agentgym.errors import ConfigError, UnknownNameError, unknown_name
from agentgym.reward import Shaper, finite

RECIPES = "agentgym.reward_shapers.recipes"
"""The module whose ``__all__`` are the short names."""


def resolve(name: str, params: Mapping[str, Any] | None = None) -> Shaper:
    """Return the reward called ``name``: a recipe such as ``dense``, or ``module:attribute`` of your own.

    The attribute is a `Shaper`, or a function that takes ``params`` and returns one.

    Raises:
        UnknownNameError: no such recipe, module or attribute.
        ConfigError: a parameter is unknown, missing, of another type or not finite.
    """
    params = params or {}
    if ":" in name:
        try:
            found = pkgutil.resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise UnknownNameError(f"no reward '{name}': {error}") from error
    else:
        recipes = pkgutil.resolve_name(RECIPES)
        if name not in recipes.__all__:
            raise unknown_name("reward recipe", name, recipes.__all__)
        found = getattr(recipes, name)
    if isinstance(found, Shaper):
        if params:
            raise ConfigError(f"reward '{name}' is not a function and takes no parameters; got: {', '.join(params)}")
        return found
    if not callable(found):
        raise ConfigError(f"reward '{name}' is a {type(found).__name__}, not a Shaper or a function returning one")
    check_params(f"reward '{name}'", found, params)
    shaper = found(**params)
    if not isinstance(shaper, Shaper):
        raise ConfigError(f"reward '{name}' returned a {type(shaper).__name__}, not a Shaper")
    return shaper


def check_params(what: str, found: Callable[..., Any], params: Mapping[str, Any]) -> None:
    """Check that ``found`` can be called with ``params``; ``what`` names it: ``reward 'dense'``.

    Raises:
        ConfigError: a parameter, or something in a list or table that it is, is of another type or not finite; or a
            parameter is unknown or missing.
    """
    known, types = inspect.signature(found).parameters, parameters(found)
    for key, value in params.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f" did you mean '{near[0]}'?" if near else ""
            raise ConfigError(f"{what} has no parameter '{key}';{hint} known: {', '.join(known) or 'none'}")
        _check(f"parameter '{key}' of {what}", types.get(key), value)
    missing = [key for key, parameter in known.items() if parameter.default is parameter.empty and key not in params]
    if missing:
        raise ConfigError(f"{what} needs the parameters: {', '.join(missing)}")


def _check(what: str, asked: Any, value: Any) -> None:
    """Check ``value`` against the type ``asked``, as far as that is a plain type or a list or table of such."""
    kinds = [kind for kind in typing.get_args(asked) if kind is not NoneType]
    if typing.get_origin(asked) in (typing.Union, UnionType):
        if value is not None:
            _check(what, kinds[0] if len(kinds) == 1 else None, value)
        return
    origin, inner = typing.get_origin(asked), kinds[-1] if kinds else None
    if asked in (bool, int, float, str):
        accepted = (float, int) if asked is float else asked
        if not isinstance(value, accepted) or (isinstance(value, bool) and asked is not bool):
            raise ConfigError(f"{what} is {value!r}; it must be of type {asked.__name__}")
    elif origin in (Sequence, list) and not isinstance(value, (list, tuple)):
        raise ConfigError(f"{what} is {value!r}; it must be a list")
    elif origin in (Mapping, dict) and not isinstance(value, Mapping):
        raise ConfigError(f"{what} is {value!r}; it must be a table")
    if isinstance(value, float):
        finite(what, value)
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            _check(f"entry {number} of {what}", inner if origin in (Sequence, list) else None, part)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _check(f"'{key}' in {what}", inner if origin in (Mapping, dict) else None, part)


def parameters(found: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of those parameters of ``found``, a function or a class, that are annotated."""
    called: Any = found.__init__ if isinstance(found, type) else found  # type: ignore[misc]
    types = typing.get_type_hints(called)
    return {name: types[name] for name in inspect.signature(found).parameters if name in types}


__all__ = ["RECIPES", "check_params", "parameters", "resolve"]
