"""Adapters that return what no contract allows, and raise what no caller expects.

Each is a noop with one callback that goes wrong. They are installed under their names as the
package that `install` writes.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from crucible_kitchen import (
    PORTS,
    AdapterError,
    AdapterOptions,
    Completion,
    CompletionChunk,
    ForwardBackwardResult,
    MetricEntry,
    OptimStepResult,
    helper,
    hookimpl,
)

PACKAGE = "crucible_adapter_hostile"


class OfALibrary(BaseException):
    """What a library stops its own threads with."""


class Mute(Exception):
    def __str__(self) -> str:
        raise OfALibrary  # not SystemExit, which would end pytest where it shows a failure

    __repr__ = __str__


class MuteAdapterError(AdapterError):
    """An error class of the adapter, which is as broken as the rest of it."""

    def __init__(self) -> None: ...

    __str__ = __repr__ = Mute.__str__


class Thief:
    """An object that raises even when asked for its class."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise SystemExit(0)


class Broken(list[Any]):
    """A list that cannot be read."""

    def __iter__(self) -> Iterator[Any]:
        raise SystemExit(0)


def recurse(**arguments: Any) -> Any:
    return recurse(**arguments)


def raises(error: BaseException) -> Callable[..., Any]:
    def act(**arguments: Any) -> Any:
        raise error

    return act


