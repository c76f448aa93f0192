"""Opening an episode again at any of its turns, by playing its actions in a fresh world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import TypeVar

from agentgym.env import Environment
from agentgym.errors import AgentgymError, InfrastructureError, UsageError
from agentgym.rollout import world_seed
from agentgym.types import Observation, Trajectory

T = TypeVar("T")


class Replay:
    """An `agentgym.probe.OpenAt` for worlds that go the same way whenever they are dealt with in the same way.

    What the world answers is compared with what was recorded. Turns opened in rising order are played once, where the
    world can snapshot: it is put back before it goes on, whatever was done to it while it was open. Where it cannot, it
    starts over each time.

    One world serves all, so one turn is open at a time. Close it, or use it as a context manager.

    Args:
        make_environment: gives a world like the one the episodes were played in.
    """

    def __init__(self, make_environment: Callable[[], Environment]) -> None:
        self._make_environment = make_environment
        self._environment: Environment | None = None
        self._trajectory: Trajectory | None = None
        self._turn = 0
        "Where the world stands in ``_trajectory``."
        self._lost: tuple[Trajectory, int, str] | None = None
        "An episode that went another way, after how many turns, and how."

    def __call__(self, trajectory: Trajectory, turn: int) -> AbstractContextManager[Environment]:
        """Return the world as it stood before ``turn`` was acted; ``len(trajectory.turns)``: as it was left.

        Raises:
            UsageError: the episode has no such turn, or its task is none of this world's.
            InfrastructureError: the world failed, or went another way than it did.
        """
        if not 0 <= turn <= len(trajectory.turns):
            raise UsageError(f"trajectory '{trajectory.id}' has {len(trajectory.turns)} turns; there is no turn {turn}")
        return self._opened(trajectory, turn)

    def close(self) -> None:
        """Close the world. Twice is fine."""
        environment, self._environment, self._trajectory = self._environment, None, None
        if environment is not None:
            environment.close()

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @contextmanager
    def _opened(self, trajectory: Trajectory, turn: int) -> Iterator[Environment]:
        environment = self._advance(trajectory, turn)
        state_ref: str | None = None
        with suppress(NotImplementedError):
            state_ref = self._ask(environment.snapshot)
        try:
            yield environment
        finally:
            if state_ref is None:
                self._trajectory = None
            else:
                self._ask(partial(environment.restore, state_ref))

    def _advance(self, trajectory: Trajectory, turn: int) -> Environment:
        """Return the world, brought to ``turn`` from where it stands or else from the start."""
        if self._lost and self._lost[0] is trajectory and turn >= self._lost[1]:
            raise InfrastructureError(self._lost[2])
        if self._environment is None:
            self._environment = self._ask(self._make_environment)
        environment = self._environment
        if self._trajectory is not trajectory or self._turn > turn:
            seed, options = world_seed(trajectory.seed), {"task": trajectory.task}
            said, _ = self._ask(partial(environment.reset, seed=seed, options=options))
            self._trajectory, self._turn = trajectory, 0
            self._compare(said)
        while self._turn < turn:
            said = self._ask(partial(environment.step, trajectory.turns[self._turn].sample.message))[0]
            self._turn += 1
            self._compare(said)
        return environment

    def _compare(self, said: Observation) -> None:
        """Check what the world said against what it said when the episode was played."""
        trajectory, turn = self._trajectory, self._turn
        assert trajectory is not None
        ended = turn == len(trajectory.turns)
        recorded = trajectory.final_observation if ended else trajectory.turns[turn].observation
        if said == recorded:
            return
        self._trajectory = None
        self._lost = (
            trajectory,
            turn,
            (
                f"trajectory '{trajectory.id}' played again goes another way after {turn} turns: "
                f"the world said {_short(said)}, and {_short(recorded)} when it was recorded"
            ),
        )
        raise InfrastructureError(self._lost[2])

    def _ask(self, call: Callable[[], T]) -> T:
        """Return what the world answers; a world that fails is given up."""
        try:
            return call()
        except NotImplementedError:
            raise
        except UsageError:
            self._trajectory = None
            raise
        except Exception as error:  # the boundary: an environment may raise anything
            with suppress(Exception):
                self.close()
            if isinstance(error, AgentgymError):
                raise
            raise InfrastructureError(f"the world failed: {error!r}") from error


def _short(observation: Observation) -> str:
    return repr(" ".join(message.content for message in observation)[:120])


__all__ = ["Replay"]
