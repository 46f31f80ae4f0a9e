"""The hub that makes its files up keeps every promise of the port that such a one can keep."""

from collections.abc import Iterator, Mapping

import pytest
from crucible_kitchen import HubClient
from crucible_kitchen.testing import LEVEL, HubClientConformance, bound

from kitchen_noop import hub_client as noop


class TestNoop(HubClientConformance):
    level = LEVEL

    @pytest.fixture
    def hub_client(self) -> Iterator[HubClient]:
        options = {"repositories": ["here", "conformance/uploads"], "revisions": ["main", "dev"]}
        with bound("hub_client", noop, latency_scale=0, **options) as hub:
            yield hub

    @pytest.fixture
    def repo_id(self) -> str:
        return "here"

    @pytest.fixture
    def missing_repo_id(self) -> str:
        return "gone"

    @pytest.fixture
    def files(self) -> Mapping[str, bytes]:
        return noop._FILES["model"]

    @pytest.fixture
    def revisions(self) -> Mapping[str, Mapping[str, bytes]]:
        return dict.fromkeys(("main", "dev"), noop._FILES["model"])
