"""Rows, and the text by which they are compared."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...ports import DatasetStore


def row(number: int) -> dict[str, Any]:
    """Make a row. Every row has the same keys, and under each one type, or None."""
    texts = [
        "plain",
        "",
        "naïve-Übung-数据-🙂",
        " spaces ",
        'tab\t"quote" \\n',
        "a\u2028b\x85c\r\nd",
    ]
    return {
        "id": number,
        "text": f"{texts[number % 6]}{number}" if texts[number % 6] else "",
        "maybe": None if number % 3 == 1 else ("", "text")[number % 2],
        "count": None if number % 5 == 3 else (2**53 + 1) * (number % 4),
        "score": None if number % 7 == 2 else number / 10,
        "flag": number % 2 == 0,
        "digits": f"{number:03}",
        "messages": [
            {"role": role, "content": f"{role} {number}"} for role in ("user", "assistant")
        ][: 2 - number % 3],
    }


def rows_given(rows: Any) -> list[Mapping[str, Any]]:
    """Return the value of the fixture `rows`, rows or a path, as rows."""
    if isinstance(rows, str):
        lines = Path(rows).read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line.strip()]
    return list(rows)


def read(store: DatasetStore, handle: Any) -> list[str]:
    return texts(store.to_list(handle))


def reading(store: DatasetStore, callback: Callable[..., Any]) -> Callable[..., list[str]]:
    """Return a callback whose handle is also read, for what may be refused only then."""

    @functools.wraps(callback)
    def read_after(*given: Any, **named: Any) -> list[str]:
        return read(store, callback(*given, **named))

    return read_after


def texts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return rows as text, in which 1 differs from 1.0, and NaN equals itself."""
    return [json.dumps(row, sort_keys=True, ensure_ascii=False, default=repr) for row in rows]


def spoil(value: Any) -> None:
    """Change a row, and every mutable value within it."""
    if isinstance(value, dict):
        for inner in value.values():
            spoil(inner)
        value.update(dict.fromkeys(value, "spoiled"), spoiled=True)
    elif isinstance(value, list):
        for inner in value:
            spoil(inner)
        value.append("spoiled")
