"""What a report card in an installed package is worth, without importing the package."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import Crucible
from crucible_kitchen import __version__
from crucible_kitchen.adapters import cards, kit, remembered
from crucible_kitchen.adapters.cards import Cards, cards_of
from crucible_kitchen.adapters.contents import files_of, hash_of, hash_of_bytes
from crucible_kitchen.adapters.installed_card import InstalledCard, words_of
from crucible_kitchen.adapters.remembered import Memory

SOURCES = {
    "acme/__init__.py": "raise SystemExit('imported')\n",
    "acme/blob_store.py": "raise SystemExit('imported')\n",
    "acme/data/words.txt": "words\n",
}


def outcomes(*found: str) -> dict[str, Any]:
    """Return the verdicts of a card with these outcomes."""
    return {"verdicts": [{"test": f"test_{n}", "outcome": each} for n, each in enumerate(found)]}


class Site:
    """A folder in which the package acme 1.0 is installed, with cards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.about = folder / "acme-1.0.dist-info"
        self.cards = self.about / "extra_metadata/crucible"
        self.cards.mkdir(parents=True)
        for name, source in SOURCES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(source)
        (self.about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
        (self.about / "entry_points.txt").write_text(
            "[crucible.adapters]\nblob_store.acme = acme.blob_store\n"
        )

    def add(self, name: str = "blob_store.acme.json", **fields: Any) -> None:
        (self.cards / name).write_text(json.dumps({**self.card(), **fields}))

    def card(self) -> dict[str, Any]:
        return {
            "port": "blob_store",
            "adapter": "acme",
            "variant": "",
            "package": "acme",
            "version": "1.0",
            "core": __version__,
            "kit": kit.LEVEL,
            "level": "1.0",
            "kit_digest": kit.digest(),
            "verdicts": [{"test": "test_it", "outcome": "passed"}],
            "not_run": [],
            "files": {name: hash_of(self.folder / name) for name in SOURCES},
        }

    def read(self, version: str = "1.0") -> Sequence[InstalledCard]:
        with Cards() as found:
            return found.of("acme", version, str(self.about))

    def words(self) -> str:
        return words_of(self.read())

    def settle(self) -> None:
        """Make everything look as if it was installed a minute ago."""
        for path in [self.folder, *self.folder.rglob("*")]:
            os.utime(path, (time.time() - 60,) * 2)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("CRUCIBLE_CACHE", str(tmp_path / "cache"))
    return Site(tmp_path / "site")


def test_an_adapter_without_a_card_is_not_checked(site: Site) -> None:
    assert site.read() == []
    assert site.words() == "not checked"


def test_an_adapter_as_its_card_describes_it_is_checked(site: Site) -> None:
    site.add()
    [card] = site.read()
    assert (card.port, card.adapter, card.state) == ("blob_store", "acme", "checked")
    assert card.digest == hashlib.sha256((site.cards / card.file).read_bytes()).hexdigest()
    assert site.words() == "checked"


@pytest.mark.parametrize(
    ("fields", "state", "words"),
    [
        ({"kit": "1.0"}, "older kit", "checked by older kit 1.0"),
        ({"kit": "99.0"}, "other kit", "checked by other kit 99.0"),
        ({"kit_digest": "ab"}, "other kit", f"checked by other kit {kit.LEVEL}"),
        ({"core": "0.0.7"}, "other core", "checked with core 0.0.7"),
        ({"core": "0.0.7", "kit": "1.0"}, "older kit", "checked by older kit 1.0"),
        ({"not_run": ["test_other"]}, "partial", "checked in part"),
        (outcomes("passed", *["warning"] * 24), "lower level", "checked to level 1.0"),
        (outcomes("passed", "xfailed"), "known failures", "checked, 1 known failure"),
        (outcomes("passed", *["xfailed"] * 30), "known failures", "checked, 30 known failures"),
        (outcomes("passed", "xfailed", "warning"), "known failures", "level 1.0, 1 known failure"),
        (outcomes("failed", "xfailed", "warning"), "failed", "failed 1 of 1 checks"),
        ({"kit": "1.0", **outcomes("passed", "warning")}, "lower level", "checked to level 1.0"),
        ({"verdicts": []}, "partial", "checked in part"),
        ({"verdicts": [{"outcome": "failed"}]}, "failed", "failed 1 of 1 checks"),
        ({"version": "0.9"}, "changed", "changed since its check"),
    ],
)
def test_a_card_says_no_more_than_what_it_holds_for(
    site: Site, fields: dict[str, Any], state: str, words: str
) -> None:
    site.add(**fields)
    [card] = site.read()
    assert (card.state, card.words) == (state, words)


def test_a_card_is_not_believed_that_calls_itself_good(site: Site) -> None:
    site.add(ok=True, counts={"passed": 9}, verdicts=[{"outcome": "failed"}])
    assert site.words() == "failed 1 of 1 checks"


def changed_byte(site: Site) -> str:
    path = site.folder / "acme/blob_store.py"
    path.write_bytes(path.read_bytes().replace(b"imported", b"Imported"))
    return "acme/blob_store.py differs"


def changed_data(site: Site) -> str:
    (site.folder / "acme/data/words.txt").write_text("Words\n")
    return "acme/data/words.txt differs"


def removed(site: Site) -> str:
    (site.folder / "acme/data/words.txt").unlink()
    return "acme/data/words.txt is missing"


def added(site: Site) -> str:
    (site.folder / "acme/blob_store.so").write_bytes(b"")
    return "acme/blob_store.so is new"


def added_folder(site: Site) -> str:
    (site.folder / "acme/blob_store").mkdir()
    return "acme/blob_store is new"


CHANGES = [changed_byte, changed_data, removed, added, added_folder]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_noticed(site: Site, change: Callable[[Site], str]) -> None:
    site.add()
    what = change(site)
    [card] = site.read()
    assert (card.state, card.changed) == ("changed", what)


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_noticed_although_the_hashes_are_remembered(
    site: Site, change: Callable[[Site], str]
) -> None:
    site.add()
    site.settle()
    assert site.words() == "checked"
    change(site)
    assert site.words() == "changed since its check"


@pytest.mark.skipif(os.name != "posix", reason="ctime is something else")
def test_a_change_is_noticed_that_keeps_size_and_time(site: Site) -> None:
    site.add()
    site.settle()
    about = os.stat(site.folder / "acme/blob_store.py")
    assert site.words() == "checked"
    changed_byte(site)
    os.utime(site.folder / "acme/blob_store.py", ns=(about.st_atime_ns, about.st_mtime_ns))
    assert site.words() == "changed since its check"


def test_files_that_have_not_changed_are_hashed_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "SETTLED", 0.0)
    site.add()
    time.sleep(0.01)
    first = site.read()
    monkeypatch.setattr(cards, "difference", lambda *_: pytest.fail("hashed again"))
    assert site.read() == first


