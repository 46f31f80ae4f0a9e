"""Defaults of options from environment variables that the ecosystem already uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True)
class FromEnv:
    """Take an option's default from an environment variable that the ecosystem already uses.

        api_key: Annotated[SecretStr, FromEnv("OPENAI_API_KEY")]

    It is a default, so every layer of configuration overrides it. An empty variable counts as not
    set; of several variables, the first that is set is taken.
    """

    variable: str


def variables(field: FieldInfo) -> list[str]:
    """Return the variables that a field takes its default from, in order of precedence."""
    return [source.variable for source in metadata_of(field) if isinstance(source, FromEnv)]


def variable_of(field: FieldInfo, environ: Mapping[str, str]) -> str | None:
    """Return the first variable of a field that is set and not empty."""
    return next((name for name in variables(field) if environ.get(name)), None)


def metadata_of(field: FieldInfo) -> list[Any]:
    """Return what a field's annotation holds besides types, wherever in it."""
    return [*field.metadata, *_nested(field.annotation)]


def _nested(annotation: Any) -> Iterator[Any]:
    # `Annotated[SecretStr, FromEnv(...)] | None`: here pydantic leaves the metadata in the type.
    if get_origin(annotation) in (Annotated, Union, UnionType):
        for argument in get_args(annotation):
            yield argument
            yield from _nested(argument)
