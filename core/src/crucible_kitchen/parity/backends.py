"""What a backend's name means: an adapter, or a profile that chooses one."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

from ..adapters.binding import options_class
from ..adapters.discovery import catalog
from ..errors import AdapterNotFound, ConfigurationError, CrucibleError
from ..messages.spelling import did_you_mean
from ..options.adapter_options import AdapterOptions
from ..ports import TrainingClient
from ..settings import Key, Settings

AT: Key = ("adapters", TrainingClient.name)


def settings_of(name: str, base: Settings, of_profile: Callable[[str], Settings]) -> Settings:
    """Return the settings of a backend: those of the command, with its training client.

    Args:
        name: a profile of the file, of which the training client alone counts; the configured
            training client; or an installed one, `name` or `package/name`.
        base: the settings of the command.
        of_profile: returns the settings with a profile laid over the file.

    Raises:
        ConfigurationError: the name means nothing, or the profile chooses no training client.
    """
    configured = base.values.get("adapters", {}).get(TrainingClient.name)
    if name in base.profiles:
        if TrainingClient.name not in base.profiles[name].get("adapters", {}):
            raise ConfigurationError(
                f"--backends: [profile.{name}] of {base.files[0]} sets nothing of "
                f"[{'.'.join(AT)}], so it is not a backend"
            )
        chosen = of_profile(name)
        table = chosen.values["adapters"][TrainingClient.name]
        return _shared(_with(base, table, chosen.sources), configured)
    if isinstance(configured, dict) and name == configured.get("use"):
        return base
    try:
        catalog().find(TrainingClient.name, name)
    except AdapterNotFound as error:
        near = did_you_mean(name, base.profiles)
        hint = f"; or did you mean the profile{near.removeprefix('; did you mean')}" if near else ""
        raise AdapterNotFound(f"--backends: {error}{hint}") from error
    sources = {AT: "--backends", (*AT, "use"): "--backends"}
    return _shared(_with(base, {"use": name}, sources), configured)


def unused(profile: str, base: Settings) -> list[str]:
    """Return what else a profile sets, which a comparison leaves as the command has it."""
    tables = base.profiles[profile]
    return [
        f"{table}.{key}" for table, values in tables.items() for key in values if (table, key) != AT
    ]


def _with(base: Settings, table: Any, sources: dict[Key, str]) -> Settings:
    """Return settings with another training client."""
    made = dataclasses.replace(base, values=copy.copy(base.values))
    adapters = {**base.values.get("adapters", {}), TrainingClient.name: copy.copy(table)}
    made.values["adapters"] = adapters
    kept = {at: source for at, source in base.sources.items() if at[:2] != AT}
    made.sources = kept | {at: source for at, source in sources.items() if at[:2] == AT}
    return made


def _shared(made: Settings, configured: Any) -> Settings:
    """Give a backend the configured options that its adapter has, too, and that it does not set.

    Of one class: an option that two adapters inherit from it, such as the models that an engine
    makes, means the same in both. Options of the same name may not, such as an address or a key.
    """
    table = made.values["adapters"][TrainingClient.name]
    if not (isinstance(table, dict) and isinstance(configured, dict)):
        return made
    if table.get("use") == configured.get("use"):
        return made
    try:
        here, there = _options(configured["use"]), _options(table["use"])
    except (CrucibleError, KeyError):  # said where it is bound
        return made
    for option, value in configured.items():
        definer = _definer(here, option)
        if option not in table and definer is not None and definer is _definer(there, option):
            table[option] = copy.deepcopy(value)
    return made


def _options(use: Any) -> type[AdapterOptions]:
    if not isinstance(use, str):
        raise ConfigurationError("not a name")
    return options_class(catalog().find(TrainingClient.name, use).load(), use)


def _definer(options: type[AdapterOptions], option: str) -> type | None:
    """Return the class in whose body an option is first annotated; None if there is none."""
    if option not in options.model_fields:
        return None
    definers = (
        c for c in reversed(options.__mro__) if option in vars(c).get("__annotations__", {})
    )
    return next(definers, None)
