from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import crucible_adapter_hf_hub.hub_client as hf_hub
import pytest
from crucible_kitchen import HubClient, Kitchen
from huggingface_hub import constants, file_download
from huggingface_hub.utils import _http
from loopback_hub import LoopbackHub

MakeClient = Callable[..., HubClient]


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as hub:
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login and no variables of the user who runs the tests."""
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # read from them at import
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that huggingface_hub would have waited before it tried again."""
    seconds: list[float] = []
    for module in (file_download, _http):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=seconds.append))
    return seconds


@pytest.fixture
def make(hub: LoopbackHub, cache: Path) -> Iterator[MakeClient]:
    """Make clients of the hub that share a cache; arguments are options."""
    made = []

    def make(**options: Any) -> HubClient:
        defaults = {"use": hf_hub, "endpoint": hub.url, "cache_dir": cache}
        made.append(Kitchen(adapters={"hub_client": {**defaults, **options}}))
        return made[-1].hub_client

    yield make
    for kitchen in made:
        kitchen.close()


@pytest.fixture
def client(make: MakeClient) -> HubClient:
    return make()


@pytest.fixture
def offline(make: MakeClient) -> HubClient:
    return make(offline=True)
