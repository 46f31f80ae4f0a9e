"""The hub client keeps every promise of its port, with a hub on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import pytest
from crucible_kitchen import HubClient
from crucible_kitchen.testing import LEVEL, HubClientConformance
from loopback_hub import Answer, Cut, LoopbackHub

FILES = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "README.md": b"# Tiny\n",
    "config.json": b'{"model_type": "llama"}',
    "empty": b"",
    "model.safetensors": bytes(range(256)) * 40,  # in Git LFS
    "tokenizer/deep/vocab.json": b"[]",
    "tokenizer/ünï code.json": "größe 🦜".encode(),
}
NEWER = {**FILES, "config.json": b'{"model_type": "gpt2!"}', "model.safetensors": b"newer" * 2048}

MakeClient = Callable[..., HubClient]


# huggingface_hub 2.4.0 gives httpx2 the body of a file in Git LFS under a deprecated name.
@pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")
class TestHfHub(HubClientConformance):
    level = LEVEL

    @pytest.fixture
    def hub_client(self, hub: LoopbackHub, make: MakeClient) -> HubClient:
        return make(token=hub.token)

    @pytest.fixture
    def reopen(self, hub: LoopbackHub, make: MakeClient) -> object:
        return lambda: contextlib.nullcontext(make(token=hub.token))

    @pytest.fixture
    def repo_id(self, hub: LoopbackHub) -> str:
        hub.commit("org/tiny", FILES)
        return "org/tiny"

    @pytest.fixture
    def files(self) -> Mapping[str, bytes]:
        return FILES

    @pytest.fixture
    def revisions(self, hub: LoopbackHub, repo_id: str) -> Mapping[str, Mapping[str, bytes]]:
        older = hub.commit(repo_id, FILES)
        newer = hub.commit(repo_id, NEWER)
        hub.tag(repo_id, "v1", older)
        hub.commit(repo_id, {"only/here": b"content"}, branch="dev/next")
        return {
            "v1": FILES,
            older: FILES,
            newer: NEWER,
            "main": NEWER,
            "dev/next": {"only/here": b"content"},
        }

    @pytest.fixture
    def gated_repo_id(self, hub: LoopbackHub) -> str:
        hub.commit("org/gated", FILES)
        # What the hub answers to a token whose owner was not granted access.
        hub.fail(Answer(403, "GatedRepo"), path="/org/gated/resolve/")
        return "org/gated"

    @pytest.fixture
    def upload_repo_id(self, hub: LoopbackHub) -> str:
        hub.commit("org/uploads", {"README.md": b"# For uploads\n"})
        return "org/uploads"

    @pytest.fixture
    def commits(self, hub: LoopbackHub) -> Callable[[], int]:
        return lambda: sum("/commit/" in r.path and r.method == "POST" for r in hub.requests)

    @pytest.fixture
    def cache_is_ours(self) -> bool:
        return True

    @pytest.fixture(params=["the hub is gone", "the option `offline`"])
    def go_offline(
        self, request: pytest.FixtureRequest, hub: LoopbackHub, make: MakeClient
    ) -> object:
        @contextlib.contextmanager
        def leave() -> Iterator[HubClient | None]:
            if "option" in request.param:
                yield make(offline=True)
                return
            hub.fail(Cut())
            yield None
            hub.mend()

        return leave
