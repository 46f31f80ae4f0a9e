"""The rows of a run: opened, rendered, and judged before they are trained on."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ...errors import InvalidInput
from ...events import DatasetRender, DatasetRendering, DatasetStream
from ...kitchen import Kitchen
from ..config import RowsConfig
from . import cache as render_cache
from .ahead import Rendering, StoredBatches, StreamedBatches
from .examples import Reader
from .judge import Counts, Judge, judge_of
from .key import key
from .loading import Loader, Purpose, Source, held_out, open_stream, source_of, stored_rows
from .rendering import Example, marked
from .sequences import Sequences, Writer, duplicates, fingerprint
from .stored import NumberedRow, StoredRows, digest

RECORDED = 4000
"""Characters of an example that a run's record keeps."""
SHOWN = 3
"""Examples that it keeps."""
_EVERY = 0.25  # seconds between two events of progress


@dataclass(frozen=True, slots=True)
class RenderedRows:
    """What a run trains and evaluates on.

    Args:
        train: the sequences, or, where they are rendered ahead of the step that needs them, the
            batches.
        test: the sequences to evaluate on; empty if the configuration names no rows for it.
        facts: what a run's record shows of them: counts, and the first ones as text.
        depends_on: what the record holds to refuse to continue the run with other rows.
    """

    train: Sequence[Example] | StoredBatches | StreamedBatches
    test: Sequence[Example]
    facts: Mapping[str, Any]
    depends_on: Mapping[str, Mapping[str, Any]]

    @property
    def longest(self) -> int | None:
        """Tokens of the longest sequence that is trained on; None if that is not known before."""
        return self.train.longest if isinstance(self.train, Sequences) else None

    @property
    def amounts(self) -> dict[str, int]:
        """What is known of their number and length before training: of a pass over them."""
        found = {}
        for purpose, rows in (("train", self.train), ("test", self.test)):
            if isinstance(rows, Sequences):
                for name in ("rows", "sequences", "tokens"):
                    found[f"{purpose}_{name}"] = int(rows.about[name])
                if purpose == "train":
                    found["trained_tokens"] = rows.trained_tokens
            elif isinstance(rows, StoredBatches):
                found[f"{purpose}_rows"] = len(rows.rows)
        return found


def prepare_rows(
    kitchen: Kitchen,
    session: Any,
    config: RowsConfig,
    batch_size: int,
    reader: Reader | None = None,
) -> RenderedRows:
    """Open the data sets of a configuration, and render the rows that are checked before training.

    Args:
        kitchen: its dataset store is read; its observers hear of the progress.
        session: the training client's, whose tokenizer is used.
        config: which rows, and how to read them.
        batch_size: rows in an optimizer step.
        reader: how rows are read, where that is another way than the configuration's.

    Raises:
        InvalidInput: rows that cannot be trained on, all of those that are checked named; or there
            is nothing to train or to evaluate on.
    """
    judge = judge_of(kitchen, session, config, reader)
    loader = Loader(kitchen)
    stored = None if config.streaming else stored_rows(loader, config, "train")
    held_out = stored_rows(loader, config, "test") if config.evaluates else None
    rows = _Rows(kitchen, config, judge, batch_size)
    train, shown = rows.stream() if stored is None else rows.train(stored)
    test = [] if held_out is None else rows.test(held_out, train)
    return RenderedRows(train, test, rows.facts(shown), rows.depends_on)


def prepare_held_out(kitchen: Kitchen, session: Any, config: RowsConfig) -> RenderedRows:
    """Open and render the rows to evaluate on alone; see `prepare_rows`. Nothing is trained on.

    Args:
        kitchen: its dataset store is read; its observers hear of the progress.
        session: the training client's, whose tokenizer is used.
        config: which rows, and how to read them; if it names none to evaluate on, all of `dataset`.

    Raises:
        InvalidInput: rows that cannot be evaluated, all of them named; or there are none.
    """
    config = held_out(config)
    rows = _Rows(kitchen, config, judge_of(kitchen, session, config), 1)
    test = rows.test(stored_rows(Loader(kitchen), config, "test"), [])
    return RenderedRows([], test, rows.facts(test[:SHOWN]), rows.depends_on)


