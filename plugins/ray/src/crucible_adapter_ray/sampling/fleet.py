"""Actors that sample, and those that take the places of dead ones."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from crucible_kitchen import AdapterError

from ..cluster import Cluster, connect
from ..room import gpus_of
from .member import Member
from .options import CompleterOptions


class Fleet:
    """A fixed number of actors, started when they are first needed. Thread-safe.

    An actor that dies fails the calls that it had; the next call of any finds another in its place.

    Attributes:
        size: how many there are.
    """

    def __init__(self, opts: CompleterOptions) -> None:
        self.size = opts.actors
        self._opts = opts
        self._cluster: Cluster | None = None
        self._members: list[Member] = []
        self._lock = threading.Lock()

    def call(self, method: str, *args: Any) -> Any:
        """Return what the actor with the fewest calls says.

        Raises:
            Unavailable: it died, or there is none in time.
            AdapterError: what it raised.
        """
        with self._least_busy() as [member]:
            return member.answer(member.ask(method, *args))

    def call_each(self, method: str, work: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return what several actors say, one for each tuple of arguments, or the `AdapterError`
        that it raised. There are no more tuples than actors.

        Raises:
            Unavailable: an actor is not there in time.
        """
        with self._least_busy(len(work)) as members:
            asked = [
                (member, member.ask(method, *args))
                for member, args in zip(members, work, strict=True)
            ]
            return [_said(member, each) for member, each in asked]

    def stream(self, method: str, *args: Any) -> Iterator[Any]:
        """Yield what a generator of the actor with the fewest calls yields; see `Member.stream`."""
        with self._least_busy() as [member]:
            yield from member.stream(method, *args)

    def close(self) -> None:
        """End the actors, and let go of the connection."""
        with self._lock:
            members, self._members = self._members, []
            cluster, self._cluster = self._cluster, None
        for member in members:
            member.end()
        if cluster is not None:
            cluster.close()

    @contextlib.contextmanager
    def _least_busy(self, count: int = 1) -> Iterator[list[Member]]:
        """Count a call of each of the actors that have the fewest."""
        with self._lock:
            chosen = sorted(self._alive(), key=lambda member: member.calls)[:count]
            for member in chosen:
                member.calls += 1
        try:
            yield chosen
        finally:
            with self._lock:
                for member in chosen:
                    member.calls -= 1

    def _alive(self) -> list[Member]:
        """Return the actors; start those that are missing. Called with the lock."""
        if self._cluster is None or self._cluster.is_lost:
            lost, self._cluster = self._cluster, None
            if lost is not None:
                lost.close()
            self._cluster = connect(self._opts)
        kept = [member for member in self._members if member.is_usable]
        self._members = kept + self._started(self._cluster, self.size - len(kept))
        return self._members

    def _started(self, cluster: Cluster, count: int) -> list[Member]:
        if not count:
            return []
        gpus = gpus_of(self._opts)
        started = [Member(self._opts, cluster, gpus) for _ in range(count)]
        deadline = time.monotonic() + self._opts.start_timeout
        try:
            for member in started:
                member.wait_until_ready(deadline)
        except BaseException:
            for member in started:
                member.end()
            raise
        return started


def _said(member: Member, asked: ray.ObjectRef) -> Any:
    try:
        return member.answer(asked)
    except AdapterError as error:
        return error
