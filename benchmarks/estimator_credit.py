"""Does the SPA estimator credit the turns that brought an episode nearer to its goal?

    python benchmarks/estimator_credit.py            # writes benchmarks/results/estimator_credit.json
    python benchmarks/estimator_credit.py --seeds 1  # one estimator instead of three

Small TextWorld games are played by an expert that errs: in each episode it moves at random with a probability of its
own, drawn from [0, 1], and the episode is cut after a number of turns of its own, drawn from 4 to 10. A small language
model, made from nothing, reads the training games' won episodes. With a head on the last token of each turn it is then
fitted to the outcomes of all training episodes, won = 1 or 0, less their mean, so that to know nothing is to say
nothing. It is never shown what a single turn brought.

On games that nobody trained on, each turn's share is compared with TextWorld's own sub-goal progress of that turn by
Spearman's rank correlation over all turns; the interval is a bootstrap over games. Won episodes are the shorter ones,
so a credit that knows the length alone agrees with progress to some extent over all turns; within an episode, where the
length is the same for all turns, it says nothing, and the correlation there is given too. Beside it stand credits that
need no model, among them those that know the outcome or the length of the episode, and an estimator of the same making
whose training outcomes were shuffled.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agentgym.policy import Context, sample_seed
from agentgym.policy.scripted import ScriptedPolicy, expert, random_admissible
from agentgym.registry import make
from agentgym.remote import WorkerPool
from agentgym.render import Renderer
from agentgym.rollout import Request, Rollouts, completed
from agentgym.train import imitation
from agentgym.train.estimator import Fit, ProgressEstimator, Reads, fit
from agentgym.train.factory import build_model, build_tokenizer
from agentgym.train.learner import Learner
from agentgym.train.optimizer import optimizers
from agentgym.types import Trajectory

Reals = NDArray[np.float64]

WORLD: dict[str, Any] = {
    "theme": "basic",
    "rooms": 3,
    "objects": 4,
    "quest_length": 4,
    "remind": True,
    "show_admissible": False,
    "games": {"train": 200, "test": 60},
}
PLAYED = {"train": (200, 6), "test": (60, 4)}
"""Games of each split, and episodes of each game."""
BUDGETS = (4, 10)
"""Fewest and most turns after which an episode is cut."""
MODEL = {"layers": 2, "width": 64, "heads": 4}
CONTEXT = 2048
BATCH_TOKENS = 2048
READING_EPOCHS = 4
FIT, RATE = Fit(epochs=3, episodes=16), 5e-3
RESAMPLES = 2000
RESULT = Path(__file__).parent / "results" / "estimator_credit.json"


# ---------------------------------------------------------------------------------------------------------- episodes


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode, what it came to, and what the engine says that each of its turns brought."""

    trajectory: Trajectory
    game: int
    won: float
    progress_T: Reals


def erring_expert(context: Context) -> str:
    """Play by the expert's plan, or at random with a probability that belongs to the episode."""
    episode = np.frombuffer(context.rollout_id.encode(), np.uint8)
    errs = np.random.default_rng(episode).random()
    if np.random.default_rng([context.seed, 1]).random() < errs:
        return random_admissible(context)
    return expert(context)


def requests(split: str, seed: int) -> list[Request]:
    games, plays = PLAYED[split]
    world = make("textworld", **WORLD)
    asked = []
    for game, task in enumerate(world.tasks(split)[:games]):
        for play in range(plays):
            one = sample_seed(seed, game, play)
            budget = int(np.random.default_rng(one).integers(BUDGETS[0], BUDGETS[1] + 1))
            cut = replace(task, max_turns=budget)
            asked.append(Request(f"{split}/{seed}/{game:03d}/{play}", f"{split}/{game:03d}", cut, one))
    world.prepare(split, count=games)
    world.close()
    return asked


async def play(split: str, seed: int) -> list[Episode]:
    with WorkerPool("textworld", WORLD, workers=2) as pool:
        rollouts = Rollouts(pool.environment, ScriptedPolicy(erring_expert), concurrency=8)
        try:
            trajectories = completed(await rollouts.run(requests(split, seed)))
        finally:
            rollouts.close()
    return [_episode(trajectory) for trajectory in trajectories]


