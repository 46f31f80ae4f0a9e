"""Faults in exporting weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crucible_kitchen import hookimpl

from .bases import NOOP, Delegate, Options, mutants


class ExportsTheStart(Delegate):
    @hookimpl
    def export_weights(self, opts: Options, session: Any, folder: Path, merge: bool) -> None:
        start = opts.inner.start_session(session.config)
        opts.inner.export_weights(start, folder, merge)


class ExportsNothing(Delegate):
    @hookimpl
    def export_weights(self, opts: Options, session: Any, folder: Path, merge: bool) -> None:
        return None


class DropsGradientsToExport(Delegate):
    @hookimpl
    def export_weights(self, opts: Options, session: Any, folder: Path, merge: bool) -> None:
        opts.inner.export_weights(session, folder, merge)
        session.gradient = None


class MergesAnyway(Delegate):
    @hookimpl
    def export_weights(self, opts: Options, session: Any, folder: Path, merge: bool) -> None:
        opts.inner.export_weights(session, folder, merge=True)


class ExportsAClosedSession(Delegate):
    @hookimpl
    def export_weights(self, opts: Options, session: Any, folder: Path, merge: bool) -> None:
        session.closed = False
        opts.inner.export_weights(session, folder, merge)


MUTANTS = mutants(
    NOOP,
    (ExportsTheStart(), "exported_weights_are_those_of_the_session"),
    (ExportsNothing(), "exported_weights_are_those_of_the_session"),
    (DropsGradientsToExport(), "exporting_changes_nothing"),
    (MergesAnyway(), "an_update_alone_needs_an_update"),
    (ExportsAClosedSession(), "a_closed_session_exports_nothing"),
)
