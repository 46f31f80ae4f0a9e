"""Options under the names that they had before become options under today's names.

Classes declare old names (`Renamed`), and pydantic would find them; but only here is known which
layer of the settings wrote which name, so that the higher one wins, and is shown as the source.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel

from ..calls.port import Port
from ..errors import ConfigurationError, CrucibleError, CrucibleWarning
from ..options.renamed import renames
from ..settings import Key, Settings, move, moved
from ..settings.assignments import PREFIX

OptionsOf: TypeAlias = Callable[[type[Port], Any], type[BaseModel]]
"""Returns the class of the options of the adapter that `use` names, or is."""


class Renaming:
    """Renames what old names set, in the tables of one model and in those inside it.

    Args:
        settings: their values and sources change in place, so that a name is warned of once.
        options_of: finds the options of adapters in options.
        quiet: whether nobody is warned, where it is not a user who has written the names.
    """

    def __init__(self, settings: Settings, options_of: OptionsOf, *, quiet: bool = False) -> None:
        self._settings = settings
        self._quiet = quiet
        self._options_of = options_of
        self.mistakes: list[ConfigurationError] = []
        """Keys that one layer sets under both names."""

    def table(self, model: type[BaseModel], table: Mapping[str, Any], at: Key) -> Mapping[str, Any]:
        """Return a table with today's names; the same object if it has no old ones.

        Args:
            model: the class that it will be validated by.
            table: the values.
            at: where it is in the settings.
        """
        found = table
        for old, new in renames(model).items():
            if old in found:
                found = self._renamed(found, old, new, at)
        changed = {
            name: value
            for name, field in model.model_fields.items()
            if name in found
            and (value := self._inside(field.annotation, found[name], (*at, name)))
            is not found[name]
        }
        return {**found, **changed} if changed else found

    def adapter(self, port: type[Port], value: Any, at: Key) -> Any:
        """Return what describes an adapter, with today's names of its options."""
        if not isinstance(value, Mapping) or len(value) < 2:  # a name, without options
            return value
        try:
            options = self._options_of(port, value.get("use"))
        except CrucibleError:  # said where it is bound
            return value
        return self.table(options, value, at)

    def _renamed(self, table: Mapping[str, Any], old: str, new: str, at: Key) -> Mapping[str, Any]:
        here, there = (*at, old), (*at, new)
        source = self._settings.source_of(here)
        found = {name: value for name, value in table.items() if name != old}
        if new not in table:
            found[new] = table[old]
            move(self._settings, here, there)
        else:
            try:
                found[new], both = moved(self._settings, here, there, table[old], table[new])
            except ValueError:
                self.mistakes.append(
                    ConfigurationError(
                        f"{'.'.join(here)}: {old!r} is the old name of {new!r}, which is set as "
                        f"well; leave {old!r} out (from {source})"
                    )
                )
                return found
            move(self._settings, here, there, both.sources)
        if self._quiet:
            return found
        warnings.warn(
            f"{'.'.join(here)} is now called {new!r}; write {_written(there, source)} "
            f"(from {source})",
            CrucibleWarning,
            stacklevel=2,
        )
        return found

    def _inside(self, annotation: Any, value: Any, at: Key) -> Any:
        """Return the value of a field with today's names in the tables that it holds."""
        annotation = getattr(annotation, "__value__", annotation)  # of `type Name = ...`
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self._inside(arguments[0], value, at)
        if origin in (Union, UnionType):
            for each in self._members(arguments, value, at):
                value = self._inside(each, value, at)
            return value
        if type(value) in (list, tuple) and arguments:
            kinds = _kinds_of_items(origin, arguments, len(value))
            items = [
                self._inside(kind, each, (*at, str(place)))
                for place, (kind, each) in enumerate(zip(kinds, value, strict=False))
            ]
            if len(items) < len(value):  # said where it is validated
                return value
            return type(value)(items) if _differ(items, value) else value
        if not isinstance(value, Mapping):
            return value
        if arguments:
            held = {k: self._inside(arguments[-1], v, (*at, str(k))) for k, v in value.items()}
            return held if _differ(held.values(), value.values()) else value
        if isinstance(annotation, type) and issubclass(annotation, Port):
            return self.adapter(annotation, value, at)
        model = self._model(annotation, value)
        return value if model is None else self.table(model, value, at)

    def _members(self, kinds: Iterable[Any], value: Any, at: Key) -> list[Any]:
        """Return the members of a union whose names may be those of a value."""
        kinds = [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds]
        models = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if len(models) < 2 or not isinstance(value, Mapping):
            return kinds
        fit = [each for each in models if _may_be(each, value)]
        today = [m for m in fit if value.keys() <= m.model_fields.keys()]
        fit = today or [m for m in fit if value.keys() <= {*m.model_fields, *renames(m)}] or fit
        for old in value:
            new = {renames(each).get(old, old) for each in fit}
            if len(new) > 1:
                self.mistakes.append(
                    ConfigurationError(
                        f"{'.'.join((*at, old))}: {old!r} may be the old name of "
                        f"{' or '.join(map(repr, sorted(new - {old})))} here; write today's name "
                        f"(from {self._settings.source_of((*at, old))})"
                    )
                )
                return []
        return [kind for kind in kinds if kind not in models or kind in fit]

    def _model(self, annotation: Any, value: Mapping[str, Any]) -> type[BaseModel] | None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return annotation
        # A thing with options that is chosen by name, such as an environment.
        options_of = getattr(annotation, "options_of", None)
        if options_of is None or len(value) < 2:
            return None
        try:
            found: type[BaseModel] | None = options_of(value.get("use"))
        except CrucibleError:
            return None
        return found


def _may_be(model: type[BaseModel], value: Mapping[str, Any]) -> bool:
    """Say whether no field of a model that can only have some values has another one."""
    return all(
        value[name] in get_args(field.annotation)
        for name, field in model.model_fields.items()
        if name in value and get_origin(field.annotation) is Literal
    )


def _kinds_of_items(origin: Any, arguments: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """Return what each item of a list or a tuple should be."""
    if origin is tuple and arguments[-1] is not Ellipsis:
        return arguments
    return (arguments[0],) * count


def _differ(some: Any, others: Any) -> bool:
    return any(a is not b for a, b in zip(some, others, strict=True))


def _written(key: Key, source: str) -> str:
    """Return a key as it is written where the old one was."""
    if source.startswith("environment variable "):
        return PREFIX + "__".join(key).upper()
    return ".".join(key)


def put(settings: Settings, at: Key, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Write today's names into the settings, which hold the old ones.

    Args:
        settings: they change in place.
        at: where the table is in them.
        before: the table as it was.
        after: the table with today's names.
    """
    table: Any = settings.values
    for part in at:
        table = table.get(part) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        return
    changed = {name: value for name, value in after.items() if value is not before.get(name)}
    for name in [name for name in before if name not in after]:
        table.pop(name, None)
    table.update(changed)