def test_what_another_release_remembers_is_read_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "SETTLED", 0.0)
    site.add()
    time.sleep(0.01)
    assert site.words() == "checked"
    with Memory("cards") as memory:
        paths, stamp, known = memory.recall(str(site.about))
        memory.keep(str(site.about), [paths, stamp, [{**known[0], "colour": "blue"}]])
    assert site.words() == "checked"


def test_what_an_earlier_release_remembers_is_read_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lack what makes a card worth less."""
    monkeypatch.setattr(remembered, "SETTLED", 0.0)
    site.add(**outcomes("passed", "xfailed"))
    time.sleep(0.01)
    assert site.words() == "checked, 1 known failure"
    with Memory("cards") as memory:
        paths, stamp, known = memory.recall(str(site.about))
        earlier = {key: value for key, value in known[0].items() if key != "xfailed"}
        memory.keep(str(site.about), [paths, stamp, [earlier]])
    assert site.words() == "checked, 1 known failure"


def test_a_card_that_comes_or_goes_is_noticed(site: Site) -> None:
    site.add()
    site.settle()
    assert len(site.read()) == 1
    site.add("blob_store.acme.s3.json", variant="S3")
    assert [card.variant for card in site.read()] == ["", "S3"]
    (site.cards / "blob_store.acme.json").unlink()
    assert [card.variant for card in site.read()] == ["S3"]


def test_bytecode_and_hidden_files_are_no_change(site: Site) -> None:
    site.add()
    (site.folder / "acme/__pycache__").mkdir()
    (site.folder / "acme/__pycache__/x.pyc").write_bytes(b"")
    (site.folder / "acme/.nfs1").write_bytes(b"")
    assert site.words() == "checked"


def test_an_editable_install_is_not_checked(site: Site) -> None:
    """What is imported is the source, elsewhere, which changes at any time."""
    site.add()
    for name in SOURCES:
        (site.folder / name).unlink()
    assert site.words() == "not checked"


def test_the_worst_of_several_variants_is_said(site: Site) -> None:
    site.add()
    site.add("blob_store.acme.s3.json", variant="S3", verdicts=[{"outcome": "failed"}])
    assert site.words() == "failed 1 of 1 checks"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "Expecting value"),
        (b'{"\xff": 1}', "codec can't decode"),
        (b"[]", "it is not a JSON object"),
        (b"[" * 100_000, "RecursionError"),
        (b" " * (1 << 20) + b"{}", "it has more than 1,048,576 bytes"),
    ],
)
def test_what_is_no_card_is_a_problem(site: Site, text: bytes, problem: str) -> None:
    (site.cards / "blob_store.acme.json").write_bytes(text)
    [card] = site.read()
    assert card.state == "unreadable"
    assert problem in card.problem


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"port": "blobstore"}, "there is no port 'blobstore'"),
        ({"adapter": None}, "'adapter' is not a short text"),
        ({"variant": "\x1b]0;title\x07"}, "'variant' is not a short text"),
        ({"core": "1" * 1000}, "'core' is not a short text"),
        ({"kit": "one"}, "the kit has no level 'one'"),
        ({"level": None}, "'level' is not a short text"),
        ({"level": "high"}, "the kit has no level 'high'"),
        ({"package": "other"}, "it is a card of the package 'other'"),
        ({"verdicts": None}, "it lacks verdicts, or the hashes of files"),
        ({"verdicts": ["passed"]}, "TypeError"),
        ({"verdicts": [{}]}, "KeyError"),
        ({"verdicts": [{"outcome": "fine"}]}, "it has an outcome that no test has"),
        ({"files": {}}, "it lacks verdicts, or the hashes of files"),
        ({"files": {"/etc/passwd": "sha256=x"}}, "its files are not those of a package"),
        ({"files": {"../acme/x.py": "sha256=x"}}, "its files are not those of a package"),
        ({"files": {"acme/./x.py": "sha256=x"}}, "its files are not those of a package"),
        ({"files": {"acme/x.py": 1}}, "its files are not those of a package"),
    ],
)
def test_a_card_with_impossible_contents_is_a_problem(
    site: Site, fields: dict[str, Any], problem: str
) -> None:
    site.add(**fields)
    [card] = site.read()
    assert card.state == "unreadable"
    assert problem in card.problem
    assert card.problem.isprintable()


def test_a_card_that_was_changed_after_it_was_installed_is_a_problem(site: Site) -> None:
    site.add(verdicts=[{"outcome": "failed"}])
    inside = "acme-1.0.dist-info/extra_metadata/crucible/blob_store.acme.json"
    digest = hash_of_bytes((site.folder / inside).read_bytes())
    (site.about / "RECORD").write_text(f"{inside},{digest},99\n")
    assert site.words() == "failed 1 of 1 checks"
    site.add()
    [card] = site.read()
    assert card.state == "unreadable"
    assert "RECORD has another hash" in card.problem


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_in_place_of_a_card_is_a_problem_and_not_waited_for(site: Site) -> None:
    os.mkfifo(site.cards / "blob_store.acme.json")
    [card] = site.read()
    assert card.state == "unreadable"


def test_cards_are_found_by_the_name_of_the_package(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.add()
    monkeypatch.syspath_prepend(str(site.folder))
    assert [card.adapter for card in cards_of("Acme")] == ["acme"]
    assert cards_of("no-such-package") == ()


# --- which files count ---


def test_the_files_of_a_package_are_those_of_its_topmost_real_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A namespace is shared by packages, so that its other folders are no part of this one."""
    for name in ("space/blobs/__init__.py", "space/blobs/deep/store.py", "space/other/x.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "alone_blobs.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [*files_of("space.blobs.deep.store")] == [
        "space/blobs/__init__.py",
        "space/blobs/deep/store.py",
    ]
    assert [*files_of("alone_blobs")] == ["alone_blobs.py"]
    assert files_of("no_such_module.at.all") == {}


def test_the_files_of_an_installed_distribution_are_those_of_all_its_import_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["acme_core/__init__.py", "acme_core/made_later.py", "space/blobs.py", "space/deep/a.py"]
    about = tmp_path / "acme-1.0.dist-info"
    about.mkdir()
    for name in [*own, "space/of_another.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    rows = [name for name in own if "later" not in name]
    rows += ["acme-1.0.dist-info/METADATA", "../../bin/acme", "space/__pycache__/blobs.pyc"]
    (about / "RECORD").write_text("".join(f"{row},,\n" for row in rows))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [*files_of("space.blobs", str(about))] == own
    (about / "RECORD").write_text("_acme.pth,,\n")  # as of an editable install
    assert [*files_of("space.blobs", str(about))] == ["space/blobs.py"]


def test_a_second_import_package_that_was_not_checked_is_noticed(site: Site) -> None:
    (site.about / "RECORD").write_text("".join(f"{name},,\n" for name in SOURCES))
    site.add()
    assert site.words() == "checked"
    with (site.about / "RECORD").open("a") as file:
        file.write("acme_core/__init__.py,,\n")
    [card] = site.read()
    assert (card.state, card.changed) == ("changed", "acme_core/__init__.py was not checked")


def test_a_namespace_may_hold_files_of_other_distributions(site: Site) -> None:
    (site.folder / "space/deep").mkdir(parents=True)
    (site.folder / "space/blobs.py").write_text("")
    (site.folder / "space/deep/__init__.py").write_text("")
    names = ("space/blobs.py", "space/deep/__init__.py")
    site.add(files={name: hash_of(site.folder / name) for name in names})
    (site.folder / "space/of_another.py").write_text("")
    assert site.words() == "checked"
    (site.folder / "space/deep/new.py").write_text("")
    assert site.words() == "changed since its check"


# --- as the commands show it ---


@pytest.fixture
def run(site: Site, plain_crucible: Crucible) -> Crucible:
    return lambda *arguments: plain_crucible(*arguments, PYTHONPATH=str(site.folder))


def line_of(text: str, name: str) -> str:
    [line] = [line for line in text.splitlines() if line.split()[1:2] == [name]]
    return line


def test_the_list_of_adapters_says_it_and_imports_nothing(site: Site, run: Crucible) -> None:
    site.add()
    outcome = run("adapters")
    assert outcome.code == 0, outcome
    assert line_of(outcome.out, "acme").split() == [
        *("blob_store", "acme", "acme", "1.0", "checked")
    ]
    assert line_of(outcome.out, "jsonl").endswith("not checked")
    [acme] = [a for a in json.loads(run("adapters", "list", "--json").out) if a["name"] == "acme"]
    assert acme["conformance"] == "checked"


def test_doctor_names_what_is_wrong_with_a_card(site: Site, run: Crucible) -> None:
    (site.folder / "acme/__init__.py").write_text("")
    (site.folder / "acme/blob_store.py").write_text("from kitchen_noop.blob_store import *\n")
    site.add(verdicts=[{"outcome": "failed"}])
    outcome = run("doctor")
    assert "blob_store.acme card" in outcome.out
    assert "failed 1 of 1 checks: 1 failed" in outcome.out
    (site.cards / "blob_store.acme.json").write_text("\x1b[2J")
    outcome = run("doctor")
    assert outcome.code == 1
    assert "blob_store.acme.json: " in outcome.out
    assert "\x1b" not in outcome.out + outcome.err


def test_show_says_what_each_card_says(site: Site, run: Crucible) -> None:
    (site.folder / "acme/__init__.py").write_text("")
    (site.folder / "acme/blob_store.py").write_text("from kitchen_noop.blob_store import *\n")
    site.add()
    site.add("blob_store.acme.s3.json", variant="S3", core="0.0.7")
    outcome = run("adapters", "show", "blob_store.acme")
    assert outcome.code == 0, outcome
    assert f"checked: 1 passed; crucible-kitchen {__version__}, kit level " in outcome.out
    assert "checked with core 0.0.7 on S3: 1 passed; crucible-kitchen 0.0.7" in outcome.out
