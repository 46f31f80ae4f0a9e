"""What pydantic finds wrong with options, in words that say what to do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeAlias, cast, get_args, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from ..masking.names import says_secret
from ..masking.secrets import Secrets, is_secret
from ..messages.spelling import did_you_mean, listed
from ..options.environment import variable_of
from ..settings import miswritten
from .mistakes import error_in

Loc: TypeAlias = tuple[int | str, ...]
"""A place in a table, as pydantic has it."""

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""pydantic's types of errors about keys that do not exist."""

_EMPTY = ("_type", "_parsing", "_too_short", "_pattern_mismatch")
_TABLES = ("dataclass_type", "dataclass_exact_type", "model_type", "model_attributes_type")


def worded(
    error: ValidationError,
    model: type[BaseModel],
    table: Mapping[str, Any],
    environ: Mapping[str, str],
    label: str,
) -> list[InitErrorDetails]:
    """Return the problems that pydantic found, in our words and without any input.

    Args:
        error: what `model` raised.
        model: the class of the options.
        table: the values that were validated.
        environ: the environment, which may have given other values.
        label: names the table in messages about its own keys.
    """
    found: dict[Loc, tuple[str, str, dict[str, Any]]] = {}
    for problem in error.errors(include_url=False, include_input=False):
        context = problem.get("ctx", {})
        loc, kind, message = problem["loc"], problem["type"], problem["msg"]
        more: dict[str, Any] = _source_of(problem, model, table, environ)
        if (carried := error_in(problem)) is not None:
            more["error"] = carried
        if "message" in context:  # about an inner adapter, so in our words already
            more |= {"part": context["part"]} if "part" in context else {}
        elif kind in UNKNOWN:
            message = _no_such_key(model, loc, label)
        elif kind == "missing":
            message = "is required" + _documented(model, loc)
        elif kind == "value_error":  # raised by a validator; without pydantic's prefix
            message = str(context["error"])
        else:
            loc = _without_types(loc, table)
            message, part = _not_as_written(message, kind, model, loc, _at(table, loc))
            more |= {"part": part} if part else {}
        message = _without_secret(message, model, loc, table, environ)
        if loc in found and message != found[loc][1]:  # the field may be of several types
            message = f"{found[loc][1]}, or: {message}"
        found[loc] = (kind, message, more)
    return [
        {
            "type": PydanticCustomError(cast(Any, kind), "{message}", {**more, "message": message}),
            "loc": loc,
            "input": None,
        }
        for loc, (kind, message, more) in found.items()
    ]


def foreign(model: type[BaseModel], loc: Loc) -> str:
    """Return the model's own key, or a hint, for a key of another tool; "" if it has none."""
    names: Mapping[str, str] = getattr(model, "foreign_names", {})
    return names.get(".".join(map(str, loc)).replace("-", "_").lower(), "")


def _without_secret(
    message: str,
    model: type[BaseModel],
    loc: Loc,
    table: Mapping[str, Any],
    environ: Mapping[str, str],
) -> str:
    """Mask a value in the message of a validator that repeats it, if the field may be a secret."""
    name = str(loc[0]) if loc else ""
    field = model.model_fields.get(name)
    if field is None or not (is_secret(field.annotation) or says_secret(name)):
        return message
    secrets = Secrets()
    secrets.learn(table.get(name) or environ.get(variable_of(field, environ) or ""), secret=True)
    return secrets.masked(message)


def _without_types(loc: Loc, table: Any) -> Loc:
    """Return a place without the names of types that pydantic adds for unions."""
    for depth, part in enumerate(loc):
        if not isinstance(table, Mapping | list | tuple):
            return loc[:depth]
        if not isinstance(table, Mapping) or part not in table:
            break
        table = table[part]
    return loc


def _at(table: Any, loc: Loc) -> Any:
    """Return the value at a place in the settings, None if nothing is there."""
    for part in loc:
        if not isinstance(table, Mapping) or part not in table:
            return None
        table = table[part]
    return table


def _not_as_written(
    message: str, kind: str, model: type[BaseModel], loc: Loc, value: Any
) -> tuple[str, str]:
    """Say what is wrong with how a value was written, and how part of a table is set."""
    if kind.endswith(_EMPTY) and isinstance(value, str) and not value.strip():
        field = _fields_at(model, loc[:-1]).get(str(loc[-1]))
        hint = "" if field is None or field.is_required() else "; leave it out for its default"
        return f"is empty{hint}{_documented(model, loc)}", ""
    if kind.endswith("_type") and (why := miswritten(value)):
        return f"{message}; it {why}", ""
    if kind in ("list_type", "tuple_type"):
        if isinstance(value, Mapping):
            why = "it can only be set as a whole, not item by item"
        else:
            why = 'write ["...", "..."]'
        return f"{message}; {why}", ""
    if fields := kind in _TABLES and _fields_at(model, loc):
        plain = ((k, f.default) for k, f in fields.items() if type(f.default) in (int, float, str))
        name, default = next(plain, (next(iter(fields)), ...))
        example = (name, "..." if default is ... else json.dumps(default))
        return f"takes a table, such as {{ {' = '.join(example)} }}", "=".join(example)
    return message, ""


def _no_such_key(model: type[BaseModel], loc: Loc, label: str) -> str:
    said = "there is no such key" if len(loc) > 1 else f"{label} has no such key"
    if note := foreign(model, loc):
        return f"{said}; {note}" if " " in note else f"{said}; did you mean {note!r}?"
    known = _fields_at(model, loc[:-1])
    if hint := did_you_mean(loc[-1], known):
        return f"{said}{hint}"
    return f"{said}; it has {listed(loc[-1], known) or 'none'}" if known or len(loc) == 1 else said


def _fields_at(model: type[BaseModel], loc: Loc) -> Mapping[str, FieldInfo]:
    """Return the fields of the model, or of the model or dataclass at a place in it."""
    annotation: Any = model
    for part in loc:
        fields = _fields_in(annotation)
        if str(part) in fields:
            annotation = fields[str(part)].annotation
        else:  # a key of a dictionary, an index of a list
            annotation = (get_args(annotation) or (None,))[-1]
    return _fields_in(annotation)


def _fields_in(annotation: Any) -> Mapping[str, FieldInfo]:
    """Return the fields of the model or dataclass that a type holds."""
    for kind in (annotation, *get_args(annotation)):
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            hints = get_type_hints(kind)
            return {
                field.name: FieldInfo(annotation=hints[field.name], default=field.default)
                for field in dataclasses.fields(kind)
            }
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind.model_fields
    return {}


def _source_of(
    problem: Any, model: type[BaseModel], table: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    """Name the ecosystem's variable that gave a value, here or to an inner adapter."""
    if source := problem.get("ctx", {}).get("source"):
        return {"source": source}
    name = str(problem["loc"][0]) if problem["loc"] else ""
    field = model.model_fields.get(name)
    if field is None or name in table:
        return {}
    variable = variable_of(field, environ)
    return {"source": f"environment variable {variable}"} if variable else {}


def _documented(model: type[BaseModel], loc: Loc) -> str:
    field = model.model_fields.get(str(loc[0])) if len(loc) == 1 else None
    return f": {field.description}" if field is not None and field.description else ""
