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
    """The spans of the calls of one callback of a bound adapter.

    Args:
        observers: receive the events.
        about: the attributes `port`, `adapter` and `callback`.
        serves: whether the adapter serves the callback; else it wraps it.
        streams: whether the callback returns a stream, which ends its span itself.
        opts: the adapter's options.
        reporter: adds attributes to the span of a call that is served; None adds none.
    """

    __slots__ = (
        "_about",
        "_name",
        "_observers",
        "_opts",
        "_reporter",
        "_serves",
        "_streams",
        "listening",
    )

    def __init__(
        self,
        observers: Observers,
        about: Mapping[str, Any],
        *,
        serves: bool,
        streams: bool,
        opts: Any,
        reporter: Reporter | None,
    ) -> None:
        self._observers = observers
        self._about = about
        self._name = "adapter.call" if serves else "adapter.around"
        self._serves = serves
        self._streams = streams
        self._opts = opts
        self._reporter = reporter
        # That very list, not a copy: asking it is all that a call costs without observers.
        self.listening = observers.listening

    def around(self, run: Callable[..., Any], arguments: Mapping[str, Any], outer: Any) -> Any:
        """Run a call within a span, which ends with it; that of a stream ends with the stream.

        Args:
            run: takes the arguments, the outer call and the span.
            arguments: the arguments by name.
            outer: the call of the wrapper that passed this one on, perhaps in another thread,
                within whose span this one is; None is the current span.
        """
        about, reporter = self._about, None
        if not self._serves:
            about = {**about, "depth": 0 if outer is None else outer.depth + 1}
        elif (reporter := self._reporter) is not None:
            request = reporter.request_attributes
            about = {**about, **_or_nothing(request, self._opts, about["callback"], arguments)}
        within = None if outer is None else outer._span
        parent = self._observers.current() if within is None else within.number
        span = Span(self._observers, self._name, about, parent)
        result = span.around(run, arguments, outer, span)
        if self._streams:
            return result
        if reporter is None:
            span.end()
        else:
            span.end(**_or_nothing(reporter.result_attributes, about["callback"], result))
        return result

    def item_observer(self, span: Span) -> Callable[[Any], None] | None:
        """Return a function that records each stream item on the span, or None."""
        return None if self._reporter is None else self._reporter.item_observer(span)


def _or_nothing(report: Callable[..., Mapping[str, Any]], *about: Any) -> Mapping[str, Any]:
    """Return what a reporter returns; nothing where a value is not what the contract says."""
    try:
        return report(*about)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return {}
