"""Rendered rows are kept under everything that they depend on, and never trusted blindly."""

from __future__ import annotations

import datetime
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from character_tokenizers import Begun, Characters, Thinking
from crucible_kitchen import InvalidInput
from crucible_kitchen.workflows.rows import cache as render_cache
from crucible_kitchen.workflows.rows.examples import RowReader
from crucible_kitchen.workflows.rows.judge import Judge
from crucible_kitchen.workflows.rows.key import key, tokenizer_digest
from crucible_kitchen.workflows.rows.rendering import Example, Renderer
from crucible_kitchen.workflows.rows.sequences import Writer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRUCIBLE_CACHE", str(tmp_path))
    return tmp_path / "rendered"


class Filler:
    """Writes one sequence, and counts how often."""

    def __init__(self, tokens: int = 3) -> None:
        self.calls = 0
        self.tokens = tokens

    def __call__(self, writer: Writer) -> Mapping[str, Any]:
        self.calls += 1
        ones = np.ones(self.tokens, np.float32)
        writer.append(Example(np.arange(self.tokens), ones))
        return {"rows": 1}


def test_what_was_rendered_is_not_rendered_again(folder: Path) -> None:
    fill = Filler()
    made, found = (render_cache.kept("a", fill) for _ in range(2))
    assert fill.calls == 1
    assert made.fingerprint == found.fingerprint
    assert found.about == {"rows": 1}
    assert [path.name for path in folder.iterdir()] == ["a.rows"]
    render_cache.kept("b", fill)
    assert fill.calls == 2


@pytest.mark.parametrize("damage", [b"", b"no rows", None])
def test_a_damaged_file_is_made_again(folder: Path, damage: bytes | None) -> None:
    fill = Filler()
    render_cache.kept("a", fill)
    path = folder / "a.rows"
    path.write_bytes(path.read_bytes()[1:] if damage is None else damage)
    assert len(render_cache.kept("a", fill)) == 1
    assert fill.calls == 2
    render_cache.kept("a", fill)
    assert fill.calls == 2


def test_what_fails_leaves_nothing_behind(folder: Path) -> None:
    def fails(writer: Writer) -> Mapping[str, Any]:
        Filler()(writer)
        raise InvalidInput("a bad row")

    with pytest.raises(InvalidInput, match="a bad row"):
        render_cache.kept("a", fails)
    assert list(folder.iterdir()) == []


def test_the_files_that_were_not_used_for_the_longest_time_are_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = Filler(1000)
    render_cache.kept("size", fill)
    size = (folder / "size.rows").stat().st_size
    monkeypatch.setattr(render_cache, "LARGEST", 3 * size)
    now = time.time() - render_cache._IN_USE
    for age, name in enumerate(("a", "b")):
        render_cache.kept(name, fill)
        os.utime(folder / f"{name}.rows", (now - 100 + age,) * 2)
    os.utime(folder / "size.rows", (now - 200,) * 2)
    render_cache.kept("a", fill)  # used, so now the newest
    render_cache.kept("c", fill)
    assert {path.stem for path in folder.iterdir()} == {"a", "b", "c"}
    render_cache.kept("d", fill)
    assert {path.stem for path in folder.iterdir()} == {"a", "c", "d"}
    monkeypatch.setattr(render_cache, "LARGEST", 1)
    render_cache.kept("e", fill)
    # Used within the last week: another machine may have them mapped.
    assert {path.stem for path in folder.iterdir()} == {"a", "c", "d", "e"}
    for path in folder.iterdir():
        os.utime(path, (now, now))
    render_cache.kept("f", fill)
    assert {path.stem for path in folder.iterdir()} == {"f"}


def test_what_a_killed_process_left_is_removed_after_a_day(folder: Path) -> None:
    folder.mkdir()
    for name, age in (("old", 2), ("young", 0)):
        (folder / f"{name}.part").write_bytes(b"")
        os.utime(folder / f"{name}.part", (time.time() - age * 24 * 3600,) * 2)
    (folder / "mine.txt").write_bytes(b"")
    render_cache.kept("a", Filler())
    assert {path.name for path in folder.iterdir()} == {"a.rows", "young.part", "mine.txt"}


def test_a_folder_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("CRUCIBLE_CACHE", str(tmp_path / "file"))
    fill = Filler()
    assert [len(render_cache.kept("a", fill)) for _ in range(2)] == [1, 1]
    assert fill.calls == 2


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CRUCIBLE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert render_cache.folder() == Path("/cache/crucible-kitchen/rendered")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert render_cache.folder() == Path.home() / ".cache/crucible-kitchen/rendered"


