"""Where the processes of sessions come from: they are started, or kept from a session before."""

from __future__ import annotations

import threading

from ..cluster import Cluster, connect
from ..options import TrainingClientOptions
from .world import World


class Worlds:
    """The worlds of a training client, and its connection to Ray. Thread-safe.

    Args:
        opts: of the training client.
    """

    def __init__(self, opts: TrainingClientOptions) -> None:
        self._opts = opts
        self._cluster: Cluster | None = None
        self._idle: list[World] = []
        self._lock = threading.Lock()

    def take(self) -> World:
        """Return a world without a session.

        Raises:
            InvalidInput, Unauthorized: see `connect`.
            Unavailable: the same; or there is no room for another world.
        """
        with self._lock:
            if self._cluster is None or self._cluster.is_lost:
                self._idle.clear()
                lost, self._cluster = self._cluster, None
                if lost is not None:
                    lost.close()
                self._cluster = connect(self._opts)
            cluster = self._cluster
            while self._idle:
                if (world := self._idle.pop()).is_alive():
                    return world
        return World(self._opts, cluster)

    def give_back(self, world: World) -> None:
        """Take a world that is not needed any more: it is ended, or kept, as the options say."""
        if self._opts.reuse_workers and world.close_session():
            with self._lock:
                self._idle.append(world)
        else:
            world.end()

    def close(self) -> None:
        """End the worlds that are kept, and let go of the connection."""
        with self._lock:
            idle, self._idle = self._idle, []
            cluster, self._cluster = self._cluster, None
        for world in idle:
            world.end()
        if cluster is not None:
            cluster.close()
