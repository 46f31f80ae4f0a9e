"""For all tests of the repository: what a run keeps for the next one is not kept between them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep rendered rows in a folder of this session, in commands that tests start as well."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CRUCIBLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
