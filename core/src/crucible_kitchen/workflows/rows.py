"""The rows of a run: loaded, rendered, and judged before the first step.

Every row that cannot be trained on is found and named here. What is left out or cut, because the
configuration says so, is counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ..errors import AdapterError, InvalidInput
from ..kitchen import Kitchen
from ..types import Tokenizer
from . import splits
from .batches import permutation, share
from .examples import RowReader
from .rendering import Example, Renderer
from .splits import NumberedRow

TooLong: TypeAlias = Literal["error", "truncate", "drop"]

_NAMED = 6
"""Reasons that an error gives, and rows that it names for each; the rest it counts."""


@dataclass(slots=True)
class Counts:
    """What became of the rows of a data set.

    Args:
        rows: rows that were read.
        sequences: sequences to learn from: a row is one, or, where a chat template writes earlier
            turns differently later on, one an answer.
        tokens: tokens of these, trained on or not.
        too_long: sequences that were left out because of their length.
        truncated: sequences that were cut.
        nothing_left: of the cut ones, those left out because nothing to train on was left.
        also_in_train: of rows to evaluate on, sequences that are trained on, too.
    """

    rows: int = 0
    sequences: int = 0
    tokens: int = 0
    too_long: int = 0
    truncated: int = 0
    nothing_left: int = 0
    also_in_train: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from.

    Args:
        dataset: a data set that the dataset store knows.
        split: of it, or parts of splits; None is its only one.
        name: its configuration, where it has several.
        revision: branch, tag or commit.
    """

    dataset: str
    split: str | None = None
    name: str | None = None
    revision: str | None = None


def load(kitchen: Kitchen, source: Source) -> list[NumberedRow]:
    """Return the rows of a data set."""
    store = kitchen.dataset_store

    def load_split(split: str | None) -> list[dict[str, Any]]:
        handle = store.load_dataset(source.dataset, split, source.name, source.revision)
        return store.to_list(handle)

    named = {"dataset": source.dataset, "split": source.split}
    with kitchen.observers.start("dataset.load", **named) as span:
        rows = splits.read(source.split, load_split)
        span.set(rows=len(rows))
    return rows


def hold_out(
    rows: Sequence[NumberedRow], size: float, seed: int
) -> tuple[list[NumberedRow], list[NumberedRow]]:
    """Return the rows without a random part of them, and that part, in their stored order.

    Args:
        rows: all of them.
        size: how many rows, or, below 1, which share of them, rounded up.
        seed: the part is a function of it and of the number of rows alone.

    Raises:
        InvalidInput: nothing would be left.
    """
    count = size_of(size, len(rows))
    if count >= len(rows):
        raise InvalidInput(f"test_size = {size} leaves nothing of {len(rows)} rows to train on")
    # Not the seeds of an epoch's order, (seed, epoch).
    chosen = set(permutation(len(rows), seed, 0, 1)[:count].tolist())
    kept = [row for place, row in enumerate(rows) if place not in chosen]
    return kept, [row for place, row in enumerate(rows) if place in chosen]


def size_of(size: float, count: int) -> int:
    """Return a number of rows, which below 1 is a share of `count`, rounded up."""
    return int(size) if size >= 1 else share(size, count)


