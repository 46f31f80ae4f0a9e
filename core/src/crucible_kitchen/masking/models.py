"""Models that show no secret, and their fields as plain data."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from ..messages.printable import text_of
from .data import shown
from .mask import hidden
from .secrets import is_secret


def _survive_broken_plugins() -> None:
    """Let pydantic look for its plugins now, and ignore a failure; it looks only once.

    The first model that is defined makes pydantic ask every installed package for plugins. One
    package with malformed metadata fails that definition (measured, 2.14).
    """
    with contextlib.suppress(Exception):
        type("First", (BaseModel,), {})


_survive_broken_plugins()


class Masked(BaseModel):
    """A model whose `repr`, `str` and dumps show no secret.

    A field whose type can hold a secret is masked whatever it holds: pydantic masks only values
    that are secret, so a `str | SecretStr` would show the `str`. Values in free tables are masked
    if their names say that they are secret, and so are the secrets in URLs. Attributes stay as
    given.
    """

    # With a serializer of the whole model, pydantic treats its values as foreign ones, and would
    # dump infinity and NaN as None.
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
        # The value itself: a dump does not distinguish an empty secret from any other.
        secret = _is_secret(type(model), name)
        seen[name] = hidden(getattr(model, name)) if secret else _masked(type(model), name, value)
    return seen


def _is_secret(model: type[BaseModel], name: str) -> bool:
    return name in model.model_fields and is_secret(model.model_fields[name].annotation)


def _masked(model: type[BaseModel], name: str, value: Any) -> Any:
    if hasattr(value, "get_secret_value"):  # it masks itself
        return value
    return hidden(value) if _is_secret(model, name) else shown({name: value})[name]
