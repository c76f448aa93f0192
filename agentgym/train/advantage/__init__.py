"""From the rewards of sibling rollouts to one advantage for each turn.

A group is a dense grid: ``reward_GTC`` holds what component ``C`` paid rollout ``G`` at turn ``T``, ``alive_GT`` says
which turns were reached. `estimate` turns a batch of groups into advantages by one of `ESTIMATORS`:

==================  ====================================================================  ==========================
name                advantage of turn t of rollout i                                      source
==================  ====================================================================  ==========================
``turn_rtg_loo``    G_it − mean of G_jt over the *others* j that reached t                this module; see below
``rloo``            R_i − mean of R_j over the others                                     RLOO, arXiv 2402.14740
``dr_grpo``         R_i − mean(R)                                                         Dr. GRPO, arXiv 2503.20783
``grpo``            (R_i − mean(R)) / (std(R) + ε)                                        GRPO, arXiv 2402.03300
``reinforce_pp``    (G_it − mean) / (std + ε), both over every turn of the batch          REINFORCE++, arXiv 2501.03262
``gae``             Σ_u (γλ)^(u−t) δ_iu,  δ_it = r_it + γ V_i,t+1 − V_it                  GAE, arXiv 1506.02438
``rank``            (r_i − mean(r)) / (std(r) + ε), r_i = 1 − rank_i/(N−1)                ArenaRL, arXiv 2601.06487
``rank_least``      the same, where equals share the least of their ranks                 ArenaRL's repository
``gigpo_loo``       ``rloo`` + G_it − mean over the others' visits to the state of t      `states`; GiGPO
``gigpo``           the same with means that contain i, the first over all steps          GiGPO's repository
``rtmc``            mean return of those that did the same in the state − of all there    RTMC, arXiv 2604.11037
``as_paid``         r_it: the reward is an advantage already                              this package
==================  ====================================================================  ==========================

with R_i = Σ_t γ^t r_it and G_it = Σ_{u≥t} γ^(u−t) r_iu. Discounts are per turn, never per token.

Why "others that reached t": whether *they* reached it, and what they earned, does not depend on what i does at t, so
the baseline leaves the policy gradient unbiased, also where the policy chooses when to stop. A mean taken at each
turn index over all who are there (i included) and summed along the rollout does not: how many such means are
subtracted is i's own choice. ``benchmarks/estimators.py`` measures both against exact gradients.

The package knows neither torch nor trajectories. Gates and transforms have been applied before: normalising first and
gating then would leak what was gated away into everybody's mean.
"""

from __future__ import annotations

from agentgym.train.advantage.baseline import TurnBaseline
from agentgym.train.advantage.estimating import ESTIMATORS, Estimator, estimate, has_signal
from agentgym.train.advantage.estimators import (
    as_paid,
    group_centred,
    leave_one_out,
    reward_to_go,
    turn_gae,
    turn_leave_one_out,
)
from agentgym.train.advantage.grid import (
    Bools,
    Cells,
    Codes,
    GroupRewards,
    Reals,
    deltas_known,
    rest_known,
    returns_to_go,
    whole_known,
)
from agentgym.train.advantage.normalise import NegativeScaling, Scale, over_return_std, scaled, whitened
from agentgym.train.advantage.ranks import ranked, ranked_least
from agentgym.train.advantage.states import coded, gigpo, gigpo_leave_one_out, rtmc

__all__ = [
    "ESTIMATORS",
    "Bools",
    "Cells",
    "Codes",
    "Estimator",
    "GroupRewards",
    "NegativeScaling",
    "Reals",
    "Scale",
    "TurnBaseline",
    "as_paid",
    "coded",
    "deltas_known",
    "estimate",
    "gigpo",
    "gigpo_leave_one_out",
    "group_centred",
    "has_signal",
    "leave_one_out",
    "over_return_std",
    "ranked",
    "ranked_least",
    "rest_known",
    "returns_to_go",
    "reward_to_go",
    "rtmc",
    "scaled",
    "turn_gae",
    "turn_leave_one_out",
    "whitened",
    "whole_known",
]