def _episode(trajectory: Trajectory) -> Episode:
    won = trajectory.signal("won")
    progress = [trajectory.signal("progress", turn=turn) for turn in range(len(trajectory.turns))]
    assert won is not None
    assert won.value is not None
    values = [signal.value for signal in progress if signal is not None and signal.value is not None]
    assert len(values) == len(trajectory.turns)
    return Episode(trajectory, int(trajectory.group_id.rpartition("/")[2]), won.value, np.array(values))


# --------------------------------------------------------------------------------------------------------- estimator


def reader(train: Sequence[Episode], seed: int) -> tuple[Any, Any]:
    """Return a model and its tokenizer that have read the training episodes that were won."""
    turns = [turn for episode in train for turn in episode.trajectory.turns]
    texts = [message.content for turn in turns for message in (*turn.observation, turn.sample.message)]
    tokenizer = build_tokenizer(texts, kind="word", vocab_size=512, max_context=CONTEXT)
    model = build_model(tokenizer, **MODEL, max_context=CONTEXT, seed=seed)
    renderer = Renderer(tokenizer)
    won = [imitation.as_row(renderer, episode.trajectory, read=True) for episode in train if episode.won]
    shown, held_out = imitation.split(won, 0.1)
    learner = Learner(
        model,
        lr=RATE,
        weight_decay=0.01,
        max_grad_norm=1.0,
        token_budget=8192,
        warmup_steps=20,
        decay_steps=READING_EPOCHS * (sum(len(row.ids_N) for row in shown) // BATCH_TOKENS + 1),
        muon=True,
    )
    progress = imitation.Progress()
    epochs = imitation.epochs(learner, shown, held_out, progress, batch_tokens=BATCH_TOKENS, seed=seed)
    for _ in range(READING_EPOCHS):
        next(epochs)
        print(f"  seed {seed} reads: {progress.valid_loss:.3f} nats a token on what was held out", flush=True)
    return model, tokenizer


def estimated(
    estimator: ProgressEstimator, train: Sequence[Episode], test: Sequence[Episode], outcomes: Reals, seed: int
) -> list[Reals]:
    """Fit ``estimator`` to the outcomes of ``train``, and return its share (T,) of each turn of ``test``."""
    rows = [estimator.read(episode.trajectory) for episode in train]
    steps = optimizers(estimator.model, estimator.head, lr=RATE, weight_decay=0.01, muon=True)
    for error in fit(estimator, steps, rows, (outcomes - outcomes.mean()).tolist(), FIT, seed=seed):
        print(f"  seed {seed} on {estimator.reads}: squared error {error:.3f}", flush=True)
    with torch.no_grad():
        shares = estimator.credit([estimator.read(episode.trajectory) for episode in test])
    return [share_T.double().numpy() for share_T in shares]


def estimates(train: Sequence[Episode], test: Sequence[Episode], seeds: int) -> dict[str, list[Reals]]:
    """Return the shares by estimators of several seeds, and for the first by its variant and its control."""
    outcomes = np.array([episode.won for episode in train])
    credits = {}
    for seed in range(seeds):
        model, tokenizer = reader(train, seed)

        def new(reads: Reads, model: Any = model, tokenizer: Any = tokenizer) -> ProgressEstimator:
            return ProgressEstimator(copy.deepcopy(model), tokenizer, reads=reads)

        credits[f"estimator, seed {seed}"] = estimated(new("hidden"), train, test, outcomes, seed)
        if seed == 0:
            shuffled = np.random.default_rng(seed).permutation(outcomes)
            credits["estimator on logits, seed 0"] = estimated(new("logits"), train, test, outcomes, seed)
            credits["estimator, outcomes shuffled"] = estimated(new("hidden"), train, test, shuffled, seed)
    return credits


# -------------------------------------------------------------------------------------------------------- comparison


def ranks(values_N: Reals) -> Reals:
    """Return the rank of each value, ties their mean rank."""
    _, place, count = np.unique(values_N, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place])


