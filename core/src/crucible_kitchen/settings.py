"""What the user chose, and where each value came from.

Layers, highest first: arguments in code, the command line, the environment, the chosen
`[profile.<name>]`, `crucible.toml` (or `[tool.crucible]` of `pyproject.toml`, where there is no
`crucible.toml`). They are merged key by key. A table that names its adapter (`use`) replaces a
lower one that names another, so the options of the adapter you left do not follow you.

pydantic-settings reads the environment. The merge is ours, because its own keeps the options of an
adapter that a higher layer replaced, loses the options beside `X=name`, and ignores misspelt
variables.

A mistake ends nothing here: it is noted, and what is misspelt is taken for the nearest name, so
that the mistakes behind it are found in the same run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pydantic_settings import BaseSettings, EnvSettingsSource

from .errors import ConfigurationError
from .extent import DEEPEST, TOO_DEEP, TOO_LARGE, Unfit, from_json, unfit
from .files import open_named
from .ports import PORTS
from .spelling import listed, nearest
from .texts import Typed

Key: TypeAlias = tuple[str, ...]

SETTABLE = ("adapters", "workflow", "observe")
"""The tables that every layer can set."""

TABLES = (*SETTABLE, "profile")
"""The tables at the top of `crucible.toml`."""

LARGEST = 2**20
"""How many bytes a file of settings may have: what is larger is something else."""

PREFIX = "CRUCIBLE_"
RESERVED = ("CRUCIBLE_CONFIG", "CRUCIBLE_PROFILE")
"""Environment variables that choose what to read and set nothing themselves."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one place.

    Args:
        name: the place, as users know it.
        table: the values.
        labels: for single keys, a place that is more exact than `name`.
    """

    name: str
    table: Mapping[str, Any] = field(repr=False)  # it may hold secrets
    labels: Mapping[Key, str] = field(default_factory=dict)

    def source(self, key: Key) -> str:
        return self.labels.get(key, self.name)

    def source_around(self, key: Key) -> str:
        """Say where a key, or a table or list around it, was set."""
        around = (key[:depth] for depth in range(len(key), 0, -1))
        return next((self.labels[each] for each in around if each in self.labels), self.name)


@dataclass(slots=True)
class Settings:
    """The merged values, and the source of each leaf."""

    values: dict[str, Any] = field(default_factory=dict, repr=False)  # they may hold secrets
    sources: dict[Key, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    profile: str | None = None
    mistakes: tuple[str, ...] = ()
    """What is wrong so far. With any of them the values serve only to find more."""

    def source_of(self, key: Key) -> str:
        """Say where a key, or else the nearest table around it, was set."""
        while key and key not in self.sources:
            key = key[:-1]
        return self.sources.get(key, "defaults")

    def leaves(self) -> Iterator[tuple[Key, Any]]:
        """Yield every key and value that is not a table."""
        yield from _leaves(self.values, ())


def load(
    path: str | Path | None = None,
    *,
    profile: str | None = None,
    arguments: Sequence[str] = (),
    code: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read and merge every layer.

    Args:
        path: the file; None is `$CRUCIBLE_CONFIG`, else `crucible.toml` in the current folder,
            else `pyproject.toml` there if it has `[tool.crucible]`, else no file.
        profile: the profile; None is `$CRUCIBLE_PROFILE`, else none.
        arguments: `key.path=value` from the command line.
        code: tables given in code, above everything else.
        environ: the environment; None is the process's.

    Raises:
        ConfigurationError: a file that cannot be read, keys that do not exist, a profile that
            is not defined. The message names every one, with its place.
    """
    settings = gather(path, profile=profile, arguments=arguments, code=code, environ=environ)
    if settings.mistakes:
        raise ConfigurationError(*settings.mistakes)
    return settings


