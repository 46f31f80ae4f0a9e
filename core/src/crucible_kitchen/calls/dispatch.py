"""The way of a call to an adapter.

Each port method in `ports.py` calls through its spec in `hookspecs.py`, so that a type checker
holds the two together. From there a call goes to the adapter's callback, or, where a composing
adapter left it out, through its `around` to `inner`:

    _run                the adapter's callback, or _pass_on
      _pass_on          its `around`, or straight on to `inner`
      _observed         within a span, if there are observers
        _finish         call, check the result, translate the error

On the way out every exception but Ctrl-C becomes an `AdapterError` that says where it happened, a
value that is not of the annotated type is such an error as well, and a stream becomes a `Stream`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar, cast

import numpy as np
import pluggy

from ..errors import AdapterError, Unsupported
from ..events import Observers, Span
from ..events.calls import CallSpans, Reporter
from ..masking import Secrets
from ..options.adapter_options import AdapterOptions
from .contract import Contract
from .streams import Stream
from .translation import Translation

T = TypeVar("T")
P = ParamSpec("P")


class Call:
    """A call that an adapter wraps: the argument of its `around`. `call()` passes it on to `inner`.

    Attributes:
        name: the callback's name.
        arguments: the arguments by name, without `opts`.
    """

    # Not a frozen dataclass: those take longer to make than the rest of a wrapper's work.
    __slots__ = ("_inner", "_outer", "_port", "_span", "arguments", "name")

    def __init__(
        self,
        port: Dispatch,
        inner: Dispatch,
        name: str,
        arguments: Mapping[str, Any],
        outer: Call | None,
    ) -> None:
        self._port = port
        self._inner = inner
        self._outer = outer
        self._span: Span | None = None
        self.name = name
        self.arguments = arguments

    def __repr__(self) -> str:
        return f"<Call {self.port}.{self._port.adapter}.{self.name}>"  # arguments may be large

    @property
    def port(self) -> str:
        """The port's name."""
        return self._port.name

    @property
    def repeatable(self) -> bool:
        """Whether the contract allows the call to be repeated, whatever its first attempt did."""
        return self._port.traits(self.name).repeatable(self.arguments)

    def repeatable_after(self, error: AdapterError) -> bool:
        """Say whether the contract allows the call to be repeated after it failed like this.

        True for repeatable calls, and for calls that the adapter reports as having had no effect,
        unless an argument can be read only once: an iterator, or an open file, since the first
        attempt may have read part of it.
        """
        if self.repeatable:
            return True
        # A NamedTemporaryFile can be read, and is not an Iterator.
        once = any(isinstance(v, Iterator) or hasattr(v, "read") for v in self.arguments.values())
        return error.no_effect and not once

    def __call__(self) -> Any:
        return self._inner._run(self.name, self.arguments, self)

    def on(self, other: Dispatch, **arguments: Any) -> Any:
        """Run the same call on another adapter of the same port.

        Args:
            other: that adapter, or `inner` once more.
            arguments: replace the call's arguments of these names.

        Raises:
            TypeError: the callback has no argument of such a name.
        """
        if unknown := arguments.keys() - self.arguments.keys():
            raise TypeError(
                f"{self.name} takes no {', '.join(map(repr, sorted(unknown)))}; "
                f"it takes {', '.join(self.arguments)}"
            )
        return other._run(self.name, {**self.arguments, **arguments}, self)

    @property
    def depth(self) -> int:
        """How many other wrappers the call came through."""
        return 0 if self._outer is None else self._outer.depth + 1


