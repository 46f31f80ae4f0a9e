"""What was asked for and is not on the cassette: the nearest call that is, and what differs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from typing import ClassVar

import numpy as np
from crucible_kitchen import NotRecorded

from .texts import with_article
from .values import Json

_LONGEST = 60
"""Characters of a value that a message repeats."""
_COUNTED = 50
"""Differences of two calls that are counted."""
_LEAVES = ("$array", "$scalar", "$bytes", "$ints", "$text", "$files")
"""Values that are shown as a whole."""
_NOTHING = object()


class NotOnCassette(NotRecorded):
    """A call that a replay cannot answer. No repetition helps."""

    unknown = False
    """Whether no recorded call may be meant; else one may, at another place, or one of several."""
    ADVICE: ClassVar[str] = (
        'if that is meant, delete the cassette and record again with mode = "record"'
    )


def differences(
    recorded: Json, given: Json, same: Callable[[Json, Json], bool], at: str = ""
) -> Iterator[tuple[str, Json, Json]]:
    """Yield where two values differ, and what is there in each.

    Args:
        recorded: the arguments of a call on the cassette.
        given: those of the call that is not.
        same: whether two values are as good as equal.
        at: where they are.
    """
    if same(recorded, given):
        return
    tag = _tag(recorded)
    if isinstance(recorded, dict) and isinstance(given, dict) and tag == _tag(given):
        if tag in _LEAVES:
            yield at, recorded, given
            return
        for name in dict.fromkeys([*recorded, *given]):
            place = at if name == tag else f"{at}.{name}" if at else name
            both = recorded.get(name, _NOTHING), given.get(name, _NOTHING)
            yield from differences(*both, same, place)
    elif isinstance(recorded, list) and isinstance(given, list):
        for index, both in enumerate(zip_longest(recorded, given, fillvalue=_NOTHING)):
            yield from differences(*both, same, f"{at}[{index}]")
    else:
        yield at, recorded, given


def _tag(value: Json) -> str | None:
    first = next(iter(value), None) if isinstance(value, dict) else None
    return first if isinstance(first, str) and first.startswith("$") else None


def shown(value: Json) -> str:
    """Return a value of a cassette in a few words."""
    if value is _NOTHING:
        return "nothing"
    tag = _tag(value)
    if tag in ("$array", "$scalar"):
        about = value[tag]
        numbers = about.get("numbers", f"sha256 {about.get('sha256', '')[:12]}")
        return _cut(f"{about['dtype']} of shape {tuple(about['shape'])}, {numbers}")
    if tag in ("$bytes", "$ints", "$text") and "sha256" in value:
        what = {"$bytes": "byte", "$ints": "integer", "$text": "character"}[tag]
        what = counted(value[tag], what)
        if value.get("left"):
            what += ", the rest not read"
        return f"{what}, sha256 {value['sha256'][:12]}"
    if tag == "$handle":
        return f"handle {value[tag]}"
    if tag == "$foreign":
        return f"{with_article(value[tag])}, which is not a handle of this adapter"
    return _cut(json.dumps(value, ensure_ascii=False))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def ambiguous(file: str, name: str, calls: Sequence[int], *, secrets: bool) -> NotOnCassette:
    """Return the error of a call that may be one of several on the cassette, answered otherwise.

    Args:
        file: the cassette.
        name: the callback.
        calls: the numbers of the calls.
        secrets: whether they differ in their secrets, or in what varies from run to run.
    """
    *before, last = map(str, calls)
    which = f"{file} has calls of {name} ({', '.join(before)} and {last}) that were answered "
    if secrets:
        return NotOnCassette(
            f"{which}otherwise, and differ in their secrets alone, which are not on a cassette: "
            "which one is meant is not known; keep secrets out of arguments, and record again"
        )
    return NotOnCassette(
        f"{which}otherwise, and differ alone in what varies from run to run: which one is meant is "
        "not known; name what varies yourself, and record again"
    )


def explained(
    file: str,
    name: str,
    given: Mapping[str, Json],
    left: Sequence[tuple[int, Mapping[str, Json]]],
    asked: int,
    same: Callable[[int, Json, Json], bool],
) -> NotOnCassette:
    """Return the error of a call that is not on the cassette.

    Args:
        file: the cassette.
        name: the callback.
        given: the arguments of the call.
        left: the calls of this callback that were not asked for yet: the line's number of the call,
            and its arguments.
        asked: how often the callback was asked for and answered.
        same: whether a value of the call with this number, and another one, are as good as equal.
    """
    advice = NotOnCassette.ADVICE
    if not left and not asked:
        return _unknown(f"{file} has no call of {name}; {advice}")
    if not left:
        calls = counted(asked, "call")
        return _unknown(f"{file} has {calls} of {name}, all asked for before; {advice}")
    found: list[tuple[int, int, list[tuple[str, Json, Json]]]] = []
    for number, recorded in left:
        alike = functools.partial(same, number)
        differ = [*islice(differences(dict(recorded), dict(given), alike), _COUNTED)]
        found.append((len({place.partition(".")[0] for place, *_ in differ}), number, differ))
    _, number, differ = min(found, key=lambda each: (len(each[2]), each[0], each[1]))
    if not differ:
        return _unknown(
            f"{file} has this call of {name}, but after other calls (it is call {number}); the "
            f"order of calls has changed: {advice}"
        )
    place, *both = differ[0]
    more = f" (and {_further(len(differ) - 1)})" if len(differ) > 1 else ""
    return _unknown(
        f"{file} does not have this call of {name}. The nearest is call {number}, where "
        f"{_contrast(place, *both)}{more}; {advice}"
    )


def counted(number: int, what: str) -> str:
    """Return a number with its noun: `1 call`, `2 calls`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _further(number: int) -> str:
    least = "at least " if number == _COUNTED - 1 else ""  # no further ones were counted
    return f"{least}{counted(number, 'more difference')}"


def _unknown(text: str) -> NotOnCassette:
    error = NotOnCassette(text)
    error.unknown = True
    return error


def _contrast(place: str, recorded: Json, given: Json) -> str:
    """Say how two values differ, of which the same may be shown."""
    one, other = shown(recorded), shown(given)
    if one != other:
        return f"{place} is {one}, and not {other}"
    if _tag(recorded) == "$array":  # of the same type and shape, and not digests
        pairs = zip(recorded["$array"]["numbers"], given["$array"]["numbers"], strict=True)
        at, (first, second) = next(
            (at, pair) for at, pair in enumerate(pairs) if repr(pair[0]) != repr(pair[1])
        )
        index = ", ".join(map(str, np.unravel_index(at, recorded["$array"]["shape"])))
        return f"{place}[{index}] is {first}, and not {second}"
    texts = [json.dumps(value, ensure_ascii=False) for value in (recorded, given)]
    # Not what is there: a part of a secret would not be known as one.
    alike = next(at for at, (a, b) in enumerate(zip_longest(*texts)) if a != b)
    return f"{place} is {one}, and differs after character {alike}"