def gather(
    path: str | Path | None = None,
    *,
    profile: str | None = None,
    arguments: Sequence[str] = (),
    code: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Do as `load`, but leave mistakes in `Settings.mistakes`, for a caller that finds more.

    Raises:
        ConfigurationError: a file that cannot be read, values that no setting can have.
    """
    environ = os.environ if environ is None else environ
    file = _find(path, environ)
    mistakes: list[str] = []
    layers: list[Layer] = []
    chosen = profile or environ.get("CRUCIBLE_PROFILE") or None
    profiles: Mapping[str, Any] = {}
    if file is not None:
        table = _read(file)
        profiles = _profiles(str(file), table.pop("profile", {}), mistakes)
        layers.append(Layer(str(file), _checked(str(file), table, mistakes)))
    if chosen is not None:
        if chosen in profiles:
            layers.append(Layer(f"{file} [profile.{chosen}]", profiles[chosen]))
        else:
            known = f"there are {listed(chosen, profiles)}" if profiles else "there is none"
            near = _hint(chosen, profiles)
            mistakes.append(f"no [profile.{chosen}] in {file or 'any file'}; {near or known}")
    layers.append(_environment(environ, mistakes))
    layers.append(_command_line(arguments, mistakes))
    if code:
        layers.append(Layer("code", _checked("in code", code, mistakes)))
    settings = _merged(layers, mistakes)
    settings.files = (file,) if file is not None else ()
    settings.profile = chosen
    return settings


def in_code(tables: Mapping[str, Any]) -> Settings:
    """Make settings of what was given in code alone; read no file and no variable.

    Tables and ports that do not exist are in `Settings.mistakes`.

    Raises:
        ConfigurationError: values that no setting can have, such as a list that holds itself.
    """
    mistakes: list[str] = []
    return _merged([Layer("code", _checked("in code", tables, mistakes))], mistakes)


def _merged(layers: Sequence[Layer], mistakes: list[str]) -> Settings:
    """Merge layers that are known to be fit for it."""
    found = [
        f"{layer.source_around(at)}: {_shown(at)} {why}"
        for layer in layers
        for at, why in unfit(layer.table)
    ]
    if found:
        raise ConfigurationError(*mistakes, *found)
    settings = merge(layers)
    settings.mistakes = tuple(mistakes)
    return settings


def _shown(at: Key) -> str:
    return ".".join(at if len(at) <= 6 else (*at[:6], "..."))


def merge(layers: Iterable[Layer]) -> Settings:
    """Merge layers, the lowest first."""
    settings = Settings()
    for layer in layers:
        _lay(settings.values, layer.table, (), layer, settings.sources)
    return settings


def _lay(
    below: dict[str, Any],
    above: Mapping[str, Any],
    at: Key,
    layer: Layer,
    sources: dict[Key, str],
) -> None:
    for name, given in above.items():
        key = (*at, name)
        value = {"use": given} if at == ("adapters",) and _is_name(given) else given
        old = below.get(name)
        if not isinstance(value, Mapping):
            if isinstance(value, str) and isinstance(old, dict) and "use" in old:
                value = {"use": value}  # a deeper adapter: `inner` was a table and is now a name
            else:
                if isinstance(old, dict):
                    _forget(sources, key)
                below[name] = value
                sources[key] = layer.source(key)
                continue
        if isinstance(old, str) and "use" not in value:
            old = {"use": old}  # `inner = "name"` keeps its name when a layer above adds options
            below[name] = old
            sources[(*key, "use")] = sources.pop(key, layer.source(key))
        names_another = (
            isinstance(old, dict) and "use" in value and "use" in old and old["use"] != value["use"]
        )
        if not isinstance(old, dict) or names_another:
            if old is not None:
                _forget(sources, key)
            below[name] = {}
        sources[key] = layer.source(key)
        _lay(below[name], value, key, layer, sources)


def _is_name(value: Any) -> bool:
    """Say whether the value of `adapters.<port>` is the adapter itself, not a table about it."""
    return not isinstance(value, Mapping)


def _forget(sources: dict[Key, str], key: Key) -> None:
    for known in [known for known in sources if known[: len(key)] == key]:
        del sources[known]


def _leaves(value: Any, at: Key) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, Mapping) and (value or not at):
        for name, item in value.items():
            yield from _leaves(item, (*at, name))
    else:
        yield at, value


# --- files ---------------------------------------------------------------------------------


def _find(path: str | Path | None, environ: Mapping[str, str]) -> Path | None:
    chosen = path or environ.get("CRUCIBLE_CONFIG") or None
    if chosen is None:
        if _is_there(Path("crucible.toml")):
            return Path("crucible.toml")
        file = Path("pyproject.toml")
        return file if _is_there(file) and _read(file) else None
    file = Path(chosen)
    if not _is_there(file):
        where = "" if path else " (from $CRUCIBLE_CONFIG)"
        near = _hint(file.name, [other.name for other in file.parent.glob("*.toml")])
        raise ConfigurationError(
            f"there is no file {str(file)!r}{where}; {near or '`crucible init` writes one'}"
        )
    return file


def _is_there(file: Path) -> bool:
    """Say whether there is anything of this name; what is no file fails when it is read."""
    try:
        os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):  # such as a name that is too long
        return True
    return True


def _read(file: Path) -> dict[str, Any]:
    table = _parse(file)
    if file.name == "pyproject.toml":
        for name in ("tool", "crucible"):
            table = table.get(name, {})
            if not isinstance(table, dict):
                raise ConfigurationError(f"{file}: [tool.crucible] must be a table")
    return dict(table)


def _parse(file: Path) -> dict[str, Any]:
    text = _text(file)
    if _has_a_key_of_many_parts(text):
        raise ConfigurationError(f"{file}: a key in it {TOO_DEEP}")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}") from None
    except ValueError:  # tomllib leaves this one to int()
        raise ConfigurationError(f"{file}: a number in it {TOO_LARGE}") from None
    except RecursionError:
        raise ConfigurationError(f"{file}: a value in it {TOO_DEEP}") from None


# tomllib takes minutes for a key of 100,000 parts: it copies what it has so far at each dot.
_PART = r"""(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_TOKEN = re.compile(
    r'''"""(?:[^\\]|\\.)*?"""|\'{3}.*?\'{3}|\#[^\n]*+'''
    rf"|(?P<deep>{_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{DEEPEST}}})|{_PART}",
    re.DOTALL,
)


def _has_a_key_of_many_parts(text: str) -> bool:
    return text.count(".") >= DEEPEST and any(found["deep"] for found in _TOKEN.finditer(text))


def _text(file: Path) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark."""
    try:
        with open_named(file) as opened:
            data = opened.read(LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > LARGEST:
        raise ConfigurationError(
            f"{file} has more than {LARGEST:,} bytes, so it cannot be a file of settings"
        )
    # The rule of JSON holds for TOML, too: the zeros among the first bytes tell the encoding.
    if not (encoding := json.detect_encoding(data)).startswith("utf-8"):
        raise ConfigurationError(f"{file} is {encoding[:6].upper()}; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{file} is not UTF-8: byte {data[error.start]:#04x} in line {line}; save it as UTF-8"
        ) from None


def _profiles(name: str, profiles: Any, mistakes: list[str]) -> Mapping[str, Any]:
    if not isinstance(profiles, Mapping):
        mistakes.append(f"{name}: profile must be a table of profiles")
        return {}
    kept = {}
    for profile, inside in profiles.items():
        if not isinstance(inside, Mapping):
            mistakes.append(f"{name}: profile.{profile} must be a table")
        else:
            kept[profile] = _checked(f"{name} [profile.{profile}]", inside, mistakes)
    return kept


def _checked(where: str, table: Mapping[str, Any], mistakes: list[str]) -> dict[str, Any]:
    """Check the two levels that have fixed keys: the tables, and the ports."""
    kept: dict[str, Any] = {}
    for name, value in _respelt(where, "", table, SETTABLE, TABLES, mistakes):
        if not isinstance(value, Mapping):
            mistakes.append(f"{where}: {name} must be a table, not {_kind(value)}")
        elif name == "adapters":
            kept[name] = dict(_respelt(where, "adapters.", value, PORTS, PORTS, mistakes))
        else:
            kept[name] = value
    return kept


def _respelt(
    where: str,
    within: str,
    table: Mapping[str, Any],
    known: Iterable[str],
    named: Iterable[str],
    mistakes: list[str],
) -> Iterator[tuple[str, Any]]:
    """Yield the known keys, and each misspelt one as the known key that it is taken for."""
    for name, value in table.items():
        if name in known:
            yield name, value
            continue
        mistakes.append(_no_such(where, f"{within}{name}", named))
        if (near := nearest(name, known)) and near not in table:
            yield near, value


def _kind(value: Any) -> str:
    """Name the type of a value in an error. The value itself may be a secret in a wrong place."""
    if isinstance(value, str):
        return "a text"
    return {list: "a list", bool: "true or false"}.get(type(value), "a value")


def _no_such(where: str, key: str, known: Iterable[str]) -> str:
    *table, name = key.split(".")
    near = _hint(name, known)
    return f"{where}: there is no {key!r}; {near or 'there are ' + listed(name, known)}" + (
        f" (in [{'.'.join(table)}])" if table and not near else ""
    )


def _hint(name: Any, known: Iterable[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near!r}?" if near else ""


# --- environment and command line -------------------------------------------------------------


class _Nothing(BaseSettings):
    """What pydantic-settings is to read into; the values stay as they are."""


class _Variables(EnvSettingsSource):
    """pydantic-settings' view of an environment that need not be the process's own."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {name: value for name, value in environ.items() if value is not None}
        super().__init__(_Nothing, env_prefix=PREFIX, env_nested_delimiter="__")

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._environ


def _environment(environ: Mapping[str, str], mistakes: list[str]) -> Layer:
    pairs = []
    for name, value in _Variables(environ).env_vars.items():
        if not name.upper().startswith(PREFIX) or name in RESERVED or value is None:
            continue
        path = name[len(PREFIX) :].lower().split("__")
        pairs.append((f"environment variable {name}", tuple(path), value))
    return _assignments("environment", pairs, mistakes)


def _command_line(arguments: Iterable[str], mistakes: list[str]) -> Layer:
    pairs = []
    before = ""
    for argument in arguments:
        path, equals, value = argument.partition("=")
        if equals and path:
            pairs.append((f"argument {path}=", tuple(path.split(".")), value))
            before = ""
        elif before:  # it is not repeated: it may be a secret
            mistakes.append(
                f"the argument behind {before!r}: a setting and its value are joined by =, "
                "without a space"
            )
            before = ""
        else:
            before = argument if argument.partition(".")[0] in SETTABLE else ""
            mistakes.append(
                f"argument {argument!r}: settings are written key=value, "
                "such as workflow.epochs=3 or adapters.training_client=noop"
            )
    return _assignments("command line", pairs, mistakes)


def _assignments(name: str, pairs: Iterable[tuple[str, Key, str]], mistakes: list[str]) -> Layer:
    """Make a layer from (label, path, text). A parent is set before its children."""
    table: dict[str, Any] = {}
    labels: dict[Key, str] = {}
    for label, written, text in sorted(pairs, key=lambda pair: len(pair[1])):
        path = _path(label, written, mistakes)
        if not path:
            continue
        here = table
        for depth, part in enumerate(path[:-1]):
            inside = here.get(part)
            if isinstance(inside, str):  # X=name beside X__OPTION=value
                at = path[: depth + 1]
                labels[(*at, "use")] = labels.get(at, name)
                here[part] = inside = {"use": inside}
            elif inside is not None and not isinstance(inside, dict):
                at_path = ".".join(path[: depth + 1])
                mistakes.append(f"{label}: {at_path} is set to {_kind(inside)}, not to a table")
                break
            here = here.setdefault(part, {})
        else:
            try:
                value = _value(text)
            except Unfit as error:
                mistakes.append(f"{label}: {error}")
                continue
            is_adapter = len(path) == 2 and path[0] == "adapters"
            if is_adapter and (why := miswritten(value)):
                mistakes.append(f"{label}: {why}")
                continue
            here[path[-1]] = value
            labels[path] = label
            if is_adapter:
                labels[(*path, "use")] = label
    return Layer(name, table, labels)


def _path(label: str, path: Key, mistakes: list[str]) -> Key:
    """Return the path, or the one that a misspelt path is taken for; () if there is none."""
    first, *rest = path
    if first not in SETTABLE:
        near = nearest(first, SETTABLE)
        hint = (
            f"did you mean {near!r}?"
            if near
            else (
                f"did you mean workflow.{'.'.join(path)}? Settings begin with "
                "adapters., workflow. or observe."
            )
        )
        mistakes.append(f"{label}: there is no setting {'.'.join(path)!r}; {hint}")
        first = near
    elif not rest or not all(path):
        mistakes.append(f"{label}: write {first}.<key>, such as {_EXAMPLES[first]}")
    if first == "adapters" and rest and rest[0] and rest[0] not in PORTS:
        mistakes.append(_no_such(label, f"adapters.{rest[0]}", PORTS))
        rest[0] = nearest(rest[0], PORTS)
    return (first, *rest) if first and rest and all(rest) else ()


_EXAMPLES = {
    "adapters": "adapters.blob_store=noop",
    "workflow": "workflow.epochs=3",
    "observe": "observe.console=true",
}


def _value(text: str) -> Any:
    """Text stays text, for the option's own type to convert; only `[...]`, `{...}` are JSON.

    What begins like JSON and is none, such as the template `{question}`, stays text, too: where
    a table or a list is needed, `miswritten` says why it is none.

    Raises:
        Unfit: it is JSON, but more than a setting can be.
    """
    if text[:1] in ("[", "{"):
        with contextlib.suppress(json.JSONDecodeError):
            return from_json(text)
    return Typed(text)


def miswritten(value: Any) -> str:
    """Say what is wrong with a text in place of a table or a list, if it was to be JSON.

    Without repeating it, for it may hold a secret. Any other value is fine: nothing is said.
    """
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return ""
    try:
        from_json(value)
    except json.JSONDecodeError as error:
        where = f"{error.msg[:1].lower()}{error.msg[1:]} at character {error.pos + 1}"
        return f"begins like JSON, but is none: {where}; is a quote lost to the shell?"
    except Unfit as error:
        return str(error)
    return "is JSON within a text; write it without the quotes around it"
