"""Options that have a new name: the old one goes on working, and says what to write instead."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, PydanticUserError
from pydantic_core import PydanticCustomError

from ..errors import CrucibleWarning
from .environment import metadata_of


@dataclass(frozen=True, slots=True)
class Renamed:
    """Accept the name that an option had before, wherever users have written it.

        folder: Annotated[LocalPath, Renamed("directory")]

    An old name counts as the new one would in its place: on the command line it overrides the new
    name in the file. Both in one place are a mistake. Where the old name is used, one warning says
    what to write instead. An option may have had several names.
    """

    old: str


@functools.cache
def renames(model: type[BaseModel]) -> Mapping[str, str]:
    """Return the old names of a model's fields, each with the name of today.

    Raises:
        PydanticUserError: an old name is that of another field, too.
    """
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        for each in metadata_of(field):
            if not isinstance(each, Renamed):
                continue
            other = each.old if each.old in model.model_fields else found.get(each.old)
            if other is not None:
                raise PydanticUserError(
                    f'{name!r} is Renamed("{each.old}"), but so is {other!r}'
                    if other != each.old
                    else f'{name!r} is Renamed("{each.old}"), which is an option itself',
                    code=None,
                )
            found[each.old] = name
    return MappingProxyType(found)


def with_new_names(model: type[BaseModel], data: Any, context: Mapping[str, Any] | None) -> Any:
    """Return what a model is made of, with today's names; warn of old ones.

    A kitchen has done this before, and knows where each name was written, and which member of a
    union it means: `bind` in the context of the validation says so. Here it is for code that makes
    the model itself.
    """
    known = renames(model)
    if not known or not isinstance(data, Mapping) or "bind" in (context or ()):
        return data
    found = dict(data)
    for old, new in known.items():
        if old not in found:
            continue
        if new in found:
            raise PydanticCustomError(
                "renamed",
                "{old} is the old name of {new}; set {new} alone",
                {"old": old, "new": new},
            )
        found[new] = found.pop(old)
        warnings.warn(
            f"{model.__name__}: {old!r} is now called {new!r}", CrucibleWarning, stacklevel=3
        )
    return found
