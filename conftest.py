"""For all tests of the repository: a cache of their own, and servers that several of them use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from skyrl_server import SkyrlServer


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep rendered rows in a folder of this session, in commands that tests start as well."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CRUCIBLE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def skyrl(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SkyrlServer]:
    """A SkyRL server with a tiny model; where a test failed, the end of its log is shown."""
    pytest.importorskip("skyrl", reason="skyrl is not installed")
    from skyrl_server import started

    with started(tmp_path_factory.mktemp("skyrl")) as server:
        yield server
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if request.session.testsfailed and reporter is not None:
        reporter.section(str(server.log))
        reporter.write_line("\n".join(server.log.read_text().splitlines()[-100:]))
