"""What a misspelt name may have meant, and which names there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

LISTED = 10
"""Names that a message lists at most."""


def nearest(name: Any, known: Iterable[Any]) -> str:
    """Return the known name that is spelled most like this one; "" if none is close.

    Whether letters are capitals matters only where it tells names apart.
    """
    names = [*map(str, known)]
    if found := difflib.get_close_matches(str(name), names, 1):
        return found[0]
    folded = {each.casefold(): each for each in names}
    close = difflib.get_close_matches(str(name).casefold(), [*folded], 1)
    return folded[close[0]] if close else ""


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """Return the end of a message about an unknown name, `; did you mean 'x'?`.

    It names the one of `known` that is spelled most like `name`; "" if none is close.
    """
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def listed(name: Any, known: Iterable[str], between: str = ", ") -> str:
    """Return the known names for a message: of many, the nearest ten and a count of the others."""
    names = list(known)
    if len(names) > LISTED:
        near = difflib.get_close_matches(str(name), names, LISTED, cutoff=0.0)
        names = [*near, *(other for other in names if other not in near)]
    return shortened(names, between)


def shortened(names: Sequence[str], between: str = ", ") -> str:
    """Return names for a message: of many, the first ten and a count of the others."""
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return f"{between.join(names[:LISTED])}{more}"
