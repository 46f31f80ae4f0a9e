"""Report cards of a test run: the same however it is run, and never more than was found out."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Crucible, clean_environ
from crucible_kitchen.testing import BlobStoreConformance
from crucible_kitchen.testing.badge import badge
from crucible_kitchen.testing.report import ReportCard, Verdict

pytestmark = pytest.mark.slow

SUITE = """
import pytest
from crucible_kitchen.testing import BlobStoreConformance, bound

class TestNoop(BlobStoreConformance):
    max_examples = 2

    @pytest.fixture
    def blob_store(self):
        with bound("blob_store", "noop", latency_scale=0) as store:
            yield store

    @pytest.mark.xfail(reason="a bucket with versions")
    def test_a_write_replaces(self, blob_store, folder):
        raise AssertionError
"""
PARAMETERS = """
    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_of_mine(self, blob_store, number):
        assert number
"""
SECOND = """
class TestOther(BlobStoreConformance):
    max_examples = 2

    @pytest.fixture
    def blob_store(self):
        with bound("blob_store", "noop", latency_scale=0) as store:
            yield store
"""
FEW = "test_a_write_replaces or test_what_is_missing_is_not_found or test_what_is_deleted_is_gone"

Cards = Callable[..., tuple[int, str, dict[str, dict[str, Any]]]]


@pytest.fixture
def cards(tmp_path: Path) -> Cards:
    """Run pytest on a module; return its exit code, its output and the cards that it wrote."""

    def run(source: str, *arguments: str) -> tuple[int, str, dict[str, dict[str, Any]]]:
        (tmp_path / "test_it.py").write_text(source)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", *arguments),
                *("-p", "crucible_kitchen.testing.plugin", "--report-cards", "cards"),
                *(argument for argument in ["test_it.py"] if "::" not in "".join(arguments)),
            ],
            cwd=tmp_path,
            env=clean_environ(),
            capture_output=True,
            text=True,
        )
        found = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("cards/*.json")}
        return done.returncode, done.stdout + done.stderr, found

    return run


def without_times(card: dict[str, Any]) -> dict[str, Any]:
    verdicts = [{**verdict, "seconds": 0} for verdict in card["verdicts"]]
    return {**card, "verdicts": verdicts}


def test_cards_of_two_processes_are_those_of_one(cards: Cards) -> None:
    pytest.importorskip("xdist")
    source = SUITE + PARAMETERS + SECOND + '    variant = "S3"\n'
    code, said, alone = cards(source)
    assert code == 0, said
    code, said, together = cards(source, "-n", "2")
    assert code == 0, said
    assert sorted(alone) == sorted(together) == ["blob_store.noop.json", "blob_store.noop.s3.json"]
    for name, card in alone.items():
        assert without_times(together[name]) == without_times(card)
        assert card["ok"]
        assert card["not_run"] == []


def test_a_card_is_in_the_order_of_the_suite_whatever_is_run_first(
    cards: Cards, tmp_path: Path
) -> None:
    _, _, forth = cards(SUITE, "-k", FEW)
    (tmp_path / "conftest.py").write_text(
        "def pytest_collection_modifyitems(items): items.reverse()"
    )
    _, _, back = cards(SUITE, "-k", FEW)
    names = [verdict["test"] for verdict in back["blob_store.noop.json"]["verdicts"]]
    assert names == [test for test in BlobStoreConformance.promises if test in FEW.split(" or ")]
    assert without_times(back["blob_store.noop.json"]) == without_times(
        forth["blob_store.noop.json"]
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["-k", "test_what_is_missing_is_not_found"],
        ["--deselect", "test_it.py::TestNoop::test_what_is_missing_is_not_found"],
        ["test_it.py::TestNoop::test_what_is_missing_is_not_found"],
    ],
    ids=["-k", "--deselect", "by name"],
)
def test_a_card_of_a_part_says_so_and_is_not_in_order(cards: Cards, arguments: list[str]) -> None:
    code, said, found = cards(SUITE, *arguments)
    assert code == 0, said
    [card] = found.values()
    assert card["partial"]
    assert not card["ok"]
    assert card["counts"].get("failed", 0) == 0
    tried = {verdict["test"] for verdict in card["verdicts"]}
    assert tried.isdisjoint(card["not_run"])
    assert f"{len(card['not_run'])} not run: a partial card" in said


def test_a_card_of_one_set_of_parameters_says_so(cards: Cards) -> None:
    source = SUITE + PARAMETERS
    _, _, found = cards(source, "--deselect", "test_it.py::TestNoop::test_of_mine[2]")
    [card] = found.values()
    assert card["not_run"] == ["test_of_mine"]
    assert "test_of_mine" in [verdict["test"] for verdict in card["verdicts"]]
    assert not card["ok"]


def test_a_card_of_what_failed_last_says_so(cards: Cards, tmp_path: Path) -> None:
    failing = SUITE.replace("xfail", "xfail(strict=True, raises=KeyError, ").replace(", (", ", ")
    code, said, _ = cards(failing)
    assert code == 1, said
    code, said, found = cards(SUITE, "--lf")
    assert code == 0, said
    [card] = found.values()
    assert [verdict["test"] for verdict in card["verdicts"]] == ["test_a_write_replaces"]
    assert not card["ok"]


def test_a_card_of_a_run_that_stopped_at_a_failure_says_so(cards: Cards) -> None:
    code, said, found = cards(
        SUITE.replace("with bound", "raise OSError\n        with bound"), "-x"
    )
    assert code == 1, said
    [card] = found.values()
    assert card["counts"] == {"failed": 1}
    assert card["not_run"][-1] == [*BlobStoreConformance.promises][-1]


def test_a_card_of_a_process_that_died_says_so(cards: Cards) -> None:
    pytest.importorskip("xdist")
    dying = SUITE + "\n    def test_dies(self, blob_store):\n        import os; os._exit(1)\n"
    code, said, found = cards(dying, "-n", "2", "-k", f"{FEW} or test_dies")
    assert code == 1, said
    [card] = found.values()
    assert "test_dies" in card["not_run"]


def test_two_suites_that_would_share_a_card_are_an_error(cards: Cards, tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards/blob_store.noop.json").write_text("{}")  # of an earlier run
    code, said, found = cards(SUITE + SECOND, "-k", FEW)
    assert code == 1
    assert "test_it.py::TestNoop and test_it.py::TestOther have one card" in said
    assert 'the class attribute `variant`, such as variant = "S3"' in said
    assert found == {}


def test_two_suites_of_other_variants_have_cards_of_their_own(cards: Cards) -> None:
    code, _, found = cards(SUITE + SECOND + '    variant = "S3, by path"\n', "-k", FEW)
    assert code == 0
    assert sorted(found) == ["blob_store.noop.json", "blob_store.noop.s3,-by-path.json"]


MIXED = SUITE.replace("@pytest.fixture", '@pytest.fixture(params=["noop", "fsspec"])').replace(
    """def blob_store(self):
        with bound("blob_store", "noop", latency_scale=0) as store:""",
    """def blob_store(self, request, tmp_path):
        options = {"noop": {"latency_scale": 0}, "fsspec": {"url": str(tmp_path)}}
        with bound("blob_store", request.param, **options[request.param]) as store:""",
)


def test_a_suite_that_is_run_on_two_adapters_is_an_error(cards: Cards) -> None:
    code, said, found = cards(MIXED, "-k", FEW)
    assert code == 1, said
    assert "test_it.py::TestNoop was run on fsspec and noop, so it has no card" in said
    assert found == {}


def test_a_folder_of_cards_that_cannot_be_one_is_named_before_any_test(
    cards: Cards, tmp_path: Path
) -> None:
    (tmp_path / "cards").write_text("")
    code, said, _ = cards(SUITE, "-k", FEW)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "--report-cards: cards cannot be a folder: File exists" in said
    assert "INTERNALERROR" not in said
    assert "passed" not in said


FAILING = """
class TestFailing(TestNoop):
    variant = "failing"

    @pytest.fixture
    def blob_store(self, tmp_path):
        options = {"token": "correct horse"}
        with bound("blob_store", "fsspec", url=str(tmp_path), storage_options=options) as store:
            yield store
            raise RuntimeError("password=hunter2xyz, and correct horse")
