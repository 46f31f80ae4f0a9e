"""Which adapters are found, and what is said about those that cannot be used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import importlib_metadata
import pytest
from commands import Crucible, path_with
from crucible_kitchen import AdapterNotFound
from crucible_kitchen.adapters.discovery import WORKFLOWS, Catalog, Installed, catalog

Mistake = Callable[..., str]


def test_the_list_shows_port_name_package_and_version(crucible: Crucible) -> None:
    outcome = crucible("adapters")
    assert outcome.code == 0
    rows = [line.split() for line in outcome.out.splitlines()]
    assert rows[0] == ["port", "name", "package", "version", "conformance"]
    first = [row[:4] for row in rows]
    assert ["blob_store", "acme", "crucible-adapter-acme", "1.2.3"] in first
    assert ["training_client", "noop", "crucible-adapter-noop", "0.1.0"] in first


def test_the_list_imports_no_adapter(site: Path) -> None:
    program = """
import sys
sys.argv = ["crucible", "adapters"]
from crucible_kitchen.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
from crucible_kitchen.adapters.discovery import catalog
modules = {e.entry_point.module for e in catalog().entries}
assert len(modules) > 10, modules
loaded = {m for m in modules if m in sys.modules or m.partition(".")[0] in sys.modules}
print("loaded", sorted(loaded), file=sys.stderr)
for heavy in ("torch", "datasets", "transformers", "fsspec", "pandas"):
    assert heavy not in sys.modules, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": path_with(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "loaded []"
    assert "explodes" in done.stdout


def test_a_selected_adapter_that_fails_to_import_is_named_with_its_package(
    mistake: Mistake,
) -> None:
    said = mistake("config", "adapters.blob_store=explodes")
    for part in (
        "blob_store.explodes",
        "crucible-adapter-mistakes 1.2.3",
        "mistake_explodes",
        "RuntimeError: the licence server is on fire",
        "from argument adapters.blob_store=",
    ):
        assert part in said


def test_a_selected_adapter_that_ends_the_program_on_import_is_named_too(mistake: Mistake) -> None:
    said = mistake("config", "adapters.blob_store=exits")
    assert "blob_store.exits (crucible-adapter-mistakes 1.2.3) cannot be imported" in said
    assert "SystemExit: no licence" in said


def test_a_workflow_of_another_package_runs_under_its_name(crucible: Crucible) -> None:
    outcome = crucible(
        "run", "workflow.use=count", "workflow.path=a", "adapters.blob_store=twin-one/twin"
    )
    assert (outcome.code, outcome.out) == (0, "4 bytes\n"), outcome


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        ("unannotated", "must be a function of (kitchen, config), config annotated with a class"),
        ("alone", "must be a function of (kitchen, config)"),
        ("imported_for_types", "name 'Config' is not defined"),
        (
            "a_number",
            "a_number (acme-workflows 1.2.3), acme_workflows:a_number, is not a function, it is 5",
        ),
    ],
)
def test_a_workflow_that_is_none_is_named(mistake: Mistake, workflow: str, message: str) -> None:
    assert message in mistake("run", f"workflow.use={workflow}")


def test_broken_packages_that_are_not_selected_break_no_command(crucible: Crucible) -> None:
    for command in (("adapters",), ("config", "adapters.blob_store=acme"), ("init",)):
        outcome = crucible(*command)
        assert (outcome.code, "Traceback" in outcome.err) == (0, False), outcome


def test_the_doctor_shows_what_is_wrong_with_packages_that_are_not_selected(
    crucible: Crucible,
) -> None:
    outcome = crucible("doctor")
    assert outcome.code == 1
    lines = outcome.out.splitlines()

    def about(name: str) -> str:
        return next(line for line in lines if line.startswith(name))

    assert "FAIL" in about("blob_store.explodes")
    assert "the licence server is on fire" in about("blob_store.explodes")
    assert "it does not implement exists" in about("blob_store.missing")
    assert "needs crucible-kitchen >=99" in about("blob_store.future")
    assert "metadata cannot be read" in about("malformed")
    assert "'blobstore.acme' is not <port>.<name>; did you mean blob_store.acme?" in about(
        "misnamed"
    )
    assert "twin-one and twin-two both provide it" in outcome.out
    assert "cannot be imported" in about("blob_store.exits")
    assert about("workflow count").split()[2] == "ok"
    for name in ("unannotated", "alone", "imported_for_types", "a_number"):
        assert "FAIL" in about(f"workflow {name}")
    assert about("blob_store.acme").split()[1] == "ok"


