"""`crucible check`: the report card of an adapter, or of an environment."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..adapters.discovery import ADAPTERS, ENVIRONMENTS, Installed, catalog
from ..adapters.known_packages import every_package
from ..calls.port import Port
from ..configuration.chosen import OneEnvironment
from ..errors import ConfigurationError, explain_os_errors
from ..kitchen import Kitchen
from ..messages.printable import printable_json
from ..messages.spelling import nearest
from ..ports import PORTS
from ..settings import Key, load
from .arguments import PROFILE, opened, restrict
from .card import show
from .console import note, say
from .styled import Text, console

if TYPE_CHECKING:
    from ..testing.report import ReportCard


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
    variant: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Of the package's own suites, run the one of this variant."
        ),
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write the card to this folder, bound to the version and files of the package.",
        ),
    ] = None,
    badge: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a badge for a README to this file, as SVG."),
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
    names that begin with "conformance-", and deletes what it can. If the package brings suites of
    its own, these are run; without any option, on what they set up themselves.

    The exit code is 0 if all of it was run, something passed and nothing failed.
    """
    subject = _named(name)  # first: a mistake in it is worth more than what else is missing
    # Hypothesis loads plugins of all packages, and fails if the metadata of one is broken.
    os.environ["HYPOTHESIS_NO_PLUGINS"] = "1"
    try:
        from ..testing.check import Subject, run
        from ..testing.conformance import unfit_level
        from ..testing.shipped import module_of
    except ImportError as error:
        raise ConfigurationError(str(error)) from error
    if level is not None and (why := unfit_level(level)):
        raise ConfigurationError(f"--level: {why}")

    file, options = None, list(arguments or [])
    if options and "=" not in options[0]:
        file, *options = options
    at = ".".join(subject.at)
    settings = load(
        file,
        profile=profile,
        arguments=[f"{at}.use={subject.name}", *(f"{at}.{option}" for option in options)],
    )
    restrict(settings)
    module = module_of(subject.entry) if subject.entry else None
    if variant is not None and module is None:
        raise ConfigurationError(
            f"--variant: the package of {name} brings no suites of its own, so it has no variants"
        )
    table: Any = settings.values[subject.at[0]][subject.at[1]]
    what = Subject(
        settings,
        subject.port,
        dict(_pair(text) for text in fixture or []),
        level,
        module=module,
        variant=variant,
        configured=module is None or bool({*table} - {"use"}),
        name=subject.entry.name if subject.entry else "",
    )
    with opened(settings) as kitchen:
        if what.configured:
            _try(kitchen, subject)
        elif subject.entry is not None:
            subject.entry.load()  # whether it may be, and can be: one error, not one in each test

    def with_progress() -> Sequence[ReportCard]:
        out = console(stderr=True)
        if not out.is_terminal:
            return run(what)
        with out.status("") as status:

            def shown(test: str) -> None:
                status.update(Text(test.removeprefix("test_").replace("_", " ")))

            return run(what, each=shown)

    cards = [each.masked(kitchen.redacted) for each in with_progress()]
    _print(cards, as_json, as_markdown, verbose)
    if card is not None:
        _write(cards, card)
    if badge is not None:
        from ..testing.badge import badge as drawn

        with explain_os_errors(f"cannot write the badge to {badge}"):
            badge.write_text(drawn(cards), encoding="utf-8")
        note(f"wrote {badge}")
    raise typer.Exit(0 if all(each.ok for each in cards) else 1)


def _try(kitchen: Kitchen, subject: _Subject) -> None:
    """Make what is checked, and reach it: a mistake is one error, not an error in each test."""
    if subject.port is None:
        table = {"environment": kitchen.settings.values["workflow"]["environment"]}
        kitchen.configure(OneEnvironment, table, ("workflow",))
        return
    kitchen.bind([subject.port.name])
    port = kitchen.port(subject.port)
    if port.supports("ping"):
        port.ping()


def _print(cards: Sequence[ReportCard], as_json: bool, as_markdown: bool, verbose: bool) -> None:
    if as_json:
        texts = [each.as_json() for each in cards]
        say(printable_json(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"))
    elif as_markdown:
        say("\n".join(each.as_markdown() for each in cards).removesuffix("\n"))
    else:
        for number, each in enumerate(cards):
            if number:
                say()
            show(each, verbose)


def _write(cards: Sequence[ReportCard], folder: Path) -> None:
    """Write the cards, each to a file of its own.

    Raises:
        ConfigurationError: what was checked is not installed, or two cards have one name.
    """
    if names := [name for name, n in Counter(each.file_name for each in cards).items() if n > 1]:
        raise ConfigurationError(
            f"--card: two of the package's suites have one card, {names[0]}: name what differs "
            "between them in the class attribute `variant`"
        )
    if loose := [each for each in cards if not each.files]:
        raise ConfigurationError(
            f"--card: {loose[0].title} is not an installed package, to which a card could be bound"
        )
    with explain_os_errors(f"cannot write the card to {folder}"):
        for each in cards:
            note(f"wrote {each.write(folder)}")


class _Subject(NamedTuple):
    """What is checked: an adapter of a port, or, without a port, an environment."""

    port: type[Port] | None
    name: str
    at: Key
    entry: Installed | None


def _named(written: str) -> _Subject:
    kind, _, name = written.partition(".")
    if name and kind == "environment":
        found = None if ":" in name else catalog(ENVIRONMENTS).find("", name)
        return _Subject(None, name, ("workflow", "environment"), found)
    if name and kind in PORTS:
        return _Subject(PORTS[kind], name, ("adapters", kind), catalog().find(kind, name))
    installed = [
        f"{each.port or 'environment'}.{each.name}"
        for group in (ADAPTERS, ENVIRONMENTS)
        for each in catalog(group).entries
    ]
    packages = every_package()
    known = [*installed, *(each for each in packages if not each.startswith("observer."))]
    short = nearest(written, [each.partition(".")[2] for each in known])
    meant = [each for each in dict.fromkeys(known) if each.partition(".")[2] == short]
    meant = meant or list(filter(None, [nearest(written, known)]))
    hint = f"; did you mean {' or '.join(map(repr, meant))}?" if meant else ""
    if meant and not {*meant} & {*installed}:
        hint += f" To get it: pip install {packages[meant[0]]}"
    hint = hint or f"; the ports are {', '.join(PORTS)}"
    raise ConfigurationError(f"expected <port>.<name> or environment.<name>, got {written!r}{hint}")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigurationError(f"--fixture: expected NAME=VALUE, got {text!r}")
    return name, value
