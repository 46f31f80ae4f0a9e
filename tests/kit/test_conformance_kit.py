"""The conformance kit itself: an adapter cannot pass by leaving something out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import other_process
import pytest
from commands import Crucible, clean_environ
from crucible_kitchen import PORTS
from crucible_kitchen.testing import LEVEL, SUITES, BlobStoreConformance, suite_of
from crucible_kitchen.testing.report import ReportCard, Verdict

# The suites of the adapters use the kit under every Python.
pytestmark = pytest.mark.slow


def suite(**members: Any) -> type[BlobStoreConformance]:
    return type("TestMine", (BlobStoreConformance,), members)


class TestTheGuard:
    def test_a_test_that_is_replaced_is_noticed(self) -> None:
        with pytest.raises(TypeError, match="test_a_write_replaces is replaced"):
            suite(test_a_write_replaces=lambda self, blob_store, folder: None)

    def test_a_test_that_is_removed_is_noticed(self) -> None:
        with pytest.raises(TypeError, match="test_a_write_replaces is gone"):
            suite(test_a_write_replaces=None)

    def test_a_test_that_a_mixin_replaces_is_noticed(self) -> None:
        class Mixin:
            def test_a_write_replaces(self) -> None: ...

        with pytest.raises(TypeError, match="test_a_write_replaces is replaced"):
            type("TestMine", (Mixin, BlobStoreConformance), {})

    @pytest.mark.parametrize("mark", [pytest.mark.skip, pytest.mark.xfail(reason="because")])
    def test_a_suite_that_is_marked_as_a_whole_is_noticed(self, mark: Any) -> None:
        with pytest.raises(TypeError, match="all of it is marked"):
            suite(pytestmark=mark)

    def test_a_suite_that_pytest_would_not_collect_is_noticed(self) -> None:
        with pytest.raises(TypeError, match="__test__ is False"):
            suite(__test__=False)

    def test_a_skipped_test_is_noticed(self) -> None:
        with pytest.raises(TypeError, match="test_a_write_replaces is replaced"):
            suite(test_a_write_replaces=pytest.mark.skip(reason="slow")(lambda self: None))

    def test_an_expected_failure_without_a_reason_is_noticed(self) -> None:
        with pytest.raises(TypeError, match="test_a_write_replaces is replaced"):
            suite(test_a_write_replaces=pytest.mark.xfail(lambda self: None))

    def test_an_expected_failure_with_its_reason_is_accepted(self) -> None:
        @pytest.mark.xfail(reason="the bucket is versioned")
        def test(self: Any) -> None: ...

        assert suite(test_a_write_replaces=test)

    @pytest.mark.parametrize("level", ["0.0", "0.9", "none", "1"])
    def test_a_level_at_which_no_promise_counts_is_noticed(self, level: str) -> None:
        with pytest.raises(
            TypeError, match=r"TestMine\.level: (the oldest level is 1\.0|expected)"
        ):
            suite(level=level)

    def test_further_fixtures_and_tests_are_accepted(self) -> None:
        assert suite(test_mine=lambda self: None, blob_store=pytest.fixture(lambda self: None))


def test_every_port_has_a_suite() -> None:
    assert {*SUITES} == {*PORTS, "environment"}


@pytest.mark.parametrize("kind", SUITES)
def test_every_promise_says_what_usually_breaks_it(kind: str) -> None:
    for name, promise in suite_of(kind).promises.items():
        assert "broken by" in (promise.__doc__ or ""), name


@pytest.mark.parametrize("kind", SUITES)
def test_no_two_sections_of_a_suite_have_a_promise_of_one_name(kind: str) -> None:
    whole, *sections = suite_of(kind).__mro__
    names = [name for each in sections for name in vars(each) if name.startswith("test_")]
    assert sorted(names) == sorted(suite_of(kind).promises)
    assert {name for name in vars(whole) if name.startswith("test_")} == set(names)


# --- what a suite makes of an adapter ---

KIT = """
import pytest
from crucible_kitchen.testing import BlobStoreConformance, bound, needs, since, unless_synthetic

class TestNoop(BlobStoreConformance):
    max_examples = 2

    @pytest.fixture
    def blob_store(self):
        with bound("blob_store", "noop", latency_scale=0) as store:
            yield store
