"""`crucible runs list`, `show` and `compare`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

from ...history import stored
from ...history.curves import headline, in_order, last_values
from ...history.page import number
from ...history.settings import differences, settings_of
from ...history.stored import StoredRun
from ...kitchen import Kitchen
from ...messages.numbers import as_json
from ...messages.printable import text_of
from ..arguments import ARGUMENTS, PROFILE
from ..console import JSON, note, say, say_json, table
from ..styled import Text, console
from ..toml import toml
from .words import RUNS, split, stores


def list_(
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    profile: Annotated[str | None, PROFILE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """List the runs that the configured stores have, the newest first.

    From the records in the blob store; where that cannot list its blobs, from the metrics store.
    """
    with stores(arguments or [], profile) as kitchen:
        found = [(run, _metrics(kitchen, run)) for run in stored.find(kitchen)]
        if as_json:
            say_json([_summary(run, metrics) for run, metrics in found])
        elif not found:
            note("there are no runs yet")
        else:
            headings = ("run", "workflow", "status", "step", "metrics", "started", "took")
            table(headings, [_row(run, metrics) for run, metrics in found])
        for run, _ in found if not as_json else ():
            if run.problem:
                note(run.problem)


def show(
    words: Annotated[list[str], RUNS],
    profile: Annotated[str | None, PROFILE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Show what a run was started with, how far it got, and what belongs to it."""
    [run_id], arguments = split(words, most=1)
    with stores(arguments, profile) as kitchen:
        run = stored.get(kitchen, run_id)
        entries = stored.rows(kitchen, run_id)
        metrics = last_values(entries) or _recorded(run)
        samples = stored.sample_paths(kitchen, run_id)
        if as_json:
            record = None if run.record is None else run.record.model_dump(mode="json")
            about = {"rows_of_metrics": len(entries), "samples": samples, "record": record}
            say_json(_summary(run, metrics) | about)
            return
        console().print(Text(run_id, style="bold"))
        table(("about", ""), list(_about(run, len(entries))))
        if metrics:
            say()
            table(("metric", "last"), [(name, number(metrics[name])) for name in in_order(metrics)])
        if run.record is not None:
            say()
            table(("setting", "value"), list(_settings(run)))
            say()
        for path in samples:
            say(f"samples      {path}")
        if run.record is not None:
            for reference in run.record.checkpoints:
                say(f"checkpoint   {reference}")
            if run.record.weights is not None:
                say(f"weights      {run.record.weights}")


def compare(
    words: Annotated[list[str], RUNS],
    profile: Annotated[str | None, PROFILE] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Show side by side the settings in which runs differ, and their last metrics."""
    ids, arguments = split(words, least=2)
    with stores(arguments, profile) as kitchen:
        found = [stored.get(kitchen, run_id) for run_id in ids]
        metrics = [last_values(stored.rows(kitchen, r.run_id)) or _recorded(r) for r in found]
    differing = differences([run.record for run in found])
    names = in_order(name for each in metrics for name in each)
    if as_json:
        say_json(
            {
                "runs": [_summary(run, of) for run, of in zip(found, metrics, strict=True)],
                "settings": {
                    name: dict(zip(ids, values, strict=True)) for name, values in differing.items()
                },
            }
        )
        return
    for run in found:
        if run.record is None:
            note(run.problem or f"the run {run.run_id!r} has no record, only metrics")
    rows = [("status", *(run.status for run in found))]
    rows += [
        (name, *("" if value is None else toml(value) for value in values))
        for name, values in differing.items()
    ]
    table(("setting", *ids), rows)
    if not differing:
        say("they were started with the same settings")
    if names:
        say()
        table(("metric", *ids), [(n, *(number(each.get(n)) for each in metrics)) for n in names])


def _metrics(kitchen: Kitchen, run: StoredRun) -> Mapping[str, float]:
    """Return the last metrics of a run: of its record, since reading all rows takes long."""
    if recorded := _recorded(run):
        return recorded
    return last_values(stored.rows(kitchen, run.run_id))


def _recorded(run: StoredRun) -> Mapping[str, float]:
    return {} if run.record is None else run.record.values


def _row(run: StoredRun, metrics: Mapping[str, float]) -> Sequence[str]:
    record = run.record
    return (
        run.run_id,
        record.workflow if record else "",
        run.status,
        f"{record.state.step:,}" if record else "",
        _best(run) or ", ".join(f"{name} {number(metrics[name])}" for name in headline(metrics)),
        _local(record.created) if record else "",
        run.took,
    )


def _best(run: StoredRun) -> str:
    best = run.record.state.standing.best if run.record else None
    if run.record is None or best is None:
        return ""
    metric = text_of(run.record.config.get("best_metric", "best"))
    return f"{metric} {number(best.value)} (best, step {best.step})"


def _local(time: str | None) -> str:
    """Return a time as the clock here has it."""
    try:
        return datetime.fromisoformat(time or "").astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return time or ""


def _summary(run: StoredRun, metrics: Mapping[str, float]) -> dict[str, Any]:
    record = run.record
    return {
        "run_id": run.run_id,
        "status": run.status,
        "problem": run.problem or None,
        "workflow": record.workflow if record else None,
        "step": record.state.step if record else None,
        "created": record.created if record else None,
        "ended": record.ended if record else None,
        "seconds": run.seconds,
        "error": record.error if record else None,
        "best": as_json(record.state.standing.best.model_dump())
        if record and record.state.standing.best
        else None,
        "metrics": as_json(dict(metrics)),
    }


def _about(run: StoredRun, rows: int) -> Iterator[tuple[str, str]]:
    record = run.record
    yield "status", run.status
    if record is None:
        yield "record", run.problem or "none; only its metrics are known"
    else:
        yield "workflow", record.workflow
        yield "step", f"{record.state.step:,}"
        if record.error is not None and run.status != "done":
            yield "error", record.error
        yield "started", _local(record.created)
        yield "ended", _local(record.ended) if run.status != "running" else ""
        yield "took", run.took
        if best := _best(run):
            yield "best", best
    yield "rows of metrics", f"{rows:,}"


def _settings(run: StoredRun) -> Iterator[tuple[str, str]]:
    assert run.record is not None
    for name, value in settings_of(run.record).items():
        if value is not None:
            yield name, toml(value)
