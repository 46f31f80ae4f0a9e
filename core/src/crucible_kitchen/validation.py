"""Validating options: what is wrong, in words that say what to do."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, cast, get_args, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from .environment import variable_of
from .extent import TOO_LARGE, unfit
from .masking import Secrets, is_secret, says_secret
from .mistakes import error_in
from .settings import miswritten
from .spelling import listed, nearest

ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(
    model: type[ModelT], table: Mapping[str, Any], context: dict[str, Any], label: str
) -> ModelT:
    """Validate, and say of each mistake what to do.

    Raises:
        ValidationError: without any input in it, for an input may be a secret.
    """
    try:
        if found := [_unfit((name,), TOO_LARGE) for name in _long_numbers(model, table)]:
            raise ValidationError.from_exception_data(label, found)
        valid = model.model_validate(dict(table), context=context)
        if found := [_unfit(at, why) for at, why in unfit(_plain(valid))]:
            raise ValidationError.from_exception_data(label, found)  # what was typed as a text
        return valid
    except ValidationError as error:
        found = _problems(error, model, table, context, label)
        if unknown := {p["loc"][0]: p for p in found if _is_unknown(p) and len(p["loc"]) == 1}:
            # What else is wrong shows when each of them is spelt as it was meant.
            meant = {name: _meant(model, name) for name in map(str, unknown)}
            respelt = {k: v for k, v in table.items() if k not in unknown}
            respelt |= {k: table[w] for w, k in meant.items() if k and k not in table}
            found = list(unknown.values())
            try:
                model.model_validate(respelt, context=context)
            except ValidationError as more:
                written = {k: w for w, k in meant.items() if k not in table}
                for problem in _problems(more, model, respelt, context, label):
                    loc = problem["loc"]
                    loc = (*(written.get(str(key), key) for key in loc[:1]), *loc[1:])
                    if not (loc and _foreign(model, loc)):  # its values are of another kind, too
                        found.append({**problem, "loc": loc})
        raise ValidationError.from_exception_data(label, found, hide_input=True) from None


_LONG = re.compile(r"\s*[+-]?[0-9][0-9_]{19,}\s*")


def _long_numbers(model: type[BaseModel], table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields for numbers whose text is that of an integer without end.

    Where a field is of two types, pydantic fails at it with an OverflowError (measured, 2.14).
    """
    for name, value in table.items():
        if isinstance(value, str) and _LONG.fullmatch(value) and name in model.model_fields:
            kinds = {*_kinds(model.model_fields[name].annotation)}
            if kinds & {int, float} and str not in kinds:
                yield name


def _kinds(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from _kinds(argument)


def _plain(model: BaseModel) -> dict[str, Any]:
    """Return the fields of a model, and those of the dataclasses among them."""
    return {
        name: {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else value
        for name, value in model
    }


def _unfit(at: tuple[str, ...], why: str) -> InitErrorDetails:
    return {
        "type": PydanticCustomError("unfit", "{why}", {"why": f"it {why}"}),
        "loc": at,
        "input": None,
    }


def _problems(
    error: ValidationError,
    model: type[BaseModel],
    table: Mapping[str, Any],
    context: dict[str, Any],
    label: str,
) -> list[InitErrorDetails]:
    """Return the mistakes that pydantic found, in our words."""
    found: dict[Loc, tuple[str, str, dict[str, Any]]] = {}
    for problem in error.errors(include_url=False, include_input=False):
        said = problem.get("ctx", {})
        loc, kind, message = problem["loc"], problem["type"], problem["msg"]
        more: dict[str, Any] = _source_of(problem, model, table, context["environ"])
        if (carried := error_in(problem)) is not None:
            more["error"] = carried
        if "message" in said:  # ours already, about an inner adapter
            more |= {"part": said["part"]} if "part" in said else {}
        elif kind in _UNKNOWN:
            message = _no_such_key(model, loc, label)
        elif kind == "missing":
            message = "is required" + _documented(model, loc)
        elif kind == "value_error":  # raised by a validator; without the prefix
            message = str(said["error"])
        else:
            loc = _without_types(loc, table)
            message, part = _not_as_written(message, kind, model, loc, _at(table, loc))
            more |= {"part": part} if part else {}
        message = _without_secret(message, model, loc, table, context["environ"])
        if loc in found and message != found[loc][1]:  # it may be of several types
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


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_EMPTY = ("_type", "_parsing", "_too_short", "_pattern_mismatch")

Loc = tuple[int | str, ...]


def _is_unknown(problem: InitErrorDetails) -> bool:
    return isinstance(problem["type"], PydanticCustomError) and problem["type"].type in _UNKNOWN


def _without_types(loc: Loc, table: Any) -> Loc:
    """Return a place without the names that pydantic adds of the types in a union."""
    for depth, part in enumerate(loc):
        if not isinstance(table, Mapping | list | tuple):
            return loc[:depth]
        if not isinstance(table, Mapping) or part not in table:
            break
        table = table[part]
    return loc


def _at(table: Any, loc: Loc) -> Any:
    """Return the value at a place in the settings, None where there is none."""
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
            why = "it is one value, written as a whole: none of its parts can be set by itself"
        else:
            why = 'write ["...", "..."]'
        return f"{message}; {why}", ""
    if fields := kind in _TABLES and _fields_at(model, loc):
        plain = ((k, f.default) for k, f in fields.items() if type(f.default) in (int, float, str))
        name, default = next(plain, (next(iter(fields)), ...))
        example = (name, "..." if default is ... else json.dumps(default))
        return f"takes a table, such as {{ {' = '.join(example)} }}", "=".join(example)
    return message, ""


_TABLES = ("dataclass_type", "dataclass_exact_type", "model_type", "model_attributes_type")


def _no_such_key(model: type[BaseModel], loc: Loc, label: str) -> str:
    said = "there is no such key" if len(loc) > 1 else f"{label} has no such key"
    if note := _foreign(model, loc):
        return f"{said}; {note}" if " " in note else f"{said}; did you mean {note!r}?"
    known = _fields_at(model, loc[:-1])
    if near := nearest(loc[-1], known):
        return f"{said}; did you mean {near!r}?"
    return f"{said}; it has {listed(loc[-1], known) or 'none'}" if known or len(loc) == 1 else said


def _meant(model: type[BaseModel], name: str) -> str:
    """Return the field that an unknown key is taken for, or nothing."""
    meant = _foreign(model, (name,)) or nearest(name, model.model_fields)
    return meant if meant in model.model_fields else ""


def _foreign(model: type[BaseModel], loc: Loc) -> str:
    """Return what the model has to say of a key of another tool's, or nothing."""
    names: Mapping[str, str] = getattr(model, "foreign_names", {})
    return names.get(".".join(map(str, loc)).replace("-", "_").lower(), "")


def _fields_at(model: type[BaseModel], loc: Loc) -> Mapping[str, FieldInfo]:
    """Return the fields of the model, or the model or dataclass at a place in it."""
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
    """Name the ecosystem's variable that gave a value, and what an inner adapter knows of one."""
    if source := problem.get("ctx", {}).get("source"):
        return {"source": source}
    name = str(problem["loc"][0]) if problem["loc"] else ""
    field = model.model_fields.get(name)
    if field is None or name in table:
        return {}
    variable = variable_of(field, environ)
    return {"source": f"environment variable {variable}"} if variable else {}


def _documented(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    field = model.model_fields.get(str(loc[0])) if len(loc) == 1 else None
    return f": {field.description}" if field is not None and field.description else ""
