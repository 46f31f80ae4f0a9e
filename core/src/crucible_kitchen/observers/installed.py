"""Observers of other packages: found under the entry-point group `crucible.observers`.

An entry point is a class, or a function, of one argument that is annotated with the class of its
options, derived from `ObserverOptions`, or of none. It returns the observer: a callable of an
`Event`, from any thread, and perhaps with a `close()`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from ..adapters import finding
from ..adapters.discovery import OBSERVERS
from ..errors import AdapterLoadError, AdapterNotFound, ConfigurationError, CrucibleError, described
from ..events import Observer
from ..options.frozen import Frozen
from ..settings import Key, miswritten

Configure: TypeAlias = Callable[[Any, Mapping[str, Any], Key], Any]
"""Validates a table of the settings; see `Kitchen.configure`."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """An installed observer that is switched on.

    Args:
        name: its name.
        function: makes it.
        options: its options, if it has any.
    """

    name: str
    function: Callable[..., Any]
    options: Frozen | None

    def make(self) -> Observer:
        """Make the observer.

        Raises:
            ConfigurationError: it cannot be made.
        """
        try:
            made = self.function() if self.options is None else self.function(self.options)
        except (CrucibleError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise ConfigurationError(f"it cannot be started: {described(error)}") from error
        if not callable(made):
            raise ConfigurationError(f"it is not an observer, which is callable, but {made!r}")
        return typing.cast(Observer, made)


def choose(
    name: str, value: Any, at: Key, configure: Configure, built_in: Iterable[str]
) -> Chosen | None:
    """Return the observer that a key of `[observe]` switches on; None if it is switched off.

    Args:
        name: the key: the observer's name, or `module:name` to import.
        value: a table of its options, true for the defaults, or false.
        at: where it is in the settings.
        configure: validates its options.
        built_in: the names of the core's own, for messages.

    Raises:
        ConfigurationError: there is no such observer, or its options are wrong.
    """
    table = _table(value)
    if table is None:
        return None
    try:
        function = finding.find(OBSERVERS, name).value
    except AdapterNotFound as error:
        raise AdapterNotFound(f"{error}; built in: {', '.join(built_in)}") from None
    model = options_class(function, name)
    if model is None:
        if table:
            raise ConfigurationError(f"{name} has no options; write true")
        return Chosen(name, function, None)
    return Chosen(name, function, configure(model, table, at))


def _table(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, Mapping):
        return value
    if why := miswritten(value):
        raise ConfigurationError(f"takes a table of options, or true; it {why}")
    try:
        return {} if TypeAdapter(bool).validate_python(value) else None
    except ValidationError:
        raise ConfigurationError("takes a table of options, or true or false") from None


def options_class(function: Any, name: str) -> type[Frozen] | None:
    """Return the class of an observer's options; None if it has none.

    Raises:
        AdapterLoadError: it is not a function of one argument, annotated with such a class.
    """
    called = f"the observer {name!r}"
    if not callable(function):
        raise AdapterLoadError(f"{called} is not a class or a function, it is {function!r}")
    try:
        parameters = list(inspect.signature(function).parameters)
        source: Any = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
        hints = typing.get_type_hints(source)
    except (TypeError, ValueError, NameError) as error:
        raise AdapterLoadError(f"the arguments of {called} cannot be found out: {error}") from error
    if not parameters:
        return None
    model = hints.get(parameters[0]) if len(parameters) == 1 else None
    if not (isinstance(model, type) and issubclass(model, Frozen)):
        raise AdapterLoadError(
            f"{called} must have one argument at most, annotated with a class derived from "
            "crucible_kitchen.ObserverOptions"
        )
    return model
