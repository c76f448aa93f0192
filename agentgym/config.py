"""The configuration of a run: TOML in, one frozen model out, nothing unknown let through.

A run is described by a preset's name or a TOML file, with dotted overrides on top (``--train.lr 1e-4``). `load` puts
them together, `build` does so from plain data, and `dump` writes TOML that loads back equal. Whatever is wrong is
said in one `ConfigError`, one line for each key: where it is, what was found, what is allowed.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from agentgym.errors import ConfigError, unknown_name

Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]

WITHOUT_SIBLINGS = frozenset({"as_paid", "gae", "reinforce_pp"})
"Advantage estimators that take a group of one; all others compare siblings."

COMPARE_STATES = ("gigpo", "gigpo_loo")
"Advantage estimators that read train.omega."

READ_STATES = (*COMPARE_STATES, "rtmc")
"Advantage estimators that read train.states."


class Section(BaseModel):
    """A table of the configuration: frozen, closed, and strict about types (a whole number is a number)."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


class EnvConfig(Section):
    """Which world, and how it is run."""

    id: str = "textworld"
    "Name of the environment."
    options: dict[str, Any] = {}
    "Passed to the environment, which checks them."
    workers: Count = 2
    "Processes that run worlds: engines gain nothing from threads."
    concurrency: Count = 96
    "Episodes in flight; above groups x group_size x (1 + max_lag) it gains nothing."
    call_timeout_s: Positive = 60.0
    "Seconds one reset or step may take before its worker is replaced."
    retries: Whole = 2
    "Times an episode lost to the infrastructure is started again."


class ModelConfig(Section):
    """The policy's network. With a ``path`` the shape comes from there and the sizes here are not read."""

    path: str | None = None
    "Folder of an existing model in the Hugging Face layout; left out: a fresh model of the sizes below."
    layers: Count = 4
    width: Count = 128
    "Size of the residual stream; a multiple of 2 x heads."
    heads: Count = 4
    kv_heads: Count | None = None
    "Key-value heads, a divisor of heads; left out: as many as heads."
    ff: Count | None = None
    "Size of the feed-forward layer; left out: chosen from the width."
    tokenizer: Literal["word", "bpe"] = "word"
    "Trained on the demonstrations; word: one token a word, which suits a small closed vocabulary."
    vocab_size: Annotated[int, Field(ge=16)] = 4096
    "At most this many tokens; a small corpus yields fewer."
    max_context: Annotated[int, Field(ge=8)] = 1536
    "Tokens of one segment, the answer included."
    dtype: Literal["float32", "bfloat16"] = "float32"
    "Of the weights while training, and of the optimiser's moments, which then round at random."
    device: Literal["cpu", "cuda"] = "cpu"
    "Where the model learns. Runs on a GPU do not repeat to the bit."
    template: dict[str, Any] = {}
    "Variables of the chat template, such as enable_thinking = false."


class VllmConfig(Section):
    """The servers behind ``policy.engine = "vllm"``: launched and ended by the run, or running already."""

    urls: list[str] = []
    "Where servers of the model listen that run already; left out: the run launches its own."
    servers: Count = 1
    "So many are launched."
    python: str | None = None
    "Interpreter that has vLLM; left out: this one if it has, else that of `.venv-vllm`."
    dtype: Literal["float32", "bfloat16"] | None = None
    "Of the weights that are served; left out: that the learner computes in."
    options: dict[str, Any] = {}
    "Further options of vLLM's command line, such as gpu-memory-utilization = 0.5."
    folder: str = "/dev/shm"
    "Where weights are handed over: a folder that the trainer and the servers know by the same name."
    start_deadline_s: Positive = 600.0
    "Seconds until a launched server has to answer."
    sync_deadline_s: Positive = 120.0
    "Seconds one call of handing weights over may take."
    silence_s: Positive = 60.0
    "Seconds without a sign of life after which a server is given up."
    canary_tolerance: Positive | None = None
    "Nats by which a log-probability of trainer and server may differ; left out: that of the number format."


