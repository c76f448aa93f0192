from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agentgym import config
from agentgym.config import RunConfig, Section, TrainConfig, WarmstartConfig, build, dump, load
from agentgym.errors import ConfigError, UnknownNameError


def wrong(data: dict[str, Any] | None = None, overrides: config.Overrides = ()) -> list[str]:
    """Return the lines of the error."""
    with pytest.raises(ConfigError) as caught:
        build(data or {}, overrides)
    return str(caught.value).splitlines()


# ---------------------------------------------------------------------------------------------------------- loading


@pytest.mark.parametrize("preset", config.presets())
def test_every_preset_loads_and_survives_the_round_trip(preset: str, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(dump(load(preset)), encoding="utf-8")
    assert load(tmp_path / "config.toml") == load(preset)


def test_quickstart_is_there() -> None:
    assert "quickstart" in config.presets()


def test_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no preset 'quikstart'; did you mean 'quickstart'"):
        load("quikstart")


@pytest.mark.parametrize("source", ["runs/none.toml", "none.toml"])
def test_missing_file_says_so(source: str) -> None:
    with pytest.raises(ConfigError, match=r"none.toml: cannot be read: No such file .* presets need no file: "):
        load(source)


def test_file_that_is_not_toml(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("seed = \n")
    with pytest.raises(ConfigError, match=r"x.toml: not TOML: Invalid value \(at line 1"):
        load(tmp_path / "x.toml")
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load(tmp_path / "x.toml")


def test_models_are_frozen_and_closed() -> None:
    with pytest.raises(ValidationError):
        RunConfig().seed = 3
    with pytest.raises(ValidationError):
        TrainConfig(stepz=3)  # type: ignore[call-arg]


OPTION = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    seed=st.integers(0, 2**63 - 1),
    lr=st.floats(0, exclude_min=True, allow_infinity=False),
    path=st.none() | st.text(),
    options=st.dictionaries(st.text(), OPTION, max_size=4),
)
def test_whatever_is_dumped_loads_back_equal(seed: int, lr: float, path: str | None, options: dict[str, Any]) -> None:
    data = {"seed": seed, "train": {"lr": lr}, "env": {"options": options}, "model": {"path": path}}
    made = build(data)
    assert build(tomllib.loads(dump(made))) == made


def test_what_toml_cannot_hold_is_refused_when_dumping() -> None:
    with pytest.raises(ConfigError, match="allowed: what TOML can hold"):
        dump(build({"env": {"options": {"x": object()}}}))


def test_none_is_only_ever_a_default() -> None:
    """TOML has no word for nothing, so an optional key left out has to mean nothing."""
    for section in Section.__subclasses__():
        for name, field in section.model_fields.items():
            if type(None) in get_args(field.annotation):
                assert field.default is None, name


# -------------------------------------------------------------------------------------------------------- overrides


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["--train.lr", "1e-4"], "train.lr", 1e-4),
        (["--train.lr=2"], "train.lr", 2.0),
        (["train.lr=1"], "train.lr", 1.0),
        (["--seed", "7"], "seed", 7),
        (["--deterministic"], "deterministic", True),
        (["--deterministic", "--seed", "3"], "deterministic", True),
        (["--deterministic", "false"], "deterministic", False),
        (["--train.scale", "none"], "train.scale", "none"),
        (["--model.kv_heads", "2"], "model.kv_heads", 2),
        (["--model.kv_heads", "none"], "model.kv_heads", None),
        (["--model.path", "some/where"], "model.path", "some/where"),
        (["--env.id", "3"], "env.id", "3"),
        (["--env.options.level", "3"], "env.options", {"level": 3}),
        (["--env.options.a.b", "x"], "env.options", {"a": {"b": "x"}}),
        (["--env.options.t", "[1, 2]"], "env.options", {"t": [1, 2]}),
        (["--env.options", "{level = 2}"], "env.options", {"level": 2}),
        (["--reward.params.progress", "0.5"], "reward.params", {"progress": 0.5}),
        (["--env.options.a.0.b", "1"], "env.options", {"a": {"0": {"b": 1}}}),
    ],
)
def test_override_is_read_by_the_fields_type(words: list[str], key: str, value: object) -> None:
    found: Any = build({}, words)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_overrides_come_on_top_and_the_last_one_wins() -> None:
    made = build({"train": {"lr": 1.0, "steps": 3}}, ["--train.lr", "2", "--train.lr", "3"])
    assert (made.train.lr, made.train.steps) == (3.0, 3)


def test_overrides_may_be_a_mapping_and_leave_the_data_alone() -> None:
    data = {"env": {"options": {"level": 1}}}
    made = build(data, {"env.options.name": "x", "train.steps": 4, "train.gamma": "0.5"})
    assert made.env.options == {"level": 1, "name": "x"}
    assert (made.train.steps, made.train.gamma) == (4, 0.5)
    assert data == {"env": {"options": {"level": 1}}}


