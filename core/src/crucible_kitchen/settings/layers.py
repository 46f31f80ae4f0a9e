"""Every layer of settings is read, in order of precedence, and merged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError
from ..extent import Key, unfit
from ..messages.spelling import did_you_mean, listed
from . import assignments, file, tables
from .merge import Layer, Settings, merge


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
    mistakes: list[str] = []
    layers: list[Layer] = []
    profiles: Mapping[str, Any] = {}
    found = file.find(path, environ)
    if found is not None:
        table = file.read(found)
        profiles = tables.profiles(str(found), table.pop("profile", {}), mistakes)
        layers.append(Layer(str(found), tables.checked(str(found), table, mistakes)))
    chosen = profile or environ.get("CRUCIBLE_PROFILE") or None
    if chosen is not None:
        if chosen in profiles:
            layers.append(Layer(f"{found} [profile.{chosen}]", profiles[chosen]))
        else:
            mistakes.append(_no_profile(chosen, profiles, found))
    layers.append(assignments.of_environment(environ, mistakes))
    layers.append(assignments.of_arguments(arguments, mistakes))
    if code:
        layers.append(Layer("code", tables.checked("in code", code, mistakes)))
    settings = _merged(layers, mistakes)
    settings.files = (found,) if found is not None else ()
    settings.profile = chosen
    settings.profiles = profiles
    return settings


def in_code(given: Mapping[str, Any]) -> Settings:
    """Make settings of tables given in code alone; read no file and no variable.

    Tables and ports that do not exist are in `Settings.mistakes`.

    Raises:
        ConfigurationError: values that no setting can have, such as a list that holds itself.
    """
    mistakes: list[str] = []
    return _merged([Layer("code", tables.checked("in code", given, mistakes))], mistakes)


def _merged(layers: Sequence[Layer], mistakes: list[str]) -> Settings:
    """Merge layers, once it is known that their values are not too deep or too large for it."""
    found = [
        f"{layer.source(at)}: {_shown(at)} {why}"
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


def _no_profile(chosen: str, profiles: Mapping[str, Any], found: Path | None) -> str:
    if found is None:
        return f"no [profile.{chosen}]: there is no crucible.toml here, and no other file is named"
    if not profiles:
        return f"no [profile.{chosen}] in {found}, which has no profiles"
    hint = did_you_mean(chosen, profiles) or f"; there are {listed(chosen, profiles)}"
    return f"no [profile.{chosen}] in {found}{hint}"
