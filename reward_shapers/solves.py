"""Sub-answers that tool calls bring to light (FTRL, arXiv 2508.08791).

``task.data["sub_answers"]`` holds, for each tool, the answers that its output is to show, and ``task.data["answer"]``
the final one. A call solves at most one answer of its tool that was not solved before: one whose comma-separated parts
all occur in what the tool answered, case aside. A task without sub-answers is unmeasured, and so is everything from
the first call on whose output was not recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agentgym.errors import TaskError, unknown_name
from agentgym.reward import Amount, Shaper, per_trajectory
from agentgym.types import Message, Task, ToolCall, Trajectory

from .format import calls_readable
from .reference import ANSWER, references

SUB_ANSWERS = "sub_answers"
Form = Literal["f1", "precision", "recall", "product"]
_HIGH: Mapping[str, float] = {"f1": 2.0, "precision": 1.0, "recall": float("inf"), "product": float("inf")}
_NEEDS = f"task.data['{SUB_ANSWERS}'] and the output of every call"


@dataclass(frozen=True, slots=True)
class Step:
    """What a turn's calls came to."""

    calls: int
    solved: int
    "Answers solved by them that were not solved before."
    unsolved: int
    "Answers that were still to be solved before the turn."


def solve_f1() -> Shaper:
    """Return the whole episode's Solve-F1, in [0, 1]: ``2 solved / (calls + sub-answers)`` (FTRL's metric)."""

    def amount(trajectory: Trajectory) -> Amount:
        wanted = sub_answers(trajectory.task)
        steps = list(solving(trajectory))
        if wanted is None or len(steps) < len(trajectory.turns):
            return None
        calls, solved = sum(step.calls for step in steps), sum(step.solved for step in steps)
        return 2 * solved / (calls + sum(map(len, wanted.values())))

    return per_trajectory("solve_f1", amount, scope="trajectory", needs=_NEEDS, low=0.0, high=1.0)


def solve_step(form: Form = "f1") -> Shaper:
    """Return FTRL's reward of each turn on its published scale, which is no unit scale.

    A turn that makes ``p`` calls of which ``q`` solve something is paid ``2q/(p+1)``, at least 0 and below 2, or by
    ``form`` ``q/p``, ``q`` or ``q²/p``. One that makes none: -0.5 if it is empty, -0.3 if a call in it cannot be read,
    ``1/(1+u)`` if it holds the final answer, with ``u`` sub-answers left to be solved, 0.5 if none are left, else 0.
    Source: the repository of FTRL, where every turn is an episode of its own. Over an episode of many turns, empty
    turns add up without end; `solve_f1` does not.

    Breaks *bounded*: every turn is paid. Breaks *scale honesty*: it is the published one.

    Raises:
        UnknownNameError: no such form.
    """
    if form not in _HIGH:
        raise unknown_name("form of a solve reward", form, _HIGH)

    def amounts(trajectory: Trajectory) -> Sequence[Amount]:
        turns = trajectory.turns
        paid: list[Amount] = [
            _with_calls(step, form) if step.calls else _without_calls(trajectory, place, step)
            for place, step in enumerate(solving(trajectory))
        ]
        return [*paid, *[None] * (len(turns) - len(paid))]

    return per_trajectory("solve_step", amounts, scope="turn", needs=_NEEDS, low=-0.5, high=_HIGH[form])


def solving(trajectory: Trajectory) -> Iterator[Step]:
    """Yield what each turn solves, up to the first with a call whose output was not recorded.

    Raises:
        TaskError: the task's sub-answers are malformed.
    """
    wanted = sub_answers(trajectory.task)
    if wanted is None:
        return
    left = {tool: list(answers) for tool, answers in wanted.items()}
    after = [*(turn.observation for turn in trajectory.turns[1:]), trajectory.final_observation]
    for turn, observation in zip(trajectory.turns, after, strict=False):
        calls, unsolved = turn.sample.message.tool_calls, sum(map(len, left.values()))
        outputs = _outputs(observation)
        if any(call.id not in outputs for call in calls):
            return
        solved = sum(_solves(call, outputs[call.id], left) for call in calls)
        yield Step(len(calls), solved, unsolved)


def sub_answers(task: Task) -> Mapping[str, tuple[str, ...]] | None:
    """Return the answers that each tool is to show, or None where the task does not say.

    Raises:
        TaskError: they are no lists of texts by tool, or there are none.
    """
    found = task.data.get(SUB_ANSWERS)
    if SUB_ANSWERS not in task.data:
        return None
    match found:
        case Mapping() if found and all(_are_texts(answers) for answers in found.values()):
            return {str(tool): tuple(answers) for tool, answers in found.items()}
    raise TaskError(
        f"task '{task.id}': data['{SUB_ANSWERS}'] must hold a list of answers for each tool; found {found!r}"
    )


def _are_texts(answers: object) -> bool:
    if not isinstance(answers, Sequence) or isinstance(answers, str):
        return False
    return bool(answers) and all(isinstance(answer, str) and _parts(answer) for answer in answers)


def _outputs(observation: Sequence[Message]) -> dict[str, str]:
    return {message.tool_call_id: message.content for message in observation if message.tool_call_id is not None}


def _solves(call: ToolCall, output: str, left: Mapping[str, list[str]]) -> bool:
    """Return whether ``call`` solves one of its tool's answers, and take that from those ``left``."""
    answers = left.get(call.name, [])
    for answer in answers:
        if all(part in output.lower() for part in _parts(answer)):
            answers.remove(answer)
            return True
    return False


def _parts(answer: str) -> list[str]:
    return [part.strip().lower() for part in answer.split(",") if part.strip()]


def _with_calls(step: Step, form: Form) -> float:
    p, q = step.calls, step.solved
    return {"f1": 2 * q / (p + 1), "precision": q / p, "recall": float(q), "product": q * q / p}[form]


def _without_calls(trajectory: Trajectory, place: int, step: Step) -> float:
    turn, task = trajectory.turns[place], trajectory.task
    if not turn.sample.message.content.strip():
        return -0.5
    if not calls_readable(turn, task):
        return -0.3
    said = _bare(turn.sample.message.content)
    if ANSWER in task.data and any(_bare(reference) in said for reference in references(task) or ()):
        return 1 / (1 + step.unsolved)
    return 0.0 if step.unsolved else 0.5


def _bare(text: str) -> str:
    return text.lower().replace(",", "").strip()


__all__ = ["SUB_ANSWERS", "Form", "Step", "solve_f1", "solve_step", "solving", "sub_answers"]
