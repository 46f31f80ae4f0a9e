"""Paths mean the same in every option: `~` is the home folder, `x` is in the current one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crucible_kitchen import ConfigurationError, Kitchen
from crucible_kitchen.settings import in_code


def metrics(**options: Any) -> None:
    with Kitchen(adapters={"metrics_store": options}) as kitchen:
        kitchen.metrics_store.record("run", "loss", 1.0, 1)
        kitchen.metrics_store.flush("run")


def blobs(**options: Any) -> None:
    with Kitchen(adapters={"blob_store": options}) as kitchen:
        kitchen.blob_store.write("run/final", b"weights")


def observe(**options: Any) -> None:
    with Kitchen(settings=in_code({"observe": options})) as kitchen:
        kitchen.observe_as_configured()


def cache(port: str, **options: Any) -> None:
    """Make the folder of the cache; filling it would need a hub."""
    with Kitchen(adapters={port: options}) as kitchen:
        found: Path = getattr(kitchen, port).options.cache_dir
        found.mkdir(parents=True)


USES: dict[str, Callable[[str], None]] = {
    "jsonl": lambda path: metrics(use="jsonl", path=path),
    "sql": lambda path: metrics(use="sql", url=f"sqlite:///{path}"),
    "fsspec": lambda path: blobs(use="fsspec", url=path),
    "hf-hub": lambda path: cache("hub_client", use="hf-hub", cache_dir=path),
    "hf-datasets": lambda path: cache("dataset_store", use="hf-datasets", cache_dir=path),
    "observe.jsonl": lambda path: observe(jsonl=path),
}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder, next to the current one."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


@pytest.mark.parametrize("option", USES)
def test_a_tilde_is_the_home_folder(option: str, home: Path) -> None:
    USES[option]("~/deep/place")
    assert (home / "deep" / "place").exists()
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("option", USES)
def test_a_relative_path_begins_in_the_current_folder(option: str, home: Path) -> None:
    USES[option]("deep/place")
    assert Path("deep/place").exists()
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("option", USES)
def test_an_unknown_home_folder_is_refused_and_never_made(option: str) -> None:
    with pytest.raises(ConfigurationError, match="does not begin with a home folder"):
        USES[option]("~nobody-at-all/place")
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("option", [option for option in USES if option != "sql"])
def test_an_empty_path_is_refused(option: str) -> None:
    with pytest.raises(ConfigurationError), contextlib.suppress(FileExistsError):
        USES[option]("")


def test_a_relative_path_of_a_file_begins_in_the_current_folder_too() -> None:
    Path("settings").mkdir()
    file = Path("settings", "crucible.toml")
    file.write_text('[adapters]\nblob_store = { use = "fsspec", url = "runs" }\n')
    with Kitchen.load(file) as kitchen:
        kitchen.blob_store.write("final", b"weights")
    assert Path("runs", "final").read_bytes() == b"weights"
