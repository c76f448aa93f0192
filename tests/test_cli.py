"""The command line as a person meets it: what it prints, where, and how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from agentgym import __version__, config
from agentgym.cli import main, play
from agentgym.cli.app import run
from agentgym.cli.options import parsed
from agentgym.cli.train import _told, continue_command, continued
from agentgym.errors import InfrastructureError, StoredRunError, UsageError
from agentgym.train.memory import shape_of

GAMES = "games={demo=4,train=2,valid=1,test=1}"
COMMAND = Path(sys.executable).with_name("agentgym")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of games for all tests here."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def here(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTGYM_CACHE", str(cache))
    monkeypatch.delenv("AGENTGYM_TRACEBACK", raising=False)
    return tmp_path


Fails = Callable[..., str]


@pytest.fixture
def fails(here: Path, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that is expected to end with a usage error, and return its message."""

    def runs(*words: str) -> str:
        assert main(words) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        return said.err

    return runs


def stored_run(folder: Path, *, seed: int = 0, steps: int = 2, finished: bool = False) -> Path:
    folder.mkdir(parents=True)
    made = config.load("quickstart", {"seed": seed, "train.steps": steps})
    (folder / "config.toml").write_text(config.dump(made))
    rate = {"success": 0.25, "low": 0.2, "high": 0.3, "episodes": 100}
    summary = {"schema": 1, "steps": steps, "wall_s": 200.4, "episodes": 192, "before": rate, "after": rate}
    if finished:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


# ------------------------------------------------------------------------------------------------------------- in all


def test_help_loads_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "textworld", "matplotlib", "pydantic", "rich"]
    code = (
        f"import sys; from agentgym.cli import main; main(['--help']); print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert "train" in done.stdout


def test_the_installed_command_tells_its_version() -> None:
    done = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"agentgym {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        *(
            [name, "--help"]
            for name in [
                "train",
                "eval",
                "list",
                "info",
                "play",
                "doctor",
                "curve",
                "score",
                "probe",
                "reward",
                "serve-policy",
            ]
        ),
    ],
)
def test_every_command_has_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert "Usage: " in capsys.readouterr().out


def test_an_unknown_command_or_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert main(["list", "--jsn"]) == 2
    assert "--jsn" in capsys.readouterr().err


def test_errors_end_with_the_code_of_whose_fault_they_are(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(error: Exception) -> Callable[[], None]:
        def raises() -> None:
            raise error

        return raises

    monkeypatch.setattr("agentgym.cli.describe.everything", fail(InfrastructureError("the engine is gone")))
    assert run(["list"]) == 3
    assert capsys.readouterr().err == "error: the engine is gone\n"
    monkeypatch.setattr("agentgym.cli.describe.everything", fail(UsageError("no such thing")))
    assert run(["list"]) == 2
    monkeypatch.setenv("AGENTGYM_TRACEBACK", "1")
    with pytest.raises(UsageError, match="no such thing"):
        run(["list"])


def test_a_reader_that_has_seen_enough_is_not_complained_about() -> None:
    done = subprocess.run(["bash", "-c", f"{COMMAND} list | head -1"], capture_output=True)
    assert done.stdout == b"environments\n"
    assert done.stderr == b""


# ------------------------------------------------------------------------------------------------------------ describe


def test_list_knows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = {kind: [entry["name"] for entry in entries] for kind, entries in found.items()}
    assert "textworld" in names["environments"]
    assert "quickstart" in names["presets"]
    assert {"outcome", "dense", "gated", "direct"} <= set(names["rewards"])
    assert {"turn_rtg_loo", "rloo", "grpo", "gae"} <= set(names["estimators"])
    assert all(entry["summary"] for entries in found.values() for entry in entries)
    assert main(["list"]) == 0
    assert "``" not in capsys.readouterr().out


def test_info_tells_options_tasks_and_signals(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "textworld", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    options = {option["name"]: option for option in found["options"]}
    assert options["max_turns"] == {
        "name": "max_turns",
        "type": "int",
        "default": 30,
        "doc": "Turns after which an episode is cut.",
    }
    assert options["challenge"]["type"] == "custom | coin_collector | treasure_hunter | simple | cooking"
    assert found["splits"].keys() == {"demo", "train", "valid", "test"}
    signals = {(signal["name"], signal["of"]): signal["doc"] for signal in found["signals"]}
    assert {("progress", "each turn"), ("grounded", "each turn"), ("won", "the whole episode")} <= signals.keys()
    assert signals["won", "the whole episode"]
    assert main(["info", "textworld"]) == 0
    assert "max_turns" in capsys.readouterr().out


def test_info_of_nothing_names_the_nearest(fails: Fails) -> None:
    assert "did you mean 'textworld'?" in fails("info", "textwrld")


# ---------------------------------------------------------------------------------------------------------------- play


def test_a_game_is_played_through_a_pipe_until_the_input_ends(here: Path) -> None:
    words = [COMMAND, "play", "textworld", "--split", "demo", "--option", GAMES]
    done = subprocess.run(words, input="look\n\nbite the wall", capture_output=True, text=True, check=True)
    assert done.stdout.startswith("textworld/custom-r2-o3-q3/demo/0 ")
    assert "> look\n" in done.stdout
    assert "left after 2 turns" in done.stdout
    assert "grounded       1.00 over 2 turns" in done.stdout
    assert done.stderr == ""


def test_a_game_that_is_won_ends_by_itself(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from agentgym import registry

    environment = registry.make("textworld", games={"demo": 1})
    task = environment.tasks("demo")[0]
    _, info = environment.reset(options={"task": task})
    commands = []
    while info["stop"] is None:
        commands.append(info["privileged"]["expert"])
        info = environment.step(commands[-1])[4]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(commands) + "\nlook\n"))
    assert main(["play", "textworld", "--task", task.id, "--option", "games={demo=1}"]) == 0
    shown = capsys.readouterr().out
    assert f"ended: done after {len(commands)} turns" in shown
    assert "won            1.00" in shown


@pytest.mark.parametrize("word", sorted(play.QUIT))
def test_a_word_leaves_the_game(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"look\n{word}\nlook\n"))
    assert main(["play", "textworld", "--option", GAMES]) == 0
    assert "left after 1 turn\n" in capsys.readouterr().out


