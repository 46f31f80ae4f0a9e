"""What a server said, cut to fit into a message."""

from __future__ import annotations

import reprlib

_REPR = reprlib.Repr()
_REPR.maxlevel = 4
_REPR.maxdict = _REPR.maxlist = 8
_REPR.maxstring = _REPR.maxother = 200
_REPR.maxlong = 40


def shown(value: object) -> str:
    """Return the representation of a value, at most 300 characters long.

    Cutting the result of `repr` would take 100 MB for an answer of 32 MiB, and `repr` fails for one
    that is nested deeply enough.
    """
    text = _REPR.repr(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


def cut(text: str) -> str:
    """Return a text of at most 500 characters that can be written to any file.

    Dots mark the cut, so that a secret that was cut in two can be recognised by them.
    """
    text = text if len(text) <= 500 else f"{text[:497]}..."
    return text.encode("utf-8", "backslashreplace").decode()
