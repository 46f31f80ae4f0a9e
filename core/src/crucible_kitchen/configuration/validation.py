"""Options are validated so that every mistake in them is found at once."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from ..extent import TOO_LARGE, unfit
from ..messages.spelling import nearest
from .wording import UNKNOWN, foreign, worded

ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(
    model: type[ModelT], table: Mapping[str, Any], context: dict[str, Any], label: str
) -> ModelT:
    """Validate a table; say of each mistake what to do.

    Args:
        model: the class of the result.
        table: the values.
        context: for validators: `environ`, the environment, and `bind`, which binds an adapter.
        label: names the table in messages about its own keys.

    Raises:
        ValidationError: the problems in our words, without any input, which may be a secret.
    """
    try:
        if found := [_unfit((name,), TOO_LARGE) for name in _long_numbers(model, table)]:
            raise ValidationError.from_exception_data(label, found)
        valid = model.model_validate(dict(table), context=context)
        # Limits again: a text that was typed at a shell may have become a number only now.
        if found := [_unfit(at, why) for at, why in unfit(_plain(valid))]:
            raise ValidationError.from_exception_data(label, found)
        return valid
    except ValidationError as error:
        found = worded(error, model, table, context["environ"], label)
        if unknown := {p["loc"][0]: p for p in found if _is_unknown(p) and len(p["loc"]) == 1}:
            found = [
                *unknown.values(),
                *_behind(list(map(str, unknown)), model, table, context, label),
            ]
        # What is missing comes first: a message lists a limited number, and only this is not seen
        # by looking at what was written.
        found.sort(key=lambda problem: not _is_missing(problem))
        raise ValidationError.from_exception_data(label, found, hide_input=True) from None


def _behind(
    unknown: list[str],
    model: type[BaseModel],
    table: Mapping[str, Any],
    context: dict[str, Any],
    label: str,
) -> Iterator[InitErrorDetails]:
    """Yield the problems that show when each unknown key is spelled as it was meant.

    They are named under the key as written. Values of other tools' keys are of other kinds, so
    problems with those are left out.
    """
    meant = {name: _meant(model, name) for name in unknown}
    respelled = {name: value for name, value in table.items() if name not in unknown}
    respelled |= {key: table[name] for name, key in meant.items() if key and key not in table}
    try:
        model.model_validate(respelled, context=context)
    except ValidationError as error:
        written = {key: name for name, key in meant.items() if key not in table}
        for problem in worded(error, model, respelled, context["environ"], label):
            loc = problem["loc"]
            loc = (*(written.get(str(key), key) for key in loc[:1]), *loc[1:])
            if not (loc and foreign(model, loc)):
                yield {**problem, "loc": loc}


def _meant(model: type[BaseModel], name: str) -> str:
    """Return the field that an unknown key probably stands for, or ""."""
    meant = foreign(model, (name,)) or nearest(name, model.model_fields)
    return meant if meant in model.model_fields else ""


def _is_unknown(problem: InitErrorDetails) -> bool:
    return isinstance(problem["type"], PydanticCustomError) and problem["type"].type in UNKNOWN


def _is_missing(problem: InitErrorDetails) -> bool:
    return isinstance(problem["type"], PydanticCustomError) and problem["type"].type == "missing"


_LONG = re.compile(r"\s*[+-]?[0-9][0-9_]{19,}\s*")


def _long_numbers(model: type[BaseModel], table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields for numbers whose text is an integer of 20 digits or more.

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
