"""What the user chose, and where each value came from.

Layers, highest first: arguments in code, the command line, the environment, the chosen
`[profile.<name>]`, `crucible.toml` (or `[tool.crucible]` of `pyproject.toml`, where there is no
`crucible.toml`). They are merged key by key. A table that names its adapter (`use`) replaces a
lower one that names another, so the options of the adapter you left do not follow you.

pydantic-settings reads the file and the environment. The merge is ours, because its own keeps the
options of an adapter that a higher layer replaced, loses the options beside `X=name`, and ignores
misspelt variables.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pydantic_settings import BaseSettings, EnvSettingsSource, TomlConfigSettingsSource

from .errors import ConfigurationError
from .ports import PORTS

Key: TypeAlias = tuple[str, ...]

SETTABLE = ("adapters", "workflow", "observe")
"""The tables that every layer can set."""

TABLES = (*SETTABLE, "profile")
"""The tables at the top of `crucible.toml`."""

DEEPEST = 100
"""How deep tables may be one in the other."""

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


@dataclass(slots=True)
class Settings:
    """The merged values, and the source of each leaf."""

    values: dict[str, Any] = field(default_factory=dict, repr=False)  # they may hold secrets
    sources: dict[Key, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    profile: str | None = None

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
        ConfigurationError: a file that cannot be read, a key that does not exist, a profile that
            nobody defined. The message names the place.
    """
    environ = os.environ if environ is None else environ
    file = _find(path, environ)
    layers: list[Layer] = []
    chosen = profile or environ.get("CRUCIBLE_PROFILE") or None
    profiles: Mapping[str, Any] = {}
    if file is not None:
        table = _read(file)
        profiles = table.pop("profile", {})
        _check_file(str(file), table, profiles)
        layers.append(Layer(str(file), table))
    if chosen is not None:
        if chosen not in profiles:
            known = f"there are {', '.join(profiles)}" if profiles else "there is none"
            near = _near(chosen, profiles)
            raise ConfigurationError(
                f"no [profile.{chosen}] in {file or 'any file'}; {near or known}"
            )
        layers.append(Layer(f"{file} [profile.{chosen}]", profiles[chosen]))
    layers.append(_environment(environ))
    layers.append(_command_line(arguments))
    if code:
        _check("in code", code)
        layers.append(Layer("code", code))
    settings = merge(layers)
    settings.files = (file,) if file is not None else ()
    settings.profile = chosen
    return settings


def in_code(tables: Mapping[str, Any]) -> Settings:
    """Make settings of what was given in code alone; read no file and no variable.

    Raises:
        ConfigurationError: a table or a port that does not exist.
    """
    _check("in code", tables)
    return merge([Layer("code", tables)])


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
    if len(at) > DEEPEST:  # in code, a table may hold itself
        start = ".".join(at[:4])
        raise ConfigurationError(f"{layer.name}: {start}...: tables are nested without an end")
    for name, given in above.items():
        key = (*at, name)
        value = {"use": given} if at == ("adapters",) and _is_name(given) else given
        old = below.get(name)
        if not isinstance(value, Mapping):
            if isinstance(value, str) and isinstance(old, dict) and "use" in old:
                value = {"use": value}  # a deeper adapter: `inner` was a table and is now a name
            else:
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
    if chosen is not None:
        file = Path(chosen)
        try:
            found = file.is_file()
        except OSError as error:  # such as a name that is too long
            raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
        if not found:
            where = "" if path else " (from $CRUCIBLE_CONFIG)"
            raise ConfigurationError(
                f"there is no file {str(file)!r}{where}; `crucible init` writes one"
            )
        return file
    if (file := Path("crucible.toml")).is_file():
        return file
    file = Path("pyproject.toml")
    return file if file.is_file() and _read(file) else None


def _read(file: Path) -> dict[str, Any]:
    table = _parse(file)
    if file.name == "pyproject.toml":
        for name in ("tool", "crucible"):
            table = table.get(name, {})
            if not isinstance(table, dict):
                raise ConfigurationError(f"{file}: [tool.crucible] must be a table")
    return dict(table)


class _Reader(BaseSettings):
    """A place for pydantic-settings to read into; the values stay as they are."""


def _parse(file: Path) -> dict[str, Any]:
    try:
        return dict(TomlConfigSettingsSource(_Reader, file).toml_data)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None


def _check_file(name: str, table: Mapping[str, Any], profiles: Any) -> None:
    _check(name, table)
    if not isinstance(profiles, Mapping):
        raise ConfigurationError(f"{name}: profile must be a table of profiles")
    for profile, inside in profiles.items():
        if not isinstance(inside, Mapping):
            raise ConfigurationError(f"{name}: profile.{profile} must be a table")
        _check(f"{name} [profile.{profile}]", inside)


