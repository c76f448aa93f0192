from __future__ import annotations

import subprocess
import sys

import gymnasium
import pytest

from agentgym import registry
from agentgym.errors import MissingExtraError, UnknownNameError, UsageError
from agentgym.testing import EchoEnvironment


def test_unknown_names_are_named() -> None:
    with pytest.raises(UnknownNameError, match=r"no environment 'txtworld'; did you mean 'textworld'\?"):
        registry.make("txtworld")


def test_paths_are_names() -> None:
    assert isinstance(registry.make("agentgym.testing:EchoEnvironment", turns=2), EchoEnvironment)
    with pytest.raises(UnknownNameError, match=r"called 'turn'; did you mean 'turns'\? known: broken, turns"):
        registry.make("agentgym.testing:EchoEnvironment", turn=2)
    with pytest.raises(UsageError, match=r"no environment at 'agentgym\.testing:Ecko'"):
        registry.make("agentgym.testing:Ecko")
    with pytest.raises(UsageError, match="no environment at 'no_such_module:World'"):
        registry.make("no_such_module:World")
    with pytest.raises(UsageError, match="subclass of"):
        registry.make("json:JSONDecoder")


def test_every_name_resolves() -> None:
    pytest.importorskip("textworld")
    for name in [*registry.ENVIRONMENTS, *registry.GYMNASIUM_IDS]:
        assert registry.resolve(name)


def test_gymnasium_knows_the_ids() -> None:
    registry.register_all()
    registry.register_all()
    assert set(registry.GYMNASIUM_IDS) <= set(gymnasium.registry)


def test_gymnasium_makes_it(tmp_path: object) -> None:
    pytest.importorskip("textworld")
    registry.register_all()
    with gymnasium.make("agentgym/TextWorld-v0", games={"train": 3}, cache_dir=str(tmp_path)) as environment:
        assert environment.unwrapped.tasks("train")[2].id == "textworld/custom-r2-o3-q3/train/2"


def test_a_missing_extra_is_named() -> None:
    script = (
        "import sys\n"
        "sys.modules['textworld'] = sys.modules['jericho'] = None\n"
        "from agentgym import errors, registry\n"
        "try:\n"
        "    registry.make('textworld')\n"
        "except errors.MissingExtraError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'agentgym-suite[textworld]'" in done.stdout
    assert issubclass(MissingExtraError, ImportError)


def test_importing_loads_no_world() -> None:
    script = (
        "import sys, agentgym, agentgym.registry as registry\n"
        "registry.register_all()\n"
        "print([name for name in sys.modules if name.startswith(('textworld', 'jericho', 'torch', "
        "'agentgym.environments'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