def test_two_packages_with_one_name_are_both_listed(crucible: Crucible) -> None:
    listed = [line.split() for line in crucible("adapters").out.splitlines()]
    assert [row[:4] for row in listed if row[1] == "twin"] == [
        ["blob_store", "twin", "twin-one", "1.0"],
        ["blob_store", "twin", "twin-two", "2.0"],
    ]


def test_selecting_a_name_that_two_packages_claim_names_both(mistake: Mistake) -> None:
    said = mistake("config", "adapters.blob_store=twin")
    assert "twin-one 1.0" in said
    assert "twin-two 2.0" in said
    assert 'use = "twin-one/twin" or use = "twin-two/twin"' in said


def test_package_slash_name_picks_one_of_two(crucible: Crucible) -> None:
    outcome = crucible("config", "adapters.blob_store=twin-two/twin")
    assert outcome.code == 0
    assert '"twin-two/twin"' in outcome.out


def test_an_unknown_name_gets_the_nearest_spelling_and_what_is_installed(mistake: Mistake) -> None:
    said = mistake("config", "adapters.blob_store=acmee")
    assert "no blob_store adapter is named 'acmee'; did you mean 'acme'?" in said
    assert "installed: acme, " in said


def test_a_known_adapter_that_is_not_installed_gets_its_pip_line() -> None:
    with pytest.raises(AdapterNotFound, match="to get it: pip install crucible-adapter-torch"):
        Catalog((), ()).find("training_client", "torch")


@pytest.mark.parametrize("name", ["megatron", "vllm"])
def test_an_adapter_that_is_not_released_gets_no_pip_line(mistake: Mistake, name: str) -> None:
    assert "pip install" not in mistake("config", f"adapters.training_client={name}")


def test_an_adapter_that_needs_another_core_is_not_imported(mistake: Mistake) -> None:
    said = mistake("config", "adapters.blob_store=future")
    assert "needs crucible-kitchen >=99, this is crucible-kitchen " in said
    assert "imported in spite of" not in said