class PolicyConfig(Section):
    """How the policy answers while training."""

    engine: Literal["embedded", "vllm"] = "embedded"
    "embedded: torch in this process; vllm: servers, which are handed the weights after each step."
    temperature: Positive = 1.0
    "Of sampling. Greedy sampling leaves nothing to compare, so 0 is for evaluation only."
    max_tokens: Count = 16
    "Length of one answer."
    history: Literal["auto", "tokens", "turns"] = "auto"
    "tokens: a token buffer that grows; turns: rendered anew, a row each; auto: turns where the template rewrites it."
    turn_deadline_s: Positive = 300.0
    "Seconds one answer may take before the episode counts as lost to the infrastructure."
    vllm: VllmConfig = VllmConfig()


class ProbeConfig(Section):
    """Something that measures episodes once they have been played, such as a judge."""

    name: str
    "Name of a probe of `agentgym.reward_shapers.probes`, or module:callable."
    params: dict[str, Any] = {}
    "Passed to the probe, which checks them. A judge is a table: url, model and what else `endpoint` takes."


class RewardConfig(Section):
    """What is paid."""

    recipe: str = "dense"
    "Name of a recipe of `agentgym.reward_shapers`."
    params: dict[str, Any] = {}
    "Passed to the recipe, which checks them."
    probes: list[ProbeConfig] = []
    "Measure each group after its rollouts, in this order, before it is priced."


class AuditConfig(Section):
    """Attacks on the reward before the first step; see ``agentgym reward audit``."""

    max_rate: Fraction | None = None
    "Highest share of episodes any attack may work in for the run to start; left out: no audit."
    tasks: Count = 16
    "Training tasks that a random player fails at for it."


class PretrainConfig(Section):
    """A first reading of the worlds: language modelling on what a random player meets, no expert involved."""

    split: str = "train"
    tasks: Count | None = None
    "So many tasks of the split; left out: as many as are trained on."
    plays: Whole = 4
    "Random episodes of each of these tasks; 0, or a model with a path: no first reading."
    player: Literal["commands", "verbs"] = "commands"
    "What the random player draws: a command; or its first word and then the rest, where some verbs have many objects."
    lr: Positive = 2e-3
    batch_tokens: Count = 4096
    "Tokens of one step; holds at least one full context."
    valid_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.03
    "Share of the episodes held out to decide when to stop."
    max_epochs: Count = 4
    "Over which the learning rate falls to nearly nothing."
    patience: Count = 1
    "Epochs without a better held-out loss before it stops."


class WarmstartConfig(Section):
    """Supervised steps on an expert's episodes, before reinforcement."""

    split: str = "demo"
    episodes: Whole = 300
    "Demonstrations to learn from; 0: no warm start."
    lr: Positive = 1e-3
    weight_decay: NotNegative = 0.01
    batch_tokens: Count = 16384
    "Tokens of one step; holds at least one full context."
    valid_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    "Share of the episodes held out to decide when to stop."
    max_epochs: Count = 30
    patience: Count = 3
    "Epochs without a better held-out loss before it stops."


class NegativeConfig(Section):
    """Negative advantages times min(lambda0 + kappa * share of the group that succeeds, 1); see `NegativeScaling`."""

    lambda0: NotNegative
    "The factor where none succeeds."
    kappa: Annotated[float, Field(allow_inf_nan=False)]
    "What it gains where all do."


class LevelsConfig(Section):
    """Harder tasks come in as the policy masters easier ones; read where tasks say their level."""

    threshold: Fraction
    "Share of successes at the hardest open level that opens the next one."
    window: Count = 16
    "Over so many of its latest groups."


class TurnsConfig(Section):
    """A turn limit that grows with the steps, up to each task's own."""

    first: Count
    "Turns at the first step."
    every: Count
    "Steps after which it grows."
    add: Count = 1
    "Turns that it grows by."


