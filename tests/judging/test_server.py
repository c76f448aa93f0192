"""The judge server itself: its faults come as often as told and in the same places, and it serves from a command."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentgym.errors import ConfigError
from agentgym.judge import Question
from agentgym.judging.openai import OpenAIJudge
from agentgym.judging.server import Fault, Faults, contrary

RULE = "def rule(question):\n    return {'reason': 'so', 'ok': 'yes' in question.material['answer']}\n"
SCHEMA = {"type": "object", "properties": {"reason": {"type": "string"}, "ok": {"type": "boolean"}}}


def test_faults_come_at_their_rates():
    faults = Faults({Fault.DROP: 0.2, Fault.LIE: 0.1})
    drawn = [faults.draw(str(n), 0) for n in range(4000)]
    assert drawn.count(Fault.DROP) / 4000 == pytest.approx(0.2, abs=0.02)
    assert drawn.count(Fault.LIE) / 4000 == pytest.approx(0.1, abs=0.015)
    assert Faults().draw("x", 0) is None
    assert Faults({Fault.DROP: 1.0}).draw("x", 0) is Fault.DROP


def test_faults_depend_on_seed_question_and_repetition_alone():
    def drawn(seed: int, asked: str) -> list[Fault | None]:
        return [Faults({Fault.DROP: 0.5}, seed).draw(asked, nth) for nth in range(30)]

    assert drawn(0, "a") == drawn(0, "a")
    assert len({tuple(drawn(seed, asked)) for seed in (0, 1) for asked in "ab"}) == 4


@pytest.mark.parametrize("rates", [{Fault.DROP: -0.1}, {Fault.DROP: 0.6, Fault.LIE: 0.6}])
def test_rates_that_cannot_be_meant(rates: dict[Fault, float]):
    with pytest.raises(ConfigError, match="rates of faults"):
        Faults(rates)


def test_a_lie_says_the_contrary():
    schema = {
        "properties": {
            "ok": {"type": "boolean"},
            "score": {"minimum": 0, "maximum": 10},
            "winner": {"enum": ["A", "B"]},
            "all": {"items": {"type": "boolean"}},
        }
    }
    verdict: dict[str, Any] = {"reason": "r", "ok": True, "score": 7, "winner": "B", "all": [True, False]}
    assert contrary(verdict, schema) == {"reason": "r", "ok": False, "score": 0, "winner": "A", "all": [False, True]}
    assert contrary(contrary(verdict, schema), schema) == {**verdict, "score": 10}


def test_it_serves_from_the_command_line(tmp_path: Path):
    (tmp_path / "rules.py").write_text(RULE)
    command = [sys.executable, "-m", "agentgym.judging.server", "rules:rule", "--port", "0", "--fault", "lie=1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().removeprefix("judging at ").strip()

            async def asked() -> Any:
                async with OpenAIJudge(url, "fake") as judge:
                    return await judge.ask(Question("Is it?", {"answer": "yes"}, SCHEMA))

            assert asyncio.run(asked()).value == {"reason": "so", "ok": False}
        finally:
            server.terminate()


def test_a_fault_it_does_not_know_is_refused(tmp_path: Path):
    (tmp_path / "rules.py").write_text(RULE)
    command = [sys.executable, "-m", "agentgym.judging.server", "rules:rule", "--fault", "fire=1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'fire' is not a valid Fault" in done.stderr


def test_light_parts_need_no_extra():
    code = (
        "import sys; sys.modules['aiohttp'] = sys.modules['jsonschema'] = None\n"
        "import agentgym.judging.contentless, agentgym.judging.verdict\n"
        "from agentgym.errors import MissingExtraError\n"
        "for name in ('openai', 'server', 'gullible'):\n"
        "    try: __import__(f'agentgym.judging.{name}')\n"
        "    except MissingExtraError as error: assert 'agentgym-suite[judge]' in str(error)\n"
        "    else: raise AssertionError(name)\n"
        "try: agentgym.judging.verdict.VerdictSchema({})\n"
        "except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs 'jsonschema'" in done.stdout
