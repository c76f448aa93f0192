from __future__ import annotations

import pickle
import re

import pytest

from agentgym import errors
from agentgym.errors import AgentgymError, InfrastructureError, UsageError, missing_extra, unknown_name

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, AgentgymError)]


def drawn() -> dict[str, int]:
    """Return the classes of the tree in the module's docstring with their depths."""
    lines = re.findall(r"^ {4}([│├└─ ]*)(\w+)", errors.__doc__ or "", flags=re.MULTILINE)
    return {name: len(indent) // 4 for indent, name in lines}


@pytest.mark.parametrize("kind", CLASSES)
def test_tree_is_drawn_as_it_is(kind: type[AgentgymError]) -> None:
    depth = sum(issubclass(parent, AgentgymError) for parent in kind.__mro__) - 1
    assert drawn()[kind.__name__] == depth


def test_nothing_is_drawn_that_is_not_there() -> None:
    assert set(drawn()) == {kind.__name__ for kind in CLASSES}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_someones_and_survives_a_process_boundary(kind: type[AgentgymError]) -> None:
    assert kind is AgentgymError or issubclass(kind, UsageError) != issubclass(kind, InfrastructureError)
    again = pickle.loads(pickle.dumps(kind("what and why")))
    assert type(again) is kind
    assert str(again) == "what and why"


@pytest.mark.parametrize(
    ("kind", "standard"),
    [
        (errors.UnknownNameError, LookupError),
        (errors.MissingExtraError, ImportError),
        (errors.DeadlineError, TimeoutError),
    ],
)
def test_callers_may_expect_the_standard_class(kind: type[AgentgymError], standard: type[Exception]) -> None:
    assert issubclass(kind, standard)


def test_unknown_name_says_what_is_known() -> None:
    assert str(unknown_name("split", "trian", ["valid", "train"])) == (
        "no split 'trian'; did you mean 'train'? known: train, valid"
    )
    assert str(unknown_name("split", "x", [])) == "no split 'x'; known: none"


def test_missing_extra_says_how_to_get_it() -> None:
    assert str(missing_extra("train", "torch", "training")) == (
        "training needs 'torch'; install it with: pip install 'agentgym-suite[train]'"
    )
