"""`crucible lock`, `sync`, `run --locked`, and `install` as far as nothing is installed."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commands import Crucible, add_package, path_with

CONFIGURATION = """
[adapters]
training_client = "noop"
dataset_store = "noop"
metrics_store = "noop"
blob_store = { use = "fsspec", url = "runs" }
[workflow]
use = "supervised"
model = "tiny"
dataset = "x"
max_steps = 1
run_id = "mine"
[profile.other.adapters]
hub_client = "noop"
"""
NOTICED = "import pathlib\npathlib.Path(__file__).with_name('was_imported').touch()\n"


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path) -> None:
    (tmp_path / "crucible.toml").write_text(CONFIGURATION)


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """An installed adapter `acme`, which notes that it was imported."""
    folder = tmp_path / "packages"
    folder.mkdir()
    add_package(folder, "acme", NOTICED, "hub_client.acme")
    return folder


@pytest.fixture
def command(plain_crucible: Crucible, packages: Path) -> Crucible:
    return partial(plain_crucible, PYTHONPATH=path_with(packages))


def make_package(packages: Path) -> None:
    """Make an import package of the module `acme`, as an installer leaves it."""
    (packages / "acme.py").unlink()
    (packages / "acme").mkdir()
    (packages / "acme" / "__init__.py").touch()
    digest = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"  # of nothing
    (packages / "acme-1.0.dist-info" / "RECORD").write_text(f"acme/__init__.py,{digest},0\n")


def document(tmp_path: Path) -> dict[str, Any]:
    return tomllib.loads((tmp_path / "pylock.toml").read_text())


def names(tmp_path: Path) -> set[str]:
    return {package["name"] for package in document(tmp_path)["packages"]}


def edit(tmp_path: Path, name: str, pattern: str, text: str) -> None:
    """Change the entry of a package in the lock."""
    file = tmp_path / "pylock.toml"
    before, entry, after = re.split(
        rf'(\[\[packages\]\]\nname = "{name}".*?)(?=\n\[\[packages\]\])',
        file.read_text(),
        maxsplit=1,
        flags=re.DOTALL,
    )
    changed = re.sub(pattern, text, entry)
    assert changed != entry
    file.write_text(before + changed + after)


def test_the_lock_lies_next_to_the_settings_and_has_all_that_they_need(
    tmp_path: Path, command: Crucible
) -> None:
    outcome = command("lock")
    assert outcome.code == 0, outcome
    found = names(tmp_path)
    assert {"crucible-kitchen", "crucible-adapter-noop", "crucible-adapter-fsspec"} <= found
    assert {"fsspec", "pydantic", "pydantic-core", "numpy"} <= found
    assert "pytest" not in found
    assert document(tmp_path)["tool"]["crucible"]["plugins"] == {
        "blob_store.fsspec": "crucible-adapter-fsspec",
        "dataset_store.noop": "crucible-adapter-noop",
        "hub_client.noop": "crucible-adapter-noop",
        "metrics_store.noop": "crucible-adapter-noop",
        "training_client.noop": "crucible-adapter-noop",
        "workflow supervised": "crucible-kitchen",
    }


def test_locking_imports_no_plugin(packages: Path, command: Crucible) -> None:
    assert command("lock", "adapters.hub_client=acme").code == 0
    assert command("lock", "--check", "adapters.hub_client=acme").code == 0
    assert not (packages / "was_imported").exists()


def test_an_adapter_inside_another_is_locked(tmp_path: Path, command: Crucible) -> None:
    command("lock", "adapters.hub_client.use=retry", "adapters.hub_client.inner=acme")
    assert {"acme", "crucible-adapter-compose"} <= names(tmp_path)


@pytest.mark.parametrize("package", ["acme_blobs", "acme-blobs", "Acme.Blobs"])
def test_the_distribution_of_an_inner_adapter_is_named_as_indexes_compare_names(
    tmp_path: Path, packages: Path, command: Crucible, package: str
) -> None:
    add_package(packages, "Acme_Blobs", NOTICED, "hub_client.more")
    inner = f"adapters.hub_client.inner.use={package}/more"
    outcome = command("lock", "adapters.hub_client.use=retry", inner)
    assert outcome.code == 0, outcome
    assert document(tmp_path)["tool"]["crucible"]["plugins"]["hub_client.more"] == "acme-blobs"
    # Its name in the list of packages is the same, so that it is no surplus.
    kept = command("sync", "--dry-run").err
    assert kept.startswith("not in the lock, and kept: acme, crucible")
    assert "blobs" not in kept.lower()


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("adapters.hub_client.inner.use=gone", "adapters.hub_client.inner names 'gone'"),
        ("workflow.environment=gone", "workflow.environment names 'gone'"),
        ("workflow.environment.use=gone", "workflow.environment names 'gone'"),
        ("workflow.environment=mine:it", "mine:it, which is in no distribution"),
    ],
)
def test_what_options_name_and_is_not_locked_is_said(
    command: Crucible, setting: str, said: str
) -> None:
    outcome = command("lock", "adapters.hub_client.use=retry", setting)
    assert f"not locked: {said}" in outcome.err, outcome


def test_where_nothing_is_configured_there_is_nothing_to_lock(
    tmp_path: Path, command: Crucible
) -> None:
    (tmp_path / "crucible.toml").unlink()
    outcome = command("lock")
    assert (outcome.code, "nothing is configured here" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("setting", "plugin"),
    [
        ("workflow.use=acme", "workflow acme"),
        ("workflow.environment=acme", "environment acme"),
        ("workflow.environment.use=acme", "environment acme"),
        ("observe.acme=true", "observer acme"),
        ("observe.acme.folder=x", "observer acme"),
    ],
)
def test_what_is_no_adapter_is_locked_too(
    tmp_path: Path, packages: Path, command: Crucible, setting: str, plugin: str
) -> None:
    groups = ("workflows", "environments", "observers")
    points = "".join(f"[crucible.{group}]\nacme = acme:it\n" for group in groups)
    (packages / "acme-1.0.dist-info" / "entry_points.txt").write_text(points)
    assert command("lock", setting).code == 0
    assert "acme" in names(tmp_path)
    assert document(tmp_path)["tool"]["crucible"]["plugins"][plugin] == "acme"
    assert not (packages / "was_imported").exists()


def test_an_observer_that_is_switched_off_is_not_locked(
    tmp_path: Path, packages: Path, command: Crucible
) -> None:
    points = "[crucible.observers]\nacme = acme:it\n"
    (packages / "acme-1.0.dist-info" / "entry_points.txt").write_text(points)
    assert command("lock", "observe.acme=false").code == 0
    assert "acme" not in names(tmp_path)


def test_a_workflow_of_a_file_is_in_no_distribution(tmp_path: Path, command: Crucible) -> None:
    outcome = command("lock", "workflow.use=mine.py:flow")
    assert outcome.code == 0
    assert "not locked: mine.py:flow, which is in no distribution" in outcome.err


def test_what_is_chosen_and_not_installed_is_a_mistake_that_changes_no_file(
    tmp_path: Path, command: Crucible
) -> None:
    outcome = command("lock", "adapters.hub_client=acm")
    assert outcome.code == 2
    assert "no hub_client adapter is named 'acm'; did you mean 'acme'?" in outcome.err
    assert not (tmp_path / "pylock.toml").exists()


def test_what_another_profile_names_and_is_not_installed_is_said(
    tmp_path: Path, command: Crucible
) -> None:
    (tmp_path / "crucible.toml").write_text(
        CONFIGURATION.replace('hub_client = "noop"', 'hub_client = "gone"')
    )
    outcome = command("lock")
    assert outcome.code == 0
    assert "not locked: [profile.other] no hub_client adapter is named 'gone'" in outcome.err


def test_a_locked_run_runs_where_nothing_differs(tmp_path: Path, command: Crucible) -> None:
    command("lock")
    outcome = command("run", "--locked")
    assert outcome.code == 0, outcome


@pytest.mark.parametrize(
    ("name", "pattern", "text", "said"),
    [
        ("numpy", r'version = "(.*?)"', r'version = "1.0"', "numpy is .*, locked is 1.0"),
        ("numpy", "files = .*", 'files = "sha256:0"', "numpy .* has other files than the one"),
        ("numpy", '"numpy"', '"not-there"', "not-there .* is not installed"),
    ],
)
def test_a_locked_run_refuses_what_differs_and_says_what(
    tmp_path: Path, command: Crucible, name: str, pattern: str, text: str, said: str
) -> None:
    command("lock")
    edit(tmp_path, name, pattern, text)
    outcome = command("run", "--locked")
    assert outcome.code == 2
    assert re.search(f"  - {said}", outcome.err), outcome.err
    assert not (tmp_path / "runs").exists()


def test_a_locked_run_refuses_another_adapter_before_it_is_imported(
    packages: Path, command: Crucible
) -> None:
    command("lock")
    outcome = command("run", "--locked", "adapters.hub_client=acme")
    assert outcome.code == 2
    assert "hub_client.acme (acme) is chosen, and is not in the lock" in outcome.err
    assert not (packages / "was_imported").exists()


def test_a_locked_run_refuses_a_plugin_whose_files_were_changed(
    packages: Path, command: Crucible
) -> None:
    digest = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"  # of nothing
    (packages / "acme-1.0.dist-info" / "RECORD").write_text(f"acme.py,{digest},0\n")
    (packages / "acme.py").write_text("")
    command("lock", "adapters.hub_client=acme")
    (packages / "acme.py").write_text("#")
    outcome = command("run", "--locked", "adapters.hub_client=acme")
    assert "acme was changed after it was installed: acme.py" in outcome.err


def test_a_locked_run_refuses_a_module_that_was_not_installed(
    packages: Path, command: Crucible
) -> None:
    make_package(packages)
    command("lock", "adapters.hub_client=acme")
    (packages / "acme" / "evil.py").touch()
    outcome = command("run", "--locked", "adapters.hub_client=acme")
    assert "acme was not installed with acme/evil.py: remove that" in outcome.err


def test_what_happens_to_complete_an_extra_later_differs_in_nothing(
    tmp_path: Path, packages: Path, command: Crucible
) -> None:
    metadata = packages / "acme-1.0.dist-info" / "METADATA"
    lines = metadata.read_text().rstrip("\n")
    metadata.write_text(f"{lines}\nRequires-Dist: zebra; extra == 'dev'\n")
    command("lock", "adapters.hub_client=acme")
    assert document(tmp_path)["tool"]["crucible"]["extras"]["acme"] == []
    add_package(packages, "zebra", "", "hub_client.zebra")
    assert command("lock", "--check", "adapters.hub_client=acme").code == 0
    command("lock", "adapters.hub_client=acme")
    assert document(tmp_path)["tool"]["crucible"]["extras"]["acme"] == ["dev"]
    assert "zebra" in names(tmp_path)


def test_a_locked_run_refuses_another_report_card(
    tmp_path: Path, packages: Path, command: Crucible
) -> None:
    cards = packages / "acme-1.0.dist-info" / "extra_metadata" / "crucible"
    cards.mkdir(parents=True)
    card = cards / "hub_client.acme.json"
    card.write_text('{"verdicts": []}')
    command("lock", "adapters.hub_client=acme")
    digest = hashlib.sha256(card.read_bytes()).hexdigest()
    found = document(tmp_path)["tool"]["crucible"]["cards"]
    assert found == {"acme hub_client.acme.json": digest}
    card.write_text('{"verdicts": [{}]}')
    outcome = command("run", "--locked", "adapters.hub_client=acme")
    assert "card acme hub_client.acme.json is not the one that was locked" in outcome.err
    card.unlink()
    outcome = command("run", "--locked", "adapters.hub_client=acme")
    assert "the report card acme hub_client.acme.json is gone" in outcome.err


@pytest.mark.parametrize("option", [("--index",), ("-f", "."), ("--from-run", "mine")])
def test_a_check_refuses_options_of_writing(command: Crucible, option: tuple[str, ...]) -> None:
    outcome = command("lock", "--check", *option)
    assert (outcome.code, "--check writes nothing: leave out" in outcome.err) == (2, True)


def test_a_lock_of_any_name_is_run_checked_and_named_in_the_advice(
    tmp_path: Path, command: Crucible
) -> None:
    assert command("lock", "-o", "pylock.mine.toml").code == 0
    assert command("run", "--lock", "pylock.mine.toml", "--dry-run").code == 0
    outcome = command("run", "--lock", "pylock.mine.toml", "adapters.hub_client=acme")
    assert outcome.code == 2
    assert "`crucible sync pylock.mine.toml` installs what is locked" in outcome.err
    assert "with the same settings and -o pylock.mine.toml locks" in outcome.err
    assert not (tmp_path / "runs").exists()


def test_the_lock_of_a_run_replaces_no_other_unasked(tmp_path: Path, command: Crucible) -> None:
    command("lock")
    before = (tmp_path / "pylock.toml").read_bytes()
    assert command("run").code == 0
    outcome = command("lock", "--from-run", "mine")
    assert (outcome.code, "such as -o pylock.run.toml" in outcome.err) == (2, True), outcome
    assert (tmp_path / "pylock.toml").read_bytes() == before
    assert command("lock", "--from-run", "mine", "-o", "pylock.toml").code == 0


def test_locking_again_keeps_where_distributions_come_from(
    tmp_path: Path, packages: Path, command: Crucible
) -> None:
    digest = "sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"  # of nothing
    record = packages / "acme-1.0.dist-info" / "RECORD"
    record.write_text(f"acme.py,{digest},0\n")
    offer(tmp_path / "w", "acme", "1.0", "")
    with zipfile.ZipFile(tmp_path / "w" / "acme-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("acme-1.0.dist-info/RECORD", f"acme.py,{digest},0\n")

    def wheels(*arguments: str) -> list[Any]:
        command("lock", "adapters.hub_client=acme", *arguments)
        [acme] = [p for p in document(tmp_path)["packages"] if p["name"] == "acme"]
        return list(acme.get("wheels", []))

    assert [each["path"] for each in wheels("-f", "w")] == ["w/acme-1.0-py3-none-any.whl"]
    assert [each["path"] for each in wheels()] == ["w/acme-1.0-py3-none-any.whl"]
    record.write_text(f"acme.py,{digest},0\nmore.py,{digest},0\n")
    assert wheels() == []


def test_without_a_lock_a_locked_run_says_what_writes_one(command: Crucible) -> None:
    outcome = command("run", "--locked")
    assert outcome.code == 2
    assert "there is no pylock.toml; `crucible lock` writes one" in outcome.err


def test_the_record_of_a_run_restores_its_lock(tmp_path: Path, command: Crucible) -> None:
    command("lock")
    before = document(tmp_path)
    assert command("run").code == 0
    (tmp_path / "pylock.toml").unlink()
    outcome = command("lock", "--from-run", "mine")
    assert outcome.code == 0, outcome
    after = document(tmp_path)
    assert {p["name"] for p in before["packages"]} == {p["name"] for p in after["packages"]}
    assert [p.get("tool") for p in before["packages"] if "directory" not in p] == [
        p.get("tool") for p in after["packages"] if p["name"] not in editable(before)
    ]
    plugins = {**before["tool"]["crucible"]["plugins"]}
    del plugins["hub_client.noop"]  # of a profile that was not chosen
    assert after["tool"]["crucible"]["plugins"] == plugins


def editable(found: dict[str, Any]) -> set[str]:
    return {package["name"] for package in found["packages"] if "directory" in package}


def test_a_run_without_a_lock_in_its_record_is_named(tmp_path: Path, command: Crucible) -> None:
    command("run")
    file = tmp_path / "runs" / "mine" / "run.json"
    record = json.loads(file.read_text())
    del record["lock"]
    file.write_text(json.dumps(record))
    outcome = command("lock", "--from-run", "mine")
    assert (outcome.code, "the record of the run 'mine' has no lock" in outcome.err) == (2, True)
    assert "did you mean 'mine'?" in command("lock", "--from-run", "mien").err


def test_a_dry_sync_shows_what_would_change_and_changes_nothing(
    tmp_path: Path, command: Crucible
) -> None:
    command("lock")
    assert command("sync", "--dry-run").out == "everything is installed as it is locked\n"
    edit(tmp_path, "numpy", r'version = ".*?"', 'version = "1.0"')
    outcome = command("sync", "--dry-run")
    assert outcome.code == 0
    assert re.search(r"^numpy +\d\S+ +1\.0$", outcome.out, re.MULTILINE), outcome.out
    assert "not in the lock, and kept: acme" in outcome.err


def test_a_sync_fails_where_a_locked_run_refuses_a_module_that_was_not_installed(
    packages: Path, command: Crucible
) -> None:
    make_package(packages)
    command("lock", "adapters.hub_client=acme")
    (packages / "acme" / "evil.py").touch()
    said = "acme was not installed with acme/evil.py: remove that"
    for arguments in (["sync"], ["sync", "--dry-run"]):
        outcome = command(*arguments)
        assert (outcome.code, outcome.out, said in outcome.err) == (1, "", True), outcome
    (packages / "acme" / "evil.py").unlink()
    assert command("sync").out == "everything is installed as it is locked\n"


def test_a_sync_notices_a_changed_byte_of_any_distribution_as_a_check_does(
    tmp_path: Path, packages: Path, command: Crucible
) -> None:
    make_package(packages)
    add_package(packages, "zebra", "", "observer.zebra")
    record = "zebra.py,sha256=ypeBEsobvcr6wjGzmiPcTaeG7_gUfE5yuYB3ha_uSLs,1\n"  # of the letter a
    (packages / "zebra-1.0.dist-info" / "RECORD").write_text(record)
    (packages / "zebra.py").write_text("a")
    metadata = packages / "acme-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().rstrip() + "\nRequires-Dist: zebra\n")
    command("lock", "adapters.hub_client=acme")
    (packages / "zebra.py").write_text("b")
    outcome = command("lock", "--check", "adapters.hub_client=acme")
    assert "zebra was changed after it was installed: zebra.py" in outcome.err
    assert re.search(r"^zebra +1\.0, other files +1\.0$", command("sync", "--dry-run").out, re.M)


def test_a_sync_that_fails_has_said_what_it_asked_for(tmp_path: Path, command: Crucible) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "crucible-kitchen"\n'
        '[[packages]]\nname = "crucible-adapter-zebra"\nversion = "1.0"\n'
    )
    outcome = command("sync", "--no-index", "-f", "empty")
    assert outcome.code == 1
    assert "\n    crucible-adapter-zebra==1.0\n$ " in outcome.err, outcome
    assert "`crucible sync --dry-run` says what is still missing" in outcome.err


# --- install ---


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("fsspec", "crucible-adapter-fsspec"),
        ("blob_store.fsspec", "crucible-adapter-fsspec"),
        ("fsspec[s3]==1.0", "'crucible-adapter-fsspec[s3]==1.0'"),
        ("wandb", "crucible-observer-wandb"),
        ("environment.trl", "crucible-environment-trl"),
        ("crucible-adapter-torch", "crucible-adapter-torch"),
        ("crucible-adapter-acme", "crucible-adapter-acme"),
        ("compose", "crucible-adapter-compose"),
        ("acme", "acme"),  # which is installed
        ("hub_client.acme[s3]", "'acme[s3]'"),
        ("./a-1.0-py3-none-any.whl", "./a-1.0-py3-none-any.whl"),
    ],
)
def test_the_name_of_an_adapter_means_its_distribution(
    command: Crucible, name: str, distribution: str
) -> None:
    outcome = command("install", "--dry-run", name)
    assert outcome.code == 0, outcome
    assert outcome.out.rstrip().endswith(f" install {distribution}")


def test_a_misspelt_name_is_not_looked_for_in_an_index(command: Crucible) -> None:
    outcome = command("install", "fsspek")
    assert outcome.code == 2
    assert "no adapter is named 'fsspek'; did you mean 'fsspec'?" in outcome.err
    assert "$ " not in outcome.err


@pytest.mark.parametrize("name", ["zebra", "hub_client.zebra", "zebra==1.0", "numpy"])
def test_a_name_that_nobody_knows_is_not_looked_for_in_an_index(
    command: Crucible, name: str
) -> None:
    outcome = command("install", name)
    assert outcome.code == 2
    assert "an index may have something else under that name" in outcome.err, outcome
    assert "in full, such as crucible-adapter-" in outcome.err
    assert "$ " not in outcome.err


def offer(folder: Path, distribution: str, version: str, points: str) -> None:
    folder.mkdir(exist_ok=True)
    name = f"{distribution}-{version}"
    with zipfile.ZipFile(folder / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.dist-info/entry_points.txt", points)


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("zebra", "crucible-adapter-zebra==2.0"),
        ("blob_store.zebra", "crucible-adapter-zebra==2.0"),
        ("zebra<2", "crucible-adapter-zebra==1.0"),
        ("zebra[s3]", "'crucible-adapter-zebra[s3]==2.0'"),
        ("crucible-adapter-zebra", "crucible-adapter-zebra==2.0"),
        ("observer.stripes", "zoo-plugins==3.0"),
        ("zoo_plugins", "zoo-plugins==3.0"),
    ],
)
def test_a_name_may_be_that_of_what_a_wheel_in_a_folder_provides(
    tmp_path: Path, command: Crucible, name: str, distribution: str
) -> None:
    for version in ("1.0", "2.0"):
        points = "[crucible.adapters]\nblob_store.zebra = zebra:it\n[console_scripts]\nx = x:x\n"
        offer(tmp_path / "w", "crucible_adapter_zebra", version, points)
    offer(tmp_path / "w", "zoo_plugins", "3.0", "[crucible.observers]\nstripes = zoo:it\n")
    outcome = command("install", "--dry-run", "-f", "w", name)
    assert outcome.code == 0, outcome
    assert outcome.out.rstrip().endswith(f"/w {distribution}")


def test_what_is_in_a_wheel_without_plugins_is_not_installed(
    tmp_path: Path, command: Crucible
) -> None:
    offer(tmp_path / "w", "zebra", "1.0", "[console_scripts]\nx = x:x\n")
    (tmp_path / "w" / "torn-1.0-py3-none-any.whl").write_bytes(b"PK")
    assert command("install", "--dry-run", "-f", "w", "zebra").code == 2
    assert "--find-links nowhere: No such file" in command("install", "-f", "nowhere", "x").err
    offer(tmp_path / "w", "zebra", "2.0", "[crucible.observers]\nzebra = zebra:it\n")
    outcome = command("install", "--dry-run", "-f", "w", "zebra>3")
    assert "no wheel in the folders has such a version" in outcome.err


def test_two_wheels_that_provide_one_name_are_an_error(tmp_path: Path, command: Crucible) -> None:
    for name in ("zebra_one", "zebra_two"):
        offer(tmp_path / "w", name, "1.0", "[crucible.adapters]\nblob_store.zebra = zebra:it\n")
    outcome = command("install", "-f", "w", "zebra")
    assert "several distributions provide 'zebra': zebra-one and zebra-two" in outcome.err


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("acme", "acme"),
        ("hub_client.acme>=1", "'acme>=1'"),
        ("fsspec[s3]", "'crucible-adapter-fsspec[s3]'"),
        ("crucible-kitchen", "crucible-kitchen"),
    ],
)
def test_what_is_upgraded_is_what_is_installed(
    command: Crucible, name: str, distribution: str
) -> None:
    outcome = command("upgrade", "--dry-run", name)
    assert outcome.out.rstrip().endswith(f" install --upgrade {distribution}"), outcome


@pytest.mark.parametrize("name", ["zebra", "numpy", "blob_store.acme"])
def test_what_is_not_installed_is_not_upgraded(command: Crucible, name: str) -> None:
    outcome = command("upgrade", name)
    assert (outcome.code, f"no plugin {name!r} is installed" in outcome.err) == (2, True)
    assert "`crucible install` installs one" in outcome.err


def test_uninstall_knows_what_is_installed(command: Crucible) -> None:
    outcome = command("uninstall", "--dry-run", "acme", "hub_client.acme")
    assert outcome.out.rstrip().endswith(" acme")
    assert "did you mean 'acme'?" in command("uninstall", "acne").err
    assert command("uninstall", "numpy").code == 2
    assert "pip uninstall crucible-kitchen" in command("uninstall", "crucible_kitchen").err
    compose = command("uninstall", "--dry-run", "compose").out
    assert compose.rstrip().endswith(" crucible-adapter-compose")


def test_installing_imports_no_plugin(packages: Path, command: Crucible) -> None:
    command("install", "--dry-run", "fsspec")
    command("uninstall", "--dry-run", "acme")
    assert not (packages / "was_imported").exists()


def test_the_exit_code_of_the_installer_is_passed_on(tmp_path: Path, command: Crucible) -> None:
    (tmp_path / "empty").mkdir()
    outcome = command("install", "--no-index", "-f", "empty", "crucible-adapter-nobody-has")
    assert outcome.code == 1
    assert "$ " in outcome.err
