"""What is remembered of installed packages, and that it is never in the way of what there is."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest
from crucible_kitchen.adapters import discovery, metadata, remembered
from crucible_kitchen.adapters.discovery import catalog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MANY = metadata.FEWEST + 4


def package(site: Path, name: str, point: str | None = None, version: str = "1.0") -> Path:
    """Install a package by hand, an hour ago."""
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: other>=1\n"
    )
    (info / "entry_points.txt").write_text(
        f"[crucible.adapters]\nblob_store.{point or name} = {name}\n"
        f"[console_scripts]\n{name} = x:y\n"
    )
    return info


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRUCIBLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "installed"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Path:
    """The one folder of packages, whose times are settled."""
    folder = tmp_path / "site"
    for number in range(MANY):
        package(folder, f"acme{number}")
    monkeypatch.setattr(remembered, "SETTLED", 0.0)
    alone(monkeypatch, folder)
    return folder


def alone(monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    """Discover nothing but what is in this folder."""
    of_path = importlib_metadata.distributions
    monkeypatch.setattr(importlib_metadata, "distributions", lambda: of_path(path=[str(site)]))
    # Nor may another test find what was discovered here.
    monkeypatch.setattr(discovery, "_read", functools.lru_cache(discovery._read.__wrapped__))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the packages whose entry points are read."""
    read: list[str] = []
    text_of = importlib_metadata.PathDistribution.read_text

    def counted(self: Any, name: str) -> str | None:
        if name == "entry_points.txt":
            read.append(Path(str(self._path)).name.partition("-")[0])
        return text_of(self, name)

    monkeypatch.setattr(importlib_metadata.PathDistribution, "read_text", counted)
    return read


def found() -> dict[str, str]:
    """Discover, as a new process does: each adapter's name, with its package and version."""
    discovery._read.cache_clear()
    importlib_metadata.MetadataPathFinder.invalidate_caches()
    return {e.name: f"{e.package} {e.version} {e.requires}" for e in catalog().entries}


def test_what_did_not_change_is_not_read_again(site: Path, reads: list[str]) -> None:
    first = found()
    assert len(first) == MANY == len(reads)
    assert found() == first
    assert len(reads) == MANY


def test_a_few_packages_leave_no_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path / "few", "alone")
    monkeypatch.setattr(remembered, "SETTLED", 0.0)
    alone(monkeypatch, tmp_path / "few")
    assert found() == {"alone": "alone 1.0 ('other>=1',)"}
    assert not cache.exists()


def test_a_package_that_is_installed_is_found_at_once(site: Path, reads: list[str]) -> None:
    found()
    package(site, "late")
    assert found()["late"] == "late 1.0 ('other>=1',)"
    assert reads[MANY:] == ["late"]


def test_a_package_that_is_removed_is_gone(site: Path) -> None:
    found()
    shutil.rmtree(site / "acme3-1.0.dist-info")
    assert "acme3" not in found()


def rewritten(info: Path) -> None:
    (info / "entry_points.txt").write_text("[crucible.adapters]\nblob_store.changed = changed\n")


def replaced_with_its_old_times(info: Path) -> None:
    points = info / "entry_points.txt"
    about, text = points.stat(), points.read_text()
    points.unlink()
    points.write_text(text.replace("blob_store.acme5", "blob_store.other"))
    os.utime(points, ns=(about.st_atime_ns, about.st_mtime_ns))


def upgraded(info: Path) -> None:
    shutil.rmtree(info)
    package(info.parent, "acme5", "second", "2.0")


def without_entry_points(info: Path) -> None:
    (info / "entry_points.txt").unlink()


def renamed(info: Path) -> None:
    text = (info / "METADATA").read_text()
    (info / "METADATA").write_text(text.replace("Name: acme5", "Name: acme-five"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rewritten, {"changed": "acme5 1.0 ('other>=1',)"}),
        (replaced_with_its_old_times, {"other": "acme5 1.0 ('other>=1',)"}),
        (upgraded, {"second": "acme5 2.0 ('other>=1',)"}),
        (without_entry_points, {}),
        (renamed, {"acme5": "acme-five 1.0 ('other>=1',)"}),
    ],
)
def test_a_package_that_changed_is_read_again(
    site: Path, change: Callable[[Path], None], says: dict[str, str]
) -> None:
    before = found()
    del before["acme5"]
    change(site / "acme5-1.0.dist-info")
    assert found() == {**before, **says}


