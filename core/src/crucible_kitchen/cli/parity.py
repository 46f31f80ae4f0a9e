"""`crucible parity`: whether the same training steps give the same numbers on several backends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigurationError
from ..kitchen import Kitchen
from ..observers.screens import Terminal
from ..parity import STEPS, Report, compare_in
from ..parity.backends import settings_of, unused
from ..parity.tolerances import parsed
from ..settings import Settings, gather
from .arguments import ARGUMENTS, PROFILE, read, workflow_of
from .console import JSON, conceal, note, say_json
from .parity_shown import picture_of, plain, show
from .styled import console


def parity(
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    backends: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,NAME[,...]",
            help="What to compare, the reference first: training clients, such as torch,ray, and "
            "profiles that choose one.",
        ),
    ] = None,
    profile: Annotated[str | None, PROFILE] = None,
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps to take.")] = STEPS,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="Accept another difference: of loss, grad_norm and curve relative, of logprobs in "
            "nats.",
        ),
    ] = None,
    first_step_only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Hold this backend to step 1, and to the curve of the loss after it: it starts "
            "from other random numbers.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Draw the figures and their differences, too."),
    ] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Compare the numbers of several backends, step by step.

    The first backend runs the workflow's first steps; the others get the same calls. Prints losses,
    gradient norms, and how far they and the logprobs are apart. Nothing is saved. Exits with 1 if a
    difference is beyond its tolerance, or a backend failed.
    """
    names = _listed(backends)
    if not names:
        raise ConfigurationError(
            "--backends: name two or more, the reference first, such as --backends torch,ray"
        )
    if len(set(names)) < len(names):
        raise ConfigurationError("--backends: a name is there twice; a profile gives another one")
    tolerances = parsed(tolerance or [])
    if plot is not None:
        _check_plot(plot)
    settings = _settings(names, arguments or [], profile)
    workflow, table = workflow_of(settings[names[0]])
    with ExitStack() as stack:
        kitchens = {name: Kitchen(settings=each) for name, each in settings.items()}
        for kitchen in kitchens.values():
            stack.enter_context(kitchen)
        masks: list[Callable[[str], str]] = [kitchen.redacted for kitchen in kitchens.values()]
        conceal(lambda text: functools.reduce(lambda masked, mask: mask(masked), masks, text))
        screen = Terminal(console(stderr=True))
        stack.callback(screen.stop)

        def told(name: str, done: int) -> None:
            if screen.live:
                screen.bar(name, done, steps, ())

        report = compare_in(
            kitchens,
            workflow,
            table,
            steps=steps,
            tolerances=tolerances,
            first_step_only=_listed(first_step_only),
            told=told,
        )
    _print(report, plot, as_json)
    raise typer.Exit(0 if report.within else 1)


def _listed(given: list[str] | None) -> list[str]:
    return [name.strip() for each in given or () for name in each.split(",") if name.strip()]


def _check_plot(file: Path) -> None:
    if file.suffix != ".png":
        raise ConfigurationError(f"--plot: a name that ends in .png, not {str(file)!r}")
    if find_spec("matplotlib") is None:
        raise ConfigurationError("--plot needs matplotlib: pip install 'crucible-kitchen[plot]'")
    if not file.resolve().parent.is_dir():
        raise ConfigurationError(f"--plot: there is no folder {str(file.parent)!r}")


def _settings(names: list[str], arguments: list[str], profile: str | None) -> dict[str, Settings]:
    """Return the settings of each backend; the mistakes of all names are one error."""
    base = read(arguments, profile, gather)

    def of_profile(name: str) -> Settings:
        return read(arguments, name, gather)

    found: dict[str, Settings] = {}
    mistakes: list[ConfigurationError] = []
    for name in names:
        try:
            found[name] = settings_of(name, base, of_profile)
        except ConfigurationError as error:
            mistakes.append(error)
        else:
            if name in base.profiles and (beyond := unused(name, base)):
                note(
                    f"of [profile.{name}] only the training client is used, not {', '.join(beyond)}"
                )
    if mistakes:
        raise ConfigurationError.of(mistakes)
    return found


def _print(report: Report, plot: Path | None, as_json: bool) -> None:
    if as_json:
        say_json(plain(report))
    else:
        show(report)
    if plot is None:
        return
    content: Any = picture_of(report)
    try:
        plot.write_bytes(content)
    except OSError as error:
        raise ConfigurationError(f"{plot} cannot be written: {error.strerror}") from None
    note(f"wrote {plot}")