def test_what_cannot_be_played_is_said(fails: Fails) -> None:
    assert "no task 'textworld/nowhere'" in fails("play", "textworld", "--task", "textworld/nowhere")
    assert "no split 'dmo'; did you mean 'demo'?" in fails("play", "textworld", "--split", "dmo")
    assert "did you mean 'rooms'?" in fails("play", "textworld", "--option", "romms=3")
    assert "--option rooms=value" in fails("play", "textworld", "--option", "rooms")


def test_options_are_toml_or_text() -> None:
    assert parsed(["a=1", "b=x y", "c=[1, 2]", "d=true", 'e="1"', "f="]) == {
        "a": 1,
        "b": "x y",
        "c": [1, 2],
        "d": True,
        "e": "1",
        "f": "",
    }


# ---------------------------------------------------------------------------------------------------------------- eval


def test_the_expert_wins_and_is_counted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--env", "textworld", "--policy", "expert", "--split", "demo", "--games", "3", "--option", GAMES]
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["success"] == 1
    assert (found["episodes"], found["lost"], found["stops"]) == (3, 0, {"done": 3})
    assert found["low"] < 0.5
    assert "evaluate on demo: 3" in said.err
    assert main([*words, "--quiet"]) == 0
    said = capsys.readouterr()
    assert "success   1.00 [0.44, 1.00]" in said.out
    assert said.err == ""


def test_what_cannot_be_evaluated_is_said(fails: Fails, here: Path) -> None:
    folder = str(stored_run(here / "run"))
    assert "--env textworld" in fails("eval", "--policy", "random")
    assert "--policy expert" in fails("eval", "--env", "textworld")
    assert "no policy 'xpert'; did you mean 'expert'?" in fails("eval", folder, "--policy", "xpert")
    assert "it has: no model" in fails("eval", folder)
    assert "no checkpoint 'warm'" in fails("eval", folder, "--checkpoint", "warm")
    assert "neither a run folder" in fails("eval", str(here), "--env", "textworld")
    assert "known: demo" in fails("eval", "--env", "textworld", "--policy", "random", "--split", "tset")


# ------------------------------------------------------------------------------------------------ train: what it says


