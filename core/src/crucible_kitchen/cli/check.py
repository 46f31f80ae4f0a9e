"""`crucible check`: the report card of an adapter, or of an environment."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich import box
from rich.table import Table

from ..adapters.discovery import ENVIRONMENTS, catalog
from ..calls.port import Port
from ..configuration.chosen import OneEnvironment
from ..errors import ConfigurationError
from ..messages.printable import printable_json
from ..ports import PORTS
from ..settings import Key, load
from .arguments import PROFILE, opened
from .console import say, table
from .styled import Text, console

if TYPE_CHECKING:
    from ..testing.report import ReportCard, Verdict

STYLES = {"failed": "bold red", "warning": "yellow", "xfailed": "yellow", "passed": "green"}


def check(
    name: Annotated[
        str,
        typer.Argument(
            metavar="PORT.NAME", help="Such as blob_store.fsspec, or environment.arithmetic."
        ),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE] [OPTION=VALUE]...",
            help="A crucible.toml, and options of what is checked, such as url=/tmp/blobs.",
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
    """Run the conformance suite on an adapter or an environment; print its report.

    It has its options in crucible.toml and those given here. The suite writes to an adapter, under
    names that begin with "conformance-", and deletes what it can.

    The exit code is 0 if something passed and nothing failed.
    """
    # Hypothesis loads plugins of all packages, and fails if the metadata of one is broken.
    os.environ["HYPOTHESIS_NO_PLUGINS"] = "1"
    try:
        from ..testing.check import check as run_suite
    except ImportError as error:
        raise ConfigurationError(str(error)) from error

    subject = _named(name)
    file, options = None, list(arguments or [])
    if options and "=" not in options[0]:
        file, *options = options
    at = ".".join(subject.at)
    settings = load(
        file,
        profile=profile,
        arguments=[f"{at}.use={subject.name}", *(f"{at}.{option}" for option in options)],
    )
    with opened(settings) as kitchen:
        # A mistake in the options is one error, not an error in each test.
        if subject.port is None:
            table = {"environment": settings.values["workflow"]["environment"]}
            kitchen.configure(OneEnvironment, table, ("workflow",))
        else:
            kitchen.bind([subject.port.name])
    if level is not None and not re.fullmatch(r"\d+\.\d+", level):
        raise ConfigurationError(f"--level: expected a level of the kit such as 1.0, got {level!r}")
    given = dict(_pair(text) for text in fixture or [])

    def run() -> ReportCard:
        out = console(stderr=True)
        if not out.is_terminal:
            return run_suite(settings, subject.port, fixtures=given, level=level)
        with out.status("") as status:

            def show(test: str) -> None:
                status.update(Text(test.removeprefix("test_").replace("_", " ")))

            return run_suite(settings, subject.port, fixtures=given, level=level, each=show)

    card = run().masked(kitchen.redacted)
    if as_json:
        say(printable_json(card.as_json()))
    elif as_markdown:
        say(card.as_markdown().removesuffix("\n"))
    else:
        _show(card, verbose)
    raise typer.Exit(0 if card.ok else 1)


class _Subject(NamedTuple):
    """What is checked: an adapter of a port, or, without a port, an environment."""

    port: type[Port] | None
    name: str
    at: Key


def _named(written: str) -> _Subject:
    kind, _, name = written.partition(".")
    if name and kind == "environment":
        if ":" not in name:
            catalog(ENVIRONMENTS).find("", name)
        return _Subject(None, name, ("workflow", "environment"))
    if name and kind in PORTS:
        catalog().find(kind, name)
        return _Subject(PORTS[kind], name, ("adapters", kind))
    known = ", ".join(PORTS)
    raise ConfigurationError(
        f"expected <port>.<name> or environment.<name>, got {written!r}; the ports are {known}"
    )


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