# --- what the key depends on ---


def judge(
    tokenizer: Characters | None = None,
    reader: RowReader | None = None,
    date: datetime.date | None = None,
    **settings: Any,
) -> Judge:
    about = {name: settings.pop(name) for name in ("train_on",) if name in settings}
    kwargs = settings.pop("kwargs", {})
    renderer = Renderer(tokenizer or Characters(), chat_template_kwargs=kwargs, date=date, **about)
    return Judge(reader or RowReader(), renderer, **settings)


class Dated(Characters):
    chat_template = "{{ strftime_now('%d') }}"


class Limited(Characters):
    model_max_length = 100


def test_whatever_changes_the_sequences_changes_the_key() -> None:
    made = [
        judge(),
        judge(Begun()),
        judge(Thinking()),
        judge(Limited()),
        judge(reader=RowReader(prompt="{a}")),
        judge(reader=RowReader(completion="{a}")),
        judge(reader=RowReader(messages_field="a")),
        judge(reader=RowReader(text_field="a")),
        judge(train_on="all_tokens"),
        judge(too_long="drop"),
        judge(max_length=7),
        judge(kwargs={"a": 1}),
        judge(kwargs={"a": 2}),
        judge(Dated(), date=datetime.date(2026, 1, 1)),
        judge(Dated(), date=datetime.date(2026, 1, 2)),
    ]
    keys = [key(each, "rows") for each in made]
    assert len({*keys, key(judge(), "other rows")}) == len(made) + 1


def test_the_key_is_the_same_in_the_next_process_and_on_the_next_day() -> None:
    assert key(judge(), "rows") == key(judge(), "rows")
    days = [judge(date=datetime.date(2026, 1, day)) for day in (1, 2)]
    assert key(days[0], "rows") == key(days[1], "rows")


def test_the_key_is_the_same_whatever_was_imported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for jinja2 in (SimpleNamespace(__version__="3.1"), None):
        monkeypatch.setitem(sys.modules, "jinja2", jinja2)
        made.append(key(judge(), "rows"))
    assert made[0] == made[1]


def test_the_contents_of_a_tokenizer_count_where_it_can_write_them() -> None:
    class Backend:
        def __init__(self, text: str) -> None:
            self._text = text

        def to_str(self) -> str:
            return self._text

    class Fast(Characters):
        def __init__(self, text: str) -> None:
            self.backend_tokenizer = Backend(text)

    assert tokenizer_digest(Fast("a")) == tokenizer_digest(Fast("a"))
    assert tokenizer_digest(Fast("a")) != tokenizer_digest(Fast("b"))


def test_a_file_that_another_process_made_meanwhile_is_not_replaced(folder: Path) -> None:
    def fill_after_another(writer: Writer) -> Mapping[str, Any]:
        render_cache.kept("same", Filler(3))
        return Filler(3)(writer)

    inodes: list[int] = []

    def fill(writer: Writer) -> Mapping[str, Any]:
        about = fill_after_another(writer)
        inodes.append((folder / "same.rows").stat().st_ino)
        return about

    assert len(render_cache.kept("same", fill)) == 1
    assert [path.stat().st_ino for path in folder.iterdir()] == inodes


def test_a_folder_that_may_only_be_read_is_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render_cache.kept("a", Filler(3))

    def refused(*args: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(os, "utime", refused)
    assert len(render_cache.kept("a", unexpected)) == 1


def test_a_folder_that_vanishes_while_rows_are_rendered_ends_no_run(folder: Path) -> None:
    def fill(writer: Writer) -> Mapping[str, Any]:
        about = Filler(3)(writer)
        shutil.rmtree(folder)
        return about

    assert len(render_cache.kept("a", fill)) == 1


def unexpected(writer: Writer) -> Mapping[str, Any]:
    raise AssertionError("the kept rows were not used")


class Daily(Characters):
    """Its chat template writes the date of the day, unless it is given another one."""

    chat_template = "{{ strftime_now('%d') }}"

    def __init__(self, day: str) -> None:
        self.day = day

    def apply_chat_template(
        self, messages: Any, *, tokenize: bool = True, chat_template: Any = None, **options: Any
    ) -> Any:
        text = self.day if chat_template is None else "fixed"
        return self.encode(text) if tokenize else text


def test_a_tokenizer_whose_template_writes_the_date_has_the_same_digest_every_day() -> None:
    assert tokenizer_digest(Daily("monday")) == tokenizer_digest(Daily("tuesday"))
