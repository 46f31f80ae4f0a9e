"""The Ray that everything in this process shares: a cluster, or one that is started here.

A process can be connected to one Ray at a time. Who needs it holds it, and the last one to let go
disconnects. A Ray that was started here ends with that, and with the process, however that ends;
one that the program had connected to by itself is left alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from crucible_kitchen import InvalidInput, Unauthorized, Unavailable

from .options import ClusterOptions

ADDRESS = "RAY_ADDRESS"
INTERVAL = 1.0
"""Seconds between two looks at the head."""
ATTEMPTS, PATIENCE = 3, 2.0
"""How often a head is asked before it counts as gone, and the seconds that it has each time."""
NOTICE = 2.0
"""Seconds in which those who wait for a lost cluster notice it, before it is disconnected."""


_log = logging.getLogger(__name__)
_lock = threading.RLock()
_connected: Cluster | None = None
_lost: set[str] = set()
"""What was asked for when a cluster was lost, until it is back."""


class Cluster:
    """A connection to Ray, held once for each `connect` until its `close`.

    Attributes:
        address: `host:port` of the head.
        node: Ray's id of this machine.
        is_own: whether it was started here, for this process alone.
        is_lost: whether the head was found gone, or what Ray runs on this machine. The next
            `connect` makes another connection.
    """

    def __init__(self, asked: str, found: bool, memory: int | None) -> None:
        import ray

        self.address: str = ray.get_runtime_context().gcs_address
        self.is_own = asked == "local" and not found
        self.is_lost = False
        self.node: str = ray.get_runtime_context().get_node_id()
        self._places = [_place(self.address), _listener(self.node)]
        self._asked, self._found, self._memory = asked, found, memory
        self._holders = 0
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="crucible-ray-head", daemon=True).start()

    def check(self) -> None:
        """Check that the head was there a moment ago.

        Raises:
            Unavailable: it is gone, and so is all that ran on the cluster for this process.
        """
        if self.is_lost:
            raise self.gone()

    def gone(self) -> Unavailable:
        """Return the error for what was to be done on a cluster without a head."""
        return Unavailable(
            f"the Ray cluster at {self.address} is gone: its head, or what Ray runs on this "
            "machine, has ended, and all workers with it; continue from the last checkpoint on a "
            "cluster that runs"
        )

    def _watch(self) -> None:
        """Look after the head. Without one Ray goes on for a minute, and then ends the program."""
        while not self._closed.wait(INTERVAL):
            if all(_answers(each, self._closed.wait) for each in self._places):
                continue
            self.is_lost = True
            _lost.add(self._asked)
            if not self._closed.wait(NOTICE):
                with _lock:
                    self._disconnect()

    def close(self) -> None:
        """Let go; the last one disconnects."""
        with _lock:
            self._holders -= 1
            if not self._holders:
                self._disconnect()

    def _disconnect(self) -> None:
        """Disconnect, if that was not done. Called with the lock."""
        global _connected
        if not self._closed.is_set():
            self._closed.set()
            if _connected is self:
                _connected = None
            if self.is_lost or not self._found:
                _shutdown()


def connect(opts: ClusterOptions) -> Cluster:
    """Return the connection of this process, made now if there is none.

    Raises:
        InvalidInput: the process is connected to another Ray.
        Unavailable: there is no Ray at the address, or none could be started here. A cluster that
            this process has lost is given `start_timeout` to come back.
        Unauthorized: the cluster wants a token.
    """
    global _connected
    import ray

    asked = opts.address or os.environ.get(ADDRESS) or "local"
    with _lock:
        if _connected is not None and _connected.is_lost:
            _connected._disconnect()
    if asked in _lost:
        _wait_for(asked, opts.start_timeout)
    with _lock:
        if _connected is None:
            found = ray.is_initialized()
            if not found:
                _check_there(asked)
                _start(asked, opts)
            try:
                _connected = Cluster(asked, found, opts.object_store_memory)
            except Exception as error:  # it ends as soon as it was there
                if not found:
                    _shutdown()
                raise Unavailable(f"the Ray at {asked} does not answer: {error}") from error
            _lost.discard(asked)
        cluster = _connected
        cluster._holders += 1
        try:
            _check_same(cluster, asked)
            _check_memory(cluster, opts)
        except InvalidInput:
            cluster.close()
            raise
        return cluster


def ping(opts: ClusterOptions, look: Callable[[], object]) -> None:
    """Check that the cluster is there; one that would be started here is not.

    Args:
        opts: where it is.
        look: called while the process is connected to it.

    Raises:
        InvalidInput, Unavailable, Unauthorized: see `connect`.
    """
    if (opts.address or os.environ.get(ADDRESS) or "local") != "local":
        connection = connect(opts)
        try:
            connection.check()
            look()
        finally:
            connection.close()


def _check_same(cluster: Cluster, asked: str) -> None:
    same = {cluster._asked, cluster.address, *(["local"] if cluster._found else [])}
    if asked not in same and (asked != "auto" or cluster.is_own):
        raise InvalidInput(
            f"this process is connected to the Ray at {cluster.address}, and cannot use {asked!r} "
            "as well: all its adapters of Ray need the same address"
        )


def _check_memory(cluster: Cluster, opts: ClusterOptions) -> None:
    wanted = opts.object_store_memory
    if wanted is not None and (not cluster.is_own or cluster._memory != wanted):
        raise InvalidInput(
            f"object_store_memory = {wanted}: the Ray at {cluster.address} was not started with "
            "it; leave it out for a cluster, and set it alike for all adapters of a Ray of their "
            "own"
        )


def _start(asked: str, opts: ClusterOptions) -> None:
    """Connect to a cluster, or start a Ray of one's own."""
    import ray

    given: dict[str, Any] = {"address": asked}
    if asked == "local":
        # Whatever runs here shares the processors, like the threads of one process: no one waits
        # for another's. Only GPUs are counted.
        given |= {"num_cpus": 1024, "object_store_memory": opts.object_store_memory}
        # Ray's workers give way to all else that runs, by a niceness of 15: training is what this
        # Ray is for.
        given["_system_config"] = {"worker_niceness": 0}
        if sys.platform == "linux":
            # Its processes find each other by an address that stays, with or without a network.
            # Ray takes 127.0.0.1 for a mistake, and replaces it.
            given["_node_ip_address"] = "127.0.0.2"
    _log_what_ray_prints()
    try:
        with _handlers_kept():
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **given,
            )
    except Exception as error:  # Ray raises plain ones, such as for a slow start
        with contextlib.suppress(Exception):
            _shutdown()
        if any("AuthenticationError" in line for line in traceback.format_exception(error)):
            raise Unauthorized(
                f"the Ray cluster at {asked} wants a token: set the environment variable "
                "RAY_AUTH_MODE to `token`, and have the cluster's in ~/.ray/auth_token, where Ray "
                "looks for it"
            ) from error
        if asked != "local":
            raise Unavailable(f"no Ray at {asked}: {error}", no_effect=True) from error
        raise Unavailable(  # Ray gives itself 30 s, which a busy machine may not suffice for
            f"no Ray could be started here: {error} Try again, or start it with `ray start --head` "
            'and set address = "auto"',
            no_effect=True,
        ) from error


