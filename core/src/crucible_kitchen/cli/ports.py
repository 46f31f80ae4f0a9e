"""`crucible ports`: the six ports, and the contract of each as an adapter's author needs it."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from ..adapters.binding import defaults_of
from ..calls.port import Port
from ..errors import ConfigurationError
from ..hookspecs import AdapterSpec
from ..messages.spelling import did_you_mean
from ..ports import PORTS
from .console import JSON, say, say_json, table
from .fields import doc_of, in_one_line

MANDATORY, OPTIONAL, GENERAL = "mandatory", "optional", "optional, of every port"

ABOUT = {
    MANDATORY: "Every adapter has these",
    OPTIONAL: "An adapter may leave these out",
    GENERAL: "An adapter of any port may have these",
}
EXPLAINED = """\
Each function is marked @hookimpl. `opts` are the adapter's options. An argument that has a default
may be left out: a caller that passes anything else then gets `Unsupported`. Session, Future and
Dataset are handles, any object of yours but None."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a callback; `default` is None where it has none."""

    name: str
    type: str
    default: str | None = None

    def __str__(self) -> str:
        typed = f"{self.name}: {self.type}" if self.type else self.name
        return typed if self.default is None else f"{typed} = {self.default}"


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback as its contract has it."""

    name: str
    offered: str
    """`mandatory`, `optional`, or `optional, of every port`."""
    stream: bool
    arguments: list[Argument]
    returns: str
    promises: str
    """What it promises and raises: the docstring."""


def ports(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PORT[.CALLBACK]]",
            help="The port whose contract to print, or one of its callbacks, such as "
            "blob_store.read.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """List the ports, or print the contract of one.

    A contract has the callbacks that an adapter implements, with what each promises.
    """
    match names or []:
        case [] | ["list"]:
            _list(as_json)
        case [name] | ["show", name] if name != "show":
            port, callback = _named(name)
            _show(port, callback, as_json)
        case [*others]:
            raise ConfigurationError(
                f"expected one port, got {' '.join(others)!r}; write `crucible ports blob_store`, "
                "or `crucible ports blob_store.read` for one callback"
            )


def _named(name: str) -> tuple[type[Port], str]:
    """Return a port, and the name of its callback, "" if none is named."""
    port, dot, callback = name.partition(".")
    if port not in PORTS:
        hint = did_you_mean(port, PORTS) or f"; there are {', '.join(PORTS)}"
        raise ConfigurationError(f"there is no port {port!r}{hint}")
    known = PORTS[port].callbacks()
    if dot and callback not in known:
        hint = did_you_mean(callback, known) or f"; there are {', '.join(known)}"
        raise ConfigurationError(f"the port {port} has no callback {callback!r}{hint}")
    return PORTS[port], callback


def _show(port: type[Port], callback: str, as_json: bool) -> None:
    callbacks = contract(port)
    if callback:
        [one] = [each for each in callbacks if each.name == callback]
        if as_json:
            say_json(asdict(one))
        else:
            say("\n".join(_alone(port, one, _width())))
    elif as_json:
        say_json({**_about(port, callbacks), "callbacks": [asdict(each) for each in callbacks]})
    else:
        say("\n".join(_page(port, callbacks, _width())))


def contract(port: type[Port]) -> list[Callback]:
    """Return the callbacks of a port, the mandatory ones first."""
    return [_callback(port, name, spec) for name, spec in port.callbacks().items()]


def _callback(port: type[Port], name: str, spec: Callable[..., Any]) -> Callback:
    signature, defaults = inspect.signature(spec), defaults_of(port, name)
    arguments = [
        Argument(
            each.name,
            _plain_type(each.annotation),
            _default(defaults[each.name]) if each.name in defaults else None,
        )
        for each in signature.parameters.values()
        if each.name != "self"
    ]
    offered = GENERAL if name in vars(AdapterSpec) else OPTIONAL
    return Callback(
        name,
        MANDATORY if name in port.mandatory() else offered,
        port.traits(name).stream,
        arguments,
        _plain_type(signature.return_annotation),
        doc_of(spec),
    )


def _plain_type(annotation: Any) -> str:
    """Return a type as an author writes it: type variables stand for the handles."""
    text = annotation if isinstance(annotation, str) else ""
    text = re.sub(r"\bOptsT\b", "", text.replace("builtins.", ""))
    return re.sub(r"\b(Session|Future|Dataset)(Arg|Ret)?T\b", r"\1", text)


def _default(value: Any) -> str:
    # Such as AdamParams(beta1=...): its own defaults are in its documentation.
    plain = value is None or isinstance(value, bool | int | float | str | tuple)
    return repr(value) if plain else f"{type(value).__name__}()"


def _list(as_json: bool) -> None:
    found = {port: contract(port) for port in PORTS.values()}
    if as_json:
        say_json([_about(port, callbacks) for port, callbacks in found.items()])
        return
    names = {port: _names(callbacks) for port, callbacks in found.items()}
    rows = [(p.name, _first(p), str(len(names[p][0])), str(len(names[p][1]))) for p in found]
    table(("port", "what it does", "mandatory", "optional"), rows)


def _about(port: type[Port], callbacks: list[Callback]) -> dict[str, Any]:
    mandatory, optional = _names(callbacks)
    return {
        "port": port.name,
        "description": doc_of(port.spec),
        "mandatory": mandatory,
        "optional": optional,
    }


def _names(callbacks: list[Callback]) -> tuple[list[str], list[str]]:
    mandatory = [each.name for each in callbacks if each.offered == MANDATORY]
    return mandatory, [each.name for each in callbacks if each.name not in mandatory]


def _first(port: type[Port]) -> str:
    return in_one_line(doc_of(port.spec).split("\n\n")[0]).partition(". ")[0].rstrip(".")


def _page(port: type[Port], callbacks: list[Callback], width: int) -> Iterator[str]:
    yield port.name
    yield from _paragraphs(doc_of(port.spec), width, "")
    yield from _paragraphs(EXPLAINED, width, "")
    group = ""
    for each in callbacks:
        if each.offered != group:
            group = each.offered
            yield f"\n--- {group} ---"
            yield f"{ABOUT[group]}."
        yield ""
        yield from _signature(each, width)
        yield from _paragraphs(each.promises, width, "    ")
    yield f"\nTo start from: crucible new adapter NAME --port {port.name}"


def _alone(port: type[Port], callback: Callback, width: int) -> Iterator[str]:
    yield f"{port.name}.{callback.name}, {callback.offered}\n"
    yield from _signature(callback, width)
    yield from _paragraphs(callback.promises, width, "    ")


def _signature(callback: Callback, width: int) -> Iterator[str]:
    """Yield `def`, in one line if it fits, else with an argument on each."""
    arguments = [*map(str, callback.arguments)]
    end = f") -> {callback.returns}"
    line = f"{callback.name}({', '.join(arguments)}{end}"
    if len(line) <= width:
        yield line
        return
    yield f"{callback.name}("
    yield from (f"    {argument}," for argument in arguments)
    yield end


def _paragraphs(text: str, width: int, indent: str) -> Iterator[str]:
    for count, paragraph in enumerate(text.split("\n\n")):
        if count or not indent:
            yield ""
        if paragraph.lstrip("- ").startswith("    "):  # code
            yield textwrap.indent(paragraph, indent)
            continue
        for item in re.split(r"\n(?=- )", paragraph):
            yield textwrap.fill(
                in_one_line(item),
                width,
                initial_indent=indent,
                subsequent_indent=f"{indent}  " if item.startswith("- ") else indent,
                break_long_words=False,
                break_on_hyphens=False,
            )


def _width() -> int:
    """Return the columns of a terminal, up to 100; 80 in a pipe."""
    return min(shutil.get_terminal_size().columns, 100) if sys.stdout.isatty() else 80
