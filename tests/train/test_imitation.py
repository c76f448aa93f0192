from __future__ import annotations

import asyncio
import copy
import io
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentgym.config import RunConfig
from agentgym.errors import ConfigError
from agentgym.types import Message, Sampling, Trajectory, text_message

torch = pytest.importorskip("torch")

from agentgym import registry  # noqa: E402
from agentgym.policy.scripted import ScriptedPolicy, expert  # noqa: E402
from agentgym.render import Renderer  # noqa: E402
from agentgym.rollout import Request, Rollouts, completed  # noqa: E402
from agentgym.train.batch import Row, rows  # noqa: E402
from agentgym.train.imitation import Progress, as_row, as_rows, check_rendering, epochs, split  # noqa: E402
from agentgym.train.learner import Learner  # noqa: E402

Make = Callable[..., Any]


@pytest.fixture(scope="session")
def renderer(tokenizer: Any) -> Renderer:
    return Renderer(tokenizer)


def learner(model: Any, **settings: Any) -> Learner:
    return Learner(model, **{"lr": 5e-3, "weight_decay": 0.1, "max_grad_norm": 1.0, "token_budget": 64, **settings})


def shown(trajectory: Make, count: int = 9) -> list[Row]:
    """Return rows of episodes of different lengths."""
    return [rows(trajectory([(4, 2 + i % 3)], seed=i, name=f"g/{i}"))[0] for i in range(count)]


# ------------------------------------------------------------------------------------------------------------ rows


@pytest.fixture
def demonstration(tiny: Callable[..., RunConfig], renderer: Renderer) -> tuple[Trajectory, Trajectory]:
    """An expert's episode of a real game as played with tokens, and the same without."""
    config = tiny()

    async def play(policy: ScriptedPolicy) -> Trajectory:
        environment = registry.make(config.env.id, **config.env.options)
        rollouts = Rollouts(lambda: environment, policy, concurrency=1)
        try:
            task = environment.tasks("demo")[0]
            return completed(await rollouts.run([Request("d", "d", task, 1, Sampling())]))[0]
        finally:
            rollouts.close()

    return asyncio.run(play(ScriptedPolicy(expert, renderer=renderer))), asyncio.run(play(ScriptedPolicy(expert)))


def test_a_demonstration_becomes_the_row_it_would_have_been_had_it_been_sampled(
    demonstration: tuple[Trajectory, Trajectory], renderer: Renderer
) -> None:
    with_tokens, without = demonstration
    (played,), made = rows(with_tokens), as_row(renderer, without)
    assert len(without.turns) > 1
    for name in ("ids_N", "mask_N", "turn_N", "versions_N", "advantage_N", "return_N", "logprobs_N"):
        np.testing.assert_array_equal(getattr(made, name), getattr(played, name))
    assert made.rollout_id == without.id


def test_the_row_is_the_conversation_rendered_whole(
    demonstration: tuple[Trajectory, Trajectory], renderer: Renderer
) -> None:
    _, played = demonstration
    check_rendering(renderer, played)
    history = [message for turn in played.turns for message in (*turn.observation, turn.sample.message)]
    last = renderer.answer(played.turns[-1].sample.message)
    whole = np.concatenate([renderer.start(history[:-1]), last])
    assert as_row(renderer, played).ids_N.tolist() == whole.tolist()


def test_where_history_is_rendered_anew_each_turn_is_a_row(
    demonstration: tuple[Trajectory, Trajectory], tokenizer: Any
) -> None:
    anew, played = Renderer(tokenizer, history="turns"), demonstration[1]
    made = as_rows(anew, played)
    assert len(made) == len(played.turns)
    assert {row.rollout_id for row in made} == {played.id}
    said: list[Message] = []
    for t, (row, turn) in enumerate(zip(made, played.turns, strict=True)):
        said += turn.observation
        answer = anew.answer(turn.sample.message)
        assert row.ids_N.tolist() == [*anew.start(said), *answer]
        assert row.ids_N[row.mask_N].tolist() == answer.tolist()
        assert set(row.turn_N.tolist()) == {t}
        said.append(turn.sample.message)
    (whole,) = as_rows(Renderer(tokenizer), played)
    assert whole.ids_N.tolist() == as_row(Renderer(tokenizer), played).ids_N.tolist()


def test_reading_is_learning_all_that_is_said_but_for_the_first_token(
    demonstration: tuple[Trajectory, Trajectory], renderer: Renderer
) -> None:
    read, answered = (as_row(renderer, demonstration[1], read=flag) for flag in (True, False))
    assert read.mask_N.tolist() == [False] + [True] * (len(read.ids_N) - 1)
    assert 0 < answered.mask_N.sum() < read.mask_N.sum()
    assert read.ids_N.tolist() == answered.ids_N.tolist()


