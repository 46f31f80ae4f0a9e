"""Which rows can be trained on: each that cannot is found and named.

What is left out or cut, because the configuration says so, is counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import AdapterError, InvalidInput, NotRecorded
from ...kitchen import Kitchen
from ...types import Tokenizer
from ..config import RowsConfig, TooLong
from .examples import ChosenRejected, Reader, Row, RowReader, Shape
from .rendering import Example, Renderer
from .stored import NumberedRow

_NAMED = 6
"""Reasons that an error gives, and rows that it names for each; the others it counts."""

_AT_ONCE = 256
"""Rows that are rendered together."""


@dataclass(slots=True)
class Counts:
    """What became of the rows of a data set.

    Args:
        rows: rows that were read.
        sequences: sequences to learn from: one for each row, or, where a chat template writes
            earlier turns differently later on, one for each answer; two for each pair.
        tokens: tokens of these, trained on or not.
        too_long: sequences that were left out because of their length.
        truncated: sequences that were cut.
        nothing_left: cut sequences that were left out because nothing to train on was left.
        also_in_train: of rows to evaluate on, sequences that are trained on as well.
    """

    rows: int = 0
    sequences: int = 0
    tokens: int = 0
    too_long: int = 0
    truncated: int = 0
    nothing_left: int = 0
    also_in_train: int = 0


@dataclass(slots=True)
class Judge:
    """Renders rows and decides which can be trained on.

    Args:
        reader: how rows are read.
        renderer: how they are rendered.
        too_long: what to do with sequences that are too long.
        max_length: the longest input in tokens that is wanted; None is the model's own limit.
    """

    reader: Reader
    renderer: Renderer
    too_long: TooLong = "error"
    max_length: int | None = None
    counts: Counts = field(default_factory=Counts)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's."""
        return self.renderer.template.tokenizer

    @property
    def limit(self) -> int | None:
        """The longest input in tokens: that of the model, or less if less is wanted."""
        limits = [n for n in (self.max_length, longest_input(self.tokenizer)) if n is not None]
        return min(limits, default=None)

    def all_of(self, rows: Iterable[NumberedRow], what: str) -> Iterator[Example]:
        """Yield what can be learned from, row after row.

        Raises:
            InvalidInput: at the end, if there were rows that cannot be trained on: names them.
            NotRecorded: the tokenizer is on a recording that lacks one of them.
        """
        bad = BadRows()
        each = iter(rows)
        while some := list(itertools.islice(each, _AT_ONCE)):
            found = self.sequences([row for _, row in some])
            for (name, _), examples in zip(some, found, strict=True):
                if isinstance(examples, AdapterError):
                    bad.add(name, examples.reason)
                else:
                    yield from examples
        if bad.count:
            raise InvalidInput(bad.named(what))

    def sequences(self, rows: Sequence[Row]) -> list[list[Example] | AdapterError]:
        """Render rows together; return of each what is not left out, which may be nothing, or why
        it cannot be trained on. Raises `NotRecorded`, as `all_of` does.
        """
        shapes = [self._read(row) for row in rows]
        self.renderer.look_ahead(s for s in shapes if not isinstance(s, AdapterError))
        return [s if isinstance(s, AdapterError) else self._fitting(s) for s in shapes]

    def _read(self, row: Row) -> Shape | AdapterError:
        self.counts.rows += 1
        try:
            return self.reader.read(row)
        except AdapterError as error:
            return error

    def _fitting(self, shape: Shape) -> list[Example] | AdapterError:
        try:
            fitting = [self.fit(example) for example in self.renderer.render(shape)]
        except NotRecorded:  # which says nothing of the row
            raise
        except AdapterError as error:
            return error
        kept = [example for example in fitting if example is not None]
        if isinstance(shape, ChosenRejected):
            kept = self._both(kept)
        self.counts.sequences += len(kept)
        self.counts.tokens += sum(len(example.tokens) for example in kept)
        return kept

    def fit(self, example: Example) -> Example | None:
        """Return a sequence that the model can read, cut if it has to be; None to leave it out.

        Raises:
            InvalidInput: it cannot be trained on, or it is too long and that is an error.
        """
        self._check_tokens(example)
        length, limit = len(example.tokens) - 1, self.limit  # all but the last token are read
        if length < 1:
            raise InvalidInput("it has fewer than two tokens")
        if example.trained_tokens == 0:
            raise InvalidInput("it has no token to train on")
        if limit is None or length <= limit:
            return example
        if self.too_long == "drop":
            self.counts.too_long += 1
            return None
        if self.too_long == "truncate":
            self.counts.truncated += 1
            cut = Example(example.tokens[: limit + 1], example.weights[: limit + 1])
            if cut.trained_tokens == 0:
                self.counts.nothing_left += 1
                return None
            return cut
        raise InvalidInput(
            f"it has {length} tokens, the longest input is {limit}; raise max_length if the model "
            'can read more, or set too_long to "truncate" or "drop"'
        )

    def _both(self, sides: list[Example]) -> list[Example]:
        """Return both sides of a pair, or neither: a side is left out with the other one."""
        if len(sides) == 2 and not np.array_equal(sides[0].tokens, sides[1].tokens):
            return sides
        if self.too_long == "drop":
            self.counts.too_long += len(sides)
        else:  # cut, and with that nothing is left in which they differ
            self.counts.nothing_left += len(sides)
        return []

    def _check_tokens(self, example: Example) -> None:
        known = getattr(self.tokenizer, "model_vocab_size", None)
        if known is None or not len(example.tokens) or int(example.tokens.max()) < known:
            return
        token = int(example.tokens.max())
        raise InvalidInput(
            f"its token {token}, {self.tokenizer.decode([token])!r}, is beyond the {known} that "
            "the model knows: tokens were added to the tokenizer and the model was not resized"
        )


