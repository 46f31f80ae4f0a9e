"""Functions for another process, which finds them by the name of this module."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from crucible_kitchen import AdapterOptions, BlobStore, hookimpl
from pydantic import SecretStr, model_validator


def surroundings(port: Any) -> dict[str, Any]:
    umask = os.umask(0o22)
    os.umask(umask)
    return {
        "pid": os.getpid(),
        "salt": os.environ.get("PYTHONHASHSEED"),
        "hash": hash("a text"),
        "folder": os.getcwd(),
        "umask": umask,
        "zone": time.tzname,
        "path": sys.path,
    }


def pid(port: Any) -> int:
    return os.getpid()


def given(port: Any, value: Any) -> Any:
    return value


def touch(port: Any, file: Path) -> None:
    file.touch()


def wrapped(port: Any) -> tuple[str, str]:
    return port.adapter, port.inner.adapter


def secret(port: Any) -> str:
    value: str = port.options.key.get_secret_value()
    return value


def ended(port: Any) -> NoReturn:
    print("out of luck", file=sys.stderr, flush=True)
    os._exit(3)


def hanging(port: Any) -> None:
    time.sleep(1000)


def a_lock(port: Any) -> Any:
    import threading

    return threading.Lock()


def write_and_return(port: BlobStore, path: str, content: bytes) -> str:
    port.write(path, content)
    return path


def child(port: Any) -> int:
    """Start a process that outlives this one unless it is killed."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]).pid


def is_running(number: int) -> bool:
    """Whether a process runs; one that nobody waits for does not."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class KeyedOptions(AdapterOptions):
    inner: BlobStore
    key: SecretStr = SecretStr("")


class Keyed:
    """An adapter that is an object, with a secret."""

    Options = KeyedOptions

    @hookimpl
    def exists(self, opts: KeyedOptions, path: str) -> bool:
        return opts.inner.exists(path)


class OnlyHereOptions(AdapterOptions):
    inner: BlobStore

    @model_validator(mode="after")
    def only_here(self) -> OnlyHereOptions:
        if os.environ.get("TZ") == "<+0945>-09:45":
            raise ValueError("this is another process")
        return self


class OnlyHere:
    """An adapter that cannot be bound in another process of the kit."""

    Options = OnlyHereOptions