JUDGED = {"reward": {"probes": [{"name": "grade", "params": {"low": 0}}, {"name": "m:own"}]}}


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["--reward.probes.0.name", "5"], {"name": "5", "params": {"low": 0}}),
        (["--reward.probes.0.params.low=1"], {"name": "grade", "params": {"low": 1}}),
        (
            ["--reward.probes.0.params.judge.url=http://x/v1"],
            {"name": "grade", "params": {"low": 0, "judge": {"url": "http://x/v1"}}},
        ),
        (["--reward.probes.0.params", "{high = 2}"], {"name": "grade", "params": {"high": 2}}),
        (['--reward.probes.0={name = "x"}'], {"name": "x", "params": {}}),
        (['--reward.probes=[{name = "x"}]'], {"name": "x", "params": {}}),
    ],
)
def test_an_entry_of_a_list_is_overridden_by_its_number(words: list[str], first: dict[str, Any]) -> None:
    probes = build(JUDGED, words).reward.probes
    assert probes[0].model_dump() == first
    assert [probe.name for probe in probes[1:]] == (["m:own"] if ".0" in words[0] else [])
    assert JUDGED["reward"]["probes"][0] == {"name": "grade", "params": {"low": 0}}  # the data is left alone
    assert build(tomllib.loads(dump(build(JUDGED, words)))) == build(JUDGED, words)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "--reward.probes.2.name=x",
            "reward.probes.2: no such entry; allowed: one of the 2 of reward.probes, counted from 0",
        ),
        (
            "--reward.probes.0.nam=x",
            "reward.probes.0.nam: no such key; did you mean 'reward.probes.0.name'? "
            "allowed in [reward.probes.0]: name, params",
        ),
        (
            "--reward.probes.1.nam=x",
            "reward.probes.1.nam: no such key; did you mean 'reward.probes.1.name'? "
            "allowed in [reward.probes.1]: name, params",
        ),
        (
            "--reward.probes.0.name.x=x",
            "reward.probes.0.name.x: no such key; allowed: 'reward.probes.0.name' itself, which holds no table",
        ),
        ("--reward.probes.first.name=x", "reward.probes.first.name: no such key; allowed in [reward.probes]: 0"),
        (
            "--reward.probs=[]",
            "reward.probs: no such key; did you mean 'reward.probes'? allowed in [reward]: params, probes, recipe",
        ),
        ("--reward.probes=3", "reward.probes: found 3; allowed: a list of tables"),
        ("--reward.probes=[{}]", "reward.probes.0.name: missing; allowed: text"),
        ("--reward.probes.0.params=3", "reward.probes.0.params: found 3; allowed: a table"),
        (
            '--reward.probes=[{name="x", parms={}}]',
            "reward.probes.0.parms: no such key; did you mean 'reward.probes.0.params'? "
            "allowed in [reward.probes.0]: name, params",
        ),
    ],
)
def test_what_is_wrong_with_an_entry_is_one_line(words: str, line: str) -> None:
    assert wrong(JUDGED, [words]) == [line]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--train.lr"], "train.lr: found nothing after --train.lr; allowed: a finite number above 0"),
        (["train.lr"], "train.lr: found alone; allowed: --section.key value, or section.key=value"),
        (["--train.lr", "fast"], "train.lr: found 'fast'; allowed: a finite number above 0"),
        (["--train.lr", "nan"], "train.lr: found nan; allowed: a finite number above 0"),
        (["--train.steps", "1.5"], "train.steps: found '1.5'; allowed: a whole number at least 0"),
        (["--deterministic", "maybe"], "deterministic: found 'maybe'; allowed: true or false"),
        (["--env", "3"], "env: found '3'; allowed: a table"),
        (["--seed.x", "3"], "seed.x: no such key; allowed: 'seed' itself, which holds no table"),
    ],
)
def test_wrong_override_is_one_line(words: list[str], line: str) -> None:
    assert wrong(overrides=words) == [line]


