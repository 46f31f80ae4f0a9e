"""What to write and what to install for a port without an adapter.

An installed adapter is recognized by what it is, so it is imported: one that implements `around`
wraps others and serves nothing alone; one whose helper `synthetic` says why makes its results up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..adapters.binding import marked, options_class
from ..adapters.discovery import Catalog, Installed
from ..adapters.known_packages import by_preference, packages_of
from ..calls.synthetic import declares, reason
from ..messages.spelling import shortened


def names_of(port: str, found: Catalog) -> list[str]:
    """Return the names of the installed adapters of a port, in order of preference."""
    return by_preference(port, (entry.name for entry in found.entries if entry.port == port))


def serving(port: str, found: Catalog) -> Iterator[Installed]:
    """Yield the installed adapters that serve a port alone, in order of preference.

    One that cannot be imported is among them: why it cannot shows when it is used.
    """
    first = {entry.name: entry for entry in reversed(found.entries) if entry.port == port}
    for name in names_of(port, found):
        if not wraps(first[name]):
            yield first[name]


def wraps(entry: Installed) -> bool:
    """Say whether an adapter wraps others. It is imported; False if it cannot be."""
    try:
        return "around" in marked(entry.load())
    except KeyboardInterrupt:
        raise
    except BaseException:
        return False


def is_synthetic(entry: Installed) -> bool:
    """Say whether an adapter makes its results up, with the defaults of its options.

    It is imported; False if it cannot be, or fails. Where options cannot be left out, it counts
    that it has the helper.
    """
    try:
        adapter = entry.load()
        if not declares(adapter):
            return False
        options = options_class(adapter, entry.name)
        if any(field.is_required() for field in options.model_fields.values()):
            return True
        return bool(reason(adapter, options()))
    except KeyboardInterrupt:
        raise
    except BaseException:
        return False


def not_configured(missing: Sequence[str], found: Catalog, file: str) -> str:
    """Return the message about ports for which no adapter is chosen.

    Args:
        missing: names of the ports.
        found: the installed adapters.
        file: where to choose them.
    """
    chosen, listed, packages = [], [], []
    for port in missing:
        real = (entry.name for entry in serving(port, found) if not is_synthetic(entry))
        example = next(real, None)
        if example is None:
            example, package = next(iter(packages_of(port).items()))
            packages.append(package)
        chosen.append(f'    {port} = "{example}"')
        listed.append(f"installed for {port}: {shortened(names_of(port, found)) or 'none'}")
    text = (
        f"no adapter is chosen for {', '.join(missing)}; add to {file}\n\n    [adapters]\n"
        + "\n".join([*chosen, "", *listed])
    )
    wanted = " ".join(dict.fromkeys(packages))
    return text + (f"\nto get one: pip install {wanted}" if wanted else "")