def spearman(a_N: Reals, b_N: Reals) -> float:
    """Return the rank correlation; NaN where one of the two is constant."""
    a, b = ranks(a_N), ranks(b_N)
    if a.min() == a.max() or b.min() == b.max():
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def resampled(test: Sequence[Episode]) -> Iterator[NDArray[np.int64]]:
    """Yield the episodes of games drawn with replacement, as many games as there are."""
    games = np.array([episode.game for episode in test])
    of_game = [np.flatnonzero(games == game) for game in np.unique(games)]
    random = np.random.default_rng(0)
    for _ in range(RESAMPLES):
        yield np.concatenate([of_game[i] for i in random.integers(0, len(of_game), len(of_game))])


def table(credits: dict[str, list[Reals]], test: Sequence[Episode]) -> dict[str, dict[str, Any]]:
    """Return for each credit its rank correlation with progress, over all turns and within the episodes, with
    intervals, and how far it is above the credit "t/T".
    """
    progress = [episode.progress_T for episode in test]

    def over_all(credit: list[Reals], chosen: Sequence[int] | NDArray[np.int64]) -> float:
        return spearman(np.concatenate([credit[i] for i in chosen]), np.concatenate([progress[i] for i in chosen]))

    everything = range(len(test))
    draws = list(resampled(test))
    drawn = {name: np.array([over_all(credit, draw) for draw in draws]) for name, credit in credits.items()}
    rows = {}
    for name, credit in credits.items():
        within = np.array([spearman(c, p) for c, p in zip(credit, progress, strict=True)])
        rows[name] = {
            "rank correlation": _rounded(over_all(credit, everything)),
            "95 % interval": _interval(drawn[name]),
            "above t/T by, 95 % interval": _interval(drawn[name] - drawn["t/T"]),
            "within episodes, mean": _rounded(float(np.nanmean(within)) if np.isfinite(within).any() else float("nan")),
        }
    return rows


def _interval(values_N: Reals) -> list[float] | None:
    if np.isnan(values_N).any():
        return None
    return [round(float(end), 3) for end in np.quantile(values_N, (0.025, 0.975))]


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 3)


def without_a_model(test: Sequence[Episode]) -> dict[str, list[Reals]]:
    """Return the credits that any fool could give; some of them know how the episode went."""
    random = np.random.default_rng(0)
    rules: dict[str, Callable[[int, Episode], Reals]] = {
        "t/T": lambda n, _: np.arange(1, n + 1) / n,
        "-t": lambda n, _: -np.arange(n, dtype=float),
        "constant": lambda n, _: np.zeros(n),
        "random": lambda n, _: random.random(n),
        "1/T (knows the length)": lambda n, _: np.full(n, 1 / n),
        "won/T (knows the outcome)": lambda n, episode: np.full(n, episode.won / n),
    }
    return {name: [rule(len(episode.progress_T), episode) for episode in test] for name, rule in rules.items()}


def described(episodes: Sequence[Episode]) -> dict[str, Any]:
    lengths = np.array([len(episode.progress_T) for episode in episodes], float)
    won = np.array([episode.won for episode in episodes])
    progress = np.concatenate([episode.progress_T for episode in episodes])
    return {
        "games": len({episode.game for episode in episodes}),
        "episodes": len(episodes),
        "turns": int(lengths.sum()),
        "won": round(float(won.mean()), 3),
        "rank correlation of length and outcome": _rounded(spearman(lengths, won)),
        "turns that gain, keep, lose": [round(float(share), 3) for share in _shares(progress)],
    }


def _shares(progress_N: Reals) -> tuple[float, float, float]:
    return float((progress_N > 0).mean()), float((progress_N == 0).mean()), float((progress_N < 0).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="estimators to train")
    asked = parser.parse_args()
    started = time.monotonic()
    train, test = (asyncio.run(play(split, seed)) for split, seed in (("train", 1), ("test", 2)))
    played = time.monotonic()
    credits = without_a_model(test) | estimates(train, test, asked.seeds)
    result = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__},
        "world": WORLD,
        "model": MODEL,
        "fit": asdict(FIT) | {"reading epochs": READING_EPOCHS, "rate": RATE},
        "train": described(train),
        "test": described(test),
        "seconds": {"playing": round(played - started), "training": round(time.monotonic() - played)},
        "credit": table(credits, test),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
