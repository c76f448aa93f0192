"""The commands and their options. What a command needs is imported in it, so that ``--help`` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from agentgym import __version__
from agentgym.errors import AgentgymError, InfrastructureError

USAGE, INFRASTRUCTURE, INTERRUPTED = 2, 3, 130
"""Exit codes."""

app = typer.Typer(
    name="agentgym",
    help="Worlds, rewards and a trainer for language-model agents.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="An option of the environment; repeatable.")
]
_Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
_Params = Annotated[
    list[str] | None, typer.Option("--params", metavar="KEY=VALUE", help="A parameter of the reward; repeatable.")
]
_Step = Annotated[int | None, typer.Option(help="Only episodes of this training step.", show_default=False)]
_Split = Annotated[str | None, typer.Option(help="Tasks to take.", show_default=False)]


def run(words: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code. An error is one message on standard error.

    ``AGENTGYM_TRACEBACK=1`` in the environment shows where it came from, too.
    """
    try:
        app(args=list(words) if words is not None else None)
    except AgentgymError as error:
        if os.environ.get("AGENTGYM_TRACEBACK") == "1":
            raise
        print("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return INFRASTRUCTURE if isinstance(error, InfrastructureError) else USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def _version(asked: bool) -> None:
    if asked:
        print(f"agentgym {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Worlds, rewards and a trainer for language-model agents."""


@app.command("train", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def _train(
    context: typer.Context,
    source: Annotated[
        str | None, typer.Argument(metavar="PRESET|FILE.toml", help="What to run.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder.  [default: runs/PRESET-SEED-N]", show_default=False)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the newest run of this preset, or the one in --out.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what it would do, as a TOML file.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only what came of it.")] = False,
    json: _Json = False,
) -> None:
    """Train a policy: imitate an expert, then learn from reward.

    Any key of the configuration can be set: --train.steps 20 --env.options.rooms 3
    """
    from .train import Asked, start

    raise typer.Exit(start(Asked(source, tuple(context.args), seed, out, resume, dry_run, quiet, json)))


@app.command("eval")
def _evaluate(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[RUN|MODEL]", help="A run folder or a model folder.", show_default=False)
    ] = None,
    env: Annotated[str | None, typer.Option(help="Environment.  [default: the run's]", show_default=False)] = None,
    split: _Split = None,
    games: Annotated[int | None, typer.Option(min=1, help="How many tasks.", show_default=False)] = None,
    policy: Annotated[str, typer.Option(metavar="model|expert|random", help="Who plays.")] = "model",
    checkpoint: Annotated[
        str, typer.Option(metavar="model|warmstart|init", help="Which of a run's models plays.")
    ] = "model",
    temperature: Annotated[float, typer.Option(min=0.0, help="Of sampling; 0 is greedy.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Seed of the episodes.", show_default=False)] = None,
    option: _Options = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only what came of it.")] = False,
    json: _Json = False,
) -> None:
    """Measure how often a policy succeeds, with its 95 % interval."""
    from .evaluate import Asked, measure
    from .show import emit, evaluation

    asked = Asked(folder, env, split, games, policy, checkpoint, temperature, seed, tuple(option or ()))
    _print(measure(asked, quiet=quiet), evaluation, json=json, emit=emit)


@app.command("serve-policy")
def _serve_policy(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model folder, in the Hugging Face layout.")],
    max_context: Annotated[int, typer.Option(min=8, help="Tokens of prompt and answer together.")] = 4096,
    dtype: Annotated[str, typer.Option(metavar="float32|bfloat16", help="Of the weights.")] = "float32",
    python: Annotated[
        str | None, typer.Option(help="Interpreter that has vLLM.  [default: found]", show_default=False)
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="An option of vLLM's; repeatable.")
    ] = None,
    start_deadline_s: Annotated[float, typer.Option(help="Seconds until it has to answer.")] = 600.0,
    log: Annotated[Path, typer.Option(help="File that all it says goes to.")] = Path("vllm-server.log"),
) -> None:
    """Serve a model by vLLM, so that its weights can be replaced while it answers."""
    from .serve_policy import Asked, serve

    serve(Asked(model, max_context, dtype, python, option or (), start_deadline_s, log))


@app.command("list")
def _catalogue(json: _Json = False) -> None:
    """List environments, presets, rewards, probes and advantage estimators."""
    from .describe import everything
    from .show import catalogue as shown
    from .show import emit

    _print(everything(), shown, json=json, emit=emit)


@app.command("info")
def _info(
    env: Annotated[str, typer.Argument(metavar="ENV", help="An environment's name, or module:Class.")],
    json: _Json = False,
) -> None:
    """Describe an environment: its options, its tasks, the signals it measures."""
    from .describe import environment
    from .show import emit
    from .show import environment as shown

    _print(environment(env), shown, json=json, emit=emit)


@app.command("play")
def _play(
    env: Annotated[str, typer.Argument(metavar="ENV", help="An environment's name, or module:Class.")],
    task: Annotated[str | None, typer.Option(help="Task to play.  [default: the first]", show_default=False)] = None,
    split: _Split = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Draws the task.", show_default=False)] = None,
    option: _Options = None,
) -> None:
    """Play yourself. 'quit' or the end of the input ends it."""
    from .play import play as played

    played(env, task, split, seed, tuple(option or ()))


@app.command("doctor")
def _doctor(json: _Json = False) -> None:
    """Look at what this machine has, and what the main job still needs."""
    from .doctor import examine
    from .show import diagnosis, emit

    found = examine()
    _print(found, diagnosis, json=json, emit=emit)
    raise typer.Exit(0 if found["ready"] else 1)


@app.command("ps")
def _ps(json: _Json = False) -> None:
    """List the boxes of this machine, whose they are, and which kind new ones would be."""
    from .boxes import listed, shown_boxes
    from .show import emit

    _print(listed(), shown_boxes, json=json, emit=emit)


@app.command("prune")
def _prune(
    everything: Annotated[bool, typer.Option("--all", help="Also boxes that are in use.")] = False, json: _Json = False
) -> None:
    """Remove the boxes that killed processes left."""
    from .boxes import pruned, shown_boxes
    from .show import emit

    _print(pruned(everything=everything), shown_boxes, json=json, emit=emit)


@app.command("build")
def _build(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[IMAGE]...", help="Images.  [default: all]", show_default=False)
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(metavar="docker|process", help="For which boxes.  [default: what is here]", show_default=False),
    ] = None,
    base: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="The engine's image to build on.", show_default=False)
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only what came of it.")] = False,
    json: _Json = False,
) -> None:
    """Build the images of boxes, unless they are there."""
    from .boxes import built, shown_images
    from .show import emit

    _print(built(names or [], kind, base, quiet=quiet), shown_images, json=json, emit=emit)


