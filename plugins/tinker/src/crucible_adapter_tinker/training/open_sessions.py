"""The server of a bound client, and the sessions that are open there."""

from __future__ import annotations

import threading

from crucible_kitchen import SessionConfig

from ..options import ServerOptions
from ..servers.connection import connect
from .session import Session


class OpenSessions:
    """What lives between calls.

    Attributes:
        server: which the sessions are on.
    """

    def __init__(self, opts: ServerOptions) -> None:
        self.server = connect(opts)
        self._open: set[Session] = set()
        self._lock = threading.Lock()

    def start(self, config: SessionConfig) -> Session:
        session = Session(self.server, config)
        with self._lock:
            self._open.add(session)
        return session

    def close(self, session: Session) -> None:
        """Close a session; one that is closed stays so."""
        with self._lock:
            if session not in self._open:
                return
            self._open.remove(session)
        session.close()

    def close_all(self) -> None:
        with self._lock:
            sessions, self._open = self._open, set()
        for session in sessions:
            session.close()
        self.server.close()
