"""Recording metrics: the stores JSON Lines and SQL against trackers, and against raw writing.

Trackers are called as their users call them, each with the quickest of its functions; none of
them promises what our `flush` does, that a power cut loses nothing. Raw are a file of JSON lines, a
table of sqlite3, and COPY into PostgreSQL, all without a key, in transactions of 1,000 rows.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .comparison import Contest, Growth, Row, at_least, at_most
from .settings import Settings

RUN = "run"
BATCH = 1000
"""Rows of a transaction, ours and by hand."""


@dataclass(frozen=True)
class Work:
    """What is recorded: `steps` steps of these metrics.

    Args:
        what: its name in the table.
        names: of the metrics of a step.
        steps: how many.
    """

    what: str
    names: tuple[str, ...]
    steps: int

    @property
    def values(self) -> int:
        return self.steps * len(self.names)

    def metrics(self, step: int) -> dict[str, float]:
        return {name: value_of(step) for name in self.names}


def value_of(step: int) -> float:
    """Return a value that has as many digits as a loss has."""
    return 2.5 / (1.0 + step / 1000.0)


SIX = ("loss", "grad_norm", "learning_rate", "tokens", "seconds", "accuracy")
Way = Callable[[Work, Path], None]


def rows(settings: Settings) -> Iterator[Row]:
    with home():
        yield from _rows(settings)


def _rows(settings: Settings) -> Iterator[Row]:
    scale = 100 if settings.small else 1
    single = Work(f"{100_000 // scale:,} values, flush", ("loss",), 100_000 // scale)
    several = Work(f"{20_000 // scale:,} steps of 6, flush", SIX, 20_000 // scale)
    for work in (single, several):
        ours: dict[str, Way] = {"jsonl": jsonl, "sqlite": sqlite}
        with quiet():
            found = contest(
                settings, work, {**ours, "raw_jsonl": raw_jsonl, "raw_sqlite": raw_sqlite}
            )
        yield cost(found, "jsonl", "raw_jsonl", work, "JSON lines written by hand")
        note = (
            "Of ours 1.0 us keeps the key by which a resumed run replaces rows, 1.2 is the call of "
            "the port. Next: larger batches, and a key with the step as an integer (0.2 us)."
        )
        yield cost(found, "sqlite", "raw_sqlite", work, "sqlite3 in transactions, no key", note)
        for name, tracker in trackers().items():
            # These two take 0.2 ms a value and more: a part of the work shows the rate.
            steps = work.steps // 10 if tracker in (mlflow, wandb) else work.steps
            part = Work(work.what, work.names, max(10, steps))
            with quiet():
                found = contest(settings, part, {**ours, "tracker": tracker})
            for store in ours:
                yield found.row(
                    store,
                    "tracker",
                    what=f"{store}: {work.what}",
                    against=name,
                    goal=at_least(3.0),
                    work=part.values,
                    unit="values/s",
                )
    yield from postgresql_rows(settings, single, several)


def postgresql_rows(settings: Settings, *works: Work) -> Iterator[Row]:
    with postgresql() as url:
        if url is None:
            return
        for work in works:
            # The server's own CPU time would not count on that clock.
            found = settings.contest(clock="wall").run(
                postgresql=lambda work=work: through_the_port(  # type: ignore[misc]
                    {"use": "sql", "url": url, "table": uuid.uuid4().hex}, work
                ),
                copy=lambda work=work: copy(url, work),  # type: ignore[misc]
            )
            yield cost(found, "postgresql", "copy", work, "psycopg COPY by 1,000 rows, no key")


def growth(settings: Settings) -> Iterator[Growth]:
    counts = [250, 500, 1000, 2000] if settings.small else [25_000, 50_000, 100_000, 200_000]
    for what, measured in (("recording, then flush", jsonl), ("reading back", None)):
        curves: dict[str, list[float]] = {"jsonl": [], "sqlite": []}
        for count in counts:
            work = Work("", ("loss",), count)
            for name, way in (("jsonl", jsonl), ("sqlite", sqlite)):
                with tempfile.TemporaryDirectory() as folder:
                    started = time.perf_counter()
                    way(work, Path(folder))
                    if measured is None:
                        with opened(options(name, Path(folder))) as kitchen:
                            started = time.perf_counter()
                            found = kitchen.metrics_store.read(RUN)
                        assert len(found) == count, f"{name} read {len(found)} of {count} values"
                    curves[name].append(time.perf_counter() - started)
        yield Growth(f"metrics: {what}", "values", "s", counts, dict(curves))


def contest(settings: Settings, work: Work, ways: Mapping[str, Way]) -> Contest[Any]:
    """Let each way record in a new folder; ours must read back what was recorded."""

    def run(name: str, way: Way) -> None:
        with tempfile.TemporaryDirectory(prefix="crucible-metrics-") as folder:
            way(work, Path(folder))
            if not checked.get(name):
                checked[name] = True
                check(name, work, Path(folder))

    checked: dict[str, bool] = {}  # in the round that only warms up
    each = {name: (lambda name=name, way=way: run(name, way)) for name, way in ways.items()}
    return settings.contest().run(**each)


def check(name: str, work: Work, folder: Path) -> None:
    expected = [
        (n, step, value) for step in range(work.steps) for n, value in work.metrics(step).items()
    ]
    if name in ("jsonl", "sqlite"):
        with opened(options(name, folder)) as kitchen:
            found = [(e.metric, e.step, e.value) for e in kitchen.metrics_store.read(RUN)]
    elif name == "raw_jsonl":
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        found = [(row["metric"], row["step"], row["value"]) for row in lines]
    elif name == "raw_sqlite":
        with contextlib.closing(sqlite3.connect(folder / "metrics.db")) as connection:
            found = connection.execute("SELECT metric, step, value FROM metrics").fetchall()
    else:
        return
    assert found == expected, f"{name} did not keep what was recorded"


def cost(
    found: Contest[Any], ours: str, theirs: str, work: Work, against: str, note: str = ""
) -> Row:
    return found.row(
        ours,
        theirs,
        what=f"{ours}: {work.what}",
        against=against,
        goal=at_most(3.0),
        work=1e-6 * work.values,
        unit="us/value",
        note=note,
    )


# --- ours ---


def options(name: str, folder: Path) -> dict[str, Any]:
    if name == "jsonl":
        return {"use": "jsonl", "path": folder}
    return {"use": "sql", "url": f"sqlite:///{folder}/metrics.db"}


def opened(settings: Mapping[str, Any]) -> Any:
    from crucible_kitchen import Kitchen

    return Kitchen(adapters={"metrics_store": dict(settings)})


def through_the_port(settings: Mapping[str, Any], work: Work) -> None:
    with opened(settings) as kitchen:
        store = kitchen.metrics_store
        if len(work.names) == 1:
            [name] = work.names
            for step in range(work.steps):
                store.record(RUN, name, value_of(step), step)
        else:
            for step in range(work.steps):
                store.record_many(RUN, work.metrics(step), step)
        store.flush(RUN)


def jsonl(work: Work, folder: Path) -> None:
    through_the_port(options("jsonl", folder), work)


def sqlite(work: Work, folder: Path) -> None:
    through_the_port(options("sqlite", folder), work)


# --- by hand ---


def raw_jsonl(work: Work, folder: Path) -> None:
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(work.steps):
            for name, value in work.metrics(step).items():
                row = {
                    "run": RUN,
                    "metric": name,
                    "value": value,
                    "step": step,
                    "timestamp": datetime.now(UTC).isoformat(),
                }
                file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def batches(work: Work) -> Iterator[list[tuple[str, str, int, float, float]]]:
    step = 0
    while step < work.steps:
        end = min(work.steps, step + BATCH // len(work.names))
        yield [
            (RUN, name, each, value, time.time())
            for each in range(step, end)
            for name, value in work.metrics(each).items()
        ]
        step = end


TABLE = "(run TEXT, metric TEXT, step BIGINT, value DOUBLE PRECISION, at DOUBLE PRECISION)"


def raw_sqlite(work: Work, folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "metrics.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"CREATE TABLE metrics {TABLE}")
        for batch in batches(work):
            with connection:
                connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?)", batch)


def copy(url: str, work: Work) -> None:
    import psycopg

    name = uuid.uuid4().hex
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(f'CREATE TABLE "{name}" {TABLE}')
        for batch in batches(work):
            with cursor.copy(f'COPY "{name}" FROM STDIN') as copying:
                for row in batch:
                    copying.write_row(row)
            connection.commit()


# --- trackers ---


def trackers() -> dict[str, Way]:
    """Return those that are installed."""
    known = {
        "tensorboard": ("TensorBoard", tensorboard),
        "wandb": ("W&B offline", wandb),
        "trackio": ("trackio", trackio),
        "mlflow": ("MLflow on SQLite", mlflow),
    }
    return {name: way for module, (name, way) in known.items() if find_spec(module)}


def tensorboard(work: Work, folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    for step in range(work.steps):
        for name, value in work.metrics(step).items():
            writer.add_scalar(name, value, step)
    writer.close()


def wandb(work: Work, folder: Path) -> None:
    import wandb

    settings = wandb.Settings(console="off", silent=True, x_disable_stats=True)
    run = wandb.init(project="benchmark", dir=str(folder), mode="offline", settings=settings)
    for step in range(work.steps):
        run.log(work.metrics(step), step=step)
    run.finish()


def trackio(work: Work, folder: Path) -> None:
    import trackio

    run = trackio.init(
        f"benchmark-{uuid.uuid4().hex}", embed=False, auto_log_gpu=False, auto_log_cpu=False
    )
    for step in range(work.steps):
        run.log(work.metrics(step), step=step)
    trackio.finish()


def mlflow(work: Work, folder: Path) -> None:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    # One database, made in the round that only warms up: that takes MLflow seconds.
    client = MlflowClient(f"sqlite:///{os.environ['TRACKIO_DIR']}/mlflow.db")
    run = client.create_run(client.create_experiment(uuid.uuid4().hex)).info.run_id
    for batch in batches(work):
        client.log_batch(
            run, [Metric(name, value, int(at), step) for _, name, step, value, at in batch]
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what trackers print from the table."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def home() -> Iterator[None]:
    """Keep the trackers' files out of the home folder."""
    with tempfile.TemporaryDirectory(prefix="crucible-trackers-") as folder:
        os.environ["TRACKIO_DIR"] = folder  # read when trackio is imported
        os.environ["WANDB_SILENT"] = "true"
        yield


@contextlib.contextmanager
def postgresql() -> Iterator[str | None]:
    """Start a server that waits for the disk; provide its address, or None without PostgreSQL."""
    sys.path.append(str(Path(__file__).parents[1] / "support"))
    from postgresql import Missing, started

    with contextlib.ExitStack() as stack:
        try:
            url: str | None = stack.enter_context(started(durable=True)).url
        except Missing:
            url = None
        yield url