def in_a_thread(**arguments: Any) -> Any:
    """Wait for a worker that a library ended with sys.exit()."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(sys.exit, 0).result()


def returns(value: Any) -> Callable[..., Any]:
    return lambda **arguments: value


def yields(*items: Any, then: BaseException | None = None) -> Callable[..., Any]:
    def act(**arguments: Any) -> Iterator[Any]:
        yield from items
        if then is not None:
            raise then

    return act


def coroutine(**arguments: Any) -> Any:
    async def later() -> None: ...

    pending = later()
    pending.close()  # so that Python does not warn that it was never awaited
    return pending


@dataclass(frozen=True)
class Hostile:
    """An adapter with one callback that goes wrong.

    Args:
        port: its port.
        callback: which one, or a helper.
        how: what goes wrong, a part of its name.
        act: what the callback does, given its arguments by name.
        said: part of the message.
    """

    port: str
    callback: str
    how: str
    act: Callable[..., Any]
    said: str

    @property
    def name(self) -> str:
        return f"{self.callback}-{self.how}"

    def __str__(self) -> str:
        return f"{self.port}.{self.name}"

    @property
    def adapter(self) -> Any:
        """The adapter, which wraps another of its port."""
        port = PORTS[self.port]
        options = {"__annotations__": {"inner": port}, "__module__": __name__}
        made = type("Adapter", (), {"Options": type("Options", (AdapterOptions,), options)})()
        made.__name__ = self.name
        spec = port.callbacks().get(self.callback)
        names = [*inspect.signature(spec).parameters][2:] if spec else ["session"]
        setattr(made, self.callback, _function(names, self.act, is_helper=spec is None))
        return made


def _function(names: list[str], act: Callable[..., Any], *, is_helper: bool) -> Any:
    # The names of its arguments are the contract of a callback, so it is written out.
    given = ", ".join(f"{name}={name}" for name in names)
    space: dict[str, Any] = {"act": act}
    exec(f"def function({', '.join(['opts', *names])}): return act({given})", space)
    return (helper if is_helper else hookimpl)(space["function"])


LOGPROBS = np.zeros(1, np.float32)
WRONG_LOSS: Any = ForwardBackwardResult("1.0", [])  # type: ignore[arg-type]
NO_OUTPUTS: Any = ForwardBackwardResult(1.0, None)  # type: ignore[arg-type]
WRONG_METRICS: Any = OptimStepResult(1.0, {"a": object()})  # type: ignore[dict-item]
WRONG_TOKENS: Any = Completion("a", [1], None, "stop")  # type: ignore[arg-type]
WRONG_REASON: Any = Completion("a", None, None, "bored")  # type: ignore[arg-type]
WRONG_ENTRY: Any = MetricEntry("r", "loss", 1.0, None, "yesterday")  # type: ignore[arg-type]

IN_A_RUN = [
    Hostile("training_client", "start_session", "returns-none", returns(None), "not None"),
    Hostile("training_client", "start_session", "exits", raises(SystemExit(0)), "SystemExit: 0"),
    Hostile("training_client", "get_tokenizer", "exits", raises(SystemExit(0)), "SystemExit: 0"),
    Hostile("training_client", "forward_backward", "returns-none", returns(None), "not None"),
    Hostile("training_client", "forward_backward", "recurses", recurse, "RecursionError"),
    Hostile("training_client", "optim_step", "cancels", raises(asyncio.CancelledError()), "Cance"),
    Hostile("training_client", "await_", "returns-none", returns(None), "not None"),
    Hostile("training_client", "await_", "returns-list", returns([]), "not a list"),
    Hostile("training_client", "await_", "wrong-loss", returns(WRONG_LOSS), ".loss is a str"),
    Hostile("training_client", "await_", "no-outputs", returns(NO_OUTPUTS), ".outputs is None"),
    Hostile("training_client", "await_", "wrong-metrics", returns(WRONG_METRICS), "['a']"),
    Hostile("training_client", "await_", "coroutine", coroutine, "not a coroutine"),
    Hostile("training_client", "await_", "exits-in-a-thread", in_a_thread, "SystemExit: 0"),
    Hostile("training_client", "await_", "thief", returns(Thief()), "not a Thief"),
    Hostile("training_client", "forward", "generator-exit", raises(GeneratorExit()), "Generator"),
    Hostile("training_client", "save_checkpoint_async", "none", returns(None), "not None"),
    Hostile("training_client", "save_checkpoint_async", "mute", raises(Mute()), "Mute"),
    Hostile("training_client", "save_weights_for_sampler", "bytes", returns(b"a"), "not a bytes"),
    Hostile("training_client", "get_info", "list", returns([("a", 1)]), "not a list"),
    Hostile("training_client", "get_info", "value", returns({"a": object()}), "['a'] is an object"),
    Hostile("training_client", "check_storage", "true", returns(True), "not a bool"),
    Hostile("dataset_store", "load_dataset", "returns-none", returns(None), "not None"),
    Hostile("dataset_store", "load_dataset", "own", raises(OfALibrary("cut")), "OfALibrary: cut"),
    Hostile("dataset_store", "to_list", "generator", yields({}), "not a generator"),
    Hostile("dataset_store", "to_list", "texts", returns([{}, "a"]), "[1] is a str"),
    Hostile("dataset_store", "to_list", "keys", returns([{1: 2}]), "[0].keys() is an int"),
    Hostile("dataset_store", "to_list", "broken", returns(Broken([{}])), "SystemExit: 0"),
    Hostile("blob_store", "read", "text", returns("{}"), "not a str"),
    Hostile("blob_store", "read", "memory", raises(MemoryError()), "MemoryError"),
    Hostile("blob_store", "write", "count", returns(7), "not an int"),
    Hostile("blob_store", "write", "own-mute", raises(MuteAdapterError()), "MuteAdapterError"),
    Hostile("blob_store", "write", "escapes", raises(OSError("\x1b[2Jgone")), r"\x1b[2Jgone"),
    Hostile("metrics_store", "record_many", "list", returns([1]), "not a list"),
    Hostile("metrics_store", "flush", "text", returns("done"), "not a str"),
    Hostile("metrics_store", "flush", "stop", raises(StopIteration()), "StopIteration"),
    Hostile("completer", "complete_batch", "none", returns(None), "not None"),
    Hostile("completer", "complete_batch", "too-few", returns([]), "results, not 0"),
    Hostile("completer", "complete_batch", "exits", raises(SystemExit(0)), "SystemExit: 0"),
]
"""Callbacks that a run calls."""

ELSEWHERE = [
    Hostile("training_client", "load_checkpoint", "text", returns("a"), "not a str"),
    Hostile("training_client", "list_checkpoints", "text", returns("abc"), "not a str"),
    Hostile("training_client", "ping", "pong", returns("pong"), "not a str"),
    Hostile("dataset_store", "select", "returns-none", returns(None), "not None"),
    Hostile("dataset_store", "stream", "returns-none", returns(None), "not None"),
    Hostile("dataset_store", "stream", "rows", yields({"a": 1}), "must yield"),
    Hostile("blob_store", "exists", "returns-none", returns(None), "not None"),
    Hostile("blob_store", "stream", "bytes", returns(b"abc"), "not a bytes"),
    Hostile("blob_store", "stream", "texts", yields(b"1", "2"), "must yield bytes, not a str"),
    Hostile("blob_store", "stream", "exits", yields(b"1", then=SystemExit(0)), "SystemExit: 0"),
    Hostile("blob_store", "list", "set", returns({"a"}), "not a set"),
    Hostile("blob_store", "read_range", "array", returns(bytearray(b"a")), "not a bytearray"),
    Hostile("hub_client", "download", "text", returns("/tmp/a"), "not a str"),
    Hostile("hub_client", "snapshot", "returns-none", returns(None), "not None"),
    Hostile("hub_client", "list_files", "number", returns(["a", 1]), "[1] is an int"),
    Hostile("hub_client", "upload", "mute", raises(Mute()), "Mute"),
    Hostile("metrics_store", "read", "entry", returns([WRONG_ENTRY]), "[0].timestamp is a str"),
    Hostile("metrics_store", "read", "iterator", returns(iter([])), "not a list_iterator"),
    Hostile("metrics_store", "runs", "numbers", returns([1]), "[0] is an int"),
    Hostile("completer", "complete", "text", returns("answer"), "not a str"),
    Hostile("completer", "complete", "tokens", returns(WRONG_TOKENS), ".tokens is a list"),
    Hostile("completer", "complete", "reason", returns(WRONG_REASON), ".finish_reason is another"),
    Hostile("completer", "stream_complete", "texts", yields("a"), "must yield CompletionChunk"),
    Hostile(
        "completer",
        "stream_complete",
        "own",
        yields(CompletionChunk("a"), then=OfALibrary()),
        "OfALibrary",
    ),
    Hostile("completer", "score", "one", returns([LOGPROBS]), "must return 2 results, not 1"),
    Hostile("completer", "score", "dtype", returns([np.zeros(1)] * 2), "[0] is a float64 array"),
]
"""Callbacks that it does not call."""

ADAPTERS = [*IN_A_RUN, *ELSEWHERE]

_SAID = ("exits-in-a-thread", "recurses", "mute", "own-mute", "escapes")
_FIRST = {one.callback: one for one in reversed(IN_A_RUN)}.values()
IN_A_COMMAND = [one for one in IN_A_RUN if one in _FIRST or one.how in _SAID]
"""One of each callback, and those whose error is hard to print."""


def _attribute(one: Hostile) -> str:
    return re.sub(r"\W", "_", str(one))


def __getattr__(name: str) -> Any:  # what the entry points name
    for one in ADAPTERS:
        if _attribute(one) == name:
            return one.adapter
    raise AttributeError(name)


def install(site: Path) -> None:
    """Write the metadata of a package of these adapters."""
    folder = site / f"{PACKAGE}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n")
    points = [f"{one} = {__name__}:{_attribute(one)}" for one in ADAPTERS]
    (folder / "entry_points.txt").write_text("\n".join(["[crucible.adapters]", *points, ""]))