"""

Pytest = Callable[..., tuple[int, str]]


@pytest.fixture
def run_pytest(tmp_path: Path) -> Pytest:
    """Run pytest on the source of a test module; return its exit code and output."""

    def run(source: str, *arguments: str) -> tuple[int, str]:
        (tmp_path / "test_it.py").write_text(source)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-ra", "-W", "error", *arguments, "test_it.py"],
            cwd=tmp_path,
            env=clean_environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_an_expected_failure_runs_the_promise(run_pytest: Pytest) -> None:
    expecting = (
        KIT
        + """
    @pytest.mark.xfail(reason="a promise that is kept all the same", strict=True)
    def test_a_write_replaces(self, blob_store, folder):
        super().test_a_write_replaces(blob_store, folder)
"""
    )
    code, said = run_pytest(expecting, "-k", "test_a_write_replaces")
    assert code == 1
    assert "XPASS(strict)" in said


def test_an_expected_failure_that_does_not_try_the_promise_is_no_pass(
    run_pytest: Pytest, tmp_path: Path
) -> None:
    hiding = (
        KIT
        + """
    @pytest.mark.xfail(reason="a bucket with versions")
    def test_a_write_replaces(self, blob_store, folder):
        '''The reason is told, and nothing is tried.'''
"""
    )
    cards = ("-p", "crucible_kitchen.testing.plugin", "--report-cards", "cards")
    code, said = run_pytest(hiding, "-k", "test_a_write_replaces", *cards)
    assert (code, "1 xfailed" in said) == (0, True), said
    card = ReportCard.from_json((tmp_path / "cards/blob_store.noop.json").read_text())
    assert card.counts == {"xfailed": 1}


def test_a_condition_that_does_not_hold_excuses_nobody_from_a_promise(run_pytest: Pytest) -> None:
    source = (
        KIT
        + """
    @pytest.mark.xfail(False, reason="a bucket with versions")
    def test_a_write_replaces(self, blob_store, folder): pass
"""
    )
    code, said = run_pytest(source, "-k", "test_a_write_replaces")
    assert (code, "the promise was not tried" in said) == (1, True), said


def test_an_adapter_that_is_not_given_is_asked_for(run_pytest: Pytest) -> None:
    without = KIT[: KIT.index("    @pytest.fixture")]
    code, said = run_pytest(without, "-k", "test_a_write_replaces")
    assert code == 1
    assert "give the fixture `blob_store`, which yields the adapter to be tested" in said


def test_an_optional_fixture_that_is_not_given_skips_its_tests(run_pytest: Pytest) -> None:
    code, said = run_pytest(KIT, "-k", "test_what_was_written_is_stored or test_a_write_replaces")
    assert code == 0
    assert "the fixture `stored` is not given" in said
    assert "1 passed, 1 skipped" in said


def test_a_suite_in_memory_is_excused_from_promises_of_other_processes_alone(
    run_pytest: Pytest,
) -> None:
    in_memory = KIT.replace('"noop", latency_scale=0', '"fsspec", url="memory://conformance"')
    asked = ("-k", "started_later or what_was_written_is_read or survives_a_kill")
    code, said = run_pytest(
        in_memory.replace("max_examples = 2", 'ephemeral = "in memory"'), *asked
    )
    assert code == 0
    assert "1 passed, 2 skipped" in said
    assert "excused, for the adapter is synthetic: in memory" in said
    code, said = run_pytest(in_memory, *asked)
    assert "a warning: promised since level 1.5" in said


def test_an_adapter_that_says_its_results_are_real_is_excused_from_nothing(
    run_pytest: Pytest,
) -> None:
    real = """
import crucible_kitchen, kitchen_noop.blob_store
kitchen_noop.blob_store.synthetic = crucible_kitchen.helper(lambda opts: "")
"""
    asked = ("-k", "started_later")
    code, said = run_pytest(KIT, *asked)
    assert code == 0
    assert "excused" in said
    code, said = run_pytest(KIT + real, *asked)
    assert "excused" not in said
    assert "a warning: promised since level" in said


def test_another_process_is_ended_with_its_class(run_pytest: Pytest, tmp_path: Path) -> None:
    recording = (
        KIT.replace('"noop", latency_scale=0', f'"fsspec", url="{tmp_path}/blobs"')
        + """
    def test_which(self, elsewhere):
        import pathlib
        pathlib.Path("pid").write_text(str(elsewhere.run(pid)))

def pid(store):
    import os
    return os.getpid()
"""
    )
    assert run_pytest(recording, "-k", "which")[0] == 0
    assert not other_process.is_running(int((tmp_path / "pid").read_text()))


TRAINING = """
import pytest
from crucible_kitchen.testing import TrainingClientConformance, bound

