"""Published compositions as recipes, by the names of their methods.

=============  ================  ==================================================================================
recipe         arXiv             reads, besides the outcome
=============  ================  ==================================================================================
`posterior`    2508.05170        ``grade`` of `grading.GradeJudge`
`sophiavl`     2505.17018        ``grade``
`par`          2502.18770        ``grade``
`grm`          2504.02495        ``grade``, and ``grade_trust`` where only the most trusted vote
`ensemble`     2312.09244        ``grade``, a sample for each member
`robust`       2409.15360        ``grade``, a sample for each member
`all_good`     2402.00742        ``principle`` of `principles.PrincipleJudge`
`principled`   2509.21319        ``principle``
`rlvrr`        –                 ``principle`` and the task's key content
`ppr`          2509.25598        ``principle_step`` of `principles.PrincipleStepJudge`
`clip_delta`   2410.15115        ``principle_step``, or another score of steps
`cm2`          –                 ``checklist_item`` of `checklist_judge.ChecklistJudge`
`carr`         2601.06021        ``rubric_identified``, ``rubric_supported`` of `rubric_judge.RubricJudge`
`scribe`       2601.03555        ``skill_routed``, ``skill_criterion`` of `skills.SkillJudge`
`arena`        2601.06487        ``place`` of `tournament.Tournament`
`brpo`         2506.00103        ``against_reference``, ``is_reference`` of `in_group.InGroupReference`
`spa`          2505.20732        ``progress_estimate`` of `agentgym.train.estimator.EstimatorProbe`, ``grounded``
`pav`          2410.08146        ``verified_gain`` of `verifier.VerifierProgress`
`verpo`        2601.03525        ``tests``, item by item
`ssl`          2601.22491        ``progress``
`toolrl`       2504.13958        the task's sections and calls
`sar`          2509.05489        ``answer_logprob``, ``answer_logprob_alone`` of `aligned.AnswerLogprobs`
`likely`       –                 ``reference_logprob_mean`` of `likelihood.ReferenceLogprob`
`grpo_lambda`  2505.18086        how long the episodes are
=============  ================  ==================================================================================

A number that the paper does not give, or that could not be verified, has no default. ``worst`` and ``best`` are the
ends of the scale a judge was told to grade on. A number of members is that of a panel: a judge whose n-th sample is
what its n-th member says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from agentgym.errors import ConfigError, unknown_name
from agentgym.reward import Shaper, signal

from .aligned import self_aligned
from .centring import preference
from .checklist import PAPER, SHIPPED, Assignment, checklist
from .efficiency import conditional_length
from .gates import before_last
from .grading import GRADE, Vote, graded
from .in_group import brpo
from .length import Unit
from .mixes import citation, citation_unscaled, renorm, trusted
from .mixes import posterior as posterior_of
from .outcome import outcome as outcome_of
from .principles import STEP, WHOLE_ANSWER, principles
from .progress import delta as differences
from .progress import spa
from .reducers import all_good as all_good_of
from .reducers import cautious, mean, median, nominal_and_worst
from .reducers import worst as least
from .reference import ordered_key_content, reference_logprob
from .rubric import rubric
from .sequences import length_decay
from .skills import Adds, skilled
from .step import step
from .tiers import gained
from .tiers import ssl as ssl_of
from .toolrl import toolrl
from .tournament import Ties, ranked
from .transforms import clip_negative, scale
from .verification import Density, weighted_tests

_REDUCERS = {"mean": mean, "median": median, "worst": least}


def posterior(worst: float = 0.0, best: float = 10.0, outcome: str = "won") -> Shaper:
    """Return Posterior-GRPO: the outcome, and the grade of the way there where that succeeds.

    `mixes.posterior` takes the reward of the format as well, which is a world's own.

    Keeps *sign consistency*.
    """
    return posterior_of(outcome_of(outcome), graded(low=worst, high=best))


def sophiavl(
    alpha: float = 0.3, over: int = 500, worst: float = 0.0, best: float = 10.0, outcome: str = "won"
) -> Shaper:
    """Return SophiaVL-R1: the outcome, and a grade as far as the group bears it out, fading over training.

    Keeps *sign consistency*.
    """
    return trusted(outcome_of(outcome), graded(low=worst, high=best), alpha=alpha, over=over)


def par(reference: float, k: float = 1.0, worst: float = 0.0, best: float = 10.0) -> Shaper:
    """Return PAR: how probably the answer is preferred to one that the same judge grades ``reference``."""
    return graded(low=worst, high=best).then(scale((0.0, 1.0), (worst, best))).then(preference(reference, k=k))


def grm(worst: float = 0.0, best: float = 10.0, vote: Vote = "mean", keep: int = 0) -> Shaper:
    """Return DeepSeek-GRM: the vote of several grades; ``keep`` above 0 hears only so many of the most trusted."""
    return graded(vote, low=worst, high=best, keep=keep or None)


def ensemble(members: int, reduce: str = "median", k: float = 1.0, worst: float = 0.0, best: float = 10.0) -> Shaper:
    """Return an ensemble of "Helping or Herding": ``mean``, ``median``, ``worst``, or ``cautious``: mean − k·σ."""
    panel = _panel(members, worst, best)
    if reduce == "cautious":
        return cautious(*panel, k=k)
    if reduce not in _REDUCERS:
        raise unknown_name("way to reduce an ensemble", reduce, [*_REDUCERS, "cautious"])
    return _REDUCERS[reduce](*panel)


def robust(share: float, members: int, worst: float = 0.0, best: float = 10.0) -> Shaper:
    """Return reward-robust RLHF: ``share`` of the members' mean and the rest of their least."""
    panel = _panel(members, worst, best)
    return nominal_and_worst(mean(*panel), *panel, share=share)


