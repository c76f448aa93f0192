"""What comes before reinforcement: a model to start from, its first reading of the worlds, the expert's example."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from agentgym.config import PretrainConfig, WarmstartConfig
from agentgym.errors import ConfigError
from agentgym.policy.embedded import load
from agentgym.policy.scripted import ScriptedPolicy, expert, random_admissible, random_verb
from agentgym.render import Renderer, set_variables
from agentgym.train import imitation
from agentgym.train.batch import Row
from agentgym.train.factory import build_model, build_tokenizer, save
from agentgym.train.session import Session, State, in_thread
from agentgym.types import Trajectory


async def starting_model(session: Session) -> tuple[Any, Any]:
    """Return the model and tokenizer the run starts from: the user's own, this run's, or a new one."""
    config = session.config.model
    folder = session.run.path / "init"
    if config.path is not None:
        model, tokenizer = load(config.path, dtype=config.dtype, device=config.device)
        set_variables(tokenizer, config.template)
        return model, tokenizer
    if not (folder / "config.json").is_file():
        tokenizer = build_tokenizer(
            await _corpus(session),
            kind=config.tokenizer,
            vocab_size=config.vocab_size,
            max_context=config.max_context,
        )
        model = build_model(
            tokenizer,
            layers=config.layers,
            width=config.width,
            heads=config.heads,
            kv_heads=config.kv_heads,
            ff=config.ff,
            max_context=config.max_context,
            seed=session.config.seed,
        )
        save(model, tokenizer, folder)
    return load(folder, dtype=config.dtype, device=config.device)


async def pretrain(session: Session, model: Any, tokenizer: Any, state: State | None) -> None:
    """Teach a new model the language of the training worlds, from random play alone."""
    if session.config.model.path is not None or not session.config.pretrain.plays or not session.train_tasks():
        return
    renderer = Renderer(tokenizer)
    config = session.config.pretrain
    plays = await _random_plays(session, config.split, config.tasks or session.train_tasks(), config.plays)
    shown = [imitation.as_row(renderer, trajectory, read=True) for trajectory in plays]
    await _supervise(session, "pretrain", "read the worlds", config, model, shown, state)


async def warmstart(session: Session, model: Any, tokenizer: Any, state: State | None) -> dict[str, Any]:
    """Learn from the expert, and return how well that does on the final split."""
    if session.config.warmstart.episodes:
        trajectories = await demonstrations(session)
        history = session.config.policy.history
        renderer = Renderer(tokenizer, history=history)
        if history == "auto" and not renderer.rewrites:
            imitation.check_rendering(renderer, trajectories[0])
        shown = [row for trajectory in trajectories for row in imitation.as_rows(renderer, trajectory)]
        await _supervise(session, "warmstart", "learn from the expert", session.config.warmstart, model, shown, state)
    save(model, tokenizer, session.run.path / "warmstart")
    return await session.measure(model, tokenizer, "before")


async def demonstrations(session: Session) -> list[Trajectory]:
    """Return the expert's episodes that the warm start learns from."""
    tasks = await session.tasks(session.config.warmstart.split, session.config.warmstart.episodes)
    return await session.play("watch the expert", tasks, ScriptedPolicy(expert))


async def _supervise(
    session: Session,
    phase: str,
    title: str,
    config: PretrainConfig | WarmstartConfig,
    model: Any,
    shown: Sequence[Row],
    state: State | None,
) -> None:
    """Learn from ``shown`` until the held-out loss stops falling, and leave the model at its best."""
    train, valid = imitation.split(shown, config.valid_fraction)
    steps_an_epoch = sum(len(row.ids_N) for row in train) // config.batch_tokens + 1
    learner = session.learner(
        model,
        lr=config.lr,
        weight_decay=session.config.warmstart.weight_decay,
        warmup_steps=min(20, steps_an_epoch),
        decay_steps=steps_an_epoch * config.max_epochs,
        total_steps=steps_an_epoch * config.max_epochs,
        muon=True,
    )
    progress = imitation.Progress()
    if state is not None:
        learner.load_state(state.pop("learner"))
        progress = imitation.Progress(**state["progress"])
    epochs = imitation.epochs(
        learner, train, valid, progress, batch_tokens=config.batch_tokens, seed=session.config.seed
    )
    session.observer.phase(title, config.max_epochs)
    session.observer.advance(progress.epoch)
    while not progress.converged(config.patience, config.max_epochs):
        await in_thread(partial(next, epochs))
        session.record(phase, progress.epoch, progress.losses())
        session.commit(phase=phase, learner=learner.state(), progress=progress.state())
        session.observer.advance(1)
    if not progress.best_model:
        raise ConfigError(f"{phase}.lr: with {config.lr:g} the held-out loss is not a number; choose a smaller one")
    model.load_state_dict(progress.best_model)


async def _corpus(session: Session) -> list[str]:
    """Return what there is to read: the demonstrations, and what a random player meets in the training tasks."""
    train, pretrain = session.config.train, session.config.pretrain
    episodes = await _random_plays(session, train.split, session.train_tasks(), 1)
    if pretrain.plays and (pretrain.split, pretrain.tasks) != (train.split, None):
        episodes += await _random_plays(session, pretrain.split, pretrain.tasks or session.train_tasks(), 1)
    if session.config.warmstart.episodes:
        episodes += await demonstrations(session)
    return [
        message.content
        for trajectory in episodes
        for observation in (*(turn.observation for turn in trajectory.turns), trajectory.final_observation)
        for message in observation
    ] + [turn.sample.message.content for trajectory in episodes for turn in trajectory.turns]


async def _random_plays(session: Session, split: str, count: int, plays: int) -> list[Trajectory]:
    tasks = await session.tasks(split, count)
    player = {"commands": random_admissible, "verbs": random_verb}[session.config.pretrain.player]
    return await session.play("play at random", tasks * plays, ScriptedPolicy(player))


__all__ = ["demonstrations", "pretrain", "starting_model", "warmstart"]