class TestNoop(TrainingClientConformance):
    @pytest.fixture
    def training_client(self):
        with bound("training_client", "noop", latency_scale=0) as client:
            yield client

    @pytest.mark.xfail(reason="a promise that is kept all the same", strict=True)
    def test_gradients_accumulate(self, bench):
        super().test_gradients_accumulate(bench)
"""


def test_an_expected_failure_needs_the_bench_alone(run_pytest: Pytest) -> None:
    code, said = run_pytest(TRAINING, "-k", "test_gradients_accumulate")
    assert code == 1
    assert "XPASS(strict)" in said


def test_a_suite_whose_tests_were_all_skipped_fails(run_pytest: Pytest) -> None:
    skipping = KIT.replace("with bound", "pytest.skip('no server')\n        with bound")
    code, said = run_pytest(skipping)
    assert code == 1
    assert "no test of TestNoop passed: nothing is known about the adapter" in said


def test_one_test_of_a_suite_may_be_run_alone(run_pytest: Pytest) -> None:
    assert run_pytest(KIT, "-k", "test_another_process_reads_it")[0] == 0


NEWER = """
class NewerConformance(BlobStoreConformance):
    port = BlobStoreConformance.port

    @since("1.7")
    def test_a_promise_of_later(self, blob_store):
        '''Is kept. Usually broken by adapters that are older.'''
        assert blob_store.exists("what was never promised before")

class TestNewer(NewerConformance):
    level = "1.0"

    @pytest.fixture
    def blob_store(self):
        with bound("blob_store", "noop", latency_scale=0) as store:
            yield store
"""


def test_a_test_that_was_added_later_only_warns(run_pytest: Pytest) -> None:
    code, said = run_pytest(KIT + NEWER, "-k", "of_later")
    assert code == 0
    assert "a warning: promised since level 1.7, required from level 2.0: " in said


@pytest.mark.parametrize("level", ["1.7", "1.10", "2.0"])
def test_a_test_that_was_added_later_fails_an_adapter_that_is_held_to_its_level(
    run_pytest: Pytest, level: str
) -> None:
    asking = NEWER.replace('level = "1.0"', f'level = "{level}"')
    assert run_pytest(KIT + asking, "-k", "of_later")[0] == 1


def test_a_failure_shows_the_values_that_were_compared(run_pytest: Pytest) -> None:
    broken = (
        KIT
        + """
    @pytest.fixture
    def stored(self):
        return lambda path: b"something else"
