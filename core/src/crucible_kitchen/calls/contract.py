"""The contract of one port, as data: its callbacks, and what is known about each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ..hookspecs import AdapterSpec, CallbackTraits


class Contract:
    """The callbacks of a port, read from its classes in `hookspecs.py`."""

    name: ClassVar[str]
    """The port's name in configuration."""
    spec: ClassVar[type]
    """The class of its mandatory callbacks."""
    optional: ClassVar[type]
    """The class of its optional callbacks."""

    @classmethod
    def traits(cls, callback: str) -> CallbackTraits:
        """Return what the contract says about a callback besides its signature."""
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