def test_a_dry_run_prints_a_configuration_that_can_be_trained_from(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--seed", "7", "--env.options.rooms", "3", "--train.lr=2e-4", "--deterministic"]
    assert main(["train", "quickstart", "--dry-run", *words]) == 0
    shown = capsys.readouterr().out
    assert "runs/quickstart-7-001/" in shown
    assert "at most" in shown
    data = tomllib.loads(shown)
    assert (data["seed"], data["env"]["options"]["rooms"], data["train"]["lr"]) == (7, 3, 2e-4)
    (here / "mine.toml").write_text(shown)
    assert config.load(here / "mine.toml") == config.load("quickstart", words)
    assert sorted(path.name for path in here.iterdir()) == ["mine.toml"]
    assert main(["train", "mine.toml", "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert planned["run"] == "runs/mine-7-001"
    quick = config.load("quickstart").train
    assert planned["episodes_per_step"] == quick.groups * quick.group_size


def test_parameters_are_counted_as_the_model_has_them() -> None:
    factory = pytest.importorskip("agentgym.train.factory")
    made = config.load("quickstart", {"model.kv_heads": 2, "model.ff": 100, "model.width": 64, "model.vocab_size": 92})
    tokenizer = factory.build_tokenizer(["a b c"], kind="word", vocab_size=92, max_context=64)
    model = factory.build_model(
        tokenizer,
        layers=made.model.layers,
        width=64,
        heads=made.model.heads,
        kv_heads=2,
        ff=100,
        max_context=64,
        seed=0,
    )
    missing = (92 - len(tokenizer)) * 64
    assert shape_of(made).parameters == sum(parameter.numel() for parameter in model.parameters()) + missing


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a preset or a TOML file: agentgym train PRESET; presets: "),
        (["quikstart"], "no preset 'quikstart'; did you mean 'quickstart'? known: "),
        (["nowhere.toml"], "nowhere.toml: cannot be read: No such file or directory"),
        (["quickstart", "--train.lrr", "1"], "train.lrr: no such key; did you mean 'train.lr'?"),
        (["quickstart", "--train.lr", "fast"], "train.lr: found 'fast'; allowed: a finite number above 0"),
        (["quickstart", "--train.steps"], "train.steps: found nothing after --train.steps"),
        (["quickstart", "--dry-rn"], "no option '--dry-rn'; did you mean '--dry-run'?"),
        (["quickstart", "--seed", "-1", "--dry-run"], "seed: found -1; allowed: a whole number at least 0"),
        (["--train.lr", "1", "quickstart"], "name the preset first: agentgym train PRESET --train.lr 1 quickstart"),
        (["quickstart", "--env.options.romms", "3"], "did you mean 'rooms'?"),
        (["quickstart", "--env.id", "txtworld"], "no environment 'txtworld'; did you mean 'textworld'?"),
        (["quickstart", "--reward.recipe", "dnse"], "no reward recipe 'dnse'; did you mean 'dense'?"),
        (["quickstart", "--eval.split", "vald"], "no split 'vald'; did you mean 'valid'?"),
        (["quickstart", "--model.path", "nowhere"], "model.path: 'nowhere' is no model folder"),
        (["quickstart", "--resume"], "nothing to continue: no run of 'quickstart' in 'runs/' here"),
        (["--resume"], "name what to continue"),
        (["--resume", "--out", "nowhere"], "nothing to continue in 'nowhere': it holds no run"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_made(
    fails: Fails, here: Path, words: list[str], said: str
) -> None:
    message = fails("train", *words)
    assert said in message
    assert message.startswith("error: ")
    assert not list(here.iterdir())


def test_a_folder_in_use_is_left_alone(fails: Fails, here: Path) -> None:
    (here / "full").mkdir()
    (here / "full" / "thesis.txt").touch()
    assert "'full' is there and is not empty" in fails("train", "quickstart", "--out", "full")
    stored_run(here / "run")
    message = fails("train", "quickstart", "--out", "run")
    assert "continue it with: agentgym train quickstart --resume --out run" in message


# ------------------------------------------------------------------------------------------------- train: going on


def test_a_finished_run_tells_what_came_of_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored_run(here / "runs" / "quickstart-0-001", finished=True)
    assert main(["train", "quickstart", "--resume"]) == 0
    shown = capsys.readouterr().out
    assert "is finished" in shown
    assert "0.25 [0.20, 0.30] → 0.25 [0.20, 0.30]" in shown
    assert "3 min 20 s, 2 steps, 192 episodes" in shown
    assert main(["train", "--resume", "--out", "runs/quickstart-0-001", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2


def test_resume_takes_the_newest_run_of_the_preset_and_seed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = here / "runs"
    names = {"quickstart-0-001": 0, "quickstart-1-001": 1, "other-0-001": 0}
    folders = [stored_run(runs / name, seed=seed, finished=True) for name, seed in names.items()]
    for age, folder in zip((20, 10, 0), folders, strict=True):
        os.utime(folder / "config.toml", (1e9 - age, 1e9 - age))
    (runs / "quickstart-0-002").mkdir()  # nothing in it
    for words, expected in (([], "quickstart-1-001"), (["--seed", "0"], "quickstart-0-001")):
        assert main(["train", "quickstart", "--resume", *words]) == 0
        assert f"'runs/{expected}' is finished" in capsys.readouterr().out


def test_a_continued_run_keeps_its_configuration_but_for_more_steps(here: Path) -> None:
    folder = stored_run(here / "run")
    assert continued(folder, ["--train.steps", "9"]).train.steps == 9
    assert continued(folder, ["--train.steps", "2", "--seed=0"]).train.steps == 2
    for words, said in (
        (["--train.lr", "5"], r"train\.lr: .* was started with 0\.001, 5\.0 was asked for"),
        (["--env.options.rooms", "4"], r"env\.options\.rooms: .* was started with 3, 4 was asked for"),
        (["--train.steps", "1"], r"can be raised, not lowered"),
        (["--seed=4"], r"seed: .* was started with 0"),
    ):
        with pytest.raises(StoredRunError, match=said):
            continued(folder, words)


def test_the_way_to_continue_can_be_pasted() -> None:
    assert continue_command("quickstart", Path("runs/a b")) == "agentgym train quickstart --resume --out 'runs/a b'"
    assert continue_command(None, Path("r")) == "agentgym train --resume --out r"


def test_a_run_can_be_interrupted_before_it_has_begun(here: Path, cache: Path) -> None:
    """Ctrl-C while the parts are loaded or games are made ends it without a traceback."""
    words = [COMMAND, "train", "quickstart", "--env.options.games", "{demo=3,train=3,valid=3,test=3}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(2):
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said


def test_an_interrupt_that_a_library_swallows_is_not_lost() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), _told(), suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_curve_of_nothing_is_a_usage_error(fails: Fails) -> None:
    assert "config.toml" in fails("curve", "nowhere")
