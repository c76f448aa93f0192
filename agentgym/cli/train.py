"""``agentgym train``: from what was typed to a run folder, and through a run that a person may interrupt."""

from __future__ import annotations

import asyncio
import difflib
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentgym import config as configuration
from agentgym import registry
from agentgym.config import RunConfig
from agentgym.errors import AgentgymError, ConfigError, MissingExtraError, StoredRunError, UsageError, missing_extra
from agentgym.evaluate import check_success
from agentgym.files import replace
from agentgym.probes import reward_and_probes
from agentgym.store import CONFIG, LOCK, RunFolder, read_config, read_summary
from agentgym.train import memory

from .app import INTERRUPTED
from .show import emit, hush_transformers, plan, summary_of

if TYPE_CHECKING:
    from agentgym.train.observer import Observer
    from agentgym.train.trainer import Trainer

RUNS = Path("runs")
"""Where run folders are made unless told otherwise."""
MAY_RISE = "train.steps"
"""The one key that may differ where a run is continued, upwards."""
_FLAGS = ("seed", "out", "resume", "dry-run", "quiet", "json", "help")


@dataclass(frozen=True, slots=True)
class Asked:
    """What was typed."""

    source: str | None
    words: tuple[str, ...] = ()
    "Overrides of the configuration."
    seed: int | None = None
    out: Path | None = None
    resume: bool = False
    dry_run: bool = False
    quiet: bool = False
    json: bool = False

    @property
    def overrides(self) -> list[str]:
        """All overrides as words, the seed among them."""
        return [*self.words, *([f"--seed={self.seed}"] if self.seed is not None else [])]

    @property
    def name(self) -> str:
        """What run folders are named after: the preset, or the file without its ending."""
        return Path(self.source or "").name.removesuffix(".toml")


def start(asked: Asked) -> int:
    """Do what was asked and return the exit code.

    Raises:
        UsageError: what was asked cannot be done, or the reward falls for an attack.
        InfrastructureError: the run had to be given up.
    """
    _check_words(asked)
    if asked.resume:
        return _resume(asked)
    if asked.source is None:
        known = ", ".join(configuration.presets())
        raise UsageError(f"name a preset or a TOML file: agentgym train PRESET; presets: {known}")
    config = configuration.load(asked.source, asked.overrides)
    sizes = check(config)
    if asked.dry_run:
        return _tell(asked, config, sizes, asked.out or _free(asked.name, config.seed))
    if config.audit.max_rate is not None:
        from .audit import audited

        audited(config).require(config.audit.max_rate)
    path = _new_folder(asked, config)
    with RunFolder.create(path, config) as run:
        return _attend(asked, run, config)


def _resume(asked: Asked) -> int:
    path = _folder_to_continue(asked)
    config = continued(path, asked.overrides)
    finished = read_summary(path)
    if finished is not None and finished["steps"] >= config.train.steps:
        if asked.json:
            emit(finished | {"run": str(path), "finished_before": True})
        else:
            print(f"'{path}' is finished; --{MAY_RISE} above {finished['steps']} would go on with it")
            summary_of(finished, path, config.eval.final_split)
        return 0
    if asked.dry_run:
        return _tell(asked, config, check(config), path)
    with RunFolder.resume(path) as run:
        if config != run.config:
            replace(path / CONFIG, configuration.dump(config))
        return _attend(asked, run, config)


# ------------------------------------------------------------------------------------------------------ what was typed


def _check_words(asked: Asked) -> None:
    """Refuse what looks like a slip: an override before the preset, an option that is nearly one of ours."""
    if asked.source is not None and asked.source.startswith("-"):
        raise UsageError(f"name the preset first: agentgym train PRESET {shlex.join([asked.source, *asked.words])}")
    for word in asked.words:
        key = word.removeprefix("--").partition("=")[0]
        if word.startswith("--") and "." not in key and key not in RunConfig.model_fields:
            near = difflib.get_close_matches(key, [*_FLAGS, *RunConfig.model_fields], n=1)
            if near:
                raise UsageError(f"no option '--{key}'; did you mean '--{near[0]}'?")


def check(config: RunConfig) -> dict[str, int]:
    """Return how many tasks each split in use has; find out before a folder is made whether the run can begin.

    Raises:
        UsageError: the environment, one of its options or splits, the reward, a probe or the model folder does not
            exist; or the reward, or ``eval.success``, reads a signal that nobody measures.
    """
    if config.model.path is not None and not (Path(config.model.path) / "config.json").is_file():
        raise ConfigError(f"model.path: '{config.model.path}' is no model folder: it has no config.json")
    if config.policy.engine == "vllm" and not config.policy.vllm.urls:
        from agentgym.policy.server import find_interpreter

        find_interpreter(config.policy.vllm.python)
    splits = [config.train.split, config.eval.final_split]
    splits += [config.warmstart.split] if config.warmstart.episodes else []
    splits += [config.eval.split] if config.eval.every else []
    environment = registry.make(config.env.id, **config.env.options)
    try:
        check_success(environment, config.eval.success)
        reward_and_probes(config, environment.metadata.get("signals"))
        return {split: len(environment.tasks(split)) for split in dict.fromkeys(splits)}
    finally:
        environment.close()


