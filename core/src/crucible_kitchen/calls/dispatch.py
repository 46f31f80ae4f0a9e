"""The way of a call to an adapter.

Each port method in `ports.py` calls through its spec in `hookspecs.py`, so that a type checker
holds the two together. From there a call takes the route of its callback: to the adapter's own
function, or, where a composing adapter left it out, through its `around` to `inner`.

On the way out every exception but Ctrl-C becomes an `AdapterError` that says where it happened, a
value that is not of the annotated type is such an error as well, and a stream becomes a `Stream`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar

from ..events import Observers
from ..events.calls import CallSpans, Reporter
from ..masking.secrets import Secrets
from ..options.adapter_options import AdapterOptions
from .call import Call, Route
from .contract import Contract
from .route import Implementation, route, unsupported
from .streams import Stream
from .translation import Translation

T = TypeVar("T")
P = ParamSpec("P")


class Dispatch(Contract):
    """The way of calls to one bound adapter. `binding.py` checks an adapter before it makes one.

    Args:
        adapter: the module or object.
        opts: its validated options.
        label: the adapter's name in messages.
        implemented: the adapter's own functions by the names of their callbacks.
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
        implemented: Mapping[str, Implementation],
        inner: Self | None,
        observers: Observers,
        secrets: Secrets,
    ) -> None:
        self._adapter = adapter
        self._opts = opts
        self._label = label
        self._implemented = implemented
        self._inner = inner
        self._secrets = secrets
        self._errors = Translation(self.name, label, secrets)
        offered = set(implemented) - {"around"}  # not callable from outside
        self._supported: frozenset[str] = frozenset(
            offered | inner._supported if inner else offered
        )
        self._routes = {name: self._route(name, observers) for name in self.callbacks()}

    def _route(self, callback: str, observers: Observers) -> Route:
        own, inner = self._implemented.get(callback), self._inner
        onward = None
        if own is None:
            if inner is None or callback not in self._supported:
                return unsupported(callback, self._errors)
            onward = inner._routes[callback]
            own = self._implemented.get("around")
            if own is None:
                return onward
        traits = self.traits(callback)
        spans = CallSpans(
            observers,
            {"port": self.name, "adapter": self._label, "callback": callback},
            serves=onward is None,
            streams=traits.stream,
            opts=self._opts,
            reporter=self.reporter,
        )
        return route(self, callback, own, onward, traits, spans, self._errors)

    def __repr__(self) -> str:
        inner = f" around {self._inner!r}" if self._inner else ""
        return f"<{self.name} {self._label}{inner}>"

    @property
    def adapter(self) -> str:
        """The name of the bound adapter."""
        return self._label

    def hint_by(self, hint: Callable[[str], str]) -> None:
        """Add a note to errors of the adapter: what `hint` returns for a message, unless ""."""
        self._errors.hint = hint

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
        result: T = self._routes[spec.__name__](kwargs)
        return result

    def _stream(
        self,
        spec: Callable[Concatenate[Any, Any, P], Iterable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Stream[T]:
        """Run a callback that returns a stream."""
        result: Stream[T] = self._routes[spec.__name__](kwargs)
        return result

    def _run(self, callback: str, arguments: Mapping[str, Any], outer: Call | None = None) -> Any:
        """Run a callback, here or in `inner`.

        Args:
            callback: its name.
            arguments: its arguments by name, without `opts`.
            outer: the call of the wrapper that passes this one on.
        """
        return self._routes[callback](arguments, outer)
