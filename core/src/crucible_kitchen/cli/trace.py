"""`crucible trace`: where the time of a run went."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import rich.text
import typer
from rich import box
from rich.table import Table

from ..errors import ConfigurationError
from ..messages.counts import counted
from ..messages.durations import duration
from ..messages.spelling import listed, shortened
from ..ports import PORTS
from ..traces.lines import Line, read
from ..traces.profile import WAITING, Callee, CalleeTimes, Profile, Trace, profile, traces
from .console import JSON, note, say_json, table
from .styled import Text, console

BAR = 24
"""Characters of a bar that stands for the whole time."""


def trace(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="What `crucible run --trace FILE` wrote.")
    ],
    run_id: Annotated[
        str | None, typer.Option("--run", metavar="RUN_ID", help="A run other than the last.")
    ] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Show where the time of a run went.

    By port, adapter and callback. Times are own times: those spent in a callback, without the calls
    that it made itself. So a wrapper's time does not include that of the adapter within it.
    """
    found, unreadable = _read(file)
    attempts = _chosen(file, found, run_id)
    result = profile(attempts)
    if as_json:
        ids = list(dict.fromkeys(run for trace in attempts for run in trace.runs))
        say_json({"runs": ids, "attempts": len(attempts), **dataclasses.asdict(result)})
    else:
        for line in _head(file, found, attempts):
            console().print(line)
        _print_parts(result)
        _print_rows(result)
    if unreadable:
        note(f"left out {counted(unreadable, 'line')} of {file}: torn, or not an event")


# --- reading ---


def _read(file: Path) -> tuple[list[Trace], int]:
    """Return the traces in a file, and how many of its lines are not events."""
    count = good = 0

    def lines() -> Iterator[Line]:
        nonlocal count, good
        for line in read(file):
            count += 1
            if line is not None:
                good += 1
                yield line

    try:
        found = traces(lines())
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no file {str(file)!r}; `crucible run --trace {file}` writes one"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    if not count:
        raise ConfigurationError(f"{file} is empty: no event has been written to it yet")
    if not good:
        raise ConfigurationError(
            f"{file} is not a trace: none of its lines is an event; `crucible run --trace FILE` "
            "writes one"
        )
    return found, count - good


def _chosen(file: Path, found: Sequence[Trace], run_id: str | None) -> list[Trace]:
    """Return the attempts at a run: the one of this id, or the last of the file."""
    known = list(dict.fromkeys(run for trace in found for run in trace.runs))
    if run_id is not None and run_id not in known:
        there = f"it has {listed(run_id, known)}" if known else "its events belong to no run"
        raise ConfigurationError(f"{file} has no events of the run {run_id!r}; {there}")
    wanted = {run_id} if run_id is not None else set(found[-1].runs)
    return [trace for trace in found if wanted & set(trace.runs)] or [found[-1]]


# --- printing ---


def _head(
    file: Path, found: Sequence[Trace], attempts: Sequence[Trace]
) -> Iterator[rich.text.Text]:
    runs = dict.fromkeys(run for trace in attempts for run in trace.runs)
    others = dict.fromkeys(run for trace in found for run in trace.runs if run not in runs)
    more = f"  in {len(attempts)} attempts" if len(attempts) > 1 else ""
    yield Text.assemble((shortened([*runs]) or "no run", "bold"), (more, "dim"))
    if others:
        yield Text(f"{file} has more, see --run: {shortened([*others])}", "dim")


def _print_parts(result: Profile) -> None:
    out = console()
    words = [(f"{duration(result.elapsed)} in all, {counted(result.calls, 'call')}", "")]
    words += [(f", {counted(result.errors, 'error')}", "bold red" if result.errors else "")]
    if result.ended == "unfinished":
        words += [("; it goes on, or was killed", "yellow")]
    elif result.ended is not None:
        words += [(f"; it ended with {result.ended}", "bold red")]
    out.print(Text.assemble(*words))
    out.print()
    for what, seconds, colour in (
        (f"waiting for results ({WAITING[1]})", result.waiting, "cyan"),
        ("in other calls", result.calling, "blue"),
        ("in no call: the workflow's own", result.own, "magenta"),
    ):
        bar = "█" * round(_share(seconds, result) * BAR) if out.is_terminal else ""
        out.print(Text.assemble(_part(what, seconds, result), (bar and f"  {bar}", colour)))
    out.print()
    for phase in result.phases:
        out.print(Text(f"{_part(phase.name, phase.total, result)}  {counted(phase.count, 'time')}"))
    if result.phases:
        out.print()


