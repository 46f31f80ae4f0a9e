"""Ask the next adapter where one cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from crucible_kitchen import (
    AdapterError,
    AdapterOptions,
    AdapterTimeout,
    BlobStore,
    Call,
    Completer,
    DatasetStore,
    HubClient,
    NotFound,
    RateLimited,
    Stream,
    Unavailable,
    hookimpl,
)
from pydantic import Field, field_validator

from .batches import ask_again, places
from .recordings import check_apart
from .wrapper import PortT, Wrapper

UNREACHABLE = (Unavailable, AdapterTimeout, RateLimited)
"""Errors that do not answer the call: they only say that this backend does not serve it now."""

READ_CALLBACKS: Mapping[str, frozenset[str]] = {
    "dataset_store": frozenset({"load_dataset"}),
    "blob_store": frozenset({"read", "stream", "exists", "list", "read_range"}),
    "hub_client": frozenset({"download", "snapshot", "list_files"}),
    "completer": frozenset({"complete", "complete_batch", "stream_complete", "score"}),
}
"""The callbacks of each port that change nothing, so that any adapter may answer them."""


class FallbackOptions(AdapterOptions, Generic[PortT]):
    inner: list[PortT] = Field(min_length=1)
    """The adapters, in the order in which they are asked."""

    @field_validator("inner")
    @classmethod
    def _recorded_apart(cls, inner: list[PortT]) -> list[PortT]:
        check_apart(inner)
        return inner


class Fallback(Wrapper):
    """Ask the next adapter where one cannot be reached.

    A call is in one of three states; `FallbackCall` holds them.

        asking the first --- unreachable ---> asking another --- unreachable, ---> none left:
              |                                     |          or no such blob     Unavailable
              | anything else                       | anything else
              v                                     v
            answer                                answer

    "Unreachable" is `Unavailable`, `AdapterTimeout` and `RateLimited`. Anything else the first
    adapter answers, including `NotFound`, is the answer. That another store does not have a blob
    is not an answer while the first cannot be reached: a caller that believed it would start a run
    again that has checkpoints.

    Callbacks that change something (`write`, `delete`, `upload`) go to the first adapter alone,
    because the others would keep what it does not know of; `tee` writes to several. A data set
    stays with the adapter that loaded it (`ForeignDataset`). Of a batch of completions only those
    that failed are asked for elsewhere. The whole supports what the first adapter supports.
    """

    @hookimpl
    def around(self, opts: FallbackOptions[Any], call: Call) -> Any:
        handle = call.arguments.get("handle")
        if isinstance(handle, ForeignDataset) and handle.fallback is opts:
            return handle.run(opts, call)
        if call.name not in READ_CALLBACKS[call.port] and call.name != "ping":
            return call()
        fallback_call = FallbackCall(call, opts.inner)
        result = fallback_call.ask_next()
        if isinstance(result, Stream):
            return FallbackStream(fallback_call, result)
        if call.name == "complete_batch":
            return fallback_call.ask_for_failed_items(result)
        if call.port == "dataset_store" and call.name != "ping" and fallback_call.index > 0:
            return ForeignDataset(opts, fallback_call.index, result)
        return result


class FallbackCall:
    """One call, and the adapters that have been asked for it so far.

    Args:
        call: the call.
        adapters: all adapters, in order.
    """

    def __init__(self, call: Call, adapters: Sequence[Any]) -> None:
        self._call = call
        self._adapters = adapters
        self._failures: list[str] = []
        self._last: AdapterError | None = None
        self.index = -1

    def ask_next(self, error: AdapterError | None = None) -> Any:
        """Ask the next adapter, and the ones after it until one can be reached.

        Args:
            error: what the adapter that was asked last failed with, after it returned a stream.
        """
        while True:
            if error is not None:
                self._failures.append(f"{self._adapters[self.index].adapter}: {error.reason}")
                self._last = error
            if not self._step():
                raise self._none_left()
            call = self._call
            try:
                result = call.on(self._adapters[self.index])
                if call.name == "exists" and not result and self.index > 0:
                    raise NotFound("does not exist there")
                return result
            except AdapterError as failure:
                if self.is_answer(failure):
                    raise
                error = failure

    def is_answer(self, error: AdapterError) -> bool:
        """Say whether an error of the current adapter answers the call; if not, ask the next."""
        absent = isinstance(error, NotFound) and self._call.port == "blob_store"
        return not (_is_unreachable(error) or (absent and self.index > 0))

    def ask_for_failed_items(self, results: list[Any]) -> list[Any]:
        """Return the results of a batch, with those that failed asked for elsewhere."""
        while (failed := places(results, _is_unreachable)) and self._step():
            results = ask_again(self._call, self._adapters[self.index], results, failed)
        return results

    def _step(self) -> bool:
        """Go to the next adapter that has the callback. The first is asked in any case."""
        for index in range(self.index + 1, len(self._adapters)):
            if index == 0 or self._adapters[index].supports(self._call.name):
                self.index = index
                return True
        return False

    def _none_left(self) -> AdapterError:
        assert self._last is not None
        if len(self._failures) == 1:
            return self._last
        error = Unavailable(f"none could answer: {'; '.join(self._failures)}")
        error.__cause__ = self._last
        return error


def _is_unreachable(error: AdapterError) -> bool:
    return isinstance(error, UNREACHABLE)


class FallbackStream(Iterator[Any]):
    """A stream that another adapter starts again if it fails before its first item.

    Later the error is raised: another adapter's items may differ.

    Args:
        fallback_call: the call, and who has been asked.
        stream: what the last adapter returned.
    """

    def __init__(self, fallback_call: FallbackCall, stream: Stream[Any]) -> None:
        self._fallback_call = fallback_call
        self._stream = stream
        self._started = False

    def __next__(self) -> Any:
        while True:
            try:
                item = next(self._stream)
            except AdapterError as error:
                if self._started or self._fallback_call.is_answer(error):
                    raise
                self._stream = self._fallback_call.ask_next(error)
            else:
                self._started = True
                return item

    def close(self) -> None:
        """Free what the stream holds."""
        self._stream.close()


@dataclass(frozen=True, slots=True, eq=False)
class ForeignDataset:
    """A data set that an adapter other than the first loaded. Its calls go to that adapter.

    Data sets of the first adapter are its own handles, so that its helpers accept them.

    Args:
        fallback: the options of the wrapper that made this: one fallback may be inside another.
        index: the adapter's place in `inner`.
        handle: the adapter's own handle.
    """

    fallback: FallbackOptions[Any]
    index: int
    handle: Any

    def run(self, opts: FallbackOptions[Any], call: Call) -> Any:
        """Run a call on this data set, in the adapter that loaded it."""
        result = call.on(opts.inner[self.index], handle=self.handle)
        if call.name in ("to_list", "stream"):
            return result
        return ForeignDataset(opts, self.index, result)


dataset_store = Fallback("fallback", FallbackOptions[DatasetStore])
blob_store = Fallback("fallback", FallbackOptions[BlobStore])
hub_client = Fallback("fallback", FallbackOptions[HubClient])
completer = Fallback("fallback", FallbackOptions[Completer])
