"""The sessions that are open, so that closing the adapter closes them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .session import Session


class OpenSessions:
    """Open sessions. Thread-safe."""

    def __init__(self) -> None:
        self._open: set[Session] = set()
        self._lock = threading.Lock()

    def add(self, session: Session) -> None:
        with self._lock:
            self._open.add(session)

    def close(self, session: Session) -> None:
        with self._lock:
            self._open.discard(session)
        session.close()

    def close_all(self) -> None:
        for session in tuple(self._open):
            self.close(session)
