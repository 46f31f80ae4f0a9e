"""What a class of settings documents of each: type, default, meaning.

Classes and their fields may be any package's, whose code may raise anything.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_type_hints

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ..masking.evident import masked
from ..masking.secrets import is_secret
from ..messages.printable import text_of
from ..options.environment import metadata_of, variables
from ..options.renamed import Renamed


def described_fields(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """Return of each field its name, type, default and meaning, as text."""
    return [
        (name, type_name(field.annotation), default_of(field), _meaning(field))
        for name, field in model.model_fields.items()
    ]


def _meaning(field: FieldInfo) -> str:
    before = [each.old for each in metadata_of(field) if isinstance(each, Renamed)]
    said = [in_one_line(field.description), f"Before: {', '.join(before)}." if before else ""]
    return " ".join(filter(None, said))


def type_name(annotation: Any) -> str:
    """Return a type as people write it: without modules, and `X | None` for an optional one."""
    bare = tried(get_type_hints, SimpleNamespace(__annotations__={"": annotation}))
    annotation = bare[""] if bare else annotation  # without the metadata of Annotated
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    name = re.sub(r"\b[a-z_.]+\.(?=[A-Za-z])", "", text_of(annotation))
    return re.sub(r"^Optional\[(.*)\]$", r"\1 | None", name)


def default_of(field: Any) -> str:
    """Return what holds where a field is not set, such as `$HF_TOKEN, else "auto"`; `required`;
    or "" for None. Secrets are masked.
    """
    names = [f"${name}" for name in variables(field)]
    if field.default_factory is not None:
        takes_options = field.default_factory_takes_validated_data
        default = "computed" if takes_options else _made(field.default_factory)
    elif field.default is PydanticUndefined:
        default = "required"
    elif isinstance(field.default, str):
        default = f'"{masked(field.default, whole=True)}"'
    else:
        default = "" if field.default is None else text_of(field.default)
    if is_secret(field.annotation) and default not in ("", "required"):
        default = "(secret)"
    return ", else ".join([*names, *([default] if default else [])])


def doc_of(thing: Any) -> str:
    """Return a docstring; "" if there is none."""
    found = tried(inspect.getdoc, thing)
    return text_of(found) if isinstance(found, str) else ""


def _made(factory: Callable[[], Any]) -> str:
    made = tried(lambda: repr(factory()))
    return text_of(made) if made else "computed"


def tried(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of the call; None if it raises."""
    try:
        return call(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None


def in_one_line(text: str | None) -> str:
    """Replace the line breaks of a source file by spaces; the screen has its own."""
    return " ".join((text or "").split())
