"""Warn of every call to a blob store that takes long."""

import logging
import time
from typing import Any

from crucible_kitchen import AdapterOptions, BlobStore, Call, hookimpl


class Options(AdapterOptions):
    inner: BlobStore
    """Where the calls go."""
    seconds: float = 5.0
    """How long a call may take before a warning, in seconds."""


@hookimpl
def around(opts: Options, call: Call) -> Any:
    started = time.monotonic()
    try:
        return call()
    finally:
        took = time.monotonic() - started
        if took > opts.seconds:
            logging.warning("%s of %s took %.1f s", call.name, opts.inner.adapter, took)
