"""An experiment of MLflow and the runs in it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from crucible_kitchen import AlreadyExists, InvalidInput, NotFound, Unsupported

from .names import decode, encode
from .rows import Row
from .server import Server

RUN_TAG = "crucible.run_id"
CLOCK_TAG = "crucible.last_timestamp"

# Characters that every version of MLflow takes as a tag; some cut longer ones without a word.
_LONGEST_TAG = 5000
_LONGEST_NAME = 250
_RUNS_A_PAGE = 1000
_ROWS_A_PAGE = 25_000


@dataclass(frozen=True, slots=True)
class Run:
    """A run of MLflow.

    Args:
        id: MLflow's own.
        run_id: Crucible Kitchen's.
        status: MLflow's, such as `RUNNING`.
        last_timestamp: of what was recorded so far, in milliseconds; 0 for nothing.
        keys: of its metrics.
    """

    id: str
    run_id: str
    status: str
    last_timestamp: int
    keys: Sequence[str]

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Run:
        info, data = fields["info"], fields.get("data", {})
        tags = {tag["key"]: tag["value"] for tag in data.get("tags", ())}
        return cls(
            id=info["run_id"],
            run_id=decode(tags[RUN_TAG]),
            status=info.get("status", ""),
            last_timestamp=int(tags.get(CLOCK_TAG, 0)),
            keys=[metric["key"] for metric in data.get("metrics", ())],
        )


class Experiment:
    """The experiment of a name on a server. Safe from any thread."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self._name = name

    def ping(self, timeout: float) -> None:
        """Look for the experiment; there need be none yet."""
        self._find(timeout)

    def open(self, run_id: str) -> Run:
        """Return the run of this id, made if there is none, that rows are to be written to.

        Two processes that make it at once may make two: the older one is everybody's from then
        on, and what the other holds is read all the same.
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
            found = self.runs(run_id) or [Run.from_json(made["run"])]
        if found[0].status != "RUNNING":
            self._server.post("runs/update", run_id=found[0].id, status="RUNNING")
        return replace(found[0], last_timestamp=max(run.last_timestamp for run in found))

    def finish(self, run: Run) -> None:
        """Let MLflow's page show the run as finished."""
        self._server.post("runs/update", run_id=run.id, status="FINISHED", end_time=_now())

    def runs(self, run_id: str | None = None) -> list[Run]:
        """Return the runs of this id, or all, oldest first; none if there is no experiment."""
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
        while True:
            page = self._server.post("runs/search", **asked)
            found += map(Run.from_json, page.get("runs", ()))
            if not page.get("next_page_token"):
                # Databases that ignore case find more than was asked for.
                return [run for run in found if run_id is None or run.run_id == run_id]
            asked["page_token"] = page["next_page_token"]

    def write(self, run: Run, rows: Sequence[Row]) -> None:
        """Return when the server has the rows. Those that it has already change nothing."""
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
        """Yield every value that was ever recorded, metric by metric."""
        for key in run.keys:
            asked: dict[str, Any] = {
                "run_id": run.id,
                "metric_key": key,
                "max_results": _ROWS_A_PAGE,
            }
            while True:
                page = self._server.get("metrics/get-history", **asked)
                for fields in page.get("metrics", ()):
                    row = Row.from_json(fields)
                    if row.key == key:  # a database that ignores case gives those of others, too
                        yield row
                if not page.get("next_page_token"):
                    break
                asked["page_token"] = page["next_page_token"]

    def _find(self, timeout: float | None = None) -> str | None:
        try:
            found = self._server.get(
                "experiments/get-by-name", timeout=timeout, experiment_name=self._name
            )["experiment"]
        except NotFound:
            return None
        if found.get("lifecycle_stage") == "deleted":
            raise NotFound(
                f"the experiment {self._name!r} was deleted from {self._server.address}; set "
                "another `experiment`, or run `mlflow experiments restore --experiment-id "
                f"{found['experiment_id']}`",
                no_effect=True,
            )
        return str(found["experiment_id"])

    def _create(self) -> str:
        try:
            return str(self._server.post("experiments/create", name=self._name)["experiment_id"])
        except AlreadyExists:  # made by another process, just now
            if found := self._find():
                return found
            raise

    def _explain_if_deleted(self, run: Run) -> None:
        try:
            info = self._server.get("runs/get", run_id=run.id)["run"]["info"]
        except NotFound:
            info = {}
        if info.get("lifecycle_stage") != "active":
            raise NotFound(
                f"the run {run.run_id!r} was deleted from {self._server.address}; run `mlflow "
                f"runs restore --run-id {run.id}`, or record under another run id",
                no_effect=True,
            )


def _tag(run_id: str) -> str:
    tag = encode(run_id)
    if len(tag) > _LONGEST_TAG:
        raise Unsupported(
            f"the run id {run_id[:40]!r}... has {len(tag)} characters as MLflow writes it; it "
            f"takes {_LONGEST_TAG}"
        )
    return tag


def _now() -> int:
    return time.time_ns() // 1_000_000
