"""What a message may suggest to install is what this repository releases, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import clean_environ
from crucible_kitchen import PORTS
from crucible_kitchen.adapters.discovery import ADAPTERS, KINDS, Catalog, catalog
from crucible_kitchen.adapters.known_packages import by_preference, packages_of
from crucible_kitchen.configuration.suggestions import is_synthetic, not_configured, wraps

ROOT = Path(__file__).resolve().parents[2]


def released() -> Iterator[tuple[str, str, str]]:
    """Yield the port, the name and the package of each adapter of the repository; of what has no
    port, such as environments, the kind.
    """
    for file in (ROOT / "kitchen_noop" / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        for group, points in project["entry-points"].items():
            for point in points:
                port, _, name = point.partition(".")
                yield (
                    (port, name, project["name"])
                    if group == ADAPTERS
                    else (
                        KINDS[group],
                        point,
                        project["name"],
                    )
                )


def test_the_known_packages_are_those_of_the_repository() -> None:
    kinds = [*PORTS, *KINDS.values()]
    known = [(kind, *pair) for kind in kinds for pair in packages_of(kind).items()]
    assert sorted(known) == sorted(released())


@pytest.mark.parametrize("port", PORTS)
def test_adapters_that_serve_no_port_alone_or_make_results_up_come_last(port: str) -> None:
    names = by_preference(port, [*packages_of(port), "of another package"])
    others = names.index("of another package")
    installed = [entry for entry in catalog().entries if entry.port == port]
    last = {entry.name for entry in installed if wraps(entry) or is_synthetic(entry)}
    assert last == {name for name in names[others:] if name in {e.name for e in installed}}
    assert last.isdisjoint(names[:others])


# --- with the core and the noop alone ---


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Catalog:
    """What is found where the core and the noop alone are installed."""
    noop = [entry for entry in catalog().entries if entry.package == "crucible-adapter-noop"]
    assert noop
    return Catalog(tuple(noop), ())


def test_a_stand_in_is_not_suggested_for_an_adapter(bare: Catalog) -> None:
    said = not_configured(["training_client", "completer", "metrics_store"], bare, "my.toml")
    assert (
        said
        == """\
no adapter is chosen for training_client, completer, metrics_store; add to my.toml

    [adapters]
    training_client = "torch"
    completer = "torch"
    metrics_store = "jsonl"

installed for training_client: noop
installed for completer: noop
installed for metrics_store: noop
to get one: pip install crucible-adapter-torch crucible-adapter-jsonl"""
    )


ALONE = """
import sys
import importlib_metadata
from crucible_kitchen.cli import main

everything = importlib_metadata.distributions
importlib_metadata.distributions = lambda **where: (
    each for each in everything(**where)
    if each.name == "crucible-kitchen" or each.name == "crucible-adapter-noop"
)
for command in sys.argv[1:]:
    sys.argv = ["crucible", *command.split()]
    try:
        main()
    except SystemExit:
        pass
"""
COMMANDS = [
    "adapters",
    "adapters show noop",
    "adapters show torch",
    "run workflow.use=supervised workflow.model=m workflow.dataset=d",
    "init",
    "doctor",
    "doctor adapters.completer=retry",
    *(f"config adapters.{port}={name}" for port in PORTS for name in ("noop", "torhc", "tinkr")),
]


def test_with_the_core_and_the_noop_alone_no_message_names_an_unreleased_package(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *COMMANDS],
        cwd=tmp_path,
        env=clean_environ(COLUMNS="400"),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    said = done.stdout + done.stderr + (tmp_path / "crucible.toml").read_text()
    named = {*re.findall(r"crucible-(?:adapter|environment|observer)-[\w-]+", said)}
    assert "crucible-adapter-noop" in named  # it is installed
    assert "crucible-adapter-torch" in named  # it may be
    assert named <= {package for _, _, package in released()}
    installable = re.findall(r"pip install ([^`\n;]+)", said)
    assert {name for names in installable for name in names.split()} <= named