class TrainConfig(Section):
    """The reinforcement steps."""

    steps: Whole = 60
    split: str = "train"
    groups: Count = 12
    "Tasks of one step."
    group_size: Count = 8
    "Episodes of one task; a group baseline needs 2."
    lr: Positive = 1e-4
    weight_decay: NotNegative = 0.01
    warmup_steps: Whole = 5
    "Steps in which the learning rate rises from 0."
    decay: Fraction = 0.0
    "Share of the steps, the last ones, over which it falls, linearly, to a twentieth."
    advantage: Literal[
        "turn_rtg_loo",
        "rloo",
        "dr_grpo",
        "grpo",
        "rank",
        "rank_least",
        "gigpo_loo",
        "gigpo",
        "rtmc",
        "reinforce_pp",
        "as_paid",
        "gae",
    ] = "turn_rtg_loo"
    "Estimator of `agentgym.train.advantage`."
    gamma: Fraction = 1.0
    "Discount of one turn."
    lam: Fraction = 1.0
    "Mixing of generalised advantages, read by estimators that have a value to bootstrap from."
    omega: NotNegative = 1.0
    "Weight of the part of GiGPO that compares states."
    states: Literal["observed", "world"] = "observed"
    "What a state is: the observation, or how the world stands, where it says so by the signal `repeated`."
    levels: LevelsConfig | None = None
    "A curriculum by success; left out: all tasks from the first step on."
    turns: TurnsConfig | None = None
    "A curriculum of growing turn limits; left out: each task's own."
    negative: NegativeConfig | None = None
    "Tones down negative advantages where few of a group succeed; left out: they are taken as they are."
    by_component: bool = False
    "Whether each reward component is normalised on its own before they are summed."
    scale: Literal["none", "group", "batch"] = "batch"
    "Over what the advantages are divided by their standard deviation."
    loss: Literal["clip", "cispo", "gspo_turn", "gspo_trajectory"] = "clip"
    "clip: a ratio for each token, clipped; cispo: its weight bounded; gspo: one ratio a turn or trajectory."
    clip_low: Annotated[float, Field(ge=0, lt=1)] = 0.2
    "How far below 1 the probability ratio may go."
    clip_high: NotNegative = 0.28
    "How far above 1 the probability ratio may go."
    kl: NotNegative = 0.0
    "Weight of the divergence from the reference."
    reference: str | None = None
    "A model's folder, or the URL of a vLLM server; left out: the weights that reinforcement started with."
    entropy: NotNegative = 0.0
    "Weight of the entropy bonus."
    epochs: Count = 1
    "Times each step's episodes are learnt from."
    minibatches: Count = 1
    "Optimiser steps of one epoch."
    token_budget: Count = 16384
    "Tokens of one forward pass; holds at least one full context."
    gradient_checkpointing: bool = False
    "Whether layers are computed again for their gradient instead of being kept."
    autocast: bool = False
    "Whether to compute in bfloat16 from weights that stay float32."
    max_grad_norm: Positive = 1.0
    max_lag: Whole = 0
    "Steps by which the weights that sampled may be older than those that learn; above 0 rollouts run ahead."
    correction: Literal["none", "truncate", "mask"] = "none"
    "What bounds the weight of a sample of other weights; none: it counts in full, and is what ratios start from."
    correction_level: Literal["token", "turn", "trajectory"] = "token"
    correction_low: NotNegative = 0.5
    "Below it a masked sample counts nothing."
    correction_high: Positive = 2.0
    "Above it a masked sample counts nothing, and a truncated one no more than this."


class EvalConfig(Section):
    """Measuring on tasks that are not trained on."""

    success: str = "won"
    "Signal of a whole episode that is 1 where it succeeded."
    split: str = "valid"
    games: Whole = 100
    "Tasks of one evaluation while training."
    every: Whole = 10
    "Steps between two evaluations; 0: only before and after."
    final_split: str = "test"
    final_games: Whole = 100
    "Tasks of the evaluation after the last step, on a split nothing was chosen by."
    temperature: NotNegative = 0.0
    "0 is greedy."