"""
    )
    code, said = run_pytest(broken, "-k", "test_what_was_written_is_stored")
    assert code == 1
    assert "assert b'something else' == b'content'" in said


def test_cards_are_written_to_the_folder_that_is_named(run_pytest: Pytest, tmp_path: Path) -> None:
    code, _ = run_pytest(KIT, "-p", "crucible_kitchen.testing.plugin", "--report-cards", "cards")
    assert code == 0
    card = ReportCard.from_json((tmp_path / "cards/blob_store.noop.json").read_text())
    assert (card.port, card.adapter, card.package) == (
        "blob_store",
        "noop",
        "crucible-adapter-noop",
    )
    assert {verdict.test for verdict in card.verdicts} == set(BlobStoreConformance.promises)
    assert card.ok


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("passed", "failed", "failed"),
        ("passed", "warning", "warning"),
        ("passed", "skipped", "passed"),
        ("skipped", "excused", "excused"),
        ("xfailed", "failed", "failed"),
    ],
)
def test_a_promise_with_parameters_is_judged_by_the_worst_that_was_tried(
    one: str, other: str, both: str
) -> None:
    verdicts = [Verdict("test_it", "", outcome) for outcome in (one, other)]
    assert verdicts[0].joined(verdicts[1]).outcome == both
    assert verdicts[1].joined(verdicts[0]).outcome == both


# --- crucible check ---


def test_check_passes_a_good_adapter(plain_crucible: Crucible) -> None:
    outcome = plain_crucible("check", "blob_store.noop", "latency_scale=0")
    assert outcome.code == 0, outcome
    assert "blob_store.noop (crucible-adapter-noop " in outcome.out
    assert "crucible-kitchen " in outcome.out
    assert f"kit level {LEVEL}" in outcome.out
    assert "passed   a write replaces" in outcome.out
    excused = [line for line in outcome.out.splitlines() if line.startswith("excused")]
    assert excused
    assert all("synthetic: no backend, numbers that are made up" in line for line in excused)
    assert outcome.out.splitlines()[-1].endswith(f"{len(excused)} excused")


def test_check_fails_a_broken_adapter_and_says_which_promises(crucible: Crucible) -> None:
    outcome = crucible("check", "blob_store.acme")
    assert outcome.code == 1
    assert "Traceback" not in outcome.err
    assert "failed   what is missing is not found" in outcome.out
    assert "Usually broken by the backend's own exception" in outcome.out
    assert "passed   what was written is read" in outcome.out


def test_check_takes_the_options_of_the_file(plain_crucible: Crucible, tmp_path: Path) -> None:
    (tmp_path / "crucible.toml").write_text(
        '[adapters]\nblob_store = { use = "noop", failure_rate = 1.0, latency_scale = 0 }\n'
    )
    outcome = plain_crucible("check", "blob_store.noop")
    assert outcome.code == 1
    assert "a simulated failure: failure_rate is 1.0" in outcome.out


def test_a_card_is_json_on_request(plain_crucible: Crucible) -> None:
    outcome = plain_crucible("check", "blob_store.noop", "latency_scale=0", "--json")
    card = json.loads(outcome.out)
    assert card["ok"]
    assert card["counts"]["passed"] == sum(v["outcome"] == "passed" for v in card["verdicts"])
    assert ReportCard.from_json(outcome.out).verdicts[0].test == "test_what_was_written_is_read"


def test_a_card_is_markdown_on_request(plain_crucible: Crucible) -> None:
    outcome = plain_crucible("check", "blob_store.noop", "latency_scale=0", "--markdown")
    assert outcome.out.startswith("### blob_store.noop (crucible-adapter-noop ")
    assert "| passed | a write replaces |  |" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["blob_store.nop"], "did you mean 'noop'?"),
        (
            ["blobstore.noop"],
            "expected <port>.<name> or environment.<name>, got 'blobstore.noop'; "
            "did you mean 'blob_store.noop'?",
        ),
        (["noop"], "expected <port>.<name> or environment.<name>, got 'noop'"),
        (["blob_store.noop", "latency_scal=0"], "did you mean 'latency_scale'?"),
        (["blob_store.noop", "absent.toml"], "absent.toml"),
        (["hub_client.noop", "--fixture", "repoid=1"], "'repoid' is not a fixture of the suite of"),
        (["hub_client.noop", "--fixture", "reopen=1"], "those are below, cache_is_ours, files"),
        (["blob_store.noop", "--level", "9.9"], "there is no level 9.9 yet"),
        (["blob_store.noop", "--fixture", "stored"], "expected NAME=VALUE, got 'stored'"),
        (
            ["blob_store.noop", "--level", "one"],
            "expected a level of the kit such as 1.0, got 'one'",
        ),
        (["blob_store.noop", "--level", "0.0"], "--level: the oldest level is 1.0, not 0.0"),
        (["blob_store.explodes"], "the licence server is on fire"),
    ],
)
def test_a_mistake_is_named(
    mistake: Callable[..., str], arguments: list[str], message: str
) -> None:
    assert message in mistake("check", *arguments)


def test_plugins_and_settings_of_the_users_pytest_are_ignored(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    (tmp_path / "conftest.py").write_text("raise SystemExit('a conftest of the user')")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    outcome = plain_crucible(
        "check",
        "blob_store.noop",
        "latency_scale=0",
        PYTEST_ADDOPTS="--no-such-option",
        PYTEST_PLUGINS="no_such_plugin",
    )
    assert outcome.code == 0, outcome


def test_checking_leaves_nothing_behind(plain_crucible: Crucible, tmp_path: Path) -> None:
    outcome = plain_crucible("check", "blob_store.fsspec", "url=blobs")
    assert outcome.code == 0, outcome
    left = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert left == []
    assert os.listdir(tmp_path) == ["blobs"]


ON_DISK = """
from pathlib import Path
import pytest
from crucible_kitchen.testing import BlobStoreConformance, bound

class TestDisk(BlobStoreConformance):
    max_examples = 2

    @pytest.fixture
    def blob_store(self):
        with bound("blob_store", "fsspec", url="disk/blobs") as store:
            yield store

    @pytest.fixture
    def root(self):
        return Path("disk/blobs")
"""


def test_a_suite_that_knows_the_folder_of_the_blobs_leaves_it_empty(
    run_pytest: Pytest, tmp_path: Path
) -> None:
    """Links and what killed processes left are not blobs that the adapter could delete."""
    code, said = run_pytest(ON_DISK, "-p", "no:cacheprovider")
    assert code == 0, said
    left = [path.relative_to(tmp_path).as_posix() for path in (tmp_path / "disk").rglob("*")]
    assert left == ["disk/blobs"]
