"""`crucible runs export` and `plot`: runs as files."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import ConfigurationError
from ...history import page, picture, stored
from ...history.curves import curves, last_values, union, worth_drawing
from ...history.page import Evaluation, Told
from ...kitchen import Kitchen
from ...messages.numbers import as_json
from ...messages.printable import printable_json, text_of
from ...messages.spelling import did_you_mean, listed
from ...types import MetricEntry
from ..arguments import PROFILE
from ..console import note, say_json
from .words import RUNS, split, stores

EVALUATIONS = 20
"""Evaluations whose samples a page has, the latest."""
TO: Any = typer.Option(metavar="FILE", help="Where to write it.")


def plot(
    words: Annotated[list[str], RUNS],
    profile: Annotated[str | None, PROFILE] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html|FILE.png", help="What to write; RUN.html in this folder if unset."
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Draw this metric only; may be given several times."),
    ] = None,
) -> None:
    """Draw the curves of runs, overlaid, as a PNG or as an HTML page.

    The page also has the last metrics, the configuration and the samples of the latest evaluations.
    It is one file that loads nothing.
    """
    ids, arguments = split(words)
    file = to or Path(f"{ids[0].replace('/', '_')}.html")
    if file.suffix not in (".html", ".png"):
        raise ConfigurationError(f"--to: a name that ends in .html or .png, not {str(file)!r}")
    with stores(arguments, profile) as kitchen:
        told = [_told(kitchen, run_id, samples=file.suffix == ".html") for run_id in ids]
    names = _chosen(told, metric or [])
    if file.suffix == ".html":
        _write(file, page.html(told, names).encode())
        return
    if not names:
        raise ConfigurationError(f"{' and '.join(ids)}: no metrics with steps are recorded")
    thinned = {
        each.run.run_id: {name: curve.thinned() for name, curve in each.curves.items()}
        for each in told
    }
    _write(file, picture.png(names, thinned))


def export(
    words: Annotated[list[str], RUNS],
    profile: Annotated[str | None, PROFILE] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json|FILE.csv", help="Where to write; standard output if unset."
        ),
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Only the rows of metrics, as CSV.")
    ] = False,
) -> None:
    """Write all that is kept of a run, as JSON: its record, rows of metrics, and samples.

    Weights and checkpoints are named, not copied; `crucible export` writes weights.
    """
    [run_id], arguments = split(words, most=1)
    if to is not None and to.suffix not in (".json", ".csv"):
        raise ConfigurationError(f"--to: a name that ends in .json or .csv, not {str(to)!r}")
    if as_csv and to is not None and to.suffix != ".csv":
        raise ConfigurationError(f"--to: with --csv, a name that ends in .csv, not {str(to)!r}")
    with stores(arguments, profile) as kitchen:
        run = stored.get(kitchen, run_id)
        entries = stored.rows(kitchen, run_id)
        if as_csv or (to is not None and to.suffix == ".csv"):
            text = _csv(entries)
            if to is None:
                sys.stdout.write(text)
            else:
                _write(to, text.encode(errors="backslashreplace"))
            return
        whole = {
            "run_id": run_id,
            "status": run.status,
            "problem": run.problem or None,
            "record": None if run.record is None else run.record.model_dump(mode="json"),
            "metrics": [_row(entry) for entry in entries],
            "samples": [
                {"path": path, "step": stored.step_of(path), "sample": sample}
                for path in stored.sample_paths(kitchen, run_id)
                for sample in stored.samples(kitchen, path)
            ],
        }
    if to is None:
        say_json(whole)
    else:
        content = json.dumps(as_json(whole), indent=2, ensure_ascii=False, default=text_of)
        _write(to, (printable_json(content) + "\n").encode())


def _told(kitchen: Kitchen, run_id: str, samples: bool) -> Told:
    run = stored.get(kitchen, run_id)
    entries = stored.rows(kitchen, run_id)
    last = last_values(entries) or (run.record.values if run.record else {})
    paths = stored.sample_paths(kitchen, run_id) if samples else []
    steps = {step: path for path in paths if (step := stored.step_of(path)) is not None}
    latest = sorted(steps, reverse=True)[:EVALUATIONS]
    evaluations = [_evaluation(kitchen, step, steps[step]) for step in latest]
    return Told(run, curves(entries), last, evaluations, len(steps) - len(latest))


def _evaluation(kitchen: Kitchen, step: int, path: str) -> Evaluation:
    found = list(stored.samples(kitchen, path))
    return Evaluation(step, found[: page.SAMPLES], len(found))


def _chosen(told: Sequence[Told], wanted: Sequence[str]) -> list[str]:
    """Return the metrics to draw: those that are asked for, or those worth it."""
    there = union([each.curves for each in told])
    for name in wanted:
        if name not in there:
            hint = did_you_mean(name, there) or f"; there is {listed(name, there) or 'none'}"
            raise ConfigurationError(f"--metric: no run has the metric {name!r}{hint}")
    return list(dict.fromkeys(wanted)) or worth_drawing(there)


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}") from None
    note(f"wrote {file}")


def _row(entry: MetricEntry) -> dict[str, Any]:
    return {
        "metric": entry.metric,
        "step": entry.step,
        "value": entry.value,
        "timestamp": entry.timestamp.isoformat(),
        "metadata": dict(entry.metadata),
    }


def _csv(entries: Sequence[MetricEntry]) -> str:
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("metric", "step", "value", "timestamp"))
    for entry in entries:
        step = "" if entry.step is None else entry.step
        rows.writerow((entry.metric, step, repr(entry.value), entry.timestamp.isoformat()))
    return out.getvalue()
