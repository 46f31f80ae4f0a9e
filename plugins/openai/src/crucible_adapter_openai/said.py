"""What a server said, as far as it fits into a message."""

from __future__ import annotations

import reprlib

_REPR = reprlib.Repr()
_REPR.maxlevel = 4
_REPR.maxdict = _REPR.maxlist = 8
_REPR.maxstring = _REPR.maxother = 200
_REPR.maxlong = 40


def shown(value: object) -> str:
    """Return the representation of a value, at most 300 characters long.

    Not by `repr` and cutting: of an answer of 32 MiB that takes 100 MB, and of one nested deeply
    enough it fails.
    """
    text = _REPR.repr(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


def cut(text: str) -> str:
    """Return a text at most 500 characters long, which can be written to any file.

    Where it was cut there are dots: what is left there of a secret is known by them.
    """
    text = text if len(text) <= 500 else f"{text[:497]}..."
    return text.encode("utf-8", "backslashreplace").decode()
