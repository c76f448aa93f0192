"""Composed rewards for plain Gymnasium users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from agentgym import registry
from agentgym.env import Info
from agentgym.errors import AgentgymError, ConfigError, InfrastructureError
from agentgym.recipes import resolve
from agentgym.reward import Shaper
from agentgym.types import (
    Action,
    Group,
    Observation,
    Signal,
    StopReason,
    Task,
    Trajectory,
    Turn,
    as_action,
    empty_sample,
)

WORLD_REWARD = "reward"
"""Name of the signal under which the world's own reward is recorded at each turn, here and in rollouts."""


class ShapedReward(
    gymnasium.Wrapper[Observation, "Action | str", Observation, "Action | str"], gymnasium.utils.RecordConstructorArgs
):
    """Pays a composed reward step by step; what a gate holds back is released on the step that opens it.

    Each step pays the difference between the price of the episode so far, as if it were cut here, and what was paid
    before. So the sum over an episode is its offline price, an amount that is not decided yet waits, and one that a
    later step takes back is charged. ``info["ledger"]`` holds the `Ledger` of the episode so far.

    Args:
        env: an `agentgym.env.Environment`, wrapped or not, whose ``metadata["signals"]`` names what it measures.
        reward: a `Shaper`, or the name of one as `agentgym.recipes.resolve` takes it.
        params: parameters of a named reward.

    Raises:
        ConfigError: the reward needs siblings, or a signal that the environment does not emit.
    """

    def __init__(
        self,
        env: gymnasium.Env[Observation, Action | str],
        reward: Shaper | str,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        gymnasium.utils.RecordConstructorArgs.__init__(self, reward=reward, params=params)
        super().__init__(env)
        self.shaper = reward if isinstance(reward, Shaper) else resolve(reward, params)
        if self.shaper.needs_group:
            raise ConfigError(f"reward '{self.shaper}' compares sibling episodes, and one environment has none")
        if "signals" not in env.metadata:
            raise ConfigError(
                f"environment {env.unwrapped} does not say what it measures; name it in metadata['signals']"
            )
        self.shaper.require({WORLD_REWARD, *env.metadata["signals"]}, f"environment {env.unwrapped}")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, Info]:
        """Start an episode; nothing is paid yet."""
        observation, info = super().reset(seed=seed, options=options)
        task = (options or {}).get("task")
        self._task = task if isinstance(task, Task) else Task(id=info["task_id"], prompt="", max_turns=0)
        self._seed = seed or 0
        self._turns: list[Turn] = []
        self._signals: list[Signal] = list(info["signals"])
        self._observation = observation
        self._paid = 0.0
        return observation, info

    def step(self, action: Action | str) -> tuple[Observation, float, bool, bool, Info]:
        """Act and return ``(observation, what is due now, terminated, truncated, info)``.

        Raises:
            InfrastructureError: the episode was lost, and has no price.
        """
        observation, reward, terminated, truncated, info = super().step(action)
        stop: StopReason | None = info["stop"]
        if stop is not None and not stop.scored:
            raise InfrastructureError(f"the episode ended by {stop}: it has no price")
        turn = len(self._turns)
        self._turns.append(Turn(self._observation, empty_sample(as_action(action)), np.empty(0, np.int32)))
        self._signals += [Signal(WORLD_REWARD, float(reward), "environment", turn=turn), *info["signals"]]
        self._observation = observation
        so_far = Trajectory(
            id=info["task_id"],
            group_id=info["task_id"],
            task=self._task,
            turns=tuple(self._turns),
            final_observation=observation,
            stop=stop or StopReason.MAX_TURNS,
            signals=tuple(self._signals),
            seed=self._seed,
        )
        (ledger,) = self.shaper(Group((so_far,)))
        due, self._paid = ledger.total() - self._paid, ledger.total()
        return observation, due, terminated, truncated, {**info, "ledger": ledger}


def make(
    world: str, *, reward: Shaper | str | None = None, reward_params: Mapping[str, Any] | None = None, **kwargs: Any
) -> gymnasium.Env[Observation, Action | str]:
    """Return a new environment, as `agentgym.registry.make` does, which pays ``reward`` if one is given.

    This is what ``gymnasium.make("agentgym/TextWorld-v0", reward="dense", reward_params={"progress": 0.5})`` calls.

    Raises:
        UnknownNameError: no such world, argument or reward.
        ConfigError: the reward cannot be paid step by step in this world, or its parameters are wrong.
    """
    if reward is None and reward_params is not None:
        raise ConfigError("reward_params without a reward; give reward='dense' or another one, too")
    environment = registry.make(world, **kwargs)
    if reward is None:
        return environment
    try:
        return ShapedReward(environment, reward, reward_params)
    except AgentgymError:
        environment.close()
        raise


__all__ = ["WORLD_REWARD", "ShapedReward", "make"]
