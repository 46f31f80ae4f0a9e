"""How a call reaches an adapter: the base class of the six ports.

Each port method in `ports.py` calls through its spec in `hookspecs.py`, so that a type checker
holds the two together. From there a call goes to the adapter's callback, or, where a composing
adapter left it out, through its `around` to `inner`. On the way out every exception but Ctrl-C
becomes an `AdapterError` that says where it happened, whatever is not of the annotated type is one
as well, and every stream becomes a `Stream`.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Concatenate, NoReturn, ParamSpec, TypeVar, cast

import numpy as np
import pluggy
from pydantic import GetCoreSchemaHandler, ValidationInfo
from pydantic_core import PydanticCustomError, core_schema

from .closing import CLOSE_TIMEOUT, ends_in_time
from .errors import AdapterError, AdapterTimeout, CrucibleWarning, Unsupported, told
from .hookspecs import AdapterSpec, CallbackTraits
from .masking import Secrets, clean, visible
from .options import AdapterOptions
from .printable import text_of
from .streams import Stream
from .telemetry import Observers, Span

T = TypeVar("T")
P = ParamSpec("P")


class Call:
    """What an `around` callback is given. `call()` passes the call on to `inner`.

    Attributes:
        name: the callback's name.
        arguments: the arguments by name, without `opts`.
    """

    # Not a frozen dataclass: those take longer to make than the rest of a wrapper's work.
    __slots__ = ("_depth", "_inner", "_port", "_span", "arguments", "name")

    def __init__(
        self,
        port: Port,
        inner: Port,
        name: str,
        arguments: Mapping[str, Any],
        depth: int,
        span: Span | None = None,
    ) -> None:
        self._port = port
        self._inner = inner
        self._depth = depth
        self._span = span
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
        """Whether the contract allows to run the call again, whatever its first run did."""
        return self._port.traits(self.name).repeatable(self.arguments)

    def repeatable_after(self, error: AdapterError) -> bool:
        """Say whether the contract allows to run the call again after it failed like this.

        It does for a repeatable call, and for one of which the adapter says that it changed
        nothing, unless an argument can be read only once: an iterator, or an open file, of which
        nobody knows how much the first run took.
        """
        if self.repeatable:
            return True
        # A NamedTemporaryFile can be read, and is no Iterator.
        once = any(isinstance(v, Iterator) or hasattr(v, "read") for v in self.arguments.values())
        return error.no_effect and not once

    def __call__(self) -> Any:
        return self._inner._run(self.name, self.arguments, self._depth, self._span)

    def on(self, other: Port, **arguments: Any) -> Any:
        """Run the same call on another adapter of the same port.

        Args:
            other: that adapter, or `inner` once more.
            arguments: replace those of the call that have these names.

        Raises:
            TypeError: the callback has no argument of such a name.
        """
        if unknown := arguments.keys() - self.arguments.keys():
            raise TypeError(
                f"{self.name} takes no {', '.join(map(repr, sorted(unknown)))}; "
                f"it takes {', '.join(self.arguments)}"
            )
        return other._run(self.name, {**self.arguments, **arguments}, self._depth, self._span)


@dataclass(frozen=True, slots=True)
class Binding:
    """An adapter joined with its options; `binding.py` makes and checks it.

    Args:
        adapter: the module or object.
        opts: its validated options.
        label: the adapter's name in messages.
        hooks: pluggy's callers, one for each callback of the port.
        implemented: for each implemented callback, the arguments that it leaves out, with the
            defaults at which leaving them out changes nothing.
        inner: the adapter that serves what this one does not implement; of several, the first.
        children: every adapter that was bound for an option of this one.
        observers: told of each call.
        secrets: those that no message may show.
    """

    adapter: Any
    opts: AdapterOptions
    label: str
    hooks: pluggy.HookRelay
    implemented: Mapping[str, Mapping[str, Any]]
    inner: Port | None
    children: tuple[Port, ...]
    observers: Observers
    secrets: Secrets


class Port:
    """A bound adapter. Use one of the six subclasses in `crucible_kitchen.ports`."""

    name: ClassVar[str]
    """The port's name in configuration."""
    spec: ClassVar[type]
    """The class of its mandatory callbacks."""
    optional: ClassVar[type]
    """The class of its optional callbacks."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._hooks = binding.hooks
        self._opts = binding.opts
        self._implemented = binding.implemented
        self._observers = binding.observers
        self._listening = binding.observers.listening
        self._traits = {name: self.traits(name) for name in self.callbacks()}
        offered = set(binding.implemented) - {"around"}  # nobody can call that one
        self._supported: frozenset[str] = frozenset(
            offered | binding.inner._supported if binding.inner else offered
        )

    def __repr__(self) -> str:
        inner = f" around {self._binding.inner!r}" if self._binding.inner else ""
        return f"<{self.name} {self._binding.label}{inner}>"

    @property
    def adapter(self) -> str:
        """The name of the bound adapter."""
        return self._binding.label

    @property
    def module(self) -> Any:
        """The bound adapter itself: a module, or an object."""
        return self._binding.adapter

    @property
    def options(self) -> AdapterOptions:
        """The options that the adapter was bound with."""
        return self._opts

    @property
    def inner(self) -> Port | None:
        """The adapter that this one wraps, if it wraps one; of several, the first."""
        return self._binding.inner

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
            function: Any = getattr(self._binding.adapter, name, None)
            offered = callable(function) and getattr(function, "crucible_helper", False)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._fail(error, name)
        if offered:

            @functools.wraps(function)
            def bound(*args: Any, **kwargs: Any) -> Any:
                try:
                    return function(self._opts, *args, **kwargs)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    self._fail(error, name)

            return bound
        if self._binding.inner is not None:
            return self._binding.inner.helper(name)
        raise self._explain(Unsupported(f"has no helper {name!r}"), name)

    def ping(self) -> None:
        """Return if the adapter's backend can be reached, else raise; see `AdapterSpec.ping`."""
        self._run("ping", {})

    def clean(self, prefix: str = "", keep: Sequence[str] = (), dry_run: bool = False) -> list[str]:
        """Remove what killed processes left behind, here and with every adapter bound for an
        option; see `AdapterSpec.clean`.

        Args:
            prefix: what labels and paths start with where nobody works now; empty, anywhere, and
                only what certainly has no writer any more.
            keep: references that are needed still.
            dry_run: remove nothing.

        Returns:
            The names of what was removed, or would be.
        """
        removed: list[str] = []
        if "clean" in self._implemented:
            removed += self._run("clean", {"prefix": prefix, "keep": keep, "dry_run": dry_run})
        for child in self._binding.children:
            removed += child.clean(prefix, keep, dry_run)
        return removed

    def close(self) -> None:
        """Close the adapter, then every adapter that was bound for its options.

        Raises:
            AdapterError: one of them failed, the others are closed all the same.
            AdapterTimeout: one of them took longer than `CLOSE_TIMEOUT`, 30 s, and was left.
        """
        raise_first(close_all([self], CLOSE_TIMEOUT))

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

    def _run(
        self,
        callback: str,
        arguments: Mapping[str, Any],
        depth: int = 0,
        outer: Span | None = None,
    ) -> Any:
        left_out = self._implemented.get(callback)
        span: Span | None = None
        if left_out is None:
            inner = self._binding.inner
            if inner is None or not inner.supports(callback):
                raise self._explain(Unsupported(f"does not implement {callback}"), callback)
            if "around" not in self._implemented:
                return inner._run(callback, arguments, depth, outer)
            if self._listening:
                span = self._start("adapter.around", callback, outer, {"depth": depth})
            call = Call(self, inner, callback, arguments, depth + 1, span)
            invoke = functools.partial(self._hooks.around, opts=self._opts, call=call)
        else:
            for name, default in left_out.items():
                if not _same(arguments[name], default):
                    raise self._explain(Unsupported(f"takes no {name!r}"), callback)
            if self._listening:
                asked = _unless_it_fails(self._asked, callback, arguments)
                span = self._start("adapter.call", callback, outer, asked)
            invoke = functools.partial(getattr(self._hooks, callback), opts=self._opts, **arguments)
        if span is None:
            return self._finish(callback, arguments, invoke, None)
        return self._observed(span, callback, arguments, invoke)

    def _finish(
        self,
        callback: str,
        arguments: Mapping[str, Any],
        invoke: Callable[[], Any],
        span: Span | None,
    ) -> Any:
        traits = self._traits[callback]
        try:
            result = invoke()
            traits.result(result)
            if traits.count is not None and len(result) != (count := traits.count(arguments)):
                raise AdapterError(f"must return {count} results, not {len(result)}")
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit, or one of a library's own
            self._fail(error, callback)
        if traits.stream:
            translate = functools.partial(self._translate, callback=callback)
            if span is None:
                return Stream(result, translate, check=traits.item)
            return Stream(result, translate, span.end, self._seen(span), traits.item)
        return result

    def _start(
        self, event: str, callback: str, outer: Span | None, more: Mapping[str, Any]
    ) -> Span:
        about = {"port": self.name, "adapter": self.adapter, "callback": callback, **more}
        # The wrapper that passed the call on is known even where it does so in another thread.
        parent = outer.number if outer is not None else self._observers.current()
        return Span(self._observers, event, about, parent)

    def _observed(
        self, span: Span, callback: str, arguments: Mapping[str, Any], invoke: Callable[[], Any]
    ) -> Any:
        with span.current():
            result = self._finish(callback, arguments, invoke, span)
        if not isinstance(result, Stream):  # a stream tells when it ends
            span.end(**_unless_it_fails(self._answered, callback, result))
        return result

    def _asked(self, callback: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what observers are told of the arguments: numbers and names, no data."""
        return {}

    def _answered(self, callback: str, result: Any) -> Mapping[str, Any]:
        """Return what observers are told of the result: numbers and names, no data."""
        return {}

    def _seen(self, span: Span) -> Callable[[Any], None] | None:
        """Return what notes in the span what observers are told of each item of a stream."""
        return None

    def _fail(self, error: BaseException, callback: str) -> NoReturn:
        """Raise what a caller is to see of an error."""
        if (translated := self._translate(error, callback)) is error:
            raise translated  # with the cause that it has
        raise translated from translated.__cause__

    def _translate(self, error: BaseException, callback: str) -> AdapterError:
        """Explain an error, even one that fails when it is looked at; that one is no cause, then,
        since what it holds cannot be masked.
        """
        try:
            if isinstance(error, AdapterError):  # perhaps of a class that does not fill it in
                error.reason = text_of(error.reason) or type(error).__name__
            explained = self._explain(error, callback)
            str(explained)
            return explained
        except KeyboardInterrupt:
            raise
        except BaseException:
            return self._explain(AdapterError(told(error)), callback)

    def _explain(self, error: BaseException, callback: str) -> AdapterError:
        """Say where an error happened; make it an `AdapterError` if it is none."""
        if not isinstance(error, AdapterError):
            foreign, error = error, AdapterError(told(error))
            error.__cause__ = foreign
        if error.port is None:
            clean(error, self._binding.secrets)
            error.port, error.adapter, error.callback = self.name, self.adapter, callback
            error.args = (error.reason,)
        return error

    @classmethod
    def traits(cls, callback: str) -> CallbackTraits:
        """Return what the contract says about a callback beside its signature."""
        return cls.callbacks()[callback].crucible_traits  # type: ignore[attr-defined, no-any-return]

    @classmethod
    @functools.cache
    def callbacks(cls) -> Mapping[str, Callable[..., Any]]:
        """Return the spec of every callback of the port by name, the mandatory ones first."""
        return {
            name: function
            for spec in (cls.spec, cls.optional, AdapterSpec)
            for name, function in vars(spec).items()
            if hasattr(function, "crucible_traits")
        }

    @classmethod
    def mandatory(cls) -> frozenset[str]:
        """Return the names of the callbacks that an adapter must implement."""
        return frozenset(n for n, f in vars(cls.spec).items() if hasattr(f, "crucible_traits"))

    # --- options that hold a port ---

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        def build(value: Any, info: ValidationInfo) -> Port:
            if isinstance(value, cls):
                return value
            bind = (info.context or {}).get("bind")
            if bind is None:
                raise PydanticCustomError(
                    "no_kitchen",
                    "an adapter is bound by a Kitchen; here, pass a port that is bound already",
                )
            return cast(Port, bind(cls, value))

        return core_schema.with_info_plain_validator_function(
            build,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda port: port.describe()
            ),
        )

    def describe(self) -> dict[str, Any]:
        """Return the adapter and its options as plain data, secrets masked."""
        return {"use": self.adapter, **visible(self._opts)}


class LeftOpen(AdapterTimeout):
    """An adapter did not close in time, so it was left as it is."""


def close_all(ports: Iterable[Port], timeout: float) -> list[BaseException]:
    """Close every port, whatever happens while closing another.

    Args:
        ports: the ports, in this order; those bound for the options of one come after it.
        timeout: seconds that each is given.

    Returns:
        What failed: `AdapterError`s, `LeftOpen` for each that took too long, KeyboardInterrupt.
    """
    failures: list[BaseException] = []
    for port in ports:
        if "close" in port._implemented:
            try:
                if not ends_in_time(functools.partial(port._run, "close", {}), timeout):
                    late = LeftOpen(f"did not end within {timeout:g} s, so it was left as it is")
                    failures.append(port._explain(late, "close"))
            except (AdapterError, KeyboardInterrupt) as error:
                failures.append(error)
        failures += close_all(port._binding.children, timeout)
    return failures


def raise_first(failures: Sequence[BaseException]) -> None:
    """Raise the first failure, or Ctrl-C if it came; warn of the others."""
    if not failures:
        return
    first = next((f for f in failures if isinstance(f, KeyboardInterrupt)), failures[0])
    for failure in failures:
        if failure is not first:
            warn_of(failure)
    raise first


def warn_of(failure: BaseException) -> None:
    """Tell of a failure that is not raised, since another one is."""
    with contextlib.suppress(CrucibleWarning):  # where warnings are errors, that other one counts
        warnings.warn(told(failure).partition(": ")[2], CrucibleWarning, stacklevel=3)


def _unless_it_fails(tell: Callable[..., Mapping[str, Any]], *about: Any) -> Mapping[str, Any]:
    """Return what observers are told; nothing where a value is not what the contract says."""
    try:
        return tell(*about)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return {}


def _same(value: Any, default: Any) -> bool:
    """Say whether a value is its default. An array never is: its `==` has no single truth value."""
    if value is default:
        return True
    equal = value == default
    return isinstance(equal, bool | np.bool_) and bool(equal)
