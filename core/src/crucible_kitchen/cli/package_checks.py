"""Whether each installed plugin is in order: imported, bound as far as it can be, and checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from ..adapters import policy
from ..adapters.binding import options_class, problems
from ..adapters.card_files import recorded
from ..adapters.cards import Cards
from ..adapters.discovery import (
    ENVIRONMENTS,
    GROUPS,
    KINDS,
    OBSERVERS,
    WORKFLOWS,
    Installed,
    catalog,
)
from ..adapters.installed_card import InstalledCard
from ..configuration import chosen
from ..errors import CrucibleError, described
from ..observers.installed import options_class as options_of_observer
from ..ports import PORTS
from ..workflows import registry

CheckRow: TypeAlias = tuple[str, str, str]
"""What was tried, its state and details. The state is "" for what is in order, `warning`,
`forbidden` or `problem`."""

PLUGINS: Mapping[str, Callable[[Any], Any]] = {
    WORKFLOWS: registry.config_class,
    ENVIRONMENTS: chosen.options_class,
    OBSERVERS: lambda made: options_of_observer(made, "it"),
}
"""For each group without ports, what raises where an entry is not one of it."""


def packages() -> Iterator[CheckRow]:
    """Yield what is wrong with each plugin, or that it is in order, and with its report cards."""
    catalogs = [catalog(group) for group in GROUPS]
    for problem in dict.fromkeys(problem for found in catalogs for problem in found.problems):
        yield problem.package, "problem", problem.message
    claimed: dict[str, list[Installed]] = {}
    with Cards() as cards:
        for entry in (entry for found in catalogs for entry in found.entries):
            what = _what(entry)
            if why := policy.refusal(entry.package, entry.port, entry.name):
                yield what, "forbidden", why
                continue
            wrong = _check(entry)
            found_cards = cards.of_adapter(entry) if _may_have_cards(entry) else ()
            said = ", ".join([f"{entry.package} {entry.version}", *_words(found_cards)])
            yield what, wrong, wrong or said
            yield from _about_cards(what, found_cards)
            claimed.setdefault(what, []).append(entry)
    folders = {e.folder: e.package for found in catalogs for e in found.entries if e.folder}
    for folder, package in folders.items():
        for path in recorded(f"{folder}/RECORD"):
            if not os.path.lexists(f"{os.path.dirname(folder)}/{path}"):
                name = os.path.basename(path)
                yield f"{package} card", "warning", f"{name} was installed and is missing"
    for what, entries in claimed.items():
        if len({e.entry_point.value for e in entries}) > 1:
            both = " and ".join(e.package for e in entries)
            yield what, "problem", f"{both} both provide it; choose with package/name"


def _may_have_cards(entry: Installed) -> bool:
    return bool(entry.port) or entry.entry_point.group == ENVIRONMENTS


def _words(cards: Sequence[InstalledCard]) -> Sequence[str]:
    """Return what the cards say; nothing where there is none, which is nothing to be put right."""
    return list(dict.fromkeys(card.words for card in cards))


def _about_cards(what: str, cards: Sequence[InstalledCard]) -> Iterator[CheckRow]:
    for card in cards:
        if card.state == "unreadable":
            yield f"{what} card", "problem", f"{card.file}: {card.problem}"
        elif card.state in ("changed", "failed"):
            on = f" on {card.variant}" if card.variant else ""
            yield f"{what} card", "warning", f"{card.words}{on}: {card.changed or card.summary}"


def _what(entry: Installed) -> str:
    if entry.port:
        return f"{entry.port}.{entry.name}"
    return f"{KINDS[entry.entry_point.group]} {entry.name}"


def _check(entry: Installed) -> str:
    """Return what is wrong with what a package offers; "" if nothing is."""
    try:
        loaded = entry.load()
        if not entry.port:
            PLUGINS[entry.entry_point.group](loaded)
            return ""
        options = options_class(loaded, entry.name)
        composes = "inner" in options.model_fields
        return "; ".join(problems(PORTS[entry.port], loaded, composes=composes))
    except CrucibleError as error:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # such as a property of an object that raises
        return f"it cannot be checked: {described(error)}"
