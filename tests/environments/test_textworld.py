"""TextWorld against the real engine; the contract in process and through a worker."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from agentgym.env import Environment
from agentgym.errors import ConfigError, TaskError, UnknownNameError, UsageError
from agentgym.recipes import resolve
from agentgym.registry import make
from agentgym.remote import WorkerPool
from agentgym.reward import signal as signal_reward
from agentgym.testing import EnvironmentContract
from agentgym.types import Signal, StopReason

textworld = pytest.importorskip("textworld")

from agentgym.environments.textworld import TextWorldEnvironment  # noqa: E402


@pytest.fixture
def world(small: dict[str, Any]) -> Iterator[TextWorldEnvironment]:
    environment = TextWorldEnvironment(**small)
    yield environment
    environment.close()


@pytest.fixture(scope="session")
def story(small: dict[str, Any]) -> Path:
    """A game file as TextWorld makes them, with its ``.json`` beside it."""
    environment = TextWorldEnvironment(**small)
    environment.reset(options={"task": environment.tasks("train")[0]})
    environment.close()
    return next(Path(small["cache_dir"]).rglob("game.z8"))


class TestInProcess(EnvironmentContract):
    can_branch = True

    @pytest.fixture(autouse=True)
    def _arguments(self, small: dict[str, Any]) -> None:
        self.arguments = small

    def make_environment(self) -> Environment:
        return make("textworld", **self.arguments)


@pytest.fixture(scope="module")
def pool(small: dict[str, Any]) -> Iterator[WorkerPool]:
    with WorkerPool("textworld", small, workers=1) as pool:
        yield pool


class TestThroughAWorker(EnvironmentContract):
    can_branch = True

    @pytest.fixture(autouse=True)
    def _pool(self, pool: WorkerPool) -> None:
        self.workers = pool

    def make_environment(self) -> Environment:
        return self.workers.environment()


def expert_episode(world: Environment, task: str) -> tuple[list[Signal], float, dict[str, Any]]:
    _, info = world.reset(options={"task": task})
    signals: list[Signal] = []
    total, done = 0.0, False
    while not done:
        _, reward, terminated, truncated, info = world.step(info["privileged"]["expert"])
        signals += info["signals"]
        total += reward
        done = terminated or truncated
    return signals, total, info


def named(signals: list[Signal], name: str) -> list[float | None]:
    return [signal.value for signal in signals if signal.name == name and signal.turn is not None]


def verdict(signals: list[Signal], name: str) -> Signal:
    return next(signal for signal in signals if signal.name == name and signal.turn is None)


def test_expert_wins_every_split(world: TextWorldEnvironment) -> None:
    for split in ("demo", "train", "valid", "test"):
        for task in world.tasks(split):
            signals, total, info = expert_episode(world, task.id)
            assert info["stop"] is StopReason.DONE
            assert total == 1.0
            assert verdict(signals, "won").value == 1.0
            assert verdict(signals, "score").value == 1.0
            assert verdict(signals, "excess_steps").value == 0.0
            assert sum(value or 0.0 for value in named(signals, "progress")) == pytest.approx(1.0)
            assert set(named(signals, "grounded")) == {1.0}


def test_splits_share_no_game_and_grow_without_moving(game_cache: Path, small: dict[str, Any]) -> None:
    from agentgym.environments.textworld.cache import SPLIT_SHARES, GameStore
    from agentgym.environments.textworld.games import GameSettings, content_hash
    from agentgym.environments.textworld.games import make as make_game

    settings = GameSettings("coin_collector", level=1)
    store = GameStore(settings, game_cache)
    chosen = {split: [store.candidate(split, index) for index in range(2)] for split in SPLIT_SHARES}
    games = [make_game(settings, candidate) for split in chosen for candidate in chosen[split]]
    assert len({content_hash(game) for game in games if game}) == len(games) == 8
    again = GameStore(settings, game_cache)
    assert [again.candidate("test", 0), again.candidate("train", 1)] == [chosen["test"][0], chosen["train"][1]]


def test_settings_that_run_out_of_games_say_so(game_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentgym.environments.textworld import cache, games

    monkeypatch.setattr(cache, "_PATIENCE", 5)
    monkeypatch.setattr(games, "content_hash", lambda game: "0" * 64)
    store = cache.GameStore(games.GameSettings(seed=99), game_cache)
    with pytest.raises(TaskError, match=r"only 1 different games for split 'demo'"):
        store.candidate("demo", 1)


def test_prepare_goes_on_after_an_interruption(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"games": {"train": 3}, "cache_dir": tmp_path}
    seen: list[tuple[int, int]] = []

    def interrupt(ready: int, wanted: int) -> None:
        seen.append((ready, wanted))
        if ready == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TextWorldEnvironment(**arguments).prepare("train", workers=1, progress=interrupt)
    (contents,) = tmp_path.rglob("contents.jsonl")
    contents.write_text(contents.read_text()[:-20])  # as if the power had failed in mid-line
    seen.clear()
    TextWorldEnvironment(**arguments).prepare("train", workers=2, progress=lambda *ready: seen.append(ready))
    assert seen[0][0] >= 1
    assert seen[-1] == (3, 3)
    assert not list(tmp_path.rglob(".making-*"))


def test_engine_agrees_with_textworld(story: Path) -> None:
    """Feedback, commands, plan and score are those of ``textworld.start``, on and off the winning path."""
    from agentgym.environments.textworld.engine import Engine
    from agentgym.environments.textworld.library import read_cartridge

    infos = textworld.EnvInfos(admissible_commands=True, policy_commands=True, won=True, lost=True, score=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = textworld.start(str(story), infos)
    ours = Engine(read_cartridge(story))
    for episode in range(4):
        state, scene = theirs.reset(), ours.reset()
        dice = random.Random(episode)
        for _ in range(40):
            assert scene.raw == state.feedback
            assert list(scene.admissible) == state.admissible_commands
            assert list(scene.plan or ()) == state.policy_commands
            command = dice.choice([*state.admissible_commands, *state.policy_commands[:1] * 3, "xyzzy", "go west"])
            (state, score, _), scene = theirs.step(command), ours.step(command)
            assert (scene.score, scene.won, scene.lost) == (score, state.won, state.lost)
            if state.won or state.lost:
                break
    theirs.close()
    ours.close()


def test_wandering_costs_progress_and_returning_gives_it_back(world: TextWorldEnvironment) -> None:
    for task in world.tasks("train"):
        _, info = world.reset(options={"task": task})
        away = [command for command in info["privileged"]["admissible"] if command.startswith("go ")]
        if not away or away[0] == info["privileged"]["expert"]:
            continue
        *_, info = world.step(away[0])
        assert next(signal for signal in info["signals"] if signal.name == "progress").value < 0
        *_, info = world.step(info["privileged"]["expert"])
        assert next(signal for signal in info["signals"] if signal.name == "progress").value > 0
        return
    pytest.skip("no game to wander in")


@pytest.mark.parametrize("said", ["", "xyzzy", "open the pod bay door", "undo", "restart", "quit", "tw-trace-actions"])
def test_what_is_not_understood_is_ungrounded_and_changes_nothing(world: TextWorldEnvironment, said: str) -> None:
    _, before = world.reset(options={"task": world.tasks("train")[0]})
    observation, reward, terminated, truncated, info = world.step(said)
    grounded = next(signal for signal in info["signals"] if signal.name == "grounded")
    assert (grounded.value, reward, terminated, truncated) == (0.0, 0.0, False, False)
    assert info["privileged"] == before["privileged"]
    assert observation[0].content


def test_one_command_a_turn(world: TextWorldEnvironment) -> None:
    _, info = world.reset(options={"task": world.tasks("train")[0]})
    expert = info["privileged"]["expert"]
    once = world.step(expert)
    world.reset(options={"task": world.tasks("train")[0]})
    assert world.step(f"  {expert}. look. go north then look\nI did it!") == once


JUNK = ("$$", "-=", "  ", "\n\n", "RESTART", "<score>", "[", "TextWorld! ")


def test_observations_are_clean(world: TextWorldEnvironment) -> None:
    for task in world.tasks("train"):
        first, info = world.reset(options={"task": task})
        texts = [first[0].content]
        for command in ("look", "inventory", "go nowhere", info["privileged"]["expert"]):
            observation, *_ = world.step(command)
            texts.append(observation[0].content)
        for text, junk in itertools.product(texts, JUNK):
            assert junk not in text
        assert "\nCommands: " in texts[0]
        assert "examine " not in texts[0].partition("Commands: ")[2]


def test_options_change_what_is_shown(small: dict[str, Any]) -> None:
    plain = TextWorldEnvironment(**small, show_admissible=False)
    full = TextWorldEnvironment(**small, hide=(), terse=False)
    task = plain.tasks("train")[0]
    assert "Commands:" not in plain.reset(options={"task": task})[0][0].content
    assert " look" in full.reset(options={"task": task})[0][0].content
    plain.close()
    full.close()


def test_the_plain_theme_and_the_reminder(small: dict[str, Any]) -> None:
    world = TextWorldEnvironment(**small, theme="basic", remind=True)
    assert "basic" in world.tasks("train")[0].id
    (first,), info = world.reset(options={"task": world.tasks("train")[0]})
    goal = next(line for line in first.content.splitlines() if line.startswith("Goal: "))
    assert first.content.count(goal.removeprefix("Goal: ")) == 1
    assert first.content.splitlines()[-1].startswith("Commands: ")
    (later,), *_ = world.step("look")
    assert goal in later.content.splitlines()
    while info["stop"] is None:
        (last,), *_, info = world.step(info["privileged"]["expert"])
    assert "Goal: " not in last.content, "what is over needs no reminder"


def test_the_plain_theme_has_few_names() -> None:
    from agentgym.environments.textworld.games import GameSettings
    from agentgym.environments.textworld.games import make as make_game

    few = re.compile(r"(?:room|box|stand|thing|snack|key|door)\d|[A-E]-(?:box|key|door)|P|")
    games = [make_game(GameSettings(rooms=3, theme="plain"), candidate) for candidate in range(20)]
    names = [info.name or "" for game in games if game for info in game.infos.values()]
    assert len(names) > 100
    assert [name for name in names if not few.fullmatch(name)] == []


def test_own_files(story: Path, tmp_path: Path) -> None:
    for suffix in (".z8", ".json"):
        shutil.copy(story.with_suffix(suffix), tmp_path / f"mine{suffix}")
    shutil.copy(story, tmp_path / "foreign.z8")
    shutil.copy(story.with_suffix(".json"), tmp_path / "logic.json")
    files = [tmp_path / "mine.z8", tmp_path / "foreign.z8", tmp_path / "logic.json"]
    world = TextWorldEnvironment(files=files, cache_dir=tmp_path / "cache")
    mine, foreign, compiled = (task.id for task in world.tasks("files"))
    assert mine == "textworld/files/mine"
    for task in (mine, compiled):
        assert verdict(expert_episode(world, task)[0], "won").value == 1.0
    _, info = world.reset(options={"task": mine})
    plan = [info["privileged"]["expert"]]
    while plan[-1]:
        *_, info = world.step(plan[-1])
        plan.append(info["privileged"]["expert"])
    world.reset(options={"task": foreign})
    for command in plan[:-1]:
        *_, info = world.step(command)
    assert info["stop"] is StopReason.DONE
    assert all(signal.value is None and signal.cause for signal in info["signals"] if signal.name == "progress")
    world.close()


def test_files_that_are_not_games_are_refused(story: Path, tmp_path: Path) -> None:
    (tmp_path / "no.z8").write_text("this is no game, " * 20)
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "short.z8").write_bytes(story.read_bytes()[:-5000])
    for name in ("no.z8", "empty.json", "short.z8", "absent.z8"):
        with pytest.raises(TaskError, match=name.replace(".", r"\.")):
            TextWorldEnvironment(files=[tmp_path / name], cache_dir=tmp_path)


def test_a_game_that_changed_is_refused(story: Path, tmp_path: Path, game_cache: Path) -> None:
    mine = tmp_path / "mine.z8"
    shutil.copy(story, mine)
    world = TextWorldEnvironment(files=[mine], cache_dir=tmp_path)
    world.reset()
    data = bytearray(story.read_bytes())
    data[18], data[19] = data[19] ^ 1, data[18]  # the serial number, which its checksum does not cover
    mine.write_bytes(data)
    with pytest.raises(TaskError, match=r"mine\.z8 has changed since"):
        world.reset()
    world.close()


def test_damaged_cache_is_named(tmp_path: Path) -> None:
    world = TextWorldEnvironment(games={"train": 1}, cache_dir=tmp_path)
    world.reset()
    (logic,) = tmp_path.rglob("game.json")
    data = json.loads(logic.read_text())
    data["metadata"]["z8_sha256"] = "0" * 64
    logic.write_text(json.dumps(data))
    other = TextWorldEnvironment(games={"train": 1}, cache_dir=tmp_path)
    with pytest.raises(TaskError, match="delete"):
        other.reset()
    world.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"theme": "castle"}, "no TextWorld theme 'castle'; known: basic, house, plain"),
        ({"challenge": "chess"}, "no TextWorld challenge 'chess'"),
        ({"challenge": "treasure_hunter", "level": 31}, "from 1 to 30"),
        ({"rooms": 0}, "counts from 1"),
        ({"max_turns": 0}, "at least 1"),
        ({"games": {"dev": 3}}, "no split 'dev'"),
        ({"split": "files"}, "no split 'files'"),
        ({"romms": 3}, "did you mean 'rooms'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make("textworld", **arguments)


def test_lost_games_are_lost(game_cache: Path) -> None:
    """Treasure hunter ends badly for who takes the wrong thing."""
    world = TextWorldEnvironment(
        challenge="treasure_hunter", level=2, games={"train": 1}, cache_dir=game_cache, max_turns=60
    )
    dice = random.Random(0)
    for _ in range(30):
        _, info = world.reset()
        done = False
        while not done:
            actions = info["privileged"]["admissible"]
            takes = [a for a in actions if a.startswith("take ") and a != info["privileged"]["expert"]]
            _, _, terminated, truncated, info = world.step(dice.choice(takes or list(actions)))
            done = terminated or truncated
        ends = {signal.name: signal.value for signal in info["signals"] if signal.turn is None}
        if ends["lost"]:
            assert ends["won"] == 0.0
            assert terminated
            assert ends["excess_steps"] is None
            break
    else:
        pytest.fail("thirty games and none lost")
    world.close()


def test_unknown_names(world: TextWorldEnvironment) -> None:
    with pytest.raises(UnknownNameError, match="known: demo, test, train, valid"):
        world.tasks("dev")


def test_the_verdict_of_a_game_cut_from_outside(world: TextWorldEnvironment) -> None:
    _, info = world.reset(options={"task": world.tasks("train")[0]})
    state_ref = world.snapshot()
    _, _, _, _, info = world.step(info["privileged"]["expert"])
    verdicts = {signal.name: signal for signal in world.conclude()}
    assert {name: signal.value for name, signal in verdicts.items()} == {
        "won": 0.0,
        "lost": 0.0,
        "score": 0.0,
        "excess_steps": None,
    }
    assert verdicts["excess_steps"].cause == "the game was not won"
    with pytest.raises(ResetNeeded):
        world.step("look")
    world.restore(state_ref)
    assert world.step("look"), "a game saved before goes on after"


def test_many_threads_in_one_process(game_cache: Path) -> None:
    """TextWorld's parser and generator would mix up the games of threads that read or make them at the same time."""
    threads, games = 8, 16
    arguments: dict[str, Any] = {"games": {"train": games}, "cache_dir": game_cache}
    TextWorldEnvironment(**arguments).prepare("train")

    def win_all(first: int) -> list[float | None]:
        world = TextWorldEnvironment(**arguments)
        tasks = world.tasks("train")
        won = []
        for index in range(games):
            signals, _, _ = expert_episode(world, tasks[(first + index) % games].id)
            won.append(verdict(signals, "won").value)
        world.close()
        return won

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(win_all, range(0, games, games // threads))) == [[1.0] * games] * threads


DENSE = {"reward": "dense", "reward_params": {"progress": 0.5}}


def test_gymnasium_pays_a_composed_reward(small: dict[str, Any]) -> None:
    environment = gymnasium.make("agentgym/TextWorld-v0", **DENSE, **small)
    assert environment.spec is not None
    for made in (environment, gymnasium.make(environment.spec)):
        world = made.unwrapped
        assert isinstance(world, TextWorldEnvironment)
        _, _, info = expert_episode(made, world.tasks("train")[0].id)
        assert info["ledger"].reward == "won + 0.5*progress"
        assert info["ledger"].total() == pytest.approx(1.5)
        made.close()


def test_a_reward_object_survives_being_made_again(small: dict[str, Any]) -> None:
    environment = gymnasium.make("agentgym/TextWorld-v0", reward=resolve("gated"), **small)
    assert environment.spec is not None
    again = gymnasium.make(environment.spec)
    assert again.get_wrapper_attr("shaper").name == environment.get_wrapper_attr("shaper").name
    environment.close()
    again.close()


def test_a_reward_that_cannot_be_paid_is_refused_when_it_is_made(small: dict[str, Any]) -> None:
    missing = signal_reward("passed_tests", scope="trajectory")
    with pytest.raises(
        ConfigError, match="reads 'passed_tests', which environment .*TextWorld.*measures: excess_steps"
    ):
        gymnasium.make("agentgym/TextWorld-v0", reward=missing, **small)
    with pytest.raises(UnknownNameError, match="did you mean 'dense'"):
        gymnasium.make("agentgym/TextWorld-v0", reward="dence", **small)
    with pytest.raises(ConfigError, match="reward_params without a reward"):
        gymnasium.make("agentgym/TextWorld-v0", reward_params={"progress": 0.5}, **small)
    with pytest.raises(UnknownNameError, match="did you mean 'rooms'"):
        gymnasium.make("agentgym/TextWorld-v0", reward="dense", romms=3, **small)


@pytest.mark.parametrize("reward", [{}, DENSE], ids=["plain", "dense"])
def test_gymnasium_finds_nothing_to_warn_of(small: dict[str, Any], reward: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environment = gymnasium.make("agentgym/TextWorld-v0", **reward, **small)
        environment.reset(seed=1)
        environment.step("look")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(environment, skip_render_check=True)


@pytest.mark.parametrize("reward", [{}, DENSE], ids=["plain", "dense"])
@pytest.mark.parametrize("mode", list(gymnasium.vector.AutoresetMode))
@pytest.mark.parametrize(("kind", "arguments"), [("sync", {}), ("async", {"shared_memory": False})])
def test_vector_environments(
    small: dict[str, Any],
    kind: str,
    arguments: dict[str, Any],
    mode: gymnasium.vector.AutoresetMode,
    reward: dict[str, Any],
) -> None:
    small = {**small, **reward, "max_turns": 2}
    vector = gymnasium.make_vec(
        "agentgym/TextWorld-v0",
        num_envs=2,
        vectorization_mode=kind,
        vector_kwargs={**arguments, "autoreset_mode": mode},
        **small,
    )
    observations, _ = vector.reset(seed=3)
    assert len(observations) == 2
    for _ in range(4):
        observations, rewards, terminated, truncated, infos = vector.step(("look", "inventory"))
        assert all(observation[0].role == "user" for observation in observations)
        assert rewards.shape == (2,)
        finished = infos.get("final_info", infos)
        if reward and "ledger" in finished:
            assert all(ledger.reward == "won + 0.5*progress" for ledger in finished["ledger"])
        if mode is gymnasium.vector.AutoresetMode.DISABLED and truncated.any():
            vector.reset(options={"reset_mask": terminated | truncated})
    vector.close()