# --------------------------------------------------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.group_siz", "train.group_size"),
        ("trian.lr", "train.lr"),
        ("group_size", "train.group_size"),
        ("lr", "pretrain.lr' or 'warmstart.lr' or 'train.lr"),
        ("evl", "eval"),
        ("env.option", "env.options"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    (line,) = wrong(overrides={key: "1"})
    assert line.startswith(f"{key}: no such key; did you mean '{nearest}'? allowed")


def test_unknown_key_in_a_file_names_its_full_path_and_what_is_allowed() -> None:
    (line,) = wrong({"checkpoint": {"evry": 3}})
    assert line == "checkpoint.evry: no such key; did you mean 'checkpoint.every'? allowed in [checkpoint]: every, keep"


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("seed", True, "a whole number at least 0"),
        ("seed", -1, "a whole number at least 0"),
        ("threads", 0, "a whole number at least 1 (or left out)"),
        ("deterministic", 1, "true or false"),
        ("env", 3, "a table"),
        ("env.options", 3, "a table"),
        ("env.id", 3, "text"),
        ("model.path", 3, "text (or left out)"),
        ("model.tokenizer", "char", "'word' or 'bpe'"),
        ("train.steps", 1.5, "a whole number at least 0"),
        ("train.lr", "1e-4", "a finite number above 0"),
        ("train.lr", True, "a finite number above 0"),
        ("train.gamma", 1.5, "a finite number at least 0 and at most 1"),
        ("train.clip_low", 1, "a finite number at least 0 and below 1"),
        ("policy.temperature", 0, "a finite number above 0"),
        ("warmstart.valid_fraction", 1.0, "a finite number at least 0 and below 1"),
    ],
)
def test_wrong_value_says_what_was_found_and_what_is_allowed(key: str, value: object, allowed: str) -> None:
    *section, name = key.split(".")
    data = {section[0]: {name: value}} if section else {name: value}
    assert wrong(data) == [f"{key}: found {value!r}; allowed: {allowed}"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"train.group_size": 1}, "train.group_size: found 1; allowed: at least 2, since 'turn_rtg_loo' compares"),
        (
            {"train.group_size": 1, "train.advantage": "reinforce_pp", "train.scale": "group"},
            "train.group_size: found 1; allowed: at least 2 with train.scale 'group'",
        ),
        (
            {"train.by_component": True, "train.advantage": "gae"},
            "train.by_component: found true; allowed: false with train.advantage 'gae'",
        ),
        (
            {"train.omega": 0.5},
            "train.omega: found 0.5; allowed: left out with train.advantage 'turn_rtg_loo'; gigpo and",
        ),
        (
            {"train.states": "world"},
            "train.states: found 'world'; allowed: left out with train.advantage 'turn_rtg_loo'; gigpo, gigpo_loo,",
        ),
        (
            {"train.negative.lambda0": 0.5, "train.negative.kappa": -0.75},
            "train.negative: found lambda0 + kappa = -0.25; allowed: at least 0, or failures would be rewarded",
        ),
        ({"train.negative.lambda0": 0.5}, "train.negative.kappa: missing; allowed: a finite number"),
        ({"train.minibatches": 97}, "train.minibatches: found 97; allowed: at most the 96 episodes of a step"),
        ({"train.token_budget": 9}, "train.token_budget: found 9; allowed: at least model.max_context (1536)"),
        ({"pretrain.batch_tokens": 9}, "pretrain.batch_tokens: found 9; allowed: at least model.max_context"),
        ({"warmstart.batch_tokens": 9}, "warmstart.batch_tokens: found 9; allowed: at least model.max_context"),
        ({"policy.max_tokens": 1536}, "policy.max_tokens: found 1536; allowed: below model.max_context (1536)"),
        ({"model.heads": 3}, "model.width: found 128; allowed: a multiple of 6, twice model.heads"),
        ({"model.kv_heads": 3}, "model.kv_heads: found 3; allowed: a divisor of model.heads (4)"),
        (
            {"model.template": {"enable_thinking": False}},
            "model.template: found variables; allowed: left out without model.path: a fresh model's has none",
        ),
    ],
)
def test_impossible_combination_is_refused(overrides: dict[str, object], line: str) -> None:
    (found,) = wrong(overrides=overrides)
    assert found.startswith(line)


@pytest.mark.parametrize(
    "overrides",
    [
        {"train.group_size": 1, "train.advantage": "reinforce_pp"},
        {"train.omega": 0.0, "train.advantage": "gigpo"},
        {"train.negative.lambda0": 1.4, "train.negative.kappa": -0.5},
        {"warmstart.batch_tokens": 9, "warmstart.episodes": 0},
        {"pretrain.batch_tokens": 9, "pretrain.plays": 0},
        {"pretrain.batch_tokens": 9, "model.path": "some/model"},
        {"model.path": "some/model", "model.heads": 3},
    ],
)
def test_what_is_not_read_is_not_checked(overrides: dict[str, object]) -> None:
    build({}, overrides)


def test_every_problem_has_its_line() -> None:
    data = {"train": {"lr": -1, "stepz": 1, "steps": "x"}, "sed": 3}
    lines = wrong(data, ["--env.wrkers", "3"])
    assert len(lines) == 5
    assert {line.partition(":")[0] for line in lines} == {
        "env.wrkers",
        "train.lr",
        "train.stepz",
        "train.steps",
        "sed",
    }


def test_every_impossibility_has_its_line() -> None:
    assert len(wrong(overrides={"train.group_size": 1, "model.heads": 3, "train.token_budget": 9})) == 3


# --------------------------------------------------------------------------------------------- agreeing with others


def test_estimators_are_those_of_the_trainer() -> None:
    from agentgym.train.advantage import ESTIMATORS

    annotation = TrainConfig.model_fields["advantage"].annotation
    assert set(get_args(annotation)) == set(ESTIMATORS)
    assert {name for name, made in ESTIMATORS.items() if not made.compares} == config.WITHOUT_SIBLINGS


def test_defaults_are_what_they_are_declared_to_be() -> None:
    assert build({}) == RunConfig()
    assert WarmstartConfig().episodes == build({}).warmstart.episodes
