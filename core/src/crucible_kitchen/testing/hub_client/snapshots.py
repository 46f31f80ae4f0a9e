"""Snapshots of a repository, whole or by patterns."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from ...ports import HubClient
from .fixtures import HubClientFixtures, read_folder


class Snapshots(HubClientFixtures):
    """`snapshot`."""

    def test_a_snapshot_holds_every_file_and_no_other(
        self, hub_client: HubClient, repo_id: str, where: Mapping[str, str], names: Sequence[str]
    ) -> None:
        """`snapshot` returns a folder with each file that `list_files` names, and nothing else.

        Usually broken by files that are skipped because of their name, and by files that belong
        to another revision or to the adapter.
        """
        folder = hub_client.snapshot(repo_id, **where)
        assert isinstance(folder, Path)
        assert folder.is_absolute(), f"{folder} depends on the working directory"
        assert sorted(read_folder(folder)) == list(names)

    def test_a_snapshot_and_downloads_agree(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        contents: Mapping[str, bytes],
    ) -> None:
        """Each file of a snapshot has the content that the repository has, and `download` returns.

        Usually broken by two ways to fetch a file, only one of which is tested.
        """
        snapshot = read_folder(hub_client.snapshot(repo_id, **where))
        assert {name: snapshot.get(name) for name in contents} == contents
        for name in contents:
            assert hub_client.download(repo_id, name, **where).read_bytes() == snapshot[name], name

    def test_a_snapshot_is_whole_after_one_download(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
    ) -> None:
        """A snapshot has every file, also where some of them were fetched before.

        Usually broken by taking a folder that exists for a snapshot that was finished.
        """
        hub_client.download(repo_id, names[0], **where)
        assert sorted(read_folder(hub_client.snapshot(repo_id, **where))) == list(names)
        hub_client.snapshot(repo_id, allow_patterns=[names[-1]], **where)
        assert sorted(read_folder(hub_client.snapshot(repo_id, **where))) == list(names)

    def test_patterns_choose_the_files_of_a_snapshot(
        self, hub_client: HubClient, repo_id: str, where: Mapping[str, str], names: Sequence[str]
    ) -> None:
        """A snapshot holds what one of `allow_patterns` matches and none of `ignore_patterns`
        does; others are not fetched. Patterns are the shell's, on the whole path, as those of the
        Hugging Face Hub are: `*` matches `/` as well, and case counts. Where nothing matches, the
        folder is there, without new files.

        Usually broken by one of the two being dropped, which fetches a hundred gigabytes of
        checkpoints for a tokenizer; and by patterns on the last part of the path.
        """
        # What is there already may stay, in the folder that a snapshot shares with downloads.
        first = hub_client.download(repo_id, names[0], **where)
        shared = first.parents[names[0].count("/")]
        there = set(read_folder(shared)) if shared / names[0] == first else set()
        last, *inside = names[-1], *(PurePosixPath(name).name for name in names if "/" in name)
        kind = f"*{PurePosixPath(last).suffix or last}"
        # From few files to all.
        cases: list[tuple[list[str] | None, list[str] | None]] = [
            ([], None),
            (
                [last.swapcase(), "no-such-file", *(name for name in inside if name not in names)],
                [],
            ),
            (["*"], ["*"]),
            ([kind], [last]),
            ([last], None),
            ([kind, names[0]], []),
            (["*/*"], None),
            (None, [kind]),
            (None, [names[0], "*/*"]),
            (None, []),
        ]
        for allow, ignore in cases:
            folder = hub_client.snapshot(
                repo_id, allow_patterns=allow, ignore_patterns=ignore, **where
            )
            found, right = set(read_folder(folder)), matching(names, allow, ignore)
            assert found >= right, f"allow={allow}, ignore={ignore}"
            if folder == shared:
                assert found - there <= right, f"allow={allow}, ignore={ignore}"
            there |= found

    def test_any_patterns_choose_what_they_match(
        self, hub_client: HubClient, repo_id: str, where: Mapping[str, str], names: Sequence[str]
    ) -> None:
        """Whatever the patterns, and whatever was fetched before, every file that matches is in
        the snapshot.

        Usually broken by a record of what was fetched that forgets under which patterns.
        """
        parts = {part for name in names for part in PurePosixPath(name).parts}
        patterns = sorted({*names, *(f"{part}*" for part in parts), *(f"*{p}" for p in parts)})
        chosen = st.none() | st.lists(st.sampled_from([*patterns, "*", "*.*", "?*"]), max_size=3)

        @self.hypothesis_settings()
        @given(allow=chosen, ignore=chosen)
        def check(allow: list[str] | None, ignore: list[str] | None) -> None:
            folder = hub_client.snapshot(
                repo_id, allow_patterns=allow, ignore_patterns=ignore, **where
            )
            assert set(read_folder(folder)) >= matching(names, allow, ignore)

        check()


def matching(names: Sequence[str], allow: list[str] | None, ignore: list[str] | None) -> set[str]:
    """Return the names that the patterns choose."""

    def matches(name: str, patterns: list[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return {
        name
        for name in names
        if (allow is None or matches(name, allow)) and not matches(name, ignore or [])
    }
