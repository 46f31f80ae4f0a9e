"""What is said where a command is not written as it should be, or a part of an answer fails."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from commands import Crucible, add_package, path_with, started
from crucible_kitchen import ConfigurationError
from crucible_kitchen.adapters.contents import hash_of
from crucible_kitchen.adapters.discovery import ADAPTERS, Catalog, catalog
from crucible_kitchen.cli import adapter, adapters, check
from crucible_kitchen.cli.app import COMMANDS, invoke

README = Path(__file__).parents[2] / "README.md"

STORE = """
from crucible_kitchen import hookimpl

@hookimpl
def read(path): ...
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--lockd"), "error: no such option: --lockd "),
        (("check",), "error: missing argument 'PORT.NAME'\n"),
        (("prots",), "error: no such command 'prots'. Did you mean 'ports'?\n"),
        (
            ("workflows", "supervised"),
            "error: no such command 'supervised'; `crucible workflows show supervised` shows one\n",
        ),
        (
            ("adapters", "noop"),
            "error: no such command 'noop'; `crucible adapters show noop` shows one\n",
        ),
    ],
)
def test_a_usage_error_reads_like_every_other(
    plain_crucible: Crucible, arguments: tuple[str, ...], said: str
) -> None:
    outcome = plain_crucible(*arguments)
    assert outcome.code == 2
    *usage, last = outcome.err.splitlines(keepends=True)
    assert last.startswith(said)
    assert usage[0].startswith("Usage: crucible")
    assert "Error" not in outcome.err


def test_a_help_in_place_of_a_command_is_no_error(plain_crucible: Crucible) -> None:
    outcome = plain_crucible("new")
    assert "Start a package." in outcome.out + outcome.err
    assert "error" not in outcome.err


def test_the_list_of_adapters_is_data_without_the_word_list(plain_crucible: Crucible) -> None:
    assert json.loads(plain_crucible("adapters", "--json").out) == json.loads(
        plain_crucible("adapters", "list", "--json").out
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("fsspec", "'blob_store.fsspec'"),
        ("fsspc", "'blob_store.fsspec'"),
        ("blobstore.fsspec", "'blob_store.fsspec'"),
        ("arithmetic", "'environment.arithmetic'"),
        ("tee", "'blob_store.tee' or 'metrics_store.tee'"),
    ],
)
def test_what_is_to_be_checked_is_suggested_with_its_port(
    plain_crucible: Crucible, written: str, meant: str
) -> None:
    outcome = plain_crucible("check", written)
    assert outcome.code == 2
    assert outcome.err.endswith(f"got {written!r}; did you mean {meant}?\n")


HIDE = """
import importlib.abc, sys

class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pytest":
            raise ImportError("hidden")

sys.meta_path.insert(0, Hide())
"""


def test_a_misspelt_name_is_answered_where_pytest_is_missing(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDE)
    command = partial(started, tmp_path, PYTHONPATH=path_with(tmp_path))
    assert "needs pytest" in command("check", "blob_store.noop").err
    assert "did you mean 'blob_store.fsspec'?" in command("check", "fsspc").err


TORCH = "pip install crucible-adapter-torch"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("adapters", "show", "torch"),
            f"'torch' is installed; to get it: {TORCH}",
        ),
        (("adapters", "show", "training_client.torch"), f"to get it: {TORCH}"),
        (
            ("check", "torch"),
            f"did you mean 'training_client.torch' or 'completer.torch'? To get it: {TORCH}",
        ),
        (("check", "completer.torch"), f"to get it: {TORCH}"),
    ],
)
def test_an_adapter_that_is_known_and_not_installed_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    def without_torch(group: str = ADAPTERS) -> Catalog:
        found = catalog(group)
        left = tuple(each for each in found.entries if "torch" not in each.package)
        return replace(found, entries=left)

    for module in (adapter, check):
        monkeypatch.setattr(module, "catalog", without_torch)
    with pytest.raises(ConfigurationError) as caught:
        invoke(arguments)
    assert said in str(caught.value)


@pytest.fixture
def half_broken(tmp_path: Path, plain_crucible: Crucible) -> Crucible:
    """The command, with a package of two adapters `acme` of which the first raises."""
    folder = tmp_path / "packages"
    folder.mkdir()
    add_package(folder, "acme_store", STORE, "blob_store.acme")
    points = folder / "acme_store-1.0.dist-info" / "entry_points.txt"
    more = "metrics_store.acme = acme_store\nhub_client.acme = acme_broken\n"
    points.write_text(points.read_text().replace("blob_store.acme = acme_store", "") + more)
    points.write_text(
        points.read_text().replace("[crucible.adapters]\n\n", "[crucible.adapters]\n")
    )
    (folder / "acme_broken.py").write_text("raise RuntimeError('on fire')\n")
    return partial(plain_crucible, PYTHONPATH=path_with(folder))


def test_an_adapter_of_several_ports_is_shown_where_one_cannot_be_imported(
    half_broken: Crucible,
) -> None:
    outcome = half_broken("adapters", "show", "acme")
    assert outcome.code == 2
    assert outcome.out.startswith("metrics_store.acme\nacme_store 1.0, acme_store\n")
    assert outcome.err.startswith("error: hub_client.acme (acme_store 1.0) cannot be imported")
    assert "on fire" in outcome.err


def test_as_data_the_one_that_cannot_be_imported_has_its_problem(half_broken: Crucible) -> None:
    outcome = half_broken("adapters", "show", "acme", "--json")
    broken, whole = json.loads(outcome.out)
    assert outcome.code == 2
    assert (broken["port"], whole["port"]) == ("hub_client", "metrics_store")
    assert "on fire" in broken["problem"]
    assert whole["callbacks"]


def test_a_card_that_was_installed_and_is_missing_is_a_warning_of_the_doctor(
    tmp_path: Path, plain_crucible: Crucible
) -> None:
    folder = tmp_path / "packages"
    folder.mkdir()
    add_package(folder, "acme_store", "", "blob_store.acme")
    about = folder / "acme_store-1.0.dist-info"
    card = about / "extra_metadata" / "crucible" / "blob_store.acme.json"
    card.parent.mkdir(parents=True)
    card.write_text("{}")
    (about / "RECORD").write_text(f"{card.relative_to(folder)},{hash_of(card)},2\n")
    command = partial(plain_crucible, PYTHONPATH=path_with(folder))
    said = "acme_store card warning blob_store.acme.json was installed and is missing"
    assert said not in " ".join(command("doctor").out.split())
    shutil.rmtree(about / "extra_metadata")
    outcome = command("doctor")
    assert said in " ".join(outcome.out.split())
    assert outcome.out.splitlines()[-1].endswith("1 warning")


def test_where_no_adapter_is_installed_the_command_that_installs_one_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adapters, "catalog", lambda: Catalog((), ()))
    adapters.list_(False)
    said = capsys.readouterr().err
    assert said.startswith(
        "no adapter is installed; `crucible install torch` installs one, of torch, "
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_names_every_command(name: str) -> None:
    rows = [
        line for line in README.read_text("utf-8").splitlines() if line.startswith("| `crucible ")
    ]
    named = {
        word for row in rows for word in re.findall(r"`(?:crucible )?([a-z]+)", row.split("|")[1])
    }
    assert name in named
