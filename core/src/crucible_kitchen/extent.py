"""How deep, how large and of what texts settings may be, so that whatever reads them copes.

They are checked once, where they come from: a recursive function that meets them later (of ours,
of pydantic's, of a library's) needs no guard of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

DEEPEST = 64
"""How deep tables and lists may be one in the other."""

MOST = 1_000_000
"""How many values there may be in all: in code, one list may stand in many places."""

LARGEST = 2**63
"""Integers are of 64 bits, as TOML has them."""

Key = tuple[str, ...]

TOO_DEEP = f"is nested too deeply; {DEEPEST} tables and lists one in the other are the most"
TOO_LARGE = "is an integer of more than 64 bits"


class Unfit(ValueError):
    """A text is JSON, but of more than settings may be. The message says what, as a predicate."""


def from_json(text: str) -> Any:
    """Return what a text says as JSON.

    Raises:
        json.JSONDecodeError: it is not JSON.
        Unfit: it is too deep, or a number in it is too large.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python converts no number of more than some thousand digits
        raise Unfit(TOO_LARGE) from None
    except RecursionError:
        raise Unfit(TOO_DEEP) from None
    for _, why in unfit(found):
        raise Unfit(why)
    return found


def unfit(value: Any, at: Key = ()) -> Iterator[tuple[Key, str]]:
    """Yield where a value is not what a setting may be, and why, as a predicate.

    Args:
        value: anything; anything but a table, list, text or integer is fine.
        at: where it is; its parts count as tables.
    """
    left, count = [(at, value)], 1
    while left:
        at, value = left.pop()
        if isinstance(value, str):
            if why := _unfit_text(value):
                yield at, why
        elif isinstance(value, int):
            if not -LARGEST <= value < LARGEST:
                yield at, TOO_LARGE
        elif isinstance(value, Mapping | list | tuple):
            count += len(value)
            if len(at) >= DEEPEST:
                yield at, TOO_DEEP
            elif count > MOST:
                yield at[:2], f"has more than {MOST:,} values"
                return
            elif isinstance(value, Mapping):
                for name, item in value.items():
                    if isinstance(name, str) and (why := _unfit_text(name)):
                        yield at, f"has a key that {why}"
                    else:
                        left.append(((*at, str(name)), item))
            else:
                left += (((*at, str(index)), item) for index, item in enumerate(value))


def _unfit_text(text: str) -> str:
    if "\0" in text:
        return "has a NUL character"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return (
                f"is not Unicode text: it has {text[error.start]!r} at character "
                f"{error.start + 1}; what is typed at a shell must be UTF-8, and so must its "
                "locale, such as LC_ALL=C.UTF-8"
            )
    return ""
