"""The table `[observe]`: which observers are switched on, built-in ones and those installed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from ..adapters.discovery import OBSERVERS, catalog
from ..adapters.known_packages import packages_of
from ..errors import AdapterError, ConfigurationError
from ..events import Observer
from ..messages.spelling import nearest
from ..options.frozen import Frozen
from ..options.paths import LocalPath
from .installed import Chosen, Configure, choose

SourceOf: TypeAlias = Callable[[tuple[str, ...]], str]
"""Says where the value of a key was set, for messages."""


class ObserveConfig(Frozen):
    """Where the events of adapter calls and workflows go: the observers of the core."""

    console: bool = False
    """Print a line per event on standard error."""
    jsonl: LocalPath | None = None
    """File to append the events to, for `crucible trace`."""
    otel: bool = False
    """Export OpenTelemetry spans and metrics; OTEL_* variables choose the exporter."""


@dataclass(frozen=True, slots=True)
class Observe:
    """The table `[observe]`, validated.

    Args:
        built_in: the keys of the core.
        chosen: the installed observers that are switched on.
    """

    built_in: ObserveConfig
    chosen: tuple[Chosen, ...] = ()

    @property
    def names(self) -> list[str]:
        """The names of the observers that are switched on."""
        return [*(name for name, value in self.built_in if value), *(c.name for c in self.chosen)]


def observe(table: Mapping[str, Any], configure: Configure, source_of: SourceOf) -> Observe:
    """Validate the table `[observe]`.

    Args:
        table: its keys and values.
        configure: validates a table by its class.
        source_of: says where the value of a key was set.

    Raises:
        ConfigurationError: unknown keys or invalid values; the message lists all of them.
    """
    found: list[ConfigurationError] = []
    chosen: list[Chosen] = []
    core = {name: value for name, value in table.items() if _is_of_the_core(name)}
    built_in = ObserveConfig()
    try:
        built_in = configure(ObserveConfig, core, ("observe",))
    except ConfigurationError as error:
        found.append(error)
    for name, value in table.items():
        if name in core:
            continue
        at = ("observe", name)
        try:
            if (one := choose(name, value, at, configure, ObserveConfig.model_fields)) is not None:
                chosen.append(one)
        except ConfigurationError as error:
            found.append(_placed(error, at, source_of))
    if found:
        raise ConfigurationError.of(found)
    return Observe(built_in, tuple(chosen))


def _is_of_the_core(name: str) -> bool:
    """Say whether a key is of the core, or was probably meant to be."""
    known = ObserveConfig.model_fields
    if name in known or ":" in name:
        return name in known
    others = [entry.name for entry in catalog(OBSERVERS).entries] + [*packages_of("observer")]
    return nearest(name, [*known, *others]) in known


def _placed(error: ConfigurationError, at: tuple[str, ...], source_of: SourceOf) -> Any:
    """Return an error with the key and its source, which those about options have already."""
    key = ".".join(at)
    if str(error).startswith(key):
        return error
    return type(error)(f"{key}: {error} (from {source_of(at)})")


def handlers(config: Observe, source_of: SourceOf) -> Iterator[Observer]:
    """Make the observers that are switched on, one by one. Those with a `close` need closing.

    Raises:
        ConfigurationError: the file cannot be written, the extra `otel` is not installed, or an
            installed observer cannot be made.
    """
    core = config.built_in
    if core.jsonl is not None:
        from .jsonl import JsonLines

        with _explained_file(core.jsonl, source_of):
            lines = JsonLines(core.jsonl)
        yield lines
    if core.otel:
        with _explained_import(source_of):
            from .otel import OpenTelemetry

            exporter = OpenTelemetry.from_environment()
        yield exporter
    for one in config.chosen:
        yield _made(one, source_of)
    if core.console:
        from .console import Console

        yield Console()


def _made(one: Chosen, source_of: SourceOf) -> Observer:
    try:
        return one.make()
    except ConfigurationError as error:
        raise _placed(error, ("observe", one.name), source_of) from error.__cause__


def check(config: Observe, source_of: SourceOf) -> list[str]:
    """Return the names of the observers that are switched on, without making them.

    Raises:
        ConfigurationError: the extra `otel` is not installed.
    """
    if config.built_in.otel:
        with _explained_import(source_of):
            from . import otel  # noqa: F401
    return config.names


def reach(config: Observe, source_of: SourceOf) -> list[str]:
    """Do as `check`, and try whether the trace can be written, which leaves nothing behind, and
    whether the installed observers can be made, which are closed again.

    Raises:
        ConfigurationError: as `check`; the file cannot be written, or an observer not be made.
    """
    on = check(config, source_of)
    if config.built_in.jsonl is not None:
        from .jsonl import try_to_append

        with _explained_file(config.built_in.jsonl, source_of):
            try_to_append(config.built_in.jsonl)
    for one in config.chosen:
        close = getattr(_made(one, source_of), "close", None)
        if callable(close):
            close()
    return on


@contextlib.contextmanager
def _explained_file(path: Path, source_of: SourceOf) -> Iterator[None]:
    """Explain why a trace cannot be written."""
    try:
        yield
    except (OSError, AdapterError) as error:
        why = error.reason if isinstance(error, AdapterError) else error.strerror
        why = "its folder is a file" if isinstance(error, FileExistsError) else why
        raise ConfigurationError(
            f"observe.jsonl: {path} cannot be written: {why} "
            f"(from {source_of(('observe', 'jsonl'))})"
        ) from error


@contextlib.contextmanager
def _explained_import(source_of: SourceOf) -> Iterator[None]:
    """Explain an import that fails, of the SDK or of the exporter."""
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f"observe.otel: OpenTelemetry cannot be imported ({error}); "
            "pip install 'crucible-kitchen[otel]' "
            f"(from {source_of(('observe', 'otel'))})"
        ) from error