class CheckpointConfig(Section):
    """What is kept to resume from."""

    every: Count = 5
    "Steps between two checkpoints; the last step always makes one."
    keep: Count = 2
    "Newest checkpoints left on disk."


class RunConfig(Section):
    """Everything a run depends on, beside the code and the machine."""

    seed: Whole = 0
    deterministic: bool = False
    "Whether the same seed gives the same numbers on this machine; costs speed."
    threads: Count | None = None
    "CPU threads of torch; left out: as many as torch chooses."
    env: EnvConfig = EnvConfig()
    model: ModelConfig = ModelConfig()
    policy: PolicyConfig = PolicyConfig()
    reward: RewardConfig = RewardConfig()
    audit: AuditConfig = AuditConfig()
    pretrain: PretrainConfig = PretrainConfig()
    warmstart: WarmstartConfig = WarmstartConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if problems := list(_impossible(self)):
            raise ValueError("\n".join(problems))
        return self


Overrides = Mapping[str, object] | Sequence[str]
"""``{"train.lr": "1e-4"}``, or words as typed: ``["--train.lr", "1e-4", "--deterministic", "--seed=3"]``."""


def load(source: str | Path, overrides: Overrides = ()) -> RunConfig:
    """Return the configuration of a preset's name or a TOML file's path, with ``overrides`` on top.

    Raises:
        UnknownNameError: there is no such preset.
        ConfigError: the file cannot be read, or a key or value is wrong; every problem has its line.
    """
    return build(_read(source), overrides)


def build(data: Mapping[str, Any], overrides: Overrides = ()) -> RunConfig:
    """Return the configuration of plain nested ``data``, with ``overrides`` on top.

    Raises:
        ConfigError: a key or value is wrong; every problem has its line.
    """
    raw = _copy(data)
    problems = []
    for key, value in _pairs(overrides):
        path = key.split(".")
        if _field(path) is None:
            problems.append(_unknown(path))
        elif absent := _absent(raw, path):
            problems.append(absent)
        else:
            _put(raw, path, _parsed(path, value))
    try:
        config = RunConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join([*problems, *_lines(error)])) from None
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def dump(config: RunConfig) -> str:
    """Return ``config`` as TOML text that `load` reads back equal. What was left out stays left out.

    Raises:
        ConfigError: a free-form table holds something TOML has no word for.
    """
    try:
        return tomli_w.dumps(config.model_dump(exclude_none=True))
    except TypeError as error:
        raise ConfigError(
            f"env.options, reward.params or reward.probes: {error}; allowed: what TOML can hold"
        ) from None


def presets() -> list[str]:
    """Return the names of the configurations that ship with agentgym."""
    files = resources.files("agentgym.presets").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def _impossible(config: RunConfig) -> Iterator[str]:
    """Yield a line for each thing that cannot be although each value alone could."""
    yield from _impossible_model(config.model)
    yield from _impossible_train(config.train)
    if config.train.autocast and config.model.dtype != "float32":
        yield f"train.autocast: found true; allowed: false with model.dtype '{config.model.dtype}'"
    if (config.train.reference or "").startswith("http") and config.policy.temperature != 1:
        reason = "a server scores at 1"
        yield f"policy.temperature: found {config.policy.temperature:g}; allowed: 1 with a served reference: {reason}"
    if config.model.template and config.model.path is None:
        yield "model.template: found variables; allowed: left out without model.path: a fresh model's has none"
    if config.deterministic and config.model.device != "cpu":
        yield "deterministic: found true; allowed: false with model.device 'cuda'"
    if config.train.max_lag and config.policy.engine == "embedded":
        reason = "which samples from the very weights that are learnt"
        yield f"train.max_lag: found {config.train.max_lag}; allowed: 0 with policy.engine 'embedded', {reason}"
    context = config.model.max_context
    budgets = {"train.token_budget": config.train.token_budget}
    if config.pretrain.plays and config.model.path is None:
        budgets["pretrain.batch_tokens"] = config.pretrain.batch_tokens
    if config.warmstart.episodes:
        budgets["warmstart.batch_tokens"] = config.warmstart.batch_tokens
    for key, tokens in budgets.items():
        if tokens < context:
            yield f"{key}: found {tokens}; allowed: at least model.max_context ({context}), a whole episode"
    if (longest := config.policy.max_tokens) >= context:
        yield f"policy.max_tokens: found {longest}; allowed: below model.max_context ({context}), so that a prompt fits"


