"""Keep metrics in a table of an SQLite file or of PostgreSQL.

Rows are held back for a moment and written many at a time, for speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crucible_kitchen import AdapterOptions, MetricEntry, hookimpl, resource
from pydantic import Field, SecretStr, field_validator

from .rows import recorded

if TYPE_CHECKING:
    from .database import Database
    from .held import HeldRows


class Options(AdapterOptions):
    url: SecretStr = SecretStr("sqlite:///metrics.db")
    """The database: `sqlite:///metrics.db`, or `postgresql://user:password@host/database`. Never
    shown, since it may hold a password."""
    table: str = Field(default="crucible_metrics", min_length=1, max_length=50)
    """The table, created on first use."""
    timeout: float = Field(default=30.0, ge=0, le=86400, allow_inf_nan=False)
    """Seconds to wait for a connection, or for another writer."""
    batch_size: int = Field(default=1000, ge=1)
    """Rows that are written at a time; 1 writes each at once."""
    max_delay: float = Field(default=1.0, ge=0)
    """Seconds after the last write from which the next row is written at once, together with all
    that were held back, so that others can watch a run. Without a next row, `flush`, `read`,
    `close` or the normal end of the program writes them; if it is killed, they are lost."""

    @field_validator("url")
    @classmethod
    def _is_served(cls, url: SecretStr) -> SecretStr:
        from .addresses import parse

        parse(url.get_secret_value())
        return url


@resource
def _database(opts: Options) -> Database:
    from .addresses import parse
    from .database import Database
    from .postgresql import PostgreSQL
    from .sqlite import SQLite

    url = parse(opts.url.get_secret_value())
    server = SQLite if url.get_backend_name() == "sqlite" else PostgreSQL
    return Database(server(url, opts.timeout), opts.table)


@resource
def _held_rows(opts: Options) -> HeldRows:
    from .held import HeldRows

    return HeldRows(lambda rows: _database(opts).write(rows), opts.batch_size, opts.max_delay)


@hookimpl
def record(
    opts: Options,
    run_id: str,
    metric: str,
    value: float,
    step: int | None,
    metadata: Mapping[str, Any] | None,
) -> None:
    _held_rows(opts).take(recorded(run_id, {metric: value}, step, metadata))


@hookimpl
def record_many(
    opts: Options,
    run_id: str,
    metrics: Mapping[str, float],
    step: int | None,
    metadata: Mapping[str, Any] | None,
) -> None:
    _held_rows(opts).take(recorded(run_id, metrics, step, metadata))


@hookimpl
def flush(opts: Options, run_id: str) -> None:
    _write_held(opts)


@hookimpl
def read(opts: Options, run_id: str) -> list[MetricEntry]:
    _write_held(opts)
    return _database(opts).read(run_id)


@hookimpl
def runs(opts: Options) -> list[str]:
    _write_held(opts)
    return _database(opts).runs()


@hookimpl
def ping(opts: Options) -> None:
    _database(opts).ping()


@hookimpl
def close(opts: Options) -> None:
    try:
        _write_held(opts)
        _held_rows.pop(opts)  # after a failure they stay, and a later `close` tries again
    finally:
        if opened := _database.pop(opts):
            opened.close()


def _write_held(opts: Options) -> None:
    if held := _held_rows.peek(opts):
        held.write()


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import MetricsStoreOptionalSpec, MetricsStoreSpec

    import crucible_adapter_sql.metrics_store as this_module

    _: MetricsStoreSpec[Options] = this_module
    _optional: MetricsStoreOptionalSpec[Options] = this_module
