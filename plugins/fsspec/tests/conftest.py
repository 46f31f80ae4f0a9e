"""An S3 server for these tests alone."""

from __future__ import annotations

from collections.abc import Iterator

import moto_server
import pytest


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    # Short listings, so that a test of the pages behind the first need not write 1,000 blobs.
    with moto_server.started(MOTO_S3_DEFAULT_MAX_KEYS="50") as endpoint:
        yield endpoint
