"""A training session: what may be submitted, and when; its ranks do the work."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from crucible_adapter_torch.worker import Kind, Worker
from crucible_kitchen import (
    AdamParams,
    AdapterError,
    Datum,
    ForwardBackwardResult,
    InvalidInput,
    NotFound,
    OptimStepResult,
    SessionConfig,
    Tokenizer,
)

from .. import live
from ..options import TrainingClientOptions
from . import partition
from .checkpoints import checkpoints_of
from .nodes import WorldNodes
from .world import World
from .worlds import Worlds

T = TypeVar("T")


class Session:
    """The handle of a training session. Callbacks of the training client are its methods.

    The ranks are asked at submission, so that they need not wait for the driver between two
    operations; the worker waits for their answers, in order.

    Args:
        opts: of the training client.
        config: of the session.
        worlds: where its processes come from, and go to.

    Attributes:
        config: what the session was started with.
        worker: the thread that waits.

    Raises:
        NotFound, Unauthorized, InvalidInput, Unsupported: see `distributed.Rank`.
        Unavailable: the same; or see `World`.
    """

    def __init__(self, opts: TrainingClientOptions, config: SessionConfig, worlds: Worlds) -> None:
        self.config = config
        self._opts, self._worlds = opts, worlds
        self._checkpoints = checkpoints_of(opts)
        self._world = self._open(config)
        self._published: str | None = None
        self._closed = False
        self._accumulated = 0  # forward_backward operations submitted since the last optim_step
        self._tickets = itertools.count()
        self._submitting = threading.Lock()
        self.worker = Worker(lambda: None)
        self._writing = Worker(lambda: None)  # waits for checkpoints, while others go on

    def _open(self, config: SessionConfig) -> World:
        world = self._worlds.take()
        try:
            with self._fetched(world, config.from_checkpoint) as found:
                opened = world.open(replace(config, from_checkpoint=found))
        except BaseException:
            self._worlds.give_back(world)
            raise
        self._facts, self._tokenizer = opened.facts, opened.tokenizer
        return world

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            Unsupported: the model has none.
        """
        if isinstance(self._tokenizer, AdapterError):
            raise self._tokenizer
        return self._tokenizer

    # --- operations ---

    def forward_backward(
        self, datums: Sequence[Datum], loss_fn: str, loss_fn_config: Mapping[str, float] | None
    ) -> Future[ForwardBackwardResult]:
        self.worker.check()
        config = self._facts.check_datums(datums, loss_fn, loss_fn_config, backward=True)
        with self._submitting:
            future = self._compute("forward_backward", datums, loss_fn, config)
            self._accumulated += 1
        return future

    def forward(
        self, datums: Sequence[Datum], loss_fn: str, loss_fn_config: Mapping[str, float] | None
    ) -> Future[ForwardBackwardResult]:
        self.worker.check()
        config = self._facts.check_datums(datums, loss_fn, loss_fn_config, backward=False)
        with self._submitting:
            return self._compute("forward", datums, loss_fn, config)

    def _compute(
        self, method: str, datums: Sequence[Datum], loss_fn: str, config: Mapping[str, float]
    ) -> Future[ForwardBackwardResult]:
        self.worker.check()
        parts = partition.cut([datum.model_input.length for datum in datums], self._opts.workers)
        batches = [[datums[index] for index in part] for part in parts]
        asked = self._world.compute(method, batches, loss_fn, config)
        return self._submit(asked, "operation", lambda answers: partition.join(parts, answers))

    def optim_step(self, learning_rate: float, adam: AdamParams) -> Future[OptimStepResult]:
        self.worker.check()
        self._facts.check_learning_rate(learning_rate)
        with self._submitting:
            self.worker.check()
            if not self._accumulated:
                raise InvalidInput("no gradient: run forward_backward before optim_step")
            asked = self._world.run("operation", "optim_step", learning_rate, adam)
            future: Future[OptimStepResult] = self._submit(asked, "operation", _first)
            self._accumulated = 0
        return future

    def _submit(
        self, asked: Sequence[Any], kind: Kind, then: Callable[[list[Any]], T]
    ) -> Future[T]:
        """Return the future of what is made of the ranks' answers."""
        world = self._world
        return self.worker.submit(lambda: then(world.wait(asked, kind)), kind)

    # --- state ---

    def save_checkpoint(self, label: str) -> Future[str]:
        with self._submitting:
            self.worker.check()
            if self._accumulated:
                raise InvalidInput(
                    "gradients are pending, and a checkpoint does not hold them; run optim_step "
                    "before saving one"
                )
            world = self._world
            started, written = world.save(next(self._tickets), label)
            begun = self._submit(started, "inquiry", lambda answers: None)

            def wait() -> str:
                begun.result()
                reference: str = world.wait([written], "inquiry")[0]
                self._checkpoints.keep(self._nodes(world), reference, label)
                return reference

            return self._writing.submit(wait, "inquiry")

    def load_checkpoint(self, reference: str, with_optimizer: bool) -> None:
        self.worker.check("rescue")
        with self._submitting:
            self.worker.submit(lambda: self._load(reference, with_optimizer), "rescue").result()
            self._accumulated = 0

    def _load(self, reference: str, with_optimizer: bool) -> None:
        if self._world.is_over:
            # What it started from may be gone by now, and is not needed.
            self._world = self._open(replace(self.config, from_checkpoint=None))
        world = self._world
        try:
            with self._fetched(world, reference) as found:
                asked = world.run("rescue", "load_checkpoint", found, with_optimizer)
                world.wait(asked, "rescue")
                self._facts = world.wait(world.run("rescue", "facts"), "rescue")[0]
        except NotFound as error:
            if not (self._opts.checkpoint_dir / reference).is_dir():
                raise
            raise NotFound(
                f"{error.reason} on a node of a worker, but it is on this machine: checkpoint_dir "
                "must be a folder that every node shares"
            ) from error

    @contextlib.contextmanager
    def _fetched(self, world: World, reference: str | None) -> Iterator[str | None]:
        """Have a checkpoint, if there is one to load, where the ranks read it, under the name that
        is yielded.
        """
        if reference is None:
            yield None
            return
        nodes = self._nodes(world)
        found = self._checkpoints.fetch(nodes, reference)
        try:
            yield found
        finally:
            self._checkpoints.drop(nodes, found)

    def _nodes(self, world: World) -> WorldNodes:
        return WorldNodes(world, self._opts.checkpoint_dir.absolute())

    def publish(self, name: str | None) -> str:
        return self._publish() if name is None else self._ask("save_weights", name)

    def _publish(self) -> str:
        with self._submitting:
            self.worker.check()
            asked, weights = self._world.publish()  # they stay in the object store
            done = self._submit(asked, "inquiry", _first)
        done.result()
        live.withdraw(self._published)
        self._published = live.publish(weights, opts=self._opts.of_torch(), config=self.config)
        return self._published

    def export(self, folder: Path, merge: bool) -> None:
        try:
            self._ask("export", folder.absolute(), merge)
        except NotFound as error:
            if not folder.is_dir():
                raise
            raise NotFound(
                f"{error.reason}, on the machine of the first worker, which writes there: it must "
                "be a folder that this machine shares with it"
            ) from error

    def check_storage(self, checkpoints: int) -> None:
        self._ask("check_storage", self._checkpoints.at_a_time(checkpoints))

    def _ask(self, method: str, *args: Any) -> Any:
        """Have every rank call a method at its place in the queue; return the answer of the
        first.
        """
        with self._submitting:
            self.worker.check()
            asked = self._world.run("inquiry", method, *args)
            answer = self._submit(asked, "inquiry", _first)
        return answer.result()

    def get_info(self) -> dict[str, str | int | float | bool | None]:
        self.worker.check()
        return dict(self._facts.info)

    def storage_needed(self) -> dict[str, int]:
        """Return the bytes of a checkpoint, `checkpoint`, and of the weights saved with a name,
        `weights`; a little more than they take.
        """
        self.worker.check()
        return dict(self._facts.storage)

    def close(self) -> None:
        """Drop what is queued, wait for what is running and for checkpoints, and free the ranks."""
        self.worker.close()
        with self._submitting:
            world, closed = self._world, self._closed
            self._closed = True
        if not closed:
            self._writing.submit(lambda: None, "inquiry").result()
            self._writing.close()
            live.withdraw(self._published)
            self._worlds.give_back(world)


def _first(answers: Sequence[Any]) -> Any:
    return answers[0]
