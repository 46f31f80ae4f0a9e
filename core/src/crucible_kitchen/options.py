"""Options: what a user may set about an adapter."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, ClassVar, Self, Union, get_args, get_origin

from pydantic import (
    BeforeValidator,
    ConfigDict,
    PrivateAttr,
    StringConstraints,
    ValidationInfo,
    model_validator,
)
from pydantic.fields import FieldInfo

from .extent import from_json
from .masking import MASK, Masked, is_secret, redacted, visible

__all__ = [
    "MASK",
    "AdapterOptions",
    "FromEnv",
    "Kept",
    "Keyword",
    "Name",
    "Template",
    "Typed",
    "is_secret",
    "kept",
    "redacted",
    "variable_of",
    "variables",
    "visible",
]


@dataclass(frozen=True, slots=True)
class FromEnv:
    """Take an option's default from an environment variable that the ecosystem already uses.

        api_key: Annotated[SecretStr, FromEnv("OPENAI_API_KEY")]

    It is a default, so every layer of configuration goes before it. A variable that is empty
    counts as not set; of several, the first that is set is taken.
    """

    variable: str


class Typed(str):
    """Text that was typed at a shell: given on the command line or in an environment variable."""

    __slots__ = ()


_ESCAPED = {r"\n": "\n", r"\t": "\t", r"\\": "\\"}


def _unescaped(value: Any) -> Any:
    if not isinstance(value, Typed):
        return value
    return re.sub(r"\\[nt\\]", lambda found: _ESCAPED[found[0]], value)


Template = Annotated[str, BeforeValidator(_unescaped)]
"""The type of a text that may hold line breaks, such as the template of a prompt.

A shell has no plain way to write them, so on the command line and in environment variables `\\n`
is a line break here, `\\t` a tab and `\\\\` a backslash. Files and code have their own way: their
texts stay as they are, and so do the values of other types, such as the path `C:\\new`.
"""


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    if not isinstance(value, Typed):
        return value
    try:
        found = from_json(value)
    except json.JSONDecodeError:
        return str(value)
    return str(value) if isinstance(found, str) else found


Keyword = Annotated[Any, BeforeValidator(_as_json)]
"""The type of a value that is passed on to something else, which alone knows its type.

    chat_template_kwargs: dict[str, Keyword] = {}

Text on the command line and in environment variables is otherwise converted by the type of its
field. Here it is what it says as JSON, such as `false` or `96`, and else a text.
"""

Name = Annotated[str, StringConstraints(pattern=r"\S")]
"""The type of a text that may not be empty or blank, such as the name of a model or a data set."""


class Kept(dict[Any, Any]):
    """The resources of an options object; no part of its value, so never a difference."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Kept)

    __hash__ = None


class AdapterOptions(Masked):
    """The base of an adapter's `Options`: frozen, no unknown keys, documented by docstrings.

        class Options(AdapterOptions):
            bucket: str
            \"\"\"Bucket that holds every blob.\"\"\"
            api_key: Annotated[SecretStr, FromEnv("ACME_API_KEY")]
            \"\"\"Key of the Acme account.\"\"\"

    An option annotated with a port (`inner: TrainingClient`, `stores: list[MetricsStore]`) is
    another adapter, given by name or as a table, and arrives bound. Secrets are `SecretStr`.
    Neither `repr` nor a dump shows one, nor the password of a URL; see `Masked`.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        protected_namespaces=(),
    )

    foreign_names: ClassVar[Mapping[str, str]] = {}
    """Keys that users bring from other tools, for messages: this adapter's own key, or a hint."""

    # Resources live with the options object that they were made for; see resources.py.
    _resources: Kept = PrivateAttr(default_factory=lambda: Kept())

    @model_validator(mode="before")
    @classmethod
    def _defaults_from_environment(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, Mapping):
            return data
        environ: Mapping[str, str] = (info.context or {}).get("environ", os.environ)
        found = {
            name: environ[variable]
            for name, field in cls.model_fields.items()
            if name not in data and (variable := variable_of(field, environ))
        }
        return {**data, **found}

    # A copy, or an options object that travelled to another process, starts without resources.

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._resources = Kept()
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return type(self).model_validate(dict(self))

    def __getstate__(self) -> dict[Any, Any]:
        state = dict(super().__getstate__())
        state["__pydantic_private__"] = {"_resources": Kept()}
        return state


def kept(opts: AdapterOptions) -> Kept:
    """Return the resources of an options object.

    Not by `opts._resources`: pydantic looks for a private attribute everywhere else first, which
    takes longer than the rest of a call (5 us, measured with 2.14).
    """
    private = opts.__pydantic_private__
    assert private is not None
    found: Kept = private["_resources"]
    return found


def variables(field: FieldInfo) -> list[str]:
    """Return the variables that a field takes its default from, the one that goes first first."""
    found = [*field.metadata, *_nested(field.annotation)]
    return [source.variable for source in found if isinstance(source, FromEnv)]


def variable_of(field: FieldInfo, environ: Mapping[str, str]) -> str | None:
    """Return the first variable of a field that is set, and not to nothing."""
    return next((name for name in variables(field) if environ.get(name)), None)


def _nested(annotation: Any) -> Iterator[Any]:
    # `Annotated[SecretStr, FromEnv(...)] | None`: here pydantic leaves the metadata in the type.
    if get_origin(annotation) in (Annotated, Union, UnionType):
        for argument in get_args(annotation):
            yield argument
            yield from _nested(argument)
