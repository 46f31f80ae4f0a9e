"""A build hook of hatchling that puts report cards into wheels.

    [build-system]
    requires = ["hatchling>=1.26", "crucible-kitchen"]
    build-backend = "hatchling.build"

    [tool.hatch.build.hooks.crucible]

The cards are those of the folder `cards` next to `pyproject.toml`, or of the option `cards`. One
that does not fit what is being built is left out, with a warning, and never stops the build: a
wheel is also built by people who install a commit, and by those who work on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.plugin import hookimpl

from .card_files import CARDS, LARGEST, parsed
from .contents import hash_of, is_left_out


class CardBuildHook(BuildHookInterface[Any]):
    """Adds cards to the metadata of a wheel, but not of an editable one, whose files change."""

    PLUGIN_NAME = "crucible"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        folder = Path(self.root, self.config.get("cards", "cards"))
        found = sorted(folder.glob("*.json"))
        if not found:
            self.app.display_info(f"there is no report card in {folder}")
        for path in found:
            try:
                self._check(path)
            except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
                self.app.display_warning(
                    f"the report card {path.name} is left out: {error}; write it again with "
                    f"`crucible check ... --card {folder.name}`"
                )
            else:
                inside = f"{Path(CARDS).name}/{path.name}"
                build_data["extra_metadata"][str(path)] = inside

    def _check(self, path: Path) -> None:
        """Raise ValueError if a card does not fit the wheel."""
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has more than {LARGEST:,} bytes")
        fields, hashes = parsed(path.read_bytes(), self.metadata.core.raw_name)
        if fields["version"] != self.metadata.version:
            raise ValueError(
                f"it is of version {fields['version']}, this is {self.metadata.version}"
            )
        built = dict(self._built())
        for name in sorted({*built, *hashes}):
            if name not in hashes:
                raise ValueError(
                    f"{name} was not there when it was checked; a wheel that holds more than one "
                    "import package is installed first, and not as an editable one"
                )
            if built.get(name) != hashes[name]:
                raise ValueError(f"{name} is not as it was when it was checked")

    def _built(self) -> Iterator[tuple[str, str]]:
        """Yield the path and the hash of each file of the wheel."""
        for file in self.build_config.builder.recurse_included_files():
            name = file.distribution_path.replace("\\", "/")
            if not any(is_left_out(part) for part in name.split("/")):
                yield name, hash_of(file.path)


@hookimpl
def hatch_register_build_hook() -> type[CardBuildHook]:
    return CardBuildHook
