"""An experiment of MLflow and the runs in it."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlsplit

from crucible_kitchen import (
    AlreadyExists,
    CrucibleWarning,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
)

from .names import decode, encode
from .rows import END, Row, whole
from .server import Server

RUN_TAG = "crucible.run_id"
_TABLES_TAG = "mlflow.loggedArtifacts"
CLOCK_TAG = "crucible.last_timestamp"

_LONGEST_TAG = 5000
"""Characters that every version of MLflow accepts as a tag; some silently cut longer ones."""
_LONGEST_NAME = 250
_LONGEST_PARAMETER = 6000
"""Characters of a parameter's value that MLflow accepts since version 2."""
_PARAMETERS_A_REQUEST = 100
CHANGED_TAG = "crucible.changed."
"""Begins the tags of parameters that have changed since the run began."""
SAMPLE_COLUMNS = ("prompt", "completion", "reward", "answer")
_RUNS_A_PAGE = 1000
_ROWS_A_PAGE = 25_000
_MOST_PAGES = 1000
"""A server that sends more pages never reaches the last one."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of MLflow.

    Args:
        id: MLflow's own.
        run_id: Crucible Kitchen's.
        status: MLflow's, such as `RUNNING`.
        last_timestamp: of its last row, in milliseconds; 0 without rows.
        keys: the keys of its metrics.
        parameters: its parameters, which MLflow never changes.
        artifacts: where its artifacts are on the server; None if it does not pass them on.
        tables: the artifacts that its page shows as tables.
    """

    id: str
    run_id: str
    status: str
    last_timestamp: int
    keys: Sequence[str]
    parameters: Mapping[str, str] = field(default_factory=dict)
    artifacts: str | None = None
    tables: Sequence[Any] = ()

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Run:
        """Return the run of a server's answer.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: it is not one of this package.
        """
        info, data = fields["info"], fields.get("data", {})
        tags = {tag["key"]: tag["value"] for tag in data.get("tags", ()) if _is_pair(tag)}
        last = 0  # also if the tag is not a timestamp
        with suppress(TypeError, ValueError):
            last = whole(tags.get(CLOCK_TAG, 0))
        return cls(
            id=_text(info["run_id"]),
            run_id=decode(tags[RUN_TAG]),
            status=info.get("status", ""),
            last_timestamp=last if 0 <= last < END else 0,
            keys=[
                metric["key"]
                for metric in data.get("metrics", ())
                if isinstance(metric, Mapping) and isinstance(metric.get("key"), str)
            ],
            parameters={p["key"]: p["value"] for p in data.get("params", ()) if _is_pair(p)},
            artifacts=_passed_on(info.get("artifact_uri")),
            tables=_listed(tags.get(_TABLES_TAG)),
        )