def _part(what: str, seconds: float, result: Profile) -> str:
    return f"  {what:<31}  {duration(seconds):>8}  {_share(seconds, result):>6.1%}"


HEADINGS = ("calls", "errors", "total", "share", "p50", "p95")


def _print_rows(result: Profile) -> None:
    """Print a tree on a terminal, and aligned columns in a pipe."""
    out = console()
    tree = [(port, _by_adapter(rows)) for port, rows in _grouped(result.rows, _port)]
    if not out.is_terminal:
        flat = (row for _, adapters in tree for _, rows in adapters for row in rows)
        table(("port", "adapter", "callback", *HEADINGS), (_columns(row, result) for row in flat))
    else:
        grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
        grid.add_column("", overflow="fold")
        for heading in HEADINGS:
            grid.add_column(heading, justify="right", no_wrap=True)
        for port, adapters in tree:
            _add_port(grid, port, adapters, result)
        out.print(grid)
    if any(_is_stream(row.callee) for row in result.rows):
        note("a stream's time includes what its caller did between items")


Group: TypeAlias = tuple[str, list[CalleeTimes]]


def _grouped(rows: Iterable[CalleeTimes], key: Callable[[CalleeTimes], str]) -> list[Group]:
    """Group rows, the group that took the longest first."""
    groups: dict[str, list[CalleeTimes]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return sorted(groups.items(), key=lambda group: -_total(group[1]))


def _by_adapter(rows: Iterable[CalleeTimes]) -> list[Group]:
    groups = _grouped(rows, lambda row: f"{row.callee.adapter}{' around' * row.callee.wraps}")
    return sorted(groups, key=lambda group: not group[1][0].callee.wraps)  # wrappers first


def _add_port(grid: Table, port: str, adapters: Sequence[Group], result: Profile) -> None:
    total = _total(row for _, rows in adapters for row in rows)
    alone = f" {adapters[0][0]}" if len(adapters) == 1 else ""
    _add_heading(grid, Text.assemble((port, "bold"), alone), total, result)
    for adapter, rows in adapters:
        if not alone:
            _add_heading(grid, Text(f" {adapter}"), _total(rows), result)
        for row in rows:
            grid.add_row(Text(f"  {row.callee.callback}"), *_cells(row, result))


def _add_heading(grid: Table, text: rich.text.Text, total: float, result: Profile) -> None:
    share = f"{_share(total, result):.1%}"
    grid.add_row(text, "", "", Text(duration(total), "bold"), Text(share, "bold"))


def _cells(row: CalleeTimes, result: Profile) -> list[Text]:
    calls, errors, *times = _figures(row, result)
    return [Text(calls), Text("" if errors == "0" else errors, "bold red"), *map(Text, times)]


def _columns(row: CalleeTimes, result: Profile) -> list[str]:
    callee = row.callee
    callback = f"around {callee.callback}" if callee.wraps else callee.callback
    return [callee.port, callee.adapter, callback, *_figures(row, result)]


def _figures(row: CalleeTimes, result: Profile) -> list[str]:
    total, p50, p95 = map(duration, (row.total, row.p50, row.p95))
    share = f"{_share(row.total, result):.1%}"
    return [f"{row.calls:,}", f"{row.errors:,}", total, share, p50, p95]


def _port(row: CalleeTimes) -> str:
    return row.callee.port


def _total(rows: Iterable[CalleeTimes]) -> float:
    return sum(row.total for row in rows)


def _share(seconds: float, result: Profile) -> float:
    return seconds / result.elapsed if result.elapsed else 0.0


def _is_stream(callee: Callee) -> bool:
    port = PORTS.get(callee.port)
    return port is not None and (
        callee.callback in port.callbacks() and port.traits(callee.callback).stream
    )