@app.command("curve")
def _curve(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]) -> None:
    """Draw a run's curves into its folder, also while it goes on."""
    from agentgym.view.curve import draw

    print(draw(run))


@app.command("score")
def _score(
    run: _Run,
    reward: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Reward.  [default: the run's own]", show_default=False)
    ] = None,
    params: _Params = None,
    step: _Step = None,
    split: _Split = None,
    json: _Json = False,
) -> None:
    """Price a stored run again, without model or world."""
    from .reward import Asked, score, shown_score
    from .show import emit

    found = score(run, Asked(reward, params or ()), step=step, split=split)
    _print(found, shown_score, json=json, emit=emit)


@app.command("probe")
def _probe(
    run: _Run,
    probe: Annotated[str, typer.Option(metavar="PROBE", help="A probe's name, or module:callable.")],
    params: Annotated[
        list[str] | None, typer.Option("--params", metavar="KEY=VALUE", help="A parameter of the probe; repeatable.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure what has been measured, too.")] = False,
    json: _Json = False,
) -> None:
    """Measure a stored run again; what is found is added to it."""
    from .probe import probe as measured
    from .probe import shown
    from .show import emit

    _print(measured(run, probe, params or (), again=again), shown, json=json, emit=emit)


def _group(name: str, says: str) -> typer.Typer:
    """Return a command that has commands of its own."""
    group = typer.Typer(help=says, no_args_is_help=True, rich_markup_mode=None)
    app.add_typer(group, name=name)
    return group


_reward = _group("reward", "Look into rewards.")


@_reward.command("explain")
def _explain(
    run: _Run,
    episode: Annotated[str, typer.Argument(metavar="EPISODE", help="An episode's id, such as 00001/000/00.")],
    reward: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Reward.  [default: the run's own]", show_default=False)
    ] = None,
    params: _Params = None,
    json: _Json = False,
) -> None:
    """Show who paid an episode, turn by turn: through which gate, on what evidence."""
    from .reward import Asked, explain, shown_explanation
    from .show import emit

    _print(explain(run, episode, Asked(reward, params or ())), shown_explanation, json=json, emit=emit)


@_reward.command("diff")
def _diff(
    run: _Run,
    a: Annotated[str, typer.Option("--a", metavar="RECIPE", help="One reward.")],
    b: Annotated[str, typer.Option("--b", metavar="RECIPE", help="The other.")],
    a_params: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A parameter of the one.")] = None,
    b_params: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A parameter of the other.")] = None,
    step: _Step = None,
    split: _Split = None,
    worst: Annotated[int, typer.Option(min=0, help="How many episodes to name.")] = 5,
    json: _Json = False,
) -> None:
    """Compare two rewards on a stored run: order, distance, and where they disagree most."""
    from .reward import Asked, diff, shown_difference
    from .show import emit

    rewards = Asked(a, a_params or (), "--a-params"), Asked(b, b_params or (), "--b-params")
    _print(diff(run, *rewards, step=step, split=split, worst=worst), shown_difference, json=json, emit=emit)


