"""Options that are paths: what `~`, a relative path and an empty text mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from crucible_kitchen import AdapterOptions, LocalPath, expand_home
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
    options = Options(folder="~/a", cache="~", others=["~/b", Path("~/c")])  # type: ignore[arg-type]
    assert options.folder == home / "a"
    assert options.cache == home
    assert options.others == (home / "b", home / "c")


def test_the_home_folder_is_expanded_in_a_default(home: Path) -> None:
    assert Options().folder == home / "blobs"


@pytest.mark.parametrize("path", ["runs", "./~", "a/~/b", "/data", "a~", "."])
def test_other_paths_stay_as_they_are(path: str) -> None:
    assert Options(folder=path).folder == Path(path)  # type: ignore[arg-type]


def test_the_home_folder_of_nobody_is_an_error_and_no_folder_of_that_name() -> None:
    with pytest.raises(ValidationError, match=r"'~nobody-at-all/runs' begins with no home folder"):
        Options(folder="~nobody-at-all/runs")  # type: ignore[arg-type]


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_path_is_not_the_current_folder(empty: str) -> None:
    with pytest.raises(ValidationError, match=r"must not be empty; the current folder is '\.'"):
        Options(folder=empty)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [3, True, ["a"]])
def test_what_is_no_path_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        Options(folder=value)  # type: ignore[arg-type]


def test_the_home_folder_can_be_expanded_within_an_address(home: Path) -> None:
    assert expand_home("~/m.db") == home / "m.db"
