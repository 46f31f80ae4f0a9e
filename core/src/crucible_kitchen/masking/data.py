"""Plain data without its secrets."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from ..messages.printable import repr_of, text_of
from .evident import masked
from .mask import MASK, hidden
from .names import counts, names_secret

DEEPEST = 100
"""How deep data is searched; anything deeper is masked whole."""

_PLAIN = (numbers.Number, type, type(None))


def shown(value: Any, *, known: Callable[[str], str] | None = None, depth: int = 0) -> Any:
    """Return plain data without its secrets: values with such names, and those in URLs.

    Args:
        value: plain data. Values other than tables, lists, texts and bytes stay as they are, unless
            `known` finds a secret in their `str` or `repr`.
        known: masks texts; models become plain data. None masks the secrets that are evident in
            texts, and leaves models as they are.
        depth: how deep in other data it is.
    """
    mask = known or (lambda text: masked(text, whole=True))
    if depth > DEEPEST:
        return MASK
    if hasattr(value, "get_secret_value"):
        return hidden(value)
    if known is not None and isinstance(value, BaseModel):
        value = value.model_dump(mode="json", fallback=text_of)
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, bytes):
        text = value.decode("latin-1")
        return value if (without := mask(text)) == text else without.encode("latin-1", "replace")
    if isinstance(value, Mapping):
        return {
            (mask(name) if isinstance(name, str) else name): (
                hidden(item)
                if names_secret(name) and not counts(name, item)
                else shown(item, known=known, depth=depth + 1)
            )
            for name, item in value.items()
        }
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(shown(item, known=known, depth=depth + 1) for item in value)
    if known is not None and not isinstance(value, _PLAIN):
        for text in (text_of(value), repr_of(value)):
            if (without := known(text)) != text:
                return without
    return value
