"""`crucible new adapter --add`: another port for a package that exists.

What its author wrote stays: files of the package as a whole are left alone, and `pyproject.toml`
gets the entry points and keeps its comments and layout.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..adapters.discovery import ADAPTERS
from ..errors import ConfigurationError
from ..ports import PORTS
from .console import note
from .rendering import files_in, put, rendered

CONFORMANCE = "crucible.conformance"


class _Package(NamedTuple):
    """A package of adapters, as its `pyproject.toml` describes it."""

    folder: Path
    name: str
    """The adapters' name."""
    module: str
    """The import package."""
    source: Path
    """The import package's folder, relative to `folder`."""
    distribution: str
    document: Any
    """The `pyproject.toml`, as tomlkit has it."""


def add_ports(folder: Path, ports: list[str], name: str | None) -> None:
    """Write what ports need into a package.

    Args:
        folder: the folder of its `pyproject.toml`.
        ports: the ports to add.
        name: the adapters' name, where the package has several.

    Raises:
        ConfigurationError: the folder has no package of adapters, or it serves a port already.
    """
    package = _read(folder, name)
    points = package.document["project"]["entry-points"][ADAPTERS]
    for port in ports:
        if f"{port}.{package.name}" in points:
            raise ConfigurationError(
                f"{folder / 'pyproject.toml'} has an entry point {port}.{package.name} already"
            )
    answers = {
        "name": package.name,
        "ports": ports,
        "package": package.module,
        "distribution": package.distribution,
    }
    text = _registered(package, ports)
    with rendered("adapter", folder, **answers) as made:
        _move(made, package)
        own = {f"{port}.py" for port in ports} | {f"test_{port}.py" for port in ports}
        # Files of the whole package are its author's, who may have removed one on purpose.
        shared = {package.source / "failures.py", package.source / "conformance/__init__.py"}
        wanted = [
            path
            for path in files_in(made)
            if path.name in own or (path in shared and not (folder / path).exists())
        ]
        kept = put(made, folder, wanted)
        # As bytes, so that line breaks stay as they are.
        (folder / "pyproject.toml").write_bytes(text.encode())
    for path in kept:
        note(f"kept {path} as it was")
    written = [str(path) for path in wanted if folder / path not in kept]
    note("\n".join(["wrote", *(f"    {path}" for path in written), "changed\n    pyproject.toml"]))
    checks = "".join(f"\n    crucible check {port}.{package.name}" for port in ports)
    note(
        "To do: install it again, since entry points are read from what is installed; mention the\n"
        f'port in README.md and CHANGELOG.md, and in the CI\n\n    pip install -e ".[dev]"{checks}'
    )


def _read(folder: Path, name: str | None) -> _Package:
    try:
        import tomlkit
        from tomlkit.exceptions import TOMLKitError
    except ImportError as error:
        raise ConfigurationError(
            "`crucible new adapter --add` needs tomlkit: pip install 'crucible-kitchen[new]'"
        ) from error
    file = folder / "pyproject.toml"
    try:
        document: Any = tomlkit.parse(file.read_bytes().decode())
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no {file}; --add is for the folder of a package, or name it by --folder"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file} is not UTF-8") from None
    except TOMLKitError as error:
        raise ConfigurationError(f"{file} is not valid TOML: {error}") from None
    served = _served(document, file)
    names = list(dict.fromkeys(adapter for adapter, _ in served))
    if name is None and len(names) > 1:
        raise ConfigurationError(
            f"{file} has adapters of several names; write `crucible new adapter NAME --add ...` "
            f"with one of {', '.join(names)}"
        )
    if name is not None and name not in names:
        raise ConfigurationError(f"{file} has no adapter {name!r}; there is {', '.join(names)}")
    chosen = name or names[0]
    module = next(module for adapter, module in served if adapter == chosen)
    return _Package(
        folder,
        chosen,
        module,
        _source(folder, module),
        str(document["project"].get("name", f"crucible-adapter-{chosen}")),
        document,
    )


def _served(document: Mapping[str, Any], file: Path) -> list[tuple[str, str]]:
    """Return of each entry point the adapter's name and the import package around its module."""
    table: Any = document
    for key in ("project", "entry-points", ADAPTERS):
        table = table.get(key) if isinstance(table, Mapping) else None
    points = table if isinstance(table, Mapping) else {}
    found = []
    for key, value in points.items():
        port, _, adapter = str(key).partition(".")
        module = str(value).partition(":")[0].strip().rpartition(".")[0]
        if port in PORTS and adapter and module:
            found.append((adapter, module))
    if not found:
        raise ConfigurationError(
            f'{file} has no adapters under [project.entry-points."{ADAPTERS}"]; '
            "`crucible new adapter NAME --port PORT` starts a package"
        )
    return found


def _source(folder: Path, module: str) -> Path:
    path = Path(*module.split("."))
    for source in (Path("src") / path, path):
        if (folder / source).is_dir():
            return source
    raise ConfigurationError(
        f"{folder / 'src' / path} is not there, where the modules of the package should be"
    )


def _move(made: Path, package: _Package) -> None:
    """Move the import package that was made to where the package has its own."""
    here = made / "src" / package.module
    there = made / package.source
    if here != there:
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(here, there)


def _registered(package: _Package, ports: list[str]) -> str:
    """Return the `pyproject.toml` with the entry points of further ports.

    Raises:
        ConfigurationError: they cannot be put where build tools find them.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    wanted: dict[str, dict[str, str]] = {
        ADAPTERS: {f"{port}.{package.name}": f"{package.module}.{port}" for port in ports},
        CONFORMANCE: {
            f"{port}.{package.name}": f"{package.module}.conformance.{port}" for port in ports
        },
    }
    before = _points(tomlkit.dumps(package.document))
    expected = {**before, **{group: {**before.get(group, {}), **wanted[group]} for group in wanted}}
    try:
        groups = package.document["project"]["entry-points"]
        if is_new := CONFORMANCE not in groups:
            groups[CONFORMANCE] = tomlkit.table()
        for group, points in wanted.items():
            for key, value in points.items():
                _append(groups[group], key, value)
        if is_new:
            groups[CONFORMANCE].add(tomlkit.nl())
        text = tomlkit.dumps(package.document)
        fits = _points(text) == expected
    except (TOMLKitError, tomllib.TOMLDecodeError, AttributeError, TypeError):
        fits = False
    if not fits:
        lines = "".join(
            f'\n\n    [project.entry-points."{group}"]'
            + "".join(f'\n    "{key}" = "{value}"' for key, value in points.items())
            for group, points in before.items()
        )
        raise ConfigurationError(
            f"{package.folder / 'pyproject.toml'} has its entry points in a form that --add cannot "
            f"extend; nothing was written. Write them like this, and repeat the command:{lines}"
        )
    return text


def _points(text: str) -> dict[str, dict[str, str]]:
    """Return the entry points of a `pyproject.toml` as build tools read them."""
    found: dict[str, dict[str, str]] = tomllib.loads(text).get("project", {})["entry-points"]
    return found


def _append(table: Any, key: str, value: str) -> None:
    """Set a key after the last one: what follows, to tomlkit, is part of the table as well, such as
    the comment above the next table.
    """
    body = table.value.body
    after = []
    while body and body[-1][0] is None:
        after.append(body.pop())
    table.append(key, value)
    body.extend(reversed(after))
