"""The whole reward of ToolRL and its published variants, each on the scale it was published with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agentgym.errors import unknown_name
from agentgym.reward import Scope, Shaper

from .format import SECTIONS, task_sections, well_formed
from .length import thought_length
from .scales import End, Scale
from .schedules import linear, switch
from .tools import Granularity, Unasked, tool_match

FORM = Scale(0, 1)
MATCH = Scale(-3, 3)


@dataclass(frozen=True, slots=True)
class Variant:
    """What one variant changes."""

    form: Scale = FORM
    match: Scale = MATCH
    granularity: Granularity = "fine"
    thought: End | None = None
    "Words of a thought that earn all of a length reward; None: there is none."


VARIANTS: Mapping[str, Variant] = {
    "published": Variant(),
    "equal_maximum": Variant(match=Scale(-1, 1)),  # CORRECTMAX1
    "coarse": Variant(granularity="coarse"),  # COARSEREWARD
    "intermediate": Variant(granularity="intermediate"),  # INTERMEDIATEREWARD
    "refined": Variant(granularity="refined"),  # REFINEDREWARD
    "two_stage": Variant(  # MAX1STEP30MAX3
        Scale(0, switch(1, 0.5, at=30)), Scale(switch(-1, -3, at=30), switch(1, 3, at=30))
    ),
    # SCHEDULEREWARD; its lower end of the format stops at -1, half way to the 0 it aims for
    "scheduled": Variant(
        Scale(linear(-2, -1, over=75), linear(2, 1, over=150)), Scale(linear(-2, -3, over=150), linear(2, 3, over=150))
    ),
    "length": Variant(thought=512.0),  # WITHLENGTH
    "scheduled_length": Variant(thought=linear(384, 640, over=105)),  # WITHLENGTH and SCHEDULELENGTH
}
"""By name; the comments say which environment variables of the repository choose them."""


def toolrl(variant: str = "published", *, scope: Scope = "trajectory", unasked: Unasked = "lowest") -> Shaper:
    """Return ``R = R_fmt + R_corr``, in [-3, 4] as published: the format asked for, and the calls of the reference.

    ``task.data["sections"]`` and ``task.data["tool_calls"]`` (see `tools`) hold what is asked for. ``unasked="free"``
    is what the repository ships: where the reference has no call, any is as good as none. Source: arXiv 2504.13958.

    Breaks *scale honesty*: it is the published one. Breaks *prefix-only*: a turn's part is the smaller the more
    turns there are, and the last pays for those that are missing.

    Raises:
        UnknownNameError: no such variant.
    """
    if variant not in VARIANTS:
        raise unknown_name("variant of ToolRL", variant, VARIANTS)
    chosen = VARIANTS[variant]
    form = well_formed(task_sections, scope=scope, scale=chosen.form, needs=f"task.data['{SECTIONS}']")
    match = tool_match(scope=scope, granularity=chosen.granularity, scale=chosen.match, unasked=unasked)
    reward = form + match
    return reward if chosen.thought is None else reward + thought_length(chosen.thought)


__all__ = ["VARIANTS", "Variant", "toolrl"]