def judge_of(
    kitchen: Kitchen, session: Any, config: RowsConfig, reader: Reader | None = None
) -> Judge:
    """Return what renders the rows of a configuration with the tokenizer of a session.

    Args:
        kitchen: its training client has the tokenizer.
        session: the training client's.
        config: how rows are read and rendered.
        reader: how rows are read, where that is another way than the configuration's.
    """
    tokenizer = kitchen.training_client.helper("get_tokenizer")(session)
    if reader is None:
        fields = (config.prompt, config.completion, config.messages_field, config.text_field)
        reader = RowReader(*fields)
    renderer = Renderer(
        tokenizer, config.train_on, config.chat_template_kwargs, config.template_date
    )
    return Judge(reader, renderer, config.too_long, config.max_length)


def longest_input(tokenizer: Tokenizer) -> int | None:
    """Return the longest input of a model in tokens, where its tokenizer says.

    Transformers calls it `model_max_length`, and has a huge number where it is not known.
    """
    limit = getattr(tokenizer, "model_max_length", None)
    return limit if limit is not None and limit < 2**31 else None


@dataclass(slots=True)
class BadRows:
    """Rows that cannot be trained on: the first ones by name, the others counted."""

    count: int = 0
    _reasons: dict[str, _Named] = field(default_factory=dict)
    _others: _Named = field(default_factory=lambda: _Named())

    def add(self, name: str, reason: str) -> None:
        """Take note of a row and why it cannot be trained on."""
        self.count += 1
        if reason not in self._reasons and len(self._reasons) == _NAMED:
            self._others.add(name)
        else:
            self._reasons.setdefault(reason, _Named()).add(name)

    def named(self, what: str) -> str:
        """Return what is wrong with which rows of a data set, in words."""
        if self.count == 1:
            [(reason, only)] = self._reasons.items()
            return f"{only} of {what}: {reason}"
        lines = [f"{self.count:,} rows of {what} cannot be trained on:"]
        lines += [f"  {rows}: {reason}" for reason, rows in self._reasons.items()]
        if self._others.count:
            lines.append(f"  {self._others}: for other reasons like these")
        return "\n".join(lines)


@dataclass(slots=True)
class _Named:
    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.names) < _NAMED:
            self.names.append(name)

    def __str__(self) -> str:
        more = self.count - len(self.names)
        return ", ".join(self.names) + (f" and {more:,} more" if more else "")
