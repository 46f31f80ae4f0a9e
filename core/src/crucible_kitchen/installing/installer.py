"""pip or uv, whichever an environment is managed with."""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigurationError
from ..locking.environment import Environment


@dataclass(frozen=True, slots=True)
class Installer:
    """What installs into an environment.

    Args:
        name: `pip` or `uv`.
        command: the command line up to the name of a subcommand.
        options: what every subcommand is given.
    """

    name: str
    command: tuple[str, ...]
    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, environment: Environment) -> Installer:
        """Return uv if it made the environment, else pip.

        Raises:
            ConfigurationError: neither is there, or the environment belongs to the system.
        """
        _refuse_managed(environment)
        uv, pip = _uv(), importlib.util.find_spec("pip") is not None
        if uv and (_is_of_uv(environment) or not pip):
            return cls("uv", (uv, "pip"), ("--python", environment.python))
        if not pip:
            raise ConfigurationError(
                f"there is neither pip nor uv: `{shown([sys.executable, '-m', 'ensurepip'])}` "
                "installs pip, if Python has it; or restore a lock from an environment that has "
                f"one, with `{shown(['crucible', 'sync', '--python', environment.python])}`"
            )
        command = [sys.executable, "-m", "pip"]
        if environment.python != sys.executable:
            command += ["--python", environment.python]
        return cls("pip", tuple(command))

    def line(self, subcommand: str, *arguments: str) -> list[str]:
        """Return a command line."""
        if subcommand == "uninstall" and self.name == "pip":
            arguments = ("--yes", *arguments)
        return [*self.command, subcommand, *self.options, *arguments]

    def reinstalling(self, *, altered: bool) -> list[str]:
        """Return the options that install a version again that is installed.

        Args:
            altered: whether installed files were changed. Those of uv may be links into its cache,
                in which they are changed as well.
        """
        if self.name == "pip":
            return ["--force-reinstall"]
        return ["--reinstall", "--no-cache"] if altered else ["--reinstall"]

    def run(self, line: Sequence[str]) -> int:
        """Run a command line; return its exit code. What it prints goes where ours goes.

        Raises:
            ConfigurationError: it cannot be started.
        """
        try:
            return subprocess.run(line).returncode
        except OSError as error:
            raise ConfigurationError(f"{line[0]} cannot be run: {error.strerror}") from None


def shown(line: Sequence[str]) -> str:
    """Return a command line as it is typed at a shell."""
    return shlex.join(line)


def _uv() -> str | None:
    """Return uv: the one that is installed next to this Python, else any on the path."""
    return shutil.which("uv", path=sysconfig.get_path("scripts")) or shutil.which("uv")


def _is_of_uv(environment: Environment) -> bool:
    """Say whether uv made a virtual environment, of which its `pyvenv.cfg` has a note."""
    try:
        text = (Path(environment.prefix) / "pyvenv.cfg").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return any(line.partition("=")[0].strip() == "uv" for line in text.splitlines())


def _refuse_managed(environment: Environment) -> None:
    """Refuse to change what the system's own package manager installs into (PEP 668)."""
    if environment.python != sys.executable or sys.prefix != sys.base_prefix:
        return
    if (Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED").exists():
        raise ConfigurationError(
            f"{sys.executable} is managed by the operating system, whose tools forbid installing "
            "into it (PEP 668): make a virtual environment with `python -m venv .venv`, install "
            "crucible-kitchen there, and use its `crucible`"
        )
