"""Listings and files of a repository."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from ...ports import HubClient
from ..conformance import Reopen
from .fixtures import HubClientFixtures


class Files(HubClientFixtures):
    """`list_files` and `download`."""

    def test_a_listing_names_every_file_sorted(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
    ) -> None:
        """`list_files` returns the path of every file of the revision, in every folder, sorted,
        with `/` between its parts; folders are not listed.

        Usually broken by a listing of one level or of one page, or in the order of the backend.
        """
        listed = list(hub_client.list_files(repo_id, **where))
        assert listed == sorted(listed)
        assert listed == list(names)
        assert len(set(listed)) == len(listed)
        for name in listed:
            assert str(PurePosixPath(name)) == name
            assert not any(other.startswith(f"{name}/") for other in listed), f"{name} is a folder"

    def test_a_downloaded_file_is_that_of_the_repository(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        contents: Mapping[str, bytes],
    ) -> None:
        """`download` returns the path of a file that exists and has the content of the one in the
        repository, for every file that is listed.

        Usually broken by a text mode, by a pointer of Git LFS in the place of the file, and by
        returning before the file is written.
        """
        for name in names:
            path = hub_client.download(repo_id, name, **where)
            assert isinstance(path, Path)
            assert path.is_absolute(), f"{path} depends on the working directory"
            assert path.is_file()
            assert path.read_bytes() == contents[name], name

    def test_a_file_downloaded_again_is_the_same(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        reopen: Reopen[HubClient] | None,
    ) -> None:
        """A second download has the same content as the first, and so has that of another process.

        Usually broken by a cache that is written differently from how it is read.
        """
        first = {name: hub_client.download(repo_id, name, **where).read_bytes() for name in names}
        again = {name: hub_client.download(repo_id, name, **where).read_bytes() for name in names}
        assert again == first
        if reopen is not None:
            with reopen() as other:
                theirs = {
                    name: other.download(repo_id, name, **where).read_bytes() for name in names
                }
            assert theirs == first
