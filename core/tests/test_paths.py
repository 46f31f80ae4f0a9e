"""Options that are paths: what `~`, a relative path and an empty text mean, and whether one can be
written.
"""

from __future__ import annotations

import os
import resource as rlimit
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from crucible_kitchen import (
    AdapterOptions,
    InvalidInput,
    LocalPath,
    NotFound,
    Unauthorized,
    Unavailable,
    check_writable,
    expand_home,
)
from pydantic import ValidationError


class Options(AdapterOptions):
    folder: LocalPath = Path("~/blobs")
    cache: LocalPath | None = None
    others: tuple[LocalPath, ...] = ()


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_home_folder_is_expanded_wherever_a_path_is(home: Path) -> None:
    options = Options(folder="~/a", cache="~", others=["~/b", Path("~/c")])
    assert options.folder == home / "a"
    assert options.cache == home
    assert options.others == (home / "b", home / "c")


def test_the_home_folder_is_expanded_in_a_default(home: Path) -> None:
    assert Options().folder == home / "blobs"


@pytest.mark.parametrize("path", ["runs", "./~", "a/~/b", "/data", "a~", "."])
def test_other_paths_stay_as_they_are(path: str) -> None:
    assert Options(folder=path).folder == Path(path)


def test_an_unknown_home_folder_is_an_error_and_not_a_folder_of_that_name() -> None:
    with pytest.raises(ValidationError, match="'~nobody-at-all/runs' does not begin with a home"):
        Options(folder="~nobody-at-all/runs")


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_path_is_not_the_current_folder(empty: str) -> None:
    with pytest.raises(ValidationError, match=r"must not be empty; the current folder is '\.'"):
        Options(folder=empty)


@pytest.mark.parametrize("value", [3, True, ["a"]])
def test_a_value_that_is_not_a_path_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        Options(folder=value)


def test_the_home_folder_can_be_expanded_within_an_address(home: Path) -> None:
    assert expand_home("~/m.db") == home / "m.db"


# --- whether a folder can be written ---


@contextmanager
def not_root() -> Iterator[None]:
    user = os.geteuid()
    os.seteuid(user or 65534)  # root may write anywhere
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("below", [".", "new", "new/and/deeper"])
def test_a_folder_that_can_be_written_or_made_is_tried_and_left_as_it_was(
    home: Path, below: str
) -> None:
    check_writable(home / below)
    assert list(home.iterdir()) == []


def test_nothing_is_left_behind_where_every_file_has_a_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    monkeypatch.setattr(tempfile, "_O_TMPFILE_WORKS", False)
    check_writable(home)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("below", [".", "new"])
def test_a_folder_that_may_not_be_written_is_unauthorized(home: Path, below: str) -> None:
    for above in (home.parent.parent, home.parent):
        above.chmod(0o755)
    home.chmod(0o555)
    with not_root(), pytest.raises(Unauthorized, match=str(home)) as caught:
        check_writable(home / below)
    assert caught.value.no_effect
    home.chmod(0o755)


def test_a_path_that_cannot_be_a_folder_is_refused(home: Path) -> None:
    (home / "file").touch()
    (home / "loop").symlink_to("loop")
    for below, why in (
        ("file", "is a file"),
        ("file/below", "is a file"),
        ("loop", "symbolic links"),
        ("x" * 300, "too long"),
    ):
        with pytest.raises(InvalidInput, match=why):
            check_writable(home / below)
    assert sorted(path.name for path in home.iterdir()) == ["file", "loop"]


def test_a_folder_cannot_replace_a_link_to_nothing(home: Path) -> None:
    (home / "link").symlink_to("nothing")
    with pytest.raises(NotFound, match="link"):
        check_writable(home / "link")


def test_a_disk_without_space_is_unavailable(home: Path) -> None:
    limits = rlimit.getrlimit(rlimit.RLIMIT_FSIZE)
    rlimit.setrlimit(rlimit.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(Unavailable, match=str(home)) as caught:
            check_writable(home / "new")
    finally:
        rlimit.setrlimit(rlimit.RLIMIT_FSIZE, limits)
    assert caught.value.no_effect
    assert list(home.iterdir()) == []
