"""An adapter and its options become a port.

Everything that can be wrong with an adapter is found here, when it is bound, and not at the first
call: pluggy accepts most of these mistakes, and they would fail later, or silently.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pluggy

from ..calls.port import Port
from ..calls.route import Implementation
from ..errors import BindError, described
from ..events import Observers
from ..hookspecs import PROJECT, AdapterSpec
from ..masking.secrets import Secrets
from ..messages.spelling import did_you_mean
from ..options.adapter_options import AdapterOptions

PortT = TypeVar("PortT", bound=Port)

# pluggy's HookimplMarker leaves the options of `@hookimpl(...)` in this attribute.
_MARK = f"{PROJECT}_impl"


def label_of(adapter: Any) -> str:
    """Return the name of a module or an object, else that of its class; for messages."""
    try:
        name = adapter.__name__
    except KeyboardInterrupt:
        raise
    except BaseException:
        name = None
    return name if isinstance(name, str) and name else type(adapter).__name__


@contextlib.contextmanager
def _looked_at(label: str) -> Iterator[None]:
    """Turn what an adapter raises during inspection into a mistake of the adapter."""
    try:
        yield
    except (BindError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise BindError(
            f"adapter {label!r} raised {described(error)} when it was looked at"
        ) from error


def options_class(adapter: Any, label: str) -> type[AdapterOptions]:
    """Return the adapter's `Options`, or the empty ones.

    Raises:
        BindError: `Options` is not a class derived from `AdapterOptions`, or has a field `use`.
    """
    with _looked_at(label):
        options = getattr(adapter, "Options", AdapterOptions)
    if not (isinstance(options, type) and issubclass(options, AdapterOptions)):
        raise BindError(
            f"adapter {label!r}: Options must be a class derived from "
            f"crucible_kitchen.AdapterOptions, it is {options!r}"
        )
    if "use" in options.model_fields:
        raise BindError(f"adapter {label!r}: no option can be called 'use'; it names the adapter")
    return options


def bind(
    port: type[PortT],
    adapter: Any,
    opts: AdapterOptions,
    label: str,
    observers: Observers | None = None,
    secrets: Secrets | None = None,
) -> PortT:
    """Join an adapter with its options.

    Args:
        port: one of the six classes of `crucible_kitchen.ports`.
        adapter: a module, or an object.
        opts: its validated options. A field named `inner` that holds a port of the same kind
            serves whatever the adapter does not implement; of a list of them, the first does.
        label: the adapter's name in messages.
        observers: notified of each call.
        secrets: the known ones, which messages must not show; those of the options are added.

    Raises:
        BindError: the adapter breaks the contract; the message lists every way in which it does.
    """
    with _looked_at(label):
        secrets = Secrets() if secrets is None else secrets
        secrets.learn(opts)
        given = getattr(opts, "inner", None)
        if isinstance(given, list | tuple) and given:
            given = given[0]
        inner = given if isinstance(given, port) else None
        found = list(problems(port, adapter, composes=inner is not None))
        if found:
            if isinstance(given, Port) and inner is None:
                found.append(f"its inner is a {given.name}, which cannot serve what it leaves out")
            listed = found[0] if len(found) == 1 else "".join(f"\n  - {p}" for p in found)
            raise BindError(f"{label!r} is not a {port.name} adapter: {listed}")

        manager = pluggy.PluginManager(PROJECT)
        for spec in (port.spec, port.optional, AdapterSpec):
            manager.add_hookspecs(spec)
        manager.register(adapter, name=label)
        return port(
            adapter,
            opts,
            label,
            implemented={
                name: _implementation(port, name, implementation.function, opts)
                for name in marked(adapter)
                for implementation in getattr(manager.hook, name).get_hookimpls()
            },
            inner=inner,
            observers=observers if observers is not None else Observers(),
            secrets=secrets,
        )


def marked(adapter: Any) -> dict[str, Any]:
    """Return everything that the adapter marks with `@hookimpl`, by name."""
    return {
        name: value
        for name in dir(adapter)
        if not name.startswith("__")
        and isinstance(getattr(value := getattr(adapter, name, None), _MARK, None), dict)
    }


def problems(port: type[Port], adapter: Any, *, composes: bool) -> Iterator[str]:
    """Yield every way in which an adapter breaks the contract of its port.

    Args:
        port: the port.
        adapter: a module, or an object.
        composes: whether its option `inner` serves what it does not implement.
    """
    if isinstance(adapter, type):
        yield f"it is the class {adapter.__name__}; give an instance, or a module"
        return
    implementations = marked(adapter)
    for name, function in implementations.items():
        yield from _problems_of(port, name, function)
    for name in port.callbacks():
        if name not in implementations and _forgotten(adapter, name):
            yield f"{name} lacks @hookimpl"
    if not composes:
        for name in sorted(port.mandatory()):
            if name not in implementations and not _forgotten(adapter, name):
                yield f"it does not implement {name}, which every {port.name} must"


def _forgotten(adapter: Any, name: str) -> bool:
    """Say whether the adapter defines an unmarked function with the name of a callback.

    A function that a module imported does not count.
    """
    value = getattr(adapter, name, None)
    if hasattr(value, _MARK):
        return False
    if inspect.isfunction(value):
        return value.__module__ == getattr(adapter, "__name__", None)
    return inspect.ismethod(value)


def _problems_of(port: type[Port], name: str, function: Any) -> Iterator[str]:
    if name not in port.callbacks():
        yield f"{port.name} has no callback {name!r}{_near(name, port.callbacks())}"
        return
    if not inspect.isroutine(function):
        yield f"{name} is marked @hookimpl but is a {type(function).__name__}, not a function"
        return
    if any(getattr(function, _MARK).values()):
        yield f"{name}: @hookimpl takes no options here; a wrapper implements `around` instead"
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        yield f"{name} is async; callbacks are plain functions, called from any thread"
    spec = _parameters(port.callbacks()[name])
    defaults = defaults_of(port, name)
    parameters = inspect.signature(function).parameters
    for parameter in parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            yield f"{name}: {parameter} would swallow arguments; name each one"
        elif parameter.kind is parameter.KEYWORD_ONLY:
            yield f"{name}: {parameter.name!r} is keyword-only, and pluggy would never pass it"
        elif parameter.name not in spec:
            yield f"{name} has no argument {parameter.name!r}{_near(parameter.name, spec)}"
    for argument in spec:
        if argument not in parameters and argument != "opts" and argument not in defaults:
            yield f"{name} leaves out the argument {argument!r}, which has no default"


def _implementation(
    port: type[Port], name: str, function: Callable[..., Any], opts: AdapterOptions
) -> Implementation:
    accepted = list(inspect.signature(function).parameters)
    takes = tuple(argument for argument in accepted if argument != "opts")
    defaults = defaults_of(port, name)
    left_out = {name: default for name, default in defaults.items() if name not in takes}
    return Implementation(_with_options(function, accepted, opts), takes, left_out)


def _with_options(
    function: Callable[..., Any], accepted: Sequence[str], opts: AdapterOptions
) -> Callable[..., Any]:
    """Return a function that takes the other arguments, in their order."""
    if "opts" not in accepted:
        return function
    if (place := accepted.index("opts")) == 0:
        return functools.partial(function, opts)
    return lambda *others: function(*others[:place], opts, *others[place:])


def defaults_of(port: type[Port], callback: str) -> dict[str, Any]:
    """Return the arguments that callers may omit, each with its default.

    They are those of the facade in `ports.py`.
    """
    method = getattr(port, callback, None)
    if method is None:
        return {}
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(method).parameters.values()
        if parameter.default is not parameter.empty
    }


def _parameters(spec: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(spec).parameters if name != "self"]


def _near(name: str, known: Any) -> str:
    return did_you_mean(name, known) or f"; there are {', '.join(known)}"
