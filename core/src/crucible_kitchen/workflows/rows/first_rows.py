"""The first rows of a data set, rendered without reading the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ...errors import InvalidInput, Unsupported
from ...kitchen import Kitchen
from ..config import RowsConfig
from .examples import Reader
from .judge import Counts, Judge, judge_of
from .loading import Loader, Purpose, open_stream, source_of, stored_rows
from .rendering import Example, marked
from .stored import NumberedRow


def try_rows(
    kitchen: Kitchen, session: Any, config: RowsConfig, reader: Reader | None = None
) -> Iterator[tuple[str, str]]:
    """Render the first row to train and to evaluate on; yield what was tried, and how it is.

    Raises:
        InvalidInput: a row that cannot be trained on, or none is there.
    """
    judge = judge_of(kitchen, session, config, reader)
    purposes: list[Purpose] = ["train", "test"] if config.evaluates else ["train"]
    for purpose in purposes:
        found = list(_first(kitchen, judge, config, purpose, 1))
        if not found:
            source = source_of(config, purpose)
            raise InvalidInput(f"nothing to learn from {source}: it has no rows")
        [(name, examples)] = found
        length = f"{len(examples[0].tokens)} tokens" if examples else "too long, left out"
        yield f"{purpose} rows", f"{name}: {length}"


def show_rows(
    kitchen: Kitchen,
    session: Any,
    config: RowsConfig,
    count: int,
    reader: Reader | None = None,
) -> Iterator[str]:
    """Yield the text of the first `count` training rows, what is trained on between ⟦ and ⟧.

    Raises:
        InvalidInput: a row that cannot be trained on.
    """
    judge = judge_of(kitchen, session, config, reader)
    for name, examples in _first(kitchen, judge, config, "train", count):
        if not examples:
            yield f"{name} is left out, too long"
        for example in examples:
            yield f"{name}, {len(example.tokens)} tokens\n{marked(example, judge.tokenizer)}"


def _first(
    kitchen: Kitchen, judge: Judge, config: RowsConfig, purpose: Purpose, count: int
) -> Iterator[tuple[str, list[Example]]]:
    """Yield the names and the sequences of the first rows; of one that is left out, none."""
    what = str(source_of(config, purpose))
    for name, row in _read(kitchen, config, purpose, count):
        yield name, list(replace(judge, counts=Counts()).all_of([(name, row)], what))


def _read(kitchen: Kitchen, config: RowsConfig, purpose: Purpose, count: int) -> list[NumberedRow]:
    store = kitchen.dataset_store
    if not config.holds_out:
        try:
            handle, start = open_stream(kitchen, source_of(config, purpose))
            rows = store.to_list(store.take(handle, count))
        except (InvalidInput, Unsupported):
            pass  # which rows are the first depends on how many there are
        else:
            return [(f"row {start + number}", row) for number, row in enumerate(rows)]
    return stored_rows(Loader(kitchen), config, purpose).read(slice(count))
