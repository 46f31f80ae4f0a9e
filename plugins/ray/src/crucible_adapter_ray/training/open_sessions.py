"""The sessions that are open, so that closing the adapter closes them."""

from __future__ import annotations

import threading

from crucible_kitchen import SessionConfig

from ..options import TrainingClientOptions
from .session import Session
from .worlds import Worlds


class OpenSessions:
    """The sessions of a training client, and where their processes come from. Thread-safe."""

    def __init__(self, opts: TrainingClientOptions) -> None:
        self._opts = opts
        self._worlds = Worlds(opts)
        self._open: set[Session] = set()
        self._lock = threading.Lock()

    def start(self, config: SessionConfig) -> Session:
        """Start a session; see `Session`."""
        session = Session(self._opts, config, self._worlds)
        with self._lock:
            self._open.add(session)
        return session

    def close(self, session: Session) -> None:
        """Close a session; if it is closed, do nothing."""
        with self._lock:
            self._open.discard(session)
        session.close()

    def close_all(self) -> None:
        """Close all sessions, end what was kept for others, and let go of Ray."""
        for session in tuple(self._open):
            self.close(session)
        self._worlds.close()