@_reward.command("audit")
def _audit(
    run: Annotated[Path | None, typer.Argument(metavar="[RUN]", help="A run folder.", show_default=False)] = None,
    env: Annotated[str | None, typer.Option(help="A world to play in, in place of a run.", show_default=False)] = None,
    option: _Options = None,
    reward: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Reward.  [default: the run's own]", show_default=False)
    ] = None,
    params: _Params = None,
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="PROBE", help="A probe's name, or module:callable.  [default: the run's own]", show_default=False
        ),
    ] = None,
    probe_params: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="A parameter of it.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Failing episodes to attack with.")] = 32,
    step: _Step = None,
    above: Annotated[
        float | None,
        typer.Option(help="Price above which it worked.  [default: what the honest one is paid]", show_default=False),
    ] = None,
    play: Annotated[bool, typer.Option(help="Whether to play attacks in the world, too.")] = True,
    only: Annotated[list[str] | None, typer.Option(metavar="FAMILY", help="Kind of attack; repeatable.")] = None,
    json: _Json = False,
) -> None:
    """Attack a reward before training on it: how often does an episode get more for deserving no more?"""
    from .audit import Asked, examine, shown
    from .show import emit

    made = Asked(
        run,
        env,
        option or (),
        reward,
        params or (),
        probe,
        probe_params or (),
        episodes,
        step,
        above,
        play,
        only or (),
    )
    _print(examine(made), shown, json=json, emit=emit)


_swe = _group("swe", "Build, check and grade software engineering tasks.")
_Suite = Annotated[str, typer.Argument(metavar="SUITE", help="micro, a suite by name, or a .jsonl file of tasks.")]
_Boxes = Annotated[str, typer.Option(metavar="auto|docker|process|local", help="What tasks run in.")]
_Image = Annotated[str | None, typer.Option(help="What boxes are made of.", show_default=False)]
_Workers = Annotated[int, typer.Option(min=1, help="How many at a time.")]
_Count = Annotated[int | None, typer.Option(min=1, help="Only the first so many tasks.", show_default=False)]


@_swe.command("build")
def _swe_build(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="A suite by name, or a .toml file that describes one.")],
    only: Annotated[list[str] | None, typer.Option(metavar="PROJECT", help="Only this project; repeatable.")] = None,
    boxes: _Boxes = "auto",
    image: _Image = None,
    workers: _Workers = 2,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only what came of it.")] = False,
    json: _Json = False,
) -> None:
    """Make tasks: fetch libraries, put faults into them, keep what their tests notice. Interrupted, it goes on."""
    from .show import emit
    from .swe import Asked, build, shown_build

    asked = Asked(suite, boxes, image, workers, only=tuple(only or ()), quiet=quiet)
    _print(build(asked), shown_build, json=json, emit=emit)


@_swe.command("validate")
def _swe_validate(
    suite: _Suite,
    split: _Split = None,
    count: _Count = None,
    boxes: _Boxes = "auto",
    image: _Image = None,
    workers: _Workers = 2,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only what came of it.")] = False,
    json: _Json = False,
) -> None:
    """Check tasks: the gold patch resolves, the empty one does not, two gradings agree. 1 where one is not sound."""
    from .show import emit
    from .swe import Asked, shown_validation, validate

    found = validate(Asked(suite, boxes, image, workers, split, count, quiet=quiet))
    _print(found, shown_validation, json=json, emit=emit)
    raise typer.Exit(0 if found["sound"] == found["tasks"] else 1)


@_swe.command("grade")
def _swe_grade(
    predictions: Annotated[Path, typer.Argument(metavar="PREDS", help="preds.json, as SWE-bench's harness takes it.")],
    suite: _Suite,
    split: _Split = None,
    boxes: _Boxes = "auto",
    image: _Image = None,
    workers: _Workers = 2,
    json: _Json = False,
) -> None:
    """Grade patches, each in a fresh box."""
    from .show import emit
    from .swe import Asked, grade, shown_grades

    _print(grade(predictions, Asked(suite, boxes, image, workers, split)), shown_grades, json=json, emit=emit)


@_swe.command("report")
def _swe_report(
    run: _Run,
    step: _Step = None,
    preds: Annotated[
        Path | None, typer.Option(help="Write what was submitted there, as preds.json.", show_default=False)
    ] = None,
    model: Annotated[str, typer.Option(help="Its model_name_or_path.")] = "agentgym",
    json: _Json = False,
) -> None:
    """Tell a run's completion, modification and resolution rate."""
    from .show import emit
    from .swe import report, shown_report

    _print(report(run, step=step, preds=preds, model=model), shown_report, json=json, emit=emit)


def _print(data: dict[str, Any], shown: Any, *, json: bool, emit: Any) -> None:
    if json:
        emit(data)
    else:
        shown(data)


__all__ = ["INFRASTRUCTURE", "INTERRUPTED", "USAGE", "app", "run"]
