"""The table `[observe]`: which handlers are switched on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from ..errors import AdapterError, ConfigurationError
from ..events import Observer
from ..options.frozen import Frozen
from ..options.paths import LocalPath

SourceOf: TypeAlias = Callable[[tuple[str, ...]], str]
"""Says where the value of a key was set, for messages."""


class ObserveConfig(Frozen):
    """Where the events of adapter calls and workflows go."""

    console: bool = False
    """Print a line per event on standard error."""
    jsonl: LocalPath | None = None
    """File to append the events to, for `crucible trace`."""
    otel: bool = False
    """Export OpenTelemetry spans and metrics; OTEL_* variables choose the exporter."""


def handlers(config: ObserveConfig, source_of: SourceOf) -> Iterator[Observer]:
    """Make the handlers that are switched on, one by one. Those with a `close` need closing.

    Raises:
        ConfigurationError: the file cannot be written, or the extra `otel` is not installed.
    """
    if config.jsonl is not None:
        from .jsonl import JsonLines

        with _explained_file(config.jsonl, source_of):
            lines = JsonLines(config.jsonl)
        yield lines
    if config.otel:
        with _explained_import(source_of):
            from .otel import OpenTelemetry

            exporter = OpenTelemetry.from_environment()
        yield exporter
    if config.console:
        from .console import Console

        yield Console()


def check(config: ObserveConfig, source_of: SourceOf) -> list[str]:
    """Return the names of the handlers that are switched on, without making them.

    Raises:
        ConfigurationError: the extra `otel` is not installed.
    """
    if config.otel:
        with _explained_import(source_of):
            from . import otel  # noqa: F401
    return [name for name, value in config if value]


def reach(config: ObserveConfig, source_of: SourceOf) -> list[str]:
    """Do as `check`, and try whether the trace can be written, which leaves nothing behind.

    Raises:
        ConfigurationError: as `check`; or the file cannot be written.
    """
    on = check(config, source_of)
    if config.jsonl is not None:
        from .jsonl import try_to_append

        with _explained_file(config.jsonl, source_of):
            try_to_append(config.jsonl)
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
