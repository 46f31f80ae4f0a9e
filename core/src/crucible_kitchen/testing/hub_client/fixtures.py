"""The fixtures of a hub client's tests."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from ...calls.synthetic import synthetic
from ...ports import HubClient
from ..conformance import Conformance

GoOffline: TypeAlias = Callable[[], contextlib.AbstractContextManager[HubClient | None]]


class HubClientFixtures(Conformance):
    """The fixtures of the suite."""

    @pytest.fixture
    def repo_id(self) -> str:
        """A repository of several small files. The default is one of the Hugging Face Hub."""
        return "sshleifer/tiny-gpt2"

    @pytest.fixture
    def repo_type(self) -> str:
        """The type of that repository, and of the one for uploads."""
        return "model"

    @pytest.fixture
    def revision(self) -> str:
        """The revision to fetch. Uploads go to the branch `main`."""
        return "main"

    @pytest.fixture
    def files(self) -> Mapping[str, bytes] | str | None:
        """What the repository truly holds at the revision, or a local folder that holds the same.
        Optional: with it the kit does not have to believe the adapter.
        """
        return None

    @pytest.fixture
    def revisions(self) -> Mapping[str, Mapping[str, bytes]]:
        """What the repository holds at further revisions, branches, tags or commits. Optional."""
        return {}

    @pytest.fixture
    def missing_repo_id(self, hub_client: HubClient) -> str | None:
        """A repository that does not exist; None where every one does, as with a synthetic hub."""
        return None if synthetic(hub_client) else "sshleifer/crucible-conformance-missing"

    @pytest.fixture
    def gated_repo_id(self) -> str | None:
        """A repository that exists, but not for the credentials of `hub_client`. Optional."""
        return None

    @pytest.fixture
    def upload_repo_id(self, hub_client: HubClient) -> str | None:
        """A repository that may be written to; None if there is none. A synthetic hub has one."""
        return "conformance/uploads" if synthetic(hub_client) else None

    @pytest.fixture
    def commits(self) -> Callable[[], int] | None:
        """A function that counts the commits of the repository for uploads, without the adapter.
        Optional.
        """
        return None

    @pytest.fixture
    def go_offline(self) -> GoOffline | None:
        """A function that makes a context in which the hub cannot be reached. What the context
        yields is the client to be asked inside, for adapters with an option to stay offline; None
        is `hub_client`. Optional.
        """
        return None

    @pytest.fixture
    def cache_is_ours(self, hub_client: HubClient) -> bool | str:
        """Whether the kit may damage files that the adapter returned, to see it find out. By
        default only where the adapter is synthetic, for a cache may be one that others use.
        """
        return bool(synthetic(hub_client))

    @pytest.fixture
    def uploads(self, upload_repo_id: str | None, repo_type: str) -> tuple[str, str]:
        """The id and type of the repository for uploads."""
        return self.given(upload_repo_id, "upload_repo_id"), repo_type

    @pytest.fixture
    def below(self) -> str:
        """A folder in a repository that no other test uploads to."""
        return f"conformance-{uuid.uuid4().hex}"

    @pytest.fixture
    def where(self, repo_type: str, revision: str) -> dict[str, str]:
        """The arguments that most calls share."""
        return {"repo_type": repo_type, "revision": revision}

    @pytest.fixture
    def names(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        files: Mapping[str, bytes] | str | None,
    ) -> list[str]:
        """The paths of the repository's files, sorted."""
        known = _known_files(files)
        found = sorted(hub_client.list_files(repo_id, **where) if known is None else known)
        assert len(found) > 1, f"{repo_id} has {found}: the kit needs one with several files"
        return found

    @pytest.fixture
    def contents(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        files: Mapping[str, bytes] | str | None,
    ) -> Mapping[str, bytes]:
        """What the repository holds: what is known, else what the adapter downloads."""
        known = _known_files(files)
        if known is not None:
            return known
        return {name: hub_client.download(repo_id, name, **where).read_bytes() for name in names}


def _known_files(files: Mapping[str, bytes] | str | None) -> Mapping[str, bytes] | None:
    return read_folder(Path(files)) if isinstance(files, str) else files


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, by its path with `/`."""
    assert folder.is_dir(), f"{folder} is not a folder"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder, by their paths with `/`, and return the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
