"""`crucible adapters`: what is installed, what an adapter offers, which adapter serves a port."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Annotated, Any, get_type_hints

import typer
from pydantic_core import PydanticUndefined

from ..adapters.binding import marked, options_class
from ..adapters.discovery import Installed, catalog
from ..adapters.known_packages import packages_of
from ..calls.port import Port
from ..errors import AdapterNotFound, ConfigurationError
from ..masking import is_secret, masked
from ..messages.printable import text_of
from ..messages.spelling import did_you_mean
from ..options.adapter_options import AdapterOptions
from ..options.environment import variables
from ..ports import PORTS
from . import stack
from .arguments import ARGUMENTS, PROFILE, opened, read
from .console import Text, console, note, say, table

app = typer.Typer(help="List the installed adapters, or show one.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def adapters(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        list_()


@app.command("list")
def list_() -> None:
    """List the installed adapters, without importing any."""
    found = catalog()
    if not found.entries:
        known = dict.fromkeys(name for port in PORTS for name in packages_of(port).values())
        note(f"no adapter is installed; pip install one of {', '.join(known)}")
    else:
        rows = [(e.port, e.name, e.package, e.version) for e in found.entries]
        table(("port", "name", "package", "version"), rows)
    if many := len(found.problems):
        note(f"{many} package(s) have malformed metadata; `crucible doctor` says which")


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(help="<port>.<name>, <name> for all of its ports, or <port>."),
    ],
    arguments: Annotated[list[str] | None, ARGUMENTS] = None,
    profile: Annotated[str | None, PROFILE] = None,
) -> None:
    """Show what an adapter is, its options and its callbacks.

    For a port, show what is configured: the adapter and those inside it as a tree, with the options
    of each and where they were set. Secrets are masked. Only a port takes a FILE and settings.
    """
    if name in PORTS:
        settings = read(arguments or [], profile)
        with opened(settings) as kitchen:
            stack.show(settings, kitchen.port(PORTS[name]))
        return
    if given := [*(arguments or []), *([profile] if profile else [])]:
        raise ConfigurationError(
            f"only a port takes {given[0]!r}, as in `crucible adapters show blob_store "
            f"{given[0]}`; {name!r} is not one of {', '.join(PORTS)}"
        )
    shown: list[tuple[str | None, list[str]]] = []
    alike: list[str] = []
    for entry in _matching(name):
        adapter = entry.load()
        about = (_doc(adapter), [*options_class(adapter, entry.name).model_fields])
        if about in shown and "around" in _callbacks_of(adapter):  # it handles every callback alike
            alike.append(f"{entry.port}.{entry.name}")
            continue
        if shown:
            say()
        shown.append(about)
        _show(entry, adapter)
    if alike:
        say(f"\nThe same wrapper for other ports: {', '.join(alike)}")


def _matching(name: str) -> list[Installed]:
    found = catalog()
    port, _, rest = name.partition(".")
    if rest in PORTS and port not in PORTS:  # the wrong way round
        raise AdapterNotFound(f"an adapter is <port>.<name>; did you mean {f'{rest}.{port}'!r}?")
    if port in PORTS and rest:
        return [found.find(port, rest)]
    package, slash, short = name.rpartition("/")
    matching = [e for e in found.entries if e.name == short and (not slash or e.package == package)]
    if not matching:
        known = {n for e in found.entries for n in (e.name, f"{e.port}.{e.name}")} | {*PORTS}
        hint = did_you_mean(name, sorted(known)) or "; `crucible adapters` lists what is"
        raise AdapterNotFound(f"no adapter named {name!r} is installed{hint}")
    return matching


def _show(entry: Installed, adapter: Any) -> None:
    port = PORTS[entry.port]
    options = options_class(adapter, entry.name)
    out = console()
    out.print(Text(f"{entry.port}.{entry.name}", style="bold"))
    out.print(Text(f"{entry.package} {entry.version}, {entry.entry_point.value}"))
    for paragraph in _doc(adapter).split("\n\n"):
        out.print(Text(f"\n{_in_one_line(paragraph)}"))
    say()
    if options.model_fields:
        table(("option", "type", "default", "meaning"), _options(options))
    else:
        say("no options")
    say()
    composes = "inner" in options.model_fields
    table(("callback", "offered", "what it does"), _callbacks(port, adapter, composes))


def _options(options: type[AdapterOptions]) -> list[tuple[str, str, str, str]]:
    return [
        (name, _type_name(field.annotation), _default(field), _in_one_line(field.description))
        for name, field in options.model_fields.items()
    ]


def _type_name(annotation: Any) -> str:
    bare = _tried(get_type_hints, SimpleNamespace(__annotations__={"": annotation}))
    annotation = bare[""] if bare else annotation  # without the metadata of Annotated
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return annotation.__name__
    name = re.sub(r"\b[a-z_.]+\.(?=[A-Za-z])", "", text_of(annotation))
    return re.sub(r"^Optional\[(.*)\]$", r"\1 | None", name)


def _default(field: Any) -> str:
    names = [f"${name}" for name in variables(field)]
    if field.default_factory is not None:
        takes_options = field.default_factory_takes_validated_data
        default = "computed" if takes_options else _made(field.default_factory)
    elif field.default is PydanticUndefined:
        default = "required"
    elif isinstance(field.default, str):
        default = f'"{masked(field.default, whole=True)}"'
    else:
        default = "" if field.default is None else text_of(field.default)
    if is_secret(field.annotation) and default not in ("", "required"):
        default = "(secret)"
    return ", else ".join([*names, *([default] if default else [])])


def _callbacks(port: type[Port], adapter: Any, composes: bool) -> list[tuple[str, str, str]]:
    implemented = _callbacks_of(adapter)
    rows = []
    for name, spec in port.callbacks().items():
        offered = "yes" if name in implemented else "no"
        if offered == "no" and composes and name not in ("around", "close"):
            offered = "yes" if name in port.mandatory() else "if inner"
        rows.append((name, offered, _summary(spec)))
    rows += [
        (name, "helper", _summary(value))
        for name, value in _members(adapter)
        if _tried(getattr, value, "crucible_helper") is True
    ]
    return rows


def _summary(function: Any) -> str:
    return _in_one_line(_doc(function).split("\n\n")[0])


# An adapter may be any object, whose attributes are code that may raise anything.


def _callbacks_of(adapter: Any) -> dict[str, Any]:
    return _tried(marked, adapter) or {}


def _members(adapter: Any) -> Iterator[tuple[str, Any]]:
    for name in _tried(dir, adapter) or ():
        yield name, _tried(getattr, adapter, name)


def _doc(thing: Any) -> str:
    found = _tried(inspect.getdoc, thing)
    return text_of(found) if isinstance(found, str) else ""


def _made(factory: Callable[[], Any]) -> str:
    made = _tried(lambda: repr(factory()))
    return text_of(made) if made else "computed"


def _tried(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of the call; None if it raises."""
    try:
        return call(*arguments)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return None


def _in_one_line(text: str | None) -> str:
    """Replace the line breaks of a source file by spaces; the screen has its own."""
    return " ".join((text or "").split())