"""


def test_a_card_shows_no_secret_of_what_was_tested(cards: Cards) -> None:
    _, _, found = cards(SUITE + FAILING, "-k", "TestFailing and test_a_folder_is_no_blob")
    card = found["blob_store.fsspec.failing.json"]
    assert card["counts"]["failed"]
    assert "RuntimeError" in str(card)
    assert "hunter2" not in str(card)
    assert "correct horse" not in str(card)


def test_a_card_has_the_hashes_of_what_was_tested_as_record_writes_them(cards: Cards) -> None:
    _, _, found = cards(SUITE, "-k", FEW)
    [card] = found.values()
    assert "kitchen_noop/blob_store.py" in card["files"]
    assert all(value.startswith("sha256=") for value in card["files"].values())
    assert not [name for name in card["files"] if "__pycache__" in name]


# --- crucible check ---


def test_check_writes_a_card_and_a_badge(plain_crucible: Crucible, tmp_path: Path) -> None:
    outcome = plain_crucible(
        *("check", "blob_store.noop", "latency_scale=0"),
        *("--card", "made/cards", "--badge", "badge.svg"),
    )
    assert outcome.code == 0, outcome
    assert "wrote made/cards/blob_store.noop.json" in outcome.err
    card = ReportCard.from_json((tmp_path / "made/cards/blob_store.noop.json").read_text())
    assert card.ok
    assert card.files
    assert "level 1." in (tmp_path / "badge.svg").read_text()


UNREACHABLE = """
from crucible_kitchen import AdapterOptions, Unavailable, hookimpl