def all_good(references: Mapping[str, float], floor: float) -> Shaper:
    """Return the log-probability that every principle is kept, each compared with its reference: transform, combine.

    Breaks *scale honesty*: it is a log-probability.
    """
    members = [
        signal(WHOLE_ANSWER, scope="trajectory", item=item, component=item, low=0, high=1) for item in references
    ]
    return all_good_of(*members, references=list(references.values()), floor=floor)


def principled(weights: Mapping[str, float] | None = None) -> Shaper:
    """Return RLBFF, RewardAnything and SALMON: the weighted share of principles kept, whichever hold by then."""
    return principles(weights)


def rlvrr(content: float, style: float, tag: str = "") -> Shaper:
    """Return RLVRR: the reference's key content in its order, and the share of stylistic principles kept."""
    return content * ordered_key_content(tag=tag) + style * principles().named("style")


def ppr(beta: float = 1.0, outcome: str = "won") -> Shaper:
    """Return PPR with ReNorm: each step's score less ``beta``, plus the outcome, which is paid at the end too.

    Keeps *sign consistency*. Breaks *bounded*: every turn is judged. Breaks *prefix-only*: the outcome moves every
    turn, and the last pays nothing.
    """
    return renorm(outcome_of(outcome), step(STEP, low=0.0, high=1.0), beta=beta)


def clip_delta(eta: float, score: str = STEP, outcome: str = "won") -> Shaper:
    """Return Clip and Delta: the outcome, and step scores that neither many steps nor repeated ones add to.

    Breaks *prefix-only*: a turn is paid less for what the next one scores.
    """
    scores = before_last(step(score, low=0.0, high=1.0))
    return outcome_of(outcome) + scores.then(clip_negative(eta)).then(differences())


def cm2(assignment: Assignment = "trajectory", shipped: bool = False) -> Shaper:
    """Return CM2: the task's checklist, assigned to the trajectory, its stages or its steps.

    The paper's equations are the default, since the code pays items whose dependencies fail; ``shipped`` does as it.

    Breaks *bounded*: assigned to stages and steps it is an advantage, paid at every turn. Breaks *prefix-only*: an
    item is then paid for whenever it is satisfied.
    """
    return checklist(assignment, terms=SHIPPED.get(assignment, PAPER) if shipped else PAPER)


