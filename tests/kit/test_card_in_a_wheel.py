"""From `crucible check --card` to what users of the installed wheel are told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import COMMAND, clean_environ
from crucible_kitchen.adapters import kit

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HOOK = "\n[tool.hatch.build.hooks.crucible]\n"
MODULE = "src/crucible_adapter_acme/blob_store.py"
KIT = "core/src/crucible_kitchen/adapters/kit.py"


def python(folder: Path, *arguments: str, path: Path | None = None) -> str:
    """Run Python in a folder, with packages of another one; return what it says."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=clean_environ(**({"PYTHONPATH": str(path)} if path else {})),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def install(wheel: Path, site: Path) -> None:
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"]
    python(site, *pip, "--upgrade", "--target", str(site), str(wheel))


def build(source: Path, into: Path, path: Path | None = None) -> tuple[Path, str]:
    """Build a wheel by way of the sdist, as `python -m build` does."""
    shutil.rmtree(into, ignore_errors=True)
    said = python(source, "-m", "build", "--no-isolation", "--outdir", str(into), path=path)
    [wheel] = into.glob("*.whl")
    return wheel, said


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the wheel of the core, of an upgraded one, or of one with an upgraded kit."""
    folder = tmp_path_factory.mktemp("cores")
    ignored = shutil.ignore_patterns("__pycache__", "tests")
    shutil.copytree(ROOT / "core", folder / "core", ignore=ignored)
    made: dict[str, Path] = {"now": build(folder / "core", folder / "now")[0]}
    version = next(
        line
        for line in (folder / "core/pyproject.toml").read_text().splitlines()
        if line.startswith("version = ")
    )
    replace(folder / "core/pyproject.toml", version, 'version = "98.0"')
    made["next"] = build(folder / "core", folder / "next")[0]
    replace(folder / KIT, f'LEVEL = "{kit.LEVEL}"', 'LEVEL = "9.0"')
    made["next with another kit"] = build(folder / "core", folder / "kit")[0]
    return made.__getitem__


@pytest.fixture(scope="module")
def development(
    cores: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A generated package with the hook and a card, and the folder of what is installed."""
    folder = tmp_path_factory.mktemp("development")
    site = folder / "site"
    site.mkdir()
    install(cores("now"), site)
    python(folder, *COMMAND[1:], "new", "adapter", "acme", "--port", "blob_store", path=site)
    package = folder / "crucible-adapter-acme"
    text = (package / "pyproject.toml").read_text()
    if HOOK not in text:
        (package / "pyproject.toml").write_text(text + HOOK)
    wheel, said = build(package, folder / "dist", site)
    assert "is left out" not in said
    install(wheel, site)  # the card is that of what is installed

    # With options, on which the package's own suite is run, its oracles included.
    check = ["check", "blob_store.acme", f"folder={folder / 'blobs'}", "--card", "cards"]
    python(package, *COMMAND[1:], *check, path=site)
    return package, site


@pytest.fixture
def package(development: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of the package, to be changed."""
    return Path(shutil.copytree(development[0], tmp_path / "package"))


@pytest.fixture
def shown(
    development: tuple[Path, Path], cores: Callable[[str], Path], tmp_path: Path
) -> Callable[..., str]:
    """Build a package, install it elsewhere, and return what the list says of it."""

    def show(
        package: Path, core: str = "now", change: Callable[[Path], object] | None = None
    ) -> str:
        wheel, said = build(package, tmp_path / "dist", development[1])
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        install(cores(core), elsewhere)
        install(wheel, elsewhere)
        if change:
            change(elsewhere)
        listed = python(tmp_path, *COMMAND[1:], "adapters", path=elsewhere)
        [line] = [line for line in listed.splitlines() if "crucible-adapter-acme" in line]
        warnings = [line for line in said.splitlines() if "is left out" in line]
        return "\n".join([" ".join(line.split()[4:]), *warnings])

    return show


def test_a_package_as_it_was_checked_is_checked(package: Path, shown: Callable[..., str]) -> None:
    assert shown(package) == "checked"


def test_one_byte_that_differs_is_a_change(package: Path, shown: Callable[..., str]) -> None:
    def change(site: Path) -> None:
        replace(site / "crucible_adapter_acme/blob_store.py", "import", "Import")

    assert shown(package, change=change) == "changed since its check"


def test_an_upgraded_core_is_another_core(package: Path, shown: Callable[..., str]) -> None:
    assert shown(package, "next").startswith("checked with core 0.")


def test_an_upgraded_kit_makes_an_older_kit_of_the_other(
    package: Path, shown: Callable[..., str]
) -> None:
    assert shown(package, "next with another kit").startswith("checked by older kit 1.")


def changed_source(package: Path) -> str:
    with open(package / MODULE, "a") as file:
        file.write("# changed\n")
    return "crucible_adapter_acme/blob_store.py is not as it was when it was checked"


def changed_version(package: Path) -> str:
    replace(package / "pyproject.toml", 'version = "0.1.0"', 'version = "0.1.1"')
    return "it is of version 0.1.0, this is 0.1.1"


def no_card(package: Path) -> str:
    [card] = package.glob("cards/*.json")
    card.write_text("{}")
    return "'port' is not a short text"


def second_package(package: Path) -> str:
    """What is checked is an editable install, say, of which a card knows one import package."""
    (package / "src/acme_core").mkdir()
    (package / "src/acme_core/__init__.py").write_text("")
    old = 'packages = ["src/crucible_adapter_acme"'
    replace(package / "pyproject.toml", old, f'{old}, "src/acme_core"')
    return "acme_core/__init__.py was not there when it was checked"


@pytest.mark.parametrize("change", [changed_source, changed_version, no_card, second_package])
def test_a_card_that_does_not_fit_is_left_out_and_stops_no_build(
    package: Path, shown: Callable[..., str], change: Callable[[Path], str]
) -> None:
    why = change(package)
    line, *warnings = shown(package).splitlines()
    assert line == "not checked"
    assert why in warnings[-1]
    assert "blob_store.acme.json is left out" in warnings[-1]


def test_an_editable_install_is_not_checked(
    package: Path, development: tuple[Path, Path], tmp_path: Path
) -> None:
    """Its files change, so a card would hold for a minute."""
    site = tmp_path / "editable"
    site.mkdir()
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"]
    editable = ["--no-build-isolation", "--target", str(site), "--editable", str(package)]
    python(site, *pip, *editable, path=development[1])
    [about] = site.glob("*.dist-info")
    assert not (about / "extra_metadata").exists()


def test_checking_and_installing_again_restores_the_card(
    package: Path, shown: Callable[..., str], development: tuple[Path, Path], tmp_path: Path
) -> None:
    changed_source(package)
    wheel, _ = build(package, tmp_path / "changed", development[1])
    site = Path(shutil.copytree(development[1], tmp_path / "site"))
    install(wheel, site)

    python(package, *COMMAND[1:], "check", "blob_store.acme", "--card", "cards", path=site)
    assert shown(package) == "checked"
    assert os.listdir(package / "cards") == ["blob_store.acme.json"]
