"""What runs in each worker: a process around one rank of the `torch` package."""

from __future__ import annotations

import contextlib
import datetime
import os
import pickle
import threading
import traceback
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from crucible_kitchen import AdapterError, SessionConfig, SessionFailed, Tokenizer, Unsupported

from . import files, partition

if TYPE_CHECKING:
    from crucible_adapter_torch.distributed import Facts, Strategy
    from crucible_adapter_torch.options import TrainingClientOptions as TorchOptions

Kind: TypeAlias = Literal["operation", "inquiry", "rescue"]
"""See `crucible_adapter_torch.worker.Kind`."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What an actor answers instead of raising: Ray would wrap the error in one of its own."""

    error: Exception


@dataclass(frozen=True, slots=True)
class Opened:
    """What the driver keeps of a session that was opened.

    Args:
        facts: see `Rank.facts`.
        tokenizer: of the model; the error to raise if it has none.
    """

    facts: Facts
    tokenizer: Tokenizer | Unsupported


class RankActor:
    """One process of a world, which has one session's rank at a time.

    Calls run one after the other, in the order in which the driver made them, but those to
    `written` and `files`, which have threads of their own.

    Args:
        rank: which of the world's processes this is.
        size: how many there are.
        folder: the working directory of the driver: relative paths mean the same here, where every
            node sees it.
    """

    def __init__(self, rank: int, size: int, folder: str) -> None:
        from crucible_adapter_torch import distributed  # now, while the others do so, too

        self._distributed = distributed
        self._number, self._size = rank, size
        self._rank: Any = None
        self._failed = False
        self._store: Any = None
        self._saves: dict[int, Future[str]] = {}
        self._lock = threading.Lock()
        with contextlib.suppress(OSError):
            os.chdir(folder)

    # --- the world ---

    def ready(self) -> str:
        """Return which node the process runs on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def meeting_place(self) -> tuple[str, int]:
        """Open the place where the ranks find each other, on the first one; return its address."""
        import ray
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        host: str = ray.util.get_node_ip_address()
        self._store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        return host, self._store.port

    def meet(self, host: str, port: int, timeout: float) -> None:
        """Join the process group of the world. Every rank does so at the same time."""
        import torch
        import torch.distributed as dist
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        wait = datetime.timedelta(seconds=timeout)
        if self._store is None:
            self._store = TCPStore(host, port, is_master=False, timeout=wait)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, store=self._store, rank=self._number, world_size=self._size, timeout=wait
        )

    # --- a session ---

    def open(self, opts: TorchOptions, config: SessionConfig, strategy: Strategy) -> Any:
        """Open a session's part; collective. Returns `Opened` or `Failed`."""
        self._failed = False
        self._saves.clear()
        try:
            self._rank = self._distributed.Rank(opts, config, strategy=strategy)
            return Opened(self._rank.facts(), self._tokenizer())
        except Exception as error:
            return Failed(_sendable(error))

    def _tokenizer(self) -> Tokenizer | Unsupported:
        try:
            found: Tokenizer = self._rank.tokenizer
            return found
        except Unsupported as error:
            return error

    def run(self, kind: Kind, method: str, *args: Any) -> Any:
        """Call a method of the rank; return what it returns, or `Failed`.

        After an operation that failed, all are refused until a rescue succeeds.
        """
        if self._failed and kind != "rescue":
            return Failed(SessionFailed("an operation before this one failed"))
        try:
            result = getattr(self._rank, method)(*args)
        except Exception as error:
            self._failed = self._failed or kind == "operation"
            return Failed(_sendable(error))
        if kind == "rescue":
            self._failed = False
        return result

    def compute(self, method: str, *args: Any) -> Any:
        """Call `forward_backward` or `forward` of the rank; return the result packed, or `Failed`.

        After an operation that failed, all are refused until a rescue succeeds.
        """
        result = self.run("operation", method, *args)
        return result if isinstance(result, Failed) else partition.pack(result)

    def publish(self) -> tuple[Any, Any]:
        """Return None, or `Failed`; and on the first rank its live weights."""
        weights = self.run("inquiry", "live")
        return (weights, None) if isinstance(weights, Failed) else (None, weights)

    def save(self, ticket: int, label: str) -> Any:
        """Have a checkpoint written; `written` tells when it is. Returns None, or `Failed`."""
        result = self.run("inquiry", "save_checkpoint", label)
        if self._number != 0:
            return result
        future = self._save(ticket)
        if isinstance(result, Failed):
            future.set_exception(result.error)
            return result
        started: Future[str] = result

        def settle(done: Future[str]) -> None:
            if error := done.exception():
                future.set_exception(error)
            else:
                future.set_result(done.result())

        started.add_done_callback(settle)
        return None

    def written(self, ticket: int) -> Any:
        """Wait for a checkpoint; return its reference, or `Failed`."""
        try:
            return self._save(ticket).result()
        except Exception as error:
            return Failed(_sendable(error))
        finally:
            with self._lock:
                self._saves.pop(ticket, None)

    def _save(self, ticket: int) -> Future[str]:
        with self._lock:
            return self._saves.setdefault(ticket, Future())

    def files(self, function: str, *args: Any) -> Any:
        """Call a function of the module `files`; return what it returns, or `Failed`."""
        try:
            return getattr(files, function)(*args)
        except Exception as error:
            return Failed(_sendable(error))

    def sees(self, path: str) -> bool:
        """Return whether there is such a file on this machine."""
        return os.path.exists(path)

    def close(self) -> None:
        """Free the session's part, after the checkpoint that is being written."""
        rank, self._rank = self._rank, None
        if rank is not None:
            rank.close()


def _sendable(error: Exception) -> Exception:
    """Return an error that the driver can read."""
    if isinstance(error, AdapterError):
        with contextlib.suppress(Exception):
            pickle.dumps(error)
            return error
    said = {"traceback": "".join(traceback.format_exception(error))}
    return AdapterError(f"{type(error).__name__}: {error}", details=said)