@pytest.mark.parametrize("running", ["99", "99.dev3", "99.1.dev0+local"])
def test_a_development_build_of_the_core_counts_as_its_release(site: Path, running: str) -> None:
    program = f"""
import crucible_kitchen.adapters.discovery as discovery, crucible_kitchen.version as version
version.__version__ = {running!r}
try:
    discovery.catalog().find("blob_store", "future").load()
except discovery.AdapterLoadError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": path_with(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "imported in spite of its requirements" in done.stdout


def test_one_package_with_malformed_metadata_hides_no_other(crucible: Crucible) -> None:
    outcome = crucible("adapters")
    assert "crucible-adapter-acme" in outcome.out
    assert "the metadata of 2 packages is malformed; `crucible doctor` says which" in outcome.err


def test_showing_an_adapter_gives_options_defaults_meaning_and_callbacks(
    crucible: Crucible,
) -> None:
    outcome = crucible("adapters", "show", "blob_store.acme", ACME_API_KEY="hunter2")
    assert outcome.code == 0
    for part in (
        "crucible-adapter-acme 1.2.3",
        "Keep blobs in a dictionary.",
        "Seconds to wait for one request.",
        "30.0",
        "$ACME_API_KEY",
    ):
        assert part in outcome.out
    rows = [line.split() for line in outcome.out.splitlines()]
    offered = {row[0]: row[1] for row in rows if len(row) > 1}
    assert (offered["read"], offered["read_range"]) == ("yes", "no")
    assert "hunter2" not in outcome.out


def test_showing_an_adapter_that_is_misspelt_names_the_nearest(mistake: Mistake) -> None:
    assert "did you mean 'acme'?" in mistake("adapters", "show", "acmee")


def test_a_package_that_is_installed_while_the_program_runs_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    assert "blob_store.late" not in {f"{e.port}.{e.name}" for e in catalog().entries}
    info = tmp_path / "late-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[crucible.adapters]\nblob_store.late = late\n")
    os.utime(tmp_path, ns=(1, 1))  # the clock of a file system may be coarse
    assert "blob_store.late" in {f"{e.port}.{e.name}" for e in catalog().entries}


# --- what installers and editors leave behind ---


def metadata(
    site: Path, folder: str, *points: str, name: str = "my-adapter", version: str = "1.0"
) -> Path:
    """Write the metadata of a package by hand, into `<folder>.dist-info`."""
    info = site / f"{folder}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text("\n".join(["[crucible.adapters]", *points, ""]))
    return info


Discover = Callable[..., Catalog]


@pytest.fixture(params=["as it comes", "the other way round"])
def discover(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Discover:
    """Discover what is in some folders, in either of the orders in which a disk may list it."""
    of_path = importlib_metadata.distributions

    def listed() -> list[Any]:
        each = [list(of_path(path=[place])) for place in sys.path]
        if request.param != "as it comes":
            each = [place[::-1] for place in each]
        return [distribution for place in each for distribution in place]

    def discover(*sites: Path) -> Catalog:
        monkeypatch.setattr(sys, "path", [*map(str, sites), *sys.path])
        monkeypatch.setattr(importlib_metadata, "distributions", listed)
        return catalog()

    return discover


def of(found: Catalog, package: str = "my-adapter") -> list[str]:
    return [str(entry) for entry in found.entries if entry.package == package]


MINE = "blob_store.mine = mine"


@pytest.mark.parametrize("leftover", ["~y_adapter-3.0", "~-_adapter-3.0", "-y_adapter-3.0"])
def test_what_an_interrupted_pip_set_aside_is_passed_over(
    discover: Discover, tmp_path: Path, leftover: str
) -> None:
    metadata(tmp_path, leftover, "blob_store.old = gone", version="3.0")
    metadata(tmp_path, "my_adapter-2.0", MINE, version="2.0")
    found = discover(tmp_path)
    assert of(found) == ["blob_store.mine (my-adapter 2.0)"]
    assert found.problems == ()


def test_of_two_versions_in_one_folder_the_higher_one_counts(
    discover: Discover, tmp_path: Path
) -> None:
    metadata(tmp_path, "my_adapter-1.9", "blob_store.old = gone", version="1.9")
    metadata(tmp_path, "my_adapter-1.10", MINE, version="1.10")
    assert of(discover(tmp_path)) == ["blob_store.mine (my-adapter 1.10)"]


def test_of_two_folders_the_first_on_the_path_counts(discover: Discover, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    metadata(first, "my_adapter-1.0", MINE)
    metadata(second, "My.Adapter-2.0", MINE, name="My.Adapter", version="2.0")
    found = discover(first, second, first)
    assert of(found) == ["blob_store.mine (my-adapter 1.0)"]
    assert of(found, "My.Adapter") == []


@pytest.mark.parametrize(
    "points", [(MINE, MINE), (MINE, "[crucible.workflows]", "[crucible.adapters]", MINE)]
)
def test_an_entry_point_that_is_listed_twice_is_one(
    discover: Discover, tmp_path: Path, points: tuple[str, ...]
) -> None:
    metadata(tmp_path, "my_adapter-1.0", *points)
    found = discover(tmp_path)
    assert of(found) == ["blob_store.mine (my-adapter 1.0)"]
    assert found.find("blob_store", "mine").package == "my-adapter"
    assert found.problems == ()


def test_an_entry_point_that_is_listed_as_two_things_is_neither(
    discover: Discover, tmp_path: Path
) -> None:
    metadata(tmp_path, "my_adapter-1.0", MINE, "blob_store.mine = other", "blob_store.good = good")
    found = discover(tmp_path)
    assert of(found) == ["blob_store.good (my-adapter 1.0)"]
    [problem] = found.problems
    assert problem.package == "my-adapter"
    assert problem.message == "its entry point 'blob_store.mine' is listed as 'mine' and as 'other'"


def test_two_packages_that_list_the_same_thing_are_no_conflict(
    discover: Discover, tmp_path: Path, plain_crucible: Crucible
) -> None:
    metadata(tmp_path / "site", "my_adapter-1.0", MINE)
    metadata(tmp_path / "site", "old_name-1.0", MINE, name="old-name")
    found = discover(tmp_path / "site")
    assert found.find("blob_store", "mine").entry_point.value == "mine"
    assert found.find("blob_store", "old-name/mine").package == "old-name"
    outcome = plain_crucible("doctor", PYTHONPATH=path_with(tmp_path / "site"))
    assert "both provide it" not in outcome.out


def not_utf8(info: Path) -> None:
    (info / "METADATA").write_bytes(
        b"Metadata-Version: 2.1\nName: broken-one\nVersion: 1.0\nAuthor: Andr\xe9\n"
    )


def without_metadata(info: Path) -> None:
    (info / "METADATA").unlink()


def without_a_name(info: Path) -> None:
    (info / "METADATA").write_text("Metadata-Version: 2.1\nVersion: 1.0\n")


def without_a_version(info: Path) -> None:
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-one\n")


def empty(info: Path) -> None:
    (info / "METADATA").write_text("")


def entry_points_not_utf8(info: Path) -> None:
    (info / "entry_points.txt").write_bytes(b"[crucible.adapters]\nblob_store.\xe9 = mine\n")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (not_utf8, "'utf-8' codec can't decode byte 0xe9"),
        (without_metadata, "there is no Name"),
        (without_a_name, "there is no Name"),
        (without_a_version, "there is no Version"),
        (empty, "there is no Name"),
        (entry_points_not_utf8, "'utf-8' codec can't decode byte 0xe9"),
    ],
)
def test_a_package_whose_metadata_cannot_be_read_is_a_problem_and_hides_no_other(
    discover: Discover, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(metadata(tmp_path, "broken_one-1.0", "blob_store.broken = gone", name="broken-one"))
    metadata(tmp_path, "whole-1.0", "blob_store.whole = mine", name="whole")
    found = discover(tmp_path)
    assert of(found, "whole") == ["blob_store.whole (whole 1.0)"]
    about = {problem.package: problem.message for problem in found.problems}
    assert said in about["broken-one"]
    with pytest.raises(AdapterNotFound, match=r"passed over 1 package; `crucible doctor` says why"):
        found.find("blob_store", "broken")


def test_what_has_no_name_hides_no_package_of_that_name(discover: Discover, tmp_path: Path) -> None:
    without_metadata(metadata(tmp_path / "first", "my_adapter-3.0", "blob_store.old = gone"))
    metadata(tmp_path / "first", "my_adapter-1.0", MINE)
    assert of(discover(tmp_path / "first")) == ["blob_store.mine (my-adapter 1.0)"]


def test_the_doctor_shows_where_metadata_that_cannot_be_read_is(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    not_utf8(metadata(site, "broken_one-1.0", "blob_store.broken = gone"))
    metadata(site, "whole-1.0", "blob_store.whole = gone", name="whole")
    environ = {"PYTHONPATH": path_with(site)}
    outcome = plain_crucible("doctor", **environ)
    [line] = [line for line in outcome.out.splitlines() if line.startswith("broken-one")]
    assert "metadata cannot be read: UnicodeDecodeError" in line
    assert str(site / "broken_one-1.0.dist-info") in line
    for command in ("adapters", "config", "init"):
        outcome = plain_crucible(command, **environ)
        assert (outcome.code, "Traceback" in outcome.err) == (0, False), outcome


def test_the_doctor_survives_a_package_that_raises_what_is_no_exception(
    plain_crucible: Crucible, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    metadata(site, "my_adapter-1.0", "blob_store.mine = mine_stops")
    (site / "mine_stops.py").write_text(
        "class Stop(BaseException): ...\nraise Stop('no licence')\n"
    )
    outcome = plain_crucible("doctor", PYTHONPATH=path_with(site))
    assert "Traceback" not in outcome.err
    [line] = [line for line in outcome.out.splitlines() if line.startswith("blob_store.mine")]
    assert "Stop: no licence" in line


# --- many neighbours ---

MANY = 5000


@pytest.fixture
def crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the metadata of many adapters and workflows."""
    readme = "\nIt keeps blobs.\n" * 100
    for number in range(200):
        info = metadata(
            tmp_path / "site",
            f"acme_{number}-1.0",
            f"blob_store.acme{number} = x",
            name=f"a{number}",
        )
        with (info / "METADATA").open("a") as file:
            file.write(f"Requires-Dist: crucible-kitchen>={number}{readme}")
        with (info / "entry_points.txt").open("a") as file:
            file.write(f"[crucible.workflows]\nacme{number} = x:y\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "site"


def test_the_metadata_of_a_package_is_read_once_and_only_its_head_is_parsed(
    crowd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: Counter[str] = Counter()

    def counted(self: Any, name: str) -> str | None:
        read[f"{self._path}/{name}"] += 1
        return text_of(self, name)

    text_of = importlib_metadata.PathDistribution.read_text
    monkeypatch.setattr(importlib_metadata.PathDistribution, "read_text", counted)
    for _ in range(3):
        adapters, workflows = catalog(), catalog(WORKFLOWS)
    mine = {entry.name: entry for entry in adapters.entries if entry.package.startswith("a1")}
    assert mine["acme150"].requires == ("crucible-kitchen>=150",)
    assert (mine["acme150"].package, mine["acme150"].version) == ("a150", "1.0")
    assert "acme150" in {entry.name for entry in workflows.entries}
    assert {count for name, count in read.items() if name.startswith(str(crowd))} == {1}
    assert not [name for name in read if name.startswith(f"{crowd}") and "METADATA" in name]


def crowded(*names: str) -> Catalog:
    point = importlib_metadata.EntryPoint("x", "x", "crucible.adapters")
    return Catalog(tuple(Installed("blob_store", n, n, "1.0", point, ()) for n in names), ())


def test_of_5000_adapters_an_unknown_name_lists_the_nearest_ten() -> None:
    found = crowded(*(f"acme{number}" for number in range(MANY)), "fsspec")
    with pytest.raises(AdapterNotFound) as caught:
        found.find("blob_store", "acme17a")
    said = str(caught.value)
    assert "did you mean 'acme17'?" in said
    shown, _, more = said.partition("installed: ")[2].partition(" and ")
    assert len(shown.split(", ")) == 10
    assert shown.startswith("acme17, ")
    assert more == "4,991 more"


def test_of_ten_adapters_all_are_listed() -> None:
    found = crowded(*(f"acme{number}" for number in range(10)))
    with pytest.raises(AdapterNotFound, match=r"installed: acme0, acme1, .*, acme9$"):
        found.find("blob_store", "zebra")


def test_of_5000_workflows_an_unknown_name_lists_the_nearest_ten(
    crowd: Path, plain_crucible: Crucible
) -> None:
    said = plain_crucible("run", "workflow.use=acme17a", PYTHONPATH=path_with(crowd)).err
    assert "no workflow is named 'acme17a'; did you mean 'acme17'? installed: " in said
    assert said.partition("installed: ")[2].count(", ") == 9
    assert re.search(r" and \d+ more", said)


def test_5000_adapters_that_one_name_could_mean_are_not_all_listed() -> None:
    point = importlib_metadata.EntryPoint
    found = Catalog(
        tuple(
            Installed("blob_store", "mine", f"p{n}", "1.0", point("x", f"m{n}", ""), ())
            for n in range(MANY)
        ),
        (),
    )
    with pytest.raises(AdapterNotFound, match=r"5,000 packages provide .*4,990 more") as caught:
        found.find("blob_store", "mine")
    assert len(str(caught.value)) < 1000
