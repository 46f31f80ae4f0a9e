"""Streams: iterators that a caller may leave early without leaking what is behind them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NoReturn, TypeVar

T = TypeVar("T")


class Stream(Generic[T], Iterator[T]):
    """What `BlobStore.stream`, `DatasetStore.stream` and `Completer.stream_complete` return.

    Iterate, call `close()`, or use `with`. Closing also closes the adapter's own iterator, even
    one that was never advanced: a generator wrapped around another would not do that, since a
    generator that never started runs none of its `finally` blocks.

    A call that returns a stream ends only with its last item, so the dispatch hands over what it
    does at the end of any other call: checking the result, translating errors, ending the span.

    Args:
        source: the adapter's iterable.
        translate: turns an exception of the source into the one that the caller sees.
        ended: called once when the stream is over, with the error that ended it, if any: ends the
            span of the call.
        seen: called with each item: records it on the span.
        check: called with each item; raises if the contract does not allow it.
    """

    def __init__(
        self,
        source: Iterable[T],
        translate: Callable[[BaseException], Exception],
        ended: Callable[[Exception | None], None] | None = None,
        seen: Callable[[T], None] | None = None,
        check: Callable[[T], None] | None = None,
    ) -> None:
        self._source = source
        self._translate = translate
        self._ended = ended
        self._seen = seen
        self._check = check
        self._open = True
        try:
            self._iterator = iter(source)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._open = False
            _raise(translate(error), error)

    def __next__(self) -> T:
        if not self._open:
            raise StopIteration
        try:
            item = next(self._iterator)
            if self._check is not None:
                self._check(item)
        except StopIteration:
            self.close()
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            translated = self._translate(error)
            self._finish(translated)
            _raise(translated, error)
        if self._seen is not None:
            self._seen(item)
        return item

    def close(self) -> None:
        """Release what the stream holds. Closing twice is fine."""
        self._finish(None)

    def __del__(self) -> None:
        """Close a stream that was left early and never closed."""
        if getattr(self, "_open", False):
            with contextlib.suppress(Exception):
                self.close()

    def _finish(self, error: Exception | None) -> None:
        if not self._open:
            return
        self._open = False
        try:
            for part in (self._iterator, self._source):
                close = getattr(part, "close", None)
                if callable(close):
                    close()
        except KeyboardInterrupt:
            raise
        except BaseException as failure:
            if error is None:
                error = self._translate(failure)
                _raise(error, failure)
        finally:
            if self._ended is not None:
                self._ended(error)

    def __enter__(self) -> Stream[T]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _raise(translated: Exception, error: BaseException) -> NoReturn:
    if translated is error:
        raise translated  # with the cause that it has
    raise translated from translated.__cause__ or error  # secrets are masked in it