class Options(AdapterOptions):
    pass

@hookimpl
def read(opts: Options, path: str) -> bytes: raise Unavailable("never asked")
@hookimpl
def stream(opts: Options, path: str, chunk_size: int): raise Unavailable("never asked")
@hookimpl
def write(opts: Options, path: str, data) -> None: raise Unavailable("never asked")
@hookimpl
def exists(opts: Options, path: str) -> bool: raise Unavailable("never asked")
@hookimpl
def ping(opts: Options) -> None: raise Unavailable("the server is away")
"""

SHIPPED = """
import pytest
from crucible_kitchen.testing import BlobStoreConformance, bound

class OnAcme(BlobStoreConformance):
    max_examples = 2

    @pytest.fixture
    def blob_store(self):
        with bound("blob_store", "acme", latency_scale=0) as store:
            yield store

    @pytest.mark.xfail(reason="a bucket with versions")
    def test_a_write_replaces(self, blob_store, folder):
        raise AssertionError
"""


@pytest.fixture
def installed(tmp_path: Path, plain_crucible: Crucible) -> Callable[..., Any]:
    """Return the command, with a package installed that has these modules and entry points."""

    def install(modules: dict[str, str], points: str) -> Crucible:
        site = tmp_path / "site"
        about = site / "acme-1.0.dist-info"
        about.mkdir(parents=True)
        for name, source in modules.items():
            (site / f"{name}.py").write_text(source)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text(points)
        return lambda *arguments: plain_crucible(*arguments, PYTHONPATH=str(site))

    return install


def test_check_asks_whether_a_backend_is_there_before_anything_else(
    installed: Callable[..., Crucible],
) -> None:
    run = installed({"acme": UNREACHABLE}, "[crucible.adapters]\nblob_store.acme = acme\n")
    outcome = run("check", "blob_store.acme")
    assert outcome.code == 1
    assert outcome.out == ""
    assert outcome.err == "error: blob_store.acme.ping: the server is away\n"


POINTS = """[crucible.adapters]
blob_store.acme = kitchen_noop.blob_store
[crucible.conformance]
blob_store.acme = acme_suites
"""


def test_check_runs_the_suite_that_a_package_brings(installed: Callable[..., Crucible]) -> None:
    run = installed({"acme_suites": SHIPPED}, POINTS)
    outcome = run("check", "blob_store.acme", "--json")
    assert outcome.code == 0, outcome
    [verdict] = [
        each
        for each in json.loads(outcome.out)["verdicts"]
        if each["test"] == "test_a_write_replaces"
    ]
    assert verdict["outcome"] == "xfailed"
    assert verdict["reason"] == "a bucket with versions"


def test_check_runs_it_on_the_adapter_that_options_describe(
    installed: Callable[..., Crucible],
) -> None:
    run = installed({"acme_suites": SHIPPED}, POINTS)
    outcome = run("check", "blob_store.acme", "latency_scale=0", "failure_rate=1.0")
    assert outcome.code == 1
    assert "failure_rate is 1.0" in outcome.out
    assert "xfailed  a write replaces" in outcome.out


def test_a_suite_of_a_package_that_binds_another_adapter_is_an_error(
    installed: Callable[..., Crucible], tmp_path: Path
) -> None:
    run = installed({"acme_suites": SHIPPED.replace('"acme"', '"noop"')}, POINTS)
    outcome = run("check", "blob_store.acme", "--card", "cards")
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert "the suites in 'acme_suites' were run on blob_store.noop (crucible-" in outcome.err
    assert "and say nothing about blob_store.acme" in outcome.err
    assert not (tmp_path / "cards").exists()


VARIANTS = SHIPPED + '    variant = "disk"\n' + SHIPPED.replace("OnAcme", "OnS3")
VARIANTS += '    variant = "S3"\n'


def test_check_makes_a_card_of_each_variant_that_a_package_brings(
    installed: Callable[..., Crucible], tmp_path: Path
) -> None:
    run = installed({"acme_suites": VARIANTS}, POINTS)
    outcome = run("check", "blob_store.acme", "--json")
    assert outcome.code == 0, outcome
    assert [card["variant"] for card in json.loads(outcome.out)] == ["disk", "S3"]
    outcome = run("check", "blob_store.acme", "--variant", "S3", "--json")
    assert json.loads(outcome.out)["variant"] == "S3"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["latency_scale=0"], "say which with --variant: disk, S3"),
        (["--variant", "diks"], "--variant: there is no 'diks'; did you mean 'disk'?"),
    ],
)
def test_a_variant_that_is_not_meant_or_not_there_is_an_error(
    installed: Callable[..., Crucible], arguments: list[str], message: str
) -> None:
    run = installed({"acme_suites": VARIANTS}, POINTS)
    outcome = run("check", "blob_store.acme", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise RuntimeError('on fire')", "cannot be imported: RuntimeError: on fire"),
        ("", "'acme_suites' has no conformance suite of blob_store"),
    ],
)
def test_a_package_whose_suites_are_broken_is_an_error(
    installed: Callable[..., Crucible], source: str, message: str
) -> None:
    outcome = installed({"acme_suites": source}, POINTS)("check", "blob_store.acme")
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err


# --- badges ---


def card(**fields: Any) -> ReportCard:
    facts = dict.fromkeys(("port", "adapter", "variant", "package", "version", "core"), "")
    verdicts = (Verdict("test_it", "", "passed"),)
    return ReportCard(**{**facts, "kit": "1.5", "level": "1.0", "verdicts": verdicts, **fields})


@pytest.mark.parametrize(
    ("cards", "message"),
    [
        ([card()], "level 1.5"),
        ([card(), card(kit="1.4")], "level 1.4"),
        ([card(verdicts=(Verdict("a", "", "passed"), Verdict("b", "", "warning")))], "level 1.0"),
        ([card(), card(verdicts=(Verdict("test_it", "", "failed"),))], "1 failed"),
        (
            [card(verdicts=(Verdict("a", "", "passed"), Verdict("b", "", "xfailed")))] * 2,
            "level 1.5, 2 known failures",
        ),
        ([card(not_run=("test_other",))], "checked in part"),
    ],
)
def test_a_badge_says_what_the_worst_card_says(cards: list[ReportCard], message: str) -> None:
    assert f"<title>crucible conformance: {message}</title>" in badge(cards)


def test_the_counts_of_a_card_are_english() -> None:
    outcomes = {"passed": 1, "failed": 2, "warning": 2}
    verdicts = tuple(Verdict(f"{o}{i}", "", o) for o, n in outcomes.items() for i in range(n))
    assert card(verdicts=verdicts).summary == "1 passed, 2 warnings, 2 failed"
    assert card(verdicts=(Verdict("a", "", "warning"),)).summary == "1 warning"
