"""The reward of GSM8K (Cobbe et al. 2021): whether an answer ends with the right number."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ..errors import InvalidInput
from ..types import Completion
from .environment import Step

LONGEST = 1000
"""Digits of a number; a text with more of them in a row is not one."""

_DIGITS = r"(?:\d{1,3}(?:[,\u00a0\u202f]\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+"
_PLAIN = rf"(?:{_DIGITS})(?:[eE][+-]?\d{{1,3}}(?!\d))?"
_SIGN = r"(?:(?<![\w.)\]}])[-+\u2212\u2013])?"
_MONEY = r"[$€£¥]?"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN}){_MONEY}(?P<sign_after>{_SIGN})"
    rf"(?:(?P<whole>\d+) (?=\d+/\d))?(?P<number>{_PLAIN})(?: ?/ ?(?P<under>{_PLAIN})(?! ?/))?"
)
_MARKED = re.compile(rf"####\s*(?={_SIGN}{_MONEY}{_SIGN}(?:\d|\.\d))")
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([^{}]*?)\s*\}\s*\{\s*([^{}]*?)\s*\}")
_LATEX = ((r"\{,\}", ","), (r"\\[,!;: ]", ""), (r"\\([$%])", r"\1"), (r"\*\*", ""))


def final_answer(completion: Completion, row: Mapping[str, Any], field: str = "answer") -> Step:
    """Return the reward 1 for a completion whose final answer is the number that the row's answer
    ends with, else 0. `parsed` says whether there was a number at all.

    Args:
        completion: what the model answered.
        row: a row with the right answer: a number, or a text in the form of a completion.
        field: the field of the right answer.

    Raises:
        InvalidInput: the row has no such field, or no number in it.
    """
    if row.get(field) is None:
        raise InvalidInput(
            f"it has no field {field!r} with the right answer (answer_field); it has "
            f"{', '.join(map(repr, row)) or 'nothing'}"
        )
    right = row[field]
    if isinstance(right, int | float) and not isinstance(right, bool):
        right = repr(right)
    wanted = number_in(right) if isinstance(right, str) else None
    if wanted is None:
        raise InvalidInput(f"there is no number in its {field!r}: {right!r:.80}")
    found = number_in(completion.text)
    return Step(reward=float(found == wanted), parsed=found is not None)


def number_in(text: str) -> Fraction | None:
    r"""Return the number that an answer ends with; None if there is none.

    That is the number after the last `####`; without one, the first in the last `\boxed{...}`;
    without one, the last of the text. Thoughts, `<think>...</think>`, do not count.

    `1,234.50`, `$5`, `-3/4`, `1 1/2`, `\frac{3}{4}` and `2e3` are numbers. The unit does not
    count, not even a percent sign: `50%` is 50.
    """
    if "</think>" in text:
        text = text.rpartition("</think>")[2]
    text = text.partition("<think>")[0]
    text = _FRACTION.sub(r"\1/\2", text)
    for written, plain in _LATEX:
        text = re.sub(written, plain, text)
    if marked := [found.end() for found in _MARKED.finditer(text)]:
        return _value(_NUMBER.match(text, marked[-1]))
    if (boxed := _last_boxed(text)) is not None:
        return _value(_NUMBER.search(boxed))
    last = None
    for found in _NUMBER.finditer(text):
        last = found
    return _value(last)


def _last_boxed(text: str) -> str | None:
    """Return what is between the braces of the last box, to the end of the text if unclosed."""
    start = max((found.end() for found in _BOXED.finditer(text)), default=None)
    if start is None:
        return None
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return text[start:]


def _value(found: re.Match[str] | None) -> Fraction | None:
    if found is None or len(found[0]) > LONGEST:
        return None
    value = _fraction(found["number"])
    if found["under"] is not None:
        under = _fraction(found["under"])
        if under == 0:
            return None
        value /= under
    value += int(found["whole"] or 0)
    negative = (found["sign"] + found["sign_after"]).translate({0x2212: "-", 0x2013: "-"})
    return -value if negative == "-" else value


def _fraction(written: str) -> Fraction:
    return Fraction(re.sub("[,\u00a0\u202f]", "", written))
