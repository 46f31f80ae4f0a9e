"""A call that a wrapper passes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

from ..errors import AdapterError
from ..events import Span
from ..hookspecs import CallbackTraits


class Route(Protocol):
    """Runs a callback."""

    def __call__(self, arguments: Mapping[str, Any], outer: Call | None = None, /) -> Any:
        """Run it.

        Args:
            arguments: its arguments by name, without `opts`.
            outer: the call of the wrapper that passes this one on.
        """
        ...


class Bound(Protocol):
    """A bound adapter, as calls see it."""

    name: ClassVar[str]

    @property
    def adapter(self) -> str:
        """The adapter's name."""
        ...

    @classmethod
    def traits(cls, callback: str) -> CallbackTraits:
        """Return what the contract says about a callback."""
        ...

    def _run(self, callback: str, arguments: Mapping[str, Any], outer: Call | None = None) -> Any:
        """Run a callback."""
        ...


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
        port: Bound,
        inner: Route,
        name: str,
        arguments: Mapping[str, Any],
        outer: Call | None,
        span: Span | None,
    ) -> None:
        self._port = port
        self._inner = inner
        self._outer = outer
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
        return self._inner(self.arguments, self)

    def on(self, other: Bound, **arguments: Any) -> Any:
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
