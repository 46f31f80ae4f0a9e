"""Observers: callables that are told of every adapter call and workflow event.

| event | attributes |
| --- | --- |
| `adapter.call` | port, adapter, callback: by the adapter that served it |
| `adapter.around` | the same and depth: by each wrapper that the call went through |
| `workflow.run` | workflow: around everything that a workflow does |
| `workflow.start`, `workflow.stop`, `workflow.exception` | workflow, run_id, ... |
| `workflow.waiting` | run_id, holder, seconds: another process may work on the run |
| `workflow.interrupted` | workflow, run_id, step: it saves after that step, and ends |
| `workflow.finishing` | workflow, run_id: the record is about to say that it is done |
| `workflow.restart` | workflow, run_id, step, restart, callback, error |
| `dataset.load` | dataset, split, rows |
| `dataset.render` | purpose, dataset, split, and counts of rows and sequences |
| `training.step`, `training.eval` | run_id, step, total, metrics |
| `training.checkpoint` | run_id, step |
| `training.epoch` | run_id, epoch |

What takes time is a span: its event comes at its end and has `duration_s`, in seconds, and `error`,
the type of the error that ended it, or None. Spans nest: each event names the span within which it
happened, its parent.

An `adapter.call` of a completer has more: model, max_tokens, temperature, top_p, top_k, seed, n and
stream of the request; prompts (how many) and prompt_kind (`messages` or `tokens`); and of the
answer prompt_tokens, completion_tokens, finish_reasons (how many of each) and, of a batch, failed;
of a stream, what was read of it.

Events hold numbers, names and error types, never a row of data and never a secret.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

from .errors import told
from .masking import shown
from .printable import printable, repr_of


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Args:
        name: what, from the table above.
        attributes: the particulars.
        time: when, in seconds since the epoch; of a span, when it ended.
        span: the number of the span that ended, unique in this process; None for a mere event.
        parent: the number of the span within which it happened, if it happened within one.
    """

    name: str
    attributes: Mapping[str, Any]
    time: float = field(default_factory=time.time)
    span: int | None = None
    parent: int | None = None


Observer: TypeAlias = Callable[[Event], None]


class Tracer(Protocol):
    """An observer that is also told where spans begin. Only tracers need that."""

    def __call__(self, event: Event) -> None: ...

    def begin(self, event: Event) -> None:
        """Take note that the span `event.span` begins; what is known of it by then."""
        ...

    def enter(self, span: int) -> Callable[[], None]:
        """Take note that this thread now works within the span; return what takes it back."""
        ...


_numbers = itertools.count(1)

# Of the whole process, since a call of one kitchen may happen within a call of another. A thread
# that was started without a copy of the context is in none; see Observers.run.
_current: ContextVar[int | None] = ContextVar("crucible_span", default=None)


class Span:
    """Something that takes time. `Observers.start` begins it.

        with observers.start("training.eval", step=3) as span:
            span.set(metrics=evaluate())

    Or, where its parts do not follow each other, as of steps that are submitted ahead:

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
        self, observers: Observers, name: str, attributes: dict[str, Any], parent: int | None
    ) -> None:
        self.number = next(_numbers)
        self.parent = parent
        self._observers: Observers | None = observers
        self._name = name
        self._attributes = attributes
        if observers._tracers:
            observers._begin(Event(name, dict(attributes), span=self.number, parent=parent))
        self._began = time.perf_counter()

    def set(self, **attributes: Any) -> None:
        """Add to what is told at the end."""
        self._attributes.update(attributes)

    def current(self) -> contextlib.AbstractContextManager[None]:
        """Make it the parent of what happens in the block. An exception that leaves it ends it."""
        return _Current(self)

    def end(self, error: BaseException | None = None, /, **attributes: Any) -> None:
        """Tell that it is over, by an error or not. Once: ending it again says nothing."""
        seconds = time.perf_counter() - self._began
        observers, self._observers = self._observers, None
        if observers is None:
            return
        how = {"duration_s": seconds, "error": type(error).__name__ if error else None}
        told = {**self._attributes, **attributes, **how}
        observers._tell(Event(self._name, told, span=self.number, parent=self.parent))

    def __enter__(self) -> Self:
        self._block = _Current(self)
        self._block.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._leave is not None:
            self._leave()
        _current.reset(self._token)
        if error is not None:
            self._span.end(error)


class _Unobserved(Span):
    """What `Observers.start` returns where nobody observes: does nothing, for any number."""

    __slots__ = ()

    def __init__(self) -> None:
        self.number, self.parent = 0, None

    def set(self, **attributes: Any) -> None: ...

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
        mask: returns a text without the secrets that are known; None knows of none.
    """

    def __init__(self, mask: Callable[[str], str] | None = None) -> None:
        self._mask = mask
        self.listening: list[Observer] = []
        """Those that are told, for callers to whom even a method that says so would cost."""
        self._tracers: list[Tracer] = []
        self.failed: list[str] = []
        """The names of those that have raised, in the order in which they first did."""
        self._failing: list[Any] = []
        self._runs: list[int] = []

    def __bool__(self) -> bool:
        return bool(self.listening)

    def add(self, observer: Observer) -> Callable[[], None]:
        """Tell `observer` of everything from now on; return a function that stops it.

        One that has the methods of a `Tracer` is told of beginnings, too.
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

    def emit(self, name: str, /, **attributes: Any) -> None:
        """Tell every observer. One that fails is reported once and never stops training."""
        if self.listening:
            self._tell(Event(name, attributes, parent=self.current()))

    def start(self, name: str, /, **attributes: Any) -> Span:
        """Begin a span within the current one."""
        if not self.listening:
            return UNOBSERVED
        return Span(self, name, attributes, self.current())

    @contextlib.contextmanager
    def run(self, workflow: str) -> Iterator[None]:
        """Tell of a workflow's whole run.

        What happens in threads that took no context along is within it, too.
        """
        span = self.start("workflow.run", workflow=workflow)
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

    # --- telling, where nothing that an observer does may harm ---

    def _tell(self, event: Event) -> None:
        event = self._without_secrets(event)
        for observer in tuple(self.listening):
            self.guarded(observer, event.name, observer, event)

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
        # That of each call holds names alone, but for a model that may be an address.
        if event.name.startswith("adapter.") and not any(
            isinstance(value, str) and "://" in value for value in about.values()
        ):
            return event
        seen = shown(about, known=self._mask)
        if "run_id" in about:  # by which a run is found again
            seen["run_id"] = about["run_id"]
        name = self._mask(event.name) if self._mask else event.name
        return dataclasses.replace(event, name=name, attributes=seen)

    def guarded(self, observer: Any, at: str, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call something of an observer; report what it raises, once. Ctrl-C is passed on."""
        try:
            return call(*arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() in an observer ends no training, either
            if not any(one is observer for one in self._failing):
                self._failing.append(observer)
                self.failed.append(repr_of(observer))
                self._report(f"observer {self.failed[-1]} failed at {at} ({told(error)})")
            return None

    def _report(self, failure: str) -> None:
        text = f"crucible: {failure}; further failures stay silent"
        with contextlib.suppress(Exception):  # where nobody reads what is said, either
            print(printable(self._mask(text) if self._mask else text), file=sys.stderr)