def _check(where: str, table: Mapping[str, Any]) -> None:
    """Check the two levels that have fixed keys: the tables, and the ports."""
    for name, value in table.items():
        if name not in SETTABLE:
            raise ConfigurationError(_no_such(where, name, TABLES))
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"{where}: {name} must be a table, not {_kind(value)}")
    for port in table.get("adapters", {}):
        if port not in PORTS:
            raise ConfigurationError(_no_such(where, f"adapters.{port}", PORTS))


def _kind(value: Any) -> str:
    """Name the type of a value in an error. The value itself may be a secret in a wrong place."""
    return {str: "a text", list: "a list", bool: "true or false"}.get(type(value), "a value")


def _no_such(where: str, key: str, known: Iterable[str]) -> str:
    *table, name = key.split(".")
    near = _near(name, known)
    return f"{where}: there is no {key!r}; {near or 'there are ' + ', '.join(known)}" + (
        f" (in [{'.'.join(table)}])" if table and not near else ""
    )


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else ""


# --- environment and command line -------------------------------------------------------------


class _Variables(EnvSettingsSource):
    """pydantic-settings' view of an environment that need not be the process's own."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {name: value for name, value in environ.items() if value is not None}
        super().__init__(_Reader, env_prefix=PREFIX, env_nested_delimiter="__")

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._environ


def _environment(environ: Mapping[str, str]) -> Layer:
    pairs = []
    for name, value in _Variables(environ).env_vars.items():
        if not name.upper().startswith(PREFIX) or name in RESERVED or value is None:
            continue
        path = name[len(PREFIX) :].lower().split("__")
        pairs.append((f"environment variable {name}", tuple(path), value))
    return _assignments("environment", pairs)


def _command_line(arguments: Iterable[str]) -> Layer:
    pairs = []
    for argument in arguments:
        path, equals, value = argument.partition("=")
        if not equals or not path:
            raise ConfigurationError(
                f"argument {argument!r}: settings are written key=value, "
                "such as workflow.epochs=3 or adapters.training_client=noop"
            )
        pairs.append((f"argument {path}=", tuple(path.split(".")), value))
    return _assignments("command line", pairs)


def _assignments(name: str, pairs: Iterable[tuple[str, Key, str]]) -> Layer:
    """Make a layer from (label, path, text). A parent goes before its children."""
    table: dict[str, Any] = {}
    labels: dict[Key, str] = {}
    for label, path, text in sorted(pairs, key=lambda pair: len(pair[1])):
        _check_path(label, path)
        here = table
        for depth, part in enumerate(path[:-1]):
            inside = here.get(part)
            if isinstance(inside, str):  # X=name beside X__OPTION=value
                at = path[: depth + 1]
                labels[(*at, "use")] = labels.get(at, name)
                here[part] = inside = {"use": inside}
            elif inside is not None and not isinstance(inside, dict):
                raise ConfigurationError(
                    f"{label}: {'.'.join(path[: depth + 1])} is set to {_kind(inside)}, "
                    "not to a table"
                )
            here = here.setdefault(part, {})
        here[path[-1]] = _value(text)
        if len(path) == 2 and path[0] == "adapters" and (why := miswritten(here[path[-1]])):
            raise ConfigurationError(f"{label}: {why}")
        labels[path] = label
        if len(path) == 2 and path[0] == "adapters":
            labels[(*path, "use")] = label
    return Layer(name, table, labels)


def _check_path(label: str, path: Key) -> None:
    if path[0] not in SETTABLE:
        raise ConfigurationError(
            f"{label}: there is no setting {'.'.join(path)!r}; "
            + (
                _near(path[0], SETTABLE)
                or f"did you mean workflow.{'.'.join(path)}? Settings "
                "begin with adapters., workflow. or observe."
            )
        )
    if path[0] == "adapters" and len(path) > 1 and path[1] not in PORTS:
        raise ConfigurationError(_no_such(label, f"adapters.{path[1]}", PORTS))
    if len(path) == 1 or not all(path):
        raise ConfigurationError(f"{label}: write {path[0]}.<key>, such as {_EXAMPLES[path[0]]}")


_EXAMPLES = {
    "adapters": "adapters.blob_store=noop",
    "workflow": "workflow.epochs=3",
    "observe": "observe.console=true",
}


def _value(text: str) -> Any:
    """Text stays text, for the option's own type to convert; only `[...]`, `{...}` are JSON.

    What begins like JSON and is none, such as the template `{question}`, stays text, too: where
    a table or a list is needed, `miswritten` says why it is none.
    """
    if text[:1] not in ("[", "{"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def miswritten(value: Any) -> str:
    """Say what is wrong with a text in place of a table or a list, if it was to be JSON.

    Without repeating it, for it may hold a secret. Any other value is fine: nothing is said.
    """
    if not isinstance(value, str) or value[:1] not in ("[", "{"):
        return ""
    try:
        json.loads(value)
    except json.JSONDecodeError as error:
        where = f"{error.msg[:1].lower()}{error.msg[1:]} at character {error.pos + 1}"
        return f"begins like JSON, but is none: {where}; is a quote lost to the shell?"
    return "is JSON within a text; write it without the quotes around it"