def carr(alpha: float = 0.3, shipped: bool = False, outcome: str = "won") -> Shaper:
    """Return C-GRPO: for the solved, the outcome and the rubric over the group's best; ``shipped``: undivided.

    Keeps *sign consistency*.
    """
    mix = citation_unscaled if shipped else citation
    return mix(outcome_of(outcome), rubric(), alpha=alpha)


def scribe(weight: float, adds: Adds, outcome: str = "won") -> Shaper:
    """Return SCRIBE: the outcome, and at each turn how well the skill it called for was done, by ``mean`` or ``all``.

    Breaks *bounded*: every turn that is done well is paid.
    """
    return outcome_of(outcome) + weight * skilled(adds)


def arena(ties: Ties = "mean") -> Shaper:
    """Return ArenaRL: 1 for the best of the siblings down to 0, by the matches they played."""
    return ranked(ties)


def pav(alpha: float, outcome: str = "won") -> Shaper:
    """Return PAV: the outcome, and how much each turn changed a prover's chance of success.

    What an episode gains is its last chance less its first, within −1 and 1.
    """
    gain = step("verified_gain", low=-1.0, high=1.0)
    whole = replace(gain, parts=tuple(replace(part, total=(-1.0, 1.0)) for part in gain.parts))
    return outcome_of(outcome) + alpha * whole


def verpo(sigma: float, delta: float, beta: float, gamma: float, alpha: float = 2.0, outcome: str = "won") -> Shaper:
    """Return VeRPO: the outcome, which fades with length, and the tests each turn passes, by how hard they are.

    Breaks *bounded*: every turn is paid for all that passes at it. Breaks *prefix-only*: how hard a test is shows over
    the whole group.
    """
    return outcome_of(outcome).then(length_decay(gamma)) + beta * weighted_tests(Density(sigma, delta, alpha))


def ssl(
    alpha: float, edges: Sequence[float], values: Sequence[float], gain: str = "progress", outcome: str = "won"
) -> Shaper:
    """Return SSL: the outcome, and the tier that the sum of what was gained is in."""
    return ssl_of(gained(gain, low=-1.0), alpha=alpha, edges=edges, values=values, outcome=outcome)


def sar(weight: float = 0.2, outcome: str = "won") -> Shaper:
    """Return SAR: the outcome, and how much likelier the answer is for having heard the question."""
    return outcome_of(outcome) + weight * self_aligned()


def likely(floor: float) -> Shaper:
    """Return the log-probability of the reference, put on a scale from ``floor`` nats a token to certainty."""
    return reference_logprob(floor)


def grpo_lambda(alpha: float, pass_rate: float, unit: Unit = "tokens", outcome: str = "won") -> Shaper:
    """Return GRPO-λ: the outcome, less a penalty on length where the group succeeds at least so often.

    Keeps *sign consistency*.
    """
    return conditional_length(outcome_of(outcome), alpha=alpha, pass_rate=pass_rate, unit=unit)


def _panel(members: int, worst: float, best: float) -> list[Shaper]:
    """Return what each member of a panel says, in [0, 1]: the samples of a judge whose samples are its members."""
    if members < 1 or not worst < best:
        raise ConfigError(f"{members} members on a scale from {worst:g} to {best:g}; give one or more, the worst first")
    members_said = (
        signal(GRADE, scope="trajectory", item=str(number), low=worst, high=best).then(scale((worst, best)))
        for number in range(members)
    )
    return [member.named(f"{GRADE}_{number}") for number, member in enumerate(members_said)]


__all__ = [
    "all_good",
    "arena",
    "brpo",
    "carr",
    "clip_delta",
    "cm2",
    "ensemble",
    "grm",
    "grpo_lambda",
    "likely",
    "par",
    "pav",
    "posterior",
    "ppr",
    "principled",
    "rlvrr",
    "robust",
    "sar",
    "scribe",
    "sophiavl",
    "spa",
    "ssl",
    "toolrl",
    "verpo",
]
