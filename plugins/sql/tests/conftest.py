"""A PostgreSQL server for these tests alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from postgresql import Server, started


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with started(durable=False) as server:  # these tests pull no plug
        yield server