def test_a_template_that_rewrites_the_past_is_refused(trajectory: Make, tokenizer: Any) -> None:
    forgetful = copy.deepcopy(tokenizer)
    loop = "{% for message in messages %}"
    only_last = loop + "{% if message['role'] == 'assistant' or loop.last or not add_generation_prompt %}"
    forgetful.chat_template = tokenizer.chat_template.replace(loop, only_last).replace(
        "{% endfor %}", "{% endif %}{% endfor %}"
    )
    played = trajectory()
    turns = tuple(replace(turn, observation=(text_message("user", "go north"),)) for turn in played.turns)
    with pytest.raises(ConfigError, match="cannot be extended token by token"):
        check_rendering(Renderer(forgetful), replace(played, turns=turns))


# ------------------------------------------------------------------------------------------------------ held out


@given(st.integers(0, 60), st.floats(0, 0.99))
def test_what_is_held_out_is_never_trained_on(trajectory: Make, count: int, fraction: float) -> None:
    (row,) = rows(trajectory())
    given_rows = [replace(row, rollout_id=str(i)) for i in range(count)]
    train, valid = ([row.rollout_id for row in part] for part in split(given_rows, fraction))
    if count < 2 or fraction == 0:
        assert train == valid == [row.rollout_id for row in given_rows]
        return
    assert not set(train) & set(valid)
    assert sorted([*train, *valid]) == sorted(row.rollout_id for row in given_rows)
    assert train
    assert valid


def test_about_the_fraction_asked_for_is_held_out(trajectory: Make) -> None:
    train, valid = split(rows(trajectory()) * 100, 0.1)
    assert (len(train), len(valid)) == (90, 10)


# ---------------------------------------------------------------------------------------------------------- epochs


def test_it_converges_when_patience_or_epochs_are_used_up() -> None:
    assert not Progress(epoch=2, best_epoch=0).converged(patience=3, max_epochs=9)
    assert Progress(epoch=3, best_epoch=0).converged(patience=3, max_epochs=9)
    assert not Progress(epoch=5, best_epoch=3).converged(patience=3, max_epochs=9)
    assert Progress(epoch=9, best_epoch=9).converged(patience=3, max_epochs=9)


def test_it_stops_early_and_keeps_the_weights_that_did_best(make_model: Make, trajectory: Make) -> None:
    given_rows = shown(trajectory)  # random tokens: there is nothing to learn but by heart
    train, valid = split(given_rows, 0.3)
    learned = learner(make_model(), lr=2e-2)
    progress, losses = Progress(), []
    for now in epochs(learned, train, valid, progress, batch_tokens=16, seed=1):
        losses.append(now.valid_loss)
        if now.converged(patience=2, max_epochs=50):
            break
    assert now is progress
    assert len(losses) < 50
    assert progress.best_loss == min(losses)
    assert progress.best_epoch == losses.index(min(losses)) + 1 == progress.epoch - 2
    assert losses[-1] == pytest.approx(learned.likelihood(valid))
    learned.model.load_state_dict(progress.best_model)
    assert learned.likelihood(valid) == pytest.approx(progress.best_loss)
    assert progress.losses() == {
        "train_loss": progress.train_loss,
        "valid_loss": losses[-1],
        "best_loss": progress.best_loss,
    }


@pytest.mark.parametrize("boundary", [0, 1, 2, 3])
def test_continued_at_any_epoch_it_ends_with_the_same_weights(
    make_model: Make, trajectory: Make, boundary: int
) -> None:
    train, valid = split(shown(trajectory), 0.3)

    def go_on(learned: Learner, progress: Progress, until: int) -> None:
        for _ in islice(epochs(learned, train, valid, progress, batch_tokens=16, seed=5), until - progress.epoch):
            pass

    whole, first, second = (learner(make_model(), warmup_steps=3, decay_steps=12, total_steps=12) for _ in range(3))
    straight, before = Progress(), Progress()
    go_on(whole, straight, 4)
    go_on(first, before, boundary)
    kept = io.BytesIO()
    torch.save({"learner": first.state(), "progress": before.state()}, kept)
    kept.seek(0)
    stored = torch.load(kept, weights_only=True)
    second.load_state(stored["learner"])
    after = Progress(**stored["progress"])
    go_on(second, after, 4)
    assert after.losses() == straight.losses()
    assert after.best_epoch == straight.best_epoch
    for one, other in (
        (whole.model.state_dict(), second.model.state_dict()),
        (straight.best_model, after.best_model),
    ):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_every_row_is_seen_once_an_epoch_in_an_order_of_its_own(make_model: Make, trajectory: Make) -> None:
    train = shown(trajectory)
    learned = learner(make_model())
    seen: list[str] = []
    imitate = learned.imitate
    learned.imitate = lambda given: (seen.extend(row.rollout_id for row in given), imitate(given))[1]  # type: ignore[method-assign]
    for _ in islice(epochs(learned, train, train, Progress(), batch_tokens=20, seed=1), 2):
        pass
    first, second = seen[: len(train)], seen[len(train) :]
    assert sorted(first) == sorted(second) == sorted(row.rollout_id for row in train)
    assert first != second
