"""What a replay says of a call that it cannot answer reads well, whatever the numbers."""

from __future__ import annotations

from typing import Any

import pytest
from crucible_adapter_compose.cassette.missing import explained, shown
from crucible_adapter_compose.cassette.texts import with_article


def same(number: int, one: Any, other: Any) -> bool:
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (1, "where a[0] is 0, and not 1; if"),
        (2, "where a[0] is 0, and not 1 (and 1 more difference); if"),
        (3, "where a[0] is 0, and not 1 (and 2 more differences); if"),
        (49, "(and 48 more differences); if"),
        (500, "(and at least 49 more differences); if"),
    ],
)
def test_further_differences_are_counted(numbers: int, said: str) -> None:
    given, recorded = {"a": [1] * numbers}, {"a": [0] * numbers}
    assert said in str(explained("file", "call", given, [(1, recorded)], 0, same))


@pytest.mark.parametrize(("asked", "said"), [(1, "1 call of x"), (2000, "2,000 calls of x")])
def test_calls_that_were_asked_for_are_counted(asked: int, said: str) -> None:
    assert f"file has {said}, all asked for before" in str(
        explained("file", "x", {}, [], asked, same)
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"$bytes": 1, "sha256": "ab"}, "1 byte, sha256 ab"),
        ({"$bytes": 2, "sha256": "ab", "left": True}, "2 bytes, the rest not read, sha256 ab"),
        ({"$ints": 1000, "sha256": "ab"}, "1,000 integers, sha256 ab"),
        ({"$foreign": "int"}, "an int, which is not a handle of this adapter"),
    ],
)
def test_a_value_is_shown_in_words(value: Any, said: str) -> None:
    assert shown(value) == said


@pytest.mark.parametrize(
    ("noun", "said"),
    [
        ("int64 of object", "an int64 of object"),
        ("MaskedArray of int64", "a MaskedArray of int64"),
        ("uint8 of x", "a uint8 of x"),
        ("Array", "an Array"),
    ],
)
def test_a_type_has_its_article(noun: str, said: str) -> None:
    assert with_article(noun) == said
