"""The table `[observe]`: which handlers are switched on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import AdapterError, ConfigurationError
from ..masking import Masked
from ..options import AdapterOptions
from ..paths import LocalPath

if TYPE_CHECKING:
    from ..kitchen import Kitchen
    from .jsonl import JsonLines


class ObserveConfig(Masked):
    """Where to tell of every adapter call and workflow event."""

    model_config = AdapterOptions.model_config

    console: bool = False
    """Print a line an event on standard error."""
    jsonl: LocalPath | None = None
    """File to append the events to, for `crucible trace`."""
    otel: bool = False
    """Make OpenTelemetry spans and metrics; the exporter is set by OTEL_* variables."""


def configured(kitchen: Kitchen) -> ObserveConfig:
    """Return the kitchen's table `[observe]`.

    Raises:
        ConfigurationError: keys or values that there are not; named with their source.
    """
    return kitchen.configure(
        ObserveConfig, kitchen.settings.values.get("observe", {}), ("observe",)
    )


def check(kitchen: Kitchen) -> list[str]:
    """Return the names of the handlers that `switch_on` would make, without making them.

    Raises:
        ConfigurationError: the table is wrong, or the extra `otel` is not installed.
    """
    config = configured(kitchen)
    if config.otel:
        with _extra(kitchen):
            from . import otel  # noqa: F401
    return [name for name, value in config if value]


def reach(kitchen: Kitchen) -> list[str]:
    """Do as `check`, and try whether the trace can be written, which leaves nothing behind.

    Raises:
        ConfigurationError: as `check`; or the file cannot be written.
    """
    on = check(kitchen)
    if (path := configured(kitchen).jsonl) is not None:
        from .jsonl import try_to_append

        with _of_trace(kitchen, path):
            try_to_append(path)
    return on


def switch_on(kitchen: Kitchen) -> list[JsonLines]:
    """Switch on the handlers of the kitchen's table `[observe]`; return what is to be closed.

    Raises:
        ConfigurationError: the table is wrong, the file cannot be written, or the extra `otel` is
            not installed.
    """
    config = configured(kitchen)
    opened: list[JsonLines] = []
    if config.jsonl is not None:
        from .jsonl import JsonLines

        with _of_trace(kitchen, config.jsonl):
            lines = JsonLines(config.jsonl)
        kitchen.observe(lines)
        opened.append(lines)
    if config.otel:
        with _extra(kitchen):
            from .otel import OpenTelemetry

            kitchen.observe(OpenTelemetry.from_environment())
    if config.console:
        from .console import Console

        kitchen.observe(Console())
    return opened


@contextlib.contextmanager
def _of_trace(kitchen: Kitchen, path: Path) -> Iterator[None]:
    """Explain why a trace cannot be written."""
    try:
        yield
    except (OSError, AdapterError) as error:
        why = error.reason if isinstance(error, AdapterError) else error.strerror
        why = "its folder is a file" if isinstance(error, FileExistsError) else why
        raise ConfigurationError(
            f"observe.jsonl: {path} cannot be written: {why} "
            f"(from {kitchen.settings.source_of(('observe', 'jsonl'))})"
        ) from error


@contextlib.contextmanager
def _extra(kitchen: Kitchen) -> Iterator[None]:
    """Explain an import that fails, of the SDK or of the exporter."""
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f"observe.otel: OpenTelemetry cannot be imported ({error}); "
            "pip install 'crucible-kitchen[otel]' "
            f"(from {kitchen.settings.source_of(('observe', 'otel'))})"
        ) from error