def _impossible_model(model: ModelConfig) -> Iterator[str]:
    if model.path is not None:
        return
    if model.width % (2 * model.heads):
        yield f"model.width: found {model.width}; allowed: a multiple of {2 * model.heads}, twice model.heads"
    if model.kv_heads is not None and model.heads % model.kv_heads:
        yield f"model.kv_heads: found {model.kv_heads}; allowed: a divisor of model.heads ({model.heads})"


def _impossible_train(train: TrainConfig) -> Iterator[str]:
    if train.group_size < 2:
        if train.advantage not in WITHOUT_SIBLINGS:
            reason = f"since '{train.advantage}' compares siblings"
            yield f"train.group_size: found {train.group_size}; allowed: at least 2, {reason}"
        if train.scale == "group":
            yield f"train.group_size: found {train.group_size}; allowed: at least 2 with train.scale 'group'"
    if train.omega != TrainConfig.model_fields["omega"].default and train.advantage not in COMPARE_STATES:
        allowed = f"left out with train.advantage '{train.advantage}'; {' and '.join(COMPARE_STATES)} read it"
        yield f"train.omega: found {train.omega:g}; allowed: {allowed}"
    if train.states != "observed" and train.advantage not in READ_STATES:
        allowed = f"left out with train.advantage '{train.advantage}'; {', '.join(READ_STATES)} read it"
        yield f"train.states: found '{train.states}'; allowed: {allowed}"
    if train.negative and (least := train.negative.lambda0 + train.negative.kappa) < 0:
        reason = "or failures would be rewarded where all succeed"
        yield f"train.negative: found lambda0 + kappa = {least:g}; allowed: at least 0, {reason}"
    if train.by_component and train.advantage == "gae":
        yield "train.by_component: found true; allowed: false with train.advantage 'gae', which values the sum"
    if (low := train.correction_low) > min(1.0, train.correction_high):
        yield f"train.correction_low: found {low}; allowed: at most 1, and at most train.correction_high"
    if train.reference is not None and not train.kl:
        yield f"train.reference: found '{train.reference}'; allowed: left out without train.kl, which measures from it"
    if train.minibatches > (episodes := train.groups * train.group_size):
        yield f"train.minibatches: found {train.minibatches}; allowed: at most the {episodes} episodes of a step"


def _read(source: str | Path) -> dict[str, Any]:
    if isinstance(source, str) and not source.endswith(".toml") and "/" not in source:
        if source not in presets():
            raise unknown_name("preset", source, presets())
        return tomllib.loads(resources.files("agentgym.presets").joinpath(f"{source}.toml").read_text("utf-8"))
    try:
        return tomllib.loads(Path(source).read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(f"{source}: cannot be read: {reason}; presets need no file: {', '.join(presets())}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not TOML: {error}") from None


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) for key, value in data.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _copy(value)
    return [_copied(part) for part in value] if isinstance(value, list) else value


