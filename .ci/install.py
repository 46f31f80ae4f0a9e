"""Install into the environment of this Python: by uv, or by pip where there is no uv or it fails.

The arguments are those of `pip install`. uv does in seconds what takes pip minutes, but reads none
of pip's settings; those that say what is installed from where are handed to it. The environment
variable `UV` may say where it is, as for what uv runs itself.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence

SHARED = ("index-url", "extra-index-url", "no-index", "find-links", "trusted-host", "cert")
"""Settings of pip that are options of uv by the same name."""
SECTIONS = ("global", "install", ":env:")
"""Of pip's settings, in the order in which a later one takes the place of an earlier one."""


def settings(listed: str) -> dict[str, str]:
    """Return the settings of `pip install`, given what `pip config list` prints."""
    found = [line.partition("=") for line in listed.splitlines()]
    return {
        name.removeprefix(f"{section}."): ast.literal_eval(value)
        for section in SECTIONS
        for name, _, value in found
        if name.startswith(f"{section}.")
    }


def options_of_uv(settings: dict[str, str]) -> Iterator[str]:
    """Yield what makes uv look where pip would, and choose what pip would."""
    yield from ("--index-strategy", "unsafe-best-match")  # pip takes the newest of all indexes
    yield "--system-certs"  # as pip does
    for name in SHARED:
        if name == "no-index":
            if settings.get(name, "").lower() in ("1", "true", "yes", "on"):
                yield "--no-index"
        else:
            for value in settings.get(name, "").split():
                yield from (f"--{name}", value)
    for file in settings.get("constraint", "").split():
        yield from ("--constraints", file, "--build-constraints", file)


def by_uv(arguments: Sequence[str]) -> bool:
    """Install by uv; say whether that worked."""
    uv = shutil.which(os.environ.get("UV") or "uv")
    if not uv:
        return False
    pip = [sys.executable, "-I", "-m", "pip", "config", "list"]
    listed = subprocess.run(pip, check=True, stdout=subprocess.PIPE, text=True).stdout
    found = settings(listed)
    into = ["pip", "install", "--no-config", "--no-progress", "--python", sys.executable]
    # As pip does, too: else the first import of a module has the warnings of its compilation.
    into.append("--compile-bytecode")
    seconds = found.get("timeout") or found.get("default-timeout") or "60"
    done = subprocess.run(
        [uv, *into, *options_of_uv(found), *arguments],
        env={**os.environ, "UV_HTTP_TIMEOUT": seconds},
    )
    return done.returncode == 0


def main() -> int:
    arguments = sys.argv[1:]
    if by_uv(arguments):
        return 0
    print("not installed by uv; by pip:", flush=True)
    return subprocess.run([sys.executable, "-I", "-m", "pip", "install", *arguments]).returncode


if __name__ == "__main__":
    sys.exit(main())
