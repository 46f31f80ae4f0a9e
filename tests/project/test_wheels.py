"""From the report cards of a test run to a wheel that is "checked" where it is installed."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import COMMAND, clean_environ, path_with
from crucible_kitchen.adapters.discovery import ADAPTERS, ENVIRONMENTS
from crucible_kitchen.testing.report import ReportCard
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
JSONL = ROOT / "plugins/jsonl"
SUITE = "plugins/jsonl/tests/test_jsonl_conformance.py"
NAME = "metrics_store.jsonl.json"

OFFERING = [
    path.parent
    for path in (*ROOT.glob("*/pyproject.toml"), *sorted(ROOT.glob("plugins/*/pyproject.toml")))
    if any(group in path.read_text("utf-8") for group in (f'"{ADAPTERS}"]', f'"{ENVIRONMENTS}"]'))
]
"""The packages that offer what may have a card."""


def python(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=clean_environ(**environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> ReportCard:
    """What the suite of a package finds, as it is installed here."""
    folder = tmp_path_factory.mktemp("cards")
    plugin: list[str | Path] = ["-p", "crucible_kitchen.testing.plugin", "--report-cards", folder]
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, SUITE)
    assert done.returncode == 0, done.stdout
    return ReportCard.from_json((folder / NAME).read_text("utf-8"))


def built(cards: list[ReportCard], work: Path) -> subprocess.CompletedProcess[str]:
    """Build the package with cards, into the folder `work / "out"`."""
    for each in cards:
        each.write(work / "cards")
    return python(ROOT / ".ci/wheels.py", work / "cards", work / "out", JSONL)


@pytest.fixture(scope="module")
def released(card: ReportCard, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a release says, and its folder; next to the card are some that are of no package."""
    work = tmp_path_factory.mktemp("released")
    done = built([card, failed(of_an_example(card)), failed(in_nested_wrappers(card))], work)
    assert done.returncode == 0, done.stdout
    return done.stdout, work / "out"


def test_a_wheel_that_was_tested_is_checked_where_it_is_installed(
    released: tuple[str, Path], tmp_path: Path
) -> None:
    said, folder = released
    assert "  metrics_store.jsonl: checked (" in said
    [wheel] = folder.glob("*.whl")
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"]
    installed = python(*pip, "--target", tmp_path, wheel)
    assert installed.returncode == 0, installed.stdout
    path = path_with(tmp_path)
    listed = python(*COMMAND[1:], "adapters", PYTHONPATH=path, COLUMNS="200").stdout
    [line] = [line for line in listed.splitlines() if "crucible-adapter-jsonl" in line]
    assert line.endswith(" checked")


def test_the_source_carries_the_cards_of_its_package_and_the_repository_none(
    released: tuple[str, Path],
) -> None:
    _, folder = released
    [sdist] = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        cards = [name for name in archive.getnames() if name.endswith(".json")]
    assert cards == [f"{sdist.name.removesuffix('.tar.gz')}/cards/{NAME}"]
    assert not (JSONL / "cards").exists()


def of_an_example(card: ReportCard) -> ReportCard:
    return dataclasses.replace(card, adapter="example", package="")


def in_nested_wrappers(card: ReportCard) -> ReportCard:
    """As `tests/support/around.py` writes it; of the package that is built, to be seen there."""
    return dataclasses.replace(card, variant="around limit, tee, jsonl")


def partial(card: ReportCard) -> ReportCard:
    return dataclasses.replace(card, not_run=(card.verdicts[0].test,))


def failed(card: ReportCard) -> ReportCard:
    first, *others = card.verdicts
    broken = dataclasses.replace(first, outcome="failed")
    return dataclasses.replace(card, verdicts=(broken, *others))


def of_another_source(card: ReportCard) -> ReportCard:
    files = {**card.files, "crucible_adapter_jsonl/rows.py": "sha256=another"}
    return dataclasses.replace(card, files=files)


def of_another_kit(card: ReportCard) -> ReportCard:
    """With a known failure, which otherwise is all that is said of a card."""
    first, *others = card.verdicts
    known = dataclasses.replace(first, outcome="xfailed")
    return dataclasses.replace(card, kit_digest="0", verdicts=(known, *others))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (partial, "metrics_store.jsonl (crucible-adapter-jsonl 0.1.0): 54 passed, 1 not run"),
        (failed, "metrics_store.jsonl (crucible-adapter-jsonl 0.1.0): 53 passed, 1 failed"),
        (of_another_source, f"{NAME} is left out: crucible_adapter_jsonl/rows.py is not as it was"),
        (of_another_kit, f"{NAME}: checked by another core or kit"),
        (of_an_example, "run `tox -e py311,backends` first"),
    ],
)
def test_a_card_that_does_not_hold_stops_the_release(
    card: ReportCard, tmp_path: Path, changed: Callable[[ReportCard], ReportCard], why: str
) -> None:
    done = built([changed(card)], tmp_path)
    assert done.returncode == 1
    assert why in done.stdout
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", OFFERING, ids=lambda folder: folder.name)
def test_the_hook_of_each_package_is_off_unless_it_is_switched_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs the core, which is not in the isolated environment of an installer."""
    assert WheelBuilder(str(folder)).config.hook_config == {}
    monkeypatch.setenv("HATCH_BUILD_HOOK_ENABLE_CRUCIBLE", "true")
    assert [*WheelBuilder(str(folder)).config.hook_config] == ["crucible"]
    assert "cards" in SdistBuilder(str(folder)).config.only_include.values()