def _pairs(overrides: Overrides) -> Iterator[tuple[str, object]]:
    if isinstance(overrides, Mapping):
        yield from overrides.items()
        return
    words = list(overrides)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if equals:
            yield key, value
        elif not word.startswith("--"):
            raise ConfigError(f"{word}: found alone; allowed: --section.key value, or section.key=value")
        elif words and not words[0].startswith("--"):
            yield key, words.pop(0)
        elif (field := _field(key.split("."))) is not None and field.annotation is bool:
            yield key, True
        elif field is None:
            yield key, ""
        else:
            raise ConfigError(f"{key}: found nothing after --{key}; allowed: {_allowed(field)}")


def _put(raw: Any, path: Sequence[str], value: object) -> None:
    *above, last = path
    for part in above:
        key = int(part) if isinstance(raw, list) else part
        if isinstance(raw, dict):
            raw.setdefault(key, {})
        if not isinstance(raw[key], (dict, list)):
            raw[key] = {}
        raw = raw[key]
    raw[int(last) if isinstance(raw, list) else last] = value


def _absent(raw: Any, path: Sequence[str]) -> str:
    """Return the line for an entry of a list in ``raw`` that is not there; nothing where all are."""
    for depth, part in enumerate(path):
        if isinstance(raw, list):
            if not (part.isdecimal() and int(part) < len(raw)):
                place, whole = ".".join(path[: depth + 1]), ".".join(path[:depth])
                return f"{place}: no such entry; allowed: one of the {len(raw)} of {whole}, counted from 0"
            raw = raw[int(part)]
        else:
            entries = _entry(_field(path[: depth + 1])) is not None
            raw = raw.get(part, [] if entries else {}) if isinstance(raw, dict) else {}
    return ""


def _parsed(path: Sequence[str], value: object) -> object:
    """Return the text of an override as its field's type, or unchanged where it is not that: the model then says so."""
    field = _field(path)
    if not isinstance(value, str) or field is None:
        return value
    kind = _kind(field)
    if kind is not field.annotation and value.lower() == "none":
        return None
    try:
        if kind in (int, float):
            return kind(value)
        if kind is bool:
            return {"true": True, "false": False}.get(value.lower(), value)
        if kind is dict or get_origin(kind) is list or len(path) > len(_declared(path)):
            return tomllib.loads(f"value = {value}")["value"]
    except (ValueError, tomllib.TOMLDecodeError):
        return value
    return value


def _declared(path: Sequence[str]) -> list[str]:
    """Return the part of ``path`` that the schema names; what follows a free-form table is the table's own."""
    for depth in range(1, len(path) + 1):
        field = _field(path[:depth])
        if field is None or _kind(field) is dict:
            return list(path[:depth])
    return list(path)


def _field(path: Sequence[str], section: type[BaseModel] | None = None) -> FieldInfo | None:
    """Return the field at ``path``, for a key inside a free-form table or an entry of a list that one's, or None."""
    name, *rest = path
    field = (section or RunConfig).model_fields.get(name)
    if field is None or not rest:
        return field
    kind = _kind(field)
    if kind is dict:
        return field if all(rest) else None
    if (entry := _entry(field)) is not None:
        number, *rest = rest
        if not number.isdecimal() or not rest:
            return field if number.isdecimal() else None
        kind = entry
    return _field(rest, kind) if isinstance(kind, type) and issubclass(kind, Section) else None


def _entry(field: FieldInfo | None) -> type[Section] | None:
    """Return the section that each entry of a list is, where ``field`` holds such a list."""
    kind = _kind(field) if field else None
    inside = get_args(kind)[0] if get_origin(kind) is list else None
    return inside if isinstance(inside, type) and issubclass(inside, Section) else None


def _kind(field: FieldInfo) -> Any:
    """Return the class or literal a field holds, leaving aside None and bounds."""
    kind: Any = field.annotation
    if get_origin(kind) in (Union, UnionType):
        kind = next(part for part in get_args(kind) if part is not NoneType)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return dict if get_origin(kind) is dict else kind


