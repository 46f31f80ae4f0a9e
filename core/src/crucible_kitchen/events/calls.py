"""The spans of adapter calls: one for the adapter that serves a call, one for each wrapper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .spans import Observers, Span


class Reporter(Protocol):
    """What the spans of one port's calls say besides which adapter was called.

    A module of these three functions. They return numbers and names, never data. Arguments and
    results may be anything: a reporter sees the former before the adapter does.
    """

    def request_attributes(
        self, opts: Any, callback: str, arguments: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return what the span of a call says from its beginning."""
        ...

    def result_attributes(self, callback: str, result: Any) -> Mapping[str, Any]:
        """Return what the span says once the call returned."""
        ...

    def item_observer(self, span: Span) -> Callable[[Any], None]:
        """Return a function that records each stream item on the span."""
        ...


class CallSpans:
    """The spans of the calls of one bound adapter.

    Args:
        observers: receive the events.
        port: the port's name.
        adapter: the adapter's name.
        opts: the adapter's options.
        reporter: adds attributes; None adds none.
    """

    __slots__ = ("_observers", "_opts", "_reporter", "_who")

    def __init__(
        self, observers: Observers, port: str, adapter: str, opts: Any, reporter: Reporter | None
    ) -> None:
        self._observers = observers
        self._who: dict[str, Any] = {"port": port, "adapter": adapter}
        self._opts = opts
        self._reporter = reporter

    def call(self, callback: str, arguments: Mapping[str, Any], outer: Span | None) -> Span:
        """Begin the span of a call that the adapter serves.

        Args:
            callback: the callback's name.
            arguments: its arguments by name.
            outer: the span of the wrapper that passed the call on, perhaps in another thread; None
                is the current span.
        """
        about = {**self._who, "callback": callback}
        if (reporter := self._reporter) is not None:
            about |= _or_nothing(reporter.request_attributes, self._opts, callback, arguments)
        parent = self._observers.current() if outer is None else outer.number
        return Span(self._observers, "adapter.call", about, parent)

    def around(self, callback: str, depth: int, outer: Span | None) -> Span:
        """Begin the span of a call that the adapter wraps, inside `depth` other wrappers."""
        about = {**self._who, "callback": callback, "depth": depth}
        parent = self._observers.current() if outer is None else outer.number
        return Span(self._observers, "adapter.around", about, parent)

    def item_observer(self, span: Span) -> Callable[[Any], None] | None:
        """Return a function that records each stream item on the span, or None."""
        return None if self._reporter is None else self._reporter.item_observer(span)

    def end(self, span: Span, callback: str, result: Any) -> None:
        """End the span of a call that returned."""
        if self._reporter is None:
            span.end()
        else:
            span.end(**_or_nothing(self._reporter.result_attributes, callback, result))


def _or_nothing(report: Callable[..., Mapping[str, Any]], *about: Any) -> Mapping[str, Any]:
    """Return what a reporter returns; nothing where a value is not what the contract says."""
    try:
        return report(*about)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return {}
