"""`crucible check`: the report card of an adapter."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table

from ..adapters.discovery import catalog
from ..errors import ConfigurationError
from ..messages.printable import printable_json
from ..ports import PORTS
from ..settings import load
from .arguments import PROFILE, opened
from .console import Text, console, say, table

if TYPE_CHECKING:
    from ..testing.report import ReportCard, Verdict

STYLES = {"failed": "bold red", "warning": "yellow", "xfailed": "yellow", "passed": "green"}


def check(
    adapter: Annotated[str, typer.Argument(metavar="PORT.NAME", help="Such as blob_store.fsspec.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE] [OPTION=VALUE]...",
            help="A crucible.toml, and options of the adapter, such as url=/tmp/blobs.",
            show_default=False,
        ),
    ] = None,
    profile: Annotated[str | None, PROFILE] = None,
    fixture: Annotated[
        list[str] | None,
        typer.Option(
            "--fixture",
            "-f",
            metavar="NAME=VALUE",
            help="A fixture of the suite, such as model=NAME or dataset_id=PATH.",
        ),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(help="Hold the adapter to this level of the kit, such as 1.0."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the card as JSON.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the card as Markdown.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show where each failure happened.")
    ] = False,
) -> None:
    """Run the conformance suite on an adapter; print its report.

    The adapter is bound with its options in crucible.toml and those given here. The suite writes to
    it, under names that begin with "conformance-", and deletes what it can.

    The exit code is 0 if something passed and nothing failed.
    """
    # Hypothesis loads plugins of all packages, and fails if the metadata of one is broken.
    os.environ["HYPOTHESIS_NO_PLUGINS"] = "1"
    try:
        from ..testing.check import check as run_suite
    except ImportError as error:
        raise ConfigurationError(str(error)) from error

    port, name = _named(adapter)
    file, options = None, list(arguments or [])
    if options and "=" not in options[0]:
        file, *options = options
    settings = load(
        file,
        profile=profile,
        arguments=[f"adapters.{port}={name}", *(f"adapters.{port}.{o}" for o in options)],
    )
    with opened(settings) as kitchen:
        kitchen.bind([port])  # a mistake in the options is one error, not an error in each test
    if level is not None and not re.fullmatch(r"\d+\.\d+", level):
        raise ConfigurationError(f"--level: expected a level of the kit such as 1.0, got {level!r}")
    given = dict(_pair(text) for text in fixture or [])

    def run() -> ReportCard:
        out = console(stderr=True)
        if not out.is_terminal:
            return run_suite(settings, PORTS[port], fixtures=given, level=level)
        with out.status("") as status:

            def show(test: str) -> None:
                status.update(Text(test.removeprefix("test_").replace("_", " ")))

            return run_suite(settings, PORTS[port], fixtures=given, level=level, each=show)

    card = run().masked(kitchen.redacted)
    if as_json:
        say(printable_json(card.as_json()))
    elif as_markdown:
        say(card.as_markdown().removesuffix("\n"))
    else:
        _show(card, verbose)
    raise typer.Exit(0 if card.ok else 1)


def _named(adapter: str) -> tuple[str, str]:
    port, _, name = adapter.partition(".")
    if port not in PORTS or not name:
        known = ", ".join(PORTS)
        raise ConfigurationError(f"expected <port>.<name>, got {adapter!r}; the ports are {known}")
    catalog().find(port, name)
    return port, name


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--fixture: expected NAME=VALUE, got {text!r}")
    return name, value


def _show(card: ReportCard, verbose: bool) -> None:
    out = console()
    out.print(Text(card.title, style="bold"))
    out.print(Text(card.versions))
    say()
    if out.is_terminal:
        grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        grid.add_column("outcome")
        grid.add_column("promise", overflow="fold")
        for verdict in card.verdicts:
            promise = Text(verdict.sentence)
            if verdict.reason:
                promise.append(f"\n{_first_line(verdict)}", style="dim")
            grid.add_row(Text(verdict.outcome, style=STYLES.get(verdict.outcome, "")), promise)
        out.print(grid)
    else:
        rows = [(v.outcome, v.sentence, _first_line(v)) for v in card.verdicts]
        table(("outcome", "promise", "reason"), rows)
    for verdict in card.verdicts:
        if verdict.outcome == "failed":
            out.print(Text(f"\n{verdict.sentence}", style="bold"))
            out.print(Text(verdict.promise))
            out.print(Text(verdict.traceback if verbose else verdict.reason, style="red"))
    say()
    out.print(Text(card.summary, style="green" if card.ok else "bold red"))


def _first_line(verdict: Verdict) -> str:
    return verdict.reason.partition("\n")[0]
