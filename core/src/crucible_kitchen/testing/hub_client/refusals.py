"""What does not exist, and what may not be asked for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import pytest

from ...errors import InvalidInput, NotFound, Unauthorized
from ...ports import HubClient
from ..conformance import since
from ..refusal import refuses
from .fixtures import HubClientFixtures, read_folder


class Refusals(HubClientFixtures):
    """Each failure has its error."""

    def test_a_missing_repository_is_not_found(
        self,
        hub_client: HubClient,
        repo_type: str,
        missing_repo_id: str | None,
    ) -> None:
        """Whatever is asked of a repository that does not exist is `NotFound` and names it.

        Usually broken by a hub that answers 401, so as not to reveal whether it exists.
        """
        missing = self.given(missing_repo_id, "missing_repo_id")
        for error in (
            refuses(NotFound, hub_client.list_files, missing, repo_type),
            refuses(NotFound, hub_client.snapshot, missing, repo_type),
            refuses(NotFound, hub_client.download, missing, "config.json", repo_type),
        ):
            assert missing in str(error)

    def test_a_missing_revision_is_not_found(
        self, hub_client: HubClient, repo_id: str, repo_type: str, names: Sequence[str]
    ) -> None:
        """Whatever is asked of a revision that does not exist, a branch or a commit, is `NotFound`
        and names it.

        Usually broken by falling back to the default branch: a run that was to be reproduced then
        trains on other weights.
        """
        for missing in ("conformance-missing", f"{0:040x}"):
            for error in (
                refuses(NotFound, hub_client.list_files, repo_id, repo_type, missing),
                refuses(NotFound, hub_client.snapshot, repo_id, repo_type, missing),
                refuses(NotFound, hub_client.download, repo_id, names[0], repo_type, missing),
            ):
                assert missing in str(error)

    @since("1.5")
    @pytest.mark.parametrize("wrong", ["", ".", "..", "../main", "/main", "main/", "ma in\n"])
    def test_what_is_no_name_of_a_revision_is_not_found(
        self,
        hub_client: HubClient,
        repo_id: str,
        repo_type: str,
        names: Sequence[str],
        wrong: str,
    ) -> None:
        """A revision that is empty, or looks like a path, is `NotFound` or `InvalidInput`.

        Usually broken by joining paths, or parts of a URL: nothing at all is then the folder of
        all revisions, or the newest.
        """
        errors = (NotFound, InvalidInput)
        refuses(errors, hub_client.list_files, repo_id, repo_type, wrong)
        refuses(errors, hub_client.snapshot, repo_id, repo_type, wrong)
        refuses(errors, hub_client.download, repo_id, names[0], repo_type, wrong)

    def test_a_missing_file_is_not_found(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
    ) -> None:
        """`download` of a file that the repository does not have is `NotFound` and names it; a
        folder is not a file, and case counts.

        Usually broken by the backend's own exception, which callers cannot know.
        """
        folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
        other_case = {name.swapcase() for name in names} - set(names)
        for name in ("conformance-missing.json", *sorted(other_case), *sorted(folders - {"."})):
            assert name in str(refuses(NotFound, hub_client.download, repo_id, name, **where))

    def test_a_missing_repository_revision_and_file_are_told_apart(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        missing_repo_id: str | None,
    ) -> None:
        """The three `NotFound`s say which of the three is missing: their messages differ by more
        than the names.

        Usually broken by passing on "404: not found", after which people look for a typing error
        in the wrong name.
        """
        file = "conformance-missing.json"
        asked = {
            "revision": (repo_id, names[0], where["repo_type"], "conformance-missing"),
            "file": (repo_id, file, where["repo_type"], where["revision"]),
        }
        if missing_repo_id is not None:
            asked["repository"] = (missing_repo_id, file, where["repo_type"], where["revision"])
        messages = {}
        for missing, arguments in asked.items():
            error = refuses(NotFound, hub_client.download, *arguments)
            reason = error.reason
            for name in sorted(arguments, key=len, reverse=True):
                reason = reason.replace(name, "?")
            messages[missing] = reason
        assert len(set(messages.values())) == len(asked), messages

    def test_an_unknown_repo_type_is_refused(
        self, hub_client: HubClient, repo_id: str, names: Sequence[str], tmp_path: Path
    ) -> None:
        """A `repo_type` that no hub has is `InvalidInput`, in every callback.

        Usually broken by a type that becomes a part of a URL, or by taking it for a model.
        """
        (tmp_path / "file").write_bytes(b"content")
        for repo_type in ("models", "conformance", ""):
            refuses(InvalidInput, hub_client.list_files, repo_id, repo_type)
            refuses(InvalidInput, hub_client.snapshot, repo_id, repo_type)
            refuses(InvalidInput, hub_client.download, repo_id, names[0], repo_type)
            if hub_client.supports("upload"):
                refuses(
                    InvalidInput, hub_client.upload, repo_id, tmp_path / "file", repo_type=repo_type
                )

    def test_a_repository_of_another_type_is_another(
        self, hub_client: HubClient, repo_id: str, where: Mapping[str, str], repo_type: str
    ) -> None:
        """A model and a data set of one name are two repositories.

        Usually broken by a cache whose key leaves the type out.
        """
        folder = hub_client.snapshot(repo_id, **where)
        held = read_folder(folder)
        for other in sorted({"model", "dataset", "space"} - {repo_type}):
            try:
                theirs = hub_client.snapshot(repo_id, other)
            except NotFound:
                continue
            assert theirs != folder, other
            assert sorted(read_folder(theirs)) == list(hub_client.list_files(repo_id, other))
        assert read_folder(folder) == held

    def test_a_filename_that_leaves_the_repository_gets_nothing(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
        tmp_path: Path,
    ) -> None:
        """A filename with `..`, an absolute one, and an empty one are `InvalidInput` or
        `NotFound`, whether or not there is a file on this machine where they lead.

        Usually broken by joining paths and trusting the result: a name from the network then
        reads any file.
        """
        bait = tmp_path / "bait"
        bait.write_bytes(b"not of the repository")
        folder = hub_client.snapshot(repo_id, **where)
        beside = hub_client.download(repo_id, names[0], **where).parent
        for name in (
            str(bait),
            os.path.relpath(bait, folder),
            os.path.relpath(bait, beside),
            f"{PurePosixPath(names[0]).parts[0]}/../{os.path.relpath(bait, folder)}",
            f"../{folder.name}/{names[0]}",
            f"./../{names[0]}",
            "..",
            ".",
            "",
        ):
            refuses((InvalidInput, NotFound), hub_client.download, repo_id, name, **where)

    def test_no_access_is_unauthorized(
        self,
        hub_client: HubClient,
        repo_type: str,
        gated_repo_id: str | None,
    ) -> None:
        """Files of a repository that exists, but not for these credentials, are `Unauthorized`.

        Usually broken by `NotFound`, after which people look for a typing error instead of asking
        for access.
        """
        gated = self.given(gated_repo_id, "gated_repo_id")
        refuses(Unauthorized, hub_client.snapshot, gated, repo_type)
        name = "config.json"
        with contextlib.suppress(Unauthorized):  # a listing may be for everyone
            name = hub_client.list_files(gated, repo_type)[0]
        refuses(Unauthorized, hub_client.download, gated, name, repo_type)
