"""Parts of a data set: `train`, `train[:90%]`, `train[100:]+extra`, as `datasets` writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...errors import InvalidInput

_PART = re.compile(r"(?P<name>[^\[\]+]+)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of a split.

    Args:
        name: the split.
        start, stop: the first row and the one after the last, as in a slice of Python; with `%`, a
            share of the rows, rounded to a whole row.
    """

    name: str
    start: str | None = None
    stop: str | None = None

    def rows(self, count: int) -> range:
        """Return the numbers of the rows, of a split of `count`.

        Raises:
            InvalidInput: the split has fewer rows.
        """
        return range(count)[_place(self.start, count, self) : _place(self.stop, count, self)]

    def fixed(self) -> tuple[int, int | None]:
        """Return the first row and the one after the last, of a split whose rows are not counted.

        Raises:
            InvalidInput: they depend on the number of rows.
        """
        places = [self.start or "0", self.stop or "0"]
        if any(place.startswith("-") or place.endswith("%") for place in places):
            raise InvalidInput(
                f"the split {str(self)!r} depends on the number of rows, which a stream does not "
                "tell; write it as in 'train[:1000]' or 'train[1000:]'"
            )
        start, stop = map(int, places)
        return start, None if self.stop is None else max(start, stop)

    def __str__(self) -> str:
        if self.start is self.stop is None:
            return self.name
        return f"{self.name}[{self.start or ''}:{self.stop or ''}]"


def parts(split: str) -> list[Part]:
    """Return the parts that a split names.

    Raises:
        InvalidInput: it is not of the form.
    """
    found = []
    for text in split.split("+"):
        match = _PART.fullmatch(text.strip())
        if match is None:
            raise InvalidInput(
                f"the split {split!r} is not of the form 'train', 'train[:90%]' or 'train[:100]', "
                "or several of these joined by '+'"
            )
        found.append(Part(match["name"].strip(), match["start"], match["stop"]))
    return found


def _place(written: str | None, count: int, part: Part) -> int | None:
    if written is None:
        return None
    if written.endswith("%"):
        share = int(written[:-1])
        if abs(share) > 100:
            raise InvalidInput(f"the split {str(part)!r} asks for more than 100 % of the rows")
        return round(count * share / 100) if share >= 0 else count - round(count * -share / 100)
    place = int(written)
    if abs(place) > count:
        raise InvalidInput(f"the split {str(part)!r} goes beyond the {count} rows of the split")
    return place
