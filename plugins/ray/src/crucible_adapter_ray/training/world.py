"""The processes of a session: started together, asked together, and ended together."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import ray
from crucible_kitchen import (
    AdapterError,
    InvalidInput,
    SessionConfig,
    SessionFailed,
    Unavailable,
    explain_os_errors,
)
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ..cluster import Cluster
from ..options import TrainingClientOptions
from ..room import counted, demand
from .actor import Failed, Kind, Opened, RankActor

LOOK = 0.5
"""Seconds between two looks at whether a rank failed, or the cluster, while others compute."""
GRACE = 5.0
"""Seconds that the other ranks have to answer as well, once one said that it failed."""


class World:
    """Actors, one a rank, which meet in a process group. Thread-safe.

    An operation that fails on every rank leaves them in step, and `load_checkpoint` may revive
    them. One that fails on one rank alone leaves the others in a collective, where they would wait
    for it: all are ended.

    Args:
        opts: of the training client.
        cluster: where to start them.

    Attributes:
        one_of_each_machine: a rank on each of the machines.

    Raises:
        Unavailable: the cluster has no room for the actors, or they do not start.
    """

    def __init__(self, opts: TrainingClientOptions, cluster: Cluster) -> None:
        self._opts, self._cluster = opts, cluster
        self._demand = demand("workers", opts.workers, opts)
        self._gpus = self._demand.gpus
        self._group: PlacementGroup = None
        self._actors: list[Any] = []
        deadline = time.monotonic() + opts.start_timeout
        try:
            self._reserve(deadline)
            self._start(deadline)
        except BaseException:
            self.end()
            raise

    def _reserve(self, deadline: float) -> None:
        opts, needed = self._opts, self._demand
        needed.warn_if_too_large()
        self._group = placement_group([needed.bundle] * needed.count, strategy="PACK")
        while not self._group.wait(LOOK):
            self._cluster.check()
            if time.monotonic() < deadline:
                continue
            raise Unavailable(
                f"{needed}, and after {opts.start_timeout:g} s (start_timeout) the Ray "
                f"cluster has {counted(ray.available_resources())} free, of "
                f"{counted(ray.cluster_resources())}: end what uses them, add nodes, or ask for "
                "fewer workers, cpus or gpus",
                no_effect=True,
            )

    def _start(self, deadline: float) -> None:
        opts = self._opts
        kind = ray.remote(concurrency_groups={"written": 1, "files": 1})(RankActor)
        for rank in range(opts.workers):
            placed = PlacementGroupSchedulingStrategy(self._group, rank)
            options = kind.options(
                num_cpus=opts.cpus,
                num_gpus=self._gpus,
                scheduling_strategy=placed,
            )
            self._actors.append(options.remote(rank, opts.workers, os.getcwd()))
        nodes = self._started([actor.ready.remote() for actor in self._actors], deadline)
        self.one_of_each_machine = [nodes.index(node) for node in dict.fromkeys(nodes)]
        self._check_folder(nodes)
        if opts.workers == 1:
            return
        [(host, port)] = self._started([self._actors[0].meeting_place.remote()], deadline)
        timeout = opts.collective_timeout
        self._started([a.meet.remote(host, port, timeout) for a in self._actors], deadline)

    def _check_folder(self, nodes: Sequence[str]) -> None:
        """Check that all workers have the driver's folder of checkpoints.

        Raises:
            InvalidInput: one has another.
        """
        folder = self._opts.checkpoint_dir.absolute()
        others = {node: rank for rank, node in enumerate(nodes) if node != self._cluster.node}
        if self._opts.checkpoints is not None or not others:
            return
        with explain_os_errors(f"{folder} cannot be written"):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-") as marker:
                asked = [self._actors[rank].sees.remote(marker.name) for rank in others.values()]
                seen = self.wait(asked, "inquiry")
        if not all(seen):
            raise InvalidInput(
                f"checkpoint_dir {folder} of this machine is another folder, or none, on "
                f"other machines of the session ({len(seen) - sum(seen)} of {len(seen)}): all must "
                "share it; or keep checkpoints in a blob store (option `checkpoints`)"
            )

    # --- sessions ---

    @property
    def is_over(self) -> bool:
        """Whether the actors were ended, or the cluster is gone."""
        return not self._actors or self._cluster.is_lost

    def _all(self) -> Sequence[Any]:
        """Return the actors, to ask them something.

        Raises:
            Unavailable: the cluster is gone. Ray would start another one by itself.
            SessionFailed: they were ended.
        """
        actors = self._actors
        self._cluster.check()
        if not actors:
            raise SessionFailed(
                "the workers of the session were ended; load a checkpoint to continue"
            )
        return actors

    def open(self, config: SessionConfig) -> Opened:
        """Open a session.

        Raises:
            AdapterError: what a rank could not do.
            Unavailable: a worker died.
        """
        of_torch = self._opts.of_torch()
        if not self._gpus and of_torch.device == "auto":
            # Without a GPU of its own it must not take one that it happens to see.
            of_torch = of_torch.model_copy(update={"device": "cpu"})
        strategy = self._opts.strategy
        opened: Opened = self.wait(
            [actor.open.remote(of_torch, config, strategy) for actor in self._all()], "rescue"
        )[0]
        return opened

    def run(self, kind: Kind, method: str, *args: Any) -> list[Any]:
        """Have every rank call one of its methods; return what to `wait` for."""
        return [actor.run.remote(kind, method, *args) for actor in self._all()]

    def compute(self, method: str, parts: Sequence[Sequence[Any]], *args: Any) -> list[Any]:
        """Have every rank compute a loss of its part of a batch; return what to `wait` for."""
        return [
            actor.compute.remote(method, part, *args)
            for actor, part in zip(self._all(), parts, strict=True)
        ]

    def save(self, ticket: int, label: str) -> tuple[list[Any], Any]:
        """Have a checkpoint written; return what to `wait` for, and the first rank's reference."""
        actors = self._all()
        started = [actor.save.remote(ticket, label) for actor in actors]
        written = actors[0].written.options(concurrency_group="written").remote(ticket)
        return started, written

    def publish(self) -> tuple[list[Any], Any]:
        """Have the weights put into the object store; return what to `wait` for, and them."""
        asked = [actor.publish.options(num_returns=2).remote() for actor in self._all()]
        return [done for done, _ in asked], asked[0][1]

    def ask_for_files(self, rank: int, function: str, *args: Any) -> Any:
        """Have a worker call a function of `files` on its machine; return what to `wait` for."""
        files = self._all()[rank].files.options(concurrency_group="files")
        return files.remote(function, *args)

    def close_session(self) -> bool:
        """Free the session; return whether the actors can have another one. They are ended if they
        are still at something.
        """
        return self._answer("close", GRACE)

    def is_alive(self) -> bool:
        """Return whether all actors answer; else they are ended."""
        return self._answer("ready", self._opts.start_timeout)

    def _answer(self, method: str, seconds: float) -> bool:
        with contextlib.suppress(Unavailable, SessionFailed):
            asked = [getattr(actor, method).remote() for actor in self._all()]
            if len(self._collect(asked, time.monotonic() + seconds)) == len(asked):
                return True
        self.end()
        return False

    def wait(self, asked: Sequence[Any], kind: Kind) -> list[Any]:
        """Return what every rank answers.

        Raises:
            AdapterError: what the first of those that failed raised.
            Unavailable: a worker died, or the cluster is gone.
        """
        answers = self._collect(asked)
        failures = [a.error for _, a in sorted(answers.items()) if isinstance(a, Failed)]
        if failures:
            together = kind == "inquiry" or len(failures) == len(asked)
            if not together or len(answers) < len(asked):
                self.end()
            raise failures[0]
        return [answers[rank] for rank in range(len(asked))]

    def _collect(self, asked: Sequence[Any], deadline: float = math.inf) -> dict[int, Any]:
        """Return the answers by rank: all of them, or those that came until the deadline or, after
        a failure, in time.
        """
        answers: dict[int, Any] = {}
        pending = list(asked)
        while pending and time.monotonic() < deadline:
            failure: AdapterError | None = None
            try:
                self._cluster.check()
                done, pending = ray.wait(pending, num_returns=len(pending), timeout=LOOK)
                answers |= {asked.index(ref): ray.get(ref) for ref in done}
            except RayError as error:
                failure = self._lost(error)
            except Unavailable as error:
                failure = error
            if failure is not None:  # raised here, for Ray's errors are not to be among its causes
                self.end()
                raise failure
            if any(isinstance(answer, Failed) for answer in answers.values()):
                deadline = min(deadline, time.monotonic() + GRACE)
        return answers

    def _started(self, asked: Sequence[Any], deadline: float) -> list[Any]:
        """Return the answers of actors that are being started.

        Raises:
            Unavailable: they died, or did not answer in time.
        """
        answers = self._collect(asked, deadline)
        if len(answers) < len(asked):
            raise Unavailable(
                f"the workers did not start within {self._opts.start_timeout:g} s (start_timeout)",
                no_effect=True,
            )
        return [answers[rank] for rank in range(len(asked))]

    def _lost(self, error: RayError) -> Unavailable:
        """Return what to raise for an actor that died."""
        with contextlib.suppress(Unavailable):
            self._cluster.check()
            if "ModuleNotFoundError" in str(error):
                return Unavailable(
                    "a worker did not start; every node needs the packages that are installed "
                    f"here: {brief(error)}"
                )
            return Unavailable(
                "a worker died, and the others were ended, for they would wait for it for ever; "
                "start the session again, or, if it has begun, have load_checkpoint start new "
                f"ones: {brief(error)}"
            )
        return self._cluster.gone()

    def end(self) -> None:
        """End the actors, whatever they are doing, and free what was reserved for them."""
        actors, self._actors = self._actors, []
        if self._cluster.is_lost:
            return  # Ray would start another one by itself
        for actor in actors:
            with contextlib.suppress(Exception):  # it is dead already, or Ray is
                ray.kill(actor)
        group, self._group = self._group, None
        if group is not None:
            with contextlib.suppress(Exception):
                remove_placement_group(group)


def brief(error: BaseException) -> str:
    """Return what Ray says of the cause of an error, on a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:400]
