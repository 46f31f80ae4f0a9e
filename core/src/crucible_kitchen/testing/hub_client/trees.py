"""Trees of files: every name, and what patterns choose of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from ...ports import HubClient
from ..conformance import needs, since
from .fixtures import HubClientFixtures, read_folder, write_folder
from .snapshots import matching

NAMES = (
    "a",
    "a.b",
    "a-b/c",
    "a_b",
    "B",
    "Sub/a",
    "sub/a",
    "sub/A",
    "sub_a",
    "sub--a",
    "sub/deeper/a",
    "sub.d/a",
    "sub2/a",
    ".hidden",
    ".message",
    ".folder/a",
    "a.log",
    "a.pyc",
    "a~",
    "a.tmp",
    "a.unfinished",
    "__pycache__/a.py",
    "main",
    "refs/main",
    "commits/a",
    "empty",
    "with space",
    "naïve-数据-🙂",
    "percent%20and%2F",
    "plus+and&and=and#and?",
    "quote'and`",
    "[bracket]{brace}",
    "-dash",
)
"""Files of a repository that must work, in whatever order a listing has them."""

PATTERNS: tuple[tuple[list[str] | None, list[str] | None], ...] = (
    (None, None),
    ([], None),
    (["*"], []),
    (["*"], ["*"]),
    (["*/sub/*"], None),
    (["*/SUB/*", "*/b"], None),
    (["*/su", "@/su"], None),
    (["*/sub", "@/sub", "@/s"], None),
    (["@/sub/*"], ["@/sub/d", "@"]),
    (["a", "*/deeper/?"], None),
    (["*.[a-l]*"], ["*.log", "*/.*"]),
    (["*/[ab]"], ["*/sub/*", "*/B"]),
    (["*/sub/*", "*/a.*"], ["*/sub/*"]),
    (["*/nothing*"], None),
)
"""What a snapshot is asked for: `allow_patterns` and `ignore_patterns`; `@` is the folder."""


class Trees(HubClientFixtures):
    """What was uploaded as a folder, as it is listed, downloaded and chosen from."""

    @since("1.5")
    @needs("upload")
    def test_any_name_works_in_a_repository(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """Every file of an uploaded folder is there, under its name: hidden ones, those that look
        temporary, those that differ in case, or in `/` and `_`, and those whose letters mean
        something to a URL. Listings are sorted as texts; what was there before stays.

        Usually broken by a list of names to leave out, a cache of files by the last part of their
        path, and names that the adapter has taken for itself.
        """
        repo_id, repo_type = uploads
        held = {name: b"" if name == "empty" else f"of {name}".encode() for name in NAMES}
        source = write_folder(tmp_path / "source", held)
        before = set(hub_client.list_files(repo_id, repo_type))
        commit = hub_client.upload(repo_id, source, below, repo_type)
        expected = {f"{below}/{name}": content for name, content in held.items()}
        for revision in (commit, "main"):
            listed = list(hub_client.list_files(repo_id, repo_type, revision))
            assert [name for name in listed if name in expected] == sorted(expected)
            assert listed == sorted(listed)
            assert before < set(listed)
        for name, content in expected.items():
            path = hub_client.download(repo_id, name, repo_type, commit)
            assert path.read_bytes() == content, name
        folder = hub_client.snapshot(repo_id, repo_type, commit, [f"{below}/*"])
        assert read_folder(folder / below) == held

    @since("1.5")
    def test_a_downloaded_file_has_its_name(
        self,
        hub_client: HubClient,
        repo_id: str,
        where: Mapping[str, str],
        names: Sequence[str],
    ) -> None:
        """The path that `download` returns ends with the file's path in the repository.

        Usually broken by a cache of files by their hash: what opens them by their suffix then
        takes a JSON file, or weights in safetensors, for something else.
        """
        for name in names:
            path = hub_client.download(repo_id, name, **where)
            assert path.as_posix().endswith(f"/{name}"), path

    @since("1.5")
    @needs("upload")
    def test_patterns_choose_exactly_what_they_match(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """A snapshot of a commit of which nothing was fetched holds what the patterns match, and
        nothing else: no pattern, an empty list of them, and patterns that match nothing are three
        different things.

        Usually broken by `if allow_patterns:`, by patterns that fold the case, match the last
        part of a path or its beginning, and by `allow_patterns` that win over `ignore_patterns`.
        """
        repo_id, repo_type = uploads
        names = [name for name in NAMES if name.isascii()]
        source = write_folder(tmp_path / "source", {name: name.encode() for name in names})
        hub_client.upload(repo_id, source, below, repo_type)
        (tmp_path / "turn").write_bytes(b"")
        for turn, patterns in enumerate(PATTERNS):
            allow, ignore = (
                None if each is None else [pattern.replace("@", below) for pattern in each]
                for each in patterns
            )
            (tmp_path / "turn").write_text(f"{turn}")
            commit = hub_client.upload(repo_id, tmp_path / "turn", f"{below}/turn", repo_type)
            every = hub_client.list_files(repo_id, repo_type, commit)
            folder = hub_client.snapshot(repo_id, repo_type, commit, allow, ignore)
            expected = matching(every, allow, ignore)
            assert set(read_folder(folder)) == expected, f"allow={allow}, ignore={ignore}"

    @since("1.5")
    @needs("upload")
    def test_many_threads_take_the_first_snapshot_of_a_commit(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """Threads that ask for a snapshot at the same moment, the first of a commit, each find
        every file in it, whole.

        Usually broken by a folder that is returned because it exists, while another thread fills
        it.
        """
        repo_id, repo_type = uploads
        held = {f"{number}/part": bytes([number]) * (200_000 + number) for number in range(24)}
        commit = hub_client.upload(repo_id, write_folder(tmp_path / "s", held), below, repo_type)
        start = Barrier(6)

        def take(_: int) -> Mapping[str, bytes]:
            start.wait()
            return read_folder(hub_client.snapshot(repo_id, repo_type, commit) / below)

        with ThreadPoolExecutor(6) as pool:
            assert all(found == held for found in pool.map(take, range(6)))
