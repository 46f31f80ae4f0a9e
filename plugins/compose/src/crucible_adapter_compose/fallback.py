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
from pydantic import Field

from .batches import ask_again, places
from .wrapper import PortT, Wrapper

AWAY = (Unavailable, AdapterTimeout, RateLimited)
"""The errors that say nothing about the call, only that this backend does not serve it now."""

ASKS: Mapping[str, frozenset[str]] = {
    "dataset_store": frozenset({"load_dataset"}),
    "blob_store": frozenset({"read", "stream", "exists", "list", "read_range"}),
    "hub_client": frozenset({"download", "snapshot", "list_files"}),
    "completer": frozenset({"complete", "complete_batch", "stream_complete", "score"}),
}
"""The callbacks of each port that change nothing, so that any adapter may answer them."""


class FallbackOptions(AdapterOptions, Generic[PortT]):
    inner: list[PortT] = Field(min_length=1)
    """The adapters, in the order in which they are asked."""


class Fallback(Wrapper):
    """Ask the next adapter where one cannot be reached.

    That is where it is `Unavailable`, does not answer in time, or limits the rate; whatever else it
    answers, "not found" too, is the answer. But that another store has no such blob is none while
    the first is away: who believed it would begin a run anew that has checkpoints. What changes
    something (`write`, `delete`, `upload`) goes to the first adapter alone, for the others would
    keep what it does not know of: `tee` writes to several. A data set stays with the adapter that
    loaded it. Of a batch of completions only those that failed are asked for elsewhere. What the
    whole supports is what the first does.
    """

    @hookimpl
    def around(self, opts: FallbackOptions[Any], call: Call) -> Any:
        handle = call.arguments.get("handle")
        if isinstance(handle, Elsewhere) and handle.fallback is opts:
            return handle.run(opts, call)
        if call.name not in ASKS[call.port] and call.name != "ping":
            return call()
        asked = _Asked(call, opts.inner)
        result = asked.next()
        if isinstance(result, Stream):
            return FallbackStream(asked, result)
        if call.name == "complete_batch":
            return asked.for_failed_items(result)
        if call.port == "dataset_store" and call.name != "ping" and asked.index > 0:
            return Elsewhere(opts, asked.index, result)
        return result


class _Asked:
    """The adapters that were asked so far, for one call.

    Args:
        call: the call.
        adapters: all of them, in order.
    """

    def __init__(self, call: Call, adapters: Sequence[Any]) -> None:
        self._call = call
        self._adapters = adapters
        self._failures: list[str] = []
        self._last: AdapterError | None = None
        self.index = -1

    def next(self, error: AdapterError | None = None) -> Any:
        """Ask the next adapter, and those behind it while none can be reached.

        Args:
            error: what the one that was asked last failed with after all.
        """
        while True:
            if error is not None:
                self._failures.append(f"{self._adapters[self.index].adapter}: {error.reason}")
                self._last = error
            if not self._step():
                raise self._nobody()
            call = self._call
            try:
                result = call.on(self._adapters[self.index])
                if call.name == "exists" and not result and self.index > 0:
                    raise NotFound("does not exist there")
                return result
            except AdapterError as failure:
                if not self.says_nothing(failure):
                    raise
                error = failure

    def says_nothing(self, error: AdapterError) -> bool:
        """Say whether what was asked last is no answer, so that the next adapter is asked."""
        absent = isinstance(error, NotFound) and self._call.port == "blob_store"
        return _is_away(error) or (absent and self.index > 0)

    def for_failed_items(self, results: list[Any]) -> list[Any]:
        """Return the results of a batch, with those that failed asked for elsewhere."""
        while (failed := places(results, _is_away)) and self._step():
            results = ask_again(self._call, self._adapters[self.index], results, failed)
        return results

    def _step(self) -> bool:
        """Go to the next adapter that has the callback. The first is asked whether or not."""
        for index in range(self.index + 1, len(self._adapters)):
            if index == 0 or self._adapters[index].supports(self._call.name):
                self.index = index
                return True
        return False

    def _nobody(self) -> AdapterError:
        assert self._last is not None
        if len(self._failures) == 1:
            return self._last
        error = Unavailable(f"none could answer: {'; '.join(self._failures)}")
        error.__cause__ = self._last
        return error


def _is_away(error: AdapterError) -> bool:
    return isinstance(error, AWAY)


class FallbackStream(Iterator[Any]):
    """A stream that another adapter begins anew if it fails before its first item.

    Later the error passes on: nobody knows whether another adapter's items are the same.

    Args:
        asked: who has been asked.
        stream: what the last of them returned.
    """

    def __init__(self, asked: _Asked, stream: Stream[Any]) -> None:
        self._asked = asked
        self._stream = stream
        self._begun = False

    def __next__(self) -> Any:
        while True:
            try:
                item = next(self._stream)
            except AdapterError as error:
                if self._begun or not self._asked.says_nothing(error):
                    raise
                self._stream = self._asked.next(error)
            else:
                self._begun = True
                return item

    def close(self) -> None:
        """Free what the stream holds."""
        self._stream.close()


@dataclass(frozen=True, slots=True, eq=False)
class Elsewhere:
    """A data set that another adapter than the first loaded. It goes back to that one.

    Those of the first are its own handles, so that its helpers take them.

    Args:
        fallback: the options of the wrapper that asked, since another may be inside it.
        index: which adapter.
        handle: what it calls the data set.
    """

    fallback: FallbackOptions[Any]
    index: int
    handle: Any

    def run(self, opts: FallbackOptions[Any], call: Call) -> Any:
        """Run a call on this data set where it is."""
        result = call.on(opts.inner[self.index], handle=self.handle)
        if call.name in ("to_list", "stream"):
            return result
        return Elsewhere(opts, self.index, result)


dataset_store = Fallback("fallback", FallbackOptions[DatasetStore])
blob_store = Fallback("fallback", FallbackOptions[BlobStore])
hub_client = Fallback("fallback", FallbackOptions[HubClient])
completer = Fallback("fallback", FallbackOptions[Completer])
