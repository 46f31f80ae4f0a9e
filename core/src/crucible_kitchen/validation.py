"""Validating options: what is wrong, in words that say what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, cast, get_args, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from .errors import CrucibleError
from .options import variable_of
from .settings import miswritten, nearest

ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(
    model: type[ModelT], table: Mapping[str, Any], context: dict[str, Any], label: str
) -> ModelT:
    """Validate, and say of each mistake what to do.

    Raises:
        ValidationError: without any input in it, for an input may be a secret.
    """
    try:
        return model.model_validate(dict(table), context=context)
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
                    found.append({**problem, "loc": loc})
        raise ValidationError.from_exception_data(label, found, hide_input=True) from None


def _problems(
    error: ValidationError,
    model: type[BaseModel],
    table: Mapping[str, Any],
    context: dict[str, Any],
    label: str,
) -> list[InitErrorDetails]:
    """Return the mistakes that pydantic found, in our words."""
    found: list[InitErrorDetails] = []
    for problem in error.errors(include_url=False, include_input=False):
        said = problem.get("ctx", {})
        loc, kind, message = problem["loc"], problem["type"], problem["msg"]
        more = error_of(problem) | _source_of(problem, model, table, context["environ"])
        if "message" in said:  # ours already, about an inner adapter
            more |= {"part": said["part"]} if "part" in said else {}
        elif kind in _UNKNOWN:
            message = _no_such_key(model, loc, label)
        elif kind == "missing":
            message = "is required" + _documented(model, loc)
        elif kind == "value_error":  # raised by a validator; without the prefix
            message = str(said["error"])
        elif kind.endswith(_NOT_AS_WRITTEN):
            message, part = _not_as_written(message, kind, model, loc, _at(table, loc))
            more |= {"part": part} if part else {}
        custom = PydanticCustomError(cast(Any, kind), "{message}", {**more, "message": message})
        found.append({"type": custom, "loc": loc, "input": None})
    return found


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_NOT_AS_WRITTEN = ("_type", "_parsing", "_too_short", "_pattern_mismatch")

Loc = tuple[int | str, ...]


def _is_unknown(problem: InitErrorDetails) -> bool:
    return isinstance(problem["type"], PydanticCustomError) and problem["type"].type in _UNKNOWN


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
    if isinstance(value, str) and not value.strip():
        return "is empty" + (_documented(model, loc) or "; leave it out for its default"), ""
    if why := miswritten(value):
        return f"{message}; it {why}", ""
    if kind in ("list_type", "tuple_type"):
        if isinstance(value, Mapping):
            why = "it is one value, written as a whole: none of its parts can be set by itself"
        else:
            why = 'write ["...", "..."]'
        return f"{message}; {why}", ""
    if fields := kind in _TABLES and _fields_at(model, loc):
        example = next(
            ((k, str(f.default)) for k, f in fields.items() if type(f.default) in (int, float)),
            (next(iter(fields)), "..."),
        )
        return f"takes a table, such as {{ {' = '.join(example)} }}", "=".join(example)
    return message, ""


_TABLES = ("dataclass_type", "dataclass_exact_type", "model_type", "model_attributes_type")


def _no_such_key(model: type[BaseModel], loc: Loc, label: str) -> str:
    said = "there is no such key" if len(loc) > 1 else f"{label} has no such key"
    key = ".".join(map(str, loc))
    if note := getattr(model, "foreign_names", {}).get(key):
        return f"{said}; {note}" if " " in note else f"{said}; did you mean {note!r}?"
    known = _fields_at(model, loc[:-1])
    if near := nearest(loc[-1], known):
        return f"{said}; did you mean {near!r}?"
    return f"{said}; it has {', '.join(known) or 'none'}" if known or len(loc) == 1 else said


def _meant(model: type[BaseModel], name: str) -> str:
    """Return the field that an unknown key is taken for, or nothing."""
    foreign = getattr(model, "foreign_names", {}).get(name)
    if foreign is None:
        return nearest(name, model.model_fields)
    return foreign if foreign in model.model_fields else ""


def _fields_at(model: type[BaseModel], loc: Loc) -> Mapping[str, FieldInfo]:
    """Return the fields of the model, or the model or dataclass at a place in it."""
    fields = _fields_in(model)
    for part in loc:
        fields = _fields_in(fields[str(part)].annotation) if str(part) in fields else {}
    return fields


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
) -> dict[str, str]:
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


def error_of(problem: Any) -> dict[str, CrucibleError]:
    """Return the error of ours that pydantic carries in a problem, as `error`."""
    error = problem.get("ctx", {}).get("error")
    return {"error": error} if isinstance(error, CrucibleError) else {}
