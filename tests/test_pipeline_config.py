"""Configuration: strict, explained, overridable."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import Field

from pipeline.config import Settings, load
from pipeline.errors import UserError


class Inner(Settings):
    learning_rate: float = 0.1


class Outer(Settings):
    steps: int = Field(default=10, ge=1)
    inner: Inner = Inner()


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_unknown_key_names_the_nearest_known_one_at_every_depth(tmp_path: Path) -> None:
    path = written(tmp_path, "run: {out: x}\npretrain: {stepps: 3, inner: {lerning_rate: 1}}")
    with pytest.raises(UserError) as caught:
        load(path).section("pretrain", Outer)
    message = str(caught.value)
    assert "pretrain.stepps: unknown key. Did you mean 'steps'?" in message
    assert "pretrain.inner.lerning_rate: unknown key. Did you mean 'learning_rate'?" in message
    assert str(path) in message


def test_unknown_section_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'extract'"):
        load(written(tmp_path, "extrct: {}"))


def test_bad_value_shows_field_and_value(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pretrain\.steps: .*greater than or equal to 1.*found 0"):
        load(written(tmp_path, "pretrain: {steps: 0}")).section("pretrain", Outer)


@pytest.mark.parametrize("text", ["run: {out: {{ folder }}}", "run: {[a, b]: 1}", "{a: 1}: {}"])
def test_a_key_that_is_no_word_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"(?s)not valid YAML: .*unhashable key"):
        load(written(tmp_path, text))
    with pytest.raises(UserError, match=r"(?s)not valid YAML: .*unhashable key"):
        load(written(tmp_path, "run: {out: x}"), ["run.out={{ folder }}"])


def test_overrides_replace_and_create(tmp_path: Path) -> None:
    config = load(written(tmp_path, "run: {out: x}"), ["pretrain.inner.learning_rate=0.5", "run.seed=7"])
    assert config.section("pretrain", Outer).inner.learning_rate == 0.5
    assert config.run.seed == 7


def test_overrides_go_below_a_section_that_is_there_and_empty(tmp_path: Path) -> None:
    config = load(written(tmp_path, "run: {out: x}\npretrain:\n"), ["pretrain.inner.learning_rate=0.5"])
    assert config.section("pretrain", Outer).inner.learning_rate == 0.5


@pytest.mark.parametrize("override", ["steps", "=3", "run.out.deeper=1"])
def test_malformed_override_is_an_error(tmp_path: Path, override: str) -> None:
    with pytest.raises(UserError, match="--set"):
        load(written(tmp_path, "run: {out: x}"), [override])


NO_YAML = ["a: [", "- 1\n- 2", "run: {seed: 2026-13-45}", "run: {out: caf\xe9}"]


@pytest.mark.parametrize("text", NO_YAML)
def test_file_that_is_no_configuration_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"c\.yaml"):
        load(path)


def test_what_stands_twice_is_an_error_because_the_first_would_be_lost(tmp_path: Path) -> None:
    twice = "pretrain: {steps: 5}\nrun: {out: x}\npretrain: {inner: {}}\n"
    with pytest.raises(UserError, match=r"'pretrain' stands twice[\s\S]*line 3"):
        load(written(tmp_path, twice))
    with pytest.raises(UserError, match="'steps' stands twice"):
        load(written(tmp_path, "run: {out: x}"), ["pretrain={steps: 5, steps: 6}"])
    merged = "run: &run {out: x, seed: 3}\npretrain: {<<: *run, seed: 4}\n"
    assert load(written(tmp_path, merged)).raw["pretrain"] == {"out": "x", "seed": 4}


def test_the_home_folder_is_meant_where_a_path_is_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(written(tmp_path, "run: {out: ~/runs/x}")).run.out == tmp_path / "runs/x"
    with pytest.raises(UserError, match=r"run\.out|run: .*out"):
        _ = load(written(tmp_path, "run: {out: ~nobody-of-this-name/x}")).run


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "absent.yaml")


def test_shipped_configurations_are_valid() -> None:
    from align.config import AlignConfig, ExportConfig, RolloutConfig
    from data.config import IndexConfig, PackConfig
    from data.simulation.config import SimulateConfig
    from extract.config import ExtractConfig
    from pretrain.config import PretrainConfig

    models = {
        "simulate": SimulateConfig,
        "index": IndexConfig,
        "extract": ExtractConfig,
        "pack": PackConfig,
        "pretrain": PretrainConfig,
        "align": AlignConfig,
        "rollout": RolloutConfig,
        "export": ExportConfig,
    }
    shipped = sorted((Path(__file__).parent.parent / "pipeline" / "configs").glob("*.yaml"))
    assert shipped
    for path in shipped:
        config = load(path)
        assert config.run.out
        for name, model in models.items():
            config.section(name, model)


@pytest.mark.parametrize(
    ("gripper", "message"),
    [
        ("{detect: {name: moton}}", "extract.gripper.detect.name: unknown value 'moton'. Did you mean 'motion'?"),
        ("{segment: {size: 3}}", "extract.gripper.segment: needs a name"),
        ("{depth: {name: depth-pro, chekpoint: x}}", "depth-pro.chekpoint: unknown key. Did you mean 'checkpoint'?"),
    ],
)
def test_steps_are_chosen_by_name_and_mistakes_are_explained(tmp_path: Path, gripper: str, message: str) -> None:
    from extract.config import ExtractConfig

    config = load(written(tmp_path, f"extract: {{gripper: {gripper}}}"))
    with pytest.raises(UserError, match=re.escape(message)):
        config.section("extract", ExtractConfig)


def test_a_step_may_be_named_alone(tmp_path: Path) -> None:
    from extract.config import ExtractConfig

    config = load(written(tmp_path, "extract: {gripper: {detect: proprio, track: lucas-kanade}}"))
    assert config.section("extract", ExtractConfig).gripper.detect.name == "proprio"


def test_overrides_reach_into_lists(tmp_path: Path) -> None:
    path = written(tmp_path, "index: {sources: [{name: a}, {name: b}]}")
    assert load(path, ["index.sources.1.path=/x"]).raw["index"]["sources"][1] == {"name": "b", "path": "/x"}
    with pytest.raises(UserError, match="list of 2"):
        load(path, ["index.sources.2.path=/x"])
