"""Spans, and the observers of one kitchen.

They are written out here, and not built on `opentelemetry-api`, because every adapter call passes
through: a span with one observer costs 2 us, one of OpenTelemetry 50 us.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Self, TypeVar

from ..errors import described
from ..masking.data import shown
from ..messages.printable import printable, repr_of
from .event import Event, Observer, Tracer, sealed
from .kinds import TypedEvent, WorkflowRun

T = TypeVar("T")

_numbers = itertools.count(1)

# For the whole process, since a call of one kitchen may happen within a call of another. A thread
# that was started without a copy of the context is in none; see Observers.run.
_current: ContextVar[int | None] = ContextVar("crucible_span", default=None)


class Span:
    """Something that takes time. `Observers.start` begins it.

        with observers.start("training.eval", step=3) as span:
            span.set(metrics=evaluate())

    Or, where its parts do not follow each other, as with steps that are submitted ahead:

        span = observers.start("training.step", step=3)
        with span.current():
            submit()
        ...
        with span.current():
            wait()
        span.end(metrics=metrics)
    """

    __slots__ = ("_attributes", "_began", "_block", "_name", "_observers", "number", "parent")

    number: int
    parent: int | None

    def __init__(
        self, observers: Observers, name: str, attributes: Mapping[str, Any], parent: int | None
    ) -> None:
        self.number = next(_numbers)
        self.parent = parent
        self._observers: Observers | None = observers
        self._name = name
        self._attributes = attributes
        if observers._tracers:
            observers._begin(Event(name, dict(attributes), span=self.number, parent=parent))
        self._began = time.perf_counter()

    def set(self, event: TypedEvent | None = None, /, **attributes: Any) -> None:
        """Add attributes, which the event at the end will have: those of a typed event, or any."""
        known = {} if event is None else event.attributes()
        self._attributes = {**self._attributes, **known, **attributes}

    def current(self) -> contextlib.AbstractContextManager[None]:
        """Make it the parent of what happens in the block. An exception that leaves it ends it."""
        return _Current(self)

    def around(self, call: Callable[..., T], *arguments: Any) -> T:
        """Return what a call returns, made within `current`; as a block, it would take longer."""
        token = _current.set(self.number)
        observers = self._observers
        leave = observers._enter(self.number) if observers and observers._tracers else None
        try:
            result = call(*arguments)
        except BaseException as error:
            if leave is not None:
                leave()
            _current.reset(token)
            self.end(error)
            raise
        if leave is not None:
            leave()
        _current.reset(token)
        return result

    def end(self, error: BaseException | None = None, /, **attributes: Any) -> None:
        """Emit the event of its end, by an error or not. Ending it again emits nothing."""
        seconds = time.perf_counter() - self._began
        observers, self._observers = self._observers, None
        if observers is None:
            return
        ended_by = None if error is None else type(error).__name__
        whole = {**self._attributes, **attributes, "duration_s": seconds, "error": ended_by}
        observers._notify(sealed(self._name, whole, time.time(), self.number, self.parent))

    def __enter__(self) -> Self:
        self._block = _Current(self)
        self._block.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._block.__exit__(kind, error, traceback)
        self.end(error)


class _Current:
    """A block whose parent is a span. A class, since a generator would cost each call twice."""

    __slots__ = ("_leave", "_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        span = self._span
        self._token = _current.set(span.number)
        observers = span._observers
        self._leave = observers._enter(span.number) if observers and observers._tracers else None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._leave is not None:
            self._leave()
        _current.reset(self._token)
        if error is not None:
            self._span.end(error)


class _Unobserved(Span):
    """The no-op span that `Observers.start` returns when there are no observers."""

    __slots__ = ()

    def __init__(self) -> None:
        self.number, self.parent = 0, None

    def set(self, event: TypedEvent | None = None, /, **attributes: Any) -> None: ...

    def current(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def end(self, error: BaseException | None = None, /, **attributes: Any) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...


UNOBSERVED = _Unobserved()


class Observers:
    """The observers of one kitchen. False while there are none, so that not observing costs
    no more than a truth test.

    Args:
        mask: returns a text without the known secrets; None knows none.
    """

    def __init__(self, mask: Callable[[str], str] | None = None) -> None:
        self._mask = mask
        self.listening: list[Observer] = []
        """Active observers. A public list, because a method call per adapter call is too slow."""
        self._tracers: list[Tracer] = []
        self.failed: list[str] = []
        """The names of those that have raised, in the order of their first failures."""
        self._failing: list[Any] = []
        self._runs: list[int] = []

    def __bool__(self) -> bool:
        return bool(self.listening)

    def add(self, observer: Observer) -> Callable[[], None]:
        """Notify `observer` of every event from now on; return a function that stops it.

        An observer with the methods of a `Tracer` is also notified where spans begin.
        """
        tracer: Any = observer if hasattr(observer, "begin") else None
        self.listening.append(observer)
        if tracer:
            self._tracers.append(tracer)

        def stop() -> None:
            if observer in self.listening:
                self.listening.remove(observer)
            if tracer in self._tracers:
                self._tracers.remove(tracer)

        return stop

    def emit(self, event: str | TypedEvent, /, **attributes: Any) -> None:
        """Notify every observer. One that fails is reported once and never stops training.

        Args:
            event: a typed event, or a name.
            attributes: its attributes, besides those of a typed event.
        """
        if self.listening:
            name, whole = _named(event, attributes)
            self._notify(Event(name, whole, parent=self.current()))

    def start(self, event: str | TypedEvent, /, **attributes: Any) -> Span:
        """Begin a span within the current one. The arguments are those of `emit`."""
        if not self.listening:
            return UNOBSERVED
        return Span(self, *_named(event, attributes), self.current())

    @contextlib.contextmanager
    def run(self, workflow: str) -> Iterator[None]:
        """Put a span around a workflow's whole run.

        It is also the parent of what happens in threads that were started without a copy of the
        context.
        """
        span = self.start(WorkflowRun(workflow=workflow))
        if span is UNOBSERVED:
            yield
            return
        self._runs.append(span.number)
        try:
            with span:
                yield
        finally:
            self._runs.remove(span.number)

    def current(self) -> int | None:
        """Return the number of the span that this thread is in, else that of the last run."""
        number = _current.get()
        if number is None and (runs := self._runs[-1:]):
            return runs[0]
        return number

    # --- notifying, so that nothing an observer does can harm the caller ---

    def _notify(self, event: Event) -> None:
        event = self._without_secrets(event)
        interrupted = None
        for observer in tuple(self.listening):
            try:
                observer(event)
            except KeyboardInterrupt as error:  # the others must not miss what happened
                interrupted = error
            except BaseException as error:
                self._note(observer, event.name, error)
        if interrupted is not None:
            raise interrupted

    def _begin(self, event: Event) -> None:
        event = self._without_secrets(event)
        for tracer in tuple(self._tracers):
            self.guarded(tracer, event.name, tracer.begin, event)

    def _enter(self, span: int) -> Callable[[], None]:
        left = [(t, self.guarded(t, "enter", t.enter, span)) for t in tuple(self._tracers)]

        def leave() -> None:
            for tracer, function in reversed(left):
                if function is not None:
                    self.guarded(tracer, "leave", function)

        return leave

    def _without_secrets(self, event: Event) -> Event:
        about = event.attributes
        # That of an adapter call holds names alone, except for a model, which may be a URL.
        if event.name.startswith("adapter."):
            for value in about.values():  # a loop, since `any` of a generator takes twice as long
                if isinstance(value, str) and "://" in value:
                    break
            else:
                return event
        seen = shown(about, known=self._mask)
        if "run_id" in about:  # by which a run is found again
            seen["run_id"] = about["run_id"]
        name = self._mask(event.name) if self._mask else event.name
        return dataclasses.replace(event, name=name, attributes=seen)

    def guarded(self, observer: Any, at: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call an observer's function; log its first exception and swallow the rest.

        Ctrl-C is passed on.
        """
        try:
            return call(*arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # not even sys.exit() in an observer ends training
            self._note(observer, at, error)
            return None

    def _note(self, observer: Any, at: str, error: BaseException) -> None:
        """Report the first failure of an observer."""
        if not any(one is observer for one in self._failing):
            self._failing.append(observer)
            self.failed.append(repr_of(observer))
            self._report(f"observer {self.failed[-1]} failed at {at} ({described(error)})")

    def _report(self, failure: str) -> None:
        text = f"crucible: {failure}; further failures stay silent"
        with contextlib.suppress(Exception):  # standard error may be closed
            print(printable(self._mask(text) if self._mask else text), file=sys.stderr)


def _named(event: str | TypedEvent, attributes: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return an event's name and all its attributes."""
    if isinstance(event, str):
        return event, attributes
    return event.name, {**event.attributes(), **attributes}