class Dispatch(Contract):
    """The way of calls to one bound adapter. `binding.py` checks an adapter before it makes one.

    Args:
        adapter: the module or object.
        opts: its validated options.
        label: the adapter's name in messages.
        hooks: pluggy's callers, one for each callback of the port.
        implemented: for each implemented callback, the arguments that it leaves out, with the
            defaults at which leaving them out changes nothing.
        inner: the adapter that serves what this one does not implement; of several, the first.
        observers: notified of each call.
        secrets: those that no message may show.
    """

    reporter: ClassVar[Reporter | None] = None
    """What observers learn of its calls, besides which adapter was called."""

    def __init__(
        self,
        adapter: Any,
        opts: AdapterOptions,
        label: str,
        *,
        hooks: pluggy.HookRelay,
        implemented: Mapping[str, Mapping[str, Any]],
        inner: Self | None,
        observers: Observers,
        secrets: Secrets,
    ) -> None:
        self._adapter = adapter
        self._opts = opts
        self._label = label
        self._hooks = hooks
        self._implemented = implemented
        self._inner = inner
        # That very list, not a copy: asking it is all that a call costs without observers.
        self._listening = observers.listening
        self._spans = CallSpans(observers, self.name, label, opts, self.reporter)
        self._errors = Translation(self.name, label, secrets)
        self._traits = {name: self.traits(name) for name in self.callbacks()}
        offered = set(implemented) - {"around"}  # not callable from outside
        self._supported: frozenset[str] = frozenset(
            offered | inner._supported if inner else offered
        )

    def __repr__(self) -> str:
        inner = f" around {self._inner!r}" if self._inner else ""
        return f"<{self.name} {self._label}{inner}>"

    @property
    def adapter(self) -> str:
        """The name of the bound adapter."""
        return self._label

    @property
    def options(self) -> AdapterOptions:
        """The options that the adapter was bound with."""
        return self._opts

    @property
    def inner(self) -> Self | None:
        """The adapter that this one wraps, if it wraps one; of several, the first."""
        return self._inner

    def supports(self, callback: str) -> bool:
        """Say whether a callback can be called, here or in the adapters that this one wraps."""
        return callback in self._supported

    def implements(self, callback: str) -> bool:
        """Say whether the adapter implements a callback itself, whatever `inner` could serve."""
        return callback in self._implemented

    def _call(
        self, spec: Callable[Concatenate[Any, Any, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run the callback that `spec` declares, its arguments by keyword."""
        return cast(T, self._run(spec.__name__, kwargs))

    def _stream(
        self,
        spec: Callable[Concatenate[Any, Any, P], Iterable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Stream[T]:
        """Run a callback that returns a stream."""
        return cast("Stream[T]", self._run(spec.__name__, kwargs))

    def _run(self, callback: str, arguments: Mapping[str, Any], outer: Call | None = None) -> Any:
        """Run a callback, here or in `inner`.

        Args:
            callback: its name.
            arguments: its arguments by name, without `opts`.
            outer: the call of the wrapper that passes this one on.
        """
        left_out = self._implemented.get(callback)
        if left_out is None:
            return self._pass_on(callback, arguments, outer)
        for name, default in left_out.items():
            if not _is_default(arguments[name], default):
                raise self._errors.explain(Unsupported(f"takes no {name!r}"), callback)
        invoke = functools.partial(getattr(self._hooks, callback), opts=self._opts, **arguments)
        if not self._listening:
            return self._finish(callback, arguments, invoke)
        span = self._spans.call(callback, arguments, None if outer is None else outer._span)
        return self._observed(span, callback, arguments, invoke)

    def _pass_on(self, callback: str, arguments: Mapping[str, Any], outer: Call | None) -> Any:
        inner = self._inner
        if inner is None or callback not in self._supported:
            raise self._errors.explain(Unsupported(f"does not implement {callback}"), callback)
        if "around" not in self._implemented:
            return inner._run(callback, arguments, outer)
        call = Call(self, inner, callback, arguments, outer)
        invoke = functools.partial(self._hooks.around, opts=self._opts, call=call)
        if not self._listening:
            return self._finish(callback, arguments, invoke)
        call._span = span = self._spans.around(
            callback, call.depth, None if outer is None else outer._span
        )
        return self._observed(span, callback, arguments, invoke)

    def _observed(
        self, span: Span, callback: str, arguments: Mapping[str, Any], invoke: Callable[[], Any]
    ) -> Any:
        with span.current():
            result = self._finish(callback, arguments, invoke, span)
        if not isinstance(result, Stream):  # a stream's span ends with it
            self._spans.end(span, callback, result)
        return result

    def _finish(
        self,
        callback: str,
        arguments: Mapping[str, Any],
        invoke: Callable[[], Any],
        span: Span | None = None,
    ) -> Any:
        traits = self._traits[callback]
        try:
            result = invoke()
            if traits.errors and isinstance(result, list):  # where it was served: wrappers see them
                result = [self._errors.item(item, callback) for item in result]
            traits.result(result)
            if traits.count is not None and len(result) != (count := traits.count(arguments)):
                raise AdapterError(f"must return {count} results, not {len(result)}")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, or one of a library's own
            self._errors.fail(error, callback)
        if traits.stream:
            translate = functools.partial(self._errors.translate, callback=callback)
            if span is None:
                return Stream(result, translate, check=traits.item)
            observe = self._spans.item_observer(span)
            return Stream(result, translate, span.end, observe, traits.item)
        return result


def _is_default(value: Any, default: Any) -> bool:
    """Say whether a value is its default. An array never is: its `==` has no single truth value."""
    if value is default:
        return True
    equal = value == default
    return isinstance(equal, bool | np.bool_) and bool(equal)
