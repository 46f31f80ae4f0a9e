"""Keep metrics on an MLflow tracking server, a run of MLflow for each run.

MLflow keeps a history of everything that was recorded; the reader decides which of several rows
counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Self
from urllib.parse import urlsplit

from crucible_kitchen import (
    PING_TIMEOUT,
    AdapterOptions,
    Event,
    FromEnv,
    MetricEntry,
    helper,
    hookimpl,
    resource,
)
from pydantic import Field, SecretStr, field_validator, model_validator

from .rows import check, milliseconds

if TYPE_CHECKING:
    from .connection import Connection
    from .tracker import MlflowTracker


class Options(AdapterOptions):
    tracking_uri: Annotated[
        str, FromEnv("MLFLOW_TRACKING_URI"), Field(examples=["http://127.0.0.1:5000"])
    ]
    """Address of the tracking server, such as `http://127.0.0.1:5000`, without credentials."""
    experiment: str = Field(default="crucible-kitchen", min_length=1, max_length=500)
    """The experiment with the runs, created on first use."""
    username: Annotated[str | None, FromEnv("MLFLOW_TRACKING_USERNAME")] = None
    """Name of the account, with `password`."""
    password: Annotated[SecretStr | None, FromEnv("MLFLOW_TRACKING_PASSWORD")] = None
    """Password of the account."""
    token: Annotated[SecretStr | None, FromEnv("MLFLOW_TRACKING_TOKEN")] = None
    """Access token, for a server that accepts one instead of an account."""
    timeout: float = Field(default=30.0, gt=0, le=86400, allow_inf_nan=False)
    """Seconds to wait for the server to connect, and to answer a request."""
    max_answer_bytes: int = Field(default=2**27, ge=2**10)
    """Largest answer in bytes, decompressed. A page of 25,000 rows has some 3 MB."""
    # MLflow accepts 1000 items and a million bytes a request; 900 rows of the longest names fit.
    batch_size: int = Field(default=500, ge=1, le=900)
    """Rows that are sent in one request."""
    max_delay: float = Field(default=5.0, ge=0, allow_inf_nan=False)
    """Seconds that a row is held back: the first record after that sends it. Without one, `flush`,
    `close` or the normal end of the program does; if it is killed, the row is lost."""

    @field_validator("tracking_uri")
    @classmethod
    def _is_an_address(cls, uri: str) -> str:
        # Messages have no part of the address, since it may hold a password.
        try:
            parts = urlsplit(uri)
            served = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            raise ValueError("is not an address; write one like http://127.0.0.1:5000") from None
        if not served:
            raise ValueError(
                "is not the address of a tracking server, which begins with http:// or https://. "
                "For a database or a folder, start one: mlflow server --backend-store-uri <it>. "
                "For Databricks, write the address of the workspace, and a token"
            )
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "holds credentials, and it may be shown; set username and password, or the "
                "variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, instead"
            )
        if parts.query or parts.fragment:
            raise ValueError("must end with the host, the port or a path: no '?' and no '#'")
        return uri

    @model_validator(mode="after")
    def _account_is_whole(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together; set both or neither")
        return self


@resource
def _connection(opts: Options) -> Connection:
    from .connection import Connection
    from .experiment import Experiment
    from .server import Server

    basic = None
    if opts.username is not None and opts.password is not None:
        basic = (opts.username, opts.password.get_secret_value())
    token = opts.token.get_secret_value() if opts.token else None
    server = Server(opts.tracking_uri, opts.timeout, basic, token, opts.max_answer_bytes)
    experiment = Experiment(server, opts.experiment)
    return Connection(server, experiment, opts.batch_size, opts.max_delay)


@resource
def _tracker(opts: Options) -> MlflowTracker:
    from .tracker import MlflowTracker

    return MlflowTracker(lambda: _connection(opts))


@helper
def observe(opts: Options, event: Event) -> None:
    """Show a run's settings as parameters, its samples as tables, and how it ended."""
    if not event.name.startswith("adapter."):
        _tracker(opts)(event)


@hookimpl
def record(
    opts: Options,
    run_id: str,
    metric: str,
    value: float,
    step: int | None,
    metadata: Mapping[str, Any] | None,
) -> None:
    record_many(opts, run_id, {metric: value}, step, metadata)


@hookimpl
def record_many(
    opts: Options,
    run_id: str,
    metrics: Mapping[str, float],
    step: int | None,
    metadata: Mapping[str, Any] | None,
) -> None:
    entries = [
        check(MetricEntry.recorded(run_id, each, metrics[each], step, metadata)) for each in metrics
    ]
    if entries:
        _connection(opts).writer(run_id).take(entries)


@hookimpl
def flush(opts: Options, run_id: str) -> None:
    if made := _connection.peek(opts):
        made.flush(run_id)


@hookimpl
def read(opts: Options, run_id: str) -> list[MetricEntry]:
    made = _connection(opts)
    # What another thread records meanwhile is left out: the server is asked for each metric, and
    # the rows of one call would be seen in part.
    begin = max(made.last_recorded(run_id), milliseconds(datetime.now(UTC)) - 1)
    # The held rows first, so that a row that is sent meanwhile is seen twice and not missed.
    rows = made.held(run_id)
    for run in made.experiment.runs(run_id):
        rows += made.experiment.read(run)
    if (end := made.last_recorded(run_id)) > begin:
        rows = [row for row in rows if not begin < row.timestamp <= end]
    rows.sort(key=lambda row: row.timestamp)
    # A row that replaces another takes its place, which is the order of dictionaries.
    return [row.entry(run_id) for row in {row.identity: row for row in rows}.values()]


@hookimpl
def runs(opts: Options) -> list[str]:
    made = _connection(opts)
    held = made.held_runs()
    return sorted(held | {run.run_id for run in made.experiment.runs() if run.keys})


@hookimpl
def ping(opts: Options) -> None:
    _connection(opts).experiment.ping(min(opts.timeout, PING_TIMEOUT))


@hookimpl
def close(opts: Options) -> None:
    if tracker := _tracker.peek(opts):
        tracker.close()
    # Rows that cannot be sent stay held, and a later `close` tries again.
    if made := _connection.peek(opts):
        made.close()
        _connection.pop(opts)


if TYPE_CHECKING:
    from crucible_kitchen.hookspecs import MetricsStoreOptionalSpec, MetricsStoreSpec

    import crucible_adapter_mlflow.metrics_store as this_module

    _: MetricsStoreSpec[Options] = this_module
    _optional: MetricsStoreOptionalSpec[Options] = this_module