def _keys(number: str, section: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Yield every key of the schema; of lists, those of the entry ``number``."""
    for name, field in section.model_fields.items():
        kind, entry = _kind(field), _entry(field)
        if entry is not None:
            yield from _keys(number, entry, f"{prefix}{name}.{number}.")
            yield f"{prefix}{name}.{number}"
        elif isinstance(kind, type) and issubclass(kind, Section):
            yield from _keys(number, kind, f"{prefix}{name}.")
        yield prefix + name


def _unknown(path: list[str]) -> str:
    """Return the line for a key the schema does not have, with the nearest that it has."""
    number = next((part for part in path if part.isdecimal()), "0")
    known = [name.split(".") for name in _keys(number)]
    section = next(path[:depth] for depth in range(len(path) - 1, -1, -1) if not depth or path[:depth] in known)
    siblings = {name[-1]: name for name in known if name[:-1] == section}
    if not siblings:
        return f"{'.'.join(path)}: no such key; allowed: '{'.'.join(section)}' itself, which holds no table"
    wrong = path[len(section)]
    elsewhere = [name for name in known if name[-1] == path[-1] and number not in name]
    near = [siblings[name] for name in difflib.get_close_matches(wrong, siblings, n=1)] or elsewhere
    wanted = [".".join([*name, *path[len(name) :]]) for name in near]
    hint = f" did you mean {' or '.join(map(repr, wanted))}?" if near else ""
    where = f" in [{'.'.join(section)}]" if section else ""
    return f"{'.'.join(path)}: no such key;{hint} allowed{where}: {', '.join(sorted(siblings))}"


def _lines(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_url=False):
        path = [str(part) for part in problem["loc"]]
        if problem["type"] == "extra_forbidden":
            yield _unknown(path)
        elif problem["type"] == "missing":
            field = _field(path)
            yield f"{'.'.join(path)}: missing; allowed: {_allowed(field) if field else problem['msg']}"
        elif problem["type"] == "value_error":
            yield from str(problem["ctx"]["error"]).splitlines()
        else:
            field = _field(path)
            allowed = _allowed(field) if field else problem["msg"]
            yield f"{'.'.join(path)}: found {problem['input']!r}; allowed: {allowed}"


def _allowed(field: FieldInfo) -> str:
    """Return in words what a field may hold."""
    kind = _kind(field)
    optional = " (or left out)" if kind is not field.annotation and type(None) in get_args(field.annotation) else ""
    if get_origin(kind) is Literal:
        return " or ".join(f"'{choice}'" for choice in get_args(kind)) + optional
    if get_origin(kind) is list:
        return "a list of tables" if _entry(field) else "a list of texts"
    words = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}.get(kind, "a table")
    return f"{words}{_bounds(field)}{optional}"


def _bounds(field: FieldInfo) -> str:
    names = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    bounds = [
        f"{word} {limit}"
        for constraint in _constraints(field)
        for name, word in names.items()
        if (limit := getattr(constraint, name, None)) is not None
    ]
    return f" {' and '.join(bounds)}" if bounds else ""


def _constraints(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    for part in get_args(field.annotation):
        if get_origin(part) is Annotated:
            for extra in get_args(part)[1:]:
                yield from extra.metadata if isinstance(extra, FieldInfo) else (extra,)


__all__ = [
    "COMPARE_STATES",
    "READ_STATES",
    "WITHOUT_SIBLINGS",
    "AuditConfig",
    "CheckpointConfig",
    "EnvConfig",
    "EvalConfig",
    "LevelsConfig",
    "ModelConfig",
    "NegativeConfig",
    "Overrides",
    "PolicyConfig",
    "PretrainConfig",
    "ProbeConfig",
    "RewardConfig",
    "RunConfig",
    "Section",
    "TrainConfig",
    "TurnsConfig",
    "VllmConfig",
    "WarmstartConfig",
    "build",
    "dump",
    "load",
    "presets",
]
