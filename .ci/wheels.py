"""Build what is released: the sdist and the wheel of each package, with its report cards.

python .ci/wheels.py CARDS INTO                  # the core and all packages
python .ci/wheels.py CARDS INTO plugins/jsonl    # some of them

CARDS is a folder of report cards of a test run. Archives of the same packages in INTO are replaced.
If a card is partial or failed, or does not hold for what was built, nothing is written to INTO.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crucible_kitchen.adapters import kit
from crucible_kitchen.adapters.cards import Cards
from crucible_kitchen.adapters.discovery import ADAPTERS, ENVIRONMENTS
from crucible_kitchen.adapters.installed_card import InstalledCard
from crucible_kitchen.testing.report import ReportCard
from crucible_kitchen.version import __version__

ROOT = Path(__file__).parents[1]
HOLDS = ("checked", "known failures", "lower level")
"""The states of a card that may be released."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package of this repository.

    Args:
        folder: where its pyproject.toml is.
        name: the distribution's name.
        version: its version.
        offers: what may have a card, as `<port>.<name>` or `environment.<name>`.
    """

    folder: Path
    name: str
    version: str
    offers: Sequence[str]

    @classmethod
    def at(cls, folder: Path) -> Package:
        """Read its pyproject.toml."""
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        points = project.get("entry-points", {})
        environments = (f"environment.{name}" for name in points.get(ENVIRONMENTS, {}))
        offers = (*points.get(ADAPTERS, {}), *environments)
        return cls(folder, project["name"], project["version"], offers)

    @property
    def stem(self) -> str:
        """What the names of its archives begin with."""
        return f"{self.name.replace('-', '_')}-"


def cards_in(folder: Path) -> Sequence[ReportCard]:
    """Return the cards of a folder that are of an installed package, and of that alone.

    Raises:
        SystemExit: there are none, or a file is not a card.
    """
    cards = [card_of(path) for path in sorted(folder.glob("*.json"))]
    cards = [card for card in cards if card.package and not in_nested_wrappers(card)]
    if not cards:
        raise SystemExit(
            f"there is no report card of a package in {folder}; run `tox -e py311,backends` first"
        )
    return cards


def card_of(path: Path) -> ReportCard:
    """Read a card.

    Raises:
        SystemExit: it is not one.
    """
    try:
        return ReportCard.from_json(path.read_text("utf-8"))
    except (ValueError, TypeError, LookupError):
        raise SystemExit(f"{path} is not a report card; delete it, and test again") from None


def in_nested_wrappers(card: ReportCard) -> bool:
    """Whether a card is of `tests/support/around.py`: of several packages, the wrappers among them.

    Such a variant names all that is inside; that of a suite of the wrappers' package, one thing.
    """
    return card.variant.startswith("around ") and ", " in card.variant


def built(package: Package, cards: Sequence[ReportCard], into: Path) -> str:
    """Build a package with these cards; return what the build said.

    It is built from a copy, so that the repository has no cards in it, and outside of it, since an
    sdist lacks what a .gitignore names.

    Raises:
        SystemExit: it cannot be built.
    """
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary, package.name)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package.folder / "src", copy / "src", ignore=ignored)
        for file in filter(Path.is_file, package.folder.iterdir()):
            shutil.copy(file, copy)
        for card in cards:
            card.write(copy / "cards")
        done = subprocess.run(
            [sys.executable, "-m", "build", "--no-isolation", "--outdir", into, copy],
            env={**os.environ, "HATCH_BUILD_HOOK_ENABLE_CRUCIBLE": "true"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{package.name} cannot be built")
    return done.stdout


def carried(package: Package, archives: Path) -> Sequence[InstalledCard]:
    """Return the cards of a wheel, read as those of an installed package are."""
    [wheel] = archives.glob(f"{package.stem}*.whl")
    with tempfile.TemporaryDirectory() as site, zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        name, version, *_ = wheel.name.split("-")
        return Cards().of(package.name, version, f"{site}/{name}-{version}.dist-info")


def problems(
    given: Sequence[ReportCard], found: Sequence[InstalledCard], said: str
) -> Iterator[str]:
    """Yield which cards of a package are not in its wheel, or do not hold for it, and why."""
    for name in sorted({card.file_name for card in given} - {card.file for card in found}):
        why = (line.strip() for line in said.splitlines() if f"{name} is left out" in line)
        yield next(why, f"{name} is not in the wheel")
    for card in found:
        if card.state not in HOLDS:
            yield f"{card.file}: {card.words} {card.changed or card.problem}".rstrip()
        elif (card.core, card.kit_digest) != (__version__, kit.digest()):
            # Known failures are the worse state, which hides this one.
            yield f"{card.file}: checked by another core or kit"


def show(package: Package, cards: Sequence[InstalledCard]) -> Sequence[str]:
    """Print which cards a wheel carries; return the names of what has none."""
    print(f"{package.name} {package.version}")
    without = []
    for offered in package.offers:
        mine = [card for card in cards if f"{card.port}.{card.adapter}" == offered]
        for card in mine:
            on = f" on {card.variant}" if card.variant else ""
            print(f"  {offered}{on}: {card.words} ({card.summary})")
        if not mine:
            without.append(offered)
            print(f"  {offered}: no card")
    return without


def release(packages: Sequence[Package], cards: Sequence[ReportCard], into: Path) -> None:
    """Build packages into a folder, and print which cards each carries.

    Raises:
        SystemExit: one cannot be built, or a card is not to be released.
    """
    of = {each.name: [card for card in cards if card.package == each.name] for each in packages}
    if bad := [f"{c.title}: {c.summary}" for each in of.values() for c in each if not c.ok]:
        raise SystemExit("\n".join(["partial or failed, so nothing is built:", *bad]))
    wrong: list[str] = []
    without: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for package in packages:
            said = built(package, of[package.name], work)
            found = carried(package, work)
            wrong += problems(of[package.name], found, said)
            without += show(package, found)
        if wrong:
            raise SystemExit(
                "\n".join(["not what was tested, so nothing is released; test again:", *wrong])
            )
        into.mkdir(parents=True, exist_ok=True)
        for old in (old for package in packages for old in into.glob(f"{package.stem}*")):
            if old.is_file():
                old.unlink()
        for archive in work.iterdir():
            shutil.copy(archive, into)
    print(f"built in {into}; without a card: {', '.join(without) or 'none'}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cards", metavar="CARDS", type=Path)
    parser.add_argument("into", metavar="INTO", type=Path)
    parser.add_argument("folders", metavar="PACKAGE", type=Path, nargs="*")
    arguments = parser.parse_args()
    plugins = [path.parent for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))]
    folders = arguments.folders or [ROOT / "core", ROOT / "kitchen_noop", *plugins]
    for folder in folders:
        if not (folder / "pyproject.toml").is_file():
            parser.error(f"{folder} is not a package: it has no pyproject.toml")
    release([Package.at(folder) for folder in folders], cards_in(arguments.cards), arguments.into)


if __name__ == "__main__":
    main()