@dataclass(slots=True)
class _Rows:
    """Prepares the rows of a run, and keeps what is found out about them."""

    kitchen: Kitchen
    config: RowsConfig
    judge: Judge
    batch_size: int
    counts: dict[str, Counts] = field(default_factory=dict)
    depends_on: dict[str, dict[str, Any]] = field(default_factory=dict)

    def train(self, rows: StoredRows) -> tuple[Sequence[Example] | StoredBatches, list[Example]]:
        """Return what is trained on, and its first sequences to show."""
        check = self.config.rows_to_check
        if check == "all":
            sequences = self._all("train", rows)
            return sequences, sequences[:SHOWN]
        if not len(rows):
            raise InvalidInput(f"nothing to learn from {self._source('train')}: it has no rows")
        first = self._checked(rows.read(slice(1 if check == "first" else check)))
        self.depends_on["train"] |= {"rows": len(rows), "rows_sha256": rows.sha256()}
        return StoredBatches(rows, self._rendering(), self.batch_size, self.config.seed), first

    def stream(self) -> tuple[StreamedBatches, list[Example]]:
        """Return what is trained on, and its first sequences to show."""
        config, store = self.config, self.kitchen.dataset_store
        source, check = source_of(config, "train"), config.rows_to_check
        with self.kitchen.observers.start(DatasetStream(**self._named("train"))):
            handle, start = open_stream(self.kitchen, source)
            rows = store.to_list(store.take(handle, check if isinstance(check, int) else 1))
        if not rows:
            raise InvalidInput(f"nothing to learn from {source}: it has no rows")
        first = self._checked([(f"row {start + n}", row) for n, row in enumerate(rows)])
        self.depends_on["train"]["first_rows"] = [digest(row).hex() for row in rows[:SHOWN]]
        batches = StreamedBatches(
            store,
            handle,
            self._rendering(),
            self.batch_size,
            self.config.seed,
            config.shuffle_buffer,
        )
        return batches, first

    def _checked(self, rows: list[NumberedRow]) -> list[Example]:
        """Render the first rows alone."""
        judge = self._judge("train")
        event = DatasetRender(purpose="train", **self._named("train"))
        with self.kitchen.observers.start(event) as span:
            examples = list(judge.all_of(rows, str(self._source("train"))))
            span.set(replace(event, **asdict(judge.counts)))
        self.depends_on["train"] = {
            f"checked_{name}": value for name, value in fingerprint(examples).items()
        }
        return examples[:SHOWN]

    def _rendering(self) -> Rendering:
        judge = replace(self.judge, counts=Counts())
        return Rendering(self.kitchen, judge, str(self._source("train")))

    def test(
        self, rows: StoredRows, train: Sequence[Example] | StoredBatches | StreamedBatches
    ) -> Sequence[Example]:
        """Return what is evaluated on, all of it rendered, and count what is also trained on."""
        return self._all("test", rows, train)

    def _all(
        self,
        purpose: Purpose,
        rows: StoredRows,
        train: Sequence[Example] | StoredBatches | StreamedBatches | None = None,
    ) -> Sequences:
        """Render every row, or take what was kept of an earlier start."""
        judge, what = self._judge(purpose), str(self._source(purpose))

        def fill(writer: Writer) -> Mapping[str, Any]:
            for example in judge.all_of(self._reported(purpose, rows), what):
                writer.append(example)
            if not judge.counts.sequences:
                reason = "every row is too long" if judge.counts.rows else "it has no rows"
                raise InvalidInput(f"nothing to learn from {what}: {reason}")
            return asdict(judge.counts)

        event = DatasetRender(purpose=purpose, **self._named(purpose))
        with self.kitchen.observers.start(event) as span:
            if self.config.render_cache:
                sequences = render_cache.kept(key(judge, rows.sha256()), fill)
            else:
                sequences = render_cache.unkept(fill)
            counts = self.counts[purpose] = Counts(**sequences.about)
            if isinstance(train, Sequence):
                counts.also_in_train = duplicates(train, sequences)
            elif isinstance(train, StoredBatches):
                counts.also_in_train = train.rows.shared(rows)
            span.set(replace(event, **asdict(counts)))
        self.depends_on[purpose] = dict(sequences.fingerprint)
        return sequences

    def facts(self, shown: Sequence[Example]) -> dict[str, Any]:
        """Return what the record of a run shows of the rows."""
        template = self.judge.renderer.template
        return {
            "rows": {purpose: asdict(counts) for purpose, counts in self.counts.items()},
            "examples": [marked(one, self.judge.tokenizer)[:RECORDED] for one in shown],
            "template_date": template.today.isoformat() if template.writes_date else None,
        }

    def _judge(self, purpose: Purpose) -> Judge:
        self.counts[purpose] = Counts()
        return replace(self.judge, counts=self.counts[purpose])

    def _reported(self, purpose: Purpose, rows: StoredRows) -> Iterator[NumberedRow]:
        """Yield rows, and emit how many there were a few times a second."""
        about: dict[str, Any] = {"purpose": purpose, **self._named(purpose), "total": len(rows)}
        last = time.monotonic()
        for number, row in enumerate(rows):
            if (now := time.monotonic()) - last >= _EVERY:
                self.kitchen.observers.emit(DatasetRendering(rows=number, **about))
                last = now
            yield row

    def _source(self, purpose: Purpose) -> Source:
        return source_of(self.config, purpose)

    def _named(self, purpose: Purpose) -> dict[str, Any]:
        source = self._source(purpose)
        return {"dataset": source.dataset, "split": source.split}
