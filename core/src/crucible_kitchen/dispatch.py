"""The way of a call to an adapter: the base class of the six ports.

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar, cast

import numpy as np
import pluggy
from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from .closing import CLOSE_TIMEOUT, LeftOpen, ends_in_time, raise_first
from .contract import Contract
from .errors import AdapterError, Unsupported
from .events import Observers, Span
from .events.calls import CallSpans, Reporter
from .masking import Secrets, visible
from .options import AdapterOptions
from .port_schema import port_schema
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
        self, port: Port, inner: Port, name: str, arguments: Mapping[str, Any], outer: Call | None
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

    def on(self, other: Port, **arguments: Any) -> Any:
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


class Port(Contract):
    """A bound adapter. Use one of the six subclasses in `crucible_kitchen.ports`.

    `binding.py` checks an adapter and makes the port.

    Args:
        adapter: the module or object.
        opts: its validated options.
        label: the adapter's name in messages.
        hooks: pluggy's callers, one for each callback of the port.
        implemented: for each implemented callback, the arguments that it leaves out, with the
            defaults at which leaving them out changes nothing.
        inner: the adapter that serves what this one does not implement; of several, the first.
        children: every adapter that was bound for an option of this one.
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
        inner: Port | None,
        children: tuple[Port, ...],
        observers: Observers,
        secrets: Secrets,
    ) -> None:
        self._adapter = adapter
        self._opts = opts
        self._label = label
        self._hooks = hooks
        self._implemented = implemented
        self._inner = inner
        self._children = children
        # That very list, not a copy: asking it is all that a call costs while nobody observes.
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
    def module(self) -> Any:
        """The bound adapter itself: a module, or an object."""
        return self._adapter

    @property
    def options(self) -> AdapterOptions:
        """The options that the adapter was bound with."""
        return self._opts

    @property
    def inner(self) -> Port | None:
        """The adapter that this one wraps, if it wraps one; of several, the first."""
        return self._inner

    def supports(self, callback: str) -> bool:
        """Say whether a callback can be called, here or in the adapters that this one wraps."""
        return callback in self._supported

    def implements(self, callback: str) -> bool:
        """Say whether the adapter implements a callback itself, whatever `inner` could serve."""
        return callback in self._implemented

    def helper(self, name: str) -> Callable[..., Any]:
        """Return the adapter's helper of this name with its options bound.

        Raises:
            Unsupported: neither the adapter nor one that it wraps has such a helper.
        """
        try:
            function: Any = getattr(self._adapter, name, None)
            offered = callable(function) and getattr(function, "crucible_helper", False)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._errors.fail(error, name)
        if offered:

            @functools.wraps(function)
            def bound(*args: Any, **kwargs: Any) -> Any:
                try:
                    return function(self._opts, *args, **kwargs)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    self._errors.fail(error, name)

            return bound
        if self._inner is not None:
            return self._inner.helper(name)
        raise self._errors.explain(Unsupported(f"has no helper {name!r}"), name)

    def ping(self) -> None:
        """Return if the adapter's backend can be reached, else raise; see `AdapterSpec.ping`."""
        self._run("ping", {})

    def clean(self, prefix: str = "", keep: Sequence[str] = (), dry_run: bool = False) -> list[str]:
        """Remove what killed processes left behind, here and with every adapter bound for an
        option; see `AdapterSpec.clean`.

        Args:
            prefix: what labels and paths start with where no process works now; empty, anywhere,
                and only what certainly has no writer any more.
            keep: references that are still needed.
            dry_run: remove nothing.

        Returns:
            The names of what was removed, or would be.
        """
        removed: list[str] = []
        if "clean" in self._implemented:
            removed += self._run("clean", {"prefix": prefix, "keep": keep, "dry_run": dry_run})
        for child in self._children:
            removed += child.clean(prefix, keep, dry_run)
        return removed

    def close(self) -> None:
        """Close the adapter, then every adapter that was bound for its options.

        Raises:
            AdapterError: one of them failed; the others are closed all the same.
            AdapterTimeout: one of them took longer than `CLOSE_TIMEOUT`, 30 s, and was left open.
        """
        raise_first(self.close_within(CLOSE_TIMEOUT))

    def close_within(self, timeout: float) -> list[BaseException]:
        """Do as `close`, and return what failed instead of raising it.

        Args:
            timeout: seconds that each adapter is given.

        Returns:
            `AdapterError`s, `LeftOpen` for each adapter that took too long, KeyboardInterrupt.
        """
        failures: list[BaseException] = []
        if "close" in self._implemented:
            try:
                if not ends_in_time(functools.partial(self._run, "close", {}), timeout):
                    late = LeftOpen(f"did not end within {timeout:g} s, so it was left as it is")
                    failures.append(self._errors.explain(late, "close"))
            except (AdapterError, KeyboardInterrupt) as error:
                failures.append(error)
        for child in self._children:
            failures += child.close_within(timeout)
        return failures

    # --- calls ---

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
        if inner is None or not inner.supports(callback):
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

    # --- options that hold a port ---

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return port_schema(cls, cls.describe)

    def describe(self) -> dict[str, Any]:
        """Return the adapter and its options as plain data, secrets masked."""
        return {"use": self.adapter, **visible(self._opts)}


def _is_default(value: Any, default: Any) -> bool:
    """Say whether a value is its default. An array never is: its `==` has no single truth value."""
    if value is default:
        return True
    equal = value == default
    return isinstance(equal, bool | np.bool_) and bool(equal)