class Experiment:
    """The experiment with a name on a server. Safe from any thread."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name

    def ping(self, timeout: float) -> None:
        """Look for the experiment, which may not exist yet."""
        self._find(timeout)

    def open(self, run_id: str) -> Run:
        """Return the run with this id for writing, created if necessary.

        Two processes that create it at once may create two: from then on all write to the older
        one, and both are read.
        """
        experiment = self._find() or self._create()
        found = self.runs(run_id)
        if not found:
            made = self._server.post(
                "runs/create",
                experiment_id=experiment,
                start_time=_now(),
                run_name=encode(run_id)[:_LONGEST_NAME],
                tags=[{"key": RUN_TAG, "value": _tag(run_id)}],
            )
            with self._server.translated("runs/create"):
                found = self.runs(run_id) or [Run.from_json(made["run"])]
        if found[0].status != "RUNNING":
            self._server.post("runs/update", run_id=found[0].id, status="RUNNING")
        return replace(found[0], last_timestamp=max(run.last_timestamp for run in found))

    def describe(self, run: Run, config: Mapping[str, Any]) -> None:
        """Show settings as the parameters of a run.

        MLflow never changes a parameter, so the new value of one is a tag.
        """
        wanted = {encode(name)[:_LONGEST_NAME]: _value(value) for name, value in config.items()}
        new = [(key, value) for key, value in wanted.items() if key not in run.parameters]
        changed = [
            (f"{CHANGED_TAG}{key}"[:_LONGEST_NAME], value[:_LONGEST_TAG])
            for key, value in wanted.items()
            if run.parameters.get(key, value) != value
        ]
        for kind, pairs in (("params", new), ("tags", changed)):
            for first in range(0, len(pairs), _PARAMETERS_A_REQUEST):
                items = pairs[first : first + _PARAMETERS_A_REQUEST]
                listed = {kind: [{"key": key, "value": value} for key, value in items]}
                self._server.post("runs/log-batch", run_id=run.id, **listed)

    def show(self, run: Run, samples: Sequence[Mapping[str, Any]], step: int) -> Run:
        """Store completions as a table, where the server passes artifacts on; return the run."""
        if run.artifacts is None:
            return run
        name = f"samples/{step:08d}.json"
        data = [[sample.get(column) for column in SAMPLE_COLUMNS] for sample in samples]
        table = json.dumps({"columns": SAMPLE_COLUMNS, "data": data})
        self._server.put_artifact(f"{run.artifacts}/{name}", table.encode())
        about = {"path": name, "type": "table"}
        tables = [*(table for table in run.tables if table != about), about]
        tag = json.dumps(tables)
        if len(tag) <= _LONGEST_TAG:
            self._server.post("runs/set-tag", run_id=run.id, key=_TABLES_TAG, value=tag)
        return replace(run, tables=tables)

    def finish(
        self, run: Run, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED"
    ) -> None:
        """Let MLflow's page show how the run ended."""
        self._server.post("runs/update", run_id=run.id, status=status, end_time=_now())

    def runs(self, run_id: str | None = None) -> list[Run]:
        """Return the runs with this id, or all, oldest first; [] without an experiment."""
        experiment = self._find()
        if experiment is None:
            return []
        wanted = "LIKE '%'" if run_id is None else f"= '{_tag(run_id)}'"
        asked: dict[str, Any] = {
            "experiment_ids": [experiment],
            "filter": f"tags.`{RUN_TAG}` {wanted}",
            "max_results": _RUNS_A_PAGE,
            "order_by": ["attributes.start_time ASC", "attributes.run_id ASC"],
        }
        found: list[Run] = []
        for run in self._pages("runs/search", "runs", asked, self._server.post):
            with suppress(LookupError, TypeError, ValueError, AttributeError):
                found.append(Run.from_json(run))
        # Databases that ignore case find other ids as well.
        return [run for run in found if run_id is None or run.run_id == run_id]

    def write(self, run: Run, rows: Sequence[Row]) -> None:
        """Send rows. Sending a row again changes nothing."""
        try:
            self._server.post(
                "runs/log-batch",
                run_id=run.id,
                metrics=[row.to_json() for row in rows],
                tags=[{"key": CLOCK_TAG, "value": str(max(row.timestamp for row in rows))}],
            )
        except (InvalidInput, NotFound) as error:
            self._explain_if_deleted(run)
            raise error

    def read(self, run: Run) -> Iterator[Row]:
        """Yield every value that was recorded, metric by metric."""
        damaged = 0
        for key in run.keys:
            asked = {"run_id": run.id, "metric_key": key, "max_results": _ROWS_A_PAGE}
            for fields in self._pages("metrics/get-history", "metrics", asked, self._server.get):
                try:
                    row = Row.from_json(fields)
                except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
                    damaged += 1
                    continue
                if row.key == key:  # a database that ignores case returns other keys as well
                    yield row
        if damaged:
            what = "1 row is" if damaged == 1 else f"{damaged} rows are"
            warnings.warn(
                f"{self._server.address}: {what} not a metric of the run {run.run_id!r}, and left "
                "out",
                CrucibleWarning,
                stacklevel=2,
            )

    def _pages(
        self, path: str, name: str, asked: dict[str, Any], ask: Callable[..., dict[str, Any]]
    ) -> Iterator[Any]:
        """Yield the items of every page of an answer."""
        for _ in range(_MOST_PAGES):
            page = ask(path, **asked)
            with self._server.translated(path):
                items = [*page.get(name, ())]
            yield from items
            token = page.get("next_page_token")
            if not token:
                return
            if token == asked.get("page_token"):
                break
            asked = {**asked, "page_token": token}
        raise Unavailable(
            f"the MLflow server at {self._server.address}, asked for {path}, never sends "
            "the last page",
            retryable=False,
        )

    def _find(self, timeout: float | None = None) -> str | None:
        path = "experiments/get-by-name"
        try:
            answer = self._server.get(path, timeout=timeout, experiment_name=self._name)
        except NotFound:
            return None
        with self._server.translated(path):
            found = answer["experiment"]
            experiment = str(found["experiment_id"])
            deleted = found.get("lifecycle_stage") == "deleted"
        if deleted:
            raise NotFound(
                f"the experiment {self._name!r} was deleted from {self._server.address}; set "
                "another `experiment`, or run `mlflow experiments restore --experiment-id "
                f"{experiment}`",
                no_effect=True,
            )
        return experiment

    def _create(self) -> str:
        path = "experiments/create"
        try:
            made = self._server.post(path, name=self._name)
        except AlreadyExists:  # made by another process, just now
            if found := self._find():
                return found
            raise
        with self._server.translated(path):
            return str(made["experiment_id"])

    def _explain_if_deleted(self, run: Run) -> None:
        try:
            answer = self._server.get("runs/get", run_id=run.id)
            with self._server.translated("runs/get"):
                active = answer["run"]["info"]["lifecycle_stage"] == "active"
        except NotFound:
            active = False
        if not active:
            raise NotFound(
                f"the run {run.run_id!r} was deleted from {self._server.address}; run `mlflow "
                f"runs restore --run-id {run.id}`, or record under another run id",
                no_effect=True,
            )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} is not text")
    return value


def _is_pair(tag: Any) -> bool:
    return isinstance(tag, Mapping) and all(
        isinstance(tag.get(part), str) for part in ("key", "value")
    )


def _passed_on(address: Any) -> str | None:
    """Return the path of artifacts on the server; None if they are elsewhere."""
    parts = urlsplit(address) if isinstance(address, str) else None
    if parts is None or parts.scheme != "mlflow-artifacts":
        return None
    return parts.path.strip("/")


def _listed(tag: Any) -> list[Any]:
    with suppress(ValueError, TypeError, RecursionError):
        found = json.loads(tag)
        return found if isinstance(found, list) else []
    return []


def _value(value: Any) -> str:
    """Return a setting as the value of a parameter, cut to MLflow's limit."""
    text = str(value)
    return text if len(text) <= _LONGEST_PARAMETER else f"{text[: _LONGEST_PARAMETER - 3]}..."


def _tag(run_id: str) -> str:
    tag = encode(run_id)
    if len(tag) > _LONGEST_TAG:
        raise Unsupported(
            f"the run id {run_id[:40]!r}... has {len(tag)} characters as MLflow writes it; the "
            f"limit is {_LONGEST_TAG}"
        )
    return tag


def _now() -> int:
    return time.time_ns() // 1_000_000
