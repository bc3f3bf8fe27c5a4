"""Configuration: one YAML per run, one strict section per stage, unknown keys answered with the nearest known name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import UserError
from pipeline.remote import RemotePath, place_of
from pipeline.services import masked

SECTIONS = ("run", "simulate", "index", "extract", "pack", "pretrain", "align", "rollout", "export")


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys are errors. Where a path is expected, a URL is one, too, and ``~`` is
    the home folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _texts_are_paths(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        found = dict(values)
        for name, value in values.items():
            if isinstance(value, str) and ("://" in value or value.startswith("~")) and name in _paths(cls):
                try:
                    found[name] = place_of(value).expanduser()
                except (ValueError, RuntimeError) as error:
                    raise ValueError(f"{name}: {error}") from None
        return found


@lru_cache
def _paths(settings: type[Settings]) -> frozenset[str]:
    """Names of the fields that are paths."""
    fields = settings.model_fields.items()
    return frozenset(name for name, field in fields if Path in (field.annotation, *get_args(field.annotation)))


class RunSettings(Settings):
    """What all stages share."""

    out: Path = Field(description="Run folder; every stage writes into its own folder below it.")
    seed: int = Field(default=0, description="Seed of everything random.")
    workers: int = Field(default=0, ge=0, description="Worker processes per stage; 0 = number of CPU cores.")
    cache_gb: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Copies of remote files on this machine take so many GB at most; null = KINECLOUD_CACHE_GB of "
        "the environment, else 20.",
    )
    failure_budget: int = Field(
        default=0, ge=0, description="Unexpected failures tolerated per stage before it exits with 3."
    )
    max_unreadable: int | None = Field(
        default=None,
        ge=0,
        description="Inputs that may be unreadable before the stage exits with 3; null = any number.",
    )

    @field_validator("out")
    @classmethod
    def _is_here(cls, out: Path) -> Path:
        if isinstance(out, RemotePath):
            raise ValueError("must be a local folder; results are written there and renamed")
        return out

    def worker_count(self) -> int:
        """Number of worker processes."""
        return self.workers or len(os.sched_getaffinity(0))


Model = TypeVar("Model", bound=Settings)


class Config:
    """A parsed configuration file. Sections are validated when they are asked for."""

    def __init__(self, raw: dict[str, Any], path: Path):
        self.raw = raw
        self.path = path

    @property
    def run(self) -> RunSettings:
        return self.section("run", RunSettings)

    def folder(self, stage: str) -> Path:
        """The run's folder of one stage."""
        return self.run.out / stage

    def has(self, name: str) -> bool:
        return name in self.raw

    def section(self, name: str, model: type[Model]) -> Model:
        """The settings of one section; a missing section means all defaults."""
        try:
            return model.model_validate(self.raw.get(name) or {})
        except ValidationError as error:
            raise UserError("\n".join(_explain(self.path, name, model, error))) from None


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML configuration and applies ``a.b=value`` overrides (values are YAML).

    Raises UserError for a missing file, invalid YAML, a malformed override or an unknown section.
    """
    try:
        raw = yaml.load(path.read_bytes(), _NoneTwice) or {}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Name an existing configuration file.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(
            f"{path}: a configuration is a mapping of sections ({', '.join(SECTIONS)}), found {type(raw).__name__}."
        )
    for override in overrides:
        _apply(raw, override)
    for name in raw:
        if name not in SECTIONS:
            raise UserError(f"{path}: {name}: unknown section.{_nearest(str(name), SECTIONS)}")
    return Config(raw, path)


class _NoneTwice(yaml.SafeLoader):
    """YAML without Python objects, in which a key that stands twice is an error: the first would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # told by what is called below
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    "while reading a mapping", node.start_mark, f"'{key.value}' stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _apply(raw: dict[str, Any], override: str) -> None:
    """Sets one value; a number as a step is a place in a list."""
    dotted, separator, text = override.partition("=")
    if not separator or not dotted:
        raise UserError(f"--set {override}: expected a.b=value, for example pretrain.steps=100.")
    try:
        value = yaml.load(text, _NoneTwice)
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"--set {override}: the value is not valid YAML: {error}") from None
    *parents, last = dotted.split(".")
    node: Any = raw
    for key in parents:
        if isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key] if isinstance(node, dict) else node[_place(node, key, override)]
    if isinstance(node, dict):
        node[last] = value
    else:
        node[_place(node, last, override)] = value


def _place(node: Any, key: str, override: str) -> int:
    if not isinstance(node, list):
        raise UserError(f"--set {override}: '{key}' would be inside a single value.")
    if not key.isdecimal() or int(key) >= len(node):
        raise UserError(f"--set {override}: '{key}' is not a place in a list of {len(node)}.")
    return int(key)


def _nearest(name: str, known: Sequence[str]) -> str:
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else f" Known: {', '.join(known)}."


def _explain(path: Path, section: str, model: type[BaseModel], error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        where = ".".join([section, *map(str, item["loc"])])
        if item["type"] == "extra_forbidden":
            known = _known_names(model, item["loc"][:-1])
            lines.append(f"{path}: {where}: unknown key.{_nearest(str(item['loc'][-1]), known)}")
        elif item["type"] == "union_tag_invalid":
            context = item.get("ctx", {})
            found, known = context["tag"], [tag.strip(" '") for tag in context["expected_tags"].split(",")]
            lines.append(f"{path}: {where}.name: unknown value {found!r}.{_nearest(found, known)}")
        elif item["type"] == "union_tag_not_found":
            lines.append(f"{path}: {where}: needs a name (found {item['input']!r})")
        else:
            lines.append(f"{path}: {where}: {item['msg']} (found {item['input']!r})")
    return [masked(line) for line in lines]


def _known_names(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Field names of the settings at ``location`` inside ``model``; list positions are passed over.

    Where several settings are possible, the next part of the location is the ``name`` of the one that was chosen.
    """
    for place, step in enumerate(location):
        if isinstance(step, str) and step in model.model_fields:
            inner = _settings_in(model.model_fields[step].annotation)
            tag = location[place + 1] if place + 1 < len(location) else None
            named = [
                choice
                for choice in inner
                if "name" in choice.model_fields and choice.model_fields["name"].default == tag
            ]
            model = (named or inner or [model])[0]
    return list(model.model_fields)


def _settings_in(annotation: Any) -> list[type[BaseModel]]:
    """All settings classes in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in getattr(annotation, "__args__", ()) for found in _settings_in(argument)]
