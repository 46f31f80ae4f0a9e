"""Sources of adapter packages, one good and the others each with a mistake.

`conftest.py` builds and installs them. A package is its name, version, the requirements it
declares, its entry points, and its modules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from textwrap import dedent


@dataclass(frozen=True)
class Package:
    name: str
    modules: dict[str, str]
    entry_points: dict[str, str]
    version: str = "1.2.3"
    requires: tuple[str, ...] = ("crucible-kitchen",)
    group: str = "crucible.adapters"
    broken_metadata: str | None = field(default=None)


def blob_store(**changed: str) -> str:
    """Return the source of a blob store in a dictionary, with some callbacks replaced."""
    callbacks = {
        "read": "@hookimpl\ndef read(opts: Options, path: str) -> bytes:\n"
        "    return kept(opts)[path]",
        "stream": "@hookimpl\ndef stream(opts: Options, path: str, chunk_size: int):\n"
        "    yield kept(opts)[path]",
        "write": "@hookimpl\ndef write(opts: Options, path: str, data: bytes) -> None:\n"
        "    kept(opts)[path] = data if isinstance(data, bytes) else b''.join(data)",
        "exists": "@hookimpl\ndef exists(opts: Options, path: str) -> bool:\n"
        "    return path in kept(opts)",
    }
    return "\n\n\n".join(part for part in {"": PREAMBLE, **callbacks, **changed}.values() if part)


PREAMBLE = dedent(
    '''
    """Keep blobs in a dictionary."""
    from typing import Annotated

    from crucible_kitchen import (
        AdapterOptions, BlobStore, FromEnv, MetricsStore, hookimpl, resource
    )
    from pydantic import SecretStr


    class Options(AdapterOptions):
        bucket: str = "runs"
        """Bucket that holds every blob."""
        timeout: float = 30.0
        """Seconds to wait for one request."""
        api_key: Annotated[SecretStr | None, FromEnv("ACME_API_KEY")] = None
        """Key of the account."""
        tags: list[str] = []
        """Labels for each blob."""


    @resource
    def kept(opts: Options) -> dict[str, bytes]:
        return {}
    '''
).strip()

MISTAKES = {
    "missing": blob_store(exists=""),
    "unmarked": blob_store(exists="def exists(opts, path):\n    return False"),
    "unknown_callback": blob_store(extra="@hookimpl\ndef exits(opts, path):\n    return False"),
    "unknown_argument": blob_store(read="@hookimpl\ndef read(opts, pth):\n    return b''"),
    "left_out": blob_store(read="@hookimpl\ndef read(opts):\n    return b''"),
    "star_args": blob_store(read="@hookimpl\ndef read(opts, *args):\n    return b''"),
    "star_kwargs": blob_store(read="@hookimpl\ndef read(opts, path, **kwargs):\n    return b''"),
    "keyword_only": blob_store(read="@hookimpl\ndef read(opts, *, path):\n    return b''"),
    "coroutine": blob_store(read="@hookimpl\nasync def read(opts, path):\n    return b''"),
    "marked_value": blob_store(
        exists="class Exists:\n    def __call__(self, path):\n        return False\n\n\n"
        "exists = hookimpl(Exists())"
    ),
    "impl_options": blob_store(
        read="@hookimpl(tryfirst=True)\ndef read(opts, path):\n    return b''"
    ),
    "bad_options": blob_store(options="class Options:\n    bucket = 'runs'"),
    "exits": "raise SystemExit('no licence')",
    "explodes": "raise RuntimeError('the licence server is on fire')",
    "a_class": blob_store()
    + "\n\n\nclass Store:\n    @hookimpl\n    def read(self, path):\n        ...",
}

COMPOSING = '''
"""Count the calls to another blob store."""
from crucible_kitchen import AdapterOptions, BlobStore, hookimpl


class Options(AdapterOptions):
    inner: BlobStore
    """Where the calls go."""


@hookimpl
def around(opts, call):
    return call()
'''

REMOTE = blob_store(
    ping=dedent(
        """
        @hookimpl
        def ping(opts: Options) -> None:
            import socket

            from crucible_kitchen import Unavailable

            host, port = opts.bucket.split(":")
            try:
                socket.create_connection((host, int(port)), opts.timeout).close()
            except OSError as error:
                secret = opts.api_key.get_secret_value()
                raise Unavailable(f"{opts.bucket} with key {secret}: {error}") from error
        """
    ).strip()
)
WORKFLOWS = """
from typing import TYPE_CHECKING

from crucible_kitchen import Kitchen, WorkflowConfig

if TYPE_CHECKING:
    from nowhere import Config


class CountConfig(WorkflowConfig):
    path: str
    "Blob to count the bytes of."

    def required_ports(self):
        return ("blob_store",)


def count(kitchen: Kitchen, config: CountConfig) -> None:
    kitchen.blob_store.write(config.path, b"four")
    print(len(kitchen.blob_store.read(config.path)), "bytes")


def unannotated(kitchen, config): ...


def alone(kitchen: Kitchen): ...


def imported_for_types(kitchen: Kitchen, config: "Config"): ...


a_number = 5
"""

PACKAGES = [
    Package(
        "acme-workflows",
        {"acme_workflows": WORKFLOWS},
        {
            name: f"acme_workflows:{name}"
            for name in ("count", "unannotated", "alone", "imported_for_types", "a_number")
        },
        group="crucible.workflows",
    ),
    Package(
        "crucible-adapter-acme",
        {
            "acme": blob_store(),
            "acme_counting": COMPOSING,
            "acme_remote": REMOTE,
            "acme_partial": blob_store(
                stream="@hookimpl\ndef stream(opts, path):\n    yield kept(opts)[path]"
            ),
        },
        {
            "blob_store.acme": "acme",
            "blob_store.counting": "acme_counting",
            "blob_store.remote": "acme_remote",
            "blob_store.partial": "acme_partial",
        },
    ),
    Package(
        "crucible-adapter-mistakes",
        {f"mistake_{name}": source for name, source in MISTAKES.items()},
        {
            f"blob_store.{name}": f"mistake_{name}" + (":Store" if name == "a_class" else "")
            for name in MISTAKES
        },
    ),
    Package("twin-one", {"twin_one": blob_store()}, {"blob_store.twin": "twin_one"}, "1.0"),
    Package("twin-two", {"twin_two": blob_store()}, {"blob_store.twin": "twin_two"}, "2.0"),
    Package(
        "from-the-future",
        {"from_the_future": "raise AssertionError('imported in spite of its requirements')"},
        {"blob_store.future": "from_the_future"},
        requires=("crucible-kitchen>=99",),
    ),
    Package("misnamed", {"misnamed": blob_store()}, {"blobstore.acme": "misnamed"}),
    Package(
        "malformed",
        {"malformed": blob_store()},
        {"blob_store.malformed": "malformed"},
        broken_metadata="[crucible.adapters]\nthis is no entry point",
    ),
]
