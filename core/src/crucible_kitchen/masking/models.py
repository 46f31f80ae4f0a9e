"""Models whose values are data, and whose looks are without secrets."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from ..printable import text_of
from .secrets import hidden, is_secret, shown

# The first model that is made has pydantic ask every installed package for plugins, where one
# package with malformed metadata makes it fail (measured, 2.14). It asks only once.
with contextlib.suppress(Exception):
    type("First", (BaseModel,), {})


class Masked(BaseModel):
    """A model whose `repr`, `str` and dumps show no secret.

    A field whose type can hold a secret is masked whatever it holds, for pydantic masks values that
    are secret, and a `str | SecretStr` would show the `str`. So are the values that free tables
    have under names that say so, and in every text what a URL holds. The attributes are as given.
    """

    # A serializer of the whole has pydantic take its own values for foreign ones, of which it would
    # make None where they are infinite or NaN.
    model_config = ConfigDict(ser_json_inf_nan="constants")

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, value if name is None else _masked(type(self), name, value)

    @model_serializer(mode="wrap")
    def _without_secrets(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: _masked(type(self), name, value) for name, value in handler(self).items()}


def visible(model: BaseModel) -> dict[str, Any]:
    """Return the fields of a model as plain data that may be shown: secrets are masked."""
    seen = {}
    for name, value in model.model_dump(mode="json", fallback=text_of).items():
        # The value itself, for a dump does not tell a secret that is empty from one that is not.
        secret = _is_secret(type(model), name)
        seen[name] = hidden(getattr(model, name)) if secret else _masked(type(model), name, value)
    return seen


def _is_secret(model: type[BaseModel], name: str) -> bool:
    return name in model.model_fields and is_secret(model.model_fields[name].annotation)


def _masked(model: type[BaseModel], name: str, value: Any) -> Any:
    if hasattr(value, "get_secret_value"):  # it masks itself
        return value
    return hidden(value) if _is_secret(model, name) else shown({name: value})[name]