def test_a_package_that_changed_just_now_is_not_remembered(
    site: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "SETTLED", 3600.0)
    found()
    assert not cache.exists()


def test_a_package_whose_metadata_is_damaged_is_a_problem_each_time(site: Path) -> None:
    (site / "acme5-1.0.dist-info" / "METADATA").write_text("")
    for _ in range(2):
        assert "acme5" not in found()
        assert [problem.package for problem in catalog().problems] == ["acme5"]


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def altered(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"blob_store.acme5", b"blob_store.evil5"))


def empty(file: Path) -> None:
    file.write_bytes(b"")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [truncated, altered, empty, a_folder])
def test_a_damaged_file_is_as_none(site: Path, cache: Path, damage: Callable[[Path], None]) -> None:
    first = found()
    [file] = cache.iterdir()
    damage(file)
    assert found() == first


@given(content=st.binary())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
def test_whatever_the_file_holds_nothing_is_hidden(content: bytes, site: Path, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    file = remembered.Memory("installed")._file(str(site))
    assert file is not None
    file.write_bytes(content)
    assert len(found()) == MANY


def rewrite(file: Path, text: bytes) -> None:
    """Give the file another content, with its right checksum."""
    file.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(entry=ANYTHING, place=st.none() | st.integers(0, 4))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
def test_whatever_shape_an_entry_has_its_package_is_read_again(
    entry: object, place: int | None, site: Path, cache: Path
) -> None:
    shutil.rmtree(cache, ignore_errors=True)
    first = found()
    [file] = cache.iterdir()
    entries = json.loads(file.read_bytes().partition(b"\n")[2])
    if place is None:
        entries["acme5-1.0.dist-info"] = entry
    elif not isinstance(entry, str | list):  # which may be what a package says
        entries["acme5-1.0.dist-info"][place] = entry
    rewrite(file, json.dumps(entries).encode())
    assert found() == first


@pytest.mark.parametrize("text", [b"[]", b"null", b'"a"', b"1", b"[" * 100_000])
def test_a_file_of_another_shape_is_as_none(site: Path, cache: Path, text: bytes) -> None:
    first = found()
    [file] = cache.iterdir()
    rewrite(file, text)
    assert found() == first


def writable_by_the_group(file: Path) -> None:
    file.chmod(0o620)


def writable_by_all(file: Path) -> None:
    file.chmod(0o602)


def of_another_user(file: Path) -> None:
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(file, 12345, -1)


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.skipif(os.name != "posix", reason="permissions are not in the mode")
@pytest.mark.parametrize(
    "change", [writable_by_the_group, writable_by_all, of_another_user, a_pipe]
)
def test_a_file_that_others_could_have_written_is_not_read(
    site: Path, cache: Path, change: Callable[[Path], None]
) -> None:
    first = found()
    [file] = cache.iterdir()
    text = file.read_bytes().partition(b"\n")[2]
    rewrite(file, text.replace(b"blob_store.acme5", b"blob_store.evil5"))
    assert "evil5" in found()  # it is what the next start believes
    change(file)
    assert found() == first


@pytest.mark.parametrize("where", ["a file", "a folder that may only be read"])
def test_where_nothing_can_be_kept_nothing_is_missed(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    place = tmp_path / "elsewhere"
    if where == "a file":
        place.write_text("")
    else:
        place.mkdir(mode=0o500)
    monkeypatch.setenv("CRUCIBLE_CACHE", str(place))
    assert len(found()) == len(found()) == MANY


def test_without_a_home_nothing_is_missed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CRUCIBLE_CACHE")
    monkeypatch.setattr(Path, "expanduser", nowhere)
    assert len(found()) == MANY


def test_a_file_that_was_not_used_for_long_makes_room(site: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    old = cache / "1-of-another-folder.json"
    old.write_bytes(b"")
    os.utime(old, (1, 1))
    found()
    assert not old.exists()
    assert len(list(cache.iterdir())) == 1


def test_several_may_keep_at_once(site: Path, cache: Path) -> None:
    start = threading.Barrier(8)

    def discover(_: int) -> int:
        start.wait(60)
        return len(list(metadata.packages()))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(discover, range(8))) == {MANY}
    assert [file.suffix for file in cache.iterdir()] == [".json"]
    assert len(found()) == MANY
