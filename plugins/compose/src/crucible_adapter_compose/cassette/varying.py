"""What differs from run to run in the texts of a question, such as a UUID."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

GAP = "\0"
"""In place of what varies. JSON has no such character."""

_BY_NATURE = (
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",  # a UUID
    # The same without dashes, of a version that is random; of digests, few look like it.
    r"(?<![0-9a-z])[0-9a-f]{12}[47][0-9a-f]{3}[89ab][0-9a-f]{15}(?![0-9a-z])",
    r"\d{8}-\d{6}-[0-9a-f]{6}",  # the id of a run that was given none
    # In the labels of a run's checkpoints; the number of a step, and a date, are not random.
    r"(?:(?<=/)|(?<=%2F))(?!0000\d{4}|(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01]))"
    r"[0-9a-f]{8}(?=/|%2F)",
)

_STRINGS = re.compile(
    r'"(?:\$\w+|sha256|dtype|base64)": "[^"\\]*"'  # of a marker: not a text
    r'|"(?P<text>[^"\\]*(?:\\.[^"\\]*)*)"(?P<names>: )?'
)


class Varying:
    """Finds what differs from run to run. It is a part of a text: numbers, names of arguments and
    digests are compared as they are.

    Args:
        further: regular expressions of what else does.
    """

    def __init__(self, further: Sequence[str] = ()) -> None:
        self._parts = re.compile("|".join(f"(?:{each})" for each in (*_BY_NATURE, *further)))

    def split(self, question: str) -> tuple[str, tuple[str, ...]]:
        """Return JSON with a gap in each place of what varies, and what was there."""
        values: list[str] = []

        def without(found: re.Match[str]) -> str:
            written = found["text"]
            if not written or found["names"]:
                return found[0]
            text = json.loads(f'"{written}"', strict=False) if "\\" in written else written
            pieces, at = list[str](), 0
            for part in self._parts.finditer(text):
                values.append(part[0])
                pieces.append(text[at : part.start()])
                at = part.end()
            if not pieces:
                return found[0]
            return f'"{GAP.join(map(json_of, [*pieces, text[at:]]))}"'

        return _STRINGS.sub(without, question), tuple(values)

    def is_in(self, value: str, text: str) -> bool:
        """Return whether some JSON has a value where something varies."""
        return json_of(value) in text and value in self.split(text)[1]


def json_of(text: str) -> str:
    """Return a text as it is within JSON."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