def _log_what_ray_prints() -> None:
    """Have what Ray's processes complain of logged. Ray prints it in colour on standard output,
    with no setting against it; what concerns a call is in the error of the call.
    """
    with contextlib.suppress(ImportError):
        from ray._private import worker  # it has no public name

        def log(data: Mapping[str, Any], ignore_prefix: bool = False) -> None:
            _log.info("%s: %s", data.get("pid"), " ".join(map(str, data.get("lines", ()))))

        worker.print_to_stdstream = log


def _wait_for(asked: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(Unavailable):
            _check_there(asked)
            return
        time.sleep(INTERVAL)


def _check_there(asked: str) -> None:
    """Check that something listens at an address. Ray itself would try for minutes.

    Raises:
        Unavailable: nothing does.
    """
    address = asked
    if asked == "auto":
        with contextlib.suppress(Exception):  # it has no public name
            from ray._private.utils import read_ray_address

            address = read_ray_address() or asked
    if address in ("auto", "local") or _answers(_place(address), time.sleep):
        return
    raise Unavailable(f"no Ray at {asked}: nothing answers at {address}", no_effect=True)


def _answers(place: tuple[str, int], pause: Callable[[float], Any]) -> bool:
    """Say whether something listens there; true, too, if there is no time for a second attempt."""
    for _ in range(ATTEMPTS):
        try:
            socket.create_connection(place, PATIENCE).close()
            return True
        except OSError:
            if pause(0.1):
                return True
    return False


def _place(address: str) -> tuple[str, int]:
    """Return the host and the port of an address.

    Raises:
        InvalidInput: it has none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InvalidInput(f"address {address!r}: it is `auto`, or `host:port` of the head")
    return host.strip("[]"), int(port)


def _listener(identity: str) -> tuple[str, int]:
    """Return where Ray's own process on a machine listens."""
    import ray

    [node] = [node for node in ray.nodes() if node["NodeID"] == identity]
    return node["NodeManagerAddress"], node["NodeManagerPort"]


def _shutdown() -> None:
    import ray

    with _handlers_kept():
        ray.shutdown()


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray replaces the program's handler of SIGTERM, and does not give it back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
