"""Limits on settings: how deep, how large and of what text they may be.

They are checked once, where settings come from: a recursive function that meets them later (ours,
pydantic's or a library's) needs no guard of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

DEEPEST = 64
"""Most levels of tables and lists inside each other."""

MOST = 1_000_000
"""Most values in all. One list in many places, which is possible in code, counts in each."""

LARGEST = 2**63
"""Integers have 64 bits, as in TOML."""

Key: TypeAlias = tuple[str, ...]
"""The path of a value in the settings."""

TOO_DEEP = f"is nested too deeply; the limit is {DEEPEST} levels of tables and lists"
TOO_LARGE = "is an integer of more than 64 bits"


class Unfit(ValueError):
    """A text is JSON, but beyond the limits. The message says what it is, as a predicate."""


def from_json(text: str) -> Any:
    """Return the value of a text that is JSON.

    Raises:
        json.JSONDecodeError: it is not JSON.
        Unfit: it is too deep, or a number in it is too large.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python refuses to convert numbers of more than 4,300 digits
        raise Unfit(TOO_LARGE) from None
    except RecursionError:
        raise Unfit(TOO_DEEP) from None
    for _, why in unfit(found):
        raise Unfit(why)
    return found


def unfit(value: Any, at: Key = ()) -> Iterator[tuple[Key, str]]:
    """Yield each place where a value exceeds the limits, and how, as a predicate.

    Args:
        value: anything; only tables, lists, texts and integers are checked.
        at: where it is; its parts count as levels.
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
