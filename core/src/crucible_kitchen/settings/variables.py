"""Environment variables, as pydantic-settings reads them: so that another of its sources (dotenv, a
folder of secrets, a cloud's secret manager) can become a layer in the same way. It takes longer to
import than the rest of the settings, and is where there are such variables.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_settings import BaseSettings, EnvSettingsSource


class _Source(EnvSettingsSource):
    """A source for an environment that need not be the process's own."""

    def __init__(self, environ: Mapping[str, str], prefix: str) -> None:
        self._environ = environ
        super().__init__(BaseSettings, env_prefix=prefix, env_nested_delimiter="__")

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return self._environ


def read(environ: Mapping[str, str], prefix: str) -> Mapping[str, str | None]:
    """Return the variables of an environment by name."""
    return _Source(environ, prefix).env_vars
