"""Trees of files: what is uploaded as a folder, and chosen from by patterns."""

from __future__ import annotations

import fnmatch
import shutil
import uuid
from collections import ChainMap
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from ...errors import AdapterError, InvalidInput
from ...ports import HubClient
from ..conformance import needs, since
from ..refusal import refuses
from .fixtures import HubClientFixtures, read_folder

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
    """`upload` of folders, and snapshots of what they hold."""

    @pytest.fixture
    def uploads(self, upload_repo_id: str | None, repo_type: str) -> tuple[str, str]:
        """The id and type of the repository for uploads."""
        return self.given(upload_repo_id, "upload_repo_id"), repo_type

    @pytest.fixture
    def below(self) -> str:
        """A folder in a repository that no other test uploads to."""
        return f"conformance-{uuid.uuid4().hex}"

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
        source = _written(tmp_path / "source", held)
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
        source = _written(tmp_path / "source", {name: name.encode() for name in names})
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
            expected = {
                name
                for name in every
                if (allow is None or _matches(name, allow)) and not _matches(name, ignore or [])
            }
            assert folder.is_dir()
            assert set(read_folder(folder)) == expected, f"allow={allow}, ignore={ignore}"

    @since("1.5")
    @needs("upload")
    def test_an_upload_leaves_its_source_alone(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """The source of an upload, a file or a folder, is what it was: nothing is moved, changed
        or added to it.

        Usually broken by `rename`, and by a folder of notes about what was uploaded.
        """
        repo_id, repo_type = uploads
        source = _written(tmp_path / "source", {"a": b"a", "sub/b": b"b" * 99, ".c": b"c"})
        before = _tree(source)
        hub_client.upload(repo_id, source, below, repo_type)
        hub_client.upload(repo_id, source / "a", f"{below}/again", repo_type)
        assert _tree(source) == before

    @since("1.5")
    @needs("upload")
    def test_a_snapshot_can_be_uploaded(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """A link to a file is uploaded as what it leads to. So a snapshot, whose files are often
        links into a cache, can be uploaded as a folder.

        Usually broken by copying links: in the repository they lead nowhere.
        """
        repo_id, repo_type = uploads
        held = {"a": b"a", "sub/b": b"b" * 99}
        source = _written(tmp_path / "source", held)
        commit = hub_client.upload(repo_id, source, below, repo_type)
        linked = tmp_path / "linked"
        for name in held:
            (linked / name).parent.mkdir(parents=True, exist_ok=True)
            (linked / name).symlink_to(source / name)
        snapshot = hub_client.snapshot(repo_id, repo_type, commit, [f"{below}/*"]) / below
        for number, folder in enumerate((linked, snapshot)):
            commit = hub_client.upload(repo_id, folder, f"{below}/{number}", repo_type)
        shutil.rmtree(source)  # which a link would need
        for number in range(2):
            for name, content in held.items():
                path = hub_client.download(repo_id, f"{below}/{number}/{name}", repo_type, commit)
                assert path.read_bytes() == content, name

    @since("1.5")
    @needs("upload")
    def test_uploading_the_same_again_is_fine(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """An upload that changes nothing returns a commit that has what was uploaded: a new one,
        or the one that had it already.

        Usually broken by a backend that refuses empty commits: a run that is repeated after it
        had published its weights fails at its very end.
        """
        repo_id, repo_type = uploads
        source = _written(tmp_path / "source", {"a": b"a", "sub/b": b"b"})
        for _ in range(2):
            commit = hub_client.upload(repo_id, source, below, repo_type)
            for name in ("a", "sub/b"):
                path = hub_client.download(repo_id, f"{below}/{name}", repo_type, commit)
                assert path.read_bytes() == name[-1:].encode()

    @since("1.5")
    @needs("upload")
    def test_a_folder_is_not_uploaded_out_of_the_repository(
        self, hub_client: HubClient, uploads: tuple[str, str], tmp_path: Path
    ) -> None:
        """A `path_in_repo` that is absolute, or leaves the repository, is `InvalidInput` for a
        folder as for a file, and nothing is committed.

        Usually broken by a check in one of two branches.
        """
        repo_id, repo_type = uploads
        source = _written(tmp_path / "source", {"conformance": b""})
        before = list(hub_client.list_files(repo_id, repo_type))
        for path in ("/conformance", "..", "../conformance", "conformance/../../up"):
            refuses(InvalidInput, hub_client.upload, repo_id, source, path, repo_type)
        assert list(hub_client.list_files(repo_id, repo_type)) == before

    @since("1.5")
    @needs("upload")
    def test_uploads_at_once_lose_nothing(
        self, hub_client: HubClient, uploads: tuple[str, str], below: str, tmp_path: Path
    ) -> None:
        """Of uploads of several threads, each is in the branch once all have returned, unless it
        was refused by an error; one at least is not.

        Usually broken by reading the newest commit, adding to it and making that the newest: of
        two which do so at once, one is lost without a word.
        """
        repo_id, repo_type = uploads
        start = Barrier(6)

        def upload(number: int) -> dict[str, bytes]:
            held = {f"{number}/{turn}": f"{number} {turn}".encode() for turn in range(3)}
            source = _written(tmp_path, held)
            start.wait()
            done = {}
            for name, content in held.items():
                try:
                    hub_client.upload(repo_id, source / name, f"{below}/{name}", repo_type)
                except AdapterError:
                    continue
                done[name] = content
            return done

        with ThreadPoolExecutor(6) as pool:
            done = dict(ChainMap(*pool.map(upload, range(6))))
        assert done, "every one of them was refused"
        folder = hub_client.snapshot(repo_id, repo_type, "main", [f"{below}/*"]) / below
        assert read_folder(folder) == done

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
        commit = hub_client.upload(repo_id, _written(tmp_path / "s", held), below, repo_type)
        start = Barrier(6)

        def take(_: int) -> Mapping[str, bytes]:
            start.wait()
            return read_folder(hub_client.snapshot(repo_id, repo_type, commit) / below)

        with ThreadPoolExecutor(6) as pool:
            assert all(found == held for found in pool.map(take, range(6)))


def _written(folder: Path, held: Mapping[str, bytes]) -> Path:
    for name, content in held.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def _tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything below a folder: files with their contents, folders with None."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