@dataclass(slots=True)
class Judge:
    """Renders rows and decides which can be trained on.

    Args:
        reader: how rows are read.
        renderer: how they are rendered.
        too_long: what to do with sequences that are too long.
        max_length: the longest input in tokens that is wanted; None is the model's own limit.
    """

    reader: RowReader
    renderer: Renderer
    too_long: TooLong = "error"
    max_length: int | None = None
    counts: Counts = field(default_factory=Counts)

    @property
    def _tokenizer(self) -> Tokenizer:
        return self.renderer.template.tokenizer

    @property
    def limit(self) -> int | None:
        """The longest input in tokens: that of the model, or less if less is wanted."""
        limits = [n for n in (self.max_length, longest_input(self._tokenizer)) if n is not None]
        return min(limits, default=None)

    def examples(self, rows: Iterable[NumberedRow], what: str) -> list[Example]:
        """Render rows and return what can be learned from.

        Raises:
            InvalidInput: rows that cannot be trained on, all of them named; or nothing is left.
        """
        examples = self.kept(rows, what)
        if not examples:
            reason = "every row is too long" if self.counts.rows else "it has no rows"
            raise InvalidInput(f"nothing to learn from {what}: {reason}")
        return examples

    def kept(self, rows: Iterable[NumberedRow], what: str) -> list[Example]:
        """Render rows and return what is not left out, which may be nothing.

        Raises:
            InvalidInput: rows that cannot be trained on, all of them named.
        """
        self.counts = Counts()
        bad: dict[str, list[str]] = {}  # the rows of each reason
        examples: list[Example] = []
        limit = self.limit
        for name, row in rows:
            self.counts.rows += 1
            try:
                for example in self.renderer.render(self.reader.read(row)):
                    if (fitting := self._fit(example, limit)) is not None:
                        examples.append(fitting)
                        self.counts.sequences += 1
                        self.counts.tokens += len(fitting.tokens)
            except AdapterError as error:
                bad.setdefault(error.reason, []).append(name)
        if bad:
            raise InvalidInput(_named(bad, what))
        return examples

    def _fit(self, example: Example, limit: int | None) -> Example | None:
        self._check_tokens(example)
        # The model reads all but the last token.
        length = len(example.tokens) - 1
        if length < 1:
            raise InvalidInput("it has fewer than two tokens")
        if example.weight == 0:
            raise InvalidInput("it has no token to train on")
        if limit is None or length <= limit:
            return example
        if self.too_long == "drop":
            self.counts.too_long += 1
            return None
        if self.too_long == "truncate":
            self.counts.truncated += 1
            cut = Example(example.tokens[: limit + 1], example.weights[: limit + 1])
            if cut.weight == 0:
                self.counts.nothing_left += 1
                return None
            return cut
        raise InvalidInput(
            f"it has {length} tokens, the longest input is {limit}; raise max_length if the model "
            'can read more, or set too_long to "truncate" or "drop"'
        )

    def _check_tokens(self, example: Example) -> None:
        known = getattr(self._tokenizer, "model_vocab_size", None)
        if known is None or not len(example.tokens) or int(example.tokens.max()) < known:
            return
        token = int(example.tokens.max())
        raise InvalidInput(
            f"its token {token}, {self._tokenizer.decode([token])!r}, is beyond the {known} that "
            "the model knows: tokens were added to the tokenizer and the model was not resized"
        )


def longest_input(tokenizer: Tokenizer) -> int | None:
    """Return the longest input of a model in tokens, where its tokenizer tells.

    Transformers calls it `model_max_length`, and has a huge number where it is not known.
    """
    limit = getattr(tokenizer, "model_max_length", None)
    return limit if limit is not None and limit < 2**31 else None


def duplicates(train: Sequence[Example], test: Sequence[Example]) -> int:
    """Return how many sequences of `test` are in `train`, too."""
    known = {example.tokens.tobytes() for example in train}
    return sum(example.tokens.tobytes() in known for example in test)


def fingerprint(examples: Sequence[Example]) -> dict[str, Any]:
    """Return what sequences are known by, in their order: how many, and a digest of all of them."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(b"%d %d " % (len(example.tokens), example.prompt_length or 0))
        digest.update(example.tokens.astype("<i8").tobytes())
        digest.update(example.weights.astype("<f4").tobytes())
    return {"sequences": len(examples), "sha256": digest.hexdigest()}


def marked(example: Example, tokenizer: Tokenizer) -> str:
    """Return the text of a sequence, what is trained on between ⟦ and ⟧."""
    text, start = "", 0
    flags = [False, *(example.weights[1:] != 0).tolist()]
    for place in range(1, len(flags) + 1):
        if place == len(flags) or flags[place] != flags[start]:
            piece = tokenizer.decode(example.tokens[start:place].tolist())
            text += f"⟦{piece}⟧" if flags[start] else piece
            start = place
    return text


def _named(bad: Mapping[str, list[str]], what: str) -> str:
    """Return what is wrong with which rows, the first ones by name."""
    count = sum(map(len, bad.values()))
    if count == 1:
        [(reason, [name])] = bad.items()
        return f"{name} of {what}: {reason}"
    lines = [f"{count:,} rows of {what} cannot be trained on:"]
    for reason, names in list(bad.items())[:_NAMED]:
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        lines.append(f"  {', '.join(names[:_NAMED])}{more}: {reason}")
    rest = [name for names in list(bad.values())[_NAMED:] for name in names]
    if rest:
        more = f" and {len(rest) - _NAMED:,} more" if len(rest) > _NAMED else ""
        lines.append(f"  {', '.join(rest[:_NAMED])}{more}: for such reasons, too")
    return "\n".join(lines)