def continued(path: Path, overrides: list[str]) -> RunConfig:
    """Return the stored configuration of a run, with ``train.steps`` raised if ``overrides`` say so.

    Raises:
        StoredRunError: there is no run, or ``overrides`` contradict what it was started with.
    """
    stored = read_config(path)
    asked = configuration.build(stored.model_dump(exclude_none=True), overrides)
    before, after = _flat(stored.model_dump()), _flat(asked.model_dump())
    for key in sorted({*before, *after}):
        if before.get(key) == after.get(key):
            continue
        if key != MAY_RISE:
            raise StoredRunError(
                f"{key}: '{path}' was started with {before.get(key)}, {after.get(key)} was asked for; "
                f"a run keeps its configuration ({MAY_RISE} may rise): start a new one without --resume"
            )
        if after[key] < before[key]:
            raise StoredRunError(f"{key}: '{path}' was started with {before[key]}; it can be raised, not lowered")
    return asked


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested tables by their dotted names."""
    leaves: dict[str, Any] = {}
    for key, value in table.items():
        leaves |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return leaves


# -------------------------------------------------------------------------------------------------------- run folders


def _free(name: str, seed: int) -> Path:
    """Return the first run folder of this name and seed that is not there yet."""
    number = 1
    while (RUNS / f"{name}-{seed}-{number:03d}").exists():
        number += 1
    return RUNS / f"{name}-{seed}-{number:03d}"


UNBEGUN = {LOCK}
"""What a run leaves in its folder that was killed before its configuration was written, beside hidden files."""


def _new_folder(asked: Asked, config: RunConfig) -> Path:
    if asked.out is None:
        while True:
            path = _free(asked.name, config.seed)
            try:
                path.mkdir(parents=True)
            except FileExistsError:  # another run was started at the same moment
                continue
            except OSError as error:
                raise StoredRunError(f"cannot make '{path}': {error.strerror}; name a folder with --out") from error
            return path
    path = asked.out
    if (path / CONFIG).is_file():
        command = continue_command(asked.source, path)
        raise StoredRunError(f"'{path}' holds a run already; continue it with: {command}; or name another folder")
    if path.exists() and (not path.is_dir() or any(entry.name not in UNBEGUN for entry in path.glob("[!.]*"))):
        raise StoredRunError(f"'{path}' is there and is not empty; name a folder that is new or empty with --out")
    return path


def _folder_to_continue(asked: Asked) -> Path:
    if asked.out is not None:
        if not (asked.out / CONFIG).is_file():
            raise StoredRunError(f"nothing to continue in '{asked.out}': it holds no run; start one without --resume")
        return asked.out
    if asked.source is None:
        raise UsageError("name what to continue: agentgym train PRESET --resume, or agentgym train --resume --out RUN")
    pattern = re.compile(rf"{re.escape(asked.name)}-(\d+)-\d{{3,}}")
    found = [
        folder
        for folder in (RUNS.iterdir() if RUNS.is_dir() else ())
        if (match := pattern.fullmatch(folder.name))
        and (asked.seed is None or int(match[1]) == asked.seed)
        and (folder / CONFIG).is_file()
    ]
    if not found:
        which = f"'{asked.name}'" + (f" with seed {asked.seed}" if asked.seed is not None else "")
        raise StoredRunError(
            f"nothing to continue: no run of {which} in '{RUNS}/' here ({Path.cwd()}); "
            "start one without --resume, or name its folder with --out"
        )
    return max(found, key=lambda folder: ((folder / CONFIG).stat().st_mtime_ns, folder.name))


def continue_command(source: str | None, path: Path) -> str:
    """Return the command that goes on with the run in ``path``."""
    return shlex.join(["agentgym", "train", *([source] if source else []), "--resume", "--out", str(path)])


# ----------------------------------------------------------------------------------------------------------- dry runs


def _tell(asked: Asked, config: RunConfig, sizes: Mapping[str, int], path: Path) -> int:
    planned = plan_of(config, sizes, path)
    if asked.json:
        emit(planned)
    else:
        plan(planned)
    return 0


def plan_of(config: RunConfig, sizes: Mapping[str, int], path: Path) -> dict[str, Any]:
    """Return what a run would do and write."""
    episodes = config.train.groups * config.train.group_size
    return {
        "config": config.model_dump(exclude_none=True),
        "parameters_at_most": memory.shape_of(config).parameters,
        "model_path": config.model.path,
        "memory": memory.estimate(config),
        "tasks": dict(sizes),
        "episodes_per_step": episodes,
        "tokens_per_step_at_most": episodes * config.model.max_context,
        "steps": config.train.steps,
        "run": str(path),
        "toml": configuration.dump(config),
    }


# ---------------------------------------------------------------------------------------------------------- the run


class _Stopped(Exception):
    """Someone asked for the run to stop."""

    def __init__(self, at_once: bool) -> None:
        super().__init__(at_once)
        self.at_once = at_once
        "Asked twice: threads may still be busy."


def _attend(asked: Asked, run: RunFolder, config: RunConfig) -> int:
    """Train, show it, and say what came of it."""
    from agentgym.view.live import watching

    title = f"{asked.name or run.path.name} · seed {config.seed} · {run.path}"
    hint = f"continue with: {continue_command(asked.source, run.path)}"
    try:
        with watching(sys.stderr if asked.json else sys.stdout, title=title, quiet=asked.quiet) as observer:
            observer.phase("load torch")
            with _told():
                trainer = _trainer()(config, run, observer=observer)
            summary = _supervised(trainer, observer, quiet=asked.quiet)
    except _Stopped as stopped:
        print(f"{'stopped at once' if stopped.at_once else 'stopped'}; {hint}", file=sys.stderr)
        if stopped.at_once:
            _leave()
        return INTERRUPTED
    except AgentgymError as error:
        error.add_note(hint)
        raise
    picture = _drawn(run.path)
    if asked.json:
        emit(summary | {"run": str(run.path), "curve": picture and str(picture)})
    else:
        summary_of(summary, run.path, config.eval.final_split, picture)
    return 0


@contextmanager
def _told() -> Iterator[None]:
    """Raise KeyboardInterrupt at the end if Ctrl-C was pressed: what is imported meanwhile may have swallowed it."""
    pressed: list[int] = []

    def press(number: int, frame: Any) -> None:
        pressed.append(number)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def _trainer() -> type[Trainer]:
    try:
        from agentgym.train.trainer import Trainer

        hush_transformers()
    except ModuleNotFoundError as error:
        raise missing_extra("train", error.name or "torch", "training") from error
    return Trainer


def _supervised(trainer: Trainer, observer: Observer, *, quiet: bool) -> dict[str, Any]:
    """Train to the end, or until someone asks for it to stop: once, after the step it is in; twice, at once.

    Raises:
        _Stopped: someone did.
    """
    from agentgym.train.trainer import Interrupted

    def say(line: str) -> None:
        if quiet:
            print(line, file=sys.stderr, flush=True)
        else:
            observer.say(line)

    runner = asyncio.Runner()
    at_once = False
    try:
        with _signals(runner.get_loop(), trainer.stop, say) as asked_twice:
            try:
                return runner.run(trainer.train())
            except Interrupted:
                raise _Stopped(at_once=False) from None
            except asyncio.CancelledError:
                at_once = asked_twice()
                if at_once:
                    raise _Stopped(at_once=True) from None
                raise
    finally:
        if not at_once:  # closing waits for threads
            runner.close()


@contextmanager
def _signals(
    loop: asyncio.AbstractEventLoop, stop: Callable[[], None], say: Callable[[str], None]
) -> Iterator[Callable[[], bool]]:
    """Answer Ctrl-C and SIGTERM; give a function that says whether it was asked twice."""
    asked, over = 0, False

    def ask() -> None:
        nonlocal asked
        if over:  # delivered before, run after the handlers were taken away: there is nothing left to end
            return
        asked += 1
        if asked == 1:
            stop()
            say("finishing this step; press Ctrl-C again to stop at once")
        elif asked == 2:
            for task in asyncio.all_tasks(loop):
                task.cancel()
        else:
            os._exit(INTERRUPTED)

    caught = (signal.SIGINT, signal.SIGTERM)
    for number in caught:
        loop.add_signal_handler(number, ask)
    try:
        yield lambda: asked > 1
    finally:
        over = True
        for number in caught:
            loop.remove_signal_handler(number)


def _leave() -> None:
    """End the process now. All that counts is on the disk; what threads are still at is not waited for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)


def _drawn(path: Path) -> Path | None:
    """Draw the run; a run without a picture is a run all the same."""
    from agentgym.view.curve import draw

    try:
        return draw(path)
    except (MissingExtraError, StoredRunError) as error:
        print(f"no picture: {error}", file=sys.stderr)
        return None


__all__ = ["Asked", "check", "continue_command", "continued", "plan_of", "start"]
